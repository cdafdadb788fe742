"""An independent account of what an object graph is, to compare a graph with its loaded copy.

``canonical(namespace)`` reads the graph *before* a save and returns a `Canon`: a flat list of nodes that holds no
reference to the program's objects. Two graphs are isomorphic (values, exact types, which objects are one and the same,
cycles, order of dicts) if their canons are equal. `describe_difference` names the first place where they are not.

It shares no code and no method with the product: it uses no pickle stream, no `copy`, no memo of a pickler. It refuses
objects that no pickler can save (TypeError), and asks `__reduce_ex__` only of types written in C that it does not know.

Invariants:

1. The identity of every object counts, except of exact immutable atoms (None, bool, int, float, complex, str, bytes,
   Ellipsis, NotImplemented, the empty tuple), of what is saved by name, of dtypes and of code objects.
2. Floats count bit by bit: NaN payloads and the sign of zero.
3. Sets have no order: members are compared by colour refinement over the whole graph, in both directions.
4. No recursion over the graph: nesting is bounded by memory only.
5. No user code runs, except `__reduce_ex__` of unknown C types and what a metaclass does on attribute access.
"""

from __future__ import annotations

import collections
import copyreg
import enum
import functools
import hashlib
import pathlib
import struct
import sys
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import foreign

Atom = tuple[Any, ...]
#: A child is the number of a node, or an atom.
Child = int | Atom

_LONG = 256
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE of CPython's object.h
_WORD = 8
_PLAIN_CONTAINERS = frozenset({list, dict, tuple, set, frozenset, bytearray})


@dataclass(slots=True)
class _Raw:
    """A node while the graph is discovered: children ``[ordered..., members...]``."""

    label: Atom
    children: list[Child]
    unordered: int = 0


@dataclass(frozen=True, slots=True)
class Canon:
    """The canonical graph: node 0 is the namespace."""

    nodes: list[tuple[Atom, tuple[Child, ...]]]
    #: For each node the node and child position through which it was first met; for messages only.
    parents: list[tuple[int, int]]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Canon) and self.nodes == other.nodes

    def __len__(self) -> int:
        return len(self.nodes)

    def path(self, node: int) -> str:
        """The way from the namespace to a node, for messages."""
        steps: list[str] = []
        while node and len(steps) < 30:
            parent, position = self.parents[node]
            steps.append(f"{self.nodes[parent][0][0]}[{position}]")
            node = parent
        return " > ".join(reversed(steps)) or "the namespace"


def bytes_atom(kind: str, data: Any) -> Atom:
    """An atom for a value of bytes; long ones stand as length and hash."""
    view = memoryview(data)
    if view.nbytes <= _LONG:
        return (kind, view.tobytes())
    return (kind, view.nbytes, hashlib.blake2b(view, digest_size=16).digest())


def atom(value: Any) -> Atom | None:
    """The atom for an exact immutable atom; None for anything else."""
    kind = type(value)
    if kind is str:
        return ("str", value) if len(value) <= _LONG else bytes_atom("str", value.encode("utf-8", "surrogatepass"))
    if kind is int:
        return ("int", value)
    if kind is float:
        return ("float", struct.pack(">d", value))
    if value is None or kind is bool or value is Ellipsis or value is NotImplemented:
        return ("singleton", repr(value))
    if kind is bytes:
        return bytes_atom("bytes", value)
    if kind is complex:
        return ("complex", struct.pack(">dd", value.real, value.imag))
    if kind is tuple and not value:
        return ("tuple",)
    return None


def importable(value: Any) -> str | None:
    """``module.qualname`` if that name leads to this very object, outside ``__main__``."""
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    if not isinstance(name, str):
        return None
    for candidate in (module,) if isinstance(module, str) else ("builtins", *_modules_of(value)):
        if candidate == "__main__":
            continue
        found: Any = sys.modules.get(candidate)
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is value:
            return f"{candidate}.{name}"
    return None


def _modules_of(value: Any) -> Iterable[str]:
    """Modules to search for a function that does not know its module (numpy's ufuncs)."""
    yield from ("numpy",) if type(value).__module__ == "numpy" else ()


def _code_atom(code: types.CodeType) -> Atom:
    """Code is a value: everything that its execution and its traceback can see."""
    parts: list[Any] = [
        code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, code.co_argcount,
        code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags, code.co_stacksize, code.co_name,
        getattr(code, "co_qualname", ""), code.co_filename, code.co_firstlineno, code.co_linetable,
        getattr(code, "co_exceptiontable", b""), _constant(code.co_consts),
    ]  # fmt: skip
    return ("code", code.co_name, hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest())


def _constant(value: Any) -> Any:
    """A constant of code, with types told apart and frozensets in an order of their own."""
    if isinstance(value, types.CodeType):
        return _code_atom(value)
    if isinstance(value, tuple):
        return ("tuple", [_constant(item) for item in value])
    if isinstance(value, frozenset):
        return ("frozenset", sorted(repr(_constant(item)) for item in value))
    return (type(value).__name__, atom(value))


#: Class attributes that a class statement or the interpreter makes anew, or that are caches.
_CLASS_NOISE = frozenset(
    "__dict__ __weakref__ __abstractmethods__ _abc_impl __slotnames__ __firstlineno__ __static_attributes__ "
    "__subclasshook__ __orig_bases__ __parameters__ __classcell__ __annotate__ __annotate_func__ __annotations_cache__ "
    "_member_map_ _value2member_map_ _member_names_ _unhashable_values_ _hashable_values_ _use_args_ _new_member_ "
    "_value_repr_ __new__".split()
)


def _code_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    stack = list(code.co_consts)
    while stack:
        constant = stack.pop()
        if isinstance(constant, types.CodeType):
            names.update(constant.co_names)
            stack.extend(constant.co_consts)
    return names


class _Discovery:
    """Phase 1: gives each object with an identity a number and lists its children."""

    def __init__(self, bound_globals: Mapping[str, Any] | None):
        self.raw: list[_Raw] = []
        self.number: dict[int, int] = {}
        self.keep: list[Any] = []
        self.pending: collections.deque[tuple[int, Any]] = collections.deque()
        self.bound_globals = bound_globals

    def child(self, value: Any) -> Child:
        found = atom(value)
        if found is not None:
            return found
        known = self.number.get(id(value))
        if known is not None:
            return known
        if type(value) not in _PLAIN_CONTAINERS:
            named = self.by_name(value)
            if named is not None:
                return named
        return self.enter(value)

    def enter(self, value: Any) -> int:
        number = len(self.raw)
        self.number[id(value)] = number
        self.keep.append(value)
        self.raw.append(_Raw((), []))
        self.pending.append((number, value))
        return number

    def by_name(self, value: Any) -> Atom | None:
        if isinstance(value, types.ModuleType):
            return ("module", value.__name__)
        if isinstance(value, types.CodeType):
            return _code_atom(value)
        if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType | types.MethodDescriptorType | types.WrapperDescriptorType):
            name = importable(value)
            if name is not None:
                return ("name", name)
            if value in (type(None), type(Ellipsis), type(NotImplemented), types.CellType, types.FunctionType, types.MappingProxyType):
                return ("name", value.__name__)
        if isinstance(value, enum.Enum) and importable(type(value)):
            return ("member", importable(type(value)), value.name if value.name is not None else repr(value.value))
        return foreign.by_name(value)

    def run(self) -> None:
        while self.pending:
            number, value = self.pending.popleft()
            label, children, unordered = self.expand(value)
            raw = self.raw[number]
            raw.label, raw.children, raw.unordered = label, children, unordered

    def many(self, values: Iterable[Any]) -> list[Child]:
        child = self.child
        return [child(value) for value in values]

    def pairs(self, mapping: Iterable[tuple[Any, Any]]) -> list[Child]:
        children: list[Child] = []
        for key, value in mapping:
            children.append(self.child(key))
            children.append(self.child(value))
        return children

    def expand(self, value: Any) -> tuple[Atom, list[Child], int]:
        kind = type(value)
        if kind is list or kind is tuple:
            return ((kind.__name__, len(value)), self.many(value), 0)
        if kind is dict:
            return (("dict", len(value)), self.pairs(value.items()), 0)
        if kind is set or kind is frozenset:
            return ((kind.__name__, len(value)), self.many(value), len(value))
        if kind is bytearray:
            return (bytes_atom("bytearray", bytes(value)), [], 0)
        special = self.special(value, kind) or foreign.expand(self, value, kind)
        if special is not None:
            return (*special, 0)
        return self.instance(value, kind)

    def special(self, value: Any, kind: type) -> tuple[Atom, list[Child]] | None:
        """Functions, classes and the little objects that they are made of."""
        if kind is types.FunctionType:
            return self.function(value)
        if isinstance(value, type):
            return self.by_value_class(value)
        if kind is types.CellType:
            try:
                return (("cell",), [self.child(value.cell_contents)])
            except ValueError:
                return (("cell", "empty"), [])
        if kind is types.MethodType:
            return (("method",), [self.child(value.__func__), self.child(value.__self__)])
        if kind is types.MappingProxyType:
            return (("mappingproxy",), self.pairs(value.items()))
        if kind in (staticmethod, classmethod):
            return ((kind.__name__,), [self.child(value.__func__)])
        if kind is property:
            return (("property", value.__doc__), self.many((value.fget, value.fset, value.fdel)))
        if kind is functools.partial:
            return (("partial",), self.many((value.func, value.args, value.keywords)) + self.pairs(value.__dict__.items()))
        if isinstance(value, pathlib.PurePath):  # what it keeps besides differs by how it was made
            return (("path", *value.parts), [self.child(kind)])
        if isinstance(value, BaseException):
            extra = [getattr(value, name, None) for name in ("errno", "strerror", "filename", "name", "path", "msg")]
            return (("exception",), [self.child(kind), *self.many(value.args), *self.many(extra), *self.pairs(value.__dict__.items())])
        return None

    def function(self, value: types.FunctionType) -> tuple[Atom, list[Child]]:
        label = ("function", value.__name__, value.__qualname__, value.__module__, value.__doc__)
        children: list[Child] = [_code_atom(value.__code__), self.child(value.__defaults__)]
        children += self.pairs((value.__kwdefaults__ or {}).items())
        children += self.pairs(value.__annotations__.items())
        children += self.pairs(value.__dict__.items())
        children += self.many(value.__closure__ or ())
        used = sorted(name for name in _code_names(value.__code__) if name in value.__globals__)
        children += [("global", name) for name in used]
        if value.__globals__ is not self.bound_globals and value.__module__ != "__main__":
            children += self.many(value.__globals__[name] for name in used)
        return label, children

    def by_value_class(self, value: type) -> tuple[Atom, list[Child]]:
        label = ("class", value.__name__, value.__qualname__, value.__module__, value.__doc__)
        children = [self.child(type(value)), *self.many(value.__bases__)]
        # Enum classes hold their members both as attributes and in tables; the members in order are the value.
        members = list(value.__members__.items()) if isinstance(value, enum.EnumType) else []
        children += [part for name, member in members for part in (("str", name), self.child(member._value_))]
        names = dict(members)
        for name, entry in sorted(vars(value).items()):
            if name in _CLASS_NOISE or name in names or isinstance(entry, types.GetSetDescriptorType | types.MemberDescriptorType):
                continue
            children += [("str", name), self.child(entry)]
        return label, children

    def instance(self, value: Any, kind: type) -> tuple[Atom, list[Child], int]:
        """An object of a Python class, perhaps over a builtin base; else what its reducer says."""
        if isinstance(value, enum.Enum):
            return (("member", value.name), [self.child(kind)], 0)
        inner = _inner_of(value, _solid_base(kind))
        if inner is None:
            return self.reduced(value, kind)
        label, values, members = inner
        children: list[Child] = [self.child(kind), *self.many(values)]
        try:
            attributes = object.__getattribute__(value, "__dict__")
        except AttributeError:
            attributes = None
        if isinstance(attributes, dict):
            children.append(("attributes",))
            children += self.pairs(attributes.items())
        for name, slot in _slots(kind):
            try:
                children += [("slot", name), self.child(slot.__get__(value))]
            except AttributeError:
                pass
        if members:  # members stand last
            children += self.many(members)
        return label, children, len(members)

    def reduced(self, value: Any, kind: type) -> tuple[Atom, list[Child], int]:
        registered = copyreg.dispatch_table.get(kind)
        parts = registered(value) if registered else value.__reduce_ex__(4)
        if isinstance(parts, str):
            return (("global", parts), [self.child(kind)], 0)
        self.keep.append(parts)
        children: list[Child] = [self.child(kind), self.child(parts[0]), *self.many(parts[1])]
        if len(parts) > 2:
            children += [("state",), self.child(parts[2])]
        for items in parts[3:5]:
            if items is not None:
                items = list(items)
                self.keep.append(items)
                children += [("items",), *(self.many(items))]
        return ("reduced",), children, 0


@functools.cache
def _solid_base(kind: type) -> type:
    """The first base that brings C state of its own; `object` if none does.

    A class statement adds room for slots, a dict and a weakref list only; any other growth of the instance is C state.
    """
    while kind.__flags__ & _HEAP_TYPE:
        base = kind.__base__
        assert base is not None
        extra = kind.__basicsize__ - base.__basicsize__
        if "__slots__" in vars(kind):
            extra -= _WORD * sum(isinstance(entry, types.MemberDescriptorType) for entry in vars(kind).values())
        if kind.__weakrefoffset__ > 0 and base.__weakrefoffset__ == 0:
            extra -= _WORD
        if kind.__dictoffset__ not in (0, -1) and base.__dictoffset__ == 0:
            extra -= _WORD
        if extra > 0 or kind.__itemsize__ != base.__itemsize__:
            return kind
        kind = base
    return kind


def _slots(kind: type) -> list[tuple[str, Any]]:
    return [
        (name, entry)
        for parent in reversed(kind.__mro__)
        if parent.__flags__ & _HEAP_TYPE
        for name, entry in vars(parent).items()
        if isinstance(entry, types.MemberDescriptorType)
    ]


def _inner_of(value: Any, base: type) -> tuple[Atom, list[Any], list[Any]] | None:
    """What the builtin part of an instance holds: label, ordered children, members; None for a base not known here."""
    if base is object:
        return ("object",), [], []
    if base is list or base is tuple:
        return ("object over", base.__name__, base.__len__(value)), list(base.__iter__(value)), []
    if base in (dict, collections.OrderedDict, collections.defaultdict):
        items = [part for pair in base.items(value) for part in pair]
        factory = [value.default_factory] if base is collections.defaultdict else []
        return ("object over", base.__name__, dict.__len__(value)), factory + items, []
    if base in (set, frozenset):
        return ("object over", base.__name__, base.__len__(value)), [], list(base.__iter__(value))
    if base is collections.deque:
        return ("object over", "deque", value.maxlen), list(base.__iter__(value)), []
    if base is bytearray:
        return ("object over", "bytearray", bytes_atom("bytes", base.__getitem__(value, slice(None)))), [], []
    for exact in (int, float, complex, str, bytes):
        if base is exact:
            return ("object over", exact.__name__, atom(_PLAIN[exact](value))), [], []
    return None


_PLAIN: dict[type, Any] = {
    int: int.__int__,
    float: float.__float__,
    complex: lambda value: complex(value.real, value.imag),
    str: lambda value: "".join(str.__iter__(value)),
    bytes: lambda value: bytes(bytes.__iter__(value)),
}


def _colours(raw: list[_Raw]) -> list[int]:
    """Colour refinement in both directions until the number of colours stands still."""
    if not any(sum(isinstance(child, int) for child in node.children[len(node.children) - node.unordered :]) > 1 for node in raw):
        return [0] * len(raw)

    def rank(keys: list[Any]) -> list[int]:
        # A stable numbering that depends on the keys alone, not on the order of discovery.
        order = {key: position for position, key in enumerate(sorted(set(keys)))}
        return [order[key] for key in keys]

    colours = rank([repr(node.label) for node in raw])
    distinct = len(set(colours))
    while True:
        incoming: list[list[str]] = [[] for _ in raw]
        for number, node in enumerate(raw):
            fixed = len(node.children) - node.unordered
            for position, child in enumerate(node.children):
                if isinstance(child, int):
                    incoming[child].append(f"{colours[number]}.{min(position, fixed)}")
        keys = []
        for number, node in enumerate(raw):
            fixed = len(node.children) - node.unordered
            shown = [str(colours[child]) if isinstance(child, int) else repr(child) for child in node.children]
            keys.append(repr((colours[number], shown[:fixed], sorted(shown[fixed:]), sorted(incoming[number]))))
        colours = rank(keys)
        now = len(set(colours))
        if now == distinct:
            return colours
        distinct = now


def canonical(namespace: Mapping[str, Any], names: Iterable[str] | None = None, bound_globals: Mapping[str, Any] | None = None) -> Canon:
    """The canonical graph of a namespace, or of some of its names (in sorted order).

    Functions whose globals are `bound_globals`, and functions of `__main__`, count the names they read, not the
    values: they are bound to whatever namespace they are loaded into.
    """
    discovery = _Discovery(bound_globals)
    chosen = sorted(namespace if names is None else names)
    discovery.raw.append(_Raw(("namespace", *chosen), []))
    discovery.raw[0].children = discovery.many(namespace[name] for name in chosen)
    discovery.run()
    raw = discovery.raw
    colours = _colours(raw)

    def key(child: Child) -> tuple[int, int, str]:
        return (1, colours[child], "") if isinstance(child, int) else (0, 0, repr(child))

    number = {0: 0}
    order = [0]
    parents = [(0, 0)]
    nodes: list[tuple[Atom, tuple[Child, ...]]] = []
    for position, old in enumerate(order):  # grows while it is read
        node = raw[old]
        fixed = len(node.children) - node.unordered
        children = node.children
        if node.unordered > 1:
            children = children[:fixed] + sorted(children[fixed:], key=key)
        renumbered: list[Child] = []
        for place, child in enumerate(children):
            if isinstance(child, int):
                new = number.get(child)
                if new is None:
                    new = number[child] = len(order)
                    order.append(child)
                    parents.append((position, place))
                renumbered.append(new)
            else:
                renumbered.append(child)
        nodes.append((node.label, tuple(renumbered)))
    return Canon(nodes, parents)


def describe_difference(want: Canon, got: Canon) -> str:
    """The first place where two canons differ, in words."""
    for number, (left, right) in enumerate(zip(want.nodes, got.nodes, strict=False)):
        if left != right:
            return f"at {want.path(number)}: saved {_short(left)}, loaded {_short(right)}"
    return f"saved {len(want)} objects, loaded {len(got)}" if len(want) != len(got) else "no difference"


def _short(node: Any) -> str:
    text = repr(node)
    return text if len(text) <= 400 else text[:400] + "..."


def assert_same(want: Canon, namespace: Mapping[str, Any], names: Iterable[str] | None = None, note: str = "") -> None:
    """Raises AssertionError if a loaded namespace is not what `want` was taken from."""
    got = canonical(namespace, names, bound_globals=namespace)
    if want != got:
        raise AssertionError(f"{note}: {describe_difference(want, got)}" if note else describe_difference(want, got))
