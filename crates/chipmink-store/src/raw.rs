//! Where blobs lie as they are, in files: what can be mapped instead of being read.

use crate::error::Result;
use crate::inner::Inner;
use chipmink_format::{Codec, pack_path};
use chipmink_types::{BlobError, Digest};
use object_store::path::Path;
use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

/// An open pack.
#[derive(Clone, Debug)]
pub struct RawFile {
    /// The file.
    pub file: Arc<File>,
    /// Where it lies below the repository.
    pub path: String,
    /// Length that it must have, in bytes.
    pub byte_len: u64,
}

/// Where some blobs lie.
#[derive(Clone, Debug, Default)]
pub struct RawPlaces {
    /// The packs that hold any of them as they are.
    pub files: Vec<RawFile>,
    /// For each blob: ordinal of its file and offset in it; `None`: it is compressed, or of another length than
    /// expected, or its pack is no file.
    pub places: Vec<Option<(usize, u64)>>,
}

/// Packs that are kept open by one who asks for places again and again; fewer than a process may have open.
const OPEN_MAX: usize = 256;

/// Packs that were opened, so that they need not be opened once more.
#[derive(Debug, Default)]
pub struct OpenPacks(HashMap<u32, Option<RawFile>>);

impl OpenPacks {
    fn get(&mut self, pack: u32, open: impl FnOnce() -> Option<RawFile>) -> Option<RawFile> {
        if self.0.len() >= OPEN_MAX && !self.0.contains_key(&pack) {
            self.0.clear();
        }
        self.0.entry(pack).or_insert_with(open).clone()
    }
}

impl Inner {
    /// Where blobs, given with their lengths, lie as they are. Nothing is read, and nothing checked.
    pub(crate) fn raw_places(
        &self,
        blobs: &[(Digest, u64)],
        packs: &mut OpenPacks,
    ) -> Result<RawPlaces, BlobError> {
        let Some(files) = self.backend.files() else {
            return Ok(RawPlaces { files: Vec::new(), places: vec![None; blobs.len()] });
        };
        let digests: Vec<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
        let found = self.resolve(&digests)?;
        let mut places = RawPlaces { files: Vec::new(), places: Vec::with_capacity(blobs.len()) };
        let mut opened: HashMap<u32, Option<usize>> = HashMap::new();
        for (found, (_, byte_len)) in found.iter().zip(blobs) {
            let location = found.location;
            if location.codec != Codec::Raw || location.stored_len != *byte_len {
                places.places.push(None);
                continue;
            }
            let ordinal = *opened.entry(location.pack).or_insert_with(|| {
                places.files.push(packs.get(location.pack, || {
                    let (path, byte_len) = {
                        let index = self.index();
                        let pack = index.pack(location.pack);
                        (pack_path(pack.name), pack.byte_len)
                    };
                    // A pack that cannot be opened is not mapped; reading finds another copy, or says what is wrong.
                    let file = Arc::new(files.open_file(&Path::from(path.as_str())).ok()?);
                    Some(RawFile { file, path, byte_len })
                })?);
                Some(places.files.len() - 1)
            });
            places.places.push(ordinal.map(|ordinal| (ordinal, location.byte_offset)));
        }
        Ok(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_packs_are_kept_than_may_be_and_each_is_opened_once() {
        let mut packs = OpenPacks::default();
        let mut opened = 0;
        for pack in 0..3 * OPEN_MAX as u32 {
            for _ in 0..2 {
                packs.get(pack, || {
                    opened += 1;
                    None
                });
            }
            assert!(packs.0.len() <= OPEN_MAX);
        }
        assert_eq!(opened, 3 * OPEN_MAX);
    }
}
