//! A toy object graph: nodes with content and children, one pod each, and a source that walks it as Python's does.

use chipmink_digest::{Grid, digest, digest_region};
use chipmink_graph::UnionFind;
use chipmink_testkit::Random;
use chipmink_types::{
    BlobKind, BlobSink, Component, Export, GlobalName, GraphSource, GridKind, PodKey, PodRecord,
    RegionRecord, ShapeClass, ShapeRecord, SkippedVariable, VariableRoot, ViewRecord, WalkError, WalkOutcome,
    WalkRequest, WalkStats, WalkedPod,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// First byte of a toy pod.
pub(crate) const TOY: u8 = 0xFF;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Node {
    pub(crate) content: u64,
    pub(crate) children: Vec<u64>,
    pub(crate) is_definition: bool,
    pub(crate) region: Vec<u8>,
    pub(crate) reads: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Root {
    Inline(u8),
    Named(u8),
    Node(u64),
    Skipped,
}

/// A namespace and the nodes that it reaches.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) names: Vec<(String, Root)>,
    next: u64,
}

impl World {
    pub(crate) fn add(&mut self, node: Node) -> u64 {
        self.next += 1;
        self.nodes.insert(self.next, node);
        self.next
    }

    pub(crate) fn bind(&mut self, name: &str, root: Root) {
        match self.names.iter_mut().find(|(known, _)| known == name) {
            Some((_, bound)) => *bound = root,
            None => self.names.push((name.to_owned(), root)),
        }
    }

    pub(crate) fn unbind(&mut self, name: &str) {
        self.names.retain(|(known, _)| known != name);
    }

    pub(crate) fn root(&self, name: &str) -> Option<&Root> {
        self.names.iter().find(|(known, _)| known == name).map(|(_, root)| root)
    }

    /// Nodes reached from `start`, in the order of a depth-first walk, added to `order`.
    pub(crate) fn reach(&self, start: u64, order: &mut Vec<u64>, seen: &mut HashSet<u64>) {
        let mut open = vec![start];
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                order.push(id);
                open.extend(self.nodes[&id].children.iter().rev());
            }
        }
    }

    pub(crate) fn reached(&self, name: &str) -> Vec<u64> {
        let mut order = Vec::new();
        if let Some(Root::Node(start)) = self.root(name) {
            self.reach(*start, &mut order, &mut HashSet::new());
        }
        order
    }

    /// Names that reach the node.
    pub(crate) fn users(&self, node: u64) -> Vec<String> {
        let names = self.names.iter().map(|(name, _)| name.clone());
        names.filter(|name| self.reached(name).contains(&node)).collect()
    }

    /// Changes something at random; returns the names whose objects were mutated.
    pub(crate) fn mutate(&mut self, random: &mut Random) -> BTreeSet<String> {
        let live: Vec<u64> = {
            let mut seen = HashSet::new();
            let mut order = Vec::new();
            for (_, root) in &self.names {
                if let Root::Node(start) = root {
                    self.reach(*start, &mut order, &mut seen);
                }
            }
            order
        };
        let pick = |random: &mut Random| (!live.is_empty()).then(|| live[random.below(live.len())]);
        let mut mutated = BTreeSet::new();
        match random.below(14) {
            0..3 => {
                let name = format!("n{}", random.below(12));
                let id = self.tree(random, 0);
                self.bind(&name, Root::Node(id));
            }
            3 => {
                let name = format!("n{}", random.below(12));
                self.unbind(&name);
            }
            4 => {
                let name = format!("n{}", random.below(12));
                let root = match random.below(3) {
                    0 => Root::Inline(random.below(4) as u8),
                    1 => Root::Named(random.below(4) as u8),
                    _ => Root::Skipped,
                };
                self.bind(&name, root);
            }
            5 => {
                // Share an object under another name, be it an inner one.
                if let Some(id) = pick(random) {
                    self.bind(&format!("n{}", random.below(12)), Root::Node(id));
                }
            }
            6 => {
                let at = random.below(self.names.len().max(1));
                if at < self.names.len() {
                    let entry = self.names.remove(at);
                    self.names.push(entry);
                }
            }
            7..10 => {
                if let Some(id) = pick(random) {
                    mutated.extend(self.users(id));
                    let node = self.nodes.get_mut(&id).unwrap();
                    match random.below(4) {
                        0 => node.region = random_region(random),
                        1 => {
                            node.reads =
                                (0..random.below(3)).map(|_| format!("n{}", random.below(14))).collect()
                        }
                        _ => node.content = random.next_u64() % 5,
                    }
                }
            }
            10..12 => {
                if let (Some(id), Some(other)) = (pick(random), pick(random)) {
                    let may = !self.nodes[&id].is_definition || self.nodes[&other].is_definition;
                    if may {
                        self.nodes.get_mut(&id).unwrap().children.push(other);
                        mutated.extend(self.users(id));
                    }
                }
            }
            12 => {
                if let Some(id) = pick(random) {
                    mutated.extend(self.users(id));
                    self.nodes.get_mut(&id).unwrap().children.pop();
                }
            }
            _ => {
                if let Some(id) = pick(random) {
                    let is_definition = self.nodes[&id].is_definition;
                    mutated.extend(self.users(id));
                    let child =
                        self.add(Node { content: random.next_u64() % 3, is_definition, ..Node::default() });
                    self.nodes.get_mut(&id).unwrap().children.insert(0, child);
                }
            }
        }
        mutated
    }

    /// A new tree, of a few nodes.
    pub(crate) fn tree(&mut self, random: &mut Random, depth: usize) -> u64 {
        let is_definition = random.below(5) == 0;
        let count = if depth > 2 { 0 } else { random.below(4) };
        let children = (0..count).map(|_| self.tree(random, depth + 1)).collect::<Vec<_>>();
        let children =
            children.into_iter().filter(|id| !is_definition || self.nodes[id].is_definition).collect();
        let region = if random.below(12) == 0 { random_region(random) } else { Vec::new() };
        let node =
            Node { content: random.next_u64() % 5, children, is_definition, region, reads: Vec::new() };
        self.add(node)
    }
}

fn random_region(random: &mut Random) -> Vec<u8> {
    let len = [0, 1, 65_536, 65_537, 150_000][random.below(5)];
    random.bytes(len)
}

/// What a source knows of its last adopted walk.
#[derive(Clone, Default)]
struct Known {
    names: Vec<(String, Root)>,
    /// For each name the names of its component.
    together: HashMap<String, Vec<String>>,
    records: HashMap<u64, Arc<PodRecord>>,
    /// Nodes that some name reached.
    live: HashSet<u64>,
    /// When a node was last walked: number of the component, and place in it.
    order: HashMap<u64, (u64, usize)>,
}

/// Walks a [`World`].
#[derive(Default)]
pub(crate) struct ToySource {
    pub(crate) world: World,
    known: Option<Known>,
    pending: Option<(u64, Known)>,
    tickets: u64,
    generation: u64,
    serial: u64,
    pub(crate) resets: u64,
    /// Lets the source say "unchanged" without listing names.
    pub(crate) is_terse: bool,
}

impl ToySource {
    pub(crate) fn new(world: World) -> Self {
        ToySource { world, is_terse: true, ..ToySource::default() }
    }

    /// When nodes were walked, as of the last adopted walk.
    pub(crate) fn order(&self) -> HashMap<u64, (u64, usize)> {
        self.known.as_ref().map(|known| known.order.clone()).unwrap_or_default()
    }

    fn key(&self, id: u64) -> PodKey {
        PodKey(self.generation << 32 | id)
    }

    fn id(key: PodKey) -> u64 {
        key.0 & 0xFFFF_FFFF
    }

    fn record(&self, id: u64, sink: Option<&mut dyn BlobSink>) -> Result<PodRecord, WalkError> {
        let node = &self.world.nodes[&id];
        let mut dependencies: Vec<u64> = Vec::new();
        let mut bytes = vec![TOY];
        bytes.extend_from_slice(&node.content.to_le_bytes());
        for child in &node.children {
            let ordinal = dependencies.iter().position(|known| known == child).unwrap_or_else(|| {
                dependencies.push(*child);
                dependencies.len() - 1
            });
            bytes.extend_from_slice(&(ordinal as u32).to_le_bytes());
        }
        let class = dependencies.iter().position(|id| self.world.nodes[id].is_definition);
        let class = class.map_or(ShapeClass::Global(0), |at| ShapeClass::Dependency(at as u32, 0));
        let grid = Grid::run(node.region.len() as u64);
        let mut nowhere = Nowhere;
        let sink = sink.unwrap_or(&mut nowhere);
        let name = digest(&bytes);
        sink.put(BlobKind::Pod, name, &bytes)?;
        let mut regions = Vec::new();
        if !node.region.is_empty() {
            regions.push(RegionRecord {
                grid: GridKind::Run,
                row_len: 0,
                first_chunk_len: 0,
                byte_len: grid.byte_len(),
                buffer_id: 0,
                root: digest_region(&node.region, &grid, None, sink)?,
                views: vec![ViewRecord { byte_offset: 0 }],
            });
        }
        let side = (node.content == 3).then(|| digest(b"side"));
        if let Some(side) = side {
            sink.put(BlobKind::Descriptor, side, b"side")?;
        }
        Ok(PodRecord {
            digest: name,
            byte_len: bytes.len() as u64,
            exports: vec![Export::Root(0)],
            dependencies: dependencies.iter().map(|id| self.key(*id)).collect(),
            globals: vec![GlobalName { module: "toy".into(), qualname: format!("Class{}", node.content) }],
            shapes: vec![ShapeRecord {
                class,
                dict_names: (0..node.content).map(|n| format!("attribute{n}")).collect(),
                slot_names: vec!["slot".into()],
            }],
            regions,
            side,
            names: node.reads.clone(),
        })
    }

    /// Number of the connected part of each node, where definitions do not connect others.
    fn parts(&self, order: &[u64]) -> HashMap<u64, usize> {
        let index: HashMap<u64, usize> = order.iter().enumerate().map(|(at, id)| (*id, at)).collect();
        let mut sets = UnionFind::new(order.len());
        for (at, id) in order.iter().enumerate() {
            let node = &self.world.nodes[id];
            for child in &node.children {
                if node.is_definition || !self.world.nodes[child].is_definition {
                    sets.union(at, index[child]);
                }
            }
        }
        let (labels, _) = sets.labels();
        order.iter().copied().zip(labels).collect()
    }

    /// Names that must be walked.
    fn active(&self, known: &Known, accessed: &[String]) -> BTreeSet<String> {
        let world = &self.world;
        let before: HashMap<&str, &Root> =
            known.names.iter().map(|(name, root)| (name.as_str(), root)).collect();
        let mut active: BTreeSet<String> =
            accessed.iter().filter(|name| world.root(name).is_some()).cloned().collect();
        for (name, root) in &world.names {
            if before.get(name.as_str()) != Some(&root) {
                active.insert(name.clone());
            }
        }
        // Whoever was in one component with a name that is gone, rebound or active.
        for (name, root) in &known.names {
            if world.root(name) != Some(root) || active.contains(name) {
                active.extend(known.together.get(name).into_iter().flatten().cloned());
            }
        }
        let mut order = Vec::new();
        let mut seen = HashSet::new();
        world.names.iter().for_each(|(_, root)| {
            if let Root::Node(start) = root {
                world.reach(*start, &mut order, &mut seen);
            }
        });
        let parts = self.parts(&order);
        let old_parts: HashMap<u64, u64> = known.order.iter().map(|(id, (part, _))| (*id, *part)).collect();
        loop {
            let count = active.len();
            let met: HashSet<u64> = active.iter().flat_map(|name| world.reached(name)).collect();
            let mut touched: HashSet<usize> = HashSet::new();
            for id in &met {
                // A definition connects only if the walk meets another group than was known.
                let walked: HashSet<u64> =
                    met.iter().copied().filter(|other| parts[other] == parts[id]).collect();
                let known_group: HashSet<u64> = known
                    .order
                    .keys()
                    .copied()
                    .filter(|other| old_parts.get(other) == old_parts.get(id) && known.live.contains(other))
                    .collect();
                let is_same = |id: &u64| {
                    let old = known.records.get(id);
                    old.is_some_and(|old| self.record(*id, None).is_ok_and(|new| **old == new))
                };
                if !world.nodes[id].is_definition || walked != known_group || !walked.iter().all(is_same) {
                    touched.insert(parts[id]);
                }
            }
            // Those who use what has split off from such a part belong to it, too.
            let split: HashSet<u64> = parts
                .iter()
                .filter(|(_, part)| touched.contains(*part))
                .filter_map(|(id, _)| old_parts.get(id).copied())
                .collect();
            for (name, _) in &world.names {
                let is_touched = |id: &u64| {
                    let was_split =
                        known.live.contains(id) && old_parts.get(id).is_some_and(|part| split.contains(part));
                    touched.contains(&parts[id]) || was_split
                };
                if world.reached(name).iter().any(is_touched) {
                    active.insert(name.clone());
                }
            }
            // Groups that fell apart or grew together.
            for name in active.clone() {
                active.extend(
                    known
                        .together
                        .get(&name)
                        .into_iter()
                        .flatten()
                        .filter(|name| world.root(name).is_some())
                        .cloned(),
                );
            }
            if active.len() == count {
                return active;
            }
        }
    }
}

/// Takes everything and keeps nothing.
pub(crate) struct Nowhere;

impl BlobSink for Nowhere {
    fn put(
        &mut self,
        _: BlobKind,
        _: chipmink_types::Digest,
        _: &[u8],
    ) -> Result<bool, chipmink_types::BlobError> {
        Ok(false)
    }

    fn holds(&mut self, _: &chipmink_types::Digest) -> bool {
        true
    }
}

impl GraphSource for ToySource {
    fn walk(&mut self, request: &WalkRequest<'_>, sink: &mut dyn BlobSink) -> Result<WalkOutcome, WalkError> {
        let world = self.world.clone();
        let active = match (&self.known, request.accessed) {
            (Some(known), Some(accessed)) => self.active(known, accessed),
            _ => world.names.iter().map(|(name, _)| name.clone()).collect(),
        };
        let mut next = self.known.clone().unwrap_or_default();
        self.tickets += 1;
        let ticket = self.tickets;
        if self.is_terse && active.is_empty() && next.names == world.names && self.known.is_some() {
            self.pending = Some((ticket, next));
            return Ok(WalkOutcome { is_unchanged: true, ticket, ..WalkOutcome::default() });
        }
        let (mut order, mut seen) = (Vec::new(), HashSet::new());
        for (name, root) in &world.names {
            if let (Root::Node(start), true) = (root, active.contains(name)) {
                world.reach(*start, &mut order, &mut seen);
            }
        }
        let parts = self.parts(&order);
        let count = parts.values().max().map_or(0, |max| max + 1);
        let mut components = vec![Component::default(); count];
        let mut stats = WalkStats { objects: order.len() as u64, ..WalkStats::default() };
        let first_serial = self.serial;
        self.serial += count as u64;
        for id in &order {
            let record = self.record(*id, Some(sink))?;
            let record = match self.known.as_ref().and_then(|known| known.records.get(id)) {
                Some(old) if **old == record => {
                    stats.pods_clean += 1;
                    Arc::clone(old)
                }
                _ => {
                    stats.pods_dirty += 1;
                    Arc::new(record)
                }
            };
            next.records.insert(*id, Arc::clone(&record));
            let part = parts[id];
            next.order.insert(*id, (first_serial + part as u64, components[part].pods.len()));
            components[part].pods.push(WalkedPod { key: self.key(*id), record });
        }
        // The very same pods keep the order in which they were written first.
        if let Some(known) = &self.known {
            for component in &components {
                let places: Vec<_> =
                    component.pods.iter().map(|pod| known.order.get(&ToySource::id(pod.key))).collect();
                let old_part = places.first().copied().flatten().map(|place| place.0);
                let old_len = known
                    .order
                    .iter()
                    .filter(|(id, place)| Some(place.0) == old_part && known.live.contains(*id))
                    .count();
                let is_same = old_len == component.pods.len()
                    && component.pods.iter().zip(&places).all(|(pod, place)| {
                        let record = known.records.get(&ToySource::id(pod.key));
                        place.map(|place| place.0) == old_part
                            && record.is_some_and(|record| Arc::ptr_eq(record, &pod.record))
                    });
                if is_same {
                    for (pod, place) in component.pods.iter().zip(places) {
                        next.order.extend(place.map(|place| (ToySource::id(pod.key), *place)));
                    }
                }
            }
        }
        let mut variables = Vec::new();
        for (name, root) in &world.names {
            let value = match root {
                _ if !active.contains(name) => VariableRoot::Untouched,
                Root::Inline(value) => VariableRoot::Inline(vec![3, *value]),
                Root::Named(value) => {
                    VariableRoot::Named(GlobalName { module: format!("m{value}"), qualname: String::new() })
                }
                Root::Skipped => VariableRoot::Skipped(SkippedVariable {
                    path: ".x".into(),
                    type_name: "toy.Lock".into(),
                    reason: "it is a lock".into(),
                }),
                Root::Node(id) if world.nodes[id].is_definition => {
                    let names = vec![(name.clone(), self.key(*id), 0)];
                    components.push(Component { names, pods: Vec::new() });
                    VariableRoot::Stored
                }
                Root::Node(id) => {
                    components[parts[id]].names.push((name.clone(), self.key(*id), 0));
                    VariableRoot::Stored
                }
            };
            variables.push((name.clone(), value));
        }
        next.names.clone_from(&world.names);
        next.live = world.names.iter().flat_map(|(name, _)| world.reached(name)).collect();
        let walked: BTreeSet<&String> = active.iter().collect();
        next.together.retain(|name, _| world.root(name).is_some() && !walked.contains(name));
        // Users of a definition group belong together with each other only if the group changes.
        for component in &components {
            let names: Vec<String> = component.names.iter().map(|(name, ..)| name.clone()).collect();
            names.iter().for_each(|name| drop(next.together.insert(name.clone(), names.clone())));
        }
        self.pending = Some((ticket, next));
        Ok(WalkOutcome { variables, components, stats, ticket, ..WalkOutcome::default() })
    }

    fn adopt(&mut self, outcome: WalkOutcome) {
        let (ticket, known) = self.pending.take().expect("a walk was made");
        assert_eq!(ticket, outcome.ticket);
        for component in &outcome.components {
            for pod in &component.pods {
                assert!(known.records.contains_key(&ToySource::id(pod.key)));
            }
        }
        self.known = Some(known);
    }

    fn discard(&mut self, outcome: WalkOutcome) {
        let (ticket, _) = self.pending.take().expect("a walk was made");
        assert_eq!(ticket, outcome.ticket);
    }

    fn reset(&mut self) {
        self.known = None;
        self.generation += 1;
        self.resets += 1;
    }
}
