"""What a process knows of the Ray cluster that it is connected to, and what it asks it.

1. Nothing connects to a cluster or starts one. ``ray`` is looked up among the imported modules, never imported.
2. What is asked of the cluster goes through ``_remote.Patience`` or ``_remote.within``: an answer may never come.
3. Answers hold for one save or load, since they are kept in its scope; what never changes of a process is kept for good.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from chipmink import _remote
from chipmink._errors import RemoteObjectLost

__all__ = ["Cluster", "Owner", "connected", "epoch", "not_connected", "same_cluster"]

T = TypeVar("T")

#: A driver's mode, from `ray._private.worker`.
_SCRIPT_MODE = 0


@dataclass(frozen=True)
class Owner:
    """The process that owns an object: with it the object is gone, whoever else holds it."""

    text: str
    """What is known of it, as JSON."""
    lasts: str
    found: str
    """``alive``, or why it is not."""
    is_passing: bool = False
    """Whether it is this program."""
    is_keeper: bool = False
    """Whether it is a keeper of ours."""


class Cluster:
    """The cluster that this process is connected to, as one save or load sees it."""

    def __init__(self, ray: Any, worker: Any, seconds: float) -> None:
        self.ray = ray
        self.worker = worker
        self.core = worker.core_worker
        self.seconds = seconds
        self.session = str(worker.node.session_name)
        self.address = str(worker.gcs_client.address)
        self._patience = _remote.Patience(seconds)
        self._owners: dict[bytes, Owner] = {}
        self._actors: dict[bytes, Any] | None = None
        self._dead_nodes: frozenset[str] | None = None

    @property
    def place(self) -> dict[str, str]:
        """Where things live that live here."""
        return {"library": f"ray {self.ray.__version__}", "cluster": self.address, "session": self.session}

    @property
    def place_text(self) -> str:
        """The same as JSON, one object for all references of a save."""
        found: str | None = self.__dict__.get("_place_text")
        if found is None:
            found = self.__dict__["_place_text"] = json.dumps(self.place, sort_keys=True)
        return found

    def ask(self, call: Callable[..., T], *arguments: Any) -> T:
        """What ``call`` returns, which asks the cluster; ``TimeoutError`` if that does not answer."""
        return self._patience.ask(call, *arguments)

    def states(self, addresses: list[bytes]) -> list[tuple[bytes, str]]:
        """Whether who has these addresses lives, asked in the time of one question; of whom nothing is known then it is "not known"."""

        def look() -> None:
            for address in addresses:
                if address not in self._owners:
                    with contextlib.suppress(Exception):
                        self._owners[address] = self._ask_owner(address)

        with contextlib.suppress(TimeoutError):
            self.ask(look)
        known = ((address, self._owners.get(address)) for address in addresses)
        return [(address, "not known" if owner is None else owner.found) for address, owner in known]

    def owner(self, address: bytes) -> Owner:
        """Who has this address."""
        found = self._owners.get(address)
        if found is None:
            try:
                found = self.ask(self._ask_owner, address)
            except Exception as error:
                text = json.dumps({"worker": self._parsed(address).worker_id.hex()})
                found = Owner(text, _LASTS["worker"], f"not known: {type(error).__name__}: {error}")
            self._owners[address] = found
        return found

    @staticmethod
    def _parsed(address: bytes) -> Any:
        return _messages("common").Address.FromString(address)

    def _ask_owner(self, address: bytes) -> Owner:
        parsed = self._parsed(address)
        facts = _owner_facts.get((self.session, address))
        is_own = parsed.worker_id == self.core.get_worker_id().binary()
        found = "alive"
        if facts is None and is_own and self.worker.mode == _SCRIPT_MODE:
            facts = {"role": "driver", "worker": parsed.worker_id.hex(), "pid": os.getpid()}
        if facts is None or not is_own:
            table = self._worker_table(parsed.worker_id)
            found = self._state_of(parsed, table)
            facts = facts or self._facts_of(parsed.worker_id, table)
        if facts["role"] != "process":
            _owner_facts[self.session, address] = facts
        lasts = _LASTS[facts["role"]].format(**facts)
        is_keeper = str(facts.get("actor", "")).startswith("chipmink/keeper-")
        return Owner(json.dumps(facts, sort_keys=True), lasts, found, is_own and facts["role"] == "driver", is_keeper)

    def _worker_table(self, worker_id: bytes) -> Any:
        found = self._accessor().get_worker_info(self.ray.WorkerID(worker_id))
        return None if found is None else _messages("gcs").WorkerTableData.FromString(found)

    def _state_of(self, address: Any, table: Any) -> str:
        if table is None:
            return "lost: the cluster knows no process of its owner's number any more"
        if not table.is_alive:
            return f"lost: its owner ended{_because(table.exit_detail)}"
        if address.node_id.hex() in self.dead_nodes():
            return f"lost: the node {address.node_id.hex()} of its owner is gone"
        return "alive"

    def _facts_of(self, worker_id: bytes, table: Any) -> dict[str, Any]:
        if table is not None and table.worker_type == 1:
            return {"role": "driver", "worker": worker_id.hex(), "pid": table.pid}
        actor = self.actors_by_worker().get(worker_id)
        if actor is not None:
            named = f"{actor.ray_namespace}/{actor.name}" if actor.name else actor.actor_id.hex()
            role = "detached actor" if actor.is_detached else "actor"
            return {"role": role, "worker": worker_id.hex(), "class": actor.class_name, "actor": named}
        return {"role": "worker" if table is not None else "process", "worker": worker_id.hex()}

    def actors_by_worker(self) -> dict[bytes, Any]:
        """What the cluster knows of its actors, by the process in which each lives."""
        if self._actors is None:
            read = _messages("gcs").ActorTableData.FromString
            table = [read(each) for each in self._accessor().get_actor_table(None, None)]
            self._actors = {each.address.worker_id: each for each in table if each.address.worker_id}
        return self._actors

    def forget_actors(self) -> None:
        """Looks actors up anew."""
        self._actors = None

    def actor(self, actor_id: Any) -> Any:
        """What the cluster knows of an actor; ``None`` if it has forgotten it."""
        found = self.ask(lambda: self._accessor().get_actor_info(actor_id))
        return None if found is None else _messages("gcs").ActorTableData.FromString(found)

    def placement_group(self, group_id: Any) -> Any:
        """What the cluster knows of a placement group; ``None`` if it has forgotten it."""
        found = self.ask(lambda: self._accessor().get_placement_group_info(group_id))
        return None if found is None else _messages("gcs").PlacementGroupTableData.FromString(found)

    def dead_nodes(self) -> frozenset[str]:
        """The nodes that are gone."""
        if self._dead_nodes is None:
            table = self._accessor().get_node_table()
            self._dead_nodes = frozenset(node["NodeID"] for node in table if not node["Alive"])
        return self._dead_nodes

    def failures(self, refs: list[Any]) -> dict[Any, str]:
        """Why objects are gone of which their owners have said so. What is being made yet is not gone.

        A reference that was just made asks its owner by itself. Ray's own batched question, `get_object_locations`, ends the
        process if an owner dies at the wrong moment.
        """
        ready, _ = self.ray.wait(refs, num_returns=len(refs), timeout=min(_PATIENCE, self.seconds / 2), fetch_local=False)
        known = self.core.get_local_object_locations(ready) if ready else {}
        # What would have to be fetched from another node is not looked into.
        near = [ref for ref in ready if not self._is_elsewhere(known.get(ref))]
        found: dict[Any, str] = {}
        deadline = time.monotonic() + self.seconds / 2
        try:
            states = self.core.get_objects(near, _MOMENT_MS) if near else []
        except Exception:
            states = [self._state_alone(ref, deadline) for ref in near]
        for ref, state in zip(near, states, strict=True):
            number = None if state is None else _error_number(state[1])
            if number is not None and number in self._losses():
                found[ref] = self._losses()[number]
        return found

    def _state_alone(self, ref: Any, deadline: float) -> Any:
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        try:
            return self.core.get_objects([ref], int(min(left, _PATIENCE) * 1000))[0]
        except Exception:
            # It takes long, so nobody has said that it is gone.
            return None

    def _is_elsewhere(self, place: dict[str, Any] | None) -> bool:
        nodes = () if place is None else [node for node in place["node_ids"] if node not in self.dead_nodes()]
        return bool(nodes) and self.core.get_current_node_id().hex() not in nodes

    @staticmethod
    def _losses() -> dict[int, str]:
        kinds = _messages("common").ErrorType.items()
        return {number: name.lower().replace("_", " ") for name, number in kinds if name in _LOSSES}

    def _accessor(self) -> Any:
        return self.ray._private.state.state._connect_and_get_accessor()


#: Errors that stand for an object that is gone, of Ray's `ErrorType`; the others are the outcomes of tasks.
_LOSSES = frozenset(
    {
        "OBJECT_LOST",
        "OBJECT_DELETED",
        "OBJECT_FREED",
        "OBJECT_FETCH_TIMED_OUT",
        "OWNER_DIED",
        "OBJECT_UNRECONSTRUCTABLE_MAX_ATTEMPTS_EXCEEDED",
        "OBJECT_UNRECONSTRUCTABLE_LINEAGE_EVICTED",
        "OBJECT_UNRECONSTRUCTABLE_PUT",
        "OBJECT_UNRECONSTRUCTABLE_RETRIES_DISABLED",
        "OBJECT_UNRECONSTRUCTABLE_BORROWED",
        "OBJECT_UNRECONSTRUCTABLE_REF_NOT_FOUND",
        "OBJECT_UNRECONSTRUCTABLE_TASK_CANCELLED",
        "OBJECT_UNRECONSTRUCTABLE_LINEAGE_DISABLED",
    }
)

#: Milliseconds for what lies in the memory of this process.
_MOMENT_MS = 50

#: Seconds that a load waits for objects that are nowhere: they are gone, being made, or being made again.
_PATIENCE = 1.0

_LASTS = {
    "driver": "while the driver that made it runs (process {pid})",
    "worker": "while the worker process that made it lives",
    "process": "while the process that made it lives",
    "actor": "while the actor {actor} lives, and the driver that made that",
    "detached actor": "while the detached actor {actor} lives",
}

# Of processes: what never changes of them, by their cluster and address.
_owner_facts: dict[tuple[str, bytes], dict[str, Any]] = {}


def _messages(name: str) -> Any:
    return importlib.import_module(f"ray.core.generated.{name}_pb2")


def _error_number(metadata: bytes | None) -> int | None:
    """The number of the error that an object is, if it is one."""
    kind = (metadata or b"").partition(b",")[0]
    return int(kind) if kind.isdigit() else None


def _because(detail: str) -> str:
    line = detail.strip().partition("\n")[0]
    return f" ({line})" if line else ""


def connected(scope: _remote.Saving | _remote.Loading) -> Cluster | None:
    """The cluster that this process is connected to, if it is."""
    ray = sys.modules.get("ray")
    if ray is None:
        return None
    worker = ray._private.worker.global_worker
    if not worker.connected or not hasattr(worker, "core_worker"):
        return None
    found = scope.facts.get("ray")
    if found is None or found.core is not worker.core_worker:
        found = scope.facts["ray"] = Cluster(ray, worker, scope.seconds)
    return found


def epoch(scope: _remote.Saving) -> str:
    """Names the cluster that this process is connected to, and which owners that saves have met are gone."""
    cluster = connected(scope)
    if cluster is None:
        return ""
    owners = [address for session, address in _owner_facts if session == cluster.session][-_OWNERS_ASKED:]
    gone = (f"{address.hex()} {found}" for address, found in cluster.states(owners) if found != "alive")
    return " ".join([cluster.session, *gone])


#: So many owners are looked at again in a save that finds their objects as they were.
_OWNERS_ASKED = 64


def same_cluster(reference: _remote.RemoteReference) -> Cluster:
    """The cluster in which a reference was saved, if this process is connected to it."""
    cluster = connected(_remote.current_load())
    address, session = reference.place.get("cluster"), reference.place.get("session")
    if cluster is None:
        raise RemoteObjectLost(not_connected(address))
    if session != cluster.session:
        raise RemoteObjectLost(
            f"its cluster was {session} at {address}, and this process is connected to {cluster.session} at {cluster.address}: "
            "what lived in another cluster, or before a restart, is gone from here; make it anew"
        )
    return cluster


def not_connected(address: Any) -> str:
    """Why there is no cluster, and what to do; ``address`` is that of the one that is meant, if it is known."""
    ray = sys.modules.get("ray")
    if ray is None:
        if importlib.util.find_spec("ray") is None:
            return "Ray is not installed here: install it, connect to the cluster, and load again"
    elif ray.is_initialized():
        return "this process is connected through Ray Client, which reaches no objects of others: load in a program of the cluster"
    return f"this process is connected to no Ray cluster: call ray.init({f'address={address!r}' if address else ''}) and load again"
