//! [`explore`]: every state that a small model of a protocol can reach.
//!
//! Breadth first, so the counterexample that comes back is one of the shortest. Of a visited state only a fingerprint of
//! 64 bits is kept: of ten million states two share one with a probability of three in a million, and then what lies
//! behind one of them may be missed.

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A protocol, as states and the steps between them.
pub trait Model {
    /// All that the future depends on.
    type State: Clone + Hash + Debug;
    /// What a step is called in a counterexample.
    type Step: Clone + Debug;

    /// Where it begins.
    fn initial(&self) -> Self::State;

    /// Gives every step that can happen in a state, with what comes of it.
    fn steps(&self, state: &Self::State, take: &mut dyn FnMut(Self::Step, Self::State));

    /// One state for all that behave alike: what cannot matter any more is cleared, and of mirror images one is chosen.
    fn canonical(&self, state: Self::State) -> Self::State;

    /// What is wrong in a state, if anything is.
    fn violation(&self, state: &Self::State) -> Option<String>;
}

/// What an exploration found.
#[derive(Debug)]
pub struct Explored<M: Model> {
    /// Distinct states.
    pub states: usize,
    /// Steps taken, also into states seen before.
    pub steps: u64,
    /// Longest of the shortest ways to a state.
    pub depth: usize,
    /// The way to a state that must not be, if there is one.
    pub counterexample: Option<Counterexample<M>>,
}

/// A way from the first state to one that must not be.
#[derive(Debug)]
pub struct Counterexample<M: Model> {
    /// What is wrong at its end.
    pub violation: String,
    /// The steps, each with the state behind it.
    pub way: Vec<(M::Step, M::State)>,
}

impl<M: Model> fmt::Display for Counterexample<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (step, _)) in self.way.iter().enumerate() {
            writeln!(f, "{:3}. {step:?}", number + 1)?;
        }
        write!(f, "then: {}", self.violation)?;
        match self.way.last() {
            Some((_, state)) => write!(f, "\nin {state:?}"),
            None => Ok(()),
        }
    }
}

/// Mixes by the two halves of products, as wyhash does; the standard hasher took half of the time.
#[derive(Clone, Copy, Default)]
struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, value: u64) {
        let product = u128::from(self.0 ^ value ^ 0x9e37_79b9_7f4a_7c15) * 0xd134_2543_de82_ef95_u128;
        // The rotation keeps what a product with zero would lose.
        self.0 = (product as u64 ^ (product >> 64) as u64).wrapping_add(self.0.rotate_left(23));
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        let mut last = *self;
        last.mix(0);
        last.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(value.into());
    }

    fn write_u16(&mut self, value: u16) {
        self.mix(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn write_isize(&mut self, value: isize) {
        self.mix(value as u64);
    }
}

/// What a state was reached from, by fingerprints, which need no further hashing.
type Seen = HashMap<u64, u64, BuildHasherDefault<Taken>>;

/// Takes a fingerprint as it is.
#[derive(Clone, Copy, Default)]
struct Taken(u64);

impl Hasher for Taken {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("fingerprints are numbers")
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

fn fingerprint(state: &impl Hash) -> u64 {
    let mut hasher = Mixer::default();
    state.hash(&mut hasher);
    hasher.finish()
}

/// Visits every state that can be reached, up to the first that must not be.
///
/// # Panics
/// When there are more than `states_max`: the model is larger than was meant, and leaving states out would prove nothing.
pub fn explore<M: Model>(model: &M, states_max: usize) -> Explored<M> {
    let first = model.canonical(model.initial());
    let mut seen = Seen::default();
    seen.insert(fingerprint(&first), 0);
    let mut steps = 0;
    let mut depth = 0;
    let mut violation = model.violation(&first).map(|violation| (violation, fingerprint(&first)));
    let mut level = vec![first];
    while !level.is_empty() && violation.is_none() {
        let mut next = Vec::new();
        for state in &level {
            let from = fingerprint(state);
            model.steps(state, &mut |_, reached| {
                steps += 1;
                let reached = model.canonical(reached);
                let name = fingerprint(&reached);
                if seen.contains_key(&name) {
                    return;
                }
                seen.insert(name, from);
                if violation.is_none() {
                    violation = model.violation(&reached).map(|violation| (violation, name));
                }
                next.push(reached);
            });
            assert!(seen.len() <= states_max, "more than {states_max} states at depth {depth}");
            if violation.is_some() {
                break;
            }
        }
        depth += usize::from(!next.is_empty());
        level = next;
    }
    let counterexample =
        violation.map(|(violation, end)| Counterexample { violation, way: way(model, &seen, end) });
    Explored { states: seen.len(), steps, depth, counterexample }
}

/// The steps to a state, found again by the fingerprints on the way to it.
fn way<M: Model>(model: &M, seen: &Seen, end: u64) -> Vec<(M::Step, M::State)> {
    let mut names = vec![end];
    while let Some(from) = names.last().and_then(|name| seen.get(name)).filter(|from| **from != 0) {
        names.push(*from);
    }
    names.reverse();
    let mut state = model.canonical(model.initial());
    let mut way = Vec::new();
    for name in &names[1..] {
        let mut found = None;
        model.steps(&state, &mut |step, reached| {
            let reached = model.canonical(reached);
            if found.is_none() && fingerprint(&reached) == *name {
                found = Some((step, reached));
            }
        });
        let (step, reached) = found.expect("each state was reached from the one before it");
        state = reached.clone();
        way.push((step, reached));
    }
    way
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two counters that go up to three, and must not both be there.
    struct Counters;

    impl Model for Counters {
        type State = (u8, u8);
        type Step = &'static str;

        fn initial(&self) -> (u8, u8) {
            (0, 0)
        }

        fn steps(&self, state: &(u8, u8), take: &mut dyn FnMut(&'static str, (u8, u8))) {
            if state.0 < 3 {
                take("left", (state.0 + 1, state.1));
            }
            if state.1 < 3 {
                take("right", (state.0, state.1 + 1));
            }
        }

        fn canonical(&self, (left, right): (u8, u8)) -> (u8, u8) {
            (left.min(right), left.max(right))
        }

        fn violation(&self, state: &(u8, u8)) -> Option<String> {
            (*state == (3, 3)).then(|| "both are there".to_owned())
        }
    }

    #[test]
    fn mirror_images_count_once_and_the_shortest_way_comes_back() {
        let explored = explore(&Counters, 100);
        // Of sixteen pairs the unordered ones.
        assert_eq!((explored.states, explored.depth), (10, 6));
        let counterexample = explored.counterexample.expect("the last state must not be");
        assert_eq!(counterexample.way.len(), 6);
        assert_eq!(counterexample.way.last().map(|(_, state)| *state), Some((3, 3)));
        assert!(counterexample.to_string().ends_with("then: both are there\nin (3, 3)"));
    }

    #[test]
    #[should_panic(expected = "more than 3 states")]
    fn a_model_that_is_too_large_is_not_explored_in_part() {
        explore(&Counters, 3);
    }
}
