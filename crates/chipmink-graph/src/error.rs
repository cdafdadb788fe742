//! What can go wrong with a pod graph.

/// Why a graph cannot be labelled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// A table has as many rows as there are slot numbers: 2^32 - 1.
    #[error("a co-variable has no slot left: it holds {held} pods; split the variable into several")]
    SlotsExhausted {
        /// Slots in use.
        held: u64,
    },
}
