//! Bytes that are gathered in memory before they are stored there.

use std::fmt::Debug;
use std::io;

/// Bytes that can be added to at their end.
pub trait Gather: AsRef<[u8]> + Send + Sync + Debug {
    /// Adds bytes.
    ///
    /// # Errors
    /// When there is no memory for them; nothing is added then.
    fn gather(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Gives back memory that is not used.
    fn shrink(&mut self);
}

impl Gather for Vec<u8> {
    fn gather(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.try_reserve(bytes.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn shrink(&mut self) {
        self.shrink_to_fit();
    }
}

/// Makes an empty one.
pub type NewGather = fn() -> Box<dyn Gather>;
