//! Reading and writing numbers, strings and digests: what every structure is made of.
//!
//! Invariants:
//! 1. A varint is LEB128 of a u64 in its shortest form; a longer form is damage. So a value has one encoding.
//! 2. No length is trusted: a count is bounded by the bytes that are left before anything is allocated for it.

use crate::error::{FormatError, Result};
use crate::extensions::Extensions;
use chipmink_digest::digest;
use chipmink_types::{DIGEST_LEN, Digest};
use std::borrow::Cow;

/// Bytes of a checksum: the first eight of the canonical XXH3-128.
pub(crate) const CHECKSUM_LEN: usize = 8;

/// Detects damage of what is not named by its digest.
pub(crate) fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let digest = digest(bytes);
    let mut out = [0; CHECKSUM_LEN];
    out.copy_from_slice(&digest.as_bytes()[1..=CHECKSUM_LEN]);
    out
}

/// A cursor over untrusted bytes.
pub(crate) struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
    what: &'static str,
}

impl<'a> Input<'a> {
    pub(crate) const fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Input { bytes, at: 0, what }
    }

    /// Starts behind the two header bytes, the structure's letter and its version.
    pub(crate) fn with_header(what: &'static str, letter: u8, bytes: &'a [u8]) -> Result<Self> {
        let mut input = Input::new(what, bytes);
        let found = input.u8()?;
        if found != letter {
            return Err(input.damaged_at(0, format!("it begins with {found:#04x}, not {letter:#04x}")));
        }
        let version = input.u8()?;
        if version != 1 {
            return Err(input.unsupported(format!("version {version}")));
        }
        Ok(input)
    }

    pub(crate) fn damaged(&self, reason: impl Into<Cow<'static, str>>) -> FormatError {
        self.damaged_at(self.at, reason)
    }

    fn damaged_at(&self, at: usize, reason: impl Into<Cow<'static, str>>) -> FormatError {
        FormatError::Damaged { what: self.what.into(), byte_offset: at as u64, reason: reason.into() }
    }

    pub(crate) fn unsupported(&self, needs: String) -> FormatError {
        FormatError::UnsupportedForReading { what: self.what.into(), needs }
    }

    pub(crate) const fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) const fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        if len > self.left() {
            return Err(self.missing(len));
        }
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(taken)
    }

    #[cold]
    fn missing(&self, len: usize) -> FormatError {
        self.damaged(format!("{len} bytes are missing, {} are left", self.left()))
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.bytes[self.at..].first_chunk::<N>() {
            Some(array) => {
                self.at += N;
                Ok(*array)
            }
            None => Err(self.missing(N)),
        }
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|byte| byte[0])
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64> {
        match self.bytes.get(self.at) {
            Some(byte) if *byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64> {
        let start = self.at;
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(self.damaged_at(start, "a varint is not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(self.damaged_at(start, "a varint does not fit 64 bits"))
    }

    #[inline]
    pub(crate) fn varint_u32(&mut self) -> Result<u32> {
        let start = self.at;
        let value = self.varint()?;
        u32::try_from(value).map_err(|_| self.damaged_at(start, format!("{value} does not fit 32 bits")))
    }

    /// A count of items of at least `item_len` bytes each, which must still be there.
    #[inline]
    pub(crate) fn count(&mut self, item_len: usize) -> Result<usize> {
        let start = self.at;
        let value = self.varint()?;
        match usize::try_from(value) {
            Ok(count) if count <= self.left() / item_len.max(1) => Ok(count),
            _ => Err(self.damaged_at(start, format!("{value} items cannot stand in {} bytes", self.left()))),
        }
    }

    pub(crate) fn i64(&mut self) -> Result<i64> {
        self.array().map(i64::from_le_bytes)
    }

    #[inline]
    pub(crate) fn digest(&mut self) -> Result<Digest> {
        self.array::<DIGEST_LEN>().map(Digest::from_encoded)
    }

    /// A varint length, then as many bytes.
    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.count(1)?;
        self.take(len)
    }

    pub(crate) fn str(&mut self) -> Result<&'a str> {
        let start = self.at;
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.damaged_at(start, "a string is not UTF-8"))
    }

    pub(crate) fn string(&mut self) -> Result<String> {
        self.str().map(str::to_owned)
    }

    pub(crate) fn bool(&mut self) -> Result<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.damaged(format!("{other} is neither yes nor no"))),
        }
    }

    pub(crate) fn extensions(&mut self) -> Result<Extensions> {
        Extensions::decode(self)
    }

    /// A sparse order label: the count of its trailing zero bits, then the rest, which is odd (or the label is 0).
    #[inline]
    pub(crate) fn order(&mut self) -> Result<u64> {
        let start = self.at;
        let zeros = u32::from(self.u8()?);
        let odd = self.varint()?;
        let canonical = if odd == 0 { zeros == 0 } else { odd & 1 == 1 && zeros <= odd.leading_zeros() };
        if !canonical {
            return Err(self.damaged_at(start, "an order label is not in its shortest form"));
        }
        Ok(odd << zeros)
    }

    pub(crate) fn end(self) -> Result<()> {
        if self.is_at_end() { Ok(()) } else { Err(self.damaged(format!("{} bytes too many", self.left()))) }
    }
}

#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) const fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

pub(crate) fn put_digest(out: &mut Vec<u8>, digest: &Digest) {
    out.extend_from_slice(digest.as_bytes());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_str(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

pub(crate) fn put_order(out: &mut Vec<u8>, order: u64) {
    let zeros = if order == 0 { 0 } else { order.trailing_zeros() };
    out.push(zeros as u8);
    put_varint(out, order >> zeros);
}

pub(crate) use crate::tag::{unzigzag, zigzag};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_come_back(value in any::<u64>(), shift in 0u32..64) {
            let value = value >> shift;
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            let mut input = Input::new("test", &out);
            prop_assert_eq!(input.varint().unwrap(), value);
            input.end().unwrap();
        }

        #[test]
        fn order_labels_come_back(value in any::<u64>(), left in 0u32..64, right in 0u32..64) {
            let value = value >> right << left;
            let mut out = Vec::new();
            put_order(&mut out, value);
            let mut input = Input::new("test", &out);
            prop_assert_eq!(input.order().unwrap(), value);
            input.end().unwrap();
        }

        #[test]
        fn zigzag_comes_back(value in any::<i64>()) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }
    }

    #[test]
    fn longer_forms_are_damage() {
        let varint = |bytes: &[u8]| Input::new("test", bytes).varint();
        assert!(varint(&[0x80, 0x00]).is_err());
        assert!(varint(&[0x80; 10]).is_err());
        assert!(varint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]).is_err());
        assert_eq!(varint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).unwrap(), u64::MAX);
        let order = |bytes: &[u8]| Input::new("test", bytes).order();
        assert!(order(&[1, 2]).is_err());
        assert!(order(&[1, 0]).is_err());
        assert!(order(&[64, 1]).is_err());
        assert!(order(&[63, 3]).is_err());
        assert_eq!(order(&[63, 1]).unwrap(), 1 << 63);
    }

    #[test]
    fn counts_are_bounded_by_what_is_left() {
        let mut out = Vec::new();
        put_varint(&mut out, u64::MAX);
        out.extend_from_slice(&[0; 20]);
        assert!(Input::new("test", &out).count(1).is_err());
        assert!(Input::new("test", &[3, 0, 0, 0, 0, 0]).count(2).is_err());
        assert_eq!(Input::new("test", &[3, 0, 0, 0, 0, 0, 0]).count(2).unwrap(), 3);
    }
}
