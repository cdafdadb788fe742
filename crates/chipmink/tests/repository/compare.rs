//! Whether what a plan loads is what a world held.

use crate::graph::{Root, TOY, World};
use chipmink::Repository;
use chipmink_format::tag;
use chipmink_types::{GlobalName, LoadPlan, LoadRoot, PodSource, ShapeClass, TimeId};
use std::collections::{HashMap, HashSet};

/// Loads `names` (all: `None`) of a version and compares them with `world`, sharing and order of pods included.
pub(crate) fn check(
    repository: &Repository,
    time: TimeId,
    world: &World,
    order: &HashMap<u64, (u64, usize)>,
    names: Option<&[String]>,
) {
    let plan = repository.plan(time, names).unwrap();
    let loaded: Vec<&str> = plan.variables.iter().map(|variable| variable.name.as_str()).collect();
    match names {
        None => assert_eq!(loaded, world.names.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>()),
        Some(names) => {
            assert_eq!(&loaded[..names.len()], names);
            let wanted = with_reads(world, names);
            assert_eq!(
                loaded.iter().map(|name| (*name).to_owned()).collect::<HashSet<_>>(),
                wanted,
                "names that are read come along"
            );
        }
    }
    let mut pods = repository.pods(&plan);
    let bytes: Vec<Vec<u8>> = (0..plan.pods.len()).map(|at| pods.pod(at).unwrap().to_vec()).collect();
    let mut pairs =
        Pairs { plan: &plan, bytes: &bytes, world, ids: HashMap::new(), positions: HashMap::new() };
    for variable in &plan.variables {
        let root = world.root(&variable.name).unwrap();
        match (&variable.root, root) {
            (LoadRoot::Inline(atom), Root::Inline(value)) => assert_eq!(&atom[..], [3, *value]),
            (LoadRoot::Named(name), Root::Named(value)) => assert_eq!(name.module, format!("m{value}")),
            (LoadRoot::Skipped(skipped), Root::Skipped) => assert_eq!(skipped.type_name, "toy.Lock"),
            (LoadRoot::Pod(position, export), Root::Node(id)) => {
                assert_eq!(*export, 0);
                pairs.pair(*position, *id);
            }
            (found, wanted) => panic!("{}: {found:?} instead of {wanted:?}", variable.name),
        }
    }
    let (ids, positions) = (pairs.ids, pairs.positions);
    let is_alias = |at: usize| bytes[at][0] != TOY;
    for at in 0..plan.pods.len() {
        assert!(ids.contains_key(&at) || is_alias(at), "pod {at} is not needed for {names:?}");
    }
    for (at, id) in &ids {
        let node = &world.nodes[id];
        let pod = &plan.pods[*at];
        assert_eq!(pod.regions.len(), usize::from(!node.region.is_empty()));
        for region in &pod.regions {
            let mut into = vec![0; region.byte_len as usize];
            pods.read_region(region, &mut into).unwrap();
            assert!(into == node.region, "the region of node {id}");
        }
        assert_eq!(pod.side.as_deref(), (node.content == 3).then_some(&b"side"[..]));
        let class = GlobalName { module: "toy".into(), qualname: format!("Class{}", node.content) };
        assert_eq!(pod.globals, [class]);
        assert_eq!(pod.shapes[0].dict_names.len() as u64, node.content);
        if let ShapeClass::Dependency(ordinal, _) = pod.shapes[0].class {
            assert!(world.nodes[&ids[&pod.dependencies[ordinal as usize]]].is_definition);
        }
        // Definitions stand before all others.
        if node.is_definition {
            assert!(ids.iter().all(|(other, id)| world.nodes[id].is_definition || other > at));
        }
    }
    // Pods of one walk of a component run in the order of that walk.
    let mut walked: HashMap<u64, Vec<(usize, usize)>> = HashMap::new();
    for (id, at) in &positions {
        let (part, place) = order[id];
        walked.entry(part).or_default().push((place, *at));
    }
    for places in walked.values_mut() {
        places.sort_unstable();
        assert!(places.is_sorted_by(|a, b| a.1 < b.1), "run order {places:?}");
    }
}

fn with_reads(world: &World, names: &[String]) -> HashSet<String> {
    let mut wanted: HashSet<String> = names.iter().cloned().collect();
    loop {
        let count = wanted.len();
        for name in wanted.clone() {
            for id in world.reached(&name) {
                wanted
                    .extend(world.nodes[&id].reads.iter().filter(|read| world.root(read).is_some()).cloned());
            }
        }
        if wanted.len() == count {
            return wanted;
        }
    }
}

struct Pairs<'a> {
    plan: &'a LoadPlan,
    bytes: &'a [Vec<u8>],
    world: &'a World,
    ids: HashMap<usize, u64>,
    positions: HashMap<u64, usize>,
}

impl Pairs<'_> {
    /// Walks both at once; every pod is one node and every node one pod.
    fn pair(&mut self, position: usize, id: u64) {
        let mut open = vec![(position, id)];
        while let Some((mut position, id)) = open.pop() {
            if self.bytes[position][0] == tag::POD_VERSION {
                assert_eq!(self.bytes[position][1], tag::POD);
                position = self.plan.pods[position].dependencies[0];
            }
            match (self.ids.insert(position, id), self.positions.insert(id, position)) {
                (None, None) => {}
                (Some(known), Some(at)) => {
                    assert!(known == id && at == position, "sharing differs at node {id}");
                    continue;
                }
                (known, at) => {
                    panic!("node {id} is pod {position}, but was {at:?}, and the pod was {known:?}")
                }
            }
            let bytes = &self.bytes[position];
            let node = &self.world.nodes[&id];
            assert_eq!(bytes[1..9], node.content.to_le_bytes(), "content of node {id}");
            let (ordinals, rest) = bytes[9..].as_chunks::<4>();
            assert!(rest.is_empty());
            assert_eq!(ordinals.len(), node.children.len());
            for (ordinal, child) in ordinals.iter().zip(&node.children) {
                let at = u32::from_le_bytes(*ordinal) as usize;
                open.push((self.plan.pods[position].dependencies[at], *child));
            }
        }
    }
}
