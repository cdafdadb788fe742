"""Values of what lives in a cluster, saved where they are.

1. Processes of the cluster, on the nodes where the objects are, save them to the repository's place; nothing of them passes through
   the program that saves. A process has one batch of objects at a time, and a node two processes.
2. What they save is a version on a line of its own, ``remote/TOKEN``, and the reference that stands in the program's version
   names line and variable. A sweep takes lines away that no version names.
3. A process that dies is replaced, and its batch saved again.

The names of the ``make_`` functions are part of format version 1.
"""

from __future__ import annotations

import importlib
import itertools
import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from chipmink import _remote
from chipmink._errors import ChipminkError, NotFoundError, RemoteObjectLost, UnsupportedError
from chipmink._remote import LINE
from chipmink.ray._cluster import Cluster

__all__ = ["make_actor_value", "make_instance", "make_value", "release", "save"]

#: What one process saves at once.
_BATCH_BYTES = 128 << 20
_BATCH_OBJECTS = 1000
#: Processes that save at the same time on a node.
_PER_NODE = 2
#: How often a batch is begun again when its process or node dies.
_RETRIES = 3
#: Bytes that a process is trusted to save in a second, at the least.
_RATE = 5e6

KEPT = "from the repository, which has its value"


def save(
    repository: Any, cluster: Cluster, objects: dict[Any, Any], tell: Callable[[int, int], None] = lambda done, total: None
) -> dict[Any, tuple[Any, ...] | str]:
    """Saves the values of objects; for each the reduce value that stands for it, or why there is none.

    ``tell`` is called with the bytes of objects that are saved, and of all.
    """
    place = _shared_place(repository)
    answers: dict[Any, tuple[Any, ...] | str] = {}
    refs = {key: obj for key, obj in objects.items() if isinstance(key, bytes)}
    waiting: dict[str | None, list[_Batch]] = {}
    total = done_bytes = 0
    for batch in _batches(cluster, refs):
        waiting.setdefault(batch.node, []).append(batch)
        total += batch.byte_len
    running: dict[Any, tuple[_Batch, str, float]] = {}
    try:
        while waiting or running:
            tell(done_bytes, total)
            for node, batches in list(waiting.items()):
                if sum(batch.node == node for batch, *_ in running.values()) < _PER_NODE:
                    batch = batches.pop(0)
                    line = LINE + secrets.token_hex(16)
                    running[_start(cluster, place, line, batch)] = (batch, line, time.monotonic() + _limit(cluster, batch))
                if not batches:
                    del waiting[node]
            done, _ = cluster.ray.wait(list(running), num_returns=1, timeout=1.0)
            late = [task for task, (*_, limit) in running.items() if time.monotonic() > limit and task not in done]
            for task in [*done, *late]:
                batch, line, _ = running.pop(task)
                answers.update(_answers(cluster, task, line, batch.objects))
                done_bytes += batch.byte_len
        tell(done_bytes, total)
    finally:
        # Who gives up wants nothing more of them; what they have saved goes with the next sweep.
        for task in running:
            cluster.ray.cancel(task, force=True)
    for key, handle in objects.items():
        if key not in refs:
            answers[key] = _save_actor(cluster, place, key, handle)
    return answers


@dataclass
class _Batch:
    """Objects that one process saves."""

    node: str | None
    """Where they are, if that is known."""
    objects: dict[bytes, Any]
    byte_len: int


def _shared_place(repository: Any) -> tuple[str, dict[str, Any]]:
    url = repository.url
    if repository._staged or not url.startswith(("file://", "s3://", "gs://", "az://")):
        raise UnsupportedError(
            f'remote="materialize" needs a place that all nodes of the cluster reach, such as a bucket or a shared folder, '
            f"not {url!r}{' with a staging tier' if repository._staged else ''}"
        )
    return url, dict(repository._options)


def _batches(cluster: Cluster, refs: dict[bytes, Any]) -> Iterator[_Batch]:
    """Objects that lie on one node, not too many at once."""
    places = cluster.core.get_local_object_locations(list(refs.values())) if refs else {}
    groups: dict[str | None, _Batch] = {}
    for key, ref in refs.items():
        found = places.get(ref) or {"node_ids": [], "object_size": 0}
        node = next((node for node in found["node_ids"] if node not in cluster.dead_nodes()), None)
        size = found["object_size"] or 0
        batch = groups.setdefault(node, _Batch(node, {}, 0))
        if batch.objects and (batch.byte_len + size > _BATCH_BYTES or len(batch.objects) >= _BATCH_OBJECTS):
            yield batch
            batch = groups[node] = _Batch(node, {}, 0)
        batch.objects[key] = ref
        batch.byte_len += size
    yield from groups.values()


def _limit(cluster: Cluster, batch: _Batch) -> float:
    return (_RETRIES + 1) * (cluster.seconds + _START + batch.byte_len / _RATE)


#: Seconds that a process may take to start.
_START = 30.0


def _start(cluster: Cluster, place: tuple[str, dict[str, Any]], line: str, batch: _Batch) -> Any:
    options: dict[str, Any] = {"num_cpus": 0, "max_retries": _RETRIES, "name": "chipmink.save"}
    if batch.node is not None:
        strategies = importlib.import_module("ray.util.scheduling_strategies")
        options["scheduling_strategy"] = strategies.NodeAffinitySchedulingStrategy(batch.node, soft=True)
    # In a list of their own they are not fetched before the task runs.
    given = [(key.hex(), [ref]) for key, ref in batch.objects.items()]
    return cluster.ray.remote(_save_values).options(**options).remote(place, line, given, cluster.seconds)


def _save_values(
    place: tuple[str, dict[str, Any]], line: str, given: list[tuple[str, list[Any]]], seconds: float
) -> dict[str, str]:
    """Runs in a process of the cluster: saves a batch, and returns why objects are not in it."""
    ray = importlib.import_module("ray")
    failed: dict[str, str] = {}
    values: dict[str, Any] = {}
    for key, (ref,) in given:
        try:
            values[key] = ray.get(ref, timeout=seconds)
        except Exception as error:
            failed[key] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
    return {**failed, **_save_to_line(place, line, values)}


def _save_to_line(place: tuple[str, dict[str, Any]], line: str, values: dict[str, Any]) -> dict[str, str]:
    import warnings

    import chipmink

    if not values:
        return {}
    url, options = place
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with chipmink.open(url, ref=line, track_pages=False, **options) as repository:
            saved = repository.save(values, message="values of a cluster", remote="materialize")
    return {skipped.variable: skipped.reason for skipped in saved.report.skipped}


def _answers(cluster: Cluster, task: Any, line: str, batch: dict[bytes, Any]) -> dict[bytes, tuple[Any, ...] | str]:
    try:
        failed = cluster.ray.get(task, timeout=1.0)
    except Exception as error:
        cluster.ray.cancel(task, force=True)
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
        return dict.fromkeys(batch, reason)
    found: dict[bytes, tuple[Any, ...] | str] = {}
    for key in batch:
        reason = failed.get(key.hex())
        found[key] = (make_value, _stored("ray.object", key, cluster, line, _OBJECT)) if reason is None else reason
    return found


_OBJECT = {"type": "ray.ObjectRef"}


def _stored(kind: str, key: bytes, cluster: Cluster, line: str, details: dict[str, Any]) -> tuple[Any, ...]:
    return kind, key, cluster.place_text, "", KEPT, "alive", line.encode(), json.dumps(details, sort_keys=True)


# --- actors ----------------------------------------------------------------------------------------------------------


def _save_actor(cluster: Cluster, place: tuple[str, dict[str, Any]], key: tuple[str, bytes], handle: Any) -> tuple[Any, ...] | str:
    line = LINE + secrets.token_hex(16)
    limit = cluster.seconds + _START
    try:
        call = handle.__ray_call__.remote(_save_self, place, line)
        class_name = cluster.ray.get(call, timeout=limit)
    except Exception as error:
        return f"its actor did not save itself: {type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
    details = {"type": "ray.actor.ActorHandle", "class": class_name}
    return make_actor_value, _stored("ray.actor", key[1], cluster, line, details)


def _save_self(actor: Any, place: tuple[str, dict[str, Any]], line: str) -> str:
    """Runs in an actor: saves an instance of its class with its state."""
    from chipmink.ray import _values

    kind = getattr(type(actor), "__ray_actor_class__", type(actor))
    failed = _values._save_to_line(place, line, {"actor": _values._Twin(kind, actor)})
    if failed:
        raise TypeError(failed["actor"])
    return str(kind.__name__)


class _Twin:
    """Saved as an instance of the class that a program has made actors of, with the state of one."""

    def __init__(self, kind: type, actor: Any) -> None:
        self.kind = kind
        self.actor = actor

    def __reduce__(self) -> tuple[Any, ...]:
        state = self.actor.__getstate__()
        return (make_instance, (self.kind,)) if state is None else (make_instance, (self.kind,), state)


def make_instance(kind: type) -> Any:
    """Makes an instance that has no state yet."""
    make: Any = kind.__new__
    return make(kind)


# --- loading ---------------------------------------------------------------------------------------------------------


def _value(reference: _remote.RemoteReference, name: str) -> Any:
    """The value that stands on the line of a reference."""
    scope = _remote.current_load()
    line = (reference.token or b"").decode()
    if scope.repository is None:
        raise RemoteObjectLost("its value is in a repository: load the version from there")
    views = scope.facts.setdefault("ray.lines", {})
    try:
        if line not in views:
            views[line] = scope.repository.at(line)
        return views[line][name]
    except NotFoundError as error:
        raise RemoteObjectLost(f"its value stood on the line {line!r}, which is not here: push or pull it, too ({error})") from None


def _made(make: Any, arguments: tuple[Any, ...], bring: Any) -> Any:
    from chipmink._lost import LostReference

    reference = _remote.reference_from(*arguments)
    try:
        return bring(reference)
    except RemoteObjectLost as error:
        reason = str(error)
    except ChipminkError:
        raise
    except Exception as error:
        # It needs a library that is not here, say.
        reason = f"its value cannot be made again: {type(error).__name__}: {error}; see to that, and load again"
    return LostReference(reference, reason, (make, arguments))


def make_value(*arguments: Any) -> Any:
    """The value of an object; with ``as_refs`` a reference to it, put into the cluster again."""

    def bring(reference: _remote.RemoteReference) -> Any:
        identity = reference.identity
        value = _value(reference, identity.hex() if isinstance(identity, bytes) else identity)
        return _connected_ray().put(value) if _remote.current_load().as_refs else value

    return _made(make_value, arguments, bring)


def make_actor_value(*arguments: Any) -> Any:
    """An instance of an actor's class with its state; with ``as_refs`` a new actor with that state."""

    def bring(reference: _remote.RemoteReference) -> Any:
        instance = _value(reference, "actor")
        if not _remote.current_load().as_refs:
            return instance
        ray = _connected_ray()
        kind = type(instance)
        revived = type(kind.__name__, (kind,), {"__init__": _take_state, "__module__": kind.__module__})
        return ray.remote(revived).remote([instance])

    return _made(make_actor_value, arguments, bring)


def _take_state(self: Any, given: list[Any]) -> None:
    (instance,) = given
    state = instance.__getstate__()
    if hasattr(self, "__setstate__"):
        self.__setstate__(state)
        return
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    for name, value in itertools.chain((attributes or {}).items(), (slots or {}).items()):
        setattr(self, name, value)


def _connected_ray() -> Any:
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        raise RemoteObjectLost("as_refs puts values into a cluster, and this process is connected to none: call ray.init(address=...) first")
    return ray


# --- sweeping --------------------------------------------------------------------------------------------------------


def release(repository: Any, grace: float) -> int:
    """Takes lines away that no version names, and that are older than ``grace`` seconds."""
    handle = repository._usable()
    lines = {name: number for name, number in handle.refs().items() if name.startswith(LINE)}
    if not lines:
        return 0
    versions = repository._versions(None)
    saved_at = {version.number: version.saved_at.timestamp() for version in versions}
    reached = [version.number for version in versions if not version.ref.startswith(LINE)]
    left = dict(lines)
    while reached and left:
        named = handle.mentioned(reached, [name.encode() for name in left])
        # Values may hold references themselves.
        reached = [left[name] for name, is_named in zip(list(left), named, strict=True) if is_named]
        left = {name: number for name, number in left.items() if number not in reached}
    old = [name for name, number in left.items() if saved_at.get(number, 0) <= time.time() - grace]
    for name in old:
        handle.delete_ref(name)
    return len(old)
