"""The package's reducers driven by the standard pickler, as an independent stand-in for the walker.

It shows what a reducer yields and rebuilds, without pods and without the extension module. Like the walker, and unlike
the standard pickler, it writes every str by value, and frozensets of atoms in the order of their contents.
"""

from __future__ import annotations

import ast
import importlib
import io
import pickle
import types
from typing import Any

from chipmink import _reducers
from chipmink._placeholder import Placeholder
from chipmink._reduce_functions import importable_name


class ReferencePickler(pickle.Pickler):
    """Pickles with the rules of ``chipmink._reducers``; side values are dropped from the bytes into ``side``."""

    def __init__(self, file: io.BytesIO, context: _reducers.Context) -> None:
        super().__init__(file, protocol=5)
        self.context = context
        self.side: list[Any] = []
        self.names: list[str] = []

    def persistent_id(self, obj: Any) -> Any:
        if obj is _reducers.NAMESPACE:
            return b"namespace "
        if type(obj) is _reducers.Side:
            self.side.append(obj.value)
            return b"side %d" % (len(self.side) - 1)
        if type(obj) is str:
            return b"str " + obj.encode("utf-8", "surrogatepass")
        if type(obj) is frozenset and all(type(item) in (str, bytes, int, float, bool, type(None)) for item in obj):
            return b"frozenset " + repr(sorted(obj, key=repr)).encode("utf-8", "surrogatepass")
        return None

    def reducer_override(self, obj: Any) -> Any:
        kind = type(obj)
        if issubclass(kind, type):
            if importable_name(obj) is not None:
                return NotImplemented
            return _reducers.reduce_class(obj, self.context)
        if kind is types.FunctionType and importable_name(obj) is not None:
            return NotImplemented
        rule = _reducers.resolve(kind)
        if rule is None:
            return NotImplemented
        value = rule(obj, self.context)
        self.names.extend(self.context.take_names())
        if isinstance(value, _reducers.Stub):
            return Placeholder, (value.kind, value.type_name, value.reason)
        if type(value) is str and ":" in value:
            return named, tuple(value.split(":"))
        return value


def named(module: str, name: str) -> Any:
    """What a module has under a name."""
    return getattr(importlib.import_module(module), name)


class ReferenceUnpickler(pickle.Unpickler):
    """Loads what ``ReferencePickler`` wrote, binding functions to ``namespace``."""

    def __init__(self, file: io.BytesIO, side: list[Any], namespace: dict[str, Any] | None) -> None:
        super().__init__(file)
        self.side = side
        self.namespace = namespace

    def persistent_load(self, pid: bytes) -> Any:
        kind, _space, rest = pid.partition(b" ")
        if kind == b"namespace":
            return self.namespace
        if kind == b"side":
            return self.side[int(rest)]
        text = rest.decode("utf-8", "surrogatepass")
        return text if kind == b"str" else frozenset(ast.literal_eval(text))


def dump(obj: Any, namespace: dict[str, Any] | None = None) -> tuple[bytes, list[Any], list[str]]:
    """The hashed bytes, the side values and the name edges of an object."""
    file = io.BytesIO()
    pickler = ReferencePickler(file, _reducers.Context(namespace))
    pickler.dump(obj)
    return file.getvalue(), pickler.side, pickler.names


def load(data: bytes, side: list[Any], namespace: dict[str, Any] | None = None) -> Any:
    return ReferenceUnpickler(io.BytesIO(data), side, namespace).load()


def copy(obj: Any, namespace: dict[str, Any] | None = None, into: dict[str, Any] | None = None) -> Any:
    """Saves and loads."""
    data, side, _names = dump(obj, namespace)
    return load(data, side, into)
