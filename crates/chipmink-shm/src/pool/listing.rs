//! Which segments of chipmink there are: they outlive the processes that made them.

use super::layout::MAGIC;
use super::store::Pool;
use crate::error::{Result, ShmError};
use chipmink_types::SharedPool;
use std::io::Read;

/// Where Linux shows shared memory as files.
const FOLDER: &str = "/dev/shm";

/// What a segment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SegmentKind {
    /// A repository of its own.
    Repository,
    /// The staging tier of a repository elsewhere.
    Staging,
    /// It cannot be used: damaged, or made by another version.
    Unusable,
}

/// A segment that holds versions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentSummary {
    /// Its name, without `shm://`.
    pub name: String,
    /// What it is.
    pub kind: SegmentKind,
    /// Its length, in bytes, all of which is reserved.
    pub byte_len: u64,
    /// Bytes of objects in it.
    pub used: u64,
    /// Bytes of objects that are nowhere else.
    pub unsettled: u64,
}

/// The segments that hold versions, by name.
///
/// # Errors
/// When they cannot be listed.
pub fn segments() -> Result<Vec<SegmentSummary>> {
    let failed = |error| ShmError::system(format!("listing {FOLDER}"), error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(FOLDER).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // Whatever cannot be opened is not this user's.
        let mut magic = [0; 8];
        let is_pool = entry.file_type().is_ok_and(|kind| kind.is_file())
            && std::fs::File::open(entry.path()).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
            && magic == MAGIC;
        if !is_pool {
            continue;
        }
        let byte_len = entry.metadata().map_or(0, |metadata| metadata.len());
        let unusable =
            |name| SegmentSummary { name, kind: SegmentKind::Unusable, byte_len, used: 0, unsettled: 0 };
        let summary = Pool::attach(&name).ok().and_then(|pool| {
            let objects = pool.list().ok()?;
            let is_staging = pool.binding().ok()?.is_some();
            let kind = if is_staging { SegmentKind::Staging } else { SegmentKind::Repository };
            let used = objects.iter().map(|object| object.byte_len).sum();
            let unsettled =
                objects.iter().filter(|object| !object.is_settled).map(|object| object.byte_len).sum();
            Some(SegmentSummary { name: name.clone(), kind, byte_len, used, unsettled })
        });
        found.push(summary.unwrap_or_else(|| unusable(name)));
    }
    found.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}
