//! [`CachedObjects`]: what was read of packs, kept on a local disk for the next time and for other processes.
//!
//! ```text
//!  <folder>/packs-1/<two digits of the name>/<name of the pack>     one file for each pack, with holes
//!  slot k, at k × SLOT_LEN:   the pack's bytes from k × BLOCK_LEN on, so many of them,
//!                             their number (4, little-endian), digest of name, k and bytes (17)
//! ```
//!
//! Invariants:
//! 1. Packs never change and their names are random, so what is cached of one is right wherever it came from. Nothing else
//!    is cached.
//! 2. A block counts only with its digest: one that is torn, damaged, or of another pack is read again from the place.
//! 3. Nothing fails because of it: what cannot be kept is not kept.
//! 4. It takes little more than its bound: who has written a sixteenth of that looks, and removes what was not used for longest.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use chipmink_digest::digest;
use chipmink_format::{PackName, parse_pack_path};
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Bytes of a pack that are kept or read together.
const BLOCK_LEN: u64 = 64 << 10;
/// Bytes behind them: how many there are, and the digest.
const TRAILER_LEN: usize = 4 + 17;
/// Bytes from one block to the next in a file.
const SLOT_LEN: u64 = BLOCK_LEN + 4096;
/// How old the note of the last use of a file may be.
const USED_WITHIN: Duration = Duration::from_secs(60);

/// The folder of a cache, and its bound.
#[derive(Debug)]
pub(crate) struct CacheFolder {
    folder: PathBuf,
    byte_len_max: u64,
    /// Bytes written since this process has looked how many there are.
    written: AtomicU64,
}

impl CacheFolder {
    /// Makes the folder, which only this user can read, if it is not there.
    pub(crate) fn open(folder: &std::path::Path, byte_len_max: u64) -> io::Result<Self> {
        let folder = folder.join("packs-1");
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let cache = CacheFolder { folder, byte_len_max, written: AtomicU64::new(0) };
        cache.shrink();
        Ok(cache)
    }

    fn path(&self, pack: PackName) -> PathBuf {
        let name = pack.to_string();
        self.folder.join(&name[..2]).join(name)
    }

    /// The blocks of a pack that are kept, of those that are wanted.
    fn read(&self, pack: PackName, blocks: Range<u64>) -> Vec<Option<Bytes>> {
        let Ok(file) = File::open(self.path(pack)) else {
            return vec![None; (blocks.end - blocks.start) as usize];
        };
        note_use(&file);
        blocks.map(|block| read_block(&file, pack, block)).collect()
    }

    /// Keeps blocks of a pack. Best effort.
    fn keep(&self, pack: PackName, first: u64, bytes: &Bytes) {
        if self.try_to_keep(pack, first, bytes).is_ok() {
            let written = self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed) + bytes.len() as u64;
            if written > self.byte_len_max / 16 {
                self.written.store(0, Ordering::Relaxed);
                self.shrink();
            }
        }
    }

    fn try_to_keep(&self, pack: PackName, first: u64, bytes: &Bytes) -> io::Result<()> {
        let path = self.path(pack);
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        for (block, bytes) in (first..).zip(bytes.chunks(BLOCK_LEN as usize)) {
            let mut slot = bytes.to_vec();
            slot.extend_from_slice(&trailer(pack, block, bytes));
            // Behind a last, shorter block the trailer still has its place.
            let at = block * SLOT_LEN;
            file.write_all_at(&slot[..bytes.len()], at)?;
            file.write_all_at(&slot[bytes.len()..], at + BLOCK_LEN)?;
        }
        Ok(())
    }

    /// Removes what was not used for longest, if there is too much. Best effort.
    fn shrink(&self) {
        let mut files: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        let listed = |path: &std::path::Path| std::fs::read_dir(path).into_iter().flatten().flatten();
        for folder in listed(&self.folder) {
            for file in listed(&folder.path()) {
                let Ok(about) = file.metadata() else { continue };
                // It has holes.
                files.push((
                    about.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                    about.blocks() * 512,
                    file.path(),
                ));
            }
        }
        let mut total: u64 = files.iter().map(|(_, byte_len, _)| byte_len).sum();
        if total <= self.byte_len_max {
            return;
        }
        files.sort_unstable();
        // A little more than needed, so that it need not be done again at once.
        let goal = self.byte_len_max / 8 * 7;
        for (_, byte_len, path) in files {
            if total <= goal {
                break;
            }
            if std::fs::remove_file(path).is_ok() {
                total -= byte_len;
            }
        }
    }
}

/// Notes that a file was used, now and then.
fn note_use(file: &File) {
    let now = SystemTime::now();
    let noted = file.metadata().and_then(|about| about.modified());
    if noted.is_ok_and(|noted| now.duration_since(noted).is_ok_and(|since| since > USED_WITHIN)) {
        let _ = file.set_modified(now);
    }
}

fn trailer(pack: PackName, block: u64, bytes: &[u8]) -> [u8; TRAILER_LEN] {
    let mut all = Vec::with_capacity(bytes.len() + 24);
    all.extend_from_slice(&pack.0);
    all.extend_from_slice(&block.to_le_bytes());
    all.extend_from_slice(bytes);
    let mut trailer = [0; TRAILER_LEN];
    trailer[..4].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
    trailer[4..].copy_from_slice(digest(&all).as_bytes());
    trailer
}

fn read_block(file: &File, pack: PackName, block: u64) -> Option<Bytes> {
    let at = block.checked_mul(SLOT_LEN)?;
    let mut found = [0; TRAILER_LEN];
    file.read_exact_at(&mut found, at.checked_add(BLOCK_LEN)?).ok()?;
    let byte_len = u32::from_le_bytes(*found.first_chunk()?);
    if byte_len == 0 || u64::from(byte_len) > BLOCK_LEN {
        return None;
    }
    let mut bytes = vec![0; byte_len as usize];
    file.read_exact_at(&mut bytes, at).ok()?;
    (trailer(pack, block, &bytes) == found).then(|| bytes.into())
}

/// An object store of which what is read of packs is kept.
#[derive(Debug)]
pub(crate) struct CachedObjects {
    objects: Arc<dyn ObjectStore>,
    folder: Arc<CacheFolder>,
}

impl CachedObjects {
    pub(crate) fn new(objects: Arc<dyn ObjectStore>, folder: Arc<CacheFolder>) -> Self {
        CachedObjects { objects, folder }
    }

    /// Bytes of a pack, those that are not kept from the place; fewer if it ends before.
    async fn read(&self, location: &Path, pack: PackName, range: &Range<u64>) -> Result<Bytes> {
        let blocks = range.start / BLOCK_LEN..range.end.div_ceil(BLOCK_LEN);
        let mut found = self.folder.read(pack, blocks.clone());
        let mut at = 0;
        while at < found.len() {
            if found[at].is_some() {
                at += 1;
                continue;
            }
            let missing = found[at..].iter().take_while(|block| block.is_none()).count();
            let first = blocks.start + at as u64;
            let wanted = first * BLOCK_LEN..(first + missing as u64) * BLOCK_LEN;
            let options = GetOptions { range: Some(GetRange::Bounded(wanted)), ..GetOptions::default() };
            let bytes = self.objects.get_opts(location, options).await?.bytes().await?;
            self.folder.keep(pack, first, &bytes);
            for (block, from) in found[at..at + missing].iter_mut().zip((0..).step_by(BLOCK_LEN as usize)) {
                let to = bytes.len().min(from + BLOCK_LEN as usize);
                *block = (from < to).then(|| bytes.slice(from..to));
            }
            if (bytes.len() as u64) < missing as u64 * BLOCK_LEN {
                // The pack ends here.
                break;
            }
            at += missing;
        }
        let skipped = (range.start - blocks.start * BLOCK_LEN) as usize;
        let wanted = (range.end - range.start) as usize;
        if let [Some(only)] = &found[..] {
            let end = only.len().min(skipped + wanted);
            return Ok(only.slice(skipped.min(end)..end));
        }
        let mut all = BytesMut::with_capacity(found.iter().flatten().map(Bytes::len).sum());
        found.iter().map_while(Option::as_ref).for_each(|block| all.extend_from_slice(block));
        let end = all.len().min(skipped + wanted);
        Ok(all.freeze().slice(skipped.min(end)..end))
    }
}

impl fmt::Display for CachedObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (cached)", self.objects)
    }
}

#[async_trait]
impl ObjectStore for CachedObjects {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.objects.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.objects.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let Some(pack) = parse_pack_path(location.as_ref()) else {
            return self.objects.get_ranges(location, ranges).await;
        };
        let mut found = Vec::with_capacity(ranges.len());
        for range in ranges {
            found.push(match range.start < range.end {
                true => self.read(location, pack, range).await?,
                false => Bytes::new(),
            });
        }
        Ok(found)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chipmink_format::pack_path;
    use chipmink_testkit::{MeteredStore, Random};
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    const PACK: PackName = PackName([0xab; 16]);

    struct Bed {
        temporary: tempfile::TempDir,
        objects: MeteredStore,
        bytes: Vec<u8>,
        path: Path,
    }

    fn bed(len: usize) -> Bed {
        let objects = MeteredStore::new(Arc::new(InMemory::new()));
        let (bytes, path) = (Random::new(1).bytes(len), Path::from(pack_path(PACK)));
        futures::executor::block_on(objects.put(&path, bytes.clone().into())).unwrap();
        objects.reset(u64::MAX);
        Bed { temporary: tempfile::tempdir().unwrap(), objects, bytes, path }
    }

    fn read(objects: &CachedObjects, path: &Path, range: Range<u64>) -> Bytes {
        futures::executor::block_on(objects.get_ranges(path, &[range])).unwrap().swap_remove(0)
    }

    impl Bed {
        fn open(&self, byte_len_max: u64) -> CachedObjects {
            let folder = CacheFolder::open(self.temporary.path(), byte_len_max).unwrap();
            CachedObjects::new(Arc::new(self.objects.clone()), Arc::new(folder))
        }

        fn check(&self, cached: &CachedObjects, range: Range<u64>) {
            let read = read(cached, &self.path, range.clone());
            assert_eq!(&read[..], &self.bytes[range.start as usize..range.end as usize], "{range:?}");
        }

        fn file(&self) -> PathBuf {
            self.temporary.path().join("packs-1/ab").join(PACK.to_string())
        }
    }

    #[test]
    fn what_was_read_once_is_not_asked_for_again_by_anybody() {
        let bed = bed(1_000_000);
        let cached = bed.open(1 << 30);
        for range in [0..10, 65_530..65_540, 300_000..600_000, 999_000..1_000_000] {
            bed.check(&cached, range);
        }
        let asked = bed.objects.requests();
        assert_eq!(asked, 4);
        let other = bed.open(1 << 30);
        for range in [0..131_072, 300_001..599_999, 999_999..1_000_000, 983_040..1_000_000] {
            bed.check(&other, range);
        }
        assert_eq!(bed.objects.requests(), asked);
        // Of what is partly there the rest is read.
        bed.check(&other, 0..1_000_000);
        assert_eq!(bed.objects.requests(), asked + 2);
    }

    #[test]
    fn a_block_that_is_not_what_was_kept_is_read_again() {
        let bed = bed(200_000);
        bed.check(&bed.open(1 << 30), 0..200_000);
        let good = std::fs::read(bed.file()).unwrap();
        let mut random = Random::new(2);
        for _ in 0..50 {
            let mut bytes = good.clone();
            match random.below(3) {
                0 => bytes.truncate(random.below(good.len())),
                1 => bytes.rotate_left(SLOT_LEN as usize),
                _ => {
                    let at = random.below(good.len());
                    bytes[at] ^= 1 << random.below(8);
                }
            }
            std::fs::write(bed.file(), bytes).unwrap();
            bed.check(&bed.open(1 << 30), 0..200_000);
        }
        assert_eq!(std::fs::read(bed.file()).unwrap().len(), good.len());
    }

    #[test]
    fn it_stays_within_its_bound() {
        let bed = bed(100);
        let cached = bed.open(4 << 20);
        for number in 0..100u8 {
            let pack = PackName([number; 16]);
            let path = Path::from(pack_path(pack));
            futures::executor::block_on(bed.objects.put(&path, vec![number; 200_000].into())).unwrap();
            read(&cached, &path, 0..200_000);
        }
        let folders = std::fs::read_dir(bed.temporary.path().join("packs-1")).unwrap();
        let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
        let total: u64 = files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum();
        assert!(total > 2 << 20 && total < 5 << 20, "{total}");
    }

    #[test]
    fn what_cannot_be_kept_is_read_all_the_same() {
        let bed = bed(100_000);
        let cached = bed.open(1 << 30);
        std::fs::remove_dir_all(bed.temporary.path().join("packs-1")).unwrap();
        std::fs::write(bed.temporary.path().join("packs-1"), "in the way").unwrap();
        bed.check(&cached, 0..100_000);
        bed.check(&cached, 0..100_000);
        assert_eq!(bed.objects.requests(), 2);
    }

    #[test]
    fn it_conforms_to_the_object_store_trait() {
        use object_store::integration;
        let temporary = tempfile::tempdir().unwrap();
        let folder = Arc::new(CacheFolder::open(temporary.path(), 1 << 30).unwrap());
        let store = CachedObjects::new(Arc::new(InMemory::new()), folder);
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            integration::put_get_delete_list(&store).await;
            integration::get_opts(&store).await;
            integration::list_uses_directories_correctly(&store).await;
            integration::list_with_delimiter(&store).await;
            integration::rename_and_copy(&store).await;
            integration::copy_if_not_exists(&store).await;
            integration::stream_get(&store).await;
        });
    }

    #[test]
    fn only_packs_are_kept() {
        let bed = bed(100);
        let cached = bed.open(1 << 30);
        let path = Path::from("root/18446744073709551615");
        futures::executor::block_on(bed.objects.put(&path, vec![1; 100].into())).unwrap();
        bed.objects.reset(u64::MAX);
        for _ in 0..2 {
            read(&cached, &path, 0..100);
        }
        assert_eq!(bed.objects.requests(), 2);
    }
}
