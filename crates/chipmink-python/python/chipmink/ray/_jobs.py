"""Saving the values of what lives in a cluster, where they are.

1. Processes of the cluster, on the nodes where the objects are, save them to the repository's place; nothing of them passes through
   the program that saves. A process has one batch of objects at a time, and a node two processes. Actors save themselves.
2. What they save is a version on a line of its own, ``remote/TOKEN``, and the reference that stands in the program's version
   names line and variable. A sweep takes lines away that no version names.
3. A process that dies is replaced, and its batch saved again.
4. What is saved may hold references, which are saved by value before it. Each such level has half of the time of the one that
   waits for it, and an actor that waits for itself is saved by reference there.
"""

from __future__ import annotations

import abc
import importlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from chipmink import _remote
from chipmink._errors import UnsupportedError
from chipmink._remote import LINE
from chipmink.ray._cluster import Cluster
from chipmink.ray._values import KEPT, make_actor_value, make_instance, make_value

__all__ = ["save"]

#: What one process saves at once.
_BATCH_BYTES = 128 << 20
_BATCH_OBJECTS = 1000
#: Processes that save at the same time on a node.
_PER_NODE = 2
#: Actors that save themselves at the same time.
_ACTORS = 16
#: How often a batch is begun again when its process or node dies.
_RETRIES = 3
#: Bytes that a process is trusted to save in a second, at the least.
_RATE = 5e6
#: Seconds that a process may take to start.
_START = 30.0

Answers = dict[Any, tuple[Any, ...] | str]


@dataclass(frozen=True)
class _Chain:
    """What waits for the save of this thread: it is the save of a value that holds references."""

    actors: frozenset[bytes] = frozenset()
    """Those that are saving themselves."""
    depth: int = 0


class _Chains(threading.local):
    chain: _Chain = _Chain()


_chains = _Chains()


def save(
    repository: Any, cluster: Cluster, objects: dict[Any, Any], tell: Callable[[int, int], None] = lambda done, total: None
) -> Answers:
    """Saves the values of objects; for each the reduce value that stands for it, or why there is none.

    ``tell`` is called with the bytes of objects that are saved, and of all.
    """
    place = _shared_place(repository)
    chain = _chains.chain
    # An actor that is at a call, which this is, takes no other.
    own = cluster.core.get_actor_id().binary()
    chain = _Chain(chain.actors | {own}, chain.depth)
    answers: Answers = {}
    waiting: dict[str | None, list[_Job]] = {}
    total = done_bytes = 0
    for job in _jobs(cluster, objects):
        if isinstance(job, _Actor) and job.key[1] in chain.actors:
            answers[job.key] = "it waits for this save, so it cannot save itself now"
            continue
        waiting.setdefault(job.group, []).append(job)
        total += job.byte_len
    running: dict[Any, tuple[_Job, str, float]] = {}
    try:
        while waiting or running:
            tell(done_bytes, total)
            for group, jobs in list(waiting.items()):
                room = jobs[0].at_once - sum(job.group == group for job, *_ in running.values())
                for job in jobs[: max(room, 0)]:
                    line = LINE + secrets.token_hex(16)
                    limit = time.monotonic() + job.seconds(cluster) / 2**chain.depth
                    try:
                        running[job.start(cluster, place, line, chain)] = (job, line, limit)
                    except Exception as error:
                        answers.update(job.failed(_described(error)))
                waiting[group] = jobs[max(room, 0) :]
                if not waiting[group]:
                    del waiting[group]
            done = cluster.ray.wait(list(running), num_returns=1, timeout=1.0)[0] if running else []
            late = [task for task, (*_, limit) in running.items() if time.monotonic() > limit and task not in done]
            for task in [*done, *late]:
                job, line, _ = running.pop(task)
                answers.update(job.answers(cluster, task, line))
                done_bytes += job.byte_len
        tell(done_bytes, total)
    finally:
        # Who gives up wants nothing more of them; what they have saved goes with the next sweep.
        for task, (job, *_) in running.items():
            job.cancel(cluster, task)
    return answers


class _Job(abc.ABC):
    """What one call in the cluster saves."""

    byte_len: int
    at_once: int
    """So many of a group run at the same time."""

    @property
    @abc.abstractmethod
    def group(self) -> str | None: ...

    @abc.abstractmethod
    def seconds(self, cluster: Cluster) -> float:
        """How long it may take."""

    @abc.abstractmethod
    def start(self, cluster: Cluster, place: tuple[str, dict[str, Any]], line: str, chain: _Chain) -> Any:
        """Begins the call that saves it to a line."""

    @abc.abstractmethod
    def cancel(self, cluster: Cluster, task: Any) -> None:
        """Ends the call."""

    @abc.abstractmethod
    def done(self, cluster: Cluster, said: Any, line: str) -> Answers:
        """What the call said."""

    @abc.abstractmethod
    def failed(self, reason: str) -> Answers:
        """It said nothing."""

    def answers(self, cluster: Cluster, task: Any, line: str) -> Answers:
        """What came of the call, which has ended or is given up."""
        try:
            said = cluster.ray.get(task, timeout=1.0)
        except Exception as error:
            self.cancel(cluster, task)
            return self.failed(_described(error))
        return self.done(cluster, said, line)


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"


@dataclass
class _Batch(_Job):
    """Objects that one process saves."""

    node: str | None
    """Where they are, if that is known."""
    objects: dict[bytes, Any]
    byte_len: int
    at_once = _PER_NODE

    @property
    def group(self) -> str | None:
        return self.node

    def seconds(self, cluster: Cluster) -> float:
        return (_RETRIES + 1) * (cluster.seconds + _START + self.byte_len / _RATE)

    def start(self, cluster: Cluster, place: tuple[str, dict[str, Any]], line: str, chain: _Chain) -> Any:
        options: dict[str, Any] = {"num_cpus": 0, "max_retries": _RETRIES, "name": "chipmink.save"}
        if self.node is not None:
            strategies = importlib.import_module("ray.util.scheduling_strategies")
            options["scheduling_strategy"] = strategies.NodeAffinitySchedulingStrategy(self.node, soft=True)
        # In a list of their own they are not fetched before the task runs.
        given = [(key.hex(), [ref]) for key, ref in self.objects.items()]
        patience = cluster.seconds + self.byte_len / _RATE
        task = cluster.ray.remote(_save_values).options(**options)
        return task.remote(place, line, given, cluster.seconds, patience, chain)

    def cancel(self, cluster: Cluster, task: Any) -> None:
        cluster.ray.cancel(task, force=True)

    def done(self, cluster: Cluster, said: dict[str, str], line: str) -> Answers:
        found: Answers = {}
        for key in self.objects:
            reason = said.get(key.hex())
            found[key] = (make_value, _stored("ray.object", key, cluster, line, _OBJECT)) if reason is None else reason
        return found

    def failed(self, reason: str) -> Answers:
        return dict.fromkeys(self.objects, reason)


@dataclass
class _Actor(_Job):
    """An actor that saves itself."""

    key: tuple[str, bytes]
    handle: Any
    byte_len = 0
    at_once = _ACTORS

    @property
    def group(self) -> str | None:
        return "actors"

    def seconds(self, cluster: Cluster) -> float:
        return cluster.seconds + _START

    def start(self, cluster: Cluster, place: tuple[str, dict[str, Any]], line: str, chain: _Chain) -> Any:
        inner = _Chain(chain.actors | {self.key[1]}, chain.depth)
        return self.handle.__ray_call__.remote(_save_self, place, line, cluster.seconds, inner)

    def cancel(self, cluster: Cluster, task: Any) -> None:
        # If it has not begun, it need not.
        cluster.ray.cancel(task)

    def done(self, cluster: Cluster, said: str, line: str) -> Answers:
        details = {"type": "ray.actor.ActorHandle", "class": said}
        return {self.key: (make_actor_value, _stored("ray.actor", self.key[1], cluster, line, details))}

    def failed(self, reason: str) -> Answers:
        return {self.key: f"its actor did not save itself: {reason}"}


def _shared_place(repository: Any) -> tuple[str, dict[str, Any]]:
    url = repository.url
    if repository._staged or not url.startswith(("file://", "s3://", "gs://", "az://")):
        raise UnsupportedError(
            f'remote="materialize" needs a place that all nodes of the cluster reach, such as a bucket or a shared folder, '
            f"not {url!r}{' with a staging tier' if repository._staged else ''}"
        )
    return url, dict(repository._options)


def _jobs(cluster: Cluster, objects: dict[Any, Any]) -> Iterator[_Job]:
    yield from _batches(cluster, {key: ref for key, ref in objects.items() if isinstance(key, bytes)})
    yield from (_Actor(key, handle) for key, handle in objects.items() if not isinstance(key, bytes))


def _batches(cluster: Cluster, refs: dict[bytes, Any]) -> Iterator[_Batch]:
    """Objects that lie on one node, not too many at once."""
    places = cluster.core.get_local_object_locations(list(refs.values())) if refs else {}
    dead = cluster.ask(cluster.dead_nodes) if refs else frozenset()
    groups: dict[str | None, _Batch] = {}
    for key, ref in refs.items():
        found = places.get(ref) or {"node_ids": [], "object_size": 0}
        node = next((node for node in found["node_ids"] if node not in dead), None)
        size = found["object_size"] or 0
        batch = groups.setdefault(node, _Batch(node, {}, 0))
        if batch.objects and (batch.byte_len + size > _BATCH_BYTES or len(batch.objects) >= _BATCH_OBJECTS):
            yield batch
            batch = groups[node] = _Batch(node, {}, 0)
        batch.objects[key] = ref
        batch.byte_len += size
    yield from groups.values()


# --- in the cluster --------------------------------------------------------------------------------------------------


def _save_values(
    place: tuple[str, dict[str, Any]], line: str, given: list[tuple[str, list[Any]]], seconds: float, patience: float, chain: _Chain
) -> dict[str, str]:
    """Runs in a process of the cluster: saves a batch, and returns why objects are not in it."""
    ray = importlib.import_module("ray")
    failed: dict[str, str] = {}
    values: dict[str, Any] = {}
    for key, (ref,) in given:
        try:
            values[key] = ray.get(ref, timeout=patience)
        except Exception as error:
            failed[key] = _described(error)
    return {**failed, **_save_to_line(place, line, values, seconds, chain)}


def _save_to_line(
    place: tuple[str, dict[str, Any]], line: str, values: dict[str, Any], seconds: float, chain: _Chain
) -> dict[str, str]:
    import warnings

    import chipmink

    if not values:
        return {}
    url, options = place
    before, _chains.chain = _chains.chain, _Chain(chain.actors, chain.depth + 1)
    try:
        with warnings.catch_warnings(), _remote.time_limit(seconds):
            warnings.simplefilter("ignore")
            with chipmink.open(url, ref=line, **options) as repository:
                saved = repository.save(values, message="values of a cluster", remote="materialize")
    finally:
        _chains.chain = before
    return {skipped.variable: skipped.reason for skipped in saved.report.skipped}


_OBJECT = {"type": "ray.ObjectRef"}


def _stored(kind: str, key: bytes, cluster: Cluster, line: str, details: dict[str, Any]) -> tuple[Any, ...]:
    return kind, key, cluster.place_text, "", KEPT, "alive", line.encode(), json.dumps(details, sort_keys=True)


def _save_self(actor: Any, place: tuple[str, dict[str, Any]], line: str, seconds: float, chain: _Chain) -> str:
    """Runs in an actor: saves an instance of its class with its state."""
    kind = getattr(type(actor), "__ray_actor_class__", type(actor))
    failed = _save_to_line(place, line, {"actor": _Twin(kind, actor)}, seconds, chain)
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
