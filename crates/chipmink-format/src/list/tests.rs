use super::*;
use crate::testing::Memory;
use proptest::prelude::*;

fn content(len: usize) -> Vec<u8> {
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn lists_of_every_depth_come_back_in_small_nodes() {
    for len in [0, 1, 513, 1023, 4096, 4097, 100_000, 2_000_000] {
        let mut blobs = Memory::default();
        let bytes = content(len);
        let root = store_list(&bytes, &mut blobs).unwrap();
        assert_eq!(load_list(&root, LIST_LEN_MAX, &blobs).unwrap(), bytes);
        for name in blobs.names() {
            assert!(blobs.bytes(&name).len() <= 4099 && (len == 0 || blobs.bytes(&name).len() > 3));
        }
    }
    let zeros = vec![0; 50_000];
    let mut blobs = Memory::default();
    let root = store_list(&zeros, &mut blobs).unwrap();
    assert_eq!(load_list(&root, LIST_LEN_MAX, &blobs).unwrap(), zeros);
}

#[test]
fn an_insertion_moves_no_later_cut() {
    let mut blobs = Memory::default();
    let mut bytes = content(400_000);
    store_list(&bytes, &mut blobs).unwrap();
    let before = (blobs.len(), blobs.byte_len());
    bytes.splice(1000..1000, *b"abc");
    store_list(&bytes, &mut blobs).unwrap();
    let (nodes, len) = (blobs.len() - before.0, blobs.byte_len() - before.1);
    assert!(nodes <= 8 && len < 24 * 1024, "{nodes} nodes of {len} bytes");
}

#[test]
fn a_list_is_not_read_beyond_its_bound() {
    let mut blobs = Memory::default();
    let root = store_list(&content(20_000), &mut blobs).unwrap();
    assert!(matches!(load_list(&root, 19_999, &blobs), Err(FormatError::TooLarge { .. })));
}

/// Few nodes that repeat could stand for 2^60 bytes: the bound ends it, before the memory does.
#[test]
fn repeated_nodes_are_bounded() {
    let mut blobs = Memory::default();
    let mut put = |bytes: Vec<u8>| {
        let name = digest(&bytes);
        blobs.put(BlobKind::Table, name, &bytes).unwrap();
        name
    };
    let mut child = put([&[LETTER, 1, 0][..], &[1; 1000]].concat());
    let mut len = 1000u64;
    for level in 1..=10 {
        let mut node = vec![LETTER, 1, level];
        for _ in 0..100 {
            put_digest(&mut node, &child);
            put_varint(&mut node, len);
        }
        child = put(node);
        len = len.saturating_mul(100);
    }
    assert!(matches!(load_list(&child, 1 << 20, &blobs), Err(FormatError::TooLarge { .. })));
}

#[test]
fn wrong_levels_and_lengths_are_damage() {
    let mut blobs = Memory::default();
    let leaf = store_list(b"abc", &mut blobs).unwrap();
    let mut root = |level: u8, len: u64| {
        let mut node = vec![LETTER, 1, level];
        put_digest(&mut node, &leaf);
        put_varint(&mut node, len);
        let name = digest(&node);
        blobs.put(BlobKind::Table, name, &node).unwrap();
        load_list(&name, 100, &blobs)
    };
    assert_eq!(root(1, 3).unwrap(), b"abc");
    for (level, len) in [(2, 3), (1, 2), (1, 4), (1, 0), (17, 3), (0xff, 3)] {
        assert!(matches!(root(level, len), Err(FormatError::Damaged { .. })), "level {level}, length {len}");
    }
}

proptest! {
    #[test]
    fn damaged_nodes_give_errors(len in 0usize..9000, pick in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), cut in any::<bool>()) {
        let mut blobs = Memory::default();
        let bytes = content(len);
        let root = store_list(&bytes, &mut blobs).unwrap();
        let names = blobs.names();
        let name = names[pick.index(names.len())];
        let mut node = blobs.bytes(&name).to_vec();
        let at = at.index(node.len());
        if cut { node.truncate(at) } else { node[at] ^= 0x10 }
        blobs.damage(name, node);
        if let Ok(found) = load_list(&root, LIST_LEN_MAX, &blobs) {
            prop_assert_ne!(found, bytes);
        }
    }
}
