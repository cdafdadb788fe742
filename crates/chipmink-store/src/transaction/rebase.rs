//! Proving, on the log as it is at this moment, that what a version needs is there.
//!
//! What a save takes over was found when it was made; since then sweeps may have gone by. So before each attempt to publish:
//!
//! 1. The versions that it builds on, and that a ref is to be moved to, must not have been dropped.
//! 2. Of each pack that was condemned since a blob was found in it, the blobs are looked up again. One that lies in no live
//!    pack is written again: as long as the grace lasts the condemned pack can be read. What was condemned is never named.
//! 3. Own packs that were begun below the floor are written again under new names: a sweep may have condemned them.
//!
//! What cannot be had any more ends the save, before anything was published.

use super::{Move, PackTransaction, Target};
use crate::error::{Result, StoreError};
use crate::inner::Inner;
use crate::pack_writer::{PackWriter, SealedPack};
use crate::sweep::{each_stored, put_stored};
use bytes::Bytes;
use chipmink_digest::digest;
use chipmink_format::{
    DELTA_CHAIN_MAX, IndexRow, PACK_FOOTER_GUESS, PackFooter, PackInfo, PackName, decode_blob, decode_delta,
    decode_segment, expansion_max, pack_path,
};
use chipmink_types::{BlobKind, BlobSource, Digest, TimeId};
use hashbrown::HashMap;

impl PackTransaction {
    /// Sees to it that the next entry may name what this save names.
    pub(super) fn rebase(&mut self, inner: &Inner, publication: &Move<'_>) -> Result<()> {
        if !self.bases.is_empty() {
            let log = inner.log();
            if self.bases.iter().any(|base| log.dropped.range_of(*base).is_some()) {
                return Err(StoreError::BaseSwept);
            }
        }
        if let Target::Existing(Some(target)) = publication.to {
            inner.check_retained(target.time)?;
        }
        self.write_old_packs_again(inner)?;
        self.look_up_again(inner)
    }

    /// Gives own packs below the floor new names and birth numbers.
    fn write_old_packs_again(&mut self, inner: &Inner) -> Result<()> {
        let (floor, head, repository) = {
            let log = inner.log();
            (log.state.floor, log.head.number, log.state.repository)
        };
        for at in 0..self.sealed.len() {
            let old = &self.sealed[at];
            if old.info.born >= floor {
                continue;
            }
            let mut writer = PackWriter::begin(&inner.backend, repository, head)?;
            let copied = each_stored(inner, old.info.name, old.rows.clone(), &mut |row, stored, run| {
                put_stored(&mut writer, row, &stored, run)
            });
            copied.map_err(swept_if_missing)?;
            // A merged index is made anew by a later save.
            let new = writer.seal(None, inner.options.durable)?;
            self.stats.bytes_written += new.info.byte_len;
            let old = std::mem::replace(&mut self.sealed[at], new);
            self.follow_state(&old, at);
            let _ = inner.backend.delete(&pack_path(old.info.name));
        }
        Ok(())
    }

    /// The root state lies elsewhere if it was in a pack that was written again.
    fn follow_state(&mut self, old: &SealedPack, at: usize) {
        let new = &self.sealed[at];
        if let Some((place, _)) = &mut self.state
            && place.pack == old.info.name
            && let Some(row) = new.rows.iter().find(|row| row.digest == place.digest)
        {
            (place.pack, place.byte_offset) = (new.info.name, row.byte_offset);
        }
    }

    /// Looks blobs up again whose packs were condemned.
    fn look_up_again(&mut self, inner: &Inner) -> Result<()> {
        let condemned: Vec<(u32, PackName)> = {
            let index = inner.index();
            let packs = self.relied_on.keys().map(|at| (*at, index.pack(*at)));
            packs.filter(|(_, pack)| !pack.is_live).map(|(at, pack)| (at, pack.name)).collect()
        };
        let mut lost = Vec::new();
        for (at, name) in condemned {
            let digests = self.relied_on.remove(&at).unwrap_or_default();
            let before = lost.len();
            for digest in digests {
                match inner.chain(&digest, DELTA_CHAIN_MAX + 1) {
                    _ if self.own.contains(&digest) => {}
                    Some(chain) => self.rely_on(chain),
                    None => lost.push((digest, name)),
                }
            }
            if lost.len() > before {
                // Should this fail, they are looked for again.
                self.relied_on.insert(at, lost[before..].iter().map(|(digest, _)| *digest).collect());
            }
        }
        if lost.is_empty() { Ok(()) } else { self.write_again(inner, &lost) }
    }

    /// Writes blobs again that lie only in condemned packs.
    fn write_again(&mut self, inner: &Inner, lost: &[(Digest, PackName)]) -> Result<()> {
        let mut rows: HashMap<Digest, (PackName, IndexRow)> = HashMap::new();
        let mut names: Vec<PackName> = lost.iter().map(|(_, name)| *name).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            for row in own_rows(inner, name).map_err(swept_if_missing)? {
                rows.insert(row.digest, (name, row));
            }
        }
        for (digest, _) in lost {
            if self.own.contains(digest) {
                continue;
            }
            let bytes = read_condemned(inner, &rows, digest, 0).map_err(swept_if_missing)?;
            let kind = rows.get(digest).and_then(|(_, row)| row.kind).unwrap_or(BlobKind::Pod);
            self.write(kind, *digest, &bytes)?;
            self.own.insert(*digest);
        }
        self.seal(None)?;
        let is_own = |digest: &Digest| self.own.contains(digest);
        self.relied_on.retain(|_, digests| {
            digests.retain(|digest| !is_own(digest));
            !digests.is_empty()
        });
        Ok(())
    }
}

/// The rows of the own index of a pack that no entry names any more.
pub(crate) fn own_rows(inner: &Inner, name: PackName) -> Result<Vec<IndexRow>> {
    let PackInfo { index, .. } = read_info(inner, name)?;
    let path = pack_path(name);
    let bytes = inner.backend.get_range(&path, index.byte_offset..index.byte_offset + index.byte_len)?;
    decode_segment(&bytes).map(|(_, rows)| rows).map_err(|source| StoreError::Format {
        place: inner.backend.label().to_owned(),
        object: path,
        source,
    })
}

/// What is to be said of a pack, as far as it says so itself.
pub(crate) fn read_info(inner: &Inner, name: PackName) -> Result<PackInfo> {
    let path = pack_path(name);
    let damage =
        |source| StoreError::Format { place: inner.backend.label().to_owned(), object: path.clone(), source };
    let (tail, byte_len) = inner.backend.get_tail(&path, PACK_FOOTER_GUESS)?;
    let footer = match PackFooter::decode(&tail, byte_len) {
        Err(chipmink_format::FormatError::NeedMore { needed }) => {
            PackFooter::decode(&inner.backend.get_tail(&path, needed)?.0, byte_len)
        }
        other => other,
    }
    .map_err(damage)?;
    let index = footer.segments.first().map(|own| own.place).unwrap_or_default();
    Ok(PackInfo { name, byte_len, index, born: TimeId(0), is_synced: true })
}

/// The bytes of a blob, from a condemned pack if it is in one of them.
pub(crate) fn read_condemned(
    inner: &Inner,
    rows: &HashMap<Digest, (PackName, IndexRow)>,
    name: &Digest,
    depth: usize,
) -> Result<Bytes> {
    let Some((pack, row)) = rows.get(name).filter(|_| depth <= DELTA_CHAIN_MAX) else {
        return Ok(inner.get(name)?);
    };
    let path = pack_path(*pack);
    let stored = inner.backend.get_range(&path, row.byte_offset..row.byte_offset + row.stored_len)?;
    let max = inner.options.blob_bytes_max.min(expansion_max(row.stored_len));
    let decoded = match row.base {
        Some(base) => {
            let base = read_condemned(inner, rows, &base, depth + 1)?;
            decode_delta(&stored, row.codec, row.decoded_len, base, max)
        }
        None => decode_blob(stored, row.codec, row.decoded_len, max),
    };
    match decoded {
        Ok(bytes) if digest(&bytes) == *name => Ok(bytes),
        _ => Err(StoreError::BaseSwept),
    }
}

/// A condemned pack that is gone was deleted after the grace.
fn swept_if_missing(error: StoreError) -> StoreError {
    match error {
        error if error.is_missing() => StoreError::BaseSwept,
        StoreError::Blob(chipmink_types::BlobError::Missing { .. }) => StoreError::BaseSwept,
        error => error,
    }
}
