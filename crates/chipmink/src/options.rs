//! [`OpenOptions`] and [`SaveRequest`].

use chipmink_store::StoreOptions;

/// The ref that saves go to if no other is named.
pub const DEFAULT_REF: &str = "main";

/// How a repository is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Whether a repository is created where there is none.
    pub create: bool,
    /// How its store works: durability, and budgets of memory.
    pub store: StoreOptions,
    /// Shared memory, as `shm://NAME`, in front of the place: a save returns once its version is there, and goes below in
    /// the background.
    pub staging: Option<String>,
    /// Bytes of the shared memory (of the place itself, or of the staging tier) if it is to be made. If it is there, it
    /// must have so many; `None`: whatever it has, and 1 GiB if it is made.
    pub segment_bytes: Option<u64>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        OpenOptions { create: true, store: StoreOptions::default(), staging: None, segment_bytes: None }
    }
}

/// What a save is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SaveRequest {
    /// The ref that is moved.
    pub ref_name: String,
    /// Names whose objects may have been mutated since the base; `None`: any may.
    pub accessed: Option<Vec<String>>,
    /// What the user says of it.
    pub message: String,
    /// Who saves, as far as the user says.
    pub author: String,
    /// The code that ran before it; empty if it is not known.
    pub code: String,
}

impl Default for SaveRequest {
    fn default() -> Self {
        SaveRequest {
            ref_name: DEFAULT_REF.to_owned(),
            accessed: None,
            message: String::new(),
            author: String::new(),
            code: String::new(),
        }
    }
}
