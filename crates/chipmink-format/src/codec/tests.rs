use super::*;
use proptest::prelude::*;

const MAX: u64 = 1 << 20;

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn round_trip(bytes: &[u8]) -> (Codec, usize) {
    let mut compressor = Compressor::new();
    let (codec, stored) = encode_blob(BlobKind::Pod, bytes, &mut compressor);
    let stored = Bytes::copy_from_slice(&stored);
    let len = stored.len();
    assert_eq!(decode_blob(stored, codec, bytes.len() as u64, MAX).unwrap(), bytes);
    (codec, len)
}

#[test]
fn what_halves_is_compressed_and_the_rest_is_raw() {
    assert_eq!(round_trip(b"").0, Codec::Raw);
    assert_eq!(round_trip(&[7; RAW_BELOW - 1]).0, Codec::Raw);
    assert_eq!(round_trip(&[7; RAW_BELOW]).0, Codec::Zstd);
    assert_eq!(round_trip(&noise(2000)), (Codec::Raw, 2000));
    assert_eq!(round_trip(&noise(100_000)), (Codec::Raw, 100_000));
    let (codec, len) = round_trip(&[7; 65_536]);
    assert!(codec == Codec::Zstd && len < 100);
    // Two thirds noise: compressible, but not to the half.
    let mixed = [noise(2000), vec![0; 1000]].concat();
    assert_eq!(round_trip(&mixed).0, Codec::Raw);
}

#[test]
fn a_big_blob_is_judged_by_samples() {
    let letters: Vec<u8> = noise(300_000).iter().map(|byte| b'a' + byte % 52).collect();
    assert!(!Compressor::new().promises(&letters) && !Compressor::new().promises(&letters[..60_000]));
    let mut bytes = vec![0; 300_000];
    bytes[..100_000].copy_from_slice(&noise(100_000));
    assert_eq!(round_trip(&bytes).0, Codec::Zstd, "one sample of three lies in the noise");
    let mut bytes = vec![0; 60_000];
    bytes[25_000..35_000].copy_from_slice(&noise(10_000));
    assert_eq!(round_trip(&bytes).0, Codec::Raw, "the sample lies in the noise");
    let mut bytes = noise(60_000);
    bytes[5_000..55_000].fill(1);
    assert_eq!(round_trip(&bytes).0, Codec::Zstd);
}

#[test]
fn a_compressor_is_used_again() {
    let mut compressor = Compressor::new();
    for len in [1100, 70_000, 3, 2500, 65_536] {
        let bytes = vec![len as u8; len];
        let (codec, stored) = encode_blob(BlobKind::Chunk, &bytes, &mut compressor);
        let stored = Bytes::copy_from_slice(&stored);
        assert_eq!(decode_blob(stored, codec, len as u64, MAX).unwrap(), bytes);
    }
}

#[test]
fn lengths_that_contradict_each_other_are_damage() {
    let mut compressor = Compressor::new();
    let bytes = vec![5; 4000];
    let (codec, stored) = encode_blob(BlobKind::Pod, &bytes, &mut compressor);
    let stored = Bytes::copy_from_slice(&stored);
    let decode = |decoded_len| decode_blob(stored.clone(), codec, decoded_len, MAX);
    assert!(matches!(decode(3999), Err(FormatError::Damaged { .. })));
    assert!(matches!(decode(4001), Err(FormatError::Damaged { .. })));
    assert!(matches!(decode(MAX + 1), Err(FormatError::TooLarge { .. })));
    assert!(matches!(decode(u64::MAX), Err(FormatError::TooLarge { .. })));
    assert!(matches!(
        decode_blob(Bytes::from_static(b"abc"), Codec::Raw, 2, MAX),
        Err(FormatError::Damaged { .. })
    ));
    for len in 0..stored.len() {
        assert!(decode_blob(stored.slice(..len), codec, 4000, MAX).is_err());
    }
}

#[test]
fn codecs_of_later_versions_are_named() {
    let lz4 = decode_blob(Bytes::from_static(b"abc"), Codec::Lz4, 3, MAX);
    assert!(matches!(lz4, Err(FormatError::UnsupportedForReading { .. })));
    assert_eq!(Codec::from_number(4), None);
}

#[test]
fn a_delta_comes_back_over_its_base() {
    let base = noise(65_536);
    for (len, changed) in [(65_536, 17), (65_530, 65_529), (70_000, 3)] {
        let mut bytes = base.clone();
        bytes.resize(len, 9);
        bytes[changed] ^= 0xff;
        let stored = encode_delta(&bytes, &base, 4096, &mut Compressor::new()).unwrap();
        assert_eq!(decode_delta(&stored, len as u64, &base, MAX).unwrap(), bytes);
        assert!(decode_blob(stored.into(), Codec::Delta, len as u64, MAX).is_err(), "it needs its base");
    }
    assert_eq!(encode_delta(&noise(4000), &vec![0; 4000], 3000, &mut Compressor::new()), None);
}

proptest! {
    #[test]
    fn blobs_come_back(bytes in prop::collection::vec(0u8..4, 0..5000)) {
        round_trip(&bytes);
    }

    #[test]
    fn arbitrary_frames_give_errors(bytes in prop::collection::vec(any::<u8>(), 0..300), len in 0u64..5000) {
        prop_assert!(decode_blob(bytes.into(), Codec::Zstd, len, MAX).is_err());
    }

    #[test]
    fn flipped_frames_never_exceed_their_length(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let bytes: Vec<u8> = (0..3000u32).map(|i| (i / 100) as u8).collect();
        let mut compressor = Compressor::new();
        let (_, stored) = encode_blob(BlobKind::Pod, &bytes, &mut compressor);
        let mut stored = stored.to_vec();
        let at = at.index(stored.len());
        stored[at] ^= 1 << bit;
        if let Ok(found) = decode_blob(stored.into(), Codec::Zstd, 3000, MAX) {
            prop_assert_eq!(found.len(), 3000);
        }
    }
}
