//! [`Locator`]: where the chunks of the regions of one load lie, found for many regions at once.
//!
//! 1. Regions that were not asked for yet are a guess. Where they cannot be found, the one that was asked for is found
//!    alone: the damage of one region is not that of another.
//! 2. The guess grows with what was asked for, so that a load of a few regions looks for no others. What is kept of it, and
//!    the files that are open for it, are bounded.

use super::pods::{damaged, region_chunks};
use bytes::Bytes;
use chipmink_digest::Grid;
use chipmink_store::{OpenPacks, RawFile, RawPlaces, Store};
use chipmink_types::{BlobError, BlobSource, Digest, LoadPlan, RegionRecord};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Chunks that are looked for at once, and kept: of four gigabytes, in some ten megabytes.
const CHUNKS_MAX: u64 = 1 << 16;
/// Regions that are looked for at once: each is a node that is read ahead.
const REGIONS_MAX: usize = 1 << 12;

/// The chunks of a region, and where they lie.
#[derive(Clone, Debug)]
pub(super) struct Located {
    /// Each with its length.
    pub(super) chunks: Vec<(Digest, u64)>,
    places: Arc<RawPlaces>,
    /// Ordinals of the chunks among the places.
    range: Range<usize>,
}

impl Located {
    /// The places of all chunks that were found together: the same for each of their regions.
    pub(super) fn found_together(&self) -> &Arc<RawPlaces> {
        &self.places
    }

    /// The files of all of these.
    pub(super) fn files(&self) -> &[RawFile] {
        &self.places.files
    }

    /// For each chunk the ordinal of its file and where it begins there; `None`: it must be read otherwise.
    pub(super) fn places(&self) -> &[Option<(usize, u64)>] {
        &self.places.places[self.range.clone()]
    }
}

/// What tells regions apart: the same digests may be those of chunks of other lengths.
type Key = (Digest, Grid);

fn key(region: &RegionRecord) -> Result<Key, BlobError> {
    let grid = Grid::of(region).map_err(|error| damaged(region, error.to_string()))?;
    Ok((region.root, grid))
}

/// What is known of the regions of a load.
#[derive(Debug, Default)]
struct Known {
    regions: HashMap<Key, Arc<Located>>,
    chunk_count: u64,
    /// Regions to look for when the next unknown one is asked for.
    next_count: usize,
    packs: OpenPacks,
}

/// Finds the chunks of the regions of a load.
#[derive(Debug)]
pub(super) struct Locator {
    store: Store,
    /// Regions that may be asked for, in the order in which that is likely.
    expected: Vec<(Key, RegionRecord)>,
    at: HashMap<Key, usize>,
    known: Mutex<Known>,
}

impl Locator {
    /// For the regions of a plan that have at least so many bytes; others are found one by one.
    pub(super) fn new(store: Store, plan: &LoadPlan, least_len: u64) -> Self {
        let mut expected = Vec::new();
        let mut at = HashMap::new();
        for region in
            plan.pods.iter().flat_map(|pod| &pod.regions).filter(|region| region.byte_len >= least_len)
        {
            // What is wrong with it is said when it is asked for.
            let Ok(key) = key(region) else { continue };
            at.entry(key).or_insert_with(|| {
                expected.push((key, region.clone()));
                expected.len() - 1
            });
        }
        Locator { store, expected, at, known: Mutex::default() }
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// The chunks of a region.
    ///
    /// # Errors
    /// When a chunk or node is missing or damaged.
    pub(super) fn find(&self, region: &RegionRecord) -> Result<Arc<Located>, BlobError> {
        let key = key(region)?;
        // After a panic some may be missing, and are looked for again.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.regions.get(&key) {
            return Ok(Arc::clone(found));
        }
        let guess = self.guess(&key, &mut known);
        let found = match self.locate(&guess, &mut known.packs) {
            Ok(found) if !found.is_empty() => found,
            // (The next guess does not try as much in vain.)
            _ => {
                known.next_count = 0;
                self.locate(&[(key, region)], &mut known.packs)?
            }
        };
        let asked_for = Arc::clone(&found[0].1);
        known.keep(found);
        Ok(asked_for)
    }

    /// A region with those that follow it and are not known.
    fn guess(&self, key: &Key, known: &mut Known) -> Vec<(Key, &RegionRecord)> {
        let Some(start) = self.at.get(key) else { return Vec::new() };
        known.next_count = (2 * known.next_count).clamp(1, REGIONS_MAX);
        let mut chunk_count = 0u64;
        let mut guess = Vec::new();
        for (key, region) in &self.expected[*start..] {
            chunk_count = chunk_count.saturating_add(key.1.chunk_count());
            if guess.len() == known.next_count || (!guess.is_empty() && chunk_count > CHUNKS_MAX) {
                break;
            }
            if !known.regions.contains_key(key) {
                guess.push((*key, region));
            }
        }
        guess
    }

    fn locate(
        &self,
        regions: &[(Key, &RegionRecord)],
        packs: &mut OpenPacks,
    ) -> Result<Vec<(Key, Arc<Located>)>, BlobError> {
        let roots: Vec<Digest> = regions.iter().map(|((root, _), _)| *root).collect();
        let nodes: HashMap<Digest, Bytes> = roots.iter().copied().zip(self.store.get_many(&roots)?).collect();
        let mut get = |node: &Digest| nodes.get(node).cloned().map_or_else(|| self.store.get(node), Ok);
        let mut chunks = Vec::with_capacity(regions.len());
        for (_, region) in regions {
            chunks.push(region_chunks(region, &mut get)?);
        }
        let places = Arc::new(self.store.raw_places(&chunks.concat(), packs)?);
        let mut end = 0;
        let located = chunks.into_iter().map(|chunks| {
            let range = end..end + chunks.len();
            end = range.end;
            Arc::new(Located { chunks, places: Arc::clone(&places), range })
        });
        Ok(regions.iter().map(|(key, _)| *key).zip(located).collect())
    }
}

impl Known {
    fn keep(&mut self, found: Vec<(Key, Arc<Located>)>) {
        let chunk_count: u64 = found.iter().map(|(_, located)| located.chunks.len() as u64).sum();
        if self.chunk_count.saturating_add(chunk_count) > CHUNKS_MAX {
            self.regions.clear();
            self.chunk_count = 0;
        }
        self.chunk_count += chunk_count;
        self.regions.extend(found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_the_newest() {
        let mut known = Known::default();
        for i in 0..10u8 {
            let digest = Digest::xxh3([i; 16]);
            let count = CHUNKS_MAX as usize / 3 + 1;
            let located = Located { chunks: vec![(digest, 1); count], places: Arc::default(), range: 0..0 };
            let key = (digest, Grid::run(count as u64));
            known.keep(vec![(key, Arc::new(located))]);
            assert!(known.regions.contains_key(&key));
            let kept: usize = known.regions.values().map(|located| located.chunks.len()).sum();
            assert_eq!(kept as u64, known.chunk_count);
            assert!(known.chunk_count <= CHUNKS_MAX);
        }
    }
}
