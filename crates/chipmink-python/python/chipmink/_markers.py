"""What reducers and the walker say to each other beyond a reduce tuple."""

from __future__ import annotations

import weakref
from types import CodeType, FunctionType
from typing import Any

__all__ = ["NAMESPACE", "CapturedGlobals", "Context", "DeviceBytes", "NamespaceMarker", "SharedBytes", "Side", "Stub", "Value", "place_of"]


def place_of(kind: type) -> tuple[str, str]:
    """Module and name of a class. A class that was made where nothing says what module it is has none."""
    return str(getattr(kind, "__module__", "")), kind.__qualname__


class NamespaceMarker:
    """Stands for the saved namespace, which on load is the dict that the names are loaded into."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "NAMESPACE"


NAMESPACE = NamespaceMarker()


class Side:
    """A str, bytes or int that is stored beside the pod and enters no digest, such as a file name or a line number."""

    __slots__ = ("value",)

    def __init__(self, value: str | bytes | int) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Side({self.value!r})"


class SharedBytes:
    """Bytes that ``owner`` has mapped at an address, and that other processes may write: read without touching them.

    It loads as a bytearray.
    """

    __slots__ = ("address", "byte_len", "owner")

    def __init__(self, owner: Any, address: int, byte_len: int) -> None:
        self.owner = owner
        self.address = address
        self.byte_len = byte_len

    def __repr__(self) -> str:
        return f"SharedBytes({self.address:#x}, {self.byte_len})"


class DeviceBytes:
    """Bytes in memory of a CUDA device, which ``owner`` keeps and to which the program writes in ``streams``.

    These wait for a save that the program does not wait for; if ``is_deferred``, not before they are told. It loads as a
    bytearray.
    """

    __slots__ = ("address", "byte_len", "device", "is_deferred", "owner", "streams")

    def __init__(
        self, owner: Any, device: int, address: int, byte_len: int, streams: list[int], is_deferred: bool = False
    ) -> None:
        self.owner = owner
        self.device = device
        self.address = address
        self.byte_len = byte_len
        self.streams = streams
        self.is_deferred = is_deferred

    def __repr__(self) -> str:
        return f"DeviceBytes({self.device}, {self.address:#x}, {self.byte_len})"


class Stub:
    """The answer of a reducer for an object that cannot be saved: it loads as a placeholder."""

    __slots__ = ("kind", "reason", "type_name")

    def __init__(self, kind: str, type_name: str, reason: str) -> None:
        self.kind = kind
        self.type_name = type_name
        self.reason = reason

    def __repr__(self) -> str:
        return f"Stub({self.kind!r}, {self.type_name!r}, {self.reason!r})"


class Value:
    """What an immutable description is made of: a call, or an object saved by name if there are no arguments.

    ``callable`` is ``"module:qualname"``. The arguments are atoms, importable classes, other values, and tuples, lists and
    dicts of them, which nobody changes any more.
    """

    __slots__ = ("arguments", "callable")

    def __init__(self, callable: str, arguments: tuple[Any, ...] | None = None) -> None:
        self.callable = callable
        self.arguments = arguments

    def __repr__(self) -> str:
        return self.callable if self.arguments is None else f"{self.callable}{self.arguments!r}"


class CapturedGlobals:
    """Stands for the globals dict that functions saved by value share; it loads as a dict.

    One object per live globals dict, over all walks, so that the walker's memo knows it again. It holds no reference
    to the dict or its values.
    """

    __slots__ = ("__weakref__", "name", "package")

    def __init__(self, name: str | None, package: str | None) -> None:
        self.name = name
        self.package = package


class Context:
    """What reducers need to know of the walk that asks them.

    ``namespace`` is the dict being saved; ``None`` if a single object is. One context may serve any number of walks.
    """

    # Both process-wide: the stand-in of a globals dict is found again as long as a function that was reduced with it
    # lives, which keeps the dict alive, so that its address is not reused meanwhile.
    _stand_ins: weakref.WeakValueDictionary[int, CapturedGlobals] = weakref.WeakValueDictionary()
    _holders: weakref.WeakKeyDictionary[FunctionType, CapturedGlobals] = weakref.WeakKeyDictionary()

    def __init__(self, namespace: dict[str, Any] | None = None) -> None:
        self.namespace = namespace
        #: The globals of the function that is reduced now were met in this walk, as a dict of the program.
        self.has_met_globals = False
        self._names: dict[str, None] = {}

    @property
    def epoch(self) -> int:
        """Names all that answers of rules depend on, but for the objects: how things of elsewhere are saved, and where."""
        from chipmink import _remote

        return _remote.saving().epoch

    def add_names(self, names: tuple[str, ...]) -> None:
        """Notes names of the namespace that a function reads."""
        self._names.update(dict.fromkeys(names))

    def take_names(self) -> tuple[str, ...]:
        """The names of the namespace that the functions reduced since the last call read, in order of first use."""
        names = tuple(self._names)
        self._names.clear()
        return names

    def captured_globals(self, function: FunctionType) -> CapturedGlobals:
        """The stand-in for the globals dict of a function."""
        global_names = function.__globals__
        key = id(global_names)
        found = self._stand_ins.get(key)
        if found is None:
            found = CapturedGlobals(_text(global_names, "__name__"), _text(global_names, "__package__"))
            self._stand_ins[key] = found
        self._holders[function] = found
        return found


def _text(global_names: dict[str, Any], key: str) -> str | None:
    value = global_names.get(key)
    return value if type(value) is str else None


def code_names(code: CodeType) -> tuple[str, ...]:
    """The global names that a code object and the code nested in it read, write or delete, in order of first use."""
    found = _code_names.get(code)
    if found is None:
        names: dict[str, None] = {}
        _scan(code, names)
        found = _code_names[code] = tuple(names)
    return found


_code_names: weakref.WeakKeyDictionary[CodeType, tuple[str, ...]] = weakref.WeakKeyDictionary()


def _scan(code: CodeType, names: dict[str, None]) -> None:
    from chipmink._opcodes import global_names

    for name in global_names(code):
        names.setdefault(name)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _scan(constant, names)
