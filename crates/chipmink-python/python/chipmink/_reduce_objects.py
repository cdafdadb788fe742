"""Reducers for small objects of the standard library that pickle refuses, and that have an honest copy.

Locks come back new and unlocked; views and weak references come back on the restored object; streams and loggers of the
process are found again by name.
"""

from __future__ import annotations

import array
import copyreg
import dataclasses
import gc
import itertools
import mmap
import pickle
import sys
import threading
import types
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from chipmink import _numpy, _rebuild, _shared
from chipmink._markers import Context, Stub

__all__ = ["BY_NAME", "REDUCERS", "standard_stream"]


def reduce_lock(lock: Any, ctx: Context) -> tuple[Any, ...]:
    """A new, unlocked lock: who holds it now does not hold the copy."""
    return _rebuild.make_lock, ()


def reduce_rlock(lock: Any, ctx: Context) -> tuple[Any, ...]:
    """A new, unlocked reentrant lock."""
    return _rebuild.make_rlock, ()


def reduce_local(local: Any, ctx: Context) -> tuple[Any, ...]:
    """What the saving thread sees."""
    return _rebuild.make_local, (), dict(local.__dict__), None, None, _rebuild.local_setstate


def reduce_memoryview(view: memoryview, ctx: Context) -> tuple[Any, ...] | Stub:
    """A view of the same buffer, or of an array over the part that it shows; where that cannot be told, of a copy."""
    try:
        base: Any = view.obj
        whole = memoryview(base).nbytes == view.nbytes and view.c_contiguous and not isinstance(base, memoryview)
    except ValueError:
        return Stub("memoryview", "builtins.memoryview", "it was released")
    except TypeError:
        whole = False
    if type(base) is mmap.mmap:
        part = None if whole or ctx.namespace is None else _shared.reduce_view(view, base)
        if part is not None:
            return part
        whole = whole and ctx.namespace is not None and _shared.has_value(base)
    format: str | None = view.format
    if not whole:
        format = _rebuild.native_format(view.format)
        part = _numpy.array_over(view) if view.nbytes else None
        if part is not None:
            shown = memoryview(part).format
            if format in _NATIVE_FORMATS and _rebuild.native_format(shown) in _NATIVE_FORMATS:
                return _rebuild.view_of_array, (part, format)
            if format is None and shown == view.format:
                return _rebuild.view_of_array, (part, shown)
        if format is None:
            return Stub("memoryview", "builtins.memoryview", f"no view of a copy can have items {view.format!r}; save what it shows as a list")
        base = bytes(view) if view.readonly else bytearray(view)
    arguments = (base, format, view.shape)
    if view.readonly and not memoryview(base).readonly:
        return _rebuild.make_readonly_memoryview, arguments
    return _rebuild.make_memoryview, arguments


def reduce_array(numbers: array.array[Any], ctx: Context) -> Any:
    """Its bytes, as a buffer. (An exact ``array.array`` with numbers of this machine's size and order.)"""
    if numbers.typecode in "uw":
        return numbers.__reduce_ex__(5)
    return _rebuild.make_array, (numbers.typecode, numbers.itemsize, sys.byteorder, pickle.PickleBuffer(numbers))


def reduce_ref(ref: weakref.ref[Any], ctx: Context) -> tuple[Any, ...]:
    """The target: after a load the reference is alive if something else brought the target back."""
    target = ref()
    if target is None:
        return _rebuild.make_dead_ref, ()
    callback = ref.__callback__
    return _rebuild.make_ref, (target,) if callback is None else (target, callback)


def reduce_proxy(proxy: Any, ctx: Context) -> Any:
    """The target, as for a weak reference; in a stream a copy of the target itself, as pickle has it."""
    try:
        if ctx.namespace is None:
            return proxy.__reduce_ex__(5)
        target = proxy.__reduce_ex__.__self__
    except ReferenceError:
        return Stub("weak-proxy", "weakref.ProxyType", "the object it stood for is gone")
    return _rebuild.make_proxy, (target,)


def reduce_weak_method(ref: weakref.WeakMethod[Any], ctx: Context) -> tuple[Any, ...]:
    """The method, as for a weak reference."""
    method = ref()
    if method is None:
        return _rebuild.make_dead_ref, ()
    return _rebuild.make_weak_method, (method,)


def reduce_weak_set(found: weakref.WeakSet[Any], ctx: Context) -> tuple[Any, ...]:
    """Its live members."""
    return _rebuild.make_weak_set, (), list(found), None, None, _rebuild.weak_set_setstate


def reduce_weak_dict(found: Any, ctx: Context) -> tuple[Any, ...]:
    """Its live items."""
    return type(found), (), None, None, iter(list(found.items()))


def reduce_mappingproxy(proxy: types.MappingProxyType[Any, Any], ctx: Context) -> str | tuple[Any, ...]:
    """A view of the same mapping; the one that all fields of dataclasses share by name."""
    if proxy is _empty_metadata:
        return "dataclasses:_EMPTY_METADATA"
    mapping: Any = gc.get_referents(proxy)[0]
    owner = _owner(mapping)
    if owner is not None:
        return _rebuild.class_namespace, (owner,)
    return _rebuild.make_mappingproxy, (mapping,)


# By name, or every dataclass would share an object with every other.
_empty_metadata = getattr(dataclasses, "_EMPTY_METADATA", None)


def _owner(mapping: Any) -> type | None:
    # The attributes of a class are no dict of their own: the class makes them.
    if type(mapping) is not dict:
        return None
    for value in mapping.values():
        cls = getattr(value, "__objclass__", None)
        if isinstance(cls, type) and gc.get_referents(cls.__dict__)[0] is mapping:
            return cls
    return None


def _dict_view(kind: str) -> Callable[[Any, Context], tuple[Any, ...]]:
    def reduce_view(view: Any, ctx: Context) -> tuple[Any, ...]:
        return _rebuild.dict_view, (gc.get_referents(view)[0], kind)

    return reduce_view


def reduce_module(module: types.ModuleType, ctx: Context) -> tuple[Any, ...]:
    """By name; a module that the program made itself, by value."""
    name = module.__name__
    if sys.modules.get(name) is module or getattr(module, "__spec__", None) is not None:
        return _rebuild.import_module, (name,)
    contents = {key: value for key, value in module.__dict__.items() if key not in _MODULE_LEFT_OUT}
    return _rebuild.make_module, (name, module.__doc__), contents, None, None, _rebuild.module_setstate


_MODULE_LEFT_OUT = frozenset({"__builtins__", "__doc__", "__loader__", "__name__", "__spec__"})


def standard_stream(stream: Any) -> tuple[Any, ...] | None:
    """By name, if it is one of the process's own streams."""
    for name in ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__"):
        if stream is getattr(sys, name, None):
            return _rebuild.standard_stream, (name,)
    return None


def reduce_logger(logger: Any, ctx: Context) -> tuple[Any, ...]:
    """By name."""
    return _rebuild.logger, (None if logger.parent is None and logger.name == "root" else logger.name,)


def reduce_struct(struct: Any, ctx: Context) -> tuple[Any, ...]:
    """Its format."""
    return _rebuild.make_struct, (struct.format,)


def reduce_callback_registry(registry: Any, ctx: Context) -> tuple[Any, ...]:
    """What it says itself, but asked through a twin: asking it takes a number from its counter, each time another."""
    number = int(repr(registry._cid_gen).removeprefix("count(").removesuffix(")"))
    twin = object.__new__(type(registry))
    twin.__dict__.update(registry.__dict__)
    twin._cid_gen = itertools.count(number)
    # Loading puts the attributes into another order.
    state = dict(sorted(twin.__getstate__().items()))
    return copyreg.__newobj__, (type(registry),), state  # type: ignore[attr-defined]


# Those of which numpy makes a dtype of the same length and back.
_NATIVE_FORMATS = frozenset("B b H h I i L l Q q f d ?".split())

_plain: dict[Any, Any] = {}
_ordered: OrderedDict[Any, Any] = OrderedDict()

REDUCERS: dict[type, Any] = {
    type(threading.Lock()): reduce_lock,
    type(threading.RLock()): reduce_rlock,
    threading.local: reduce_local,
    memoryview: reduce_memoryview,
    array.array: reduce_array,
    weakref.ref: reduce_ref,
    weakref.ProxyType: reduce_proxy,
    weakref.CallableProxyType: reduce_proxy,
    weakref.WeakMethod: reduce_weak_method,
    weakref.WeakSet: reduce_weak_set,
    weakref.WeakKeyDictionary: reduce_weak_dict,
    weakref.WeakValueDictionary: reduce_weak_dict,
    types.MappingProxyType: reduce_mappingproxy,
    types.ModuleType: reduce_module,
    **{
        type(getattr(mapping, kind)()): _dict_view(kind)
        for mapping in (_plain, _ordered)
        for kind in ("keys", "values", "items")
    },
}

# Classes found by their name among the bases of a type, so that nothing has to be imported for it.
BY_NAME: dict[tuple[str, str], Any] = {
    ("logging", "Logger"): reduce_logger,
    ("_struct", "Struct"): reduce_struct,
    ("matplotlib.cbook", "CallbackRegistry"): reduce_callback_registry,
}
