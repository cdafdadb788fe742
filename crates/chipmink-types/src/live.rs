//! Live memory whose digests may be remembered while nobody writes to it.

use crate::{Digest, GridKind};

/// A large buffer where it lies, and how it is cut into chunks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LiveRegion {
    /// Address of its first byte.
    pub address: usize,
    /// Length in bytes.
    pub byte_len: usize,
    /// How it is cut into chunks.
    pub grid: GridKind,
    /// Bytes of a row for [`GridKind::Rows`], else 0.
    pub row_len: u64,
    /// Bytes of the first chunk for [`GridKind::Shard`], else 0 (a full chunk).
    pub first_chunk_len: u64,
}

/// What is known of a region when it is looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Look {
    /// By it the looker gives back what it found; 0: nobody wants to know.
    pub ticket: u64,
    /// For each chunk its digest, if the bytes are proved to be those that had it. Empty: nothing is known.
    pub digests: Vec<Option<Digest>>,
}

impl Look {
    /// The digest of a chunk, if it is known.
    pub fn digest(&self, ordinal: u64) -> Option<Digest> {
        *self.digests.get(usize::try_from(ordinal).ok()?)?
    }
}

/// Remembers digests of live memory for as long as it can prove that nobody wrote to it.
///
/// What is remembered are facts about memory, not about saves: a digest is forgotten at the moment at which its bytes are
/// reported as written, and comes back only when they have been hashed again. So it does not matter whether a save that
/// looked came to anything, nor how many repositories look.
pub trait LiveDigests: Send {
    /// Why nothing can ever be proved here; `None` if something can.
    fn unavailable(&self) -> Option<String>;

    /// A walk begins: lets go of what can no longer be trusted.
    fn begin_walk(&mut self);

    /// What is known of a region. Bytes that are written after this call, by whomever, are noticed by the next.
    fn look(&mut self, region: &LiveRegion) -> Look;

    /// The digests of all chunks, of bytes that were read after the look that gave the ticket.
    fn learn(&mut self, region: &LiveRegion, ticket: u64, digests: &[Digest]);
}
