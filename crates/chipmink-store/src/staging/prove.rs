//! What a staged entry takes over, proved below: sweeps there may have gone by since it was staged.
//!
//! A staged entry does not say which blobs its version found held. So if a sweep below has condemned anything since, all that the
//! version reaches is looked up; what lies in no live pack is written again from condemned ones, as long as they are there. Its
//! own packs get new names if they were begun below the floor.

use crate::error::{Result, StoreError};
use crate::inner::Inner;
use crate::log::read_entry;
use crate::pack_writer::{PackWriter, SealedPack};
use crate::sweep::{each_stored, put_stored, reached};
use crate::transaction::rebase::{own_rows, read_condemned};
use chipmink_format::{Codec, DELTA_CHAIN_MAX, IndexRow, PackInfo, PackName, RootEntry};
use chipmink_types::{BlobKind, Digest};
use hashbrown::HashMap;

impl Inner {
    /// The packs with which a staged entry can stand on the log as it is: its own, which are below by now, as far as they
    /// can be named, and what had to be written again.
    pub(crate) fn prove_staged(&self, staged: &RootEntry) -> Result<Vec<PackInfo>> {
        let condemned = self.condemned_since(staged)?;
        let (floor, head, repository) = {
            let log = self.log();
            (log.state.floor, log.head.number, log.state.repository)
        };
        let begin = || PackWriter::begin(&self.backend, repository, head);
        let mut packs = Vec::with_capacity(staged.packs_added.len());
        for pack in &staged.packs_added {
            if pack.born >= floor {
                packs.push(PackInfo { is_synced: true, ..*pack });
                continue;
            }
            let mut writer = begin()?;
            let rows = own_rows(self, pack.name)?;
            each_stored(self, pack.name, rows, &mut |row, stored, run| {
                put_stored(&mut writer, row, &stored, run)
            })?;
            packs.push(writer.seal(None, true)?.info);
        }
        if !condemned.is_empty() {
            packs.extend(self.write_lost(staged, &packs, &condemned, begin()?)?.map(|pack| pack.info));
        }
        Ok(packs)
    }

    /// The packs that were condemned since an entry was staged.
    fn condemned_since(&self, staged: &RootEntry) -> Result<Vec<PackName>> {
        let below = staged.previous.map(|previous| previous.number);
        let (mut names, mut next) = (Vec::new(), Some(self.log().head.number));
        while let Some(number) = next.filter(|number| Some(*number) > below) {
            let entry = read_entry(&self.backend, number)?.entry;
            names.extend(entry.packs_condemned.iter().copied());
            next = entry.previous.map(|previous| previous.number);
        }
        Ok(names)
    }

    /// Writes a pack of what a staged entry reaches and no live pack holds. `None`: nothing is missing.
    fn write_lost(
        &self,
        staged: &RootEntry,
        own: &[PackInfo],
        condemned: &[PackName],
        mut writer: PackWriter,
    ) -> Result<Option<SealedPack>> {
        let mut rows: HashMap<Digest, (PackName, IndexRow)> = HashMap::new();
        for name in condemned {
            // One that is deleted helps nobody.
            for row in own_rows(self, *name).unwrap_or_default() {
                rows.insert(row.digest, (*name, row));
            }
        }
        let view = |packs: &[PackInfo]| {
            let mut log = self.log().clone();
            log.state.packs.extend_from_slice(packs);
            log.uncovered.extend_from_slice(packs);
            Inner::new(self.backend.clone(), self.options.clone(), log)
        };
        let seen = view(own);
        // Tables that are gone hide what they name, so what is needed shows step by step: condemned packs are looked into, too.
        let with_condemned = {
            let mut all = own.to_vec();
            for name in condemned {
                all.extend(self.info_of(*name));
            }
            view(&all)
        };
        let needed = reached(&with_condemned, staged).map_err(|_| StoreError::BaseSwept)?;
        let mut is_needed = false;
        for digest in needed {
            if seen.chain(&digest, DELTA_CHAIN_MAX + 1).is_some() {
                continue;
            }
            let bytes = read_condemned(&seen, &rows, &digest, 0).map_err(|_| StoreError::BaseSwept)?;
            let kind = rows.get(&digest).and_then(|(_, row)| row.kind).unwrap_or(BlobKind::Pod);
            writer.put(digest, kind, Codec::Raw, bytes.len() as u64, None, &bytes)?;
            is_needed = true;
        }
        if is_needed { writer.seal(None, true).map(Some) } else { Ok(None) }
    }

    /// What the log said of a pack that was condemned; `None` if it is gone.
    fn info_of(&self, name: PackName) -> Option<PackInfo> {
        crate::transaction::rebase::read_info(self, name).ok()
    }
}
