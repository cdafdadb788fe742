//! Reads the bytes of one pod, in order and never past their end.

use super::error::{Failure, Result};
use bytes::Bytes;

/// A place in a pod's bytes.
///
/// Invariant: `at <= end <= bytes.len()`.
pub(super) struct Reader {
    bytes: Bytes,
    at: usize,
    end: usize,
}

impl Reader {
    /// Reads `bytes` from `at` up to, not including, `end`; both are cut to the length there is.
    pub(super) fn new(bytes: Bytes, at: usize, end: usize) -> Self {
        let end = end.min(bytes.len());
        Reader { at: at.min(end), end, bytes }
    }

    #[inline(always)]
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Goes back to a place that [`Reader::at`] gave.
    #[inline(always)]
    pub(super) fn rewind(&mut self, at: usize) {
        debug_assert!(at <= self.at);
        self.at = at.min(self.end);
    }

    #[inline(always)]
    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.end
    }

    #[inline(always)]
    pub(super) fn remaining(&self) -> usize {
        self.end - self.at
    }

    #[inline(always)]
    pub(super) fn byte(&mut self) -> Result<u8> {
        if self.at >= self.end {
            return Err(ends_early());
        }
        let byte = self.bytes[self.at];
        self.at += 1;
        Ok(byte)
    }

    /// The byte that [`Reader::byte`] would return next.
    pub(super) fn peek(&self) -> Result<u8> {
        if self.at >= self.end {
            return Err(ends_early());
        }
        Ok(self.bytes[self.at])
    }

    #[inline(always)]
    pub(super) fn take(&mut self, byte_len: usize) -> Result<&[u8]> {
        if byte_len > self.end - self.at {
            return Err(ends_early());
        }
        let from = self.at;
        self.at += byte_len;
        Ok(&self.bytes[from..from + byte_len])
    }

    #[inline(always)]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.take(N)?.first_chunk::<N>() {
            Some(bytes) => Ok(*bytes),
            None => Err(ends_early()),
        }
    }

    /// A LEB128 number.
    #[inline(always)]
    pub(super) fn varint(&mut self) -> Result<u64> {
        let byte = self.byte()?;
        if byte < 0x80 { Ok(u64::from(byte)) } else { self.long_varint(byte) }
    }

    #[inline(never)]
    fn long_varint(&mut self, first: u8) -> Result<u64> {
        let mut value = u64::from(first & 0x7F);
        let mut shift = 7;
        loop {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(Failure::damaged("a number does not fit 64 bits"));
            }
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                if byte == 0 {
                    return Err(Failure::damaged("a number is not in its shortest form"));
                }
                return Ok(value);
            }
            shift += 7;
        }
    }

    /// A number used as an index or a length in memory.
    #[inline(always)]
    pub(super) fn size(&mut self) -> Result<usize> {
        let value = self.varint()?;
        usize::try_from(value).map_err(|_| Failure::damaged("a number is too large for this machine"))
    }

    /// A count of values that each take at least one byte.
    #[inline(always)]
    pub(super) fn count(&mut self) -> Result<usize> {
        let count = self.size()?;
        if count > self.remaining() {
            return Err(Failure::damaged(format!(
                "{count} values are announced where {} bytes are left",
                self.remaining()
            )));
        }
        Ok(count)
    }

    /// A length, then as many bytes.
    #[inline(always)]
    pub(super) fn sized(&mut self) -> Result<&[u8]> {
        let byte_len = self.size()?;
        self.take(byte_len)
    }
}

#[cold]
#[inline(never)]
fn ends_early() -> Failure {
    Failure::damaged("the bytes end inside a value")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(bytes: &[u8]) -> Reader {
        Reader::new(Bytes::copy_from_slice(bytes), 0, bytes.len())
    }

    #[test]
    fn varints_are_read_in_their_shortest_form_only() {
        assert!(matches!(reader(&[0x7F]).varint(), Ok(0x7F)));
        assert!(matches!(reader(&[0x80, 0x01]).varint(), Ok(0x80)));
        let mut largest = [0xFF; 10];
        largest[9] = 1;
        assert!(matches!(reader(&largest).varint(), Ok(u64::MAX)));
        assert!(reader(&[0x80, 0x00]).varint().is_err());
        assert!(reader(&[0x80]).varint().is_err());
        assert!(reader(&[0xFF; 10]).varint().is_err());
    }

    #[test]
    fn nothing_is_read_past_the_end() {
        let mut reader = Reader::new(Bytes::from_static(b"abcd"), 1, 3);
        assert!(matches!(reader.take(2), Ok(b"bc")));
        assert!(reader.take(1).is_err());
        assert!(reader.byte().is_err());
        assert!(reader.is_at_end());
    }

    #[test]
    fn a_count_is_bounded_by_the_bytes_that_are_left() {
        assert!(matches!(reader(&[2, 0, 0]).count(), Ok(2)));
        assert!(reader(&[3, 0, 0]).count().is_err());
    }
}
