//! Packs that no entry names: left by saves that died, or on their way.
//!
//! Whether one will be named yet cannot be seen. So the floor is raised: from then on nobody can name a pack that was begun
//! below it, and a save that is slower than that writes its packs again.

use super::clock::Clock;
use crate::backend::ListedObject;
use crate::error::Result;
use crate::inner::Inner;
use crate::log::Log;
use chipmink_format::{PACK_HEADER_LEN, PackHeader, PackName, pack_path, parse_pack_path};
use chipmink_types::TimeId;
use hashbrown::{HashMap, HashSet};
use std::time::Duration;

/// The packs in the place, with their lengths.
pub(super) type Listing = HashMap<PackName, ListedObject>;

/// Lists the packs.
pub(super) fn list(inner: &Inner) -> Result<Listing> {
    let listed = inner.backend.list_objects("packs")?;
    Ok(listed.into_iter().filter_map(|object| Some((parse_pack_path(&object.path)?, object))).collect())
}

/// The orphans that may be condemned, and the floor that this needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Orphans {
    pub(super) condemned: Vec<PackName>,
    pub(super) floor: TimeId,
}

/// Looks through the packs that no entry names.
pub(super) fn find(
    inner: &Inner,
    log: &Log,
    listing: &Listing,
    own: &[PackName],
    clock: &Clock,
    grace: Duration,
) -> Result<Orphans> {
    let live = log.state.packs.iter().map(|pack| pack.name);
    let condemned = log.state.condemned.iter().map(|(name, _)| *name);
    let known: HashSet<PackName> = live.chain(condemned).chain(own.iter().copied()).collect();
    let mut found = Vec::new();
    for (name, object) in listing.iter().filter(|(name, _)| !known.contains(*name)) {
        if let Some(born) = born(inner, *name)? {
            let is_old = clock.is_past(object.modified_at, grace);
            found.push((*name, born, is_old));
        }
    }
    // What the next entry can say at most: packs that are begun above it are born higher.
    let highest = TimeId(log.highest.0.saturating_add(1));
    let young = found.iter().filter(|(.., is_old)| !is_old).map(|(_, born, _)| *born);
    let bound = young.min().unwrap_or(highest).min(highest);
    let old = found.iter().filter(|(.., is_old)| *is_old).map(|(_, born, _)| TimeId(born.0 + 1));
    let floor = old.filter(|floor| *floor <= bound).max().unwrap_or(TimeId(0)).max(log.state.floor);
    let mut condemned: Vec<PackName> =
        found.iter().filter(|(_, born, _)| *born < floor).map(|(name, ..)| *name).collect();
    condemned.sort_unstable();
    Ok(Orphans { condemned, floor })
}

/// The birth number of a pack; `None` if it is gone. One that does not say so, or not to be believed, is taken to be born now:
/// a floor above that is above whatever somebody may still publish it with.
fn born(inner: &Inner, name: PackName) -> Result<Option<TimeId>> {
    let (path, len) = (pack_path(name), PACK_HEADER_LEN as u64);
    let (repository, head) = {
        let log = inner.log();
        (log.state.repository, log.head.number)
    };
    let bytes = match inner.backend.get_range(&path, 0..len) {
        Ok(bytes) => bytes,
        Err(error) => {
            return match inner.backend.byte_len(&path)? {
                Some(found) if found >= len => Err(error),
                // It is too short to be a pack.
                Some(_) => Ok(Some(head)),
                None => Ok(None),
            };
        }
    };
    let header = PackHeader::decode(&bytes).ok();
    let header = header.filter(|header| header.repository == repository && header.name == name);
    Ok(Some(header.map_or(head, |header| header.born.min(head))))
}
