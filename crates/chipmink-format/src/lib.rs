//! The bytes of a chipmink repository. This crate encodes and decodes; it does no I/O.
//!
//! `FORMAT.md` beside this crate is the normative text. From the top down:
//!
//! - [`RootEntry`] and [`RootState`]: the root log, which says what the repository is.
//! - [`Commit`]: one save; it names a manifest ([`ManifestRow`], a [`Tree`]), which names [`Covariable`]s, whose tables
//!   hold a [`PodRow`] for each pod.
//! - Pods ([`tag`]), chunks of regions and the nodes of their digest trees (`chipmink-digest`).
//! - Packs ([`PackLayout`], [`PackFooter`]) hold blobs; index segments ([`SegmentHead`]) say where; a [`Compressor`] and
//!   [`decode_blob`] are how.
//! - Streams ([`StreamParts`]): the self-contained bytes of `dumps`.
//!
//! Every structure carries a version; root entries carry [`Requirements`]; what later versions add goes into
//! [`Extensions`]. Bytes are untrusted: decoders never panic, never allocate by a length that they have not checked
//! against the bytes at hand, and bound every depth.
#![forbid(unsafe_code)]

mod codec;
mod commit;
mod covariable;
mod descriptor;
mod error;
mod extensions;
mod index;
mod list;
mod manifest;
mod names;
mod pack;
mod requirements;
mod root;
mod row;
mod stream;
pub mod tag;
mod tree;
mod wire;

#[cfg(test)]
mod testing;

pub use codec::{
    Codec, Compressor, DELTA_CHAIN_MAX, Method, ZSTD_LEVEL, check_delta, decode_blob, decode_delta,
    expansion_max,
};
pub use commit::{Commit, TEXT_INLINE_MAX, Text};
pub use covariable::{
    COVARIABLE_INLINE_MAX, Covariable, CovariableRef, GROUP_DEPTH_MAX, NamedRoot, TABLE_INLINE_MAX,
};
pub use descriptor::{decode_global, decode_names, encode_global, encode_names};
pub use error::{FormatError, Result};
pub use extensions::Extensions;
pub use index::{
    EncodedSegment, Fence, IndexRow, MergePart, SEGMENT_PREFIX_LEN, SegmentHead, SegmentPlace,
    decode_segment, encode_segment, merge_segments,
};
pub use list::{LIST_INLINE_MAX, LIST_LEN_MAX, load_list, store_list};
pub use manifest::{
    INLINE_ATOM_MAX, ManifestRow, ManifestValue, find_in_manifest, manifest_name, read_manifest,
};
pub use names::{PackName, pack_path, parse_pack_path, parse_root_path, root_path};
pub use pack::{
    FinishedPack, PACK_END_MAGIC, PACK_FOOTER_GUESS, PACK_HEADER_LEN, PACK_MAGIC, PackFooter, PackHeader,
    PackLayout, PlacedSegment,
};
pub use requirements::{FEATURE_CHUNK_DELTA, FEATURE_LZ4, FEATURE_SWEPT, FORMAT_VERSION, Requirements};
pub use root::{
    ConditionalWrites, DroppedRange, DroppedVersions, InlineCommit, Lease, LeaseChange, PackInfo,
    PreviousEntry, ROOT_ENTRY_LEN_MAX, ROOT_MAGIC, RefChange, RefMove, RefTarget, RootEntry, RootState,
    STATE_EVERY, SegmentInfo, StatePlace,
};
pub use row::{Dependency, PodRow, RowShape, parse_slot_key, slot_key};
pub use stream::{
    STREAM_MAGIC, StreamParts, StreamPod, StreamRegion, bodies, decode_stream, encode_stream,
    encode_stream_head, stream_body_len, stream_len,
};
pub use tree::{
    Edit, EnterNode, TREE_KEY_MAX, TREE_LEVEL_MAX, TREE_NODE_LEN, Tree, TreeChange, TreeRoot, VisitRow,
};
