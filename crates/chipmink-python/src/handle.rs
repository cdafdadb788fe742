//! `Handle`: an open repository and what its session remembers of the live objects.
//!
//! 1. The walk and the rebuild run attached to the interpreter, but let others run while they wait for a place far away;
//!    everything else that reads or writes runs detached.
//! 2. No lock is waited for: the session is taken or the caller is told that it is taken.

use crate::cancel::Cancel;
use crate::errors::raise;
use crate::fill::Loaded;
use crate::loading::How;
use crate::mapping::Mapping;
use crate::mentions::SetLine;
use crate::transfer::{Other, repair, transfer};
use crate::upkeep::{stats, verify_report};
use crate::walked::{Losses, Walked};
use chipmink::{
    Compression, KeepEvery, OnConflict, OpenOptions, Place, Repository, Retention, SaveRequest, SweepRequest,
};
use chipmink_pickle::rebuild::Variables;
use chipmink_pickle::{PySession, SessionOptions};
use chipmink_podding::policy_by_name;
use chipmink_types::{DeviceSpan, TimeId};
use pyo3::exceptions::PyValueError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

/// Bytes that the identity shadows may take if the caller does not say: a million small objects need about 48 MB.
const SHADOW_BYTES: u64 = 1 << 30;

const BUSY: &str = "a save of this repository object is running in this thread, and has called code that uses it; \
                    save or close it after it has returned";

/// Number, ref, message, saved at (microseconds), commit, parents, author.
type LogLine = (u64, String, String, i64, String, Vec<String>, String);

/// Versions staged, bytes left, newest durable version, versions persisted, bytes persisted, failure, persister.
type StatusLine = (u64, u64, u64, u64, u64, Option<String>, Option<u64>);

/// Names added, removed, changed.
pub(crate) type Names = (Vec<String>, Vec<String>, Vec<String>);

/// Refuses what cannot be the name of a branch, with the reason.
#[pyfunction]
pub(crate) fn check_branch(name: &str) -> PyResult<()> {
    chipmink::check_branch(name).map_err(raise)
}

/// An open repository.
#[pyclass(frozen, module = "chipmink._chipmink")]
pub(crate) struct Handle {
    repository: Repository,
    session: Mutex<Option<PySession>>,
    mapping: Mapping,
    /// Why pages are not tracked although they were to be.
    untracked: Option<String>,
    /// By what it can be opened again, if it lies in a bucket.
    url: Option<String>,
    on_conflict: OnConflict,
    /// What the version that was saved last lacks; it stays true of variables that the next walk leaves alone.
    losses: Mutex<Losses>,
}

impl Handle {
    pub(crate) const fn repository(&self) -> &Repository {
        &self.repository
    }

    pub(crate) const fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Whether the repository lies in a bucket.
    pub(crate) const fn is_far(&self) -> bool {
        self.url.is_some()
    }

    /// Locked for a moment only, and never while the interpreter is released.
    pub(crate) fn losses(&self) -> MutexGuard<'_, Losses> {
        self.losses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn session(&self) -> PyResult<MutexGuard<'_, Option<PySession>>> {
        match self.session.try_lock() {
            Ok(session) => Ok(session),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(crate::errors::exception("BusyError", BUSY)),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let repository = &self.repository;
        // Who persists ends the version that it is at, which may take its time.
        Python::attach(|py| py.detach(|| repository.stop_staging()));
    }
}

pub(crate) fn closed() -> PyErr {
    crate::errors::exception("ClosedError", "the repository is closed; open it again with chipmink.open")
}

#[pymethods]
impl Handle {
    #[new]
    #[pyo3(signature = (
        place, *, durable=true, policy="lga-siblings", compression="auto", shadow_bytes=None,
        thesaurus_bytes=None, cache_bytes=None, track_pages=false, map=true, verify="background", memory_bytes=None,
        staging=None, segment_bytes=None, single_writer=false, on_conflict="error", device_scratch=None,
        device_pinned=None, storage=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "they are the keywords of `chipmink.open`")]
    fn new(
        py: Python<'_>,
        place: &str,
        durable: bool,
        policy: &str,
        compression: &str,
        shadow_bytes: Option<u64>,
        thesaurus_bytes: Option<u64>,
        cache_bytes: Option<u64>,
        track_pages: bool,
        map: bool,
        verify: &str,
        memory_bytes: Option<u64>,
        staging: Option<String>,
        segment_bytes: Option<u64>,
        single_writer: bool,
        on_conflict: &str,
        device_scratch: Option<u64>,
        device_pinned: Option<u64>,
        storage: Option<HashMap<String, String>>,
    ) -> PyResult<Self> {
        let mapping = Mapping::new(map, verify)?;
        let policy = policy_by_name(policy).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let mut options = OpenOptions::default();
        options.store.durable = durable;
        options.store.compression = Compression::from_name(compression).ok_or_else(|| {
            let known = Compression::NAMES.join(", ");
            PyValueError::new_err(format!("no compression is called {compression:?}; use one of {known}"))
        })?;
        options.store.thesaurus_bytes = thesaurus_bytes.unwrap_or(options.store.thesaurus_bytes);
        options.store.cache_bytes = cache_bytes.unwrap_or(options.store.cache_bytes);
        options.store.memory_bytes = memory_bytes.unwrap_or(options.store.memory_bytes);
        options.staging = staging;
        options.segment_bytes = segment_bytes;
        options.store.single_writer = single_writer;
        let on_conflict = OnConflict::from_name(on_conflict).ok_or_else(|| {
            let known = OnConflict::NAMES.join(", ");
            PyValueError::new_err(format!(
                "no way out of conflicts is called {on_conflict:?}; use one of {known}"
            ))
        })?;
        let storage = storage.unwrap_or_default();
        let storage = storage.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let place = Place::parse(place).and_then(|place| place.with_options(storage));
        let place = place.map_err(|error| raise(error.into()))?;
        let url = match &place {
            Place::Remote(place) => Some(place.url()),
            _ => None,
        };
        let repository = py.detach(|| Repository::open_place(place, options)).map_err(raise)?;
        let shadow_bytes = shadow_bytes.unwrap_or(SHADOW_BYTES);
        let live = track_pages.then(chipmink::live_digests);
        #[cfg(target_os = "linux")]
        let shared = Some(chipmink::shared_memory());
        #[cfg(not(target_os = "linux"))]
        let shared = None;
        let untracked = live.as_ref().and_then(|live| live.unavailable());
        let device: Option<Box<dyn chipmink_types::DeviceMemory>> =
            Some(Box::new(crate::device::tier(device_scratch, device_pinned)));
        let session = PySession::new(py, SessionOptions { policy, shadow_bytes, live, shared, device })?;
        Ok(Handle {
            repository,
            mapping,
            untracked,
            url,
            on_conflict,
            session: Mutex::new(Some(session)),
            losses: Mutex::default(),
        })
    }

    /// The URL of a bucket, with the options that are not secret.
    fn url(&self) -> Option<String> {
        self.url.clone()
    }

    /// Why pages are not tracked although they were to be.
    fn untracked(&self) -> Option<String> {
        self.untracked.clone()
    }

    /// What was found damaged of what earlier loads have mapped; said once.
    fn take_damage(&self) -> Option<String> {
        self.mapping.take_damage()
    }

    /// Walks a namespace: the first step of a save. `captured` is called with fences as soon as nothing live is read any more, as
    /// far as streams and these fences let the program go on; see `PySession::when_captured` for when it is not.
    #[pyo3(signature = (namespace, accessed, ref_name, message, author, code, cancel=None, captured=None))]
    #[expect(clippy::too_many_arguments, reason = "they are the keyword arguments of the Python side")]
    fn walk(
        slf: &Bound<'_, Self>,
        namespace: &Bound<'_, PyDict>,
        accessed: Option<Vec<String>>,
        ref_name: String,
        message: String,
        author: String,
        code: String,
        cancel: Option<&Cancel>,
        captured: Option<Py<PyAny>>,
    ) -> PyResult<Walked> {
        let this = slf.get();
        let mut guard = this.session()?;
        let session = guard.as_mut().ok_or_else(closed)?;
        let cancel = cancel.map(|cancel| cancel.0.clone());
        let request =
            SaveRequest { ref_name, accessed, message, author, code, on_conflict: this.on_conflict, cancel };
        // The place may be far away, and nothing is walked yet.
        let begun = slf.py().detach(|| this.repository.begin(&request)).map_err(raise)?;
        session.when_captured(captured.map(crate::device::teller));
        let prepared = begun.walk(&mut session.source(namespace));
        session.when_captured(None);
        match prepared {
            Ok(prepared) => Ok(Walked::new(prepared, slf, namespace)),
            Err(error) => Err(session.take_exception().unwrap_or_else(|| raise(error))),
        }
    }

    /// Takes memory of devices, given as device, address, length, streams, and whether it is deferred, as known where all of it is
    /// stored in what the next save to the ref builds on. Returns the bytes of which that is so.
    fn recognise(
        &self,
        py: Python<'_>,
        ref_name: String,
        spans: Vec<(i32, u64, u64, Vec<u64>, bool)>,
    ) -> PyResult<u64> {
        let mut guard = self.session()?;
        let session = guard.as_mut().ok_or_else(closed)?;
        let Some(memory) = session.device() else { return Ok(0) };
        let request = SaveRequest { ref_name, ..SaveRequest::default() };
        let spans: Vec<DeviceSpan> = spans
            .into_iter()
            .map(|(device, address, byte_len, streams, is_deferred)| DeviceSpan {
                device,
                address,
                byte_len,
                streams,
                is_deferred,
            })
            .collect();
        py.detach(|| self.repository.begin(&request)?.recognise(memory, &spans)).map_err(raise)
    }

    /// Loads variables: all, or those named and, after them, those that their functions read. Classes that equal those
    /// of `live` are these. With `into`, that sees to the checks of what is mapped.
    #[pyo3(signature = (number, names, namespace, allow, live, into=None, cancel=None))]
    #[expect(clippy::too_many_arguments, reason = "they are the keyword arguments of the Python side")]
    fn load(
        &self,
        py: Python<'_>,
        number: u64,
        names: Option<Vec<String>>,
        namespace: Bound<'_, PyDict>,
        allow: Option<&Bound<'_, PyAny>>,
        live: Bound<'_, PyDict>,
        into: Option<&Loaded>,
        cancel: Option<&Cancel>,
    ) -> PyResult<Variables> {
        let how = How { namespace, allow, live };
        self.load_variables(py, TimeId(number), names.as_deref(), how, into, cancel)
    }

    /// Loads exactly the variables named, as `load` does; with `only_live`, nothing if a class or function would have to
    /// be made anew.
    #[expect(clippy::too_many_arguments, reason = "they are the keyword arguments of the Python side")]
    fn load_only(
        &self,
        py: Python<'_>,
        number: u64,
        names: Vec<String>,
        namespace: Bound<'_, PyDict>,
        allow: Option<&Bound<'_, PyAny>>,
        live: Bound<'_, PyDict>,
        only_live: bool,
    ) -> PyResult<Option<Variables>> {
        self.load_exactly(py, TimeId(number), &names, How { namespace, allow, live }, only_live)
    }

    /// For each mark, whether a pod of one of the versions holds it.
    fn mentioned(&self, py: Python<'_>, numbers: Vec<u64>, marks: Vec<Vec<u8>>) -> PyResult<Vec<bool>> {
        crate::mentions::mentioned(py, &self.repository, numbers, &marks)
    }

    /// The sets of files beside the packs: name, names and lengths of the files, microseconds since 1970.
    fn file_sets(&self, py: Python<'_>) -> PyResult<Vec<SetLine>> {
        crate::mentions::file_sets(py, &self.repository)
    }

    /// The names and contents of the files of a set.
    fn read_file_set(&self, py: Python<'_>, name: &str) -> PyResult<Vec<(String, Vec<u8>)>> {
        crate::mentions::read_file_set(py, &self.repository, name)
    }

    fn delete_file_set(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        crate::mentions::delete_file_set(py, &self.repository, name)
    }

    fn names(&self, py: Python<'_>, number: u64) -> PyResult<Vec<String>> {
        py.detach(|| self.repository.names(TimeId(number))).map_err(raise)
    }

    /// The names given, and those that functions reached from them read.
    fn reads(&self, py: Python<'_>, number: u64, names: Vec<String>) -> PyResult<Vec<String>> {
        py.detach(|| self.repository.reads(TimeId(number), &names)).map_err(raise)
    }

    /// The variables that must be loaded at once with one, so that no object is made twice.
    fn together(&self, py: Python<'_>, number: u64, name: &str) -> PyResult<Vec<String>> {
        py.detach(|| self.repository.together(TimeId(number), name)).map_err(raise)
    }

    /// Every ref and the version that it points at.
    fn refs(&self, py: Python<'_>) -> PyResult<BTreeMap<String, u64>> {
        let refs = py.detach(|| self.repository.refs()).map_err(raise)?;
        Ok(refs.into_iter().map(|(name, time)| (name, time.0)).collect())
    }

    fn create_ref(&self, py: Python<'_>, name: &str, number: u64) -> PyResult<()> {
        py.detach(|| self.repository.create_ref(name, TimeId(number))).map_err(raise)
    }

    /// Makes one version of several; the ref must be at `expected`.
    fn join(
        &self,
        py: Python<'_>,
        ref_name: &str,
        expected: Option<u64>,
        numbers: Vec<u64>,
        message: &str,
    ) -> PyResult<u64> {
        let times: Vec<TimeId> = numbers.into_iter().map(TimeId).collect();
        let joined = py
            .detach(|| self.repository.join(ref_name, expected.map(TimeId), &times, message))
            .map_err(raise)?;
        Ok(joined.0)
    }

    fn delete_ref(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        py.detach(|| self.repository.delete_ref(name)).map_err(raise)
    }

    /// The newest version of a ref, if it has one.
    fn newest(&self, py: Python<'_>, ref_name: &str) -> PyResult<Option<u64>> {
        let refs = py.detach(|| self.repository.refs()).map_err(raise)?;
        Ok(refs.get(ref_name).map(|time| time.0))
    }

    /// The version that the next save to a ref builds on, if this handle saved or checked it out.
    fn base(&self, ref_name: &str) -> Option<u64> {
        self.repository.base(ref_name).map(|time| time.0)
    }

    fn set_base(&self, py: Python<'_>, ref_name: &str, number: u64) -> PyResult<()> {
        py.detach(|| self.repository.set_base(ref_name, TimeId(number))).map_err(raise)
    }

    /// The versions, newest first.
    fn log(&self, py: Python<'_>, limit: Option<usize>) -> PyResult<Vec<LogLine>> {
        let limit = limit.unwrap_or(usize::MAX);
        py.detach(|| {
            let versions = self.repository.log()?.take(limit);
            versions
                .map(|version| {
                    let version = version?;
                    let parents = version.parents.iter().map(ToString::to_string).collect();
                    Ok((
                        version.time.0,
                        version.ref_name,
                        version.message,
                        version.saved_at,
                        version.commit.to_string(),
                        parents,
                        version.author,
                    ))
                })
                .collect::<chipmink::Result<_>>()
        })
        .map_err(raise)
    }

    fn diff(&self, py: Python<'_>, earlier: u64, later: u64) -> PyResult<Names> {
        let diff = py.detach(|| self.repository.diff(TimeId(earlier), TimeId(later))).map_err(raise)?;
        Ok((diff.added, diff.removed, diff.changed))
    }

    /// Drops versions and gives back room.
    #[expect(clippy::too_many_arguments, reason = "they are the keyword arguments of the Python side")]
    fn sweep<'py>(
        &self,
        py: Python<'py>,
        keep_last: Option<u64>,
        keep_numbers: Option<u64>,
        keep_seconds: Option<f64>,
        keep_tagged: bool,
        max_bytes: Option<u64>,
        older_than: Option<f64>,
        drop: Vec<u64>,
        grace: Option<f64>,
        dry_run: bool,
    ) -> PyResult<Bound<'py, PyDict>> {
        let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let periods = keep_seconds.map(|period| KeepEvery::Time(seconds(period)));
        let retention = Retention {
            keep_last,
            keep_every: keep_numbers.map(KeepEvery::Numbers).or(periods),
            keep_tagged,
            max_bytes,
            older_than: older_than.map(seconds),
            drop: drop.into_iter().map(TimeId).collect(),
        };
        let default = SweepRequest::default();
        let grace = grace.map_or(default.grace, seconds);
        let request = SweepRequest { retention, grace, dry_run };
        let report = py.detach(|| self.repository.sweep(&request)).map_err(raise)?;
        let figures = PyDict::new(py);
        let dropped: Vec<u64> = report.versions_dropped.iter().map(|time| time.0).collect();
        figures.set_item("dry_run", report.is_dry_run)?;
        figures.set_item("versions_dropped", dropped)?;
        figures.set_item("refs_deleted", report.refs_deleted)?;
        for (name, value) in [
            ("versions_kept", report.versions_kept),
            ("packs_condemned", report.packs_condemned),
            ("orphans_condemned", report.orphans_condemned),
            ("condemned_bytes", report.condemned_bytes),
            ("moved_bytes", report.moved_bytes),
            ("packs_deleted", report.packs_deleted),
            ("freed_bytes", report.freed_bytes),
            ("packs_waiting", report.packs_waiting),
            ("waiting_bytes", report.waiting_bytes),
            ("kept_bytes", report.kept_bytes),
        ] {
            figures.set_item(name, value)?;
        }
        Ok(figures)
    }

    /// Brings versions to another repository (`push`), or from it; `other` is a handle or a place.
    #[expect(clippy::too_many_arguments, reason = "they are the keyword arguments of the Python side")]
    fn transfer<'py>(
        slf: &Bound<'py, Self>,
        other: Other<'py>,
        push: bool,
        refs: Vec<String>,
        first: Option<u64>,
        saved_at: Option<i64>,
        names: Option<Vec<String>>,
        mirror: bool,
        limit: Option<u64>,
        verify: bool,
        storage: HashMap<String, String>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let asked = (refs, first, saved_at, names, mirror, limit, verify);
        transfer(slf, &other, push, asked, &storage, progress)
    }

    /// Replaces what is damaged, with the help of a mirror if one is given.
    fn repair<'py>(
        slf: &Bound<'py, Self>,
        mirror: Option<Other<'py>>,
        storage: HashMap<String, String>,
    ) -> PyResult<Bound<'py, PyDict>> {
        repair(slf, mirror.as_ref(), &storage)
    }

    /// How much there is.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let found = py.detach(|| self.repository.stats()).map_err(raise)?;
        stats(py, &found)
    }

    /// What is wrong with the repository.
    fn verify<'py>(&self, py: Python<'py>, full: bool) -> PyResult<Bound<'py, PyDict>> {
        let report = py.detach(|| self.repository.verify(full)).map_err(raise)?;
        verify_report(py, &report)
    }

    /// What is staged and what is durable: versions staged, bytes left, newest durable version, versions and bytes persisted,
    /// what is wrong, and who persists.
    fn status(&self, py: Python<'_>) -> PyResult<StatusLine> {
        let status = py.detach(|| self.repository.status()).map_err(raise)?;
        let (versions, bytes) = status.persisted;
        let (staged, left) = (status.staged_versions, status.bytes_left);
        Ok((staged, left, status.durable.0, versions, bytes, status.failure, status.persister))
    }

    /// Waits until a version is durable, at most so many seconds; whether it is.
    fn wait_durable(&self, py: Python<'_>, number: u64, seconds: f64) -> PyResult<bool> {
        let at_most = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        py.detach(|| self.repository.wait_durable(TimeId(number), at_most)).map_err(raise)
    }

    /// Waits until nothing is staged any more, at most so many seconds; whether that is so.
    fn wait_all_durable(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        let at_most = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        py.detach(|| self.repository.wait_all_durable(at_most)).map_err(raise)
    }

    /// Raises what has gone wrong in the background, each failure once.
    fn raise_background_failure(&self, py: Python<'_>) -> PyResult<()> {
        match py.detach(|| self.repository.take_background_failure()) {
            Some(error) => Err(raise(error)),
            None => Ok(()),
        }
    }

    /// Ends the background work.
    fn stop_staging(&self, py: Python<'_>) {
        py.detach(|| self.repository.stop_staging());
    }

    /// A class that the session holds may refer to the repository.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.session.try_lock() {
            Ok(session) => session.as_ref().map_or(Ok(()), |session| session.traverse(&visit)),
            // Whoever has the lock refers to the handle, too.
            Err(_) => Ok(()),
        }
    }

    fn __clear__(&self) {
        // Letting go may run code, which must find the lock free.
        let session = self.session.try_lock().ok().and_then(|mut session| session.take());
        drop(session);
    }

    /// Gives back what the session holds of the live objects.
    fn close(&self) -> PyResult<()> {
        drop(self.session()?.take());
        Ok(())
    }
}
