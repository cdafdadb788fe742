use super::*;
use crate::testing::*;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn any_text() -> impl Strategy<Value = Text> {
    prop_oneof![
        ".{0,100}".prop_map(Text::Inline),
        (any_digest(), 0u64..1 << 60).prop_map(|(digest, byte_len)| Text::Stored { digest, byte_len }),
    ]
}

pub(crate) fn any_commit() -> impl Strategy<Value = Commit> {
    (
        (vec(any_digest(), 0..3), any_digest(), any::<i64>(), any_text()),
        (
            any_name(),
            proptest::option::of(any_text()),
            btree_map(any_name(), any_name(), 0..4),
            any_extensions(),
        ),
    )
        .prop_map(|((parents, manifest, saved_at, message), (author, code, statistics, extensions))| {
            Commit { parents, manifest, saved_at, message, author, code, statistics, extensions }
        })
}

#[test]
fn long_texts_are_blobs() {
    let mut blobs = Memory::default();
    let short = Text::store(&"s".repeat(TEXT_INLINE_MAX), &mut blobs).unwrap();
    assert!(matches!(short, Text::Inline(_)));
    let long = "ö".repeat(TEXT_INLINE_MAX);
    let stored = Text::store(&long, &mut blobs).unwrap();
    assert_eq!(stored.load(&blobs).unwrap(), long);
    let Text::Stored { digest, byte_len } = stored else { panic!("inline") };
    assert!(Text::Stored { digest, byte_len: byte_len + 1 }.load(&blobs).is_err());
    blobs.damage(digest, vec![0xff; byte_len as usize]);
    assert!(Text::Stored { digest, byte_len }.load(&blobs).is_err());
}

proptest! {
    #[test]
    fn commits_come_back(commit in any_commit()) {
        let bytes = commit.encode();
        prop_assert_eq!(commit.digest(), chipmink_digest::digest(&bytes));
        prop_assert_eq!(Commit::decode(&bytes).unwrap(), commit);
        prop_assert!(every_prefix_fails(&bytes, Commit::decode));
    }

    #[test]
    fn a_commit_has_one_encoding(commit in any_commit(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = commit.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(found) = Commit::decode(&bytes) {
            prop_assert_eq!(found.encode(), bytes);
        }
    }
}
