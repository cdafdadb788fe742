"""What is done in a cluster before references can be saved as a save wants: pinning, and saving values where they are.

What was done is remembered for the repository object, by cluster, so that the next save does it only for what is new.
"""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

from chipmink import _remote
from chipmink._errors import RemoteReferenceWarning
from chipmink.ray import _jobs, _keeper, _values
from chipmink.ray._cluster import Cluster, connected

__all__ = ["Settled", "answer", "release_unnamed", "settle", "settled"]

#: References that a keeper is given at once.
_BATCH = 256
#: Bytes that a keeper is trusted to copy in a second.
_COPY_RATE = 100e6

PINNED = "while the keeper of the repository holds it, which is until no version names it"


@dataclass
class Settled:
    """What was done for a repository in one cluster, in one mode."""

    #: By key of an object: the reduce value.
    answers: dict[Any, tuple[Any, ...]] = field(default_factory=dict)
    #: Which life of the keeper has done it.
    token: str = ""


def settled(scope: _remote.Saving, cluster: Cluster) -> Settled:
    """What was done so far for the repository, and still holds."""
    key = ("ray", cluster.session, scope.mode)
    found: Settled = scope.kept.setdefault("settled", {}).setdefault(key, Settled())
    if scope.mode == "pin" and found.answers and "ray.keeper" not in scope.facts:
        scope.facts["ray.keeper"] = True
        if _token(cluster, scope.repository.url) != found.token:
            found.answers.clear()
    return found


def _token(cluster: Cluster, url: str) -> str:
    def ask() -> str:
        keeper = _keeper.find(cluster, url)
        return "" if keeper is None else str(cluster.ray.get(keeper.token.remote(), timeout=cluster.seconds))

    try:
        return cluster.ask(ask)
    except Exception:
        return ""


def answer(scope: _remote.Saving, cluster: Cluster, key: Any, obj: Any) -> tuple[Any, ...] | str | None:
    """The reduce value for an object, or why there is none; ``None`` if that is not known yet, and asked for."""
    found = settled(scope, cluster).answers.get(key)
    if found is not None:
        return found
    if ("ray", key) in scope.failed:
        return f"by reference only: {scope.failed['ray', key]}"
    if not scope.is_passive:
        scope.later("ray", key, obj)
    return None


def settle(scope: _remote.Saving, objects: dict[Any, Any]) -> None:
    """Does what a save wants for objects that were not met before."""
    cluster = connected(scope)
    if cluster is None:
        raise RuntimeError("the Ray cluster was left during the save")
    done = settled(scope, cluster)
    answers = _unfinished(cluster, objects)
    there = {key: obj for key, obj in objects.items() if key not in answers}
    if there and scope.mode == "pin":
        answers.update(_pin(scope, cluster, done, there))
    elif there:
        answers.update(
            _jobs.save(scope.repository, cluster, there, lambda done, total: scope.tell("materializing", done, total))
        )
    for key, said in answers.items():
        if isinstance(said, str):
            scope.failed["ray", key] = said
        else:
            done.answers[key] = said


def _unfinished(cluster: Cluster, objects: dict[Any, Any]) -> dict[Any, tuple[Any, ...] | str]:
    """Why there is nothing yet to keep of objects that are still being made. All of them are waited for at once."""
    refs = [ref for key, ref in objects.items() if isinstance(key, bytes)]
    if not refs:
        return {}
    _, pending = cluster.ray.wait(refs, num_returns=len(refs), timeout=cluster.seconds, fetch_local=False)
    reason = f"it was not there within {cluster.seconds:g} seconds: what makes it has not ended"
    return dict.fromkeys((ref.binary() for ref in pending), reason)


def _pin(scope: _remote.Saving, cluster: Cluster, done: Settled, objects: dict[Any, Any]) -> dict[Any, tuple[Any, ...] | str]:
    ray = cluster.ray
    found: dict[Any, tuple[Any, ...] | str] = {}
    try:
        keeper = cluster.ask(_keeper.make, cluster, scope.repository.url)
        # A new one has to start.
        done.token = str(ray.get(keeper.token.remote(), timeout=cluster.seconds + _START))
    except Exception as error:
        return dict.fromkeys(objects, f"no keeper: {type(error).__name__}: {_line(error)}")
    # It may not have been there when they were looked up.
    cluster.forget_actors()
    refs = list(objects.items())
    sizes = {ref: place["object_size"] or 0 for ref, place in cluster.core.get_local_object_locations(list(objects.values())).items()}
    done_bytes, total = 0, sum(sizes.values())
    for first in range(0, len(refs), _BATCH):
        scope.tell("pinning", done_bytes, total)
        batch = dict(refs[first : first + _BATCH])
        byte_len = sum(sizes.get(ref, 0) for ref in batch.values())
        limit = cluster.seconds + byte_len / _COPY_RATE
        try:
            answers = ray.get(keeper.pin.remote(list(batch.values()), limit), timeout=limit + cluster.seconds)
        except Exception as error:
            found.update(dict.fromkeys(batch, f"the keeper failed: {type(error).__name__}: {_line(error)}"))
            continue
        finally:
            done_bytes += byte_len
        for original, own, reason in answers:
            found[original] = reason if own is None else _pinned(cluster, original, own)
    scope.tell("pinning", done_bytes, total)
    return found


#: Seconds that an actor may take to start, beyond the limit of a question.
_START = 30.0


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]


def _pinned(cluster: Cluster, original: bytes, own: Any) -> tuple[Any, ...]:
    address = cluster.core.serialize_object_ref(own)[1]
    owner = cluster.owner(address)
    details = json.dumps({"type": "ray.ObjectRef", "copy of": original.hex()})
    stored = ("ray.object", own.binary(), cluster.place_text, owner.text, PINNED, owner.found, address, details)
    return _remote.make_reference, stored


def release_unnamed(repository: Any, grace: float) -> int:
    """Lets go of what was kept for versions that are no longer there."""
    return _release_pins(repository, grace) + _values.release(repository, grace)


def _release_pins(repository: Any, grace: float) -> int:
    cluster = connected(_remote.Saving())
    keeper = None if cluster is None else cluster.ask(_keeper.find, cluster, repository.url)
    if cluster is None or keeper is None:
        return 0
    try:
        _, held = cluster.ray.get(keeper.held.remote(), timeout=cluster.seconds)
    except Exception as error:
        # The next sweep asks again.
        text = f"the keeper of {repository.url!r} did not say what it holds, so nothing was released: {type(error).__name__}: {_line(error)}"
        warnings.warn(text, RemoteReferenceWarning, stacklevel=2)
        return 0
    old = [identity for identity, _, at in held if at <= time.time() - grace]
    if not old:
        return 0
    # Values that are saved on lines of their own may name pins, too.
    numbers = [version.number for version in repository._versions(None)]
    named = repository._usable().mentioned(numbers, old)
    unnamed = [identity for identity, is_named in zip(old, named, strict=True) if not is_named]
    return int(cluster.ray.get(keeper.release.remote(unnamed), timeout=cluster.seconds)) if unnamed else 0
