//! Regions that are mapped instead of being read.
//!
//! 1. Mapped are chunks that lie raw, and at a page's begin, in files that stay when they are deleted; what of a region is
//!    not like that is read into its place. A region of too many pieces is mapped with what lies between them in a pack,
//!    and what does not belong there is written over (see [`super::layout`]).
//! 2. What is mapped unchecked is said so ([`Unchecked`]), and checked from the file: the program may have written to its
//!    own memory meanwhile.

use super::checker::check_at_once;
use super::layout::{Chunk, Segment, segments};
use super::located::{Located, Locator};
use super::pods::damaged;
use chipmink_digest::digest;
use chipmink_shm::{FaultAhead, MOST_RUNS, MapBudget, MappedRegion, Piece, keeps_unlinked_files, page_len};
use chipmink_store::{RawFile, RawPlaces, Store};
use chipmink_types::{BlobError, BlobSource, Digest, LoadPlan, RegionRecord};
use std::collections::HashMap;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shorter regions are read: a mapping costs the kernel about as much as copying so many bytes.
const LEAST_LEN: u64 = 256 << 10;

/// When mapped bytes are compared with their digests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapCheck {
    /// Before anybody sees them, as what is read.
    Eager,
    /// Later, by whoever takes [`Unchecked`] from the mapper.
    Later,
}

/// Chunks that were mapped and have not been compared with their digests.
#[derive(Debug)]
pub struct Unchecked {
    located: Arc<Located>,
    /// Digest, length, and ordinal in the region.
    chunks: Vec<(Digest, u64, usize)>,
    ahead: FaultAhead,
    /// Whether the program is about to write to all of it.
    is_written: bool,
}

impl Unchecked {
    /// Looks up the pages of the region if it is still there, so that its reader, or its writer, need not.
    pub(super) fn fault_ahead(&self) {
        match self.is_written {
            true => self.ahead.run_for_writing(),
            false => self.ahead.run(),
        }
    }

    /// The program is about to write to all of the region.
    fn expect_writes(&mut self) {
        self.is_written = true;
    }

    /// Compares the bytes in the files with their digests.
    ///
    /// # Errors
    /// For the first chunk that is not what was stored, or cannot be read.
    pub fn check(&self) -> Result<(), BlobError> {
        self.check_part(0..self.chunks.len())
    }

    /// How many chunks there are.
    pub(super) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// The same for some of the chunks.
    pub(super) fn check_part(&self, part: Range<usize>) -> Result<(), BlobError> {
        let mut bytes = Vec::new();
        for (name, byte_len, ordinal) in &self.chunks[part] {
            let Some((file, byte_offset)) = self.located.places()[*ordinal] else { continue };
            let file = &self.located.files()[file];
            bytes.resize(*byte_len as usize, 0);
            file.file.read_exact_at(&mut bytes, byte_offset).map_err(|error| BlobError::Storage {
                context: format!("checking what was mapped of {}", file.path),
                source: error.into(),
            })?;
            if digest(&bytes) != *name {
                let reason = format!(
                    "its {byte_len} bytes at {byte_offset} of {} have another digest; a load has mapped them",
                    file.path
                );
                return Err(BlobError::Damaged { digest: *name, reason });
            }
        }
        Ok(())
    }
}

/// Maps the regions of one load.
#[derive(Debug)]
pub struct RegionMapper {
    locator: Locator,
    check: MapCheck,
    unchecked: Mutex<Vec<(Digest, Unchecked)>>,
}

impl RegionMapper {
    pub(crate) fn new(store: Store, plan: &LoadPlan, check: MapCheck) -> Self {
        RegionMapper { locator: Locator::new(store, plan, LEAST_LEN), check, unchecked: Mutex::default() }
    }

    /// Maps a region copy-on-write; `None`: it must be read. Its owner may write to it.
    ///
    /// # Errors
    /// When a chunk or node is missing, or damaged as far as it was checked.
    pub fn map(&self, region: &RegionRecord) -> Result<Option<MappedRegion>, BlobError> {
        // The interpreter waits for this, so a place that may be far away is not asked.
        if region.byte_len < LEAST_LEN || self.locator.store().backend().files().is_none() {
            return Ok(None);
        }
        let located = self.locator.find(region)?;
        let Some((memory, unchecked)) = map_region(self.locator.store(), region, &located, self.check)?
        else {
            return Ok(None);
        };
        if let Some(unchecked) = unchecked {
            self.unchecked().push((region.root, unchecked));
        }
        Ok(Some(memory))
    }

    /// Reads regions, and hands their chunks on once they are checked: the ordinal of the region, where the chunk begins in
    /// it, and its bytes; in no order, and from several threads.
    ///
    /// # Errors
    /// When a chunk or node is missing or damaged. Other chunks may have been handed on by then.
    pub fn read_regions(
        &self,
        regions: &[RegionRecord],
        take: &(dyn Fn(usize, u64, &[u8]) + Sync),
    ) -> Result<(), BlobError> {
        let mut blobs = Vec::new();
        let mut goes_to = Vec::new();
        let mut places = RawPlaces::default();
        // Regions that were found together have the same files.
        let mut first_files: HashMap<*const RawPlaces, usize> = HashMap::new();
        for (ordinal, region) in regions.iter().enumerate() {
            let located = self.locator.find(region)?;
            let first = *first_files.entry(Arc::as_ptr(located.found_together())).or_insert_with(|| {
                places.files.extend_from_slice(located.files());
                places.files.len() - located.files().len()
            });
            let among_all = |place: &Option<(usize, u64)>| place.map(|(file, at)| (first + file, at));
            places.places.extend(located.places().iter().map(among_all));
            let mut at = 0;
            for (digest, len) in &located.chunks {
                blobs.push((*digest, *len));
                goes_to.push((ordinal, at));
                at += len;
            }
        }
        self.locator.store().read_each(&blobs, &places, &|blob, bytes| {
            let (ordinal, at) = goes_to[blob];
            take(ordinal, at, bytes);
        })
    }

    fn unchecked(&self) -> MutexGuard<'_, Vec<(Digest, Unchecked)>> {
        self.unchecked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares all that was mapped and not checked with the digests, by several threads; nothing is left to be checked then.
    ///
    /// # Errors
    /// For a chunk that is not what was stored, or cannot be read.
    pub fn check_all(&self) -> Result<(), BlobError> {
        let unchecked: Vec<Unchecked> =
            self.take_unchecked().into_iter().map(|(_, unchecked)| unchecked).collect();
        check_at_once(&unchecked)
    }

    /// The bytes of regions go elsewhere, so what was mapped of each need not be checked.
    pub fn forget_unchecked(&self, roots: &[Digest]) {
        let mut times = counted(roots);
        self.unchecked().retain(|(root, _)| !taken(&mut times, root));
    }

    /// The program is about to write to all of these regions. It has to be said before they are taken to be checked.
    pub fn expect_writes(&self, roots: &[Digest]) {
        let mut times = counted(roots);
        for (root, unchecked) in self.unchecked().iter_mut() {
            if taken(&mut times, root) {
                unchecked.expect_writes();
            }
        }
    }

    /// What was mapped and not checked, each with the root of its region, to be checked by the caller.
    pub fn take_unchecked(&self) -> Vec<(Digest, Unchecked)> {
        std::mem::take(&mut *self.unchecked())
    }
}

/// How often each of them is there: regions of the same content are mapped each for itself.
fn counted(roots: &[Digest]) -> HashMap<Digest, usize> {
    let mut times = HashMap::new();
    roots.iter().for_each(|root| *times.entry(*root).or_default() += 1);
    times
}

fn taken(times: &mut HashMap<Digest, usize>, root: &Digest) -> bool {
    match times.get_mut(root) {
        Some(left) if *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    }
}

/// A region in memory, and what of it has still to be checked.
type Mapped = (MappedRegion, Option<Unchecked>);

/// Maps a region whose chunks were found; `None`: it must be read.
fn map_region(
    store: &Store,
    region: &RegionRecord,
    located: &Arc<Located>,
    check: MapCheck,
) -> Result<Option<Mapped>, BlobError> {
    let (chunks, files) = (&located.chunks, located.files());
    let laid = lay(located);
    let Some(segments) = segments(&laid, MOST_RUNS) else { return Ok(None) };
    let pieces = pieces(files, &laid, &segments);
    // No mappings are left, a pack is cut: reading does without, or says what is wrong.
    let Ok(mut memory) = MappedRegion::map(&pieces, &MapBudget::of_process()) else { return Ok(None) };
    let mut is_mapped = vec![false; chunks.len()];
    for segment in &segments {
        segment.chunks.clone().for_each(|i| is_mapped[i] = segment.holds(&laid, i));
    }
    let mut unchecked = Vec::new();
    let mut buffer = Vec::new();
    for (i, (name, byte_len)) in chunks.iter().enumerate() {
        if is_mapped[i] && check == MapCheck::Later {
            unchecked.push((*name, *byte_len, i));
            continue;
        }
        let at = laid[i].at as usize;
        buffer.resize(*byte_len as usize, 0);
        let read = match located.places()[i] {
            _ if is_mapped[i] => {
                memory.read_at(at, &mut buffer).map_err(|error| damaged(region, error.to_string()))?;
                true
            }
            Some((file, byte_offset)) => files[file].file.read_exact_at(&mut buffer, byte_offset).is_ok(),
            None => false,
        };
        if read && digest(&buffer) == *name {
            if !is_mapped[i] {
                memory.write_at(at, &buffer).map_err(|error| damaged(region, error.to_string()))?;
            }
            continue;
        }
        // It is compressed, or another copy may be whole.
        let bytes = store.get(name)?;
        if bytes.len() as u64 != *byte_len {
            let reason = format!("it has {} bytes where {byte_len} belong", bytes.len());
            return Err(BlobError::Damaged { digest: *name, reason });
        }
        memory.write_at(at, &bytes).map_err(|error| damaged(region, error.to_string()))?;
    }
    let unchecked = (!unchecked.is_empty()).then(|| Unchecked {
        located: Arc::clone(located),
        chunks: unchecked,
        ahead: memory.fault_ahead(),
        is_written: false,
    });
    Ok(Some((memory, unchecked)))
}

/// The chunks, with the places of those that can be mapped from them.
fn lay(located: &Located) -> Vec<Chunk> {
    let Located { chunks, .. } = located;
    let mut keeps: HashMap<usize, bool> = HashMap::new();
    let mut laid = Vec::with_capacity(chunks.len());
    let mut at = 0u64;
    for (i, (place, (_, byte_len))) in located.places().iter().zip(chunks).enumerate() {
        let is_whole = byte_len.is_multiple_of(page_len()) || i + 1 == chunks.len();
        let mut keeps_file = |file: usize| {
            *keeps.entry(file).or_insert_with(|| keeps_unlinked_files(&located.files()[file].file))
        };
        let fits = |(file, byte_offset): &(usize, u64)| {
            keeps_file(*file)
                && is_whole
                && at.is_multiple_of(page_len())
                && byte_offset.is_multiple_of(page_len())
        };
        laid.push(Chunk { at, byte_len: *byte_len, place: place.filter(fits) });
        at += byte_len;
    }
    laid
}

/// The segments, and zeros where there are none.
fn pieces<'a>(files: &'a [RawFile], chunks: &[Chunk], segments: &[Segment]) -> Vec<Piece<'a>> {
    let mut pieces = Vec::with_capacity(2 * segments.len() + 1);
    let mut end = 0;
    for segment in segments {
        let file = &files[segment.file];
        let at = chunks[segment.chunks.start].at;
        let byte_len = segment.byte_len(chunks);
        pieces.extend([
            Piece::Zeros { byte_len: at - end },
            Piece::File {
                file: &file.file,
                path: Path::new(&file.path),
                file_len: file.byte_len,
                byte_offset: segment.byte_offset,
                byte_len,
            },
        ]);
        end = at + byte_len;
    }
    let byte_len = chunks.last().map_or(0, Chunk::end);
    pieces.push(Piece::Zeros { byte_len: byte_len - end });
    pieces
}
