//! The text of the kernels.

/// Each file: its name and its text, in the order in which they stand in [`SOURCE`].
pub const PARTS: [(&str, &str); 5] = [
    ("chunks.cuh", include_str!("../cuda/chunks.cuh")),
    ("xxh3.cuh", include_str!("../cuda/xxh3.cuh")),
    ("digest.cu", include_str!("../cuda/digest.cu")),
    ("compact.cu", include_str!("../cuda/compact.cu")),
    ("gather.cu", include_str!("../cuda/gather.cu")),
];

/// All files as one translation unit.
pub const SOURCE: &str = concat!(
    include_str!("../cuda/chunks.cuh"),
    include_str!("../cuda/xxh3.cuh"),
    include_str!("../cuda/digest.cu"),
    include_str!("../cuda/compact.cu"),
    include_str!("../cuda/gather.cu"),
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::KERNELS;

    #[test]
    fn the_unit_is_made_of_the_parts_and_has_every_kernel() {
        assert_eq!(PARTS.map(|(_, text)| text).concat(), SOURCE);
        for name in KERNELS {
            assert_eq!(SOURCE.matches(&format!(" {name}(")).count(), 1, "{name}");
        }
    }

    #[test]
    fn the_sources_include_nothing_and_are_ascii() {
        assert!(!SOURCE.contains("#include"));
        assert!(SOURCE.is_ascii());
    }
}
