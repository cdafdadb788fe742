//! The bytes of a plan, read ahead in windows.

use bytes::Bytes;
use chipmink_digest::{Grid, NodeKind, TreeError, read_tree};
use chipmink_store::{Cancel, Store, StoreError};
use chipmink_types::{BlobError, BlobSource, Digest, LoadPlan, PodSource, RegionRecord};

/// Bytes of pods that are read ahead.
const WINDOW_LEN: u64 = 8 << 20;
/// Pods that are read ahead, however small they are.
const WINDOW_COUNT: usize = 1 << 14;

/// Gives the pods of a plan, and regions.
#[derive(Debug)]
pub struct PlanPods {
    store: Store,
    /// Digest and length of each pod of the plan.
    pods: Vec<(Digest, u64)>,
    /// Position of the window's first pod.
    start: usize,
    /// Pods that were read ahead and not yet asked for.
    window: Vec<Option<Bytes>>,
    cancel: Cancel,
}

pub(super) fn damaged(region: &RegionRecord, reason: String) -> BlobError {
    BlobError::Damaged { digest: region.root, reason }
}

/// The chunks of a region, with their lengths. `get` gives the nodes of its digest tree.
pub(super) fn region_chunks(
    region: &RegionRecord,
    get: &mut dyn FnMut(&Digest) -> Result<Bytes, BlobError>,
) -> Result<Vec<(Digest, u64)>, BlobError> {
    let grid = Grid::of(region).map_err(|error| damaged(region, error.to_string()))?;
    let count = grid.chunk_count();
    let chunks = read_tree(NodeKind::Region, region.root, count, get);
    let chunks = chunks.map_err(|error| match error {
        TreeError::Caller(error) => error,
        other => damaged(region, other.to_string()),
    })?;
    Ok(chunks.into_iter().zip(grid.chunks()).map(|(digest, (_, len))| (digest, len)).collect())
}

/// Parts of a region: where each begins, and its bytes.
pub type Pieces = Vec<(u64, Vec<u8>)>;

/// What differs between bytes in memory, whose chunks have the digests `live`, and a region: where it begins, and its bytes
/// in the region. `None` if it is more than half of all.
pub(crate) fn read_difference(
    store: &Store,
    region: &RegionRecord,
    live: &[Digest],
) -> Result<Option<Pieces>, BlobError> {
    let chunks = region_chunks(region, &mut |node| store.get(node))?;
    let mut runs: Vec<(u64, Vec<(Digest, u64)>)> = Vec::new();
    let (mut at, mut differing, mut end) = (0, 0, None);
    for (i, (digest, len)) in chunks.into_iter().enumerate() {
        if live.get(i) != Some(&digest) {
            differing += len;
            match runs.last_mut().filter(|_| end == Some(at)) {
                Some((_, run)) => run.push((digest, len)),
                None => runs.push((at, vec![(digest, len)])),
            }
            end = Some(at + len);
        }
        at += len;
    }
    if differing > region.byte_len / 2 {
        return Ok(None);
    }
    let read = |(at, run): (u64, Vec<(Digest, u64)>)| {
        let mut bytes = vec![0; run.iter().map(|(_, len)| *len as usize).sum()];
        store.read_into(&run, &mut bytes)?;
        Ok((at, bytes))
    };
    runs.into_iter().map(read).collect::<Result<_, _>>().map(Some)
}

impl PlanPods {
    pub(crate) fn new(store: Store, plan: &LoadPlan) -> Self {
        let pods = plan.pods.iter().map(|pod| (pod.digest, pod.byte_len)).collect();
        PlanPods { store, pods, start: 0, window: Vec::new(), cancel: Cancel::default() }
    }

    /// Lets the load be cancelled: nothing more is read then.
    pub fn cancel_by(&mut self, cancel: Cancel) {
        self.cancel = cancel;
    }

    /// Whether a pod was read ahead.
    pub fn is_at_hand(&self, position: usize) -> bool {
        let ahead = position.checked_sub(self.start).and_then(|at| self.window.get(at));
        ahead.is_some_and(Option::is_some)
    }

    fn check(&self) -> Result<(), BlobError> {
        if self.cancel.is_cancelled() { Err(StoreError::LoadCancelled.into()) } else { Ok(()) }
    }

    fn read_window(&mut self, position: usize) -> Result<(), BlobError> {
        let mut byte_len = 0u64;
        let mut end = position;
        while end < self.pods.len() && end - position < WINDOW_COUNT {
            byte_len = byte_len.saturating_add(self.pods[end].1);
            if end > position && byte_len > WINDOW_LEN {
                break;
            }
            end += 1;
        }
        let digests: Vec<Digest> = self.pods[position..end].iter().map(|(digest, _)| *digest).collect();
        self.window = self.store.get_many(&digests)?.into_iter().map(Some).collect();
        self.start = position;
        Ok(())
    }
}

impl PodSource for PlanPods {
    fn pod(&mut self, position: usize) -> Result<Bytes, BlobError> {
        self.check()?;
        let Some(&(digest, byte_len)) = self.pods.get(position) else {
            return Err(BlobError::Storage {
                context: "reading a pod".to_owned(),
                source: format!("the plan has no pod {position}").into(),
            });
        };
        if position >= self.start + self.window.len() {
            self.read_window(position)?;
        }
        let ahead = position.checked_sub(self.start).and_then(|at| self.window.get_mut(at)?.take());
        let bytes = match ahead {
            Some(bytes) => bytes,
            None => self.store.get(&digest)?,
        };
        if bytes.len() as u64 != byte_len {
            let reason = format!("it has {} bytes, its row says {byte_len}", bytes.len());
            return Err(BlobError::Damaged { digest, reason });
        }
        Ok(bytes)
    }

    fn read_region(&mut self, region: &RegionRecord, into: &mut [u8]) -> Result<(), BlobError> {
        if into.len() as u64 != region.byte_len {
            let reason = format!("{} bytes are asked for, it has {}", into.len(), region.byte_len);
            return Err(damaged(region, reason));
        }
        self.check()?;
        let chunks = region_chunks(region, &mut |node| self.store.get(node))?;
        self.store.read_into_unless(&self.cancel, &chunks, into)
    }
}
