//! Packs that an earlier transfer has written and not published: it was interrupted.
//!
//! They are known by their names, which begin with what tells the two repositories, and by their headers. Only whole
//! packs are taken, each blob of which has its digest. Two transfers at once may take the packs of each other: neither
//! removes any, and none is published twice.

use super::closure::Missing;
use crate::error::Result;
use crate::generations::DigestSet;
use crate::inner::Inner;
use crate::pack_check::{check_pack, describe_pack};
use crate::pack_writer::SealedPack;
use crate::parallel::in_parallel;
use crate::random;
use chipmink_digest::digest;
use chipmink_format::{PackName, pack_path, parse_pack_path};
use chipmink_types::RepositoryId;
use hashbrown::HashSet;

/// What the names of the packs of transfers between two repositories begin with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Prefix([u8; 8]);

pub(super) fn prefix(source: RepositoryId, target: RepositoryId) -> Prefix {
    let mut text = b"chipmink transfer".to_vec();
    text.extend_from_slice(&source.0);
    text.extend_from_slice(&target.0);
    let name = digest(&text);
    let mut prefix = [0; 8];
    // The first byte of a digest is always the same.
    prefix.copy_from_slice(&name.as_bytes()[1..9]);
    Prefix(prefix)
}

impl Prefix {
    /// A name that no other pack has.
    pub(super) fn name(&self) -> PackName {
        let mut name: [u8; 16] = random::bytes();
        name[..8].copy_from_slice(&self.0);
        PackName(name)
    }
}

/// The packs whose blobs are, for the most part, still missing.
pub(super) fn adopt(
    target: &Inner,
    prefix: &Prefix,
    missing: &[Missing],
    threads: usize,
) -> Result<Vec<SealedPack>> {
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let known: HashSet<PackName> = {
        let log = target.log();
        let condemned = log.state.condemned.iter().map(|(name, _)| *name);
        log.state.packs.iter().map(|pack| pack.name).chain(condemned).collect()
    };
    let mut names = Vec::new();
    target.backend.list("packs", |path| {
        let name = parse_pack_path(path).filter(|name| name.0.starts_with(&prefix.0));
        names.extend(name.filter(|name| !known.contains(name)));
        true
    })?;
    let wanted: DigestSet = missing.iter().map(|blob| blob.digest).collect();
    let found = in_parallel(&names, threads, |name| inspect(target, *name, &wanted));
    let mut packs: Vec<SealedPack> = found.into_iter().flatten().collect();
    // Of what two of them hold, one copy is enough.
    let mut taken = DigestSet::default();
    packs.retain(|pack| {
        let news = pack.rows.iter().filter(|row| taken.insert(row.digest)).count();
        news * 2 > pack.rows.len()
    });
    if target.options.durable && !packs.is_empty() {
        let paths: Vec<String> = packs.iter().map(|pack| pack_path(pack.info.name)).collect();
        for path in target.backend.sync(&paths)? {
            let pack = packs.iter().find(|pack| pack_path(pack.info.name) == path);
            if let Some(pack) = pack {
                check_pack(&target.backend, &pack.info, target.options.blob_bytes_max)?;
            }
        }
        packs.iter_mut().for_each(|pack| pack.info.is_synced = true);
    }
    Ok(packs)
}

/// The pack, if it can be used.
fn inspect(target: &Inner, name: PackName, wanted: &DigestSet) -> Option<SealedPack> {
    let (header, info) = describe_pack(&target.backend, name).ok()?;
    let log = target.log();
    if header.repository != log.state.repository || header.born < log.state.floor {
        return None;
    }
    drop(log);
    let rows = check_pack(&target.backend, &info, target.options.blob_bytes_max).ok()?;
    let is_wanted = rows.iter().filter(|row| wanted.contains(&row.digest)).count() * 2 > rows.len();
    let is_there = |base: &chipmink_types::Digest| {
        wanted.contains(base) || target.index().find(base).is_ok_and(|found| found.is_some())
    };
    let has_bases = rows.iter().filter_map(|row| row.base.as_ref()).all(is_there);
    (is_wanted && has_bases).then_some(SealedPack { info, segments: Vec::new(), rows })
}
