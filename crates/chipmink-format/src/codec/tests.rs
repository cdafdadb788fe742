use super::*;
use crate::error::FormatError;
use bytes::Bytes;
use proptest::prelude::*;

const MAX: u64 = 1 << 20;
const METHODS: [Method; 2] = [Method::Zstd, Method::Lz4];

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn round_trip(method: Method, bytes: &[u8], limit: usize) -> Option<usize> {
    let mut compressor = Compressor::new();
    let stored = Bytes::copy_from_slice(compressor.compress(method, bytes, limit)?);
    let len = stored.len();
    assert!(len <= limit);
    assert_eq!(decode_blob(stored, method.codec(), bytes.len() as u64, MAX).unwrap(), bytes);
    Some(len)
}

#[test]
fn what_fits_the_limit_is_given() {
    for method in METHODS {
        assert!(round_trip(method, &[7; 1000], 500).unwrap() < 50);
        assert!(round_trip(method, &[7; 65_536], 32_768).unwrap() < 400);
        assert_eq!(round_trip(method, &noise(2000), 1900), None);
        assert_eq!(round_trip(method, b"", 0), None);
        // Two thirds noise: compressible, but not to the half.
        let mixed = [noise(2000), vec![0; 1000]].concat();
        assert_eq!(round_trip(method, &mixed, 1500), None);
        assert!(round_trip(method, &mixed, 2300).is_some());
    }
}

#[test]
fn samples_judge_a_big_blob() {
    let promises = |bytes: &[u8]| Compressor::new().promises(Method::Zstd, bytes, bytes.len() / 2);
    let letters: Vec<u8> = noise(300_000).iter().map(|byte| b'a' + byte % 52).collect();
    assert!(!promises(&letters) && !promises(&letters[..60_000]));
    let mut bytes = vec![0; 300_000];
    bytes[..100_000].copy_from_slice(&noise(100_000));
    assert!(promises(&bytes), "one sample of three lies in the noise");
    let mut bytes = vec![0; 60_000];
    bytes[25_000..35_000].copy_from_slice(&noise(10_000));
    assert!(!promises(&bytes), "the sample lies in the noise");
    let mut bytes = noise(60_000);
    bytes[5_000..55_000].fill(1);
    assert!(promises(&bytes));
    assert!(promises(&noise(2000)), "what is small is tried");
}

#[test]
fn a_compressor_is_used_again() {
    let mut compressor = Compressor::new();
    for (round, len) in [1100, 70_000, 3000, 65_535, 65_534, 2500].into_iter().enumerate() {
        let bytes = vec![len as u8; len];
        for method in METHODS {
            let stored = Bytes::copy_from_slice(compressor.compress(method, &bytes, len / 2).unwrap());
            assert_eq!(decode_blob(stored, method.codec(), len as u64, MAX).unwrap(), bytes);
        }
        if round == 2 {
            compressor.trim();
        }
    }
}

#[test]
fn lengths_that_contradict_each_other_are_damage() {
    let bytes = vec![5; 4000];
    for method in METHODS {
        let mut compressor = Compressor::new();
        let stored = Bytes::copy_from_slice(compressor.compress(method, &bytes, 2000).unwrap());
        let codec = method.codec();
        let decode = |decoded_len| decode_blob(stored.clone(), codec, decoded_len, MAX);
        assert!(matches!(decode(3999), Err(FormatError::Damaged { .. })));
        assert!(matches!(decode(4001), Err(FormatError::Damaged { .. })));
        assert!(matches!(decode(1 << 19), Err(FormatError::Damaged { .. })));
        assert!(matches!(decode(MAX + 1), Err(FormatError::TooLarge { .. })));
        assert!(matches!(decode(u64::MAX), Err(FormatError::TooLarge { .. })));
        for len in 0..stored.len() {
            assert!(decode_blob(stored.slice(..len), codec, 4000, MAX).is_err());
        }
    }
    let raw = decode_blob(Bytes::from_static(b"abc"), Codec::Raw, 2, MAX);
    assert!(matches!(raw, Err(FormatError::Damaged { .. })));
}

#[test]
fn numbers_of_codecs_stay() {
    let codecs = [Codec::Raw, Codec::Zstd, Codec::Lz4, Codec::XorDelta, Codec::SparseDelta];
    for (number, codec) in codecs.into_iter().enumerate() {
        assert_eq!(Codec::from_number(number as u8), Some(codec));
        assert_eq!(codec as usize, number);
    }
    assert_eq!(Codec::from_number(5), None);
}

fn owned(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// The codec of the delta and its length; `None` if there is none within the limit.
fn delta_of(bytes: &[u8], base: &[u8], limit: usize) -> Option<(Codec, usize)> {
    let mut compressor = Compressor::new();
    let (codec, stored) = compressor.compress_delta(bytes, base, limit)?;
    assert!(stored.len() <= limit);
    assert_eq!(decode_delta(stored, codec, bytes.len() as u64, owned(base), MAX).unwrap(), bytes);
    let (shared, other) = (owned(base), owned(base));
    let clone = shared.clone();
    assert_eq!(decode_delta(stored, codec, bytes.len() as u64, shared, MAX).unwrap(), bytes);
    assert_eq!(clone, other, "a base that others hold is left alone");
    check_delta(stored, codec, bytes.len() as u64, MAX).unwrap();
    for at in 0..stored.len().min(2000) {
        let mut flipped = stored.to_vec();
        flipped[at] ^= 1;
        // Some bits of a frame mean nothing.
        let is_harmless =
            || decode_delta(&flipped, codec, bytes.len() as u64, owned(base), MAX).unwrap() == bytes;
        let is_noticed = check_delta(&flipped, codec, bytes.len() as u64, MAX).is_err();
        assert!(is_noticed || is_harmless(), "byte {at} of {}", stored.len());
    }
    let alone = decode_blob(Bytes::copy_from_slice(stored), codec, bytes.len() as u64, MAX);
    assert!(alone.is_err(), "it needs its base");
    Some((codec, stored.len()))
}

#[test]
fn a_chunk_that_changed_a_little_is_a_sparse_delta() {
    let base = noise(65_536);
    for (len, changed) in [(65_536, 17), (65_530, 65_529), (65_529, 65_528), (66_000, 3), (60_000, 59_999)] {
        let mut bytes = base.clone();
        bytes.resize(len, 0);
        bytes[changed] ^= 0xff;
        let (codec, stored) = delta_of(&bytes, &base, 4096).unwrap();
        assert!(codec == Codec::SparseDelta && stored < 300, "{len}: {stored}");
    }
    assert_eq!(delta_of(&base, &base, 10), Some((Codec::SparseDelta, 10)), "nothing changed");
    assert_eq!(delta_of(b"", b"base", 10), None, "nothing is shorter than nothing");
}

#[test]
fn a_chunk_that_changed_everywhere_and_alike_is_an_xor_delta() {
    let base = noise(65_536);
    let bytes: Vec<u8> = base.iter().map(|byte| byte ^ 0x11).collect();
    let (codec, stored) = delta_of(&bytes, &base, 32_768).unwrap();
    assert!(codec == Codec::XorDelta && stored < 200);
    assert_eq!(delta_of(&noise(65_536), &vec![0; 65_536], 60_000), None);
    assert_eq!(delta_of(&noise(4000), &vec![0; 4000], 3000), None);
}

#[test]
fn a_hundredth_of_scattered_weights_costs_about_its_entropy() {
    let base = noise(65_536);
    let pick = noise(4 * 32_768);
    let (mut flipped, mut fresh) = (base.clone(), base.clone());
    for element in 0..32_768 {
        let chance = u32::from_le_bytes(pick[4 * element..4 * element + 4].try_into().unwrap());
        if chance % 100 == 0 {
            flipped[2 * element] ^= 1;
            fresh[2 * element] ^= (chance >> 16) as u8 | 1;
            fresh[2 * element + 1] ^= (chance >> 24) as u8;
        }
    }
    let (codec, stored) = delta_of(&flipped, &base, 4096).unwrap();
    assert!(codec == Codec::SparseDelta && stored < 65_536 / 140, "{stored}");
    let (codec, stored) = delta_of(&fresh, &base, 4096).unwrap();
    assert!(codec == Codec::SparseDelta && stored < 65_536 / 60, "{stored}");
}

#[test]
fn crafted_sparse_deltas_give_errors() {
    let base = [1u8; 64];
    let summed = |rest: &[u8]| [&crate::wire::checksum(rest)[..], rest].concat();
    let decode = |stored: &[u8]| decode_delta(&summed(stored), Codec::SparseDelta, 64, owned(&base), MAX);
    // One element of one byte: gap 5, value 3.
    assert_eq!(decode(&[1, 1, 5, 3]).unwrap()[5], 2);
    for crafted in [
        &[][..],
        &[1],
        &[0, 0],
        &[3, 0],
        &[32, 0],
        &[1, 1, 64, 3],
        &[1, 1, 5],
        &[1, 2, 5, 3],
        &[1, 1, 5, 5, 3],
        &[1, 1, 255, 3],
        &[1, 0, 255],
        &[8, 1, 8, 0, 0, 0, 0, 0, 0, 0, 1],
        &[2, 1, 31, 1],
        &[17, 1, 5, 3],
        &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
    ] {
        assert!(decode(crafted).is_err(), "{crafted:?}");
    }
    let long = zstd::bulk::compress(&[0; 65], 1).unwrap();
    assert!(decode(&[&[17], &long[..]].concat()).is_err(), "longer than the chunk");
    assert!(
        decode_delta(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0], Codec::SparseDelta, 64, owned(&base), MAX).is_err()
    );
    assert!(
        decode_delta(&summed(&[8, 0]), Codec::SparseDelta, 63, owned(&base), MAX).is_err(),
        "63 bytes are no eights"
    );
    assert!(decode_delta(&summed(&[1, 0]), Codec::SparseDelta, MAX + 1, owned(&base), MAX).is_err());
    assert!(decode_delta(&summed(&[1, 0]), Codec::Raw, 64, owned(&base), MAX).is_err());
}

fn any_delta() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let change = (any::<prop::sample::Index>(), 1usize..40, any::<u8>());
    let changes = prop::collection::vec(change, 0..60);
    (0usize..3000, 0usize..3000, changes).prop_map(|(old_len, new_len, changes)| {
        let base = noise(old_len);
        let mut bytes = base.clone();
        bytes.resize(new_len, 0x55);
        for (at, len, value) in changes {
            if new_len > 0 {
                let at = at.index(new_len);
                bytes[at..(at + len).min(new_len)]
                    .iter_mut()
                    .for_each(|byte| *byte = byte.wrapping_add(value));
            }
        }
        (bytes, base)
    })
}

proptest! {
    #[test]
    fn blobs_come_back(bytes in prop::collection::vec(0u8..4, 1..5000), method in 0..2usize) {
        round_trip(METHODS[method], &bytes, 2 * bytes.len() + 100).unwrap();
    }

    #[test]
    fn deltas_come_back((bytes, base) in any_delta(), limit in 0usize..4000) {
        delta_of(&bytes, &base, limit);
        delta_of(&bytes, &base, 1 << 20);
    }

    #[test]
    fn arbitrary_bytes_give_errors_or_the_length(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        len in 0u64..5000,
    ) {
        prop_assert!(decode_blob(bytes.clone().into(), Codec::Zstd, len, MAX).is_err());
        for found in [
            decode_blob(bytes.clone().into(), Codec::Lz4, len, MAX),
            decode_delta(&bytes, Codec::XorDelta, len, owned(&[1; 700]), MAX),
            decode_delta(&bytes, Codec::SparseDelta, len, owned(&[1; 700]), MAX),
        ] {
            prop_assert!(found.is_err() || found.is_ok_and(|found| found.len() as u64 == len));
        }
    }

    #[test]
    fn flipped_bits_never_exceed_the_length(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let bytes: Vec<u8> = (0..3000u32).map(|i| (i / 100) as u8).collect();
        let mut compressor = Compressor::new();
        for method in METHODS {
            let mut stored = compressor.compress(method, &bytes, 3000).unwrap().to_vec();
            let at = at.index(stored.len());
            stored[at] ^= 1 << bit;
            if let Ok(found) = decode_blob(stored.into(), method.codec(), 3000, MAX) {
                prop_assert_eq!(found.len(), 3000);
            }
        }
        let base = noise(3000);
        let mut bytes = base.clone();
        (0..3000).step_by(37).for_each(|at| bytes[at] ^= 5);
        let (codec, stored) = compressor.compress_delta(&bytes, &base, 3000).unwrap();
        let mut stored = stored.to_vec();
        let at = at.index(stored.len());
        stored[at] ^= 1 << bit;
        if let Ok(found) = decode_delta(&stored, codec, 3000, owned(&base), MAX) {
            prop_assert_eq!(found.len(), 3000);
        }
    }
}
