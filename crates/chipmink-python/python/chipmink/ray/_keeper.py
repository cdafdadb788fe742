"""The keeper: a detached actor of a repository in a cluster, which owns what was pinned there.

1. There is one for each repository and cluster. It outlives drivers, and the cluster starts it anew if it dies; then what it held
   is gone, and the next save pins again what is still there.
2. It owns what it holds: what it is given is put into the object store once more, by itself.
3. It runs on the head node, if the cluster has one: that is the node with which the cluster ends anyway.
4. Its class goes to the cluster by value, so nothing has to be installed there.
"""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass
from typing import Any

from chipmink._errors import UnsupportedError
from chipmink._remote import within
from chipmink.ray._cluster import Cluster

__all__ = ["NAMESPACE", "Pin", "find", "make", "name_of", "pins"]

NAMESPACE = "chipmink"
_PREFIX = "keeper-"


@dataclass(frozen=True)
class Pin:
    """An object that a keeper holds for the versions of a repository."""

    identity: str
    """Its number in the cluster."""
    repository: str
    """The place of the repository."""
    pinned_at: datetime.datetime
    """When, in UTC."""
    original: str
    """The number of the object of which it is a copy."""

    def release(self) -> None:
        """Lets go of it, whatever versions name it: they load a placeholder then."""
        ray = _ray()
        keeper = within(_PATIENCE, ray.get_actor, name_of(self.repository), NAMESPACE)
        ray.get(keeper.release.remote([bytes.fromhex(self.identity)]), timeout=_PATIENCE)


#: Seconds for a keeper that is asked for what it has at hand.
_PATIENCE = 10.0


def name_of(url: str) -> str:
    """What the keeper of the repository at a place is called."""
    return _PREFIX + hashlib.blake2b(url.encode(), digest_size=8).hexdigest()


def _ray() -> Any:
    import sys

    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        raise UnsupportedError("this process is connected to no Ray cluster: call ray.init(address=...) first")
    return ray


def pins(place: str | None = None) -> list[Pin]:
    """What keepers hold in the cluster that this process is connected to: all of them, or that of the repository at ``place``."""
    ray = _ray()
    actors = within(_PATIENCE, ray.util.list_named_actors, True)
    names = [each["name"] for each in actors if each["namespace"] == NAMESPACE]
    wanted = [name for name in names if name.startswith(_PREFIX)] if place is None else [name_of(place)]
    found: list[Pin] = []
    for name in wanted:
        if name not in names:
            continue
        keeper = within(_PATIENCE, ray.get_actor, name, NAMESPACE)
        url, held = ray.get(keeper.held.remote(), timeout=_PATIENCE)
        found += [
            Pin(identity.hex(), url, datetime.datetime.fromtimestamp(at, datetime.UTC), original.hex())
            for identity, original, at in held
        ]
    return found


def find(cluster: Cluster, url: str) -> Any:
    """The keeper of a repository, if it has one."""
    try:
        return cluster.ray.get_actor(name_of(url), namespace=NAMESPACE)
    except ValueError:
        return None


def make(cluster: Cluster, url: str) -> Any:
    """The keeper of a repository."""
    options: dict[str, Any] = {
        "name": name_of(url),
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        "num_cpus": 0,
    }
    if any(_HEAD in node["Resources"] for node in cluster.ray.nodes() if node["Alive"]):
        options["resources"] = {_HEAD: _SHARE}
    return cluster.ray.remote(_keeper_class()).options(**options).remote(url)


#: A resource that only the head node has, and how much of its one a keeper takes.
_HEAD = "node:__internal_head__"
_SHARE = 0.001


def _keeper_class() -> type:
    class Keeper:
        def __init__(self, url: str) -> None:
            import secrets

            self.url = url
            self.life = secrets.token_hex(8)
            # By number: reference, number of the original, seconds since 1970.
            self.objects: dict[bytes, tuple[Any, bytes, float]] = {}
            self.by_original: dict[bytes, bytes] = {}

        def token(self) -> str:
            """Names this life of the keeper: what an earlier one held is gone."""
            return self.life

        def pin(self, refs: list[Any], seconds: float) -> list[tuple[bytes, Any, str]]:
            """For each reference its number, one to an object of the keeper's own with the same value, or why there is none."""
            import importlib
            import time

            ray = importlib.import_module("ray")
            found: list[tuple[bytes, Any, str]] = []
            for ref in refs:
                original = ref.binary()
                if original not in self.by_original:
                    try:
                        value = ray.get(ref, timeout=seconds)
                        own = ray.put(value)
                        del value
                    except Exception as error:
                        found.append((original, None, f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"))
                        continue
                    self.objects[own.binary()] = (own, original, time.time())
                    self.by_original[original] = own.binary()
                found.append((original, self.objects[self.by_original[original]][0], ""))
            return found

        def held(self) -> tuple[str, list[tuple[bytes, bytes, float]]]:
            """The repository's place; number, number of the original and time of each object."""
            return self.url, [(identity, original, at) for identity, (_, original, at) in self.objects.items()]

        def release(self, identities: list[bytes]) -> int:
            """Lets go of objects; returns of how many."""
            gone = [self.objects.pop(identity) for identity in identities if identity in self.objects]
            for _, original, _ in gone:
                del self.by_original[original]
            return len(gone)

    return Keeper
