use super::*;
use crate::{CHUNK_LEN, Grid, NODE_LEN_MAX};
use proptest::prelude::*;
use std::collections::HashMap;
use std::convert::Infallible;

type Nodes = HashMap<Digest, Vec<u8>>;

/// A list of `count` digests that differ, with a few changed to others.
fn list(count: u64, changed: &[u64]) -> Vec<Digest> {
    (0..count).map(|i| digest(&(i + if changed.contains(&i) { 1 << 40 } else { 0 }).to_le_bytes())).collect()
}

fn build(digests: &[Digest]) -> (Digest, Nodes) {
    let mut nodes = Nodes::new();
    let mut tree = TreeBuilder::new(NodeKind::Region);
    digests.iter().for_each(|digest| tree.push(*digest));
    let root = tree.finish::<Infallible>(&mut |name, bytes| {
        assert!(bytes.len() <= NODE_LEN_MAX);
        assert_eq!(name, digest(bytes));
        nodes.insert(name, bytes.to_vec());
        Ok(())
    });
    (root.unwrap(), nodes)
}

fn read(root: Digest, count: u64, nodes: &Nodes) -> Result<Vec<Digest>, TreeError<String>> {
    read_tree(NodeKind::Region, root, count, &mut |name| {
        nodes.get(name).map(|bytes| Bytes::from(bytes.clone())).ok_or_else(|| format!("no {name}"))
    })
}

#[test]
fn lists_come_back_and_have_a_root_even_if_short() {
    for count in [0, 1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537] {
        let digests = list(count, &[]);
        let (root, nodes) = build(&digests);
        assert_eq!(read(root, count, &nodes).unwrap(), digests, "{count} digests");
        assert_eq!(
            nodes.values().map(|node| node.len() as u64).sum::<u64>(),
            tree_len(count),
            "{count} digests"
        );
    }
}

#[test]
fn the_bytes_of_a_small_node_are_these() {
    let only = digest(b"chunk");
    let (root, nodes) = build(&[only]);
    let mut expected = vec![1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    expected.extend_from_slice(only.as_bytes());
    assert_eq!(nodes[&root], expected);
}

#[test]
fn another_count_is_damage() {
    let (root, nodes) = build(&list(300, &[]));
    for wrong in [0, 1, 256, 299, 301, u64::MAX] {
        assert!(
            matches!(read(root, wrong, &nodes), Err(TreeError::Digest(DigestError::BadNode { .. }))),
            "{wrong}"
        );
    }
}

#[test]
fn a_missing_node_is_the_callers_error() {
    let (root, mut nodes) = build(&list(300, &[]));
    nodes.retain(|name, _| *name == root);
    assert!(matches!(read(root, 300, &nodes), Err(TreeError::Caller(_))));
}

/// One changed byte of 1 GiB: its chunk, one node of each of two levels. Shown on the chunk digests alone, with the
/// sizes that they stand for.
#[test]
fn one_changed_byte_of_a_gibibyte_costs_less_than_80_kib() {
    let region = 1u64 << 30;
    let count = Grid::run(region).chunk_count();
    assert_eq!(count, 16_384);
    let (_, before) = build(&list(count, &[]));
    for changed in [0, 8_000, count - 1] {
        let (_, after) = build(&list(count, &[changed]));
        let new: u64 = after
            .iter()
            .filter(|(name, _)| !before.contains_key(*name))
            .map(|(_, node)| node.len() as u64)
            .sum();
        assert!(new + CHUNK_LEN < 72 * 1024, "{} bytes", new + CHUNK_LEN);
        assert_eq!(new + CHUNK_LEN, 65_536 + 4_364 + 1_100);
    }
}

/// Hostile nodes that repeat cannot make a tree deeper or longer than the count that the reader expects.
#[test]
fn a_node_that_is_its_own_child_is_damage() {
    let name = digest(b"me");
    let mut node = vec![1, 1, 1, 0];
    node.extend_from_slice(&300u64.to_le_bytes());
    node.extend_from_slice(name.as_bytes());
    node.extend_from_slice(name.as_bytes());
    let nodes = Nodes::from([(name, node)]);
    assert!(matches!(read(name, 300, &nodes), Err(TreeError::Digest(_))));
}

proptest! {
    #[test]
    fn damaged_nodes_give_errors(count in 0u64..600, at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<bool>()) {
        let digests = list(count, &[]);
        let (root, mut nodes) = build(&digests);
        let node = nodes.get_mut(&root).unwrap();
        let at = at.index(node.len());
        if cut { node.truncate(at) } else { node[at] ^= 1 << bit }
        // Digests are checked by whoever gets the node: a flip inside one is another list, or a child that is missing.
        if let Ok(found) = read(root, count, &nodes) {
            prop_assert!(!cut && found != digests);
        }
    }

    #[test]
    fn arbitrary_nodes_give_errors(bytes in prop::collection::vec(any::<u8>(), 0..200), count in any::<u64>()) {
        let root = digest(b"root");
        let _ = read(root, count, &Nodes::from([(root, bytes)]));
    }
}

#[test]
fn beside_another_list_only_what_differs_is_visited() {
    for (count, changed) in
        [(1, vec![0]), (300, vec![0, 299]), (70_000, vec![5, 256, 65_536, 69_999]), (300, vec![])]
    {
        let (before, mut nodes) = build(&list(count, &[]));
        let digests = list(count, &changed);
        let (after, more) = build(&digests);
        nodes.extend(more);
        let (mut read, mut seen) = (0, Vec::new());
        let mut get = |name: &Digest| {
            read += 1;
            nodes.get(name).map(|bytes| Bytes::from(bytes.clone())).ok_or(())
        };
        let mut visit = |digest| {
            seen.push(digest);
            Ok(())
        };
        visit_tree_beside(NodeKind::Region, after, before, count, &mut get, &mut visit).unwrap();
        assert_eq!(seen, changed.iter().map(|at| digests[*at as usize]).collect::<Vec<_>>(), "{count}");
        assert!(read <= 2 * 3 * changed.len(), "{read} nodes for {} changes", changed.len());
    }
}

#[test]
fn beside_a_list_that_cannot_be_had_all_is_visited() {
    let digests = list(300, &[]);
    let (root, nodes) = build(&digests);
    let mut seen = Vec::new();
    let mut get = |name: &Digest| nodes.get(name).map(|bytes| Bytes::from(bytes.clone())).ok_or(());
    let mut visit = |digest| {
        seen.push(digest);
        Ok(())
    };
    visit_tree_beside(NodeKind::Region, root, digest(b"gone"), 300, &mut get, &mut visit).unwrap();
    assert_eq!(seen, digests);
}
