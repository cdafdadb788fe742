//! The facade over a toy object graph, against a model in memory.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod compare;
mod costs;
mod failures;
mod graph;
mod mapped;
mod random_saves;
