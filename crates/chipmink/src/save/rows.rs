//! The rows of pods: what their records say, with keys resolved to slots and names to descriptors.

use crate::base::GroupId;
use crate::error::{Error, Result};
use crate::hash::KeyMap;
use chipmink_digest::digest;
use chipmink_format::{Dependency, Extensions, PodRow, RowShape, encode_global, encode_names};
use chipmink_types::{BlobKind, BlobSink, Digest, PodKey, PodRecord, Slot};
use hashbrown::HashSet;

/// Stores descriptors, each once in a save.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    given: HashSet<Digest>,
}

impl Descriptors {
    fn put(&mut self, bytes: &[u8], sink: &mut dyn BlobSink) -> Result<Digest> {
        let name = digest(bytes);
        if self.given.insert(name) && !sink.holds(&name) {
            sink.put(BlobKind::Descriptor, name, bytes)?;
        }
        Ok(name)
    }
}

/// Where the pods are to which a table's rows may refer.
pub(super) struct Places<'a> {
    /// Pods of the table itself.
    pub(super) local: &'a KeyMap<Slot>,
    /// Pods of definition groups.
    pub(super) definitions: &'a KeyMap<(GroupId, Slot)>,
    /// The groups that the table names, by ordinal.
    pub(super) groups: &'a [GroupId],
}

impl Places<'_> {
    fn dependency(&self, key: PodKey) -> Result<Dependency> {
        if let Some(slot) = self.local.get(&key) {
            return Ok(Dependency::Local(*slot));
        }
        let found = self.definitions.get(&key).and_then(|(group, slot)| {
            let ordinal = self.groups.iter().position(|known| known == group)?;
            Some(Dependency::Definition { group: ordinal as u32, slot: *slot })
        });
        found.ok_or_else(|| {
            Error::contract(format!("pod {} is referred to from a co-variable that it is not part of", key.0))
        })
    }
}

/// The encoded row of a pod.
pub(super) fn encode_row(
    record: &PodRecord,
    rank: u64,
    places: &Places<'_>,
    descriptors: &mut Descriptors,
    sink: &mut dyn BlobSink,
) -> Result<Vec<u8>> {
    let dependencies =
        record.dependencies.iter().map(|key| places.dependency(*key)).collect::<Result<Vec<_>>>()?;
    let mut globals = Vec::with_capacity(record.globals.len());
    for name in &record.globals {
        globals.push(descriptors.put(&encode_global(name), sink)?);
    }
    let mut shapes = Vec::with_capacity(record.shapes.len());
    for shape in &record.shapes {
        let names = descriptors.put(&encode_names(&shape.dict_names, &shape.slot_names), sink)?;
        shapes.push(RowShape { class: shape.class, names });
    }
    let row = PodRow {
        rank,
        digest: record.digest,
        byte_len: record.byte_len,
        exports: record.exports.clone(),
        dependencies,
        globals,
        shapes,
        regions: record.regions.clone(),
        names: record.names.clone(),
        side: record.side,
        extensions: Extensions::default(),
    };
    Ok(row.encode(sink)?)
}
