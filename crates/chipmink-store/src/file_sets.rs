//! File sets: files that another engine has written beside the packs, such as the parts of a frame.
//!
//! ```text
//!  remote/NAME/part-0.parquet    NAME is unguessable, and stands inside of a pod of the versions that need the set
//! ```
//!
//! It refuses to know which sets are needed, and what is in their files: nothing here has digests.
//!
//! 1. The files of a set are written once, and never changed: one of the same name and length is the same.
//! 2. A file that is copied is visible only when it is whole, so a copy that was interrupted goes on with the next file.

use crate::error::{Result, StoreError};
use crate::store::Store;
use crate::transfer::{Pace, Phase, Watch};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};

/// What the paths of all files of sets begin with.
const FOLDER: &str = "remote";
/// Bytes that are read and written at once.
const PIECE_LEN: u64 = 8 << 20;

/// A folder of files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileSet {
    /// Its name, by which versions know it.
    pub name: String,
    /// Its files.
    pub files: Vec<SetFile>,
    /// When the newest file was written, by the place's clock, in microseconds since 1970.
    pub written_at: i64,
}

/// A file of a set.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SetFile {
    /// Its path within the set.
    pub name: String,
    /// Its length in bytes.
    pub byte_len: u64,
}

fn path_of(set: &str, file: &str) -> String {
    format!("{FOLDER}/{set}/{file}")
}

impl Store {
    /// The sets that there are, by name.
    ///
    /// # Errors
    /// When the place cannot be listed.
    pub fn file_sets(&self) -> Result<Vec<FileSet>> {
        let mut sets: BTreeMap<String, FileSet> = BTreeMap::new();
        for found in self.backend().list_objects(FOLDER)? {
            let below = found.path.strip_prefix(FOLDER).and_then(|path| path.strip_prefix('/'));
            let Some((set, file)) = below.and_then(|path| path.split_once('/')) else { continue };
            let known = sets.entry(set.to_owned()).or_insert_with(|| FileSet {
                name: set.to_owned(),
                files: Vec::new(),
                written_at: found.modified_at,
            });
            known.files.push(SetFile { name: file.to_owned(), byte_len: found.byte_len });
            known.written_at = known.written_at.max(found.modified_at);
        }
        Ok(sets.into_values().collect())
    }

    /// The whole of a file of a set, which has `byte_len` bytes.
    ///
    /// # Errors
    /// When it is not there, is longer, or cannot be read.
    pub fn read_set_file(&self, set: &str, file: &SetFile) -> Result<Bytes> {
        self.backend().uncached().get(&path_of(set, &file.name), file.byte_len)
    }

    /// Removes a set. Of one that is gone already nothing is said.
    ///
    /// # Errors
    /// When a file cannot be removed; the others are.
    pub fn delete_file_set(&self, set: &FileSet) -> Result<()> {
        let paths: Vec<String> = set.files.iter().map(|file| path_of(&set.name, &file.name)).collect();
        self.backend().delete_all(&paths)
    }

    /// Copies files of sets that another repository lacks, at most `limit` bytes a second; returns how many bytes.
    ///
    /// # Errors
    /// When a place fails, or `watch` ends it. What was copied stays, and the next call goes on from there.
    pub fn copy_file_sets(
        &self,
        sets: &[FileSet],
        to: &Store,
        limit: Option<u64>,
        watch: &mut Watch<'_>,
    ) -> Result<u64> {
        if sets.is_empty() {
            return Ok(0);
        }
        let there: HashMap<String, FileSet> =
            to.file_sets()?.into_iter().map(|set| (set.name.clone(), set)).collect();
        let has = |set: &FileSet, file: &SetFile| {
            there.get(&set.name).is_some_and(|known| known.files.contains(file))
        };
        let missing: Vec<(&FileSet, &SetFile)> = sets
            .iter()
            .flat_map(|set| set.files.iter().map(move |file| (set, file)))
            .filter(|(set, file)| !has(set, file))
            .collect();
        let total = missing.iter().map(|(_, file)| file.byte_len).sum();
        let pace = Pace::new(limit);
        pace.begin(Phase::Copying, 0, total);
        for (set, file) in missing {
            self.copy_set_file(&path_of(&set.name, &file.name), file.byte_len, to, &pace, watch)?;
        }
        Ok(total)
    }

    fn copy_set_file(
        &self,
        path: &str,
        byte_len: u64,
        to: &Store,
        pace: &Pace,
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        let (from, to) = (self.backend().uncached(), to.backend());
        let failed = |error| StoreError::storage(format!("writing {path} in {}", to.label()), error);
        let mut output = to.create_below(path)?;
        let mut at = 0;
        while at < byte_len {
            let end = byte_len.min(at + PIECE_LEN);
            pace.take(end - at)?;
            output.write(&[&from.get_range(path, at..end)?]).map_err(failed)?;
            pace.add(end - at);
            pace.tell(watch)?;
            at = end;
        }
        output.finish().map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Backend;
    use crate::options::StoreOptions;
    use crate::place::Place;

    fn options() -> StoreOptions {
        StoreOptions { durable: false, ..StoreOptions::default() }
    }

    fn local(folder: &std::path::Path) -> Store {
        Store::create(Place::parse(folder.to_str().unwrap()).unwrap(), options()).unwrap()
    }

    fn copy(from: &Store, to: &Store) -> u64 {
        from.copy_file_sets(&from.file_sets().unwrap(), to, None, &mut |_| true).unwrap()
    }

    #[test]
    fn sets_are_copied_once_read_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let source = local(&folder.path().join("a"));
        let set = folder.path().join("a/remote/name.parquet");
        std::fs::create_dir_all(set.join("inner")).unwrap();
        let long: Vec<u8> = (0..PIECE_LEN + 5).map(|at| (at % 251) as u8).collect();
        for (name, bytes) in [("_SUCCESS", &b""[..]), ("part-0", &long), ("inner/part-1", b"short")] {
            std::fs::write(set.join(name), bytes).unwrap();
        }
        std::fs::write(folder.path().join("a/remote/loose"), b"no set").unwrap();

        let sets = source.file_sets().unwrap();
        assert_eq!(sets.len(), 1);
        assert_eq!((sets[0].name.as_str(), sets[0].files.len()), ("name.parquet", 3));
        assert!(sets[0].written_at > 0);

        let room = StoreOptions::default();
        let memory = Store::create_in(Backend::memory(1 << 30, room.gather), options()).unwrap();
        let far = local(&folder.path().join("b"));
        for target in [&far, &memory] {
            assert_eq!(copy(&source, target), PIECE_LEN + 10);
            assert_eq!(copy(&source, target), 0);
            let copied = target.file_sets().unwrap();
            assert_eq!(copied[0].files, sets[0].files);
            for file in &copied[0].files {
                let bytes = target.read_set_file("name.parquet", file).unwrap();
                assert_eq!(bytes, std::fs::read(set.join(&file.name)).unwrap());
            }
        }

        // A file that is lacking is copied again, and nothing else.
        std::fs::remove_file(folder.path().join("b/remote/name.parquet/inner/part-1")).unwrap();
        assert_eq!(copy(&source, &far), 5);
        let mut calls = 0;
        std::fs::remove_file(folder.path().join("b/remote/name.parquet/part-0")).unwrap();
        let stopped = source.copy_file_sets(&sets, &far, None, &mut |_| {
            calls += 1;
            false
        });
        assert!(matches!(stopped, Err(StoreError::Stopped)) && calls == 1);
        assert_eq!(far.file_sets().unwrap()[0].files.len(), 2);

        for store in [&source, &memory] {
            store.delete_file_set(&sets[0]).unwrap();
            store.delete_file_set(&sets[0]).unwrap();
            assert_eq!(store.file_sets().unwrap(), []);
        }
    }
}
