//! Room for what later versions add to a structure.
//!
//! An extension is a tag and bytes. An even tag may be ignored, and is kept when the structure is written again; an odd
//! tag changes the meaning of the structure, so a reader that does not know it must refuse the structure.

use crate::error::Result;
use crate::wire::{Input, put_bytes, put_varint};

/// Extensions of one structure, by ascending tag. This version knows none that readers must obey.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Extensions(Vec<(u64, Vec<u8>)>);

impl Extensions {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tag and bytes of each.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.0.iter().map(|(tag, bytes)| (*tag, bytes.as_slice()))
    }

    /// The bytes of an extension.
    pub fn get(&self, tag: u64) -> Option<&[u8]> {
        let at = self.0.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?;
        Some(&self.0[at].1)
    }

    /// Adds an extension that readers may ignore, in place of one with the same tag.
    ///
    /// # Panics
    /// When the tag is odd: this version knows no extension that readers must obey.
    pub fn set(&mut self, tag: u64, bytes: Vec<u8>) {
        assert!(tag.is_multiple_of(2), "extension {tag} would be required of readers");
        match self.0.binary_search_by_key(&tag, |(tag, _)| *tag) {
            Ok(at) => self.0[at].1 = bytes,
            Err(at) => self.0.insert(at, (tag, bytes)),
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.0.len() as u64);
        for (tag, bytes) in &self.0 {
            put_varint(out, *tag);
            put_bytes(out, bytes);
        }
    }

    pub(crate) fn decode(input: &mut Input<'_>) -> Result<Self> {
        let count = input.count(2)?;
        let mut all: Vec<(u64, Vec<u8>)> = Vec::with_capacity(count);
        for _ in 0..count {
            let tag = input.varint()?;
            if all.last().is_some_and(|(last, _)| *last >= tag) {
                return Err(input.damaged("extension tags do not ascend"));
            }
            if tag % 2 == 1 {
                return Err(input.unsupported(format!("extension {tag}")));
            }
            all.push((tag, input.bytes()?.to_vec()));
        }
        Ok(Extensions(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FormatError;

    #[test]
    fn even_tags_are_kept_and_odd_tags_refused() {
        let mut extensions = Extensions::default();
        extensions.set(4, vec![1]);
        extensions.set(2, vec![]);
        let mut out = Vec::new();
        extensions.encode(&mut out);
        assert_eq!(Extensions::decode(&mut Input::new("test", &out)).unwrap(), extensions);
        let refused = Extensions::decode(&mut Input::new("test", &[1, 3, 0]));
        assert!(matches!(refused, Err(FormatError::UnsupportedForReading { .. })));
        let twice = Extensions::decode(&mut Input::new("test", &[2, 2, 0, 2, 0]));
        assert!(matches!(twice, Err(FormatError::Damaged { .. })));
    }
}
