//! Regions that are mapped instead of being read.
//!
//! 1. Mapped are chunks that lie raw, and at a page's begin, in files that stay when they are deleted; what of a region is
//!    not like that is read into its place. A region of too many pieces is not mapped at all.
//! 2. What is mapped unchecked is said so ([`Unchecked`]), and checked from the file: the program may have written to its
//!    own memory meanwhile.

use super::pods::{damaged, region_chunks};
use chipmink_digest::digest;
use chipmink_shm::{FaultAhead, MOST_RUNS, MapBudget, MappedRegion, Piece, keeps_unlinked_files, page_len};
use chipmink_store::{RawPlaces, Store};
use chipmink_types::{BlobError, BlobSource, Digest, RegionRecord};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    places: RawPlaces,
    /// Digest, length, and ordinal of its place.
    chunks: Vec<(Digest, u64, usize)>,
    ahead: FaultAhead,
}

impl Unchecked {
    /// Looks up the pages of the region if it is still there, so that its reader need not.
    pub(super) fn fault_ahead(&self) {
        self.ahead.run();
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
        for (name, byte_len, place) in &self.chunks[part] {
            let Some((file, byte_offset)) = self.places.places[*place] else { continue };
            let file = &self.places.files[file];
            bytes.resize(*byte_len as usize, 0);
            let mut reader: &std::fs::File = &file.file;
            io::Seek::seek(&mut reader, io::SeekFrom::Start(byte_offset))
                .and_then(|_| io::Read::read_exact(&mut reader, &mut bytes))
                .map_err(|error| BlobError::Storage {
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
    store: Store,
    check: MapCheck,
    unchecked: Mutex<Vec<(Digest, Unchecked)>>,
}

impl RegionMapper {
    pub(crate) fn new(store: Store, check: MapCheck) -> Self {
        RegionMapper { store, check, unchecked: Mutex::default() }
    }

    /// Maps a region copy-on-write; `None`: it must be read. Its owner may write to it.
    ///
    /// # Errors
    /// When a chunk or node is missing, or damaged as far as it was checked.
    pub fn map(&self, region: &RegionRecord) -> Result<Option<MappedRegion>, BlobError> {
        let chunks = region_chunks(&self.store, region)?;
        let Some((memory, unchecked)) = map_region(&self.store, region, &chunks, self.check)? else {
            return Ok(None);
        };
        if let Some(unchecked) = unchecked {
            self.unchecked().push((region.root, unchecked));
        }
        Ok(Some(memory))
    }

    fn unchecked(&self) -> MutexGuard<'_, Vec<(Digest, Unchecked)>> {
        self.unchecked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was mapped and not checked, each with the root of its region, to be checked by the caller.
    pub fn take_unchecked(&self) -> Vec<(Digest, Unchecked)> {
        std::mem::take(&mut *self.unchecked())
    }
}

/// A region in memory, and what of it has still to be checked.
type Mapped = (MappedRegion, Option<Unchecked>);

/// Maps a region of which the chunks are given with their lengths; `None`: it must be read.
fn map_region(
    store: &Store,
    region: &RegionRecord,
    chunks: &[(Digest, u64)],
    check: MapCheck,
) -> Result<Option<Mapped>, BlobError> {
    if region.byte_len < LEAST_LEN {
        return Ok(None);
    }
    let mut places = store.raw_places(chunks)?;
    let keeps: Vec<bool> = places.files.iter().map(|file| keeps_unlinked_files(&file.file)).collect();
    let (mut at, mut mapped_len) = (0u64, 0u64);
    for (i, (place, (_, byte_len))) in places.places.iter_mut().zip(chunks).enumerate() {
        let fits = place.is_some_and(|(file, byte_offset)| {
            let is_whole = byte_len.is_multiple_of(page_len()) || i + 1 == chunks.len();
            keeps[file] && is_whole && at.is_multiple_of(page_len()) && byte_offset.is_multiple_of(page_len())
        });
        if fits {
            mapped_len += byte_len;
        } else {
            *place = None;
        }
        at += byte_len;
    }
    let runs = places.places.windows(2).filter(|pair| !follows(pair[0], pair[1])).count();
    // What is mostly read is better read in one go.
    if mapped_len < region.byte_len / 2 || runs >= MOST_RUNS {
        return Ok(None);
    }
    let pieces: Vec<Piece<'_>> = places
        .places
        .iter()
        .zip(chunks)
        .map(|(place, (_, byte_len))| match place {
            Some((file, byte_offset)) => Piece::File {
                file: &places.files[*file].file,
                path: Path::new(&places.files[*file].path),
                file_len: places.files[*file].byte_len,
                byte_offset: *byte_offset,
                byte_len: *byte_len,
            },
            None => Piece::Zeros { byte_len: *byte_len },
        })
        .collect();
    // No mappings are left, a pack is cut: reading does without, or says what is wrong.
    let Ok(mut memory) = MappedRegion::map(&pieces, &MapBudget::of_process()) else { return Ok(None) };
    let mut unchecked = Vec::new();
    let mut at = 0;
    let mut buffer = Vec::new();
    for (i, (name, byte_len)) in chunks.iter().enumerate() {
        let is_mapped = places.places[i].is_some();
        if is_mapped && check == MapCheck::Later {
            unchecked.push((*name, *byte_len, i));
        } else {
            buffer.resize(*byte_len as usize, 0);
            let is_right = is_mapped && {
                memory.read_at(at, &mut buffer).map_err(|error| damaged(region, error.to_string()))?;
                digest(&buffer) == *name
            };
            if !is_right {
                // Another copy may be whole.
                let bytes = store.get(name)?;
                if bytes.len() as u64 != *byte_len {
                    let reason = format!("it has {} bytes where {byte_len} belong", bytes.len());
                    return Err(BlobError::Damaged { digest: *name, reason });
                }
                memory.write_at(at, &bytes).map_err(|error| damaged(region, error.to_string()))?;
            }
        }
        at += *byte_len as usize;
    }
    let unchecked =
        (!unchecked.is_empty()).then(|| Unchecked { places, chunks: unchecked, ahead: memory.fault_ahead() });
    Ok(Some((memory, unchecked)))
}

/// Whether the chunk at `next` needs no mapping of its own after that at `place`.
fn follows(place: Option<(usize, u64)>, next: Option<(usize, u64)>) -> bool {
    match (place, next) {
        (None, None) => true,
        // All but the last chunk of a row are of this length; shorter ones make one mapping more at most.
        (Some((file, at)), Some((next_file, next_at))) => {
            file == next_file && at + chipmink_digest::CHUNK_LEN == next_at
        }
        _ => false,
    }
}
