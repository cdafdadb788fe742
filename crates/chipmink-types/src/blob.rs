//! Blobs: the immutable byte strings, named by digest, of which a version is made.

use crate::Digest;
use bytes::Bytes;

/// What a blob holds. The kind is advice for placing and compressing; it enters no digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum BlobKind {
    /// The bytes of a pod.
    Pod,
    /// One chunk of a region.
    Chunk,
    /// A node of a region's digest tree.
    DigestNode,
    /// A node of a table, a list tree, a manifest or a co-variable.
    Table,
    /// A shape's names, a global's name, or a side record.
    Descriptor,
    /// A long part of a commit: its message, its code.
    Text,
}

/// Why a blob could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// No pack that this repository knows holds the blob.
    #[error("no pack holds blob {digest}; run `chipmink verify` to see which versions need it")]
    Missing {
        /// The blob that was asked for.
        digest: Digest,
    },
    /// The stored bytes are not what was written.
    #[error("blob {digest} is damaged: {reason}")]
    Damaged {
        /// The blob that was asked for.
        digest: Digest,
        /// What is wrong with it, and where it stands.
        reason: String,
    },
    /// The place that holds the blobs failed.
    #[error("{context}: {source}")]
    Storage {
        /// What was being done, on what.
        context: String,
        /// The failure as the store reported it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Takes blobs for one save. It stores each at most once, and not at all what the repository holds already.
pub trait BlobSink: Send {
    /// Stores `bytes` under `digest`, which the caller has computed of exactly these bytes.
    ///
    /// Returns whether the bytes were new to the repository and have been taken for writing.
    ///
    /// # Errors
    /// When the bytes could not be taken; the save must then be given up.
    fn put(&mut self, kind: BlobKind, digest: Digest, bytes: &[u8]) -> Result<bool, BlobError>;

    /// Whether the blob is held already, so that its bytes need not be produced. `false` may be a miss.
    fn holds(&mut self, digest: &Digest) -> bool;

    /// Whether what is put is still wanted. A walk asks now and then, also where there is nothing to put.
    ///
    /// # Errors
    /// When the save was cancelled; it must then be given up.
    fn check_wanted(&mut self) -> Result<(), BlobError> {
        Ok(())
    }

    /// Whether to put or ask for this blob now may have to wait for a place far away. Whoever holds up others meanwhile lets
    /// them go on then. It is a hint, and asks nobody.
    fn would_wait(&mut self, _digest: &Digest, _byte_len: usize) -> bool {
        false
    }

    /// Says that the chunks put from now on are those of one region, until [`BlobSink::end_region`]. Regions do not nest; one
    /// that is given up needs no end.
    fn begin_region(&mut self, _region: &RegionOutline) -> RegionForecast {
        RegionForecast::default()
    }

    /// Says that about so many bytes of the region's chunks will be put, those that are held already not counted. It is a
    /// hint: by it they are laid out.
    fn expect_chunks(&mut self, _byte_len: u64) {}

    /// Stores a chunk of the region that was begun, as [`BlobSink::put`] does. `ordinal` is its place in the region's grid.
    ///
    /// # Errors
    /// As [`BlobSink::put`].
    fn put_chunk(&mut self, _ordinal: u64, digest: Digest, bytes: &[u8]) -> Result<bool, BlobError> {
        self.put(BlobKind::Chunk, digest, bytes)
    }

    /// Says that all chunks of the region were put or found held, and which digest the root of its tree has.
    fn end_region(&mut self, _root: Digest) {}
}

/// What a walk knows of a region before it has looked at its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RegionOutline {
    /// Chunks of its grid.
    pub chunk_count: u64,
    /// Root of the digest tree of its previous version and the chunks of that, if chunk n of the one was chunk n of the
    /// other. It is a hint: a wrong one costs room and no byte.
    pub previous: Option<(Digest, u64)>,
}

/// What a sink expects of a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RegionForecast {
    /// Every chunk of it was new in the last saves: it is not worth asking whether one is held before it is copied.
    pub is_always_dirty: bool,
}

/// Gives back blobs. What it returns has been checked against the digest.
pub trait BlobSource {
    /// The decoded bytes of a blob.
    ///
    /// # Errors
    /// When no pack holds it, its bytes do not match the digest, or the place failed.
    fn get(&self, digest: &Digest) -> Result<Bytes, BlobError>;

    /// The decoded bytes of several blobs, in the order asked for; reads that lie near each other are joined.
    ///
    /// # Errors
    /// As [`BlobSource::get`], for the first that fails.
    fn get_many(&self, digests: &[Digest]) -> Result<Vec<Bytes>, BlobError> {
        digests.iter().map(|digest| self.get(digest)).collect()
    }
}
