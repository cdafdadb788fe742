"""Repositories: saving a namespace, and checking versions of it out.

1. One save at a time per repository object: a second thread waits for its turn, a save begun inside a save of the same
   thread raises ``BusyError``.
2. A repository object belongs to the process that opened it; in a forked child every use raises ``ClosedError``.
3. A checkout loads everything before it touches a binding.
"""

from __future__ import annotations

import itertools
import operator
import os
import pathlib
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Unpack

from chipmink import _chipmink, _in_place, _rebuild, _registry
from chipmink._asynchronous import save_in_thread
from chipmink._comparison import Comparison, compare
from chipmink._device import refuse_capture
from chipmink._errors import (
    ClosedError,
    DamagedError,
    NotFoundError,
    RemoteReferenceWarning,
    SkippedVariableWarning,
    StorageError,
    UnsavedChangesError,
    UnsteadyVariableWarning,
    UnsupportedError,
)
from chipmink._lazy import closed_over_sharing
from chipmink._loading import LoadingRepository
from chipmink._remote import RemoteSummary, Saving, resolving, saving_as
from chipmink._results import Diff, Report, Saved, Skipped
from chipmink._staging import Progress, Status, parse_size, watcher
from chipmink._storage import StorageOptions, as_text
from chipmink._stored import TAG, names_of
from chipmink._stream import Allow
from chipmink._transfer import Watch
from chipmink._transfer import watcher as transfer_watcher

__all__ = ["Repository", "open"]

#: What a save calls when the program may go on.
Captured = Callable[[list[_chipmink.DeviceFence]], object]

DEFAULT_REF = "main"
#: How often a save is made if sweeps take what it builds on.
_SWEPT_MAX = 5
#: Seconds that are waited at once, between two looks at signals and progress.
_WAIT_SLICE = 0.1


def open(
    place: str | os.PathLike[str],
    *,
    durable: bool = True,
    ref: str = DEFAULT_REF,
    policy: str = "lga-siblings",
    compression: str = "auto",
    shadow_bytes: int | None = None,
    thesaurus_bytes: int | None = None,
    cache_bytes: int | None = None,
    track_pages: bool = False,
    map: bool = True,
    verify: str = "background",
    memory_bytes: int | None = None,
    staging: str | None = None,
    size: int | str | None = None,
    progress: Progress = False,
    single_writer: bool = False,
    on_conflict: str = "error",
    device_scratch: int | str | None = None,
    device_pinned: int | str | None = None,
    **storage: Unpack[StorageOptions],
) -> Repository:
    """Opens the repository at a place, and creates it if there is none.

    ``place`` is a folder, or a URL such as ``file:///data/run7``; a prefix in a bucket (``s3://bucket/prefix``, ``gs://`` or
    ``az://``), which the keywords of ``StorageOptions`` say how to reach; or ``memory://``: a new repository in the memory of this
    process, which is gone when it is closed. That takes at most ``memory_bytes`` (4 GiB if not given); when they are full a
    save raises ``StorageError``, and no version goes away by itself. With ``durable=False`` a save does not wait until the
    disk has the bytes: a power failure may lose the last versions, but damages none. ``ref`` is the line of versions that
    ``save`` adds to. ``policy`` decides which objects are stored together (``"bundle-all"``, ``"split-all"``,
    ``"random:SEED"``, ``"lga"`` or ``"lga-siblings"``). ``compression`` is ``"auto"`` (what pays, as suits the place),
    ``"lz4"`` or ``"zstd"`` (all that shrinks), or ``"none"``; of buffers saved before, what changed a little is stored as a
    difference unless it is ``"none"``. With ``track_pages=True`` (Linux 6.7) the kernel tells which pages of large arrays were
    written since the last save, and only these are hashed; see the README for what it cannot see. Large arrays are mapped
    when they are loaded instead of being read, where that can be done; ``map=False`` reads everything. What is mapped is compared with its digests by ``verify``: in the ``"background"``, so that damage raises
    ``DamagedError`` at the next use of the repository; ``"eager"``, before the load returns; or ``"never"``. Several
    processes may write to one place, if it honours conditional writes; a bucket that does not is refused, unless
    ``single_writer=True`` says that only one process at a time ever writes there. If another writer
    has added to the same line since this repository object last looked, a save raises ``RefMovedError`` and nothing is lost;
    with ``on_conflict="retry"`` the version is put behind the other's (of which it takes nothing over), with ``"branch"`` it begins a
    line of its own, such as ``main-2``, which later saves go on with. Of each CUDA device whose memory is saved,
    ``device_scratch`` bytes of memory are taken once, for what has changed and is on its way to the host (64 MiB if not given; 0: it goes
    there at once), and ``device_pinned`` bytes of the host (64 MiB). The others are budgets of memory in bytes.

    ``shm://NAME`` is a repository in shared memory: other processes can open it, and it outlives them all, until the machine is
    shut down or ``chipmink shm rm NAME`` removes it. It has ``size`` bytes (as ``"2GiB"``; 1 GiB if not given), reserved when it
    is made; when they are full a save raises ``StorageError``, and no version goes by itself. With ``staging="shm://NAME"`` it
    stands in front of a folder instead: ``save`` returns as soon as the version is in shared memory, where it survives the death
    of this process, and goes on to the folder in the background. When it is full, versions that are in the folder go from
    it, oldest first, and a save waits for them. ``progress`` is shown while ``close`` waits, as in ``Saved.wait``.
    """
    return Repository(
        place,
        durable=durable,
        ref=ref,
        policy=policy,
        compression=compression,
        shadow_bytes=shadow_bytes,
        thesaurus_bytes=thesaurus_bytes,
        cache_bytes=cache_bytes,
        track_pages=track_pages,
        map=map,
        verify=verify,
        memory_bytes=memory_bytes,
        staging=staging,
        size=size,
        progress=progress,
        single_writer=single_writer,
        on_conflict=on_conflict,
        device_scratch=device_scratch,
        device_pinned=device_pinned,
        **storage,
    )


class Repository(LoadingRepository):
    """An open repository; make one with ``chipmink.open``. Also a context manager, which closes it."""

    def __init__(
        self,
        place: str | os.PathLike[str],
        *,
        durable: bool = True,
        ref: str = DEFAULT_REF,
        policy: str = "lga-siblings",
        compression: str = "auto",
        shadow_bytes: int | None = None,
        thesaurus_bytes: int | None = None,
        cache_bytes: int | None = None,
        track_pages: bool = False,
        map: bool = True,
        verify: str = "background",
        memory_bytes: int | None = None,
        staging: str | None = None,
        size: int | str | None = None,
        progress: Progress = False,
        single_writer: bool = False,
        on_conflict: str = "error",
        device_scratch: int | str | None = None,
        device_pinned: int | str | None = None,
        **storage: Unpack[StorageOptions],
    ) -> None:
        if size is not None and staging is None and not os.fspath(place).startswith("shm://"):
            raise ValueError(f"size is that of shared memory, and {os.fspath(place)!r} is none; give staging= with it")
        if memory_bytes is not None and os.fspath(place) != "memory://":
            raise ValueError(f"memory_bytes bounds a repository at memory://, not one at {os.fspath(place)!r}")
        _chipmink.check_branch(ref)
        # Other threads wait here. It is reentrant, so that a save begun by a reducer, a finalizer or a signal handler
        # inside a save of its own thread gets as far as the handle, which refuses it.
        self._turn = threading.RLock()
        self._ref = ref
        # What the last save warned about is not said again as long as it stays so.
        self._warned: set[Skipped | str] = set()
        # What was done in clusters for what this object has saved.
        self._elsewhere: dict[str, Any] = {}
        # With these, processes of a cluster open the place to save what lies with them.
        self._options: dict[str, Any] = {**storage, "durable": durable, "compression": compression}
        self._closed = "it is closed; open it again with chipmink.open"
        self._url = _url(os.fspath(place))
        self._staged = False
        self._all_durable = False
        self._handle: _chipmink.Handle | None = None
        self._handle = _chipmink.Handle(
            os.fspath(place),
            durable=durable,
            policy=policy,
            compression=compression,
            shadow_bytes=shadow_bytes,
            thesaurus_bytes=thesaurus_bytes,
            cache_bytes=cache_bytes,
            track_pages=track_pages,
            map=map,
            verify=verify,
            memory_bytes=memory_bytes,
            staging=staging,
            segment_bytes=parse_size(size),
            single_writer=single_writer,
            on_conflict=on_conflict,
            device_scratch=0 if device_scratch == 0 else parse_size(device_scratch),
            device_pinned=parse_size(device_pinned),
            storage=as_text(storage),
        )
        self._url = self._handle.url() or self._url
        self._staged = staging is not None
        self._progress = progress
        if (reason := self._handle.untracked()) is not None:
            warnings.warn(
                f"{reason}; saves hash all of every large buffer, as with track_pages=False", RuntimeWarning, stacklevel=3
            )
        _registry.note(self)

    @property
    def url(self) -> str:
        """Where the repository is."""
        return self._url

    @property
    def ref(self) -> str:
        """The line of versions that ``save`` adds to."""
        return self._ref

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._handle is None

    def save(
        self,
        namespace: dict[str, Any],
        *,
        message: str = "",
        accessed: Iterable[str] | None = None,
        strict: bool = False,
        author: str = "",
        code: str = "",
        remote: str = "reference",
        progress: Watch = False,
    ) -> Saved:
        """Keeps a version of all variables of a namespace and returns its number.

        ``accessed`` names the variables whose objects may have been changed since the last save of this repository
        object; ``None`` means that any may, and all are verified. Names that were added, deleted or bound to another
        object are always found. What cannot be saved is reported, warned about once, and loads as a placeholder; with
        ``strict=True`` it raises ``UnsupportedError`` instead, before anything is published.

        What lives in a cluster or session is saved by ``"reference"``; ``report.remote`` says what that is, and how long it can be
        resolved. With ``remote="pin"`` what others own is given to a keeper of this repository, which holds it in the cluster until no
        version names it any more (see ``chipmink.ray.pins``). With ``remote="materialize"`` its values are saved: where they
        are, by processes of the cluster, which must be able to reach this place and to import chipmink. Both may take long: ``progress``
        is called with a ``TransferProgress`` of it every now and then; ``True`` shows a bar, if there is a terminal.
        """
        return self._save(namespace, message, accessed, strict, author, code, remote, progress, None)

    async def asave(
        self,
        namespace: dict[str, Any],
        *,
        message: str = "",
        accessed: Iterable[str] | None = None,
        strict: bool = False,
        author: str = "",
        code: str = "",
        remote: str = "reference",
        progress: Watch = False,
    ) -> Saved:
        """As ``save``, in a thread. Several are saved one after another.

        The event loop goes on while the version is published, and whenever a bucket must be waited for; else the walk over the
        objects holds the interpreter, as in ``save``.
        What is saved must be left alone until this returns: what other tasks change meanwhile is reported as unsteady, or
        is in the version. If the task is cancelled before the version is visible, nothing is published; else the
        version stands. ``CancelledError`` is raised when that is decided.
        """
        names = None if accessed is None else names_of(accessed)
        return await save_in_thread(
            lambda cancel: self._save(namespace, message, names, strict, author, code, remote, progress, cancel)
        )

    def _save(
        self,
        namespace: dict[str, Any],
        message: str,
        accessed: Iterable[str] | None,
        strict: bool,
        author: str,
        code: str,
        remote: str,
        progress: Watch,
        cancel: _chipmink.Cancel | None,
        captured: Captured | None = None,
    ) -> Saved:
        """``captured`` is called once when nothing live is read any more, with fences; what happens then is not taken back."""
        if type(namespace) is not dict:
            raise UnsupportedError(f"a namespace is a dict of names, not a {type(namespace).__qualname__}")
        refuse_capture()
        watch, finish = transfer_watcher(progress)
        scope = Saving(remote, self, self._elsewhere, watch=watch)
        names = None if accessed is None else names_of(accessed)
        told = False

        def tell(fences: list[_chipmink.DeviceFence]) -> None:
            nonlocal told
            # With something pending, the walk will be made again.
            if captured is not None and not told and not scope.pending:
                told = True
                captured(fences)

        with self._turn:
            handle = self._usable()
            began = time.perf_counter()
            for _ in range(_SWEPT_MAX):
                try:
                    walked = self._walk(
                        scope, handle, namespace, names, message, author, code, cancel, tell if captured is not None else None
                    )
                finally:
                    finish()
                try:
                    walk_seconds = time.perf_counter() - began
                    skipped = tuple(Skipped(*item) for item in walked.skipped())
                    stubs = tuple(Skipped(*item) for item in walked.stubs())
                    if strict and (skipped or stubs):
                        lost = "; ".join(str(item) for item in skipped + stubs)
                        raise UnsupportedError(f"not saved, because strict=True and these cannot be: {lost}")
                    unsteady = tuple(walked.unsteady())
                    if strict and unsteady:
                        raise UnsupportedError(f"not saved, because strict=True and {_unsteady(unsteady)}")
                    published = walked.publish()
                finally:
                    # Does nothing once published.
                    walked.discard()
                if published is not None:
                    break
                if told:
                    raise StorageError("not saved: a sweep took what the save builds on, and the program has gone on since; save again")
            else:
                raise StorageError(
                    f"not saved: sweeps took what the save builds on, {_SWEPT_MAX} times; save again with fewer of them"
                )
            number, figures, ref = published
            # Another one after a conflict: later saves follow there.
            self._ref = ref
            total = time.perf_counter() - began
        detection = figures.pop("detection_nanos") / 1e9
        seconds = {"walk": walk_seconds, "detection": detection, "publish": total - walk_seconds, "total": total}
        scope.end()
        self._warn(skipped, stubs, scope.summaries())
        if unsteady:
            warnings.warn(f"saved, but {_unsteady(unsteady)}", UnsteadyVariableWarning, stacklevel=3)
        report = Report(
            skipped=skipped, stubs=stubs, unsteady=unsteady, remote=scope.summaries(), seconds=seconds, **figures
        )
        return Saved(number, report, self._waiter(number) if self._staged else None, ref)

    def _walk(
        self,
        scope: Saving,
        handle: _chipmink.Handle,
        namespace: dict[str, Any],
        names: list[str] | None,
        message: str,
        author: str,
        code: str,
        cancel: _chipmink.Cancel | None = None,
        captured: Captured | None = None,
    ) -> _chipmink.Walked:
        with saving_as(scope):
            while True:
                walked = handle.walk(namespace, names, self._ref, message, author, code, cancel, captured)
                if not scope.pending:
                    return walked
                # The walk has found what must be done elsewhere first.
                walked.discard()
                scope.settle()

    def _waiter(self, number: int) -> Callable[[float | None, Progress], bool]:
        def is_durable(seconds: float) -> bool:
            handle = self._handle
            if handle is None:
                if self._all_durable:
                    return True
                raise ClosedError(f"version {number} of {self._url!r} cannot be waited for: {self._closed}")
            return handle.wait_durable(number, seconds)

        return lambda timeout, progress: self._wait_for(is_durable, timeout, progress)

    def _wait_for(self, is_reached: Callable[[float], bool], timeout: float | None, progress: Progress) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        watch = watcher(progress)
        try:
            while True:
                left = _WAIT_SLICE if deadline is None else min(_WAIT_SLICE, max(0.0, deadline - time.monotonic()))
                # In slices, so that Ctrl-C gets its turn.
                if is_reached(left):
                    return True
                if deadline is not None and time.monotonic() >= deadline:
                    return False
                if watch is not None:
                    watch(self.status())
        finally:
            if watch is not None:
                watch(None)

    def status(self) -> Status:
        """What is staged and what is durable. Without a staging tier everything is durable."""
        handle = self._handle
        if handle is None:
            raise ClosedError(f"the repository at {self._url!r} cannot be used: {self._closed}")
        return Status(*handle.status())

    def _warn(
        self, skipped: tuple[Skipped, ...], stubs: tuple[Skipped, ...], remote: tuple[RemoteSummary, ...]
    ) -> None:
        passing = [str(each) for each in remote if each.found != "alive" or each.is_passing]
        known, self._warned = self._warned, {*skipped, *stubs, *passing}
        for text in passing:
            if text not in known:
                hint = 'remote="pin" or remote="materialize" keeps more of them'
                warnings.warn(f"saved by reference: {text}; {hint}", RemoteReferenceWarning, stacklevel=4)
        for item in skipped:
            if item not in known:
                warnings.warn(f"not saved: {item}", SkippedVariableWarning, stacklevel=4)
        for item in stubs:
            if item not in known:
                warnings.warn(f"saved as a placeholder: {item}", SkippedVariableWarning, stacklevel=4)

    def checkout(
        self,
        version: int | str | None,
        namespace: dict[str, Any],
        *,
        force: bool = False,
        allow: Allow | None = None,
    ) -> Diff:
        """Makes a live namespace equal to a version, and returns what it changed there.

        Names whose objects equal the version's keep them, the others are bound to loaded objects, and names that the
        version lacks are deleted. A large array that only the namespace refers to stays the same object, too, if nothing but
        values of it differ: they are written into it. Everything is loaded before the first binding changes. If the namespace holds
        objects that the version last saved or checked out does not, ``UnsavedChangesError`` is raised, unless
        ``force=True``. The next ``save`` continues from this version.
        """
        if type(namespace) is not dict:
            raise UnsupportedError(f"a namespace is a dict of names, not a {type(namespace).__qualname__}")
        with self._turn:
            handle = self._usable()
            number = self._number(version)
            order = handle.names(number)
            lost, different, foreign, stored = self._compare(handle, namespace, number)
            if lost and not force:
                raise UnsavedChangesError(
                    f"checkout of version {number} would lose changes of {_listed(lost)}: "
                    "save first, or pass force=True"
                )
            unlike = set(different)
            patches = _in_place.alone_in(handle, namespace, stored)
            wanted = [name for name in order if name in unlike and name not in patches]
            # Functions are bound to the live namespace itself, so that they go on reading and writing its names.
            found = resolving(lambda: handle.load_only(number, wanted, namespace, allow, namespace, True), self, allow=allow)
            if found is None:
                # Classes or functions have to be made anew: whatever uses them must use the same new ones.
                wanted = closed_over_sharing(handle, number, wanted, order)
                found = resolving(lambda: handle.load_only(number, wanted, namespace, allow, namespace, False), self, allow=allow)
            loaded = dict(found or ())
            handle.set_base(self._ref, number)
            added = tuple(name for name in wanted if name not in namespace)
            changed = tuple(name for name in order if name in patches or (name in loaded and name in namespace))
            for name in foreign:
                del namespace[name]
            namespace.update(loaded)
            _chipmink.apply_patches(list(patches.values()))
        return Diff(added, tuple(foreign), changed)

    def _compare(self, handle: _chipmink.Handle, namespace: dict[str, Any], number: int) -> Comparison:
        base = handle.base(self._ref)
        if base is None:
            base = handle.newest(self._ref)
        scope = Saving(self._elsewhere.get("mode", "reference"), self, self._elsewhere, is_passive=True)
        walked = self._walk(scope, handle, namespace, None, "", "", "")
        try:
            return compare(walked, namespace, number, base)
        finally:
            walked.discard()

    def close(self) -> None:
        """Gives back what the repository holds. Closing again does nothing.

        With a staging tier it first waits until all that is staged is durable. If that fails it raises, and the repository
        is closed all the same; what is staged stays staged, for an agent or for whoever opens it with that staging tier next.
        """
        with self._turn:
            if self._handle is None:
                return
            try:
                self._finish()
            finally:
                handle, self._handle = self._handle, None
                handle.stop_staging()
                handle.close()

    def _finish(self) -> None:
        handle = self._handle
        if not self._staged or handle is None:
            return
        handle.raise_background_failure()
        self._wait_for(handle.wait_all_durable, None, self._progress)
        handle.raise_background_failure()
        self._all_durable = True

    def __enter__(self) -> Repository:
        self._usable()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self.closed else ""
        return f"<chipmink.Repository at {self._url!r}, ref {self._ref!r}{state}>"

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        # By place: comes back if the loading process has that repository open.
        return _rebuild.repository, (self._url,)

    def _usable(self) -> _chipmink.Handle:
        handle = self._handle
        if handle is None:
            raise ClosedError(f"the repository at {self._url!r} cannot be used: {self._closed}")
        if (damage := handle.take_damage()) is not None:
            raise DamagedError(damage)
        if self._staged:
            handle.raise_background_failure()
        return handle

    def _continue_from(self, version: int) -> None:
        """Makes a version the one on which the next save builds, as a checkout does."""
        with self._turn:
            self._usable().set_base(self._ref, version)

    def _recognise(self, spans: list[tuple[int, int, int, list[int], bool]]) -> int:
        """Takes memory of devices as known where it is stored in what the next save builds on; returns its bytes."""
        with self._turn:
            return self._usable().recognise(self._ref, spans) if spans else 0

    def _number(self, version: int | str | None) -> int:
        if isinstance(version, str):
            refs = self._usable().refs()
            number = refs.get(TAG + version, refs.get(version))
            if number is None:
                raise NotFoundError(f"the repository at {self._url!r} has no tag and no branch {version!r}")
            return number
        if version is not None:
            number = operator.index(version)
            if not 0 <= number < 1 << 64:
                raise NotFoundError(f"the repository at {self._url!r} has no version {number}")
            return number
        number = self._usable().newest(self._ref)
        if number is None:
            raise NotFoundError(f"ref {self._ref!r} of the repository at {self._url!r} has no version yet")
        return number

    def _abandon(self) -> None:
        # After a fork: the threads and locks are the parent's, so the native side must not even be dropped.
        self._turn = threading.RLock()
        if self._handle is not None:
            _registry.abandon(self._handle)
            self._handle = None
            self._closed = "it was opened by the process that this one was forked from; open it again with chipmink.open"


_memory_numbers = itertools.count(1)


def _url(place: str) -> str:
    if place == "memory://":
        # Each is another one.
        return f"memory://{next(_memory_numbers)}"
    if place.startswith(("s3://", "gs://", "az://")):
        # What follows may be secret.
        return place.partition("?")[0]
    return place if "://" in place else pathlib.Path(place).absolute().as_uri()


def _unsteady(names: tuple[str, ...]) -> str:
    return (
        f"{_listed(list(names))} went on changing meanwhile, so that parts of two states may be mixed: "
        "save while no other thread changes them"
    )


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
