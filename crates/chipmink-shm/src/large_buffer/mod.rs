//! [`LargeBuffer`]: bytes that are gathered in memory, in large pages if they are many and the system has them.
//!
//! The first touch of a page costs the kernel a fault of a microsecond or more, some of it zeroing 4 KiB. A gigabyte in
//! large pages costs 512 of them instead of 262,144.

#[cfg(target_os = "linux")]
mod pages;

use chipmink_types::Gather;
use std::io;

/// Bytes from which on they lie in large pages: that of one.
#[cfg(target_os = "linux")]
const MANY: usize = 2 << 20;

/// Bytes that can be added to.
#[derive(Debug)]
pub struct LargeBuffer(Bytes);

#[derive(Debug)]
enum Bytes {
    Heap(Vec<u8>),
    #[cfg(target_os = "linux")]
    Pages(pages::LargePages),
}

impl Default for LargeBuffer {
    fn default() -> Self {
        LargeBuffer(Bytes::Heap(Vec::new()))
    }
}

impl AsRef<[u8]> for LargeBuffer {
    fn as_ref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Heap(bytes) => bytes,
            #[cfg(target_os = "linux")]
            Bytes::Pages(pages) => pages.as_ref(),
        }
    }
}

impl Gather for LargeBuffer {
    fn gather(&mut self, bytes: &[u8]) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if let Bytes::Heap(before) = &self.0
            && before.len() + bytes.len() > MANY
        {
            let mut pages = pages::LargePages::new()?;
            pages.extend_from_slice(before)?;
            self.0 = Bytes::Pages(pages);
        }
        match &mut self.0 {
            Bytes::Heap(before) => before.gather(bytes),
            #[cfg(target_os = "linux")]
            Bytes::Pages(pages) => pages.extend_from_slice(bytes),
        }
    }

    fn shrink(&mut self) {
        match &mut self.0 {
            Bytes::Heap(bytes) => bytes.shrink_to_fit(),
            #[cfg(target_os = "linux")]
            Bytes::Pages(pages) => pages.shrink_to_fit(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(byte_len: usize, seed: u8) -> Vec<u8> {
        (0..byte_len).map(|i| (i / 5) as u8 ^ (i >> 11) as u8 ^ seed).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]

        #[test]
        fn it_has_what_was_added(lens in prop::collection::vec(0usize..9_000_000, 0..16)) {
            let (mut buffer, mut expected) = (LargeBuffer::default(), Vec::new());
            for (i, byte_len) in lens.into_iter().enumerate() {
                let part = bytes(byte_len, i as u8);
                buffer.gather(&part).unwrap();
                expected.extend_from_slice(&part);
                prop_assert_eq!(buffer.as_ref().len(), expected.len());
                if i % 3 == 2 {
                    buffer.shrink();
                }
            }
            prop_assert!(buffer.as_ref() == expected);
        }
    }
}
