//! What a reader or writer must know to work on a repository.

use crate::error::{FormatError, Result};
use crate::wire::{Input, put_varint, varint_len};

/// The format version that this build reads and writes.
pub const FORMAT_VERSION: u16 = 1;

/// Feature bit for reading: index rows may name chunk deltas.
pub const FEATURE_CHUNK_DELTA: u64 = 1;
/// Feature bit for reading: blobs may be compressed with LZ4.
pub const FEATURE_LZ4: u64 = 1 << 1;

/// Feature bit for writing: versions were dropped and packs condemned, so what a version takes over must be proved to be there.
pub const FEATURE_SWEPT: u64 = 1;

const KNOWN_FOR_READING: u64 = FEATURE_CHUNK_DELTA | FEATURE_LZ4;
const KNOWN_FOR_WRITING: u64 = FEATURE_SWEPT;

/// Versions and feature bits; they stand in every root entry and never get fewer from one entry to the next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Requirements {
    /// Lowest format version that may read.
    pub min_reader: u16,
    /// Lowest format version that may write or sweep.
    pub min_writer: u16,
    /// Features that a reader must know. A writer must know them too.
    pub for_reading: u64,
    /// Features that only a writer or sweeper must know.
    pub for_writing: u64,
    /// Features that are in use and that anyone may ignore.
    pub optional: u64,
}

impl Default for Requirements {
    fn default() -> Self {
        Requirements { min_reader: 1, min_writer: 1, for_reading: 0, for_writing: 0, optional: 0 }
    }
}

impl Requirements {
    /// The requirements of both.
    #[must_use]
    pub fn joined(self, other: Self) -> Self {
        Requirements {
            min_reader: self.min_reader.max(other.min_reader),
            min_writer: self.min_writer.max(other.min_writer),
            for_reading: self.for_reading | other.for_reading,
            for_writing: self.for_writing | other.for_writing,
            optional: self.optional | other.optional,
        }
    }

    /// Whether this build may read.
    ///
    /// # Errors
    /// [`FormatError::UnsupportedForReading`] naming the version or bits that it lacks.
    pub fn check_read(&self, what: &'static str) -> Result<()> {
        match lacks(self.min_reader, self.for_reading & !KNOWN_FOR_READING) {
            Some(needs) => Err(FormatError::UnsupportedForReading { what: what.into(), needs }),
            None => Ok(()),
        }
    }

    /// Whether this build may write or sweep.
    ///
    /// # Errors
    /// [`FormatError::UnsupportedForWriting`] naming the version or bits that it lacks.
    pub fn check_write(&self, what: &'static str) -> Result<()> {
        let version = self.min_reader.max(self.min_writer);
        let unknown = self.for_reading & !KNOWN_FOR_READING | self.for_writing & !KNOWN_FOR_WRITING;
        match lacks(version, unknown) {
            Some(needs) => Err(FormatError::UnsupportedForWriting { what: what.into(), needs }),
            None => Ok(()),
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.min_reader.into());
        put_varint(out, self.min_writer.into());
        put_varint(out, self.for_reading);
        put_varint(out, self.for_writing);
        put_varint(out, self.optional);
    }

    pub(crate) fn decode(input: &mut Input<'_>) -> Result<Self> {
        let mut version = || -> Result<u16> {
            let value = input.varint()?;
            u16::try_from(value).map_err(|_| input.damaged(format!("version {value} does not fit 16 bits")))
        };
        let (min_reader, min_writer) = (version()?, version()?);
        let (for_reading, for_writing, optional) = (input.varint()?, input.varint()?, input.varint()?);
        Ok(Requirements { min_reader, min_writer, for_reading, for_writing, optional })
    }
}

fn lacks(version: u16, unknown: u64) -> Option<String> {
    debug_assert!(varint_len(unknown) <= 10);
    if version > FORMAT_VERSION {
        Some(format!("it needs format version {version}, this build knows {FORMAT_VERSION}"))
    } else if unknown != 0 {
        Some(format!("it needs the features {unknown:#x}"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_and_writing_are_refused_apart() {
        let plain = Requirements::default();
        plain.check_read("r").unwrap();
        plain.check_write("r").unwrap();
        let writer_only = Requirements { for_writing: 1 << 40, ..plain };
        writer_only.check_read("r").unwrap();
        assert!(matches!(writer_only.check_write("r"), Err(FormatError::UnsupportedForWriting { .. })));
        let newer_writer = Requirements { min_writer: 2, ..plain };
        newer_writer.check_read("r").unwrap();
        assert!(matches!(newer_writer.check_write("r"), Err(FormatError::UnsupportedForWriting { .. })));
        for unreadable in
            [Requirements { for_reading: 1 << 2, ..plain }, Requirements { min_reader: 2, ..plain }]
        {
            assert!(matches!(unreadable.check_read("r"), Err(FormatError::UnsupportedForReading { .. })));
            assert!(matches!(unreadable.check_write("r"), Err(FormatError::UnsupportedForWriting { .. })));
        }
        Requirements { optional: u64::MAX, ..plain }.check_write("r").unwrap();
        let known = Requirements { for_reading: FEATURE_CHUNK_DELTA | FEATURE_LZ4, ..plain };
        known.check_read("r").unwrap();
        known.check_write("r").unwrap();
        Requirements { for_writing: FEATURE_SWEPT, ..known }.check_write("r").unwrap();
    }
}
