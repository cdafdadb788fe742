//! [`OpenOptions`], [`SaveRequest`] and [`OnConflict`].

use chipmink_shm::LargeBuffer;
use chipmink_store::{Cancel, StoreOptions};

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
        let store = StoreOptions { gather: || Box::<LargeBuffer>::default(), ..StoreOptions::default() };
        OpenOptions { create: true, store, staging: None, segment_bytes: None }
    }
}

/// What a save does when another writer has moved its ref meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnConflict {
    /// It fails; nothing is published, and nothing lost.
    #[default]
    Error,
    /// The version follows the other's newest one, of which nothing is taken over.
    Retry,
    /// The version begins a new ref, named after the old one with a number.
    Branch,
}

impl OnConflict {
    /// The names that [`OnConflict::from_name`] knows.
    pub const NAMES: [&'static str; 3] = ["error", "retry", "branch"];

    /// The choice of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [OnConflict::Error, OnConflict::Retry, OnConflict::Branch];
        Self::NAMES.iter().position(|known| *known == name).map(|at| all[at])
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
    /// What is done when another writer has moved the ref.
    pub on_conflict: OnConflict,
    /// By what it can be given up from another thread.
    pub cancel: Option<Cancel>,
}

impl Default for SaveRequest {
    fn default() -> Self {
        SaveRequest {
            ref_name: DEFAULT_REF.to_owned(),
            accessed: None,
            message: String::new(),
            author: String::new(),
            code: String::new(),
            on_conflict: OnConflict::default(),
            cancel: None,
        }
    }
}
