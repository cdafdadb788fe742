//! Shared by the tests of this crate: blobs in memory, and strategies for the parts of structures.

use crate::{Dependency, Extensions, PackName, PodRow, RowShape, SegmentPlace};
use bytes::Bytes;
use chipmink_digest::{CHUNK_LEN, digest};
use chipmink_types::{
    BlobError, BlobKind, BlobSink, BlobSource, Digest, Export, GlobalName, GridKind, RegionRecord,
    ShapeClass, Slot, TimeId, ViewRecord,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Blobs in memory; clones share them, so that one can be read while another is written to.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<HashMap<Digest, Bytes>>>);

impl Memory {
    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub(crate) fn byte_len(&self) -> usize {
        self.0.lock().unwrap().values().map(Bytes::len).sum()
    }

    pub(crate) fn names(&self) -> Vec<Digest> {
        self.0.lock().unwrap().keys().copied().collect()
    }

    pub(crate) fn bytes(&self, name: &Digest) -> Bytes {
        self.0.lock().unwrap()[name].clone()
    }

    /// Puts other bytes in place of a blob's.
    pub(crate) fn damage(&self, name: Digest, bytes: Vec<u8>) {
        self.0.lock().unwrap().insert(name, bytes.into());
    }

    /// A copy that shares nothing.
    pub(crate) fn copy(&self) -> Self {
        Memory(Arc::new(Mutex::new(self.0.lock().unwrap().clone())))
    }
}

impl BlobSink for Memory {
    fn put(&mut self, _: BlobKind, name: Digest, bytes: &[u8]) -> Result<bool, BlobError> {
        assert_eq!(name, digest(bytes), "a blob is put under its digest");
        Ok(self.0.lock().unwrap().insert(name, Bytes::copy_from_slice(bytes)).is_none())
    }

    fn holds(&mut self, name: &Digest) -> bool {
        self.0.lock().unwrap().contains_key(name)
    }
}

impl BlobSource for Memory {
    fn get(&self, name: &Digest) -> Result<Bytes, BlobError> {
        self.0.lock().unwrap().get(name).cloned().ok_or(BlobError::Missing { digest: *name })
    }
}

pub(crate) fn any_digest() -> impl Strategy<Value = Digest> {
    any::<u64>().prop_map(|seed| digest(&seed.to_le_bytes()))
}

pub(crate) fn any_name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z_]{1,8}", ".{0,40}"]
}

pub(crate) fn any_global() -> impl Strategy<Value = GlobalName> {
    (any_name(), any_name()).prop_map(|(module, qualname)| GlobalName { module, qualname })
}

pub(crate) fn any_pack() -> impl Strategy<Value = PackName> {
    any::<[u8; 16]>().prop_map(PackName)
}

/// Numbers of every length, short ones more often.
pub(crate) fn any_number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0u32..64).prop_map(|(value, shift)| value >> shift)
}

pub(crate) fn any_time() -> impl Strategy<Value = TimeId> {
    any_number().prop_map(TimeId)
}

pub(crate) fn any_place() -> impl Strategy<Value = SegmentPlace> {
    (0u64..1 << 60, 0u64..1 << 60).prop_map(|(byte_offset, byte_len)| SegmentPlace {
        byte_offset,
        byte_len,
        head_len: byte_len / 2,
    })
}

pub(crate) fn any_extensions() -> impl Strategy<Value = Extensions> {
    let some = vec((0u64..1 << 40, vec(any::<u8>(), 0..20)), 1..3).prop_map(|all| {
        let mut extensions = Extensions::default();
        all.into_iter().for_each(|(tag, bytes)| extensions.set(tag * 2, bytes));
        extensions
    });
    prop_oneof![9 => Just(Extensions::default()), 1 => some]
}

pub(crate) fn any_export() -> impl Strategy<Value = Export> {
    prop_oneof![
        Just(Export::Vacant),
        any::<u32>().prop_map(Export::Root),
        any::<u32>().prop_map(Export::Memo)
    ]
}

pub(crate) fn any_class() -> impl Strategy<Value = ShapeClass> {
    prop_oneof![
        any::<u32>().prop_map(ShapeClass::Global),
        any::<(u32, u32)>().prop_map(|(slot, export)| ShapeClass::Dependency(slot, export)),
    ]
}

pub(crate) fn any_region() -> impl Strategy<Value = RegionRecord> {
    let views = prop_oneof![
        Just(vec![ViewRecord { byte_offset: 0 }]),
        vec((0u64..1000).prop_map(|byte_offset| ViewRecord { byte_offset }), 0..4),
    ];
    (0..3u8, CHUNK_LEN..1 << 40, 0..=CHUNK_LEN, 1000u64..1 << 50, any_number(), any_digest(), views).prop_map(
        |(kind, row_len, first_chunk_len, byte_len, buffer_id, root, views)| {
            let (grid, row_len, first_chunk_len) = match kind {
                0 => (GridKind::Run, 0, 0),
                1 => (GridKind::Rows, row_len, 0),
                _ => (GridKind::Shard, 0, first_chunk_len),
            };
            RegionRecord { grid, row_len, first_chunk_len, byte_len, buffer_id, root, views }
        },
    )
}

fn any_dependency() -> impl Strategy<Value = Dependency> {
    prop_oneof![
        3 => any_number().prop_map(|slot| Dependency::Local(Slot(slot as u32))),
        1 => any::<(u32, u32)>().prop_map(|(group, slot)| Dependency::Definition { group, slot: Slot(slot) }),
    ]
}

/// Rows whose lists are absent, in the row, or too long for it.
pub(crate) fn any_pod_row() -> impl Strategy<Value = PodRow> {
    let shape = (any_class(), any_digest()).prop_map(|(class, names)| RowShape { class, names });
    let exports = prop_oneof![Just(vec![Export::Root(0)]), vec(any_export(), 0..300)];
    (
        (any_number(), any_digest(), any_number(), exports),
        (vec(any_dependency(), 0..300), vec(any_digest(), 0..40), vec(shape, 0..30)),
        (
            vec(any_region(), 0..20),
            vec(any_name(), 0..20),
            proptest::option::of(any_digest()),
            any_extensions(),
        ),
    )
        .prop_map(|((rank, digest, byte_len, exports), (dependencies, globals, shapes), rest)| {
            let (regions, names, side, extensions) = rest;
            PodRow {
                rank,
                digest,
                byte_len,
                exports,
                dependencies,
                globals,
                shapes,
                regions,
                names,
                side,
                extensions,
            }
        })
}

/// Whether `decode` refuses each shortened form of `bytes` without a panic.
pub(crate) fn every_prefix_fails<T>(bytes: &[u8], decode: impl Fn(&[u8]) -> crate::Result<T>) -> bool {
    (0..bytes.len()).all(|len| decode(&bytes[..len]).is_err())
}
