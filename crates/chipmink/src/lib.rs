//! Persistence for live object graphs: every save is a durable, numbered version that costs what changed; any version,
//! or any variable of any version, comes back with sharing and cycles intact.
//!
//! ```text
//!   GraphSource ──walk──► WalkOutcome ──tables, manifest, commit──► Store        prepare, publish, finish
//!   (live objects)        pods, regions                             packs and the root log
//!   rebuild ◄──PlanPods── LoadPlan ◄──closure of the wanted pods── tables        plan, pods
//! ```
//!
//! This crate is where the layers meet. It knows no Python and no byte of the format: the live side is whatever implements
//! [`chipmink_types::GraphSource`], the stored side is [`chipmink_store::Store`].
//!
//! - [`Repository`]: the versions under one place. Start reading here.
//! - [`Prepared`], [`Published`], [`Saved`]: a save in three steps. The first runs under the lock of the live objects, the
//!   second touches none of them, the third lets the source know what became of it.
//! - [`PlanPods`]: the bytes of a load plan, read ahead. [`RegionMapper`] maps large regions instead.
//! - [`Status`], [`run_agent`]: what is staged in shared memory, and how it becomes durable.
//! - [`Repository::push`], [`TransferOptions`]: versions brought to another repository.
//! - [`Log`], [`Version`], [`Diff`]: history. [`SweepRequest`] says what of it stays.
//! - [`live_digests`]: what a source may ask for digests of memory that nobody has written to.
//! - [`shared_memory`]: what a source may ask for memory that other processes share.
//! - [`DeviceTier`]: what a source may ask for memory of devices.
//! - [`examine`]: what this machine offers of all that.
//!
//! 1. Nothing is taken as known before its version is visible: a failed save leaves base and source as they were.
//! 2. What a save writes is a function of what changed. A co-variable whose pods are the very same keeps its digest without
//!    its table being looked at; untouched variables keep their row in the manifest.
//! 3. A save builds on the *base* of its ref, never on whatever the ref points at by now; if another writer moved the ref,
//!    the save fails with [`ErrorKind::RefMoved`] and nothing is lost.
//! 4. A load reads the tables of what was asked for, and of nothing else.
#![forbid(unsafe_code)]

mod base;
mod describe;
mod diff;
mod doctor;
mod elsewhere;
mod error;
mod hash;
mod history;
mod join;
mod options;
mod read;
mod refs;
mod repository;
mod save;
mod shared;
mod staging;
mod transfer;

pub use chipmink_cuda::{
    Allocation, Capture, CompilerOptions, Context as DeviceContext, CudaError, DeviceAllocator, DeviceInfo,
    DeviceRegion, DeviceTier, Fence, Found, Pipeline, PipelineOptions, Release, Staged, Upload, Uploader,
};
pub use chipmink_digest::Grid;
pub use chipmink_shm::pool::{SegmentKind, SegmentSummary};
pub use chipmink_shm::{MappedRegion, copy_streamed, live_digests};
#[cfg(target_os = "linux")]
pub use chipmink_shm::{Mapping, MappingKind, mapping_at, shared_memory};
pub use chipmink_store::{
    Cancel, Compression, FileSet, KeepEvery, LostVersion, Phase, Place, Problem, RefSpec, RepairReport,
    Retention, SetFile, Since, StoreStats, SweepReport, SweepRequest, TransferOptions, TransferProgress,
    TransferReport, Usage, VerifyReport, Watch, parse_byte_len,
};
pub use describe::Description;
pub use diff::Diff;
pub use doctor::{Examination, allocate_by_driver, device_unusable, examine};
pub use error::{Error, ErrorKind, Result};
pub use history::{Log, Version};
pub use options::{DEFAULT_REF, OnConflict, OpenOptions, SaveRequest};
pub use read::{MapCheck, MapChecker, Pieces, PlanPods, RegionMapper, Unchecked};
pub use refs::{TAG_PREFIX, check_branch};
pub use repository::Repository;
pub use save::{Begun, Prepared, Published, Report, Saved};
pub use staging::{AgentEvent, AgentOptions, Status, run_agent};
pub use staging::{remove_segment, segments};
