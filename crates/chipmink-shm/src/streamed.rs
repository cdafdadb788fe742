//! Copies past the caches: what is written is not read soon, so the lines that it goes to need not be fetched first.

use std::ptr::copy_nonoverlapping;

/// Bytes that are written at once past the caches, and their alignment.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Copies bytes to memory that the program does not look at soon. Where the processor is none of x86-64 it is a plain copy.
///
/// # Safety
/// As many bytes can be written at `to`, which do not overlap `from`.
pub unsafe fn copy_streamed(from: &[u8], to: *mut u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};

        let head = to.align_offset(LINE).min(from.len());
        let (head, rest) = from.split_at(head);
        let lines = rest.chunks_exact(LINE);
        let tail = lines.remainder();
        // SAFETY: all parts lie within `from`, and go where the caller says that there is room. SSE2, which these need, is
        // part of the architecture; each store is aligned, since the first one is and each line is as long as it.
        unsafe {
            copy_nonoverlapping(head.as_ptr(), to, head.len());
            let mut at = to.add(head.len());
            for line in lines {
                let from: *const __m128i = line.as_ptr().cast();
                let parts = [0, 1, 2, 3].map(|i| _mm_loadu_si128(from.add(i)));
                let into: *mut __m128i = at.cast();
                (0..4).for_each(|i| _mm_stream_si128(into.add(i), parts[i]));
                at = at.add(LINE);
            }
            // What was written must be there before anybody is told so.
            _mm_sfence();
            copy_nonoverlapping(tail.as_ptr(), at, tail.len());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: as the caller says.
    unsafe {
        copy_nonoverlapping(from.as_ptr(), to, from.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_goes_where_it_belongs_and_nowhere_else() {
        let from: Vec<u8> = (0..1000u32).map(|i| (i * 7 + 1) as u8).collect();
        for len in (0..200).chain([255, 256, 257, 640, 900]) {
            for start in 0..70 {
                for first in [0, 1, 16, 63] {
                    let mut to = vec![0u8; 1100];
                    let bytes = &from[first..first + len];
                    // SAFETY: from `start`, the vector has room for `len` bytes.
                    unsafe { copy_streamed(bytes, to.as_mut_ptr().add(start)) };
                    assert_eq!(&to[start..start + len], bytes);
                    assert!(to[..start].iter().chain(&to[start + len..]).all(|byte| *byte == 0));
                }
            }
        }
    }
}
