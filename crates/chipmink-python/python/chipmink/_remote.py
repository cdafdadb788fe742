"""References to what lives elsewhere: objects of a cluster, frames of a session, anything that only a handle stands for.

A version holds a ``RemoteReference`` for each: what it is, where it lives, whose it is, how long it can be resolved, and
whether it was there when it was saved. A load asks the rule of its kind for the same object.

1. Nothing connects, starts or imports a library: a reference is resolved by what the process is connected to already.
2. Every question to a cluster has a limit of time, ten seconds unless ``time_limit`` says otherwise.
3. What cannot be resolved loads as a placeholder that says which object, whose, why, and what to do. It spoils nothing else.
4. A reference holds nothing: by itself it keeps no object of a cluster alive.

The name of ``make_reference`` and what its arguments mean are part of format version 1.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import importlib
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from chipmink._errors import RemoteObjectLost
from chipmink._markers import Stub, place_of

__all__ = [
    "LINE",
    "MODES",
    "Loading",
    "Patience",
    "RemoteReference",
    "RemoteSummary",
    "Saving",
    "current_load",
    "is_loading",
    "make_reference",
    "reference_from",
    "register_handle",
    "registered",
    "resolving",
    "saving",
    "saving_as",
    "swept",
    "time_limit",
    "within",
]

MODES = ("reference", "pin", "materialize")
TIMEOUT = 10.0
#: What the names of lines of versions begin with that hold nothing but values of others.
LINE = "remote/"

T = TypeVar("T")
Stored = tuple[str, str | bytes, str, str, str, str, bytes | None, str]


@dataclass(frozen=True)
class RemoteReference:
    """What a version knows of an object that lives elsewhere. All texts are for people to read, but for ``kind``."""

    kind: str
    """Which rule resolves it, such as ``ray.actor``."""
    identity: str | bytes
    """Which object: the identifier or name that it has where it lives."""
    place: Mapping[str, Any] = field(default_factory=dict)
    """Where it lives: library and version, address and session of the cluster, namespace."""
    owner: Mapping[str, Any] = field(default_factory=dict)
    """Who must live for it to live, if somebody must."""
    lasts: str = ""
    """How long it can be resolved, such as ``while the driver that made it runs``."""
    found: str = "alive"
    """What a look at it said when it was saved: ``alive``, or why it was not."""
    token: bytes | None = None
    """What the library makes it again of."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """More that helps to recognise it: class, name, options."""

    @property
    def type_name(self) -> str:
        """Module and name of the type of the object."""
        return str(self.details.get("type", self.kind))

    def stored(self) -> Stored:
        """The arguments of ``make_reference``."""
        return (
            self.kind,
            self.identity,
            _text(self.place),
            _text(self.owner),
            self.lasts,
            self.found,
            self.token,
            _text(self.details),
        )

    def __str__(self) -> str:
        identity = self.identity.hex() if isinstance(self.identity, bytes) else self.identity
        name = self.details.get("name") or self.details.get("class")
        called = f" ({name})" if name else ""
        place = ", ".join(f"{key} {value}" for key, value in self.place.items() if value and key != "library")
        owner = ", ".join(f"{key} {value}" for key, value in self.owner.items() if value and key != "worker")
        return f"the {self.kind} {identity}{called}" + (f" of {place}" if place else "") + (f", owned by {owner}" if owner else "")


def _text(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, sort_keys=True) if facts else ""


@functools.lru_cache(maxsize=4096)
def _facts(text: str) -> Mapping[str, Any]:
    found = json.loads(text) if text else {}
    if not isinstance(found, dict):
        raise ValueError(f"facts about a reference are not a mapping: {text[:80]!r}")
    return found


@dataclass(frozen=True)
class RemoteSummary:
    """References of one kind and one owner that a save has looked at."""

    kind: str
    count: int
    lasts: str
    """How long they can be resolved."""
    found: str
    """``alive``, or what is wrong with them."""
    is_passing: bool = False
    """Whether they end with this program, at the latest."""

    def __str__(self) -> str:
        if self.found != "alive":
            return f"{self.count} × {self.kind}: {self.found}"
        return f"{self.count} × {self.kind} can be resolved {self.lasts}"


# --- kinds -----------------------------------------------------------------------------------------------------------

Capture = Callable[[Any], RemoteReference | Stub]
Resolve = Callable[[RemoteReference], Any]

_resolvers: dict[str, Resolve] = {}
# Modules that bring the resolvers of the kinds that begin so.
_BUILT_IN = {"ray": "chipmink.ray._references", "spark": "chipmink.spark._references"}
# Kinds that begin so are not for others.
_RESERVED = frozenset({*_BUILT_IN, "dask"})


def register_handle(kind: str, type: type, capture: Capture, resolve: Resolve) -> None:
    """Makes objects of exactly ``type``, which stand for something elsewhere, be saved as references of a kind.

    ``capture(obj)`` returns a ``RemoteReference`` of that kind, or a ``Stub`` that says why there is none; it is called at each
    save that looks at the object, and should say the same as long as nothing has changed. ``resolve(reference)`` returns the
    object for which the reference stands, or raises ``RemoteObjectLost`` with why not and what to do: then a placeholder is
    loaded that says so. Both run under the limit of time of ``time_limit``, and in another thread. ``kind`` is stored: register it
    under the same name in every program that loads such versions. It has the form ``library.what``.
    """
    from chipmink import _reducers

    library, _, what = kind.partition(".") if isinstance(kind, str) else ("", "", "")
    if not library or not what or library in _RESERVED:
        raise ValueError(f"a kind has a name of its own, such as 'mylibrary.session', not {kind!r}")
    if not callable(capture) or not callable(resolve):
        raise TypeError(f"the rules of {kind!r} are two functions")

    def reduce(obj: Any) -> Any:
        scope = saving()
        try:
            found = within(scope.seconds, capture, obj)
        except TimeoutError as error:
            return Stub("remote", ".".join(place_of(type)), f"it did not say what it stands for: {error}")
        if isinstance(found, Stub):
            return found
        if not isinstance(found, RemoteReference) or found.kind != kind:
            raise TypeError(f"capture of {kind!r} returned {found!r}, not a RemoteReference of that kind, nor a Stub")
        scope.note(found.kind, found.lasts, found.found)
        return make_reference, found.stored()

    _resolvers[kind] = resolve
    _reducers.register(type, reduce)


def registered(kind: str) -> Resolve | None:
    """The function that resolves references of a kind; a library's own module is imported, the library is not."""
    found = _resolvers.get(kind)
    if found is None and (module := _BUILT_IN.get(kind.partition(".")[0])) is not None:
        found = importlib.import_module(module).RESOLVERS.get(kind)
    return found


# --- one save --------------------------------------------------------------------------------------------------------


def _loaded(library: str) -> Any:
    # The module of ours, if the library itself is in use.
    return importlib.import_module(f"chipmink.{library}._cluster") if library in sys.modules else None


class Saving:
    """What the rules of references know of the save that asks them, and what they tell it."""

    def __init__(
        self,
        mode: str = "reference",
        repository: Any = None,
        kept: dict[str, Any] | None = None,
        is_passive: bool = False,
        watch: Callable[[str, int, int], None] | None = None,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"what lives elsewhere is saved by {', '.join(map(repr, MODES))}, not by {mode!r}")
        self.mode = mode
        self.repository = repository
        # Of the libraries: what they have kept of elsewhere for the repository object, over all of its saves.
        self.kept: dict[str, Any] = {} if kept is None else kept
        # Nothing is done elsewhere for this walk.
        self.is_passive = is_passive or repository is None
        self._watch = watch
        # What was tried for this save in vain, by library and key.
        self.failed: dict[tuple[str, Any], str] = {}
        # By library: what must be done before it can be saved, by key.
        self.pending: dict[str, dict[Any, Any]] = {}
        self.seconds = _limit.get()
        # Of the libraries: what they have found out, good for this save.
        self.facts: dict[Any, Any] = {}
        self._counts: dict[tuple[str, str, str, bool], int] = {}

    @property
    def epoch(self) -> int:
        """A number for the mode, and for what its libraries are connected to."""
        ray = _loaded("ray")
        where = "" if ray is None else ray.epoch(self)
        text = f"{self.mode} {self.kept.get('generation', 0)} {where}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")

    def later(self, library: str, key: Any, obj: Any) -> None:
        """Something has to be done for an object before it can be saved as this save wants; it is asked for again after that."""
        self.pending.setdefault(library, {})[key] = obj

    def settle(self) -> bool:
        """Does what has to be done. Returns whether there was anything: then what was walked must be walked again."""
        pending, self.pending = self.pending, {}
        for library, objects in pending.items():
            importlib.import_module(f"chipmink.{library}._settle").settle(self, objects)
        if pending:
            self._answers_changed()
            self._counts.clear()
        return bool(pending)

    def tell(self, phase: str, done: int, total: int) -> None:
        """Says how far what is done elsewhere is, to who wants to know."""
        if self._watch is not None:
            self._watch(phase, done, total)

    def end(self) -> None:
        """The save is done; what failed is tried again by the next one."""
        self.kept["mode"] = self.mode
        if self.failed:
            self._answers_changed()

    def _answers_changed(self) -> None:
        self.kept["generation"] = self.kept.get("generation", 0) + 1

    def note(self, kind: str, lasts: str, found: str, is_passing: bool = False) -> None:
        """Counts a reference; a passing one ends with this program."""
        key = (kind, lasts, found, is_passing)
        self._counts[key] = self._counts.get(key, 0) + 1

    def summaries(self) -> tuple[RemoteSummary, ...]:
        """What was counted."""
        return tuple(RemoteSummary(key[0], count, *key[1:]) for key, count in self._counts.items())


class Loading:
    """What the resolvers know of the load that asks them."""

    def __init__(self, repository: Any = None, as_refs: bool = False, as_pandas: bool = False, allow: Any = None) -> None:
        self.seconds = _limit.get()
        # The one that is loaded from, if it is one.
        self.repository = repository
        # Values that were saved for references go back to where these would be.
        self.as_refs = as_refs
        self.as_pandas = as_pandas
        # What the load may import and call holds for values that lie elsewhere in the repository, too.
        self.allow = allow
        self.facts: dict[Any, Any] = {}
        # What was made and may yet prove to be lost, by kind and identity.
        self.unsure: dict[tuple[str, str | bytes], Any] = {}
        # What did, and why.
        self.lost: dict[tuple[str, str | bytes], str] = {}
        self.checks: dict[str, Callable[[Loading, dict[tuple[str, str | bytes], Any]], None]] = {}

    def is_settled(self) -> bool:
        """Looks at what was made, all at once; whether none of it is lost."""
        before, unsure = len(self.lost), self.unsure
        self.unsure = {}
        for kind, check in self.checks.items():
            check(self, {key: made for key, made in unsure.items() if key[0] == kind})
        return len(self.lost) == before


class _Scopes(threading.local):
    saving: Saving | None = None
    loading: Loading | None = None


_scopes = _Scopes()
# Of a context and not of a thread: what is saved or loaded in a thread beside an event loop keeps to the limit of its task.
_limit: contextvars.ContextVar[float] = contextvars.ContextVar("chipmink_time_limit", default=TIMEOUT)


def saving() -> Saving:
    """The save that this thread is at; outside of one, a new one by reference."""
    return _scopes.saving or Saving()


@contextlib.contextmanager
def saving_as(scope: Saving) -> Iterator[Saving]:
    """Makes ``scope`` what ``saving`` returns in this thread."""
    before, _scopes.saving = _scopes.saving, scope
    try:
        yield scope
    finally:
        _scopes.saving = before


def resolving(
    load: Callable[[], T], repository: Any = None, as_refs: bool = False, as_pandas: bool = False, allow: Any = None
) -> T:
    """What ``load`` returns: one load, for all of whose references holds what the resolvers find out.

    References are looked at together when all are made; if some prove to be lost, all is loaded again with placeholders for
    them.
    """
    before = _scopes.loading
    if before is not None:
        as_refs, as_pandas = as_refs or before.as_refs, as_pandas or before.as_pandas
    scope = Loading(repository, as_refs, as_pandas, allow)
    _scopes.loading = scope
    try:
        while True:
            made = load()
            if scope.is_settled():
                return made
    finally:
        _scopes.loading = before


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Within it, saves and loads of this thread or task give a cluster so long to answer each question."""
    if not seconds > 0:
        raise ValueError(f"a limit of time is longer than none, not {seconds!r}")
    token = _limit.set(float(seconds))
    try:
        yield
    finally:
        _limit.reset(token)


def within(seconds: float, call: Callable[..., T], *arguments: Any) -> T:
    """What ``call`` returns or raises; ``TimeoutError`` if that takes longer. Then its thread is left to itself."""
    done: list[tuple[bool, Any]] = []

    def run() -> None:
        try:
            done.append((True, call(*arguments)))
        except BaseException as error:
            done.append((False, error))

    thread = threading.Thread(target=run, name="chipmink-remote", daemon=True)
    thread.start()
    thread.join(seconds)
    if not done:
        raise TimeoutError(f"no answer within {seconds:g} seconds")
    is_result, value = done[0]
    if not is_result:
        raise value
    result: T = value
    return result


class Patience:
    """How long one cluster or session is waited for: the limit of time, and a tenth of it once it kept silent twice running.

    Many objects live in one place; if that is gone, a load of all of them does not wait for each.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._silences = 0

    def ask(self, call: Callable[..., T], *arguments: Any) -> T:
        """As ``within``."""
        is_silent = self._silences >= 2
        try:
            found = within(self.seconds / 10 if is_silent else self.seconds, call, *arguments)
        except TimeoutError:
            self._silences += 1
            raise
        except BaseException:
            self._silences = 0
            raise
        self._silences = 0
        return found


def swept(repository: Any, grace: float) -> int:
    """Lets go of what is kept elsewhere for versions that are no longer there; returns how much that was."""
    released = 0
    # What Ray keeps is in a cluster, or on lines that its module knows; what Spark has written lies in the repository's folder.
    for library in ("ray", "spark"):
        released += importlib.import_module(f"chipmink.{library}._settle").release_unnamed(repository, grace)
    return released


# --- one load --------------------------------------------------------------------------------------------------------


def make_reference(
    kind: str,
    identity: str | bytes,
    place: str,
    owner: str,
    lasts: str,
    found: str,
    token: bytes | None,
    details: str,
) -> Any:
    """The object for which a reference stands, or a placeholder. ``place``, ``owner`` and ``details`` are JSON."""
    from chipmink._lost import LostReference

    reference = reference_from(kind, identity, place, owner, lasts, found, token, details)
    if _scopes.loading is None:
        return resolving(lambda: _resolve(reference, LostReference))
    return _resolve(reference, LostReference)


def reference_from(
    kind: str,
    identity: str | bytes,
    place: str,
    owner: str,
    lasts: str,
    found: str,
    token: bytes | None,
    details: str,
) -> RemoteReference:
    """The reference that has these arguments of ``make_reference``."""
    return RemoteReference(kind, identity, _facts(place), _facts(owner), lasts, found, token, _facts(details))


def _resolve(reference: RemoteReference, lost: Callable[[RemoteReference, str], Any]) -> Any:
    try:
        resolver = registered(reference.kind)
        if resolver is None:
            return lost(reference, f"nothing here resolves {reference.kind!r}: import what registers it, and load again")
        if reference.kind in _resolvers:
            return within(current_load().seconds, resolver, reference)
        # Those of our own keep to the limit themselves.
        return resolver(reference)
    except RemoteObjectLost as error:
        return lost(reference, str(error))
    except TimeoutError as error:
        return lost(reference, f"it could not be looked at: {error}; see that the cluster answers, and load again")
    except Exception as error:
        return lost(reference, f"it cannot be made again: {type(error).__name__}: {error}")


def is_loading() -> bool:
    """Whether this thread is at a load."""
    return _scopes.loading is not None


def current_load() -> Loading:
    """The load that this thread is at."""
    scope = _scopes.loading
    if scope is None:
        raise AssertionError("references are resolved within a load")
    return scope
