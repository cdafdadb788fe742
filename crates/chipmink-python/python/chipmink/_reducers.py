"""The rules by which the walker reduces objects that it does not handle itself.

For an object whose exact type is in ``DISPATCH`` the walker calls ``DISPATCH[type](obj, context)``, before it looks at
``copyreg.dispatch_table`` and ``__reduce_ex__``. For another type it asks ``resolve(type)`` once, and remembers the
answer for as long as ``generation()`` and the type's own version stay; ``None`` means that the type has no rule here. For a class that no
import finds it calls ``reduce_class(cls, context)``, for an object whose rule names it in the program's own module
``unnamed(obj, module, context)``.

A rule answers with a reduce tuple of two to six elements as pickle's, with a str (the object's name in its module, or
``"module:name"``), or with a ``Stub``. In the tuple may stand ``NAMESPACE`` and ``Side``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chipmink import _arrow, _device, _numpy, _pandas, _reduce_classes, _reduce_exceptions, _reduce_functions, _reduce_objects, _reduce_stubs, _shared, _torch, _values
from chipmink._markers import NAMESPACE, Context, DeviceBytes, NamespaceMarker, SharedBytes, Side, Stub, place_of
from chipmink._numpy import describe_dtype
from chipmink._reduce_classes import reduce_class, unnamed
from chipmink._shared import is_mapping, may_share_memory, shared_owner
from chipmink._values import value_of
from chipmink.ray import _references as _ray
from chipmink.spark import _references as _spark

__all__ = [
    "DISPATCH",
    "IDENTIFIED",
    "NAMESPACE",
    "STAND_INS",
    "VALUES",
    "Context",
    "DeviceBytes",
    "NamespaceMarker",
    "SharedBytes",
    "Side",
    "Stub",
    "describe_dtype",
    "generation",
    "is_mapping",
    "may_share_memory",
    "reduce_class",
    "register",
    "resolve",
    "shared_owner",
    "unnamed",
    "value_of",
]

Reducer = Callable[[Any, Context], Any]

DISPATCH: dict[type, Reducer] = {
    **_reduce_stubs.REDUCERS,
    **_reduce_objects.REDUCERS,
    **_reduce_classes.REDUCERS,
    **_reduce_functions.REDUCERS,
    **_shared.REDUCERS,
    **_device.REDUCERS,
}
"""Exact type to rule. Only ``register`` changes it."""

# What stands for something elsewhere does so whatever its class says of pickling.
_HANDLES: dict[tuple[str, str], Reducer] = {**_ray.BY_NAME, **_spark.BY_NAME}

IDENTIFIED = list(_ray.IDENTIFIED)
"""Module and name of the exact types whose objects hold, as bytes, the number that their rule gives as second argument."""

_BY_NAME: dict[tuple[str, str], Reducer] = {
    **_reduce_stubs.BY_NAME,
    **_reduce_objects.BY_NAME,
    **_reduce_exceptions.BY_NAME,
    **_numpy.BY_NAME,
    **_arrow.BY_NAME,
    **_pandas.BY_NAME,
    **_shared.BY_NAME,
    **_torch.BY_NAME,
    **_HANDLES,
    **_device.BY_NAME,
}

_values.RULES.update({**_numpy.VALUES, **_arrow.VALUES, **_pandas.VALUES})

VALUES = _values.RULES
"""Module and name of the exact type to rule, for what is written anew in each pod."""

STAND_INS = (_numpy.make_subarray, _numpy.make_memmap, _arrow.make_arrow_buffer)
"""Callables whose first argument is an array over the memory of the object that they make, and no other leads back to it."""

# Subclasses of these inherit the rule; those of the other types in DISPATCH are not what their base is.
_INHERITED = frozenset(
    {
        *(kind for kind, rule in _reduce_stubs.REDUCERS.items() if rule is _reduce_stubs.reduce_file),
        *(classmethod, property, staticmethod),
    }
)

_generation = 0


def resolve(kind: type) -> Reducer | None:
    """The rule for objects of exactly this type, if there is one: its own, or one that it inherits by name."""
    try:
        found = DISPATCH.get(kind)
    except Exception:
        # Its metaclass does not let it be compared.
        found = None
    if found is not None:
        return found
    for base in kind.__mro__:
        place = place_of(base)
        found = _BY_NAME.get(place)
        if found is not None:
            return None if kind is not base and place not in _HANDLES and _reduces_itself(kind, base) else found
        if any(base is inherited for inherited in _INHERITED):
            return None if _reduces_itself(kind, base) else DISPATCH[base]
    return None


def _reduces_itself(kind: type, base: type) -> bool:
    # A subclass that says how it is pickled knows better than a rule for its base.
    return any(getattr(kind, hook, None) is not getattr(base, hook, None) for hook in _HOOKS)


_HOOKS = ("__reduce__", "__reduce_ex__", "__getstate__")


def generation() -> int:
    """Changes whenever a rule was registered."""
    return _generation


def register(kind: type, reducer: Callable[[Any], Any]) -> None:
    """Makes ``reducer(obj)`` the rule for objects of exactly the type ``kind``, before any other rule.

    The reducer returns what ``__reduce__`` does: a tuple of two to six elements that begins with an importable callable and
    its arguments. To hand out large memory without a copy, put a ``pickle.PickleBuffer`` of it among the arguments or into the
    state: it is stored by the chunk, only chunks that changed are stored again, and the callable is given a ``bytearray``
    (``bytes`` if the memory was read-only). A ``numpy.ndarray`` over the memory does the same and also keeps what it shares
    with other arrays: after a load they share it again. Nothing that is returned is kept after the save.
    """
    global _generation
    if not isinstance(kind, type):
        raise TypeError(f"a reducer is registered for a type, not for {kind!r}")
    if not callable(reducer):
        raise TypeError(f"the reducer for {kind.__qualname__} is not callable: {reducer!r}")
    DISPATCH[kind] = lambda obj, ctx: reducer(obj)
    _generation += 1
