use super::*;
use crate::testing::Memory;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn check(tree: &Tree, model: &Model, blobs: &Memory) {
    let rows: Vec<(Vec<u8>, Vec<u8>)> =
        tree.rows(blobs).unwrap().into_iter().map(|(key, value)| (key, value.to_vec())).collect();
    let expected: Vec<_> = model.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    assert_eq!(rows, expected);
    assert_eq!(tree.row_count(blobs).unwrap(), model.len() as u64);
    for (key, value) in model.iter().step_by(model.len() / 20 + 1) {
        assert_eq!(tree.get(key, blobs).unwrap().as_deref(), Some(value.as_slice()));
        let other = [key.as_slice(), b"!"].concat();
        assert_eq!(tree.get(&other, blobs).unwrap().is_some(), model.contains_key(&other));
    }
}

fn apply_to_model(model: &mut Model, edits: &[Edit]) {
    for (key, value) in edits {
        match value {
            Some(value) => drop(model.insert(key.clone(), value.clone())),
            None => drop(model.remove(key)),
        }
    }
}

fn apply(tree: &mut Tree, edits: &[Edit], blobs: &Memory) -> Digest {
    tree.apply(edits, blobs, &mut blobs.clone()).unwrap()
}

/// Nodes of a tree, level by level from the leaves: byte length, and length of the longest item.
fn shape(tree: &Tree, blobs: &Memory) -> Vec<Vec<usize>> {
    fn visit(digest: &Digest, blobs: &Memory, levels: &mut Vec<Vec<usize>>) {
        let bytes = blobs.get(digest).unwrap();
        let node = Node::decode(&bytes).unwrap();
        let level = usize::from(node.level());
        if levels.len() <= level {
            levels.resize(level + 1, Vec::new());
        }
        levels[level].push(bytes.len());
        if let Node::Inner { children, .. } = node {
            children.iter().for_each(|child| visit(&child.digest, blobs, levels));
        }
    }
    let mut levels = Vec::new();
    match tree.root() {
        Some(TreeRoot::Stored(root)) => visit(root, blobs, &mut levels),
        _ => panic!("a stored root"),
    }
    levels
}

fn slots(range: impl Iterator<Item = u32>, len: usize) -> Vec<Edit> {
    range.map(|i| (i.to_be_bytes().to_vec(), Some(vec![i as u8; len]))).collect()
}

#[test]
fn an_empty_tree_has_an_empty_leaf() {
    let blobs = Memory::default();
    let mut tree = Tree::empty();
    assert_eq!(tree.get(b"x", &blobs).unwrap(), None);
    assert_eq!(tree.rows(&blobs).unwrap(), []);
    let root = apply(&mut tree, &[], &blobs);
    assert_eq!(blobs.bytes(&root), [b'T', 1, 0, 0].as_slice());
    let removed = apply(&mut tree, &[(b"x".to_vec(), None)], &blobs);
    assert_eq!(removed, root);
}

#[test]
fn the_bytes_of_a_leaf_are_these() {
    let blobs = Memory::default();
    let mut tree = Tree::empty();
    let edits = [(b"abc".to_vec(), Some(b"1".to_vec())), (b"abd".to_vec(), Some(Vec::new()))];
    let root = apply(&mut tree, &edits, &blobs);
    assert_eq!(blobs.bytes(&root), b"T\x01\x00\x02\x00\x03abc\x011\x02\x01d\x00".as_slice());
}

#[test]
fn a_hundred_thousand_rows_stand_in_full_small_nodes() {
    let blobs = Memory::default();
    let mut tree = Tree::empty();
    let edits = slots(0..100_000, 40);
    apply(&mut tree, &edits, &blobs);
    let mut model = Model::new();
    apply_to_model(&mut model, &edits);
    check(&tree, &model, &blobs);
    let levels = shape(&tree, &blobs);
    assert!(levels.len() <= 4, "{} levels", levels.len());
    for nodes in &levels[..levels.len() - 1] {
        assert!(nodes.iter().all(|len| (2048..=TREE_NODE_LEN).contains(len)), "{nodes:?}");
    }
    let reopened = Tree::open(match tree.root() {
        Some(TreeRoot::Stored(root)) => *root,
        _ => panic!("a stored root"),
    });
    check(&reopened, &model, &blobs);
}

#[test]
fn one_changed_row_costs_its_leaf_and_its_path() {
    let blobs = Memory::default();
    let mut tree = Tree::empty();
    apply(&mut tree, &slots(0..100_000, 40), &blobs);
    let height = shape(&tree, &blobs).len();
    for (i, len) in [(0, 40), (55_555, 40), (99_999, 40), (77, 41)] {
        let (nodes, bytes) = (blobs.len(), blobs.byte_len());
        apply(&mut tree, &[(u32::to_be_bytes(i).to_vec(), Some(vec![0xee; len]))], &blobs);
        assert_eq!(blobs.len() - nodes, height, "row {i}");
        assert!(blobs.byte_len() - bytes <= height * TREE_NODE_LEN);
    }
}

#[test]
fn an_edit_that_changes_nothing_writes_nothing() {
    let blobs = Memory::default();
    let mut tree = Tree::empty();
    let edits = slots(0..5000, 30);
    let root = apply(&mut tree, &edits, &blobs);
    let nodes = blobs.len();
    assert_eq!(apply(&mut tree, &edits[100..200], &blobs), root);
    assert_eq!(apply(&mut tree, &[(b"nothing".to_vec(), None)], &blobs), root);
    assert_eq!(apply(&mut tree, &[], &blobs), root);
    assert_eq!(blobs.len(), nodes);
}

#[test]
fn removing_nearly_all_rows_makes_the_tree_small_again() {
    let blobs = Memory::default();
    let mut tree = Tree::empty();
    apply(&mut tree, &slots(0..50_000, 40), &blobs);
    let removals: Vec<Edit> =
        (0..50_000u32).filter(|i| i % 5000 != 3).map(|i| (i.to_be_bytes().to_vec(), None)).collect();
    // In two steps, so that short nodes meet neighbours that were not touched.
    apply(&mut tree, &removals[..30_000], &blobs);
    apply(&mut tree, &removals[30_000..], &blobs);
    assert_eq!(tree.row_count(&blobs).unwrap(), 10);
    assert_eq!(shape(&tree, &blobs).len(), 1, "ten rows are one leaf");
    let last: Vec<Edit> = tree.rows(&blobs).unwrap().into_iter().map(|(key, _)| (key, None)).collect();
    let root = apply(&mut tree, &last, &blobs);
    assert_eq!(blobs.bytes(&root), [b'T', 1, 0, 0].as_slice());
}

#[test]
fn short_leaves_are_merged_as_rows_go_one_by_one() {
    let blobs = Memory::default();
    let mut tree = Tree::empty();
    apply(&mut tree, &slots(0..3000, 40), &blobs);
    for i in 0..2900u32 {
        apply(&mut tree, &[((i * 7 % 3000).to_be_bytes().to_vec(), None)], &blobs);
    }
    let leaves = &shape(&tree, &blobs)[0];
    // 100 rows of about 45 bytes.
    assert!(leaves.len() <= 4, "{leaves:?}");
}

#[test]
fn long_rows_stand_alone() {
    let blobs = Memory::default();
    let mut tree = Tree::empty();
    let edits: Vec<Edit> = (0..20u32)
        .map(|i| (i.to_be_bytes().to_vec(), Some(vec![i as u8; 3000 + 500 * i as usize])))
        .collect();
    apply(&mut tree, &edits, &blobs);
    let mut model = Model::new();
    apply_to_model(&mut model, &edits);
    check(&tree, &model, &blobs);
    let edit = [(7u32.to_be_bytes().to_vec(), Some(vec![1; 10]))];
    apply(&mut tree, &edit, &blobs);
    apply_to_model(&mut model, &edit);
    check(&tree, &model, &blobs);
}

#[test]
fn small_roots_can_stay_with_their_owner() {
    let blobs = Memory::default();
    let mut tree = Tree::empty();
    let mut edit = |edits: &[Edit]| {
        tree.apply_inline(edits, 200, &blobs, &mut blobs.clone()).map(|root| (root, tree.clone()))
    };
    let (root, small) = edit(&slots(0..4, 30)).unwrap();
    assert!(matches!(root, TreeRoot::Inline(_)) && blobs.len() == 0);
    assert_eq!(small.rows(&blobs).unwrap().len(), 4);
    assert!(matches!(edit(&slots(4..8, 30)).unwrap().0, TreeRoot::Stored(_)));
    let back: Vec<Edit> = (2..8u32).map(|i| (i.to_be_bytes().to_vec(), None)).collect();
    let (root, small) = edit(&back).unwrap();
    assert!(matches!(root, TreeRoot::Inline(_)));
    assert_eq!(small.rows(&blobs).unwrap().len(), 2);
    assert_eq!(edit(&[]).unwrap().0, root);
    // The same table in a blob of its own, on demand.
    let mut stored = small.clone();
    apply(&mut stored, &[], &blobs);
    assert_eq!(stored.rows(&blobs).unwrap(), small.rows(&blobs).unwrap());
}

#[test]
fn a_scan_starts_and_stops_where_it_is_told() {
    let blobs = Memory::default();
    let mut tree = Tree::empty();
    apply(&mut tree, &slots((0..20_000).map(|i| i * 2), 30), &blobs);
    let mut seen = Vec::new();
    tree.scan(&1001u32.to_be_bytes(), &blobs, &mut |key, _| {
        seen.push(u32::from_be_bytes(key.try_into().unwrap()));
        Ok(if seen.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
    .unwrap();
    assert_eq!(seen, [1002, 1004, 1006]);
}

#[test]
fn keys_that_are_too_long_are_refused() {
    let blobs = Memory::default();
    let found = Tree::empty().apply(&[(vec![0; TREE_KEY_MAX + 1], None)], &blobs, &mut blobs.clone());
    assert!(matches!(found, Err(FormatError::TooLarge { .. })));
}

/// Notes what is read.
struct Counting<'a>(&'a Memory, RefCell<HashSet<Digest>>);

impl BlobSource for Counting<'_> {
    fn get(&self, name: &Digest) -> Result<Bytes, chipmink_types::BlobError> {
        self.1.borrow_mut().insert(*name);
        self.0.get(name)
    }
}

#[test]
fn a_diff_does_not_read_what_is_shared() {
    let blobs = Memory::default();
    let mut before = Tree::empty();
    apply(&mut before, &slots(0..100_000, 40), &blobs);
    let mut after = before.clone();
    let edits = [
        (5u32.to_be_bytes().to_vec(), Some(vec![1; 3])),
        (70_000u32.to_be_bytes().to_vec(), None),
        (200_000u32.to_be_bytes().to_vec(), Some(vec![2; 3])),
    ];
    apply(&mut after, &edits, &blobs);
    let counting = Counting(&blobs, RefCell::default());
    let changes = Tree::diff(&before, &after, &counting).unwrap();
    let found: Vec<_> =
        changes.iter().map(|change| (change.before.is_some(), change.after.is_some())).collect();
    assert_eq!(found, [(true, true), (true, false), (false, true)]);
    let reads = counting.1.borrow().len();
    assert!(reads <= 2 * 3 * 3 + 8, "{reads} nodes read");
}

/// A child that a parent misdescribes, in each way.
#[test]
fn a_child_that_is_not_what_its_parent_says_is_damage() {
    let blobs = Memory::default();
    let mut tree = Tree::empty();
    let leaf = apply(&mut tree, &slots(10..12, 3), &blobs);
    let root = |level: u8, children: &[Child]| {
        let node = node::encode_inner(level, children);
        let name = chipmink_digest::digest(&node);
        blobs.damage(name, node);
        Tree::open(name).rows(&blobs)
    };
    let child = |key: u32, rows: u64| Child { key: key.to_be_bytes().to_vec(), digest: leaf, rows };
    assert_eq!(root(1, &[child(10, 2)]).unwrap().len(), 2);
    for (level, children) in [
        (2, vec![child(10, 2)]),
        (1, vec![child(9, 2)]),
        (1, vec![child(10, 3)]),
        (1, vec![child(10, 2), child(11, 2)]),
        (1, vec![]),
        (TREE_LEVEL_MAX + 1, vec![child(10, 2)]),
    ] {
        assert!(matches!(root(level, &children), Err(FormatError::Damaged { .. })), "{children:?}");
    }
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    // Many keys share long prefixes; some are long.
    prop_oneof![
        8 => (0u16..4000).prop_map(|i| i.to_be_bytes().to_vec()),
        2 => (0u8..50, 0usize..300).prop_map(|(i, len)| [vec![b'k'; len], vec![i]].concat()),
        1 => vec(any::<u8>(), 0..6),
    ]
}

fn any_edits() -> impl Strategy<Value = Vec<Edit>> {
    let value = proptest::option::weighted(
        0.6,
        prop_oneof![
            20 => vec(any::<u8>(), 0..120),
            1 => vec(any::<u8>(), 0..6000),
        ],
    );
    btree_map(any_key(), value, 0..400).prop_map(|edits| edits.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_tree_is_an_ordered_map(steps in vec(any_edits(), 1..8)) {
        let blobs = Memory::default();
        let (mut tree, mut model) = (Tree::empty(), Model::new());
        let mut versions = Vec::new();
        for edits in &steps {
            apply(&mut tree, edits, &blobs);
            apply_to_model(&mut model, edits);
            check(&tree, &model, &blobs);
            versions.push((tree.clone(), model.clone()));
        }
        for nodes in shape(&tree, &blobs) {
            // Keys and values here can be longer than a node.
            prop_assert!(nodes.iter().all(|len| *len <= TREE_NODE_LEN || *len < 7000));
        }
        // Earlier versions are untouched, and a diff of any two is the difference of their models.
        for (before, old) in &versions {
            check(before, old, &blobs);
            let mut patched = old.clone();
            let changes = Tree::diff(before, &tree, &blobs).unwrap();
            for change in &changes {
                prop_assert_eq!(change.before.as_deref(), old.get(&change.key).map(Vec::as_slice));
                prop_assert_ne!(&change.before, &change.after);
                match &change.after {
                    Some(value) => drop(patched.insert(change.key.clone(), value.to_vec())),
                    None => drop(patched.remove(&change.key)),
                }
            }
            prop_assert!(changes.is_sorted_by(|a, b| a.key < b.key));
            prop_assert_eq!(&patched, &model);
        }
    }

    #[test]
    fn rows_of_equal_length_keep_leaves_between_a_quarter_and_full(steps in vec(vec((0u32..3000, any::<bool>()), 1..500), 1..6)) {
        let blobs = Memory::default();
        let mut tree = Tree::empty();
        apply(&mut tree, &slots(0..3000, 25), &blobs);
        for step in steps {
            let edits: BTreeMap<u32, bool> = step.into_iter().collect();
            let edits: Vec<Edit> = edits.into_iter().map(|(i, keep)| (i.to_be_bytes().to_vec(), keep.then(|| vec![9; 25]))).collect();
            apply(&mut tree, &edits, &blobs);
            let levels = shape(&tree, &blobs);
            for nodes in &levels[..levels.len() - 1] {
                prop_assert!(nodes.iter().all(|len| (1024 - 40..=TREE_NODE_LEN).contains(len)), "{:?}", nodes);
            }
        }
    }

    #[test]
    fn damaged_nodes_give_errors(pick in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<bool>()) {
        let blobs = Memory::default();
        let mut tree = Tree::empty();
        apply(&mut tree, &slots(0..1000, 20), &blobs);
        let intact = tree.rows(&blobs).unwrap();
        let names = blobs.names();
        let name = names[pick.index(names.len())];
        let mut node = blobs.bytes(&name).to_vec();
        let at = at.index(node.len());
        if cut { node.truncate(at) } else { node[at] ^= 1 << bit }
        let blobs = blobs.copy();
        blobs.damage(name, node);
        if let Ok(rows) = tree.rows(&blobs) {
            prop_assert_ne!(rows, intact);
        }
        let _ = tree.get(&500u32.to_be_bytes(), &blobs);
        let _ = Tree::diff(&Tree::empty(), &tree, &blobs);
        let _ = tree.clone().apply(&slots(0..1000, 21), &blobs, &mut blobs.clone());
    }
}
