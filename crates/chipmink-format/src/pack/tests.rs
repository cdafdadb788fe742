use super::*;
use crate::index::decode_segment;
use crate::{Codec, Compressor, MergePart, Method, SegmentHead, decode_blob, merge_segments};
use bytes::Bytes;
use chipmink_digest::digest;
use proptest::collection::vec;
use proptest::prelude::*;

fn header() -> PackHeader {
    PackHeader { name: PackName([7; 16]), repository: RepositoryId([9; 16]), born: TimeId(300) }
}

/// A pack with these blobs, each aligned if asked for.
fn pack(blobs: &[Vec<u8>], alignment: u64, merged: &[EncodedSegment]) -> (Vec<u8>, FinishedPack) {
    let (mut layout, mut bytes) = PackLayout::begin(header());
    let mut compressor = Compressor::new();
    for blob in blobs {
        let packed = compressor.compress(Method::Zstd, blob, blob.len() / 2);
        let (codec, stored) = packed.map_or((Codec::Raw, &blob[..]), |stored| (Codec::Zstd, stored));
        bytes.resize(bytes.len() + layout.pad_to(alignment) as usize, 0);
        let len = (blob.len() as u64, stored.len() as u64);
        let offset = layout.append(digest(blob), BlobKind::Pod, codec, len.0, None, len.1);
        assert_eq!(offset, bytes.len() as u64);
        assert!(offset.is_multiple_of(alignment));
        bytes.extend_from_slice(stored);
    }
    let finished = layout.finish(merged);
    bytes.extend_from_slice(&finished.tail);
    assert_eq!(bytes.len() as u64, finished.byte_len);
    (bytes, finished)
}

fn segment(pack: &[u8], place: &SegmentPlace) -> Vec<u8> {
    pack[place.byte_offset as usize..(place.byte_offset + place.byte_len) as usize].to_vec()
}

#[test]
fn the_header_is_64_bytes_and_comes_back() {
    let bytes = header().encode();
    assert_eq!(bytes.len(), PACK_HEADER_LEN);
    assert_eq!(PackHeader::decode(&bytes).unwrap(), header());
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        assert!(PackHeader::decode(&flipped).is_err(), "byte {at}");
        assert!(PackHeader::decode(&bytes[..at]).is_err(), "byte {at}");
    }
    assert!(matches!(PackHeader::decode(b"PK\x03\x04"), Err(FormatError::NotChipmink { .. })));
}

#[test]
fn a_small_pack_adds_little_to_its_blobs() {
    let (bytes, _) = pack(&[vec![1, 2, 3]], 1, &[]);
    assert!(bytes.len() <= 3 + 200, "{} bytes", bytes.len());
}

#[test]
fn merged_segments_stand_beside_the_own_index() {
    let (first, finished) = pack(&[b"first".to_vec()], 1, &[]);
    let (head, rows) = decode_segment(&segment(&first, &finished.index)).unwrap();
    let merged = merge_segments(&[MergePart { head: &head, rows: &rows, stands_in: PackName([1; 16]) }]);
    let (second, finished) = pack(&[b"second".to_vec()], 1, std::slice::from_ref(&merged));
    let footer = PackFooter::decode(&second, second.len() as u64).unwrap();
    assert_eq!(footer.segments[1..], finished.merged);
    let (head, rows) = decode_segment(&segment(&second, &footer.segments[1].place)).unwrap();
    assert_eq!((head.packs.as_slice(), rows[0].digest), ([PackName([1; 16])].as_slice(), digest(b"first")));
}

#[test]
fn a_footer_is_found_from_few_bytes() {
    let (bytes, finished) = pack(&vec![b"blob".to_vec(); 50], 1, &[]);
    let len = bytes.len() as u64;
    let tail = &bytes[bytes.len() - PACK_FOOTER_GUESS as usize..];
    let footer = PackFooter::decode(tail, len).unwrap();
    assert_eq!(footer.segments[0].place, finished.index);
    for cut in 0..40 {
        match PackFooter::decode(&bytes[bytes.len() - cut..], len) {
            Ok(found) => assert_eq!(found, footer),
            Err(FormatError::NeedMore { needed }) => {
                assert!(needed as usize > cut);
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn an_unfinished_pack_has_no_footer() {
    let (bytes, _) = pack(&[vec![5; 3000], b"blob".to_vec()], 1, &[]);
    for len in 0..bytes.len() {
        assert!(PackFooter::decode(&bytes[..len], len as u64).is_err(), "the first {len} bytes");
    }
}

proptest! {
    #[test]
    fn blobs_come_back_through_footer_and_index(blobs in vec(vec(0u8..3, 0..500), 0..60), shift in 0u32..13) {
        let (bytes, finished) = pack(&blobs, 1 << shift, &[]);
        prop_assert_eq!(finished.rows.len(), blobs.len());
        let footer = PackFooter::decode(&bytes, bytes.len() as u64).unwrap();
        let place = footer.segments[0].place;
        let index = segment(&bytes, &place);
        let head = SegmentHead::decode(&index[..place.head_len as usize], place.byte_len).unwrap();
        for blob in &blobs {
            let fence = head.block_for(&digest(blob)).unwrap();
            let start = fence.byte_offset as usize;
            let block = &index[start..start + fence.byte_len as usize];
            let row = head.find_in_block(fence, block, &digest(blob)).unwrap()[0];
            let stored = &bytes[row.byte_offset as usize..(row.byte_offset + row.stored_len) as usize];
            let decoded = decode_blob(Bytes::copy_from_slice(stored), row.codec, row.decoded_len, 500).unwrap();
            prop_assert_eq!(&decoded[..], &blob[..]);
        }
    }

    #[test]
    fn flipped_footers_are_noticed(back in 1usize..60, bit in 0u8..8) {
        let (mut bytes, _) = pack(&[b"blob".to_vec()], 1, &[]);
        let len = bytes.len();
        let intact = PackFooter::decode(&bytes, len as u64).unwrap();
        bytes[len - back] ^= 1 << bit;
        // If it decodes, the flip lies in the index before the footer, which has checksums of its own.
        if let Ok(footer) = PackFooter::decode(&bytes, len as u64) {
            prop_assert_eq!(&footer, &intact);
            prop_assert!(decode_segment(&segment(&bytes, &footer.segments[0].place)).is_err());
        }
    }

    #[test]
    fn arbitrary_tails_give_errors(mut bytes in vec(any::<u8>(), 0..100), body in 0u32..200) {
        prop_assert!(PackFooter::decode(&bytes, bytes.len() as u64).is_err());
        bytes.extend_from_slice(&body.to_le_bytes());
        bytes.extend_from_slice(PACK_END_MAGIC);
        prop_assert!(PackFooter::decode(&bytes, bytes.len() as u64).is_err());
    }
}
