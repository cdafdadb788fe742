//! Pools: named objects in memory that several processes share.

use crate::Digest;
use std::error::Error;
use std::fmt::Debug;

/// An object of a pool, as it was published. Another process may take it away at any time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolObject {
    /// Its name, unique in the pool.
    pub name: String,
    /// Its length in bytes.
    pub byte_len: u64,
    /// Grows with each publication; two objects that had one name after another differ in it.
    pub generation: u64,
    /// Digest of its bytes, as its writer stated it.
    pub digest: Digest,
    /// When it was published, in microseconds since 1970-01-01 UTC, by the writer's clock.
    pub modified_at: i64,
    /// It is held elsewhere, too, so it goes when its room is needed.
    pub is_settled: bool,
}

/// Why a pool refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// There is no room, also not after all settled objects went.
    #[error("{place} is full: {needed} bytes more are needed, {free} of {byte_len} are free; {advice}")]
    Full {
        /// What errors call the pool.
        place: String,
        /// Bytes that were to be added.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// Bytes that it has for objects.
        byte_len: u64,
        /// What can be done about it.
        advice: &'static str,
    },
    /// An object of this name is there, or is being made.
    #[error("{name} is in {place} already")]
    Exists {
        /// What errors call the pool.
        place: String,
        /// The object.
        name: String,
    },
    /// There is no such object, or it is not the one any more that it was.
    #[error("{name} is not in {place}")]
    Missing {
        /// What errors call the pool.
        place: String,
        /// The object.
        name: String,
    },
    /// The pool failed, or holds what no writer wrote.
    #[error("{context}: {source}")]
    Failed {
        /// What was being done, on what.
        context: String,
        /// The failure.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Named objects in shared memory, each written once and published whole.
///
/// What it gives back was written by another process, perhaps a hostile one: lengths and offsets are checked by the pool,
/// content must be checked by whoever reads it.
pub trait SharedPool: Debug + Send + Sync {
    /// What errors call it.
    fn label(&self) -> &str;

    /// Begins an object. Nobody sees it before it is finished; if it is exclusive, nobody else can begin one of this name.
    ///
    /// # Errors
    /// [`PoolError::Exists`] when it is to be exclusive and there is one; [`PoolError::Full`]; or when the pool fails.
    fn begin(&self, name: &str, is_exclusive: bool) -> Result<Box<dyn PoolWriter>, PoolError>;

    /// The object of a name.
    ///
    /// # Errors
    /// When the pool fails.
    fn find(&self, name: &str) -> Result<Option<PoolObject>, PoolError>;

    /// All objects, by name.
    ///
    /// # Errors
    /// When the pool fails.
    fn list(&self) -> Result<Vec<PoolObject>, PoolError>;

    /// Copies bytes of an object out. When it returns, they were those of this very object.
    ///
    /// # Errors
    /// [`PoolError::Missing`] when it is gone; or when the bytes are not all in it, or the pool fails.
    fn read_at(&self, object: &PoolObject, byte_offset: u64, into: &mut [u8]) -> Result<(), PoolError>;

    /// Removes an object; whether there was one.
    ///
    /// # Errors
    /// When the pool fails.
    fn remove(&self, name: &str) -> Result<bool, PoolError>;

    /// Notes that objects are held elsewhere: they go when their room is needed, oldest first. Those that are gone are
    /// passed over.
    ///
    /// # Errors
    /// When the pool fails.
    fn settle(&self, objects: &[PoolObject]) -> Result<(), PoolError>;

    /// Whether the process that wrote an object has ended.
    ///
    /// # Errors
    /// When the pool fails.
    fn is_abandoned(&self, object: &PoolObject) -> Result<bool, PoolError>;

    /// A number that is another one whenever an object was published, settled or removed.
    ///
    /// # Errors
    /// When the pool fails.
    fn changes(&self) -> Result<u64, PoolError>;
}

/// An object that is being written. Dropped before it is finished, it leaves nothing.
pub trait PoolWriter: Debug + Send {
    /// Appends bytes: all of them, or none.
    ///
    /// # Errors
    /// [`PoolError::Full`], after which the same bytes can be tried again; or when the pool fails.
    fn write(&mut self, bytes: &[u8]) -> Result<(), PoolError>;

    /// Publishes the object, in the place of an earlier one of its name.
    ///
    /// # Errors
    /// When the pool fails; then it is not published.
    fn finish(self: Box<Self>) -> Result<PoolObject, PoolError>;
}
