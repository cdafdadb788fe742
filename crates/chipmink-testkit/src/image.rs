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
#[derive(Debug)]
pub struct Images {
    world: World,
    doubts: Vec<Doubt>,
    next: u64,
    count: u64,
    random: Option<Random>,
    seen: HashSet<u64>,
}

impl Images {
    pub(crate) fn new(world: World, limit: usize, seed: u64) -> Self {
        let mut doubts = Vec::new();
        for (node, content) in world.nodes.iter().enumerate() {
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
            next: 0,
            count: all.unwrap_or(limit as u64),
            random: all.is_none().then(|| Random::new(seed)),
            seen: HashSet::new(),
        }
    }

    /// Whether every possibility comes.
    pub const fn is_exhaustive(&self) -> bool {
        self.random.is_none()
    }

    fn choice(&mut self) -> Vec<bool> {
        let next = self.next;
        let len = self.doubts.len();
        match &mut self.random {
            None => (0..len).map(|bit| next >> bit & 1 == 1).collect(),
            // The two extremes come for certain; then each image has its own share of survivors, so that "nearly
            // all" and "nearly nothing" come too.
            Some(_) if next < 2 => vec![next == 1; len],
            Some(random) => {
                let share = random.below(101);
                (0..len).map(|_| random.below(100) < share).collect()
            }
        }
    }

    fn image(&self, choice: &[bool]) -> World {
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

/// Identity of what can be reached from the root.
fn fingerprint(world: &World, number: usize, hasher: &mut DefaultHasher) {
    match &world.nodes[number] {
        Node::File { live, .. } => (0u8, live).hash(hasher),
        Node::Directory { live, .. } => {
            (1u8, live.len()).hash(hasher);
            for (name, number) in live {
                name.hash(hasher);
                fingerprint(world, *number, hasher);
            }
        }
    }
}

impl Iterator for Images {
    type Item = CrashDisk;

    fn next(&mut self) -> Option<CrashDisk> {
        while self.next < self.count {
            let choice = self.choice();
            self.next += 1;
            let world = self.image(&choice);
            let mut hasher = DefaultHasher::new();
            fingerprint(&world, 0, &mut hasher);
            if self.seen.insert(hasher.finish()) {
                return Some(CrashDisk::of(world));
            }
        }
        None
    }
}
