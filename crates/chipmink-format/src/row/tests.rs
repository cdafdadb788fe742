use super::*;
use crate::FormatError;
use crate::testing::*;
use chipmink_digest::digest;
use proptest::prelude::*;

fn plain() -> PodRow {
    PodRow {
        rank: 5 << 32,
        digest: digest(b"pod"),
        byte_len: 100,
        exports: vec![Export::Root(0)],
        dependencies: Vec::new(),
        globals: Vec::new(),
        shapes: Vec::new(),
        regions: Vec::new(),
        names: Vec::new(),
        side: None,
        extensions: Extensions::default(),
    }
}

#[test]
fn a_plain_row_has_21_bytes() {
    let row = plain().encode(&mut Memory::default()).unwrap();
    let mut expected = vec![0, 32, 5];
    expected.extend_from_slice(digest(b"pod").as_bytes());
    expected.push(100);
    assert_eq!(row, expected);
}

#[test]
fn neighbours_cost_a_byte_each() {
    let mut row = plain();
    row.dependencies = (1000..1200).map(|slot| Dependency::Local(Slot(slot))).collect();
    assert_eq!(row.encode(&mut Memory::default()).unwrap().len(), 21 + 2 + 201);
}

#[test]
fn long_lists_leave_the_row() {
    let mut row = plain();
    row.globals = (0..1000u32).map(|i| digest(&i.to_le_bytes())).collect();
    row.dependencies = (0..100_000).map(|i| Dependency::Local(Slot(i * 37 % 100_000))).collect();
    let mut blobs = Memory::default();
    let bytes = row.encode(&mut blobs).unwrap();
    // The bits of two trees make the flags a two-byte varint.
    assert_eq!(bytes.len(), 22 + 2 * 17);
    assert_eq!(PodRow::decode(&bytes, &blobs).unwrap(), row);
    assert!(matches!(PodRow::decode(&bytes, &Memory::default()), Err(FormatError::Blob(_))));
}

#[test]
fn unknown_flags_are_unsupported() {
    let mut bytes = plain().encode(&mut Memory::default()).unwrap();
    bytes.splice(0..1, [0x80, 0x80, 0x01]);
    let found = PodRow::decode(&bytes, &Memory::default());
    assert!(matches!(found, Err(FormatError::UnsupportedForReading { .. })));
}

#[test]
fn slot_keys_sort_as_slots_do() {
    assert!(slot_key(Slot(255)) < slot_key(Slot(256)));
    assert_eq!(parse_slot_key(&slot_key(Slot(70_000))).unwrap(), Slot(70_000));
    assert!(parse_slot_key(&[0, 0, 0]).is_err() && parse_slot_key(&[0; 5]).is_err());
}

proptest! {
    #[test]
    fn rows_come_back(row in any_pod_row()) {
        let mut blobs = Memory::default();
        let bytes = row.encode(&mut blobs).unwrap();
        // Six lists of at most 512 bytes, and little beside them.
        prop_assert!(bytes.len() < 3500 + row.extensions.iter().map(|(_, bytes)| bytes.len() + 12).sum::<usize>());
        prop_assert_eq!(PodRow::decode(&bytes, &blobs).unwrap(), row);
        prop_assert!(every_prefix_fails(&bytes, |bytes| PodRow::decode(bytes, &blobs)));
    }

    /// What a damaged row still decodes to is what it says: it has one encoding.
    #[test]
    fn a_row_has_one_encoding(row in any_pod_row(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut blobs = Memory::default();
        let mut bytes = row.encode(&mut blobs).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(found) = PodRow::decode(&bytes, &blobs) {
            prop_assert_eq!(found.encode(&mut blobs).unwrap(), bytes);
        }
    }
}
