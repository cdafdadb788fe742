//! Records that root entries and root states have in common.

use crate::error::Result;
use crate::index::SegmentPlace;
use crate::names::PackName;
use crate::wire::{Input, put_digest, put_varint};
use chipmink_types::{Digest, TimeId};

/// What a ref points at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RefTarget {
    /// The commit.
    pub commit: Digest,
    /// Number of the root entry that holds the commit's bytes.
    pub time: TimeId,
    /// Root of the commit's manifest.
    pub manifest: Digest,
}

/// A pack that belongs to the repository.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PackInfo {
    /// Its name.
    pub name: PackName,
    /// Its length in bytes.
    pub byte_len: u64,
    /// Its own index.
    pub index: SegmentPlace,
    /// Its birth number: that of the newest root entry when it was begun.
    pub born: TimeId,
    /// Whether its bytes and its directory were synced before it was published.
    pub is_synced: bool,
}

/// A merged index segment over several packs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SegmentInfo {
    /// The pack in which it stands.
    pub pack: PackName,
    /// Where it stands there.
    pub place: SegmentPlace,
    /// Its level, at least 1.
    pub level: u8,
    /// The packs whose own indexes (or lower segments) it replaces.
    pub covers: Vec<PackName>,
}

/// A time-limited claim on a version: what it reaches is not swept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Lease {
    /// Sixteen random bytes by which the holder knows it.
    pub id: [u8; 16],
    /// The version that is held.
    pub holds: TimeId,
    /// When it ends, in microseconds since 1970-01-01 UTC, by the store's clock.
    pub expires_at: i64,
}

/// What a store was found to do with conditional creation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum ConditionalWrites {
    /// Not tried.
    #[default]
    Untested = 0,
    /// Of several that create one name at once, exactly one succeeds.
    Honoured = 1,
    /// Several succeeded: nobody may publish here.
    Broken = 2,
}

impl RefTarget {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_digest(out, &self.commit);
        put_varint(out, self.time.0);
        put_digest(out, &self.manifest);
    }

    pub(super) fn decode(input: &mut Input<'_>) -> Result<Self> {
        Ok(RefTarget { commit: input.digest()?, time: TimeId(input.varint()?), manifest: input.digest()? })
    }
}

impl PackInfo {
    /// Fewest bytes of an encoded one.
    pub(super) const LEN_MIN: usize = 16 + 6;

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.name.0);
        self.encode_value(out);
    }

    /// All but the name: the value of its row where packs are a table.
    pub(super) fn encode_value(&self, out: &mut Vec<u8>) {
        put_varint(out, self.byte_len);
        self.index.encode(out);
        put_varint(out, self.born.0);
        out.push(u8::from(self.is_synced));
    }

    pub(super) fn decode(input: &mut Input<'_>) -> Result<Self> {
        let name = PackName(input.array()?);
        PackInfo::decode_value(name, input)
    }

    pub(super) fn decode_value(name: PackName, input: &mut Input<'_>) -> Result<Self> {
        let byte_len = input.varint()?;
        let index = SegmentPlace::decode(input)?;
        if index.byte_offset + index.byte_len > byte_len {
            return Err(input.damaged(format!("the index of pack {name} lies outside it")));
        }
        Ok(PackInfo { name, byte_len, index, born: TimeId(input.varint()?), is_synced: input.bool()? })
    }
}

impl SegmentInfo {
    pub(super) const LEN_MIN: usize = 16 + 5;

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.pack.0);
        self.place.encode(out);
        out.push(self.level);
        put_packs(&self.covers, out);
    }

    pub(super) fn decode(input: &mut Input<'_>) -> Result<Self> {
        let pack = PackName(input.array()?);
        let place = SegmentPlace::decode(input)?;
        Ok(SegmentInfo { pack, place, level: input.u8()?, covers: packs(input)? })
    }
}

impl Lease {
    pub(super) const LEN_MIN: usize = 16 + 1 + 8;

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id);
        put_varint(out, self.holds.0);
        out.extend_from_slice(&self.expires_at.to_le_bytes());
    }

    pub(super) fn decode(input: &mut Input<'_>) -> Result<Self> {
        Ok(Lease { id: input.array()?, holds: TimeId(input.varint()?), expires_at: input.i64()? })
    }
}

pub(super) fn put_packs(names: &[PackName], out: &mut Vec<u8>) {
    put_varint(out, names.len() as u64);
    names.iter().for_each(|name| out.extend_from_slice(&name.0));
}

pub(super) fn packs(input: &mut Input<'_>) -> Result<Vec<PackName>> {
    let count = input.count(16)?;
    (0..count).map(|_| input.array().map(PackName)).collect()
}
