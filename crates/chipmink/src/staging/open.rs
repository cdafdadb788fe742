//! Opening shared memory by its name.

use super::stager::Stager;
use crate::error::{Error, Result};
use crate::options::OpenOptions;
use chipmink_shm::ShmError;
use chipmink_shm::pool::{self, Pool, SegmentKind, SegmentSummary};
use chipmink_store::{Backend, Place, Staging, Store, StoreError, StoreOptions};
use chipmink_types::SharedPool;
use std::io::{ErrorKind, Read};
use std::sync::Arc;

/// Bytes of shared memory that is made without a size.
const SEGMENT_BYTES: u64 = 1 << 30;

fn unusable(place: &str, reason: impl Into<String>) -> Error {
    StoreError::Place { place: place.to_owned(), reason: reason.into() }.into()
}

/// Sixteen bytes that no other segment has.
fn random_id() -> Result<[u8; 16]> {
    let mut id = [0; 16];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut id));
    match read {
        Ok(()) => Ok(id),
        Err(source) => Err(ShmError::System { context: "reading /dev/urandom".to_owned(), source }.into()),
    }
}

/// The name in `shm://NAME`.
pub(super) fn segment_name(place: &str) -> Result<String> {
    match Place::parse(place)? {
        Place::Shared(name) => Ok(name),
        _ => Err(unusable(place, "a staging tier is shared memory, as in shm://run7")),
    }
}

/// Attaches the pool of a name. `makes`: it is made if there is none.
pub(super) fn attach(name: &str, byte_len: Option<u64>, makes: bool) -> Result<Pool> {
    let pool = match makes {
        true => Pool::attach_or_create(name, byte_len.unwrap_or(SEGMENT_BYTES), random_id()?)?,
        false => Pool::attach(name)?,
    };
    match byte_len {
        Some(wanted) if wanted != pool.byte_len() => {
            let found = pool.byte_len();
            let reason = format!(
                "it is there with {found} bytes, not {wanted}; leave the size out, or remove it with `chipmink shm rm {name}`"
            );
            Err(unusable(pool.label(), reason))
        }
        _ => Ok(pool),
    }
}

/// The place of a repository in shared memory.
pub(crate) fn open_shared(name: &str, options: &OpenOptions) -> Result<Backend> {
    let pool = attach(name, options.segment_bytes, options.create).map_err(|error| match error {
        Error::Shm(ShmError::System { source, .. }) if source.kind() == ErrorKind::NotFound => {
            StoreError::NoRepository { place: format!("shm://{name}") }.into()
        }
        other => other,
    })?;
    if pool.binding()?.is_some() {
        let reason = "it is the staging tier of a repository elsewhere; open that one, with staging=";
        return Err(unusable(pool.label(), reason));
    }
    Ok(Backend::pool(Arc::new(pool)))
}

/// A repository with a staging tier in front of it.
pub(crate) fn open_staged(place: Place, options: &OpenOptions) -> Result<(Store, Stager)> {
    let name = segment_name(options.staging.as_deref().unwrap_or_default())?;
    if !matches!(place, Place::Local(_)) {
        let reason = "a staging tier stands in front of a folder, since only that is more durable than it";
        return Err(unusable(&format!("shm://{name}"), reason));
    }
    // Whatever the saver asks of its own saves, what leaves the staging tier is durable.
    let below = StoreOptions { durable: true, ..options.store.clone() };
    let lower = match options.create {
        true => Store::open_or_create(place, below)?,
        false => Store::open(place, below)?,
    };
    let pool = attach(&name, options.segment_bytes, true)?;
    pool.bind(lower.repository().0)?;
    let staging = Staging::new(Arc::new(pool.clone()), lower);
    let store = staging.open(options.store.clone())?;
    Ok((store, Stager::new(staging, pool)))
}

/// The segments of shared memory that hold versions, by name.
///
/// # Errors
/// When they cannot be listed.
pub fn segments() -> Result<Vec<SegmentSummary>> {
    Ok(pool::segments()?)
}

/// Removes shared memory that holds versions: `shm://NAME`, or the name. Processes that have it open keep it until they
/// end. With `even_if_staged` also if versions in it are durable nowhere, which are lost then.
///
/// # Errors
/// When there is none, or it holds what is not durable yet.
pub fn remove_segment(place: &str, even_if_staged: bool) -> Result<()> {
    let name = place.strip_prefix("shm://").unwrap_or(place);
    let found = pool::segments()?.into_iter().find(|segment| segment.name == name);
    if let Some(segment) = found.filter(|_| !even_if_staged)
        && segment.kind == SegmentKind::Staging
        && segment.unsettled > 0
    {
        let reason = format!(
            "{} bytes of it are not durable yet; run `chipmink agent --until-durable`, or pass --force to lose them",
            segment.unsettled
        );
        return Err(unusable(&format!("shm://{name}"), reason));
    }
    Ok(Pool::unlink(name)?)
}
