use super::*;
use crate::testing::*;
use crate::{PodRow, slot_key};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

fn any_covariable() -> impl Strategy<Value = Covariable> {
    let roots = (btree_set(any_name(), 0..5), vec(any::<(u32, u32)>(), 5));
    let table = prop_oneof![
        Just(Tree::empty()),
        any_digest().prop_map(Tree::open),
        vec(any::<u8>(), 0..50).prop_map(|leaf| Tree::with_root(TreeRoot::Inline(leaf.into()))),
    ];
    (roots, vec(any_digest(), 0..4), any_number(), table, any_extensions()).prop_map(
        |((names, places), groups, next_slot, table, extensions)| {
            let names = names.into_iter().zip(places);
            let names =
                names.map(|(name, (slot, export))| NamedRoot { name, slot: Slot(slot), export }).collect();
            Covariable { names, groups, next_slot: next_slot as u32, table, extensions }
        },
    )
}

#[test]
fn a_small_variable_stands_in_the_manifest_whole() {
    let mut blobs = Memory::default();
    let row = PodRow {
        rank: 1 << 32,
        digest: chipmink_digest::digest(b"pod"),
        byte_len: 5,
        exports: vec![chipmink_types::Export::Root(0)],
        dependencies: Vec::new(),
        globals: Vec::new(),
        shapes: Vec::new(),
        regions: Vec::new(),
        names: Vec::new(),
        side: None,
        extensions: Extensions::default(),
    };
    let mut covariable = Covariable {
        names: vec![NamedRoot { name: "x".to_owned(), slot: Slot(0), export: 0 }],
        next_slot: 1,
        ..Covariable::default()
    };
    let edit = (slot_key(Slot(0)).to_vec(), Some(row.encode(&mut blobs).unwrap()));
    let source = blobs.clone();
    covariable.table.apply_inline(&[edit], TABLE_INLINE_MAX, &source, &mut blobs).unwrap();
    let stored = covariable.store(&mut blobs).unwrap();
    let CovariableRef::Inline(bytes) = &stored else { panic!("{stored:?}") };
    assert!(bytes.len() < 50, "{} bytes", bytes.len());
    assert_eq!(blobs.len(), 0);
    assert_eq!(stored.load(&blobs).unwrap(), covariable);
    assert_eq!(stored.digest(), chipmink_digest::digest(bytes));
    // With a second name its bytes would stand in two rows: it becomes a blob.
    covariable.names.push(NamedRoot { name: "y".to_owned(), slot: Slot(0), export: 0 });
    let stored = covariable.store(&mut blobs).unwrap();
    assert!(matches!(stored, CovariableRef::Stored(_)));
    assert_eq!(stored.load(&blobs).unwrap(), covariable);
    assert_eq!(covariable.find("y"), Some(&covariable.names[1]));
    assert_eq!(covariable.find("z"), None);
}

#[test]
fn a_damaged_covariable_is_named() {
    let mut blobs = Memory::default();
    let name = Covariable::default().store_blob(&mut blobs).unwrap();
    blobs.damage(name, b"V\x01\xff".to_vec());
    let error = Covariable::load(&name, &blobs).unwrap_err().to_string();
    assert!(error.contains(&name.to_string()), "{error}");
}

proptest! {
    #[test]
    fn covariables_come_back(covariable in any_covariable()) {
        let bytes = covariable.encode();
        prop_assert_eq!(Covariable::decode(&bytes).unwrap(), covariable);
        prop_assert!(every_prefix_fails(&bytes, Covariable::decode));
    }

    #[test]
    fn a_covariable_has_one_encoding(covariable in any_covariable(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = covariable.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(found) = Covariable::decode(&bytes) {
            prop_assert_eq!(found.encode(), bytes);
        }
    }
}
