//! Root states: what all entries up to one of them add up to, so that opening reads no long chain.
//!
//! ```text
//! 'R' 1  varint covers, repository id (16), varint floor, u8 conditional writes
//!        refs: varint count, (str name, target)… by ascending name;   u8 has table, digest of its root
//!        packs: varint count, …;                                      u8 has table, digest of its root
//!        segments: varint count, …
//!        condemned: varint count, (name (16), varint number of the entry)…
//!        leases: varint count, …
//!        extensions
//! ```
//!
//! Refs and packs are lists as long as they are few. Where they are many they are tables, of which the lists hold what is
//! newer: an entry of the list goes before the row of the table. This version writes lists only and reads both.

use super::entry::{all, put_all};
use super::parts::{ConditionalWrites, Lease, PackInfo, RefTarget, SegmentInfo};
use crate::error::Result;
use crate::extensions::Extensions;
use crate::names::PackName;
use crate::tree::Tree;
use crate::wire::{Input, put_digest, put_str, put_varint};
use chipmink_types::{BlobSource, Digest, RepositoryId, TimeId};
use std::collections::BTreeMap;

const LETTER: u8 = b'R';

/// What the entries up to one of them add up to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RootState {
    /// The last entry that is included.
    pub covers: TimeId,
    /// The repository.
    pub repository: RepositoryId,
    /// Packs born below this number that no entry added may be condemned.
    pub floor: TimeId,
    /// What the store was found to do with conditional creation.
    pub conditional_writes: ConditionalWrites,
    /// The refs (of a table, those that are newer than it).
    pub refs: BTreeMap<String, RefTarget>,
    /// Table of refs: key is the name, value the target.
    pub refs_table: Option<Digest>,
    /// The live packs (of a table, those that are newer than it).
    pub packs: Vec<PackInfo>,
    /// Table of packs: key is the name, value the rest.
    pub packs_table: Option<Digest>,
    /// Merged index segments that are not replaced by others.
    pub segments: Vec<SegmentInfo>,
    /// Packs that are condemned and perhaps not yet deleted, and the entry that condemned each.
    pub condemned: Vec<(PackName, TimeId)>,
    /// Leases that were not given back.
    pub leases: Vec<Lease>,
    /// What later versions add.
    pub extensions: Extensions,
}

impl RootState {
    /// The state before the first entry.
    pub fn new(repository: RepositoryId) -> Self {
        RootState {
            covers: TimeId(0),
            repository,
            floor: TimeId(0),
            conditional_writes: ConditionalWrites::Untested,
            refs: BTreeMap::new(),
            refs_table: None,
            packs: Vec::new(),
            packs_table: None,
            segments: Vec::new(),
            condemned: Vec::new(),
            leases: Vec::new(),
            extensions: Extensions::default(),
        }
    }

    /// The state's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![LETTER, 1];
        put_varint(&mut out, self.covers.0);
        out.extend_from_slice(&self.repository.0);
        put_varint(&mut out, self.floor.0);
        out.push(self.conditional_writes as u8);
        put_varint(&mut out, self.refs.len() as u64);
        for (name, target) in &self.refs {
            put_str(&mut out, name);
            target.encode(&mut out);
        }
        put_table(self.refs_table.as_ref(), &mut out);
        put_all(&self.packs, &mut out, PackInfo::encode);
        put_table(self.packs_table.as_ref(), &mut out);
        put_all(&self.segments, &mut out, SegmentInfo::encode);
        put_all(&self.condemned, &mut out, |(name, number), out| {
            out.extend_from_slice(&name.0);
            put_varint(out, number.0);
        });
        put_all(&self.leases, &mut out, Lease::encode);
        self.extensions.encode(&mut out);
        out
    }

    /// Decodes what [`RootState::encode`] made.
    ///
    /// # Errors
    /// When the bytes are damaged or of a later version.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut input = Input::with_header("root state", LETTER, bytes)?;
        let covers = TimeId(input.varint()?);
        let repository = RepositoryId(input.array()?);
        let floor = TimeId(input.varint()?);
        let conditional_writes = match input.u8()? {
            0 => ConditionalWrites::Untested,
            1 => ConditionalWrites::Honoured,
            2 => ConditionalWrites::Broken,
            other => return Err(input.unsupported(format!("verdict {other} on conditional writes"))),
        };
        let mut refs: BTreeMap<String, RefTarget> = BTreeMap::new();
        for _ in 0..input.count(36)? {
            let name = input.string()?;
            if refs.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return Err(input.damaged("refs do not ascend"));
            }
            refs.insert(name, RefTarget::decode(&mut input)?);
        }
        let refs_table = table(&mut input)?;
        let packs = all(&mut input, PackInfo::LEN_MIN, PackInfo::decode)?;
        let packs_table = table(&mut input)?;
        let segments = all(&mut input, SegmentInfo::LEN_MIN, SegmentInfo::decode)?;
        let condemned = all(&mut input, 17, |input| Ok((PackName(input.array()?), TimeId(input.varint()?))))?;
        let leases = all(&mut input, Lease::LEN_MIN, Lease::decode)?;
        let extensions = input.extensions()?;
        input.end()?;
        Ok(RootState {
            covers,
            repository,
            floor,
            conditional_writes,
            refs,
            refs_table,
            packs,
            packs_table,
            segments,
            condemned,
            leases,
            extensions,
        })
    }

    /// Reads the tables, if there are any, into the lists. Call it once the segments can be read: the tables are blobs.
    ///
    /// # Errors
    /// When a table is missing or damaged.
    pub fn read_tables(&mut self, source: &dyn BlobSource) -> Result<()> {
        if let Some(root) = self.refs_table.take() {
            for (key, value) in Tree::open(root).rows(source)? {
                let mut input = Input::new("row of the table of refs", &value);
                let target = RefTarget::decode(&mut input)?;
                input.end()?;
                let Ok(name) = String::from_utf8(key) else {
                    return Err(Input::new("row of the table of refs", &value).damaged("a name is not UTF-8"));
                };
                self.refs.entry(name).or_insert(target);
            }
        }
        if let Some(root) = self.packs_table.take() {
            let listed: std::collections::HashSet<PackName> =
                self.packs.iter().map(|pack| pack.name).collect();
            let condemned: std::collections::HashSet<PackName> =
                self.condemned.iter().map(|(name, _)| *name).collect();
            for (key, value) in Tree::open(root).rows(source)? {
                let mut key = Input::new("row of the table of packs", &key);
                let name = PackName(key.array()?);
                key.end()?;
                let mut input = Input::new("row of the table of packs", &value);
                let pack = PackInfo::decode_value(name, &mut input)?;
                input.end()?;
                if !listed.contains(&name) && !condemned.contains(&name) {
                    self.packs.push(pack);
                }
            }
        }
        Ok(())
    }
}

fn put_table(root: Option<&Digest>, out: &mut Vec<u8>) {
    out.push(u8::from(root.is_some()));
    if let Some(root) = root {
        put_digest(out, root);
    }
}

fn table(input: &mut Input<'_>) -> Result<Option<Digest>> {
    if input.bool()? { input.digest().map(Some) } else { Ok(None) }
}
