"""Rules by which objects of Ray are saved as references, and how they are found again.

A reference is resolved in the cluster session in which it was saved, as long as what it stands for lives there. By itself
it keeps nothing alive, and unlike pickling it adds no count to what Ray counts.

The kinds (``ray.object`` …), what their identities and tokens are, and the names of the ``make_`` functions are part of
format version 1.
"""

from __future__ import annotations

import importlib
import io
import json
import pickle
import sys
import weakref
from typing import Any

from chipmink import _remote
from chipmink._errors import RemoteObjectLost
from chipmink._markers import Context, Stub, place_of
from chipmink._placeholder import Placeholder
from chipmink.ray import _settle
from chipmink.ray._cluster import Cluster, connected, not_connected, same_cluster

__all__ = ["BY_NAME", "IDENTIFIED", "RESOLVERS", "make_actor_class", "make_dataset", "make_remote_function"]


def _disconnected(obj: Any) -> Stub:
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        return _stub(obj, _OF_CLIENT)
    return _stub(obj, "this process is no longer connected to the Ray cluster of the object; save before ray.shutdown()")


_OF_CLIENT = "handles of Ray Client end with its connection: save in a program of the cluster, after ray.init(address=...)"


def _type(obj: Any) -> str:
    return ".".join(place_of(type(obj)))


def _stub(obj: Any, reason: str) -> Stub:
    return Stub("remote", _type(obj), reason)


# --- objects ---------------------------------------------------------------------------------------------------------


def reduce_object_ref(ref: Any, ctx: Context) -> Any:
    """Its number and its owner, of whom alone it depends whether it can be resolved."""
    scope = _remote.saving()
    cluster = connected(scope)
    if cluster is None:
        return _disconnected(ref)
    identity = ref.binary()
    try:
        _, address, _ = cluster.core.serialize_object_ref(ref)
    except Exception as error:
        return _stub(ref, _unknown(identity, error))
    # The very same object for all that it owns: in a pod it is written once.
    address = _addresses.setdefault(address, address)
    owner = cluster.owner(address)
    found = owner.found
    if scope.mode != "reference" and not (scope.mode == "pin" and owner.is_keeper):
        answer = _settle.answer(scope, cluster, identity, ref)
        if isinstance(answer, tuple):
            scope.note("ray.object", answer[1][4], answer[1][5])
            return answer
        found = answer or found
    scope.note("ray.object", owner.lasts, found, owner.is_passing)
    return _remote.make_reference, (
        "ray.object",
        identity,
        cluster.place_text,
        owner.text,
        owner.lasts,
        found,
        address,
        _OBJECT_DETAILS,
    )


def _unknown(identity: bytes, error: Exception) -> str:
    said = str(error).strip().partition("\n")[0]
    return f"the cluster that this process is connected to knows no owner of {identity.hex()} ({said}): it may be of an earlier connection"


_OBJECT_DETAILS = json.dumps({"type": "ray.ObjectRef"})
_addresses: dict[bytes, bytes] = {}


def resolve_object_ref(reference: _remote.RemoteReference) -> Any:
    """The same reference, if its owner lives; whether the object does is looked at when the load is over."""
    cluster = same_cluster(reference)
    scope, key = _remote.current_load(), (reference.kind, reference.identity)
    address = _token(reference)
    owner = cluster.owner(address)
    if owner.found != "alive":
        raise RemoteObjectLost(f"{owner.found.removeprefix('lost: ')}; {_KEEP}")
    if key in scope.lost:
        raise RemoteObjectLost(f"{scope.lost[key]}; {_KEEP}")
    serialization = importlib.import_module("ray._private.serialization")
    # Without a status its owner is asked for it.
    made = serialization._object_ref_deserializer(reference.identity, "", address, b"", None)
    scope.unsure[key] = made
    scope.checks["ray.object"] = _look_at_objects
    return made


def _look_at_objects(scope: _remote.Loading, made: dict[tuple[str, str | bytes], Any]) -> None:
    """Asks the owners of references whether they still have the objects, and where."""
    cluster = connected(scope)
    if cluster is None or not made:
        return
    try:
        reasons = _remote.within(cluster.seconds, cluster.failures, list(made.values()))
    except TimeoutError:
        # It may be there: who uses it will see.
        return
    scope.lost.update({key: f"the object is gone ({reasons[ref]})" for key, ref in made.items() if ref in reasons})


_KEEP = 'make it anew, and save with remote="pin" or remote="materialize" what must outlive its owner'


def _token(reference: _remote.RemoteReference) -> bytes:
    if reference.token is None:
        raise ValueError(f"the reference of a {reference.kind} has no token; the version is damaged")
    return reference.token


# --- generators ------------------------------------------------------------------------------------------------------


def reduce_generator(generator: Any, ctx: Context) -> Any:
    """A stream of results can be read in the process that began it, as long as that holds it."""
    scope = _remote.saving()
    cluster = connected(scope)
    if cluster is None:
        return _disconnected(generator)
    identity = generator._generator_ref.binary()
    try:
        address = cluster.core.serialize_object_ref(generator._generator_ref)[1]
    except Exception as error:
        return _stub(generator, _unknown(identity, error))
    # Numbers are counted in each cluster anew.
    _generators[cluster.session, identity] = generator
    lasts = "in the process that began it, while that holds it; to keep the results, save list(generator)"
    scope.note("ray.generator", lasts, "alive", True)
    owner = cluster.owner(address)
    details = json.dumps({"type": "ray.ObjectRefGenerator"})
    return _remote.make_reference, ("ray.generator", identity, cluster.place_text, owner.text, lasts, "alive", None, details)


_generators: weakref.WeakValueDictionary[tuple[str, bytes], Any] = weakref.WeakValueDictionary()


def resolve_generator(reference: _remote.RemoteReference) -> Any:
    """The live generator itself: a second one over the stream would end it when it goes."""
    session = same_cluster(reference).session
    found = _generators.get((session, reference.identity)) if isinstance(reference.identity, bytes) else None
    if found is None:
        raise RemoteObjectLost(
            "a stream of results can be read only in the process that began it, as long as it is held there: "
            "call the task again, and save list(generator) to keep the results"
        )
    return found


# --- actors ----------------------------------------------------------------------------------------------------------


def reduce_actor(handle: Any, ctx: Context) -> Any:
    """Its number, and the handle as Ray passes it to others."""
    scope = _remote.saving()
    cluster = connected(scope)
    if cluster is None:
        return _disconnected(handle)
    actor_id = handle._actor_id
    key = (cluster.session, actor_id.binary())
    try:
        known = cluster.actor(actor_id)
    except TimeoutError as error:
        return _stub(handle, f"the cluster did not say whether the actor {actor_id.hex()} lives: {error}")
    if getattr(handle, "_ray_cluster_and_job", None) != cluster.worker.current_cluster_and_job:
        # Ray ends a process that asks it for a handle which the present connection does not know.
        again = _of_this_connection(cluster, known)
        if again is None and key not in _handles:
            return _stub(handle, f"{handle!r} is of an earlier connection to Ray: take it anew, with ray.get_actor if it has a name")
        handle = again or handle
    if key not in _handles:
        # Written once: the bytes need not be the same each time.
        _handles[key] = cluster.core.serialize_actor_handle(actor_id)[0]
    lasts, found, details = _actor_facts(known)
    if scope.mode == "materialize":
        answer = _settle.answer(scope, cluster, ("actor", actor_id.binary()), handle)
        if isinstance(answer, tuple):
            scope.note("ray.actor", answer[1][4], answer[1][5])
            return answer
        found = answer or found
    details.update(type="ray.actor.ActorHandle", weak=bool(handle._ray_weak_ref))
    owner = {} if known is None or known.is_detached else {"job": known.job_id.hex()}
    scope.note("ray.actor", lasts, found, bool(owner) and owner["job"] == cluster.core.get_current_job_id().hex())
    reference = _remote.RemoteReference(
        "ray.actor", actor_id.binary(), cluster.place, owner, lasts, found, _handles[key], details
    )
    return _remote.make_reference, reference.stored()


def _of_this_connection(cluster: Cluster, known: Any) -> Any:
    """A handle of the same actor, if it outlived the connection of which there is one, and has a name."""
    if known is None or not known.name or known.state == _DEAD:
        return None
    try:
        found = cluster.ask(cluster.ray.get_actor, known.name, known.ray_namespace)
    except Exception:
        return None
    return found if found._actor_id.binary() == known.actor_id else None


_handles: dict[tuple[str, bytes], bytes] = {}
#: A state of an actor, from Ray's `ActorTableData`.
_DEAD = 4


def _actor_facts(known: Any) -> tuple[str, str, dict[str, Any]]:
    if known is None:
        return "while the actor lives", "lost: the cluster has forgotten the actor", {}
    details = {"class": known.class_name}
    if known.name:
        details.update(name=known.name, namespace=known.ray_namespace)
    found = f"lost: {_death(known)}" if known.state == _DEAD else "alive"
    if known.is_detached:
        return f"while the detached actor {known.name!r} lives", found, details
    return f"while the driver that made the actor runs (job {known.job_id.hex()})", found, details


def _death(known: Any) -> str:
    context = known.death_cause.actor_died_error_context
    reason = (context.error_message or "").strip().partition("\n")[0]
    return f"the actor is dead ({reason})" if reason else "the actor is dead"


def resolve_actor(reference: _remote.RemoteReference) -> Any:
    """The same actor, if it lives."""
    cluster = same_cluster(reference)
    ray, token = cluster.ray, _token(reference)
    known = cluster.actor(ray.ActorID(reference.identity))
    if known is None or known.state == _DEAD:
        reason = "the cluster has forgotten the actor" if known is None else _death(known)
        raise RemoteObjectLost(f"{reason}; {_namesake(cluster, reference)}")
    weak = bool(reference.details.get("weak"))

    def make() -> Any:
        return cluster.core.deserialize_and_register_actor_handle(token, ray.ObjectRef.nil(), weak)

    return cluster.ask(make)


def _namesake(cluster: Cluster, reference: _remote.RemoteReference) -> str:
    name, namespace = reference.details.get("name"), reference.details.get("namespace")
    if name:
        for other in cluster.ask(cluster.actors_by_worker).values():
            if (other.name, other.ray_namespace) == (name, namespace) and other.state != _DEAD:
                return f"another actor has its name now: ray.get_actor({name!r}, namespace={namespace!r})"
    return 'make it anew, with lifetime="detached" if it must outlive its driver'


# --- remote functions and actor classes ------------------------------------------------------------------------------


def reduce_remote_function(function: Any, ctx: Context) -> Any:
    """By name if it can be imported; else the function and its options. No cluster is needed to make it again."""
    return _by_name(function, function._function) or (
        make_remote_function,
        (function._function, dict(function._default_options)),
    )


def reduce_actor_class(actor_class: Any, ctx: Context) -> Any:
    """As a remote function: the class and its options."""
    plain = actor_class.__ray_metadata__.modified_class.__ray_actor_class__
    return _by_name(actor_class, plain) or (make_actor_class, (plain, dict(actor_class._default_options)))


def _by_name(made: Any, plain: Any) -> str | None:
    module, qualname = place_of(plain) if isinstance(plain, type) else (plain.__module__, plain.__qualname__)
    if module == "__main__" or "." in qualname or getattr(sys.modules.get(module), qualname, None) is not made:
        return None
    return f"{module}:{qualname}"


def make_remote_function(function: Any, options: dict[str, Any]) -> Any:
    """Makes a remote function. Nothing is sent to a cluster before it is called."""
    return _remote_of(function, options, "ray.remote_function.RemoteFunction")


def make_actor_class(plain: Any, options: dict[str, Any]) -> Any:
    """Makes an actor class. Nothing is sent to a cluster before an actor is made."""
    return _remote_of(plain, options, "ray.actor.ActorClass")


def _remote_of(plain: Any, options: dict[str, Any], type_name: str) -> Any:
    if isinstance(plain, Placeholder):
        return plain
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        return Placeholder("remote", type_name, f"Ray cannot be imported here ({error}): install it, and load again")
    return ray.remote(**options)(plain) if options else ray.remote(plain)


# --- placement groups ------------------------------------------------------------------------------------------------


def reduce_placement_group(group: Any, ctx: Context) -> Any:
    """Its number."""
    scope = _remote.saving()
    cluster = connected(scope)
    if cluster is None:
        return _disconnected(group)
    try:
        known = cluster.placement_group(group.id)
    except TimeoutError as error:
        return _stub(group, f"the cluster did not say whether the placement group {group.id.hex()} exists: {error}")
    is_detached = known is not None and known.is_detached
    job = "" if known is None else known.creator_job_id.hex()
    lasts = "while the cluster runs" if is_detached else f"while the driver that made it runs (job {job})"
    found = "alive" if _is_there(known) else "lost: the placement group was removed"
    details = {"type": "ray.util.placement_group.PlacementGroup"}
    if known is not None and known.name:
        details.update(name=known.name, namespace=known.ray_namespace)
    scope.note("ray.placement-group", lasts, found, not is_detached and job == cluster.core.get_current_job_id().hex())
    owner = {} if is_detached else {"job": job}
    reference = _remote.RemoteReference(
        "ray.placement-group", group.id.binary(), cluster.place, owner, lasts, found, None, details
    )
    return _remote.make_reference, reference.stored()


#: A state of a placement group, from Ray's `PlacementGroupTableData`.
_REMOVED = 3


def _is_there(known: Any) -> bool:
    return known is not None and known.state != _REMOVED


def resolve_placement_group(reference: _remote.RemoteReference) -> Any:
    """The same group, if it was not removed."""
    cluster = same_cluster(reference)
    module = importlib.import_module("ray.util.placement_group")
    group_id = cluster.ray.PlacementGroupID(reference.identity)
    if not _is_there(cluster.placement_group(group_id)):
        raise RemoteObjectLost('it was removed; make it anew, with lifetime="detached" if it must outlive its driver')
    return module.PlacementGroup(group_id)


# --- datasets --------------------------------------------------------------------------------------------------------


def reduce_dataset(dataset: Any, ctx: Context) -> Any:
    """Its plan, and the references to the blocks that are in it, each as a reference of its own."""
    scope = _remote.saving()
    cluster = connected(scope)
    if cluster is None:
        return _disconnected(dataset)
    known = _plans.get(dataset)
    if known is None:
        try:
            # Written once: the bytes are not the same each time.
            known = _plans[dataset] = _packed(cluster.ray, dataset)
        except Exception as error:
            return _stub(dataset, f"its plan cannot be written: {type(error).__name__}: {_line(error)}")
    data, refs = known
    lasts = "while its blocks are there" if refs else "while what it reads can be read"
    scope.note("ray.dataset", lasts, "alive")
    return make_dataset, (data, list(refs), _type(dataset))


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]


_plans: weakref.WeakKeyDictionary[Any, tuple[bytes, tuple[Any, ...]]] = weakref.WeakKeyDictionary()


def _packed(ray: Any, dataset: Any) -> tuple[bytes, tuple[Any, ...]]:
    refs: list[Any] = []

    class Packer(importlib.import_module("ray.cloudpickle").CloudPickler):  # type: ignore[misc]
        def persistent_id(self, obj: Any) -> int | None:
            # Taken out of the stream, where Ray would hold them for as long as this program runs.
            if not isinstance(obj, ray.ObjectRef):
                return None
            refs.append(obj)
            return len(refs) - 1

    stream = io.BytesIO()
    Packer(stream).dump(dataset)
    return stream.getvalue(), tuple(refs)


def make_dataset(data: bytes, refs: list[Any], type_name: str) -> Any:
    """Makes a dataset of its plan and its blocks: references to them, or what these were saved as."""
    from chipmink._lost import LostReference

    def lost(reason: str) -> Any:
        reference = _remote.RemoteReference("ray.dataset", "dataset", details={"type": type_name})
        return LostReference(reference, reason, (make_dataset, (data, refs, type_name)))

    cluster = connected(_remote.saving())
    if cluster is None:
        return lost(not_connected(None))
    gone = next((ref for ref in refs if isinstance(ref, Placeholder)), None)
    if gone is not None:
        return lost(f"a block of it is lost: {gone!r}")
    ray = cluster.ray
    # Blocks that were saved by value go back to the cluster.
    blocks = [ref if isinstance(ref, ray.ObjectRef) else ray.put(ref) for ref in refs]

    class Unpacker(pickle.Unpickler):
        def persistent_load(self, number: int) -> Any:
            return blocks[number]

    try:
        return Unpacker(io.BytesIO(data)).load()
    except Exception as error:
        # Its functions may hold actors that are gone, or need modules that are not here.
        return lost(f"its plan cannot be read here: {type(error).__name__}: {_line(error)}; see that all that it uses is there, and load again")


# --- what no other program can use -----------------------------------------------------------------------------------


def reduce_client_object(obj: Any, ctx: Context) -> Stub:
    """Handles of Ray Client mean nothing outside of its connection."""
    return _stub(obj, _OF_CLIENT)


def reduce_context(obj: Any, ctx: Context) -> Stub:
    """What a process knows of itself says nothing in another."""
    return _stub(obj, "it says what the process that saved it was connected to: call ray.get_runtime_context()")


IDENTIFIED = [("ray", "ObjectRef")]

RESOLVERS = {
    "ray.object": resolve_object_ref,
    "ray.generator": resolve_generator,
    "ray.actor": resolve_actor,
    "ray.placement-group": resolve_placement_group,
}

# Classes found by their name among the bases of a type, so that nothing has to be imported for it.
BY_NAME: dict[tuple[str, str], Any] = {
    ("ray", "ObjectRef"): reduce_object_ref,
    ("ray", "ObjectRefGenerator"): reduce_generator,
    ("ray.actor", "ActorHandle"): reduce_actor,
    ("ray.actor", "ActorClass"): reduce_actor_class,
    ("ray.remote_function", "RemoteFunction"): reduce_remote_function,
    ("ray.util.placement_group", "PlacementGroup"): reduce_placement_group,
    ("ray.data.dataset", "Dataset"): reduce_dataset,
    ("ray.util.client.common", "ClientObjectRef"): reduce_client_object,
    ("ray.util.client.common", "ClientActorRef"): reduce_client_object,
    ("ray.util.client.common", "ClientActorHandle"): reduce_client_object,
    ("ray.runtime_context", "RuntimeContext"): reduce_context,
    ("ray._private.worker", "Worker"): reduce_context,
}
