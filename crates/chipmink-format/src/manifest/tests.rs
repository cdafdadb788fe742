use super::*;
use crate::testing::*;
use crate::{FormatError, tag};
use proptest::collection::vec;
use proptest::prelude::*;

fn any_row() -> impl Strategy<Value = ManifestRow> {
    let value = prop_oneof![
        vec(any::<u8>(), 0..=INLINE_ATOM_MAX).prop_map(|atom| ManifestValue::Inline(atom.into())),
        any_global().prop_map(ManifestValue::Named),
        any_digest().prop_map(|digest| ManifestValue::Covariable(CovariableRef::Stored(digest))),
        vec(any::<u8>(), 0..100)
            .prop_map(|bytes| ManifestValue::Covariable(CovariableRef::Inline(bytes.into()))),
        (any_name(), any_name(), any_name()).prop_map(|(path, type_name, reason)| {
            ManifestValue::Skipped(SkippedVariable { path, type_name, reason })
        }),
    ];
    (any_number(), value).prop_map(|(order, value)| ManifestRow { order, value })
}

#[test]
fn a_small_int_costs_five_bytes() {
    let row = ManifestRow { order: 3 << 32, value: ManifestValue::Inline(vec![tag::INT8, 7].into()) };
    assert_eq!(row.encode(), [32, 3, 0, tag::INT8, 7]);
}

#[test]
fn reasons_are_cut_at_a_character() {
    let reason = "ä".repeat(1000);
    let skipped = SkippedVariable { path: ".x".to_owned(), type_name: "t".to_owned(), reason };
    let row = ManifestRow { order: 1, value: ManifestValue::Skipped(skipped) };
    let ManifestValue::Skipped(found) = ManifestRow::decode(&row.encode().into()).unwrap().value else {
        panic!("another kind");
    };
    assert_eq!(found.reason, "ä".repeat(256));
}

#[test]
fn names_come_back_in_the_order_of_the_namespace() {
    let blobs = Memory::default();
    let row = |order| ManifestRow { order, value: ManifestValue::Inline(vec![tag::NONE].into()) };
    let edits: Vec<_> = [("a", 30), ("b", 10), ("ä", 20)]
        .map(|(name, order)| (name.as_bytes().to_vec(), Some(row(order).encode())))
        .into();
    let root = Tree::empty().apply(&edits, &blobs, &mut blobs.clone()).unwrap();
    let names: Vec<String> = read_manifest(root, &blobs).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["b", "ä", "a"]);
    assert_eq!(find_in_manifest(root, "ä", &blobs).unwrap(), Some(row(20)));
    assert_eq!(find_in_manifest(root, "c", &blobs).unwrap(), None);
}

#[test]
fn unknown_kinds_are_unsupported() {
    let found = ManifestRow::decode(&vec![0, 0, 5].into());
    assert!(matches!(found, Err(FormatError::UnsupportedForReading { .. })));
}

proptest! {
    #[test]
    fn rows_come_back(row in any_row()) {
        prop_assert_eq!(ManifestRow::decode(&row.encode().into()).unwrap(), row);
    }

    #[test]
    fn a_row_has_one_encoding(bytes in vec(any::<u8>(), 0..60)) {
        if let Ok(found) = ManifestRow::decode(&bytes.clone().into()) {
            prop_assert_eq!(found.encode(), bytes);
        }
    }
}
