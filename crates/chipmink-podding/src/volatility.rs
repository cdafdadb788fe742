//! Volatility: how often an object is expected to change.

use crate::{Candidate, ObjectKind};

/// What a session has seen of one object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct History {
    /// Saves in which the object was looked at, after the first.
    pub saves: u32,
    /// Those of them in which it had changed.
    pub changes: u32,
}

/// Rates an object: expected changes per save, 0 to 1.
pub trait Volatility: Send {
    /// The rate of the object that `prior` describes (its `volatility` is not looked at), with what is known of its past.
    fn rate(&self, prior: &Candidate, history: Option<History>) -> f32;
}

/// Joins a rate that was expected beforehand with what was seen: the expectation counts as one save.
pub fn joined(prior: f32, history: Option<History>) -> f32 {
    let History { saves, changes } = history.unwrap_or_default();
    ((changes as f32 + prior) / (saves as f32 + 1.0)).clamp(0.0, 1.0)
}

/// The first model: a constant for each kind of object, joined with its history.
///
/// Mutable containers, instances and buffers have the rate 0.1 that the paper's authors use for what may change;
/// immutable ones change only through what they contain, and classes and functions hardly ever.
#[derive(Clone, Copy, Debug, Default)]
pub struct TypePrior;

impl Volatility for TypePrior {
    fn rate(&self, prior: &Candidate, history: Option<History>) -> f32 {
        let expected = match prior.kind {
            ObjectKind::Tuple | ObjectKind::FrozenSet => 0.0,
            ObjectKind::Definition => 0.01,
            ObjectKind::List
            | ObjectKind::Dict
            | ObjectKind::Set
            | ObjectKind::Instance
            | ObjectKind::Reduced
            | ObjectKind::Array
            | ObjectKind::ByteArray
            | ObjectKind::Other => 0.1,
        };
        joined(expected, history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(kind: ObjectKind, history: Option<History>) -> f32 {
        let candidate =
            Candidate { ordinal: 0, kind, byte_len: 1, len: 1, dict_len: 0, peers: 1, volatility: 0.9 };
        TypePrior.rate(&candidate, history)
    }

    #[test]
    fn kinds_differ_before_anything_was_seen() {
        assert_eq!(rate(ObjectKind::Tuple, None), 0.0);
        assert!(rate(ObjectKind::Definition, None) < rate(ObjectKind::Dict, None));
    }

    #[test]
    fn what_was_seen_wins_over_the_prior() {
        let busy = rate(ObjectKind::List, Some(History { saves: 9, changes: 9 }));
        let calm = rate(ObjectKind::List, Some(History { saves: 9, changes: 0 }));
        assert!((busy - 0.91).abs() < 1e-6 && (calm - 0.01).abs() < 1e-6, "{busy} {calm}");
    }

    #[test]
    fn a_rate_stays_between_zero_and_one() {
        assert_eq!(joined(1.0, Some(History { saves: 0, changes: u32::MAX })), 1.0);
        assert_eq!(joined(0.0, Some(History { saves: u32::MAX, changes: 0 })), 0.0);
    }
}
