//! What must hold of a disk that is found after a crash.

use chipmink_store::local::{LocalDisk, Syscalls};
use chipmink_store::{Backend, Store, StoreError, StoreOptions};
use chipmink_test_crash::namespace;
use chipmink_testkit::toy;
use chipmink_testkit::{CrashDisk, Moment};
use chipmink_types::TimeId;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Folder of the repository: two levels of it are new.
pub(crate) const ROOT: &str = "/home/a/b";

pub(crate) fn options(durable: bool) -> StoreOptions {
    StoreOptions { durable, thesaurus_bytes: 1 << 20, cache_bytes: 1 << 16, ..StoreOptions::default() }
}

pub(crate) fn backend(calls: Arc<dyn Syscalls>, durable: bool) -> Backend {
    Backend::local(LocalDisk::new(ROOT.into(), calls, durable))
}

pub(crate) fn open(disk: &CrashDisk, durable: bool) -> Result<Store, StoreError> {
    Store::open_in(backend(Arc::new(disk.clone()), durable), options(durable))
}

pub(crate) fn open_or_create(disk: &CrashDisk, durable: bool) -> Store {
    Store::open_or_create_in(backend(Arc::new(disk.clone()), durable), options(durable)).unwrap()
}

/// A disk on which `/home` is durable.
pub(crate) fn disk() -> CrashDisk {
    let disk = CrashDisk::new();
    disk.mkdir(Path::new("/home")).unwrap();
    disk.fsync(Path::new("/")).unwrap();
    disk
}

/// Saves the next version.
pub(crate) fn save_next(store: &Store) -> Result<TimeId, StoreError> {
    let next = store.head().number.0 + 1;
    toy::save(store, &namespace(next), "")
}

/// Says what is wrong with a disk on which all versions up to `promised` were promised (0: not even the repository).
///
/// If `is_whole`, everything that is seen must be whole too, as it is when all saves were durable.
pub(crate) fn verdict(disk: &CrashDisk, promised: u64, is_whole: bool) -> Result<(), String> {
    let store = match open(disk, true) {
        Ok(store) => store,
        Err(StoreError::NoRepository { .. }) if promised == 0 => return Ok(()),
        Err(StoreError::NoSoundEntry { .. }) if promised == 0 && !is_whole => return Ok(()),
        Err(error) => return Err(format!("it does not open: {error}")),
    };
    let head = store.head().number;
    if head.0 < promised {
        return Err(format!("version {promised} was promised, the newest is {head}"));
    }
    for number in 1..=head.0 {
        let loaded = toy::load(&store, TimeId(number));
        let is_right = loaded.as_ref().is_ok_and(|loaded| *loaded == namespace(number));
        let may_be_missing = number > promised && !is_whole && store.commit(TimeId(number)).is_err();
        if !is_right && !may_be_missing {
            return Err(format!("version {number} of {head} is wrong: {:?}", loaded.err()));
        }
    }
    let report = store.verify(true).map_err(|error| error.to_string())?;
    if !report.is_clean() {
        return Err(format!("verify: {:?}", report.problems));
    }
    // Life goes on.
    let next = save_next(&store).map_err(|error| format!("the next save fails: {error}"))?;
    let loaded = toy::load(&store, next).map_err(|error| error.to_string())?;
    if loaded != namespace(head.0 + 1) {
        return Err("the next save is wrong".to_owned());
    }
    Ok(())
}

/// Images looked at for one moment.
pub(crate) const IMAGES: usize = 1000;

/// Checks the images of a moment; those already `seen` to keep as many promises are not looked at again.
pub(crate) fn check_images(
    moment: &Moment,
    promised: u64,
    is_whole: bool,
    seed: u64,
    seen: &mut HashMap<u64, u64>,
) -> Result<(), String> {
    for image in moment.images(&Path::new(ROOT).join("tmp"), IMAGES, seed) {
        if seen.get(&image.fingerprint).is_none_or(|kept| *kept < promised) {
            verdict(&image.disk, promised, is_whole).map_err(|reason| {
                format!("a power cut before the call {:?}, {promised} promised: {reason}", moment.call)
            })?;
            seen.insert(image.fingerprint, promised);
        }
    }
    Ok(())
}
