//! [`Images`]: what a disk may hold after a power cut.

use crate::crash::{CrashDisk, Node, World, apply, apply_change};
use crate::random::Random;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// One thing that may or may not have reached the disk.
#[derive(Clone, Copy, Debug)]
enum Doubt {
    /// The k-th write or change that was not synced, of a file or directory.
    Pending { node: usize, at: usize },
    /// Whether a file's length grew to what the living see (the lost bytes are then zeros).
    Length { node: usize },
}

/// The disks that may be found after a power cut; equal ones come once.
///
/// Of a directory for scratch files it is left to chance what survives, so that it does not multiply the possibilities.
#[derive(Debug)]
pub struct Images {
    world: World,
    doubts: Vec<Doubt>,
    scratch: Option<usize>,
    next: u64,
    count: u64,
    is_exhaustive: bool,
    random: Random,
    seen: HashSet<u64>,
}

impl Images {
    pub(crate) fn new(world: World, scratch: Option<usize>, limit: usize, seed: u64) -> Self {
        let mut reachable: HashSet<usize> = HashSet::new();
        for (node, content) in world.nodes.iter().enumerate().filter(|(node, _)| Some(*node) != scratch) {
            if let Node::Directory { live, durable, pending } = content {
                reachable.extend(live.values().chain(durable.values()));
                reachable.extend(pending.iter().filter_map(|(_, to)| *to));
                reachable.insert(node);
            }
        }
        let mut doubts = Vec::new();
        for (node, content) in world.nodes.iter().enumerate() {
            if Some(node) == scratch || !reachable.contains(&node) {
                continue;
            }
            match content {
                Node::File { pending, .. } if !pending.is_empty() => {
                    doubts.extend((0..pending.len()).map(|at| Doubt::Pending { node, at }));
                    doubts.push(Doubt::Length { node });
                }
                Node::File { .. } => {}
                Node::Directory { pending, .. } => {
                    doubts.extend((0..pending.len()).map(|at| Doubt::Pending { node, at }));
                }
            }
        }
        let all = (doubts.len() < 32).then(|| 1u64 << doubts.len()).filter(|all| *all <= limit as u64);
        Images {
            world,
            doubts,
            scratch,
            next: 0,
            count: all.unwrap_or(limit as u64),
            is_exhaustive: all.is_some(),
            random: Random::new(seed),
            seen: HashSet::new(),
        }
    }

    /// Whether every possibility comes.
    pub const fn is_exhaustive(&self) -> bool {
        self.is_exhaustive
    }

    fn choice(&mut self) -> Vec<bool> {
        let next = self.next;
        let len = self.doubts.len();
        if self.is_exhaustive {
            return (0..len).map(|bit| next >> bit & 1 == 1).collect();
        }
        // The two extremes come for certain; then each image has its own share of survivors, so that "nearly all" and
        // "nearly nothing" come too.
        if next < 2 {
            return vec![next == 1; len];
        }
        let share = self.random.below(101);
        (0..len).map(|_| self.random.below(100) < share).collect()
    }

    fn image(&mut self, choice: &[bool]) -> World {
        let mut world = self.world.clone();
        for node in &mut world.nodes {
            match node {
                Node::File { live, durable, .. } => *live = Arc::clone(durable),
                Node::Directory { live, durable, .. } => live.clone_from(durable),
            }
        }
        for (doubt, _) in self.doubts.iter().zip(choice).filter(|(_, survives)| **survives) {
            match *doubt {
                Doubt::Pending { node, at } => match (&mut world.nodes[node], &self.world.nodes[node]) {
                    (Node::File { live, .. }, Node::File { pending, .. }) => {
                        apply(Arc::make_mut(live), &pending[at]);
                    }
                    (Node::Directory { live, .. }, Node::Directory { pending, .. }) => {
                        apply_change(live, &pending[at]);
                    }
                    _ => unreachable!("a node keeps its kind"),
                },
                Doubt::Length { node } => {
                    if let (Node::File { live, .. }, Node::File { live: seen, .. }) =
                        (&mut world.nodes[node], &self.world.nodes[node])
                    {
                        let len = live.len().max(seen.len());
                        Arc::make_mut(live).resize(len, 0);
                    }
                }
            }
        }
        if let Some(scratch) = self.scratch
            && let (Node::Directory { live, .. }, Node::Directory { pending, .. }) =
                (&mut world.nodes[scratch], &self.world.nodes[scratch])
        {
            let survivors = pending.iter().filter(|_| self.random.below(2) == 0);
            survivors.for_each(|change| apply_change(live, change));
        }
        for node in &mut world.nodes {
            match node {
                Node::File { live, durable, pending } => {
                    *durable = Arc::clone(live);
                    pending.clear();
                }
                Node::Directory { live, durable, pending } => {
                    durable.clone_from(live);
                    pending.clear();
                }
            }
        }
        world
    }
}

/// Identity of what can be reached from the root, but for scratch files.
fn fingerprint(world: &World, number: usize, scratch: Option<usize>, hasher: &mut DefaultHasher) {
    match &world.nodes[number] {
        Node::File { live, .. } => (0u8, live).hash(hasher),
        Node::Directory { .. } if Some(number) == scratch => {}
        Node::Directory { live, .. } => {
            (1u8, live.len()).hash(hasher);
            for (name, number) in live {
                name.hash(hasher);
                fingerprint(world, *number, scratch, hasher);
            }
        }
    }
}

/// A disk that may be found after a power cut.
#[derive(Debug)]
pub struct Image {
    /// The disk.
    pub disk: CrashDisk,
    /// Equal for images that hold the same, but for scratch files.
    pub fingerprint: u64,
}

impl Iterator for Images {
    type Item = Image;

    fn next(&mut self) -> Option<Image> {
        while self.next < self.count {
            let choice = self.choice();
            self.next += 1;
            let world = self.image(&choice);
            let mut hasher = DefaultHasher::new();
            fingerprint(&world, 0, self.scratch, &mut hasher);
            let fingerprint = hasher.finish();
            if self.seen.insert(fingerprint) {
                return Some(Image { disk: CrashDisk::of(world), fingerprint });
            }
        }
        None
    }
}
