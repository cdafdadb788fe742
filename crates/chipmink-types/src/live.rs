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

/// Digests of the parts of a chunk that lie in pages which it shares with what lies before and behind it.
///
/// The allocator's header makes most arrays begin some bytes behind a page's start, so that nearly every chunk shares two
/// pages: by these it is told apart who was written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Edges {
    /// Of the bytes before the chunk's first whole page.
    pub head: Digest,
    /// Of the bytes behind its last whole page.
    pub tail: Digest,
}

impl Edges {
    /// Bytes of the head and of the tail of a chunk at an address; `None` if it has so few pages that they are not worth it.
    pub fn lens(address: usize, byte_len: usize, page_len: usize) -> Option<(usize, usize)> {
        let head = address.checked_next_multiple_of(page_len)? - address;
        let tail = address.checked_add(byte_len)? % page_len;
        (byte_len >= 4 * page_len).then_some((head, tail))
    }
}

/// A chunk of which nothing was written but perhaps its edges.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Doubt {
    /// Number of the chunk.
    pub ordinal: u64,
    /// Its digest, if the edges in question are what they were.
    pub digest: Digest,
    /// What they were, of the same bytes as the digest.
    pub edges: Edges,
    /// Whether the head is in question.
    pub is_head: bool,
    /// Whether the tail is in question.
    pub is_tail: bool,
}

/// What is known of a region when it is looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Look {
    /// By it the looker gives back what it found; 0: nobody wants to know.
    pub ticket: u64,
    /// For each chunk its digest, if the bytes are proved to be those that had it. Empty: nothing is known.
    pub digests: Vec<Option<Digest>>,
    /// Chunks that are known if their edges are what they were, in order.
    pub doubts: Vec<Doubt>,
    /// Bytes of a page, if edges are wanted of what is hashed; else 0.
    pub page_len: usize,
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

    /// The digests of all chunks, of bytes that were read after the look that gave the ticket; and the edges of some, of the
    /// very bytes that have the digest.
    fn learn(&mut self, region: &LiveRegion, ticket: u64, digests: &[Digest], edges: &[(u64, Edges)]);
}
