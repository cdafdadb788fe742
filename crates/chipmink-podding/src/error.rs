//! What can go wrong when a policy is chosen.

/// Why a policy could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoddingError {
    /// There is no policy of that name.
    #[error(
        "no podding policy is called {name:?}; use \"lga-siblings\", \"lga\", \"bundle-all\", \"split-all\" or \
         \"random:SEED\" with a whole number as seed"
    )]
    UnknownPolicy {
        /// The name that was asked for.
        name: String,
    },
}
