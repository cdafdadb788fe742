use super::*;
use crate::codec::Codec;
use crate::testing::*;
use chipmink_types::BlobKind;
use proptest::collection::vec;
use proptest::prelude::*;

fn any_row(packs: u32) -> impl Strategy<Value = IndexRow> {
    let kind = prop_oneof![
        Just(None),
        Just(Some(BlobKind::Pod)),
        Just(Some(BlobKind::Chunk)),
        Just(Some(BlobKind::DigestNode)),
        Just(Some(BlobKind::Table)),
        Just(Some(BlobKind::Descriptor)),
        Just(Some(BlobKind::Text)),
    ];
    // Few different digests, so that some blobs lie in several packs.
    let name = (0u64..1000).prop_map(|seed| chipmink_digest::digest(&seed.to_le_bytes()));
    let codec = (0u8..5).prop_map(|number| Codec::from_number(number).unwrap());
    (name, 0..packs, 0u64..1 << 50, 0u64..1 << 50, any_number(), codec, kind, any_digest()).prop_map(
        |(digest, pack, byte_offset, stored_len, decoded_len, codec, kind, base)| IndexRow {
            digest,
            pack,
            byte_offset,
            stored_len,
            decoded_len: if codec == Codec::Raw { stored_len } else { decoded_len },
            codec,
            kind,
            base: codec.is_delta().then_some(base),
        },
    )
}

fn sorted(mut rows: Vec<IndexRow>) -> Vec<IndexRow> {
    rows.sort_by_key(|row| (row.digest, row.pack, row.byte_offset));
    rows
}

fn names(count: u8) -> Vec<PackName> {
    (0..count).map(|i| PackName([i; 16])).collect()
}

#[test]
fn an_empty_index_is_a_head() {
    let segment = encode_segment(0, &[], Vec::new());
    assert_eq!(segment.bytes.len() as u64, segment.head_len);
    let (head, rows) = decode_segment(&segment.bytes).unwrap();
    assert!(
        rows.is_empty() && head.blocks.is_empty() && head.block_for(&chipmink_digest::digest(b"")).is_none()
    );
}

#[test]
fn a_filter_lets_few_foreign_digests_pass() {
    let name = |i: u32| chipmink_digest::digest(&i.to_le_bytes());
    let row = |i: u32| IndexRow {
        digest: name(i),
        pack: 0,
        byte_offset: u64::from(i) * 100,
        stored_len: 100,
        decoded_len: 100,
        codec: Codec::Raw,
        kind: Some(BlobKind::Pod),
        base: None,
    };
    let segment = encode_segment(0, &[], (0..5000).map(row).collect());
    let (head, _) = decode_segment(&segment.bytes).unwrap();
    assert!((0..5000).all(|i| head.may_hold(&name(i))));
    let passed = (5000..15_000).filter(|i| head.may_hold(&name(*i))).count();
    assert!(passed < 150, "{passed} of 10,000");
    let per_row = segment.bytes.len() / 5000;
    assert!(per_row <= 26, "{per_row} bytes a row");
    assert!(head.blocks.iter().all(|block| block.byte_len < 4096 + 100));
}

#[test]
fn a_merge_keeps_every_row_under_its_pack() {
    let name = |i: u32| chipmink_digest::digest(&i.to_le_bytes());
    let row = |i: u32, pack: u32| IndexRow {
        digest: name(i),
        pack,
        byte_offset: u64::from(i),
        stored_len: 5,
        decoded_len: 5,
        codec: Codec::Raw,
        kind: None,
        base: None,
    };
    let own = encode_segment(0, &[], (0..300).map(|i| row(i, 0)).collect());
    let both = encode_segment(1, &names(2), (200..600).map(|i| row(i, i % 2)).collect());
    let (own_head, own_rows) = decode_segment(&own.bytes).unwrap();
    let (both_head, both_rows) = decode_segment(&both.bytes).unwrap();
    let merged = merge_segments(&[
        MergePart { head: &own_head, rows: &own_rows, stands_in: PackName([9; 16]) },
        MergePart { head: &both_head, rows: &both_rows, stands_in: PackName([8; 16]) },
    ]);
    let (head, rows) = decode_segment(&merged.bytes).unwrap();
    assert_eq!((head.level, rows.len()), (2, 700));
    for (i, expected) in [(0, vec![9]), (250, vec![9, 0]), (301, vec![1]), (598, vec![0])] {
        let fence = head.block_for(&name(i)).unwrap();
        let start = fence.byte_offset as usize;
        let block = &merged.bytes[start..start + fence.byte_len as usize];
        let found = head.find_in_block(fence, block, &name(i)).unwrap();
        let packs: Vec<u8> = found.iter().map(|row| head.packs[row.pack as usize].0[0]).collect();
        assert_eq!(packs, expected, "blob {i}");
    }
}

#[test]
fn codecs_of_later_versions_are_unsupported_not_damaged() {
    let digest = chipmink_digest::digest(b"x");
    let row = IndexRow {
        digest,
        pack: 0,
        byte_offset: 1,
        stored_len: 2,
        decoded_len: 2,
        codec: Codec::Raw,
        kind: None,
        base: None,
    };
    let mut bytes = Vec::new();
    row.encode(None, false, &mut bytes);
    *bytes.last_mut().unwrap() = 9;
    let found = IndexRow::decode(&mut Input::new("test", &bytes), None, 0);
    assert!(matches!(found, Err(FormatError::UnsupportedForReading { .. })));
    // A kind that is not known is only advice.
    *bytes.last_mut().unwrap() = 0xf0;
    assert_eq!(IndexRow::decode(&mut Input::new("test", &bytes), None, 0).unwrap().kind, None);
}

proptest! {
    #[test]
    fn segments_come_back(rows in vec(any_row(3), 0..600)) {
        let segment = encode_segment(2, &names(3), rows.clone());
        let (head, found) = decode_segment(&segment.bytes).unwrap();
        prop_assert_eq!(&found, &sorted(rows));
        prop_assert_eq!(head.level, 2);
        for row in found.iter().step_by(7) {
            let fence = head.block_for(&row.digest).unwrap();
            let start = fence.byte_offset as usize;
            let same = head.find_in_block(fence, &segment.bytes[start..start + fence.byte_len as usize], &row.digest).unwrap();
            prop_assert!(same.contains(row));
            prop_assert_eq!(same.len(), found.iter().filter(|other| other.digest == row.digest).count());
        }
        let again = SegmentHead::decode(&segment.bytes[..segment.head_len as usize], segment.bytes.len() as u64);
        prop_assert_eq!(again.unwrap(), head);
    }

    #[test]
    fn every_flip_is_noticed(rows in vec(any_row(1), 0..300), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = encode_segment(0, &[], rows).bytes;
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(decode_segment(&bytes).is_err());
        prop_assert!(decode_segment(&bytes[..at]).is_err());
    }
}
