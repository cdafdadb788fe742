//! Packs, tables and the root log of a repository, over `object_store`.
//!
//! A repository is a place with two kinds of objects: *packs*, which hold blobs, and the numbered entries of the *root
//! log*, of which the newest says what the repository is. Both are written once and never changed.
//!
//! ```text
//!  Store::begin ──► PackTransaction ── put(blob)… ──► packs/<name>        (seen by nobody yet)
//!                        │
//!                        └── publish(ref, commit) ──► root/<number>       (created only if absent: now all is seen)
//!
//!  Store::get(digest) ──► thesaurus, index segments ──► range of a pack ──► decoded, checked
//! ```
//!
//! - [`Store`]: an open repository; reads are checked against digests ([`chipmink_types::BlobSource`]).
//! - [`PackTransaction`]: one save ([`chipmink_types::BlobSink`]), published by compare-and-set.
//! - [`Place`], [`Backend`]: where it lies. [`local`] is the durable backend on disk, with the seam for faults;
//!   [`RemotePlace`] is a bucket, whose failures say what to look at ([`RemoteFailure`]).
//! - [`Staging`]: a pool in front of another place; versions go below one after another.
//! - [`Store::transfer`]: versions brought to another repository, at any place.
//! - [`FileSet`]: what other engines have written beside the packs for a version.
//! - [`VerifyReport`]: what a check of everything found; [`RepairReport`]: what became of it.
//!
//! - [`SweepRequest`]: which versions stay, when the room of the others is given back.
//!
//! It refuses to know what pods mean, and deletes nothing but packs that no retained version needs.
#![forbid(unsafe_code)]

mod backend;
mod block_writer;
mod cancel;
mod compression;
mod creation;
mod entry_creation;
mod error;
mod file_sets;
mod generations;
mod index;
mod inner;
pub mod local;
mod log;
mod memory;
mod merge;
mod options;
mod pack_check;
mod pack_writer;
mod parallel;
mod place;
mod pool;
mod random;
mod raw;
mod reach;
mod read;
mod read_ahead;
mod read_each;
mod region;
mod remote;
mod repair;
mod runner;
mod staging;
mod store;
mod sweep;
mod transaction;
mod transfer;
mod turn;
mod upload;
mod usage;
mod verify;

pub use backend::Backend;
pub use cancel::Cancel;
pub use compression::PlaceKind;
pub use error::{Result, StoreError};
pub use file_sets::{FileSet, SetFile};
pub use options::{Compression, StoreOptions, parse_byte_len};
pub use place::Place;
pub use raw::{OpenPacks, RawFile, RawPlaces};
pub use remote::{FailureKind, RemoteFailure, RemoteKind, RemoteOptions, RemotePlace};
pub use repair::RepairReport;
pub use staging::{Persisted, StagedState, Staging};
pub use store::{Entries, Head, Store};
pub use sweep::{KeepEvery, Retention, SweepReport, SweepRequest};
pub use transaction::{PackTransaction, Publication, TransactionStats};
pub use transfer::{Phase, RefSpec, Since, TransferOptions, TransferProgress, TransferReport, Watch};
pub use usage::{StoreStats, Usage};
pub use verify::{LostVersion, Problem, VerifyReport};
