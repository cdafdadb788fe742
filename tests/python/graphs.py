"""Random object graphs, and random programs that change them.

Everything is drawn from one `random.Random`-like source, so a graph is a function of its seed, and hypothesis can drive
the same code with a source that it shrinks. `Program` keeps the namespace and the names that a step touched, which is
what a caller of ``save(accessed=...)`` has to know.

What is left out, because no order of construction can restore it: a frozenset or a tuple of reduce arguments that leads
back to itself without an object with state in between, and members of frozensets or of reduce arguments whose hash
needs state that leads back there.
"""

from __future__ import annotations

import builtins
import collections
import functools
from collections.abc import Callable, Iterator
from typing import Any

import graph_types as kinds

try:
    import numpy
except ImportError:
    numpy = None  # type: ignore[assignment]

Source = Any
#: Types of children that are never descended into.
_LEAVES = (str, bytes, int, float, complex, bool, type(None), kinds.Colour, kinds.Bits, kinds.FrozenPoint)


def make_atom(source: Source) -> Any:
    """An exact immutable atom; among them the awkward ones."""
    choice = source.randrange(12)
    if choice < 4:
        return source.choice((0, 1, -1, 255, 256, -129, 1 << 31, -(1 << 63), 1 << 64, -(1 << 200), source.randrange(1 << 16)))
    if choice < 6:
        return source.choice((0.0, -0.0, 1.5, float("inf"), float("nan"), 1e-310, source.randrange(1000) / 8))
    if choice < 9:
        return source.choice(("", "a", "name", "ünïcode", "\U0001f40d", "\ud800", "zero\x00", "x" * 600, f"s{source.randrange(50)}"))
    if choice < 10:
        return source.choice((b"", b"\x00\xff", b"y" * 700, bytes([source.randrange(256)]) * 3))
    return source.choice((None, True, False, 1j, complex(-0.0, float("nan")), Ellipsis))


def make_closure(value: Any) -> Callable[[Any], Any]:
    """A function by value: its cell can be part of a cycle."""

    def inner(argument: Any = None) -> Any:
        nonlocal value
        if argument is not None:
            value = argument
        return value

    return inner


def _hashable(program: Program, depth: int = 0) -> Any:
    """Something that may stand as a key or a member."""
    source = program.source
    choice = source.randrange(10)
    if choice < 4:
        return make_atom(source)
    if choice < 5:
        return kinds.FrozenPoint(source.randrange(5), "y")
    if choice < 6:
        return source.choice((kinds.Colour.RED, kinds.Colour.GREEN, kinds.Bits.A | kinds.Bits.C))
    if choice < 8 and depth < 2:
        return tuple(_hashable(program, depth + 1) for _ in range(source.randrange(3)))
    kind = source.choice((kinds.Key, kinds.SlottedKey))
    return kind(program.next_ident(), program.pick() if source.randrange(2) else None)


def _fixed(program: Program) -> Any:
    """A member of a frozenset or of a set subclass: its hash needs nothing that leads back."""
    source = program.source
    return source.choice((make_atom(source), kinds.FrozenPoint(source.randrange(9), "z"), kinds.Colour.RED, ("t", source.randrange(9))))


class Program:
    """A namespace under random change."""

    def __init__(self, source: Source, size: int = 16):
        self.source = source
        self.namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
        #: Names through which objects were read or written since this was last cleared.
        self.touched: set[str] = set()
        self._pool: list[Any] = []
        self._idents = 0
        self._names = 0
        for _ in range(source.randrange(1, size + 1)):
            self._pool.append(self.make())
        for _ in range(source.randrange(2 * size)):
            self.change(source.choice(self._pool))
        for _ in range(source.randrange(1, 8)):
            self.namespace[self.new_name()] = source.choice(self._pool) if source.randrange(5) else make_atom(source)
        self._pool.clear()

    def next_ident(self) -> int:
        self._idents += 1
        return self._idents

    def new_name(self) -> str:
        self._names += 1
        return f"v{self._names}"

    def pick(self) -> Any:
        """An object of the graph, or a new atom."""
        if self._pool and self.source.randrange(4):
            return self.source.choice(self._pool)
        return make_atom(self.source)

    def run(self, source: str) -> None:
        """Runs a statement of the session: what it defines is `__main__`'s, and saved by value."""
        exec(compile(source, "<cell>", "exec"), self.namespace)

    def some(self, limit: int = 4) -> list[Any]:
        return [self.pick() for _ in range(self.source.randrange(limit))]

    def make(self) -> Any:
        """A new object that refers to some of the pool."""
        return self.source.choice(_MAKERS)(self)

    # -- change

    def walk_from_name(self) -> Any:
        """An object reached from a name by a random walk; the name counts as touched."""
        if not self.namespace:
            return None
        source = self.source
        name = source.choice(list(self.namespace))
        self.touched.add(name)
        value = self.namespace[name]
        for _ in range(source.randrange(6)):
            below = [child for child in children(value) if not isinstance(child, _LEAVES)]
            if not below:
                break
            value = source.choice(below)
        return value

    def step(self) -> None:
        """One statement of a program: change an object in place, bind, rebind, swap or delete names."""
        source = self.source
        namespace = self.namespace
        choice = source.randrange(16)
        # What this statement can put into others: something read, something new.
        self._pool = [self.walk_from_name(), self.walk_from_name()]
        if source.randrange(3) == 0:
            self._pool.append(self.make())
        if choice < 9:
            self.change(self.walk_from_name())
        elif choice < 11 or not namespace:
            namespace[self.new_name()] = self.pick()
        elif choice < 12:
            name = source.choice(list(namespace))
            if not name.startswith("__"):
                namespace[name] = self.pick()
        elif choice < 14:
            self.define()
        elif choice < 15:
            one, other = source.choice(list(namespace)), source.choice(list(namespace))
            self.touched |= {one, other}
            if not one.startswith("__") and not other.startswith("__"):
                namespace[one], namespace[other] = namespace[other], namespace[one]
        else:
            gone = source.choice(list(namespace))
            if not gone.startswith("__"):
                del namespace[gone]
        self._pool = []

    def define(self) -> None:
        """A function that reads names of the namespace, a class, or an instance of a class of the session."""
        source = self.source
        classes = [name for name, value in self.namespace.items() if is_local_class(value)]
        choice = source.randrange(4)
        if choice == 0:
            read = source.choice(list(self.namespace) or ["nothing"])
            name = self.new_name()
            self.run(f"def {name}(x=0):\n    return {read if read.isidentifier() else 'x'}, x, {source.randrange(9)}")
        elif choice == 1 or not classes:
            base = source.choice(classes) if classes and source.randrange(2) else "object"
            if base != "object":
                self.touched.add(base)
            name = self.new_name()
            self.run(f"class {name}({base}):\n    tag = {source.randrange(9)}\n    def get(self):\n        return self.value, {name}")
        else:
            name = source.choice(classes)
            self.touched.add(name)
            instance = self.namespace[name]()
            instance.value = self.pick()
            self.namespace[self.new_name()] = source.choice((instance, [instance], {"i": instance}))

    def change(self, value: Any) -> None:
        """Changes an object in place, if it can be."""
        source = self.source
        if is_local_class(value):
            setattr(value, source.choice(("tag", "more", "registry")), self.pick())
        elif is_local_class(type(value)):
            value.value = self.pick()
        elif numpy is not None and isinstance(value, numpy.ndarray):
            if value.size:
                value.flat[source.randrange(value.size)] = self.pick() if value.dtype.hasobject else source.randrange(100)
        elif isinstance(value, kinds.ReducedAll):
            source.choice((value.append, lambda item: value.__setitem__(make_atom(source), item), lambda item: setattr(value, "content", item)))(self.pick())
        elif isinstance(value, list):
            self._change_list(value)
        elif isinstance(value, dict):
            if isinstance(value, collections.Counter):  # saved through reduce arguments: no way back through it
                value[f"w{source.randrange(5)}"] += 1
            elif value and source.randrange(3) == 0:
                del value[source.choice(list(value))]
            else:
                value[_hashable(self)] = self.pick()
            if isinstance(value, collections.OrderedDict) and value:
                value.move_to_end(source.choice(list(value)))
        elif isinstance(value, kinds.SetChild):
            value.add(_fixed(self))
        elif isinstance(value, set):
            if value and source.randrange(3) == 0:
                value.pop()
            else:
                value.add(_hashable(self))
        elif isinstance(value, collections.deque):
            value.append(self.pick())
        elif isinstance(value, bytearray):
            value += bytes(source.randrange(5))
        elif isinstance(value, kinds.Plain | kinds.Sibling):
            self._change_plain(value)
        elif isinstance(value, kinds.Slotted):
            setattr(value, source.choice(("left", "right", "extra")), self.pick())
        elif isinstance(value, kinds.Reduced):
            value.items.append(self.pick())
        elif isinstance(value, kinds.Key | kinds.SlottedKey | kinds.Record | kinds.ReducedWithState | kinds.WithGetState):
            value.content = self.pick()
        elif isinstance(value, kinds.TupleChild | kinds.StrChild | kinds.IntChild | kinds.WithNewArgs):
            value.content = self.pick()  # type: ignore[union-attr]
        elif callable(value) and getattr(value, "__closure__", None):
            value(self.pick())

    def _change_list(self, value: list[Any]) -> None:
        choice = self.source.randrange(6)
        if value and choice == 0:
            value.pop()
        elif value and choice < 3:
            value[self.source.randrange(len(value))] = self.pick()
        elif len(value) > 1 and choice == 3:
            value.reverse()
        else:
            value.append(self.pick())

    def _change_plain(self, value: Any) -> None:
        choice = self.source.randrange(8)
        if choice == 0:
            value.__class__ = kinds.Sibling if type(value) is kinds.Plain else kinds.Plain
        elif choice == 1 and vars(value):
            delattr(value, self.source.choice(list(vars(value))))
        elif choice == 2 and vars(value):
            name, entry = vars(value).popitem()
            setattr(value, name + "_moved", entry)
        else:
            setattr(value, self.source.choice("abcd"), self.pick())


def is_local_class(value: Any) -> bool:
    """Whether this is a class that a session defined."""
    return isinstance(value, type) and value.__module__ == "__main__"


def children(value: Any) -> Iterator[Any]:
    """The objects that a program reaches from this one in one step."""
    if isinstance(value, type):
        if is_local_class(value):
            yield from (value.__base__, *(vars(value).get(name) for name in ("tag", "more", "registry")))
        return
    if is_local_class(type(value)):
        yield type(value)
    if numpy is not None and isinstance(value, numpy.ndarray):
        yield from value.ravel().tolist() if value.dtype.hasobject else ()
        return
    if isinstance(value, kinds.ReducedAll):  # its list and dict are its own business: their identity is not saved
        yield from (*value.list_items, *value.dict_items, *value.dict_items.values(), value.content)
        return
    if isinstance(value, dict):
        yield from value.keys()
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset | collections.deque):
        yield from value
    if isinstance(value, kinds.Slotted):
        yield from (getattr(value, name) for name in ("left", "right", "extra") if hasattr(value, name))
    elif isinstance(value, kinds.SlottedKey):
        yield value.content
    elif isinstance(value, functools.partial):
        yield from value.args
    elif callable(value) and getattr(value, "__closure__", None):
        yield value()
    if callable(value) and getattr(value, "__globals__", {}).get("__name__") == "__main__":
        return  # what it reads are names, which a program touches when it runs
    yield from getattr(value, "__dict__", {}).values() if not callable(value) else ()


def _tuple_cycle(program: Program) -> Any:
    """A tuple that holds a list that holds the tuple."""
    inner: list[Any] = program.some(3)
    outer = (inner, *program.some(3))
    inner.append(outer)
    return outer


def _reduce_cycle(program: Program) -> Any:
    """An object among whose reduce arguments is a list that holds the object."""
    made = kinds.Reduced(program.some(3), "r")
    made.items.append(made if program.source.randrange(2) else [made])
    return made


def _key_cycle(program: Program) -> Any:
    """A dict or set with a member whose state leads back to it."""
    key = program.source.choice((kinds.Key, kinds.SlottedKey))(program.next_ident())
    holder: Any
    if program.source.randrange(2):
        holder = {key: program.pick(), "after": 1}
    else:
        holder = {key, "after"}
    key.content = program.source.choice((holder, [holder], (holder,)))
    return holder if program.source.randrange(2) else key


def _tuple_key(program: Program) -> Any:
    """A dict whose key is a tuple that holds an object with a hash of its own, and a cycle through it."""
    key = kinds.Key(program.next_ident())
    holder: dict[Any, Any] = {0: 1, (key, "k"): 2, 3: 4}
    key.content = holder
    return holder


def _array(program: Program) -> Any:
    """An array: small, a large one that leaves the stream, or one of objects."""
    source = program.source
    if numpy is None:
        return program.some()
    choice = source.randrange(5)
    if choice == 0:
        array = numpy.empty(source.randrange(5), dtype=object)
        for position in range(array.size):
            array[position] = program.pick()
        return array
    if choice == 1:
        return numpy.arange(source.choice((9_000, 20_000)), dtype="f8")
    array = numpy.arange(source.randrange(12)).astype(source.choice(("i2", "f4", "u8", "?", "c16")))
    return array.reshape(-1, 2) if array.size % 2 == 0 and choice == 2 else array


def _long(program: Program) -> Any:
    """Strings and bytes beyond the sizes at which they count as atoms, or leave the stream."""
    text = chr(program.source.choice((97, 233, 1046, 128013))) * program.source.choice((513, 5_000, 40_000, 70_000))
    return [text, [text.encode()], bytearray(text, "utf-8"), program.source.randrange(5)]


def _with_attributes(kind: Callable[[Program], Any]) -> Callable[[Program], Any]:
    def make(program: Program) -> Any:
        value = kind(program)
        for name in "ab"[: program.source.randrange(3)]:
            setattr(value, name, program.pick())
        return value

    return make


def _slotted(kind: type) -> Callable[[Program], Any]:
    def make(program: Program) -> Any:
        value = kind()
        for name in ("left", "right")[: program.source.randrange(3)]:
            setattr(value, name, program.pick())
        return value

    return make


def _fill(program: Program, value: Any) -> Any:
    for _ in range(program.source.randrange(4)):
        value[_hashable(program)] = program.pick()
    return value


_MAKERS: tuple[Callable[[Program], Any], ...] = (
    lambda p: p.some(6),
    lambda p: p.some(),
    lambda p: _fill(p, {}),
    lambda p: _fill(p, {}),
    lambda p: tuple(p.some()),
    lambda p: tuple(p.some()),
    lambda p: {_hashable(p) for _ in range(p.source.randrange(5))},
    lambda p: frozenset(_fixed(p) for _ in range(p.source.randrange(4))),
    lambda p: bytearray(p.source.randrange(40)),
    lambda p: collections.deque(p.some(), p.source.choice((None, 5))),
    lambda p: _fill(p, collections.defaultdict(list)),
    lambda p: _fill(p, collections.OrderedDict()),
    lambda p: _fill(p, kinds.OrderedChild()),
    lambda p: collections.Counter("abcab"[: p.source.randrange(6)]),
    _with_attributes(lambda p: kinds.Plain()),
    _with_attributes(lambda p: kinds.Plain()),
    _with_attributes(lambda p: kinds.Sibling()),
    _slotted(kinds.Slotted),
    _with_attributes(_slotted(kinds.SlottedDict)),
    lambda p: kinds.Record(p.source.randrange(99), p.pick(), p.some()),
    lambda p: kinds.FrozenPoint(p.source.randrange(9), "p"),
    lambda p: kinds.Pair(p.pick(), p.pick()),
    lambda p: p.source.choice((kinds.Colour.RED, kinds.Bits.A | kinds.Bits.B)),
    _with_attributes(lambda p: kinds.ListChild(p.some())),
    _with_attributes(lambda p: _fill(p, kinds.DictChild())),
    _with_attributes(lambda p: kinds.TupleChild(p.some())),
    _with_attributes(lambda p: kinds.SetChild(_fixed(p) for _ in range(3))),
    _with_attributes(lambda p: kinds.StrChild("child")),
    _with_attributes(lambda p: kinds.IntChild(7)),
    lambda p: kinds.Reduced(p.some(), "r"),
    lambda p: kinds.ReducedWithState(p.source.randrange(9)),
    lambda p: kinds.ReducedAll(p.source.randrange(9)),
    lambda p: kinds.WithNewArgs(number=p.source.randrange(9)),
    lambda p: kinds.WithGetState(p.pick(), "note"),
    lambda p: kinds.Key(p.next_ident(), p.pick()),
    lambda p: make_closure(p.pick()),
    lambda p: functools.partial(max, p.pick(), p.pick()),
    _array,
    _array,
    _long,
    _tuple_cycle,
    _reduce_cycle,
    _key_cycle,
    _tuple_key,
)
