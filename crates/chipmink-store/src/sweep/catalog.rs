//! What lies in the packs: the rows of all index segments that are in force.

use crate::error::{Result, StoreError};
use crate::generations::DigestHasher;
use crate::inner::{Inner, segments};
use crate::log::Log;
use crate::sweep::mark::Marker;
use chipmink_format::{IndexRow, PackInfo, PackName, decode_segment, pack_path};
use chipmink_types::Digest;
use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;
use std::hash::BuildHasherDefault;

/// A map by digest without bounds.
pub(super) type DigestMap<V> = HashMap<Digest, V, BuildHasherDefault<DigestHasher>>;

/// A pack and its blobs.
#[derive(Debug)]
pub(super) struct PackRows {
    pub(super) info: PackInfo,
    /// Each blob with the bytes that it takes, as stored.
    pub(super) rows: Vec<(Digest, u64)>,
}

impl PackRows {
    /// Bytes of its blobs.
    pub(super) fn blob_bytes(&self) -> u64 {
        self.rows.iter().map(|(_, len)| len).sum()
    }
}

/// The packs that were ever live while a sweep was being prepared. It holds 32 bytes for each row.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    packs: HashMap<PackName, PackRows>,
    /// What the deltas among the copies of a blob are deltas of.
    bases: DigestMap<SmallVec<[Digest; 1]>>,
}

impl Catalog {
    /// Reads the rows of packs that became live since the last call.
    pub(super) fn update(&mut self, inner: &Inner, log: &Log) -> Result<()> {
        let new: HashMap<PackName, PackInfo> = log
            .state
            .packs
            .iter()
            .filter(|pack| !self.packs.contains_key(&pack.name))
            .map(|pack| (pack.name, *pack))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let lens: HashMap<PackName, u64> =
            log.state.packs.iter().map(|pack| (pack.name, pack.byte_len)).collect();
        let mut taken: HashSet<PackName> = HashSet::new();
        let mut rows: HashMap<PackName, Vec<(Digest, u64)>> = HashMap::new();
        for segment in segments(log) {
            // Several segments may cover one pack; each has all its rows.
            let is_wanted = |pack: &&PackName| new.contains_key(*pack) && !taken.contains(*pack);
            let wanted: HashSet<PackName> = segment.covers.iter().filter(is_wanted).copied().collect();
            if wanted.is_empty() {
                continue;
            }
            let path = pack_path(segment.stands_in);
            let damage = |source| StoreError::Format {
                place: inner.backend.label().to_owned(),
                object: path.clone(),
                source,
            };
            let (start, end) =
                (segment.place.byte_offset, segment.place.byte_offset + segment.place.byte_len);
            let bytes = inner.backend.get_range(&path, start..end)?;
            let (head, found) = decode_segment(&bytes).map_err(damage)?;
            for row in found {
                let pack = head.packs.get(row.pack as usize).copied().unwrap_or(segment.stands_in);
                let is_inside = lens.get(&pack).is_some_and(|len| row.byte_offset + row.stored_len <= *len);
                if is_inside && wanted.contains(&pack) {
                    rows.entry(pack).or_default().push((row.digest, row.stored_len));
                    self.note_base(&row);
                }
            }
            taken.extend(wanted);
        }
        for (name, info) in new {
            let rows = rows.remove(&name).unwrap_or_default();
            self.packs.insert(name, PackRows { info, rows });
        }
        Ok(())
    }

    /// Takes a pack that this sweep has written.
    pub(super) fn add_own(&mut self, info: PackInfo, rows: &[IndexRow]) {
        rows.iter().for_each(|row| self.note_base(row));
        let rows = rows.iter().map(|row| (row.digest, row.stored_len)).collect();
        self.packs.insert(info.name, PackRows { info, rows });
    }

    /// Forgets packs that are given up.
    pub(super) fn forget(&mut self, names: &[PackName]) {
        names.iter().for_each(|name| drop(self.packs.remove(name)));
    }

    fn note_base(&mut self, row: &IndexRow) {
        if let Some(base) = row.base {
            let bases = self.bases.entry(row.digest).or_default();
            if !bases.contains(&base) {
                bases.push(base);
            }
        }
    }

    pub(super) fn pack(&self, name: &PackName) -> Option<&PackRows> {
        self.packs.get(name)
    }

    /// Marks what the deltas among the marked blobs need: the bases of every copy.
    pub(super) fn mark_bases(&self, marker: &mut Marker<'_>) {
        let live = marker.live();
        let mut open: Vec<Digest> =
            self.bases.keys().filter(|digest| live.contains(*digest)).copied().collect();
        while let Some(digest) = open.pop() {
            let bases = self.bases.get(&digest).into_iter().flatten();
            open.extend(bases.filter(|base| marker.add(**base)));
        }
    }

    /// The bytes that each blob takes in one of the packs, as stored.
    pub(super) fn stored_lens(&self, packs: &[PackName]) -> DigestMap<u64> {
        let mut lens = DigestMap::default();
        for pack in packs.iter().filter_map(|name| self.packs.get(name)) {
            for (digest, len) in &pack.rows {
                let known = lens.entry(*digest).or_insert(*len);
                *known = (*known).min(*len);
            }
        }
        lens
    }
}
