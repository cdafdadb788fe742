//! What things are called: identifiers, and the traits through which the layers of chipmink meet.
//!
//! This crate does no I/O and knows neither Python nor a file format. Everything above it leans on it.
#![forbid(unsafe_code)]

mod blob;
mod device;
mod gather;
mod ids;
mod live;
mod load;
mod pool;
mod shared;
mod walk;

pub use blob::{BlobError, BlobKind, BlobSink, BlobSource, RegionForecast, RegionOutline};
pub use device::{
    DeviceCapture, DeviceChunk, DeviceError, DeviceFence, DeviceMemory, DeviceSpan, Hold, TakeChunk,
};
pub use gather::{Gather, NewGather};
pub use ids::{DIGEST_LEN, Digest, ParseDigestError, PodKey, RepositoryId, Slot, TimeId, WriteId, XXH3_128};
pub use live::{Doubt, Edges, LiveDigests, LiveRegion, Look};
pub use load::{LoadPlan, LoadPod, LoadRoot, LoadShape, LoadVariable, PodSource};
pub use pool::{PoolError, PoolObject, PoolWriter, SharedPool};
pub use shared::{SharedBytes, SharedMemory};
pub use walk::{
    Component, EarlierRegions, Export, GlobalName, GraphSource, GridKind, PodRecord, RegionRecord,
    ShapeClass, ShapeRecord, SkippedVariable, VariableRoot, ViewRecord, WalkError, WalkOutcome, WalkRequest,
    WalkStats, WalkedPod,
};
