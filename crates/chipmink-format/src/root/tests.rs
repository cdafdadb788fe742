use super::*;
use crate::testing::*;
use crate::{Codec, Commit, Extensions, FormatError, Requirements, Text, Tree};
use chipmink_digest::digest;
use chipmink_types::{RepositoryId, TimeId, WriteId};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn commit() -> Commit {
    Commit {
        parents: vec![digest(b"parent")],
        manifest: digest(b"manifest"),
        saved_at: 1_700_000_000_000_000,
        message: Text::Inline("after cleaning".to_owned()),
        author: String::new(),
        code: None,
        statistics: BTreeMap::from([("objects".to_owned(), "12345".to_owned())]),
        extensions: Extensions::default(),
    }
}

/// What an empty save writes: a commit, a ref, no pack.
fn empty_save(number: u64) -> RootEntry {
    let mut entry = RootEntry::new(TimeId(number), RepositoryId([1; 16]), WriteId([2; 16]));
    entry.published_at = 1_700_000_000_000_000;
    entry.is_synced = true;
    entry.previous = Some(PreviousEntry { number: TimeId(number - 1), digest: digest(b"previous") });
    entry.commits.push(InlineCommit { bytes: commit().encode().into(), aliases: Vec::new() });
    entry.refs.push(RefChange { name: "main".to_owned(), to: RefMove::Inline(0) });
    entry
}

#[test]
fn an_empty_save_costs_a_quarter_of_a_kibibyte() {
    let entry = empty_save(100_000);
    assert!(entry.encode().len() <= 256, "{} bytes", entry.encode().len());
}

#[test]
fn a_ref_change_is_resolved_through_the_inline_commit() {
    let entry = empty_save(7);
    let expected = RefTarget { commit: commit().digest(), time: TimeId(7), manifest: digest(b"manifest") };
    assert_eq!(entry.ref_changes().unwrap(), [("main".to_owned(), Some(expected))]);
    assert_eq!(entry.commit(0).unwrap(), commit());
    assert!(entry.commit(1).is_err());
}

/// Every damaged byte makes the entry void: its number is spent, and a reader can say so.
#[test]
fn a_damaged_entry_is_void() {
    let bytes = empty_save(7).encode();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x20;
        for damaged in [&flipped[..], &bytes[..at]] {
            let found = RootEntry::decode(damaged, TimeId(7));
            assert!(matches!(found, Err(FormatError::Void { number: 7, .. })), "byte {at}: {found:?}");
        }
    }
}

#[test]
fn an_entry_knows_its_number() {
    let bytes = empty_save(7).encode();
    assert!(matches!(RootEntry::decode(&bytes, TimeId(8)), Err(FormatError::Damaged { .. })));
}

#[test]
fn an_entry_of_a_later_version_is_not_void() {
    let mut entry = empty_save(7);
    entry.requirements = Requirements { for_reading: 1 << 2, ..Requirements::default() };
    let found = RootEntry::decode(&entry.encode(), TimeId(7));
    assert!(matches!(found, Err(FormatError::UnsupportedForReading { .. })), "{found:?}");
    entry.requirements = Requirements { min_reader: 2, ..Requirements::default() };
    // What follows the requirements may be anything then.
    let mut bytes = entry.encode();
    let end = bytes.len() - 8;
    bytes.truncate(end);
    bytes[13..].fill(0xff);
    let sum = crate::wire::checksum(&bytes);
    bytes.extend_from_slice(&sum);
    let found = RootEntry::decode(&bytes, TimeId(7));
    assert!(matches!(found, Err(FormatError::UnsupportedForReading { .. })), "{found:?}");
    entry.requirements =
        Requirements { min_writer: 2, for_writing: 64, optional: 8, ..Requirements::default() };
    let found = RootEntry::decode(&entry.encode(), TimeId(7)).unwrap();
    assert!(matches!(
        found.requirements.check_write("repository"),
        Err(FormatError::UnsupportedForWriting { .. })
    ));
}

fn any_target() -> impl Strategy<Value = RefTarget> {
    (any_digest(), any_time(), any_digest()).prop_map(|(commit, time, manifest)| RefTarget {
        commit,
        time,
        manifest,
    })
}

fn any_pack_info() -> impl Strategy<Value = PackInfo> {
    (any_pack(), 0u64..1 << 60, any_place(), any_time(), any::<bool>()).prop_map(
        |(name, more, index, born, is_synced)| PackInfo {
            name,
            byte_len: index.byte_offset + index.byte_len + more,
            index,
            born,
            is_synced,
        },
    )
}

fn any_segment_info() -> impl Strategy<Value = SegmentInfo> {
    (any_pack(), any_place(), any::<u8>(), vec(any_pack(), 0..4))
        .prop_map(|(pack, place, level, covers)| SegmentInfo { pack, place, level, covers })
}

fn any_lease() -> impl Strategy<Value = Lease> {
    (any::<[u8; 16]>(), any_time(), any::<i64>()).prop_map(|(id, holds, expires_at)| Lease {
        id,
        holds,
        expires_at,
    })
}

fn any_state_place(number: u64) -> impl Strategy<Value = StatePlace> {
    (0..number, any_pack(), 0u64..1 << 60, 0u64..1 << 60, any_number(), any::<bool>(), any_digest()).prop_map(
        |(covers, pack, byte_offset, stored_len, decoded_len, is_raw, digest)| StatePlace {
            covers: TimeId(covers),
            pack,
            byte_offset,
            stored_len,
            decoded_len,
            codec: if is_raw { Codec::Raw } else { Codec::Zstd },
            digest,
        },
    )
}

fn any_entry() -> impl Strategy<Value = RootEntry> {
    const NUMBER: u64 = 1 << 40;
    let requirements =
        (any::<u16>(), any_number(), any_number()).prop_map(|(min_writer, for_writing, optional)| {
            Requirements { min_reader: 1, min_writer, for_reading: 1, for_writing, optional }
        });
    let commit = (vec(any::<u8>(), 0..40), vec((any::<[u8; 16]>().prop_map(RepositoryId), any_time()), 0..3))
        .prop_map(|(bytes, aliases)| InlineCommit { bytes: bytes.into(), aliases });
    let to = prop_oneof![
        Just(RefMove::Deleted),
        Just(RefMove::Inline(0)),
        any_target().prop_map(RefMove::Existing)
    ];
    let refs = vec((any_name(), to).prop_map(|(name, to)| RefChange { name, to }), 0..3);
    let lease = prop_oneof![
        any_lease().prop_map(LeaseChange::Taken),
        any::<[u8; 16]>().prop_map(LeaseChange::Released),
    ];
    let previous = (0..NUMBER, any_digest())
        .prop_map(|(number, digest)| PreviousEntry { number: TimeId(number), digest });
    (
        (requirements, any::<[u8; 16]>(), any::<[u8; 16]>(), any::<i64>(), any_time(), any::<bool>()),
        (
            proptest::option::of(any_time()),
            proptest::option::of(previous),
            proptest::option::of(any_state_place(NUMBER)),
            vec(commit, 1..3),
            refs,
        ),
        (vec(any_pack_info(), 0..3), vec(any_segment_info(), 0..3), vec(any_pack(), 0..3), vec(lease, 0..3)),
        any_extensions(),
    )
        .prop_map(|(first, second, third, extensions)| {
            let (requirements, repository, write_id, published_at, floor, is_synced) = first;
            let (synced_through, previous, state, commits, refs) = second;
            let (packs_added, segments_added, packs_condemned, leases) = third;
            RootEntry {
                requirements,
                number: TimeId(NUMBER),
                repository: RepositoryId(repository),
                write_id: WriteId(write_id),
                published_at,
                floor,
                is_synced,
                synced_through,
                previous,
                state,
                commits,
                refs,
                packs_added,
                segments_added,
                packs_condemned,
                leases,
                extensions,
            }
        })
}

fn any_state() -> impl Strategy<Value = RootState> {
    let verdict = prop_oneof![
        Just(ConditionalWrites::Untested),
        Just(ConditionalWrites::Honoured),
        Just(ConditionalWrites::Broken),
    ];
    (
        (any_time(), any::<[u8; 16]>(), any_time(), verdict, btree_map(any_name(), any_target(), 0..4)),
        (proptest::option::of(any_digest()), vec(any_pack_info(), 0..4), proptest::option::of(any_digest())),
        (
            vec(any_segment_info(), 0..3),
            vec((any_pack(), any_time()), 0..3),
            vec(any_lease(), 0..3),
            any_extensions(),
        ),
    )
        .prop_map(|(first, second, third)| {
            let (covers, repository, floor, conditional_writes, refs) = first;
            let (refs_table, packs, packs_table) = second;
            let (segments, condemned, leases, extensions) = third;
            RootState {
                covers,
                repository: RepositoryId(repository),
                floor,
                conditional_writes,
                refs,
                refs_table,
                packs,
                packs_table,
                segments,
                condemned,
                leases,
                extensions,
            }
        })
}

/// A later writer keeps many refs and packs in tables: lists go before rows, and condemned packs stay out.
#[test]
fn tables_of_a_state_are_read_under_its_lists() {
    let blobs = Memory::default();
    let target =
        |i: u8| RefTarget { commit: digest(&[i]), time: TimeId(i.into()), manifest: digest(&[i, i]) };
    let pack = |i: u8, born: u64| PackInfo {
        name: crate::PackName([i; 16]),
        byte_len: 500,
        index: crate::SegmentPlace { byte_offset: 400, byte_len: 50, head_len: 30 },
        born: TimeId(born),
        is_synced: true,
    };
    let encoded = |encode: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        encode(&mut out);
        Some(out)
    };
    let mut refs = Tree::empty();
    let rows = ["a", "b"].map(|name| (name.as_bytes().to_vec(), encoded(&|out| target(1).encode(out))));
    let refs_root = refs.apply(&rows, &blobs, &mut blobs.clone()).unwrap();
    let mut packs = Tree::empty();
    let rows = [1, 2, 3].map(|i| (vec![i; 16], encoded(&|out| pack(i, 10).encode_value(out))));
    let packs_root = packs.apply(&rows, &blobs, &mut blobs.clone()).unwrap();
    let mut state = RootState::new(RepositoryId([0; 16]));
    state.refs.insert("b".to_owned(), target(2));
    state.refs_table = Some(refs_root);
    state.packs = vec![pack(2, 99)];
    state.packs_table = Some(packs_root);
    state.condemned = vec![(crate::PackName([3; 16]), TimeId(50))];
    let mut state = RootState::decode(&state.encode()).unwrap();
    state.read_tables(&blobs).unwrap();
    assert_eq!(state.refs, BTreeMap::from([("a".to_owned(), target(1)), ("b".to_owned(), target(2))]));
    assert_eq!(state.packs, [pack(2, 99), pack(1, 10)]);
    assert_eq!((state.refs_table, state.packs_table), (None, None));
}

proptest! {
    #[test]
    fn entries_come_back(entry in any_entry()) {
        let bytes = entry.encode();
        prop_assert_eq!(RootEntry::decode(&bytes, entry.number).unwrap(), entry);
    }

    /// A forged entry, whose checksum is right: it decodes to what it says, or is refused.
    #[test]
    fn an_entry_has_one_encoding(entry in any_entry(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = entry.encode();
        let end = bytes.len() - 8;
        bytes.truncate(end);
        let at = at.index(end);
        bytes[at] = byte;
        let sum = crate::wire::checksum(&bytes);
        bytes.extend_from_slice(&sum);
        if let Ok(found) = RootEntry::decode(&bytes, entry.number) {
            prop_assert_eq!(found.encode(), bytes);
        }
    }

    #[test]
    fn states_come_back(state in any_state()) {
        let bytes = state.encode();
        prop_assert_eq!(RootState::decode(&bytes).unwrap(), state);
        prop_assert!(every_prefix_fails(&bytes, RootState::decode));
    }

    #[test]
    fn a_state_has_one_encoding(state in any_state(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = state.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(found) = RootState::decode(&bytes) {
            prop_assert_eq!(found.encode(), bytes);
        }
    }
}
