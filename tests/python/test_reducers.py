"""Functions, classes and troublesome objects: what their reducers yield, through the standard pickler and through streams."""

from __future__ import annotations

import abc
import collections
import concurrent.futures
import copyreg
import dataclasses
import enum
import functools
import gc
import hashlib
import logging
import os
import queue
import socket
import sqlite3
import struct
import subprocess
import sys
import textwrap
import threading
import types
import typing
import weakref

import chipmink
import pytest
import reference_pickler
from chipmink import _reducers
from chipmink._placeholder import Placeholder

STREAMS = hasattr(chipmink._chipmink, "dumps")


@pytest.fixture(params=["reference", pytest.param("stream", marks=pytest.mark.skipif(not STREAMS, reason="no streams"))])
def copy(request):
    """Both implementations of saving and loading, on the same reducers."""
    if request.param == "reference":
        return reference_pickler.copy
    return lambda obj: chipmink.loads(chipmink.dumps(obj))


def run(source: str, name: str = "__main__") -> dict:
    """The globals after running a script that no import finds again."""
    namespace: dict = {"__name__": name}
    exec(compile(textwrap.dedent(source), f"<{name}>", "exec"), namespace)
    return namespace


def public(cls: type) -> dict:
    """The attributes of a class, without the note that copyreg leaves in it."""
    return {name: value for name, value in cls.__dict__.items() if name != "__slotnames__"}


# --- functions


def counter():
    count = 0

    def bump(by=1):
        nonlocal count
        count += by
        return count

    def read():
        return count

    return bump, read


def test_closures_keep_sharing_a_cell(copy):
    bump, read = counter()
    bump(3)
    bump2, read2 = copy((bump, read))
    assert bump2() == 4 and bump2() == 5
    assert read2() == 5 and read() == 3


def test_a_cell_shared_with_data(copy):
    def outer():
        items = [1]
        return items, lambda: items

    items, get = copy(outer())
    items.append(2)
    assert get() is items


def test_recursion_through_cells(copy):
    def outer():
        def even(n):
            return n == 0 or odd(n - 1)

        def odd(n):
            return n != 0 and even(n - 1)

        return odd

    assert copy(outer())(7) is True


def test_empty_cell(copy):
    def outer():
        def get():
            return later

        if False:
            later = 1
        return get

    with pytest.raises(NameError):
        copy(outer())()


def test_everything_a_function_has(copy):
    def f(a, b=[1], /, *args, c: int = 2, **kwargs) -> str:
        "The doc."
        return "x"

    f.extra = {"k": 1}
    f.__name__ = "g"
    f.__qualname__ = "outer.g"
    g = copy(f)
    assert (g.__name__, g.__qualname__, g.__doc__) == ("g", "outer.g", "The doc.")
    assert g.__defaults__ == ([1],) and g.__kwdefaults__ == {"c": 2}
    assert g.__annotations__ == f.__annotations__ and g.extra == {"k": 1}
    assert g.__module__ == f.__module__ and g(0) == "x"
    assert g.__code__.co_firstlineno == f.__code__.co_firstlineno
    assert g.__code__.co_filename == f.__code__.co_filename


def test_kinds_of_calls(copy):
    def gen(n):
        yield from range(n)

    async def co():
        return 1

    assert list(copy(gen)(3)) == [0, 1, 2]
    coroutine = copy(co)()
    with pytest.raises(StopIteration):
        coroutine.send(None)
    assert copy(lambda x, *y: (x, y))(1, 2) == (1, (2,))


def test_globals_of_a_script_are_captured_once(copy):
    script = run(
        """
        import os.path, collections.abc
        limit, unread = 10, object()
        def helper(x): return x + limit
        def caller(x):
            class Local:
                bound = limit
            return helper(x) + Local.bound + len(os.path.basename("a/b"))
        def setter(value):
            global limit
            limit = value
        """
    )
    caller, setter = copy((script["caller"], script["setter"]))
    assert caller(1) == 22
    setter(100)
    assert caller(1) == 202 and script["limit"] == 10
    assert caller.__globals__ is setter.__globals__
    assert "unread" not in caller.__globals__


def test_submodules_come_along():
    script = "import concurrent.futures\ndef f(): return concurrent.futures.Future\n"
    data, side, _names = reference_pickler.dump(run(script)["f"])
    code = textwrap.dedent(
        f"""
        import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})
        import reference_pickler
        print(reference_pickler.load({data!r}, {side!r})().__name__)
        """
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "Future\n"


def test_functions_made_by_a_library_use_its_live_globals(copy):
    partial_method = functools.singledispatch(lambda x: "default")
    copied = copy(partial_method)
    assert copied(1) == "default"
    assert copied.__globals__ is functools.__dict__


def test_functions_of_the_namespace_are_bound_to_it():
    namespace = run(
        """
        count = 5
        def bump(by):
            global count
            count += by
            return count + other
        nested = lambda: (lambda: deep)
        """
    )
    data, side, names = reference_pickler.dump([namespace["bump"], namespace["nested"]], namespace)
    assert names == ["count", "other", "deep"]
    target = {"count": 10, "other": 1, "deep": 7}
    bump, nested = reference_pickler.load(data, side, target)
    assert bump(2) == 13 and target["count"] == 12 and nested()() == 7
    assert bump.__globals__ is target


def test_names_of_builtins_are_no_edges_unless_shadowed():
    namespace = run("def f(): return len([print])")
    assert reference_pickler.dump(namespace["f"], namespace)[2] == []
    namespace["len"] = lambda _: 3
    assert reference_pickler.dump(namespace["f"], namespace)[2] == ["len"]


def test_many_names_need_extended_arguments():
    names = [f"name_{i}" for i in range(400)]
    namespace = run("def f(): return [" + ", ".join(names) + "]")
    assert reference_pickler.dump(namespace["f"], namespace)[2] == names


def test_code_of_another_version_becomes_a_placeholder():
    code = chipmink._rebuild.make_code("cpython-27", "old", 0)
    function = chipmink._rebuild.make_function(code, {}, None, None)
    chipmink._rebuild.function_setstate(function, {"module": "m"})
    assert isinstance(function, Placeholder)
    with pytest.raises(chipmink.PlaceholderError, match=r"cpython-27.*load it with that version"):
        function()


def test_methods(copy):
    class C:
        def m(self):
            return self.v

    c = C()
    c.v = 5
    c.bound = c.m
    c2 = copy(c)
    assert c2.bound() == 5 and c2.bound.__self__ is c2
    assert copy([].append).__name__ == "append"
    assert copy(str.join)("-", "ab") == "a-b"
    assert copy("ab".upper)() == "AB"


def test_lru_cache(copy):
    @functools.lru_cache(maxsize=7, typed=True)
    def f(x):
        "doc"
        return x

    g = copy(f)
    assert g(2) == 2 and g.__doc__ == "doc" and g.cache_parameters() == {"maxsize": 7, "typed": True}


# --- classes


def test_a_class_comes_back_new_and_the_live_one_is_not_touched(copy):
    class C:
        attribute = [1]

    before = public(C)
    c, cls = copy([C(), C])
    assert type(c) is cls and cls is not C
    cls.attribute.append(2)
    assert public(C) == before and C.attribute == [1]


def test_parts_of_a_class(copy):
    class Base:
        def who(self):
            return "base"

    class C(Base):
        """The doc."""

        kind: typing.ClassVar[int] = 3

        def who(self):
            return "c of " + super().who()

        @property
        def double(self):
            """Twice."""
            return self.kind * 2

        @double.setter
        def double(self, value):
            self.kind = value

        @classmethod
        def make(cls):
            return cls()

        @staticmethod
        def static():
            return "s"

        @functools.cached_property
        def cached(self):
            return object()

        def itself(self):
            return __class__

    D = copy(C)
    d = D.make()
    assert type(d) is D and d.who() == "c of base" and d.itself() is D
    d.double = 5
    assert d.double == 10 and D.double.__doc__ == "Twice." and D.static() == "s"
    assert d.cached is d.cached
    assert D.__doc__ == "The doc." and D.__annotations__ == C.__annotations__
    assert D.__qualname__ == C.__qualname__ and D.__module__ == C.__module__
    assert [k for k in D.__dict__ if k[:2] != "__"] == [k for k in C.__dict__ if k[:2] != "__"]


def test_slots(copy):
    class Base:
        __slots__ = ()

    class C(Base):
        __slots__ = ("a", "__private")

        def __init__(self):
            self.a = 1
            self.__private = 2

        def get(self):
            return self.__private

    D = copy(C)
    d = D()
    assert d.get() == 2 and not hasattr(d, "__dict__")
    with pytest.raises(AttributeError):
        d.b = 1

    class One:
        __slots__ = "only"

    one = copy(One)()
    one.only = 1

    class Open:
        __slots__ = ("x", "__dict__", "__weakref__")

    opened = copy(Open)()
    opened.anything = 1
    weakref.ref(opened)


def test_subclass_hooks_do_not_run_again(copy):
    class Plugin:
        registry: list = []

        def __init_subclass__(cls, *, key, **kwargs):
            super().__init_subclass__(**kwargs)
            cls.key = key
            Plugin.registry.append(cls)

    class First(Plugin, key=1):
        pass

    Plugin.registry.clear()
    sub, base = copy([First, Plugin])
    assert base.registry == [] and sub.key == 1 and sub.__bases__ == (base,)
    assert sub.__mro__ == (sub, base, object)
    assert base.__subclasses__() == [sub]

    class Next(base, key=2):
        pass

    assert base.registry == [Next]


class WithHook:
    seen: typing.ClassVar[list] = []

    def __init_subclass__(cls, **kwargs):
        WithHook.seen.append(cls)


def test_a_load_does_not_alter_a_live_base():
    class Slotted(WithHook):
        __slots__ = ("x",)

    class Derived(WithHook, dict):
        pass

    seen = list(WithHook.seen)
    for cls in (Slotted, Derived):
        copied = reference_pickler.copy(cls)
        assert copied.__bases__ == cls.__bases__ and copied.__dictoffset__ == cls.__dictoffset__
        copied()
    assert seen == WithHook.seen


def test_metaclasses_are_not_run_again(copy):
    class Meta(type):
        def __new__(mcs, name, bases, namespace, *, required):
            cls = super().__new__(mcs, name, bases, namespace)
            cls.required = required
            return cls

        def __init__(cls, *args, required):
            super().__init__(*args)

        def __setattr__(cls, name, value):
            if name != "required":
                raise TypeError("frozen")
            super().__setattr__(name, value)

    class C(metaclass=Meta, required=4):
        def f(self):
            return self.required

    D = copy(C)
    assert D().f() == 4 and type(D) is not Meta
    with pytest.raises(TypeError, match="frozen"):
        D.other = 1


def test_abstract_classes(copy):
    class Shape(abc.ABC):
        @abc.abstractmethod
        def area(self): ...

        @property
        @abc.abstractmethod
        def name(self): ...

    class Square(Shape):
        name = "square"

        def area(self):
            return 4

    Shape.register(int)
    shape, square = copy([Shape, Square])
    assert issubclass(int, shape) and issubclass(square, shape) and not issubclass(str, shape)
    assert square().area() == 4
    with pytest.raises(TypeError, match="abstract"):
        shape()


def test_enumerations(copy):
    class Planet(enum.Enum):
        EARTH = (5, 6)
        MARS = (1, 3)
        HOME = (5, 6)

        def __init__(self, mass, radius):
            self.mass = mass
            self.radius = radius

        @property
        def density(self):
            return self.mass / self.radius

    class Level(int, enum.Enum):
        def __new__(cls, number, label):
            member = int.__new__(cls, number)
            member._value_ = label
            member.text = f"<{label}>"
            return member

        LOW = 1, "low"
        HIGH = 9, "high"

    class Base(enum.Enum):
        def describe(self):
            return self.name.lower()

    class Sub(Base):
        A = enum.auto()
        B = enum.auto()

    class Access(enum.Flag):
        R = 4
        W = 2
        ALL = R | W

    class Strict(enum.IntFlag, boundary=enum.STRICT):
        X = 1

    planet, level, sub, access, strict = copy([Planet, Level, Sub, Access, Strict])
    assert [p.name for p in planet] == ["EARTH", "MARS"] and planet.HOME is planet.EARTH
    assert planet.MARS.density == 1 / 3 and planet((1, 3)) is planet.MARS
    assert level.HIGH == 9 and level("high") is level.HIGH and level.LOW.text == "<low>"
    assert sub.B.describe() == "b" and sub.B.value == 2 and issubclass(sub, sub.__bases__[0])
    assert access.R | access.W is access.ALL and access(6) is access.ALL and [a.name for a in access] == ["R", "W"]
    with pytest.raises(ValueError, match="8"):
        strict(8)
    member, cls = copy([Sub.A, Sub])
    assert member is cls.A
    assert copy({Access.R: 1}).popitem()[0].value == 4


def test_enumeration_that_knows_its_members(copy):
    class Color(enum.StrEnum):
        RED = "red"
        BLUE = "blue"

        @classmethod
        def default(cls, fallback=None):
            return fallback or cls.RED

    Color.default.__func__.__defaults__ = (Color.BLUE,)
    again = copy(Color)
    assert again.default() is again.BLUE and again.RED.upper() == "RED"


def test_dataclasses(copy):
    @dataclasses.dataclass(order=True, frozen=True)
    class Point:
        x: int
        y: int = 0
        tags: list = dataclasses.field(default_factory=list, compare=False)
        n: int = dataclasses.field(default=1, kw_only=True)

    P = copy(Point)
    p = P(1)
    assert p == P(1, 0) and p < P(2) and repr(p).endswith("Point(x=1, y=0, tags=[], n=1)")
    assert dataclasses.replace(p, x=3).x == 3
    assert dataclasses.fields(P)[0].default is dataclasses.MISSING
    with pytest.raises(dataclasses.FrozenInstanceError):
        p.x = 4

    @dataclasses.dataclass(frozen=True)
    class Point3(P):
        z: int = 5

    assert Point3(1).z == 5
    assert copy(Point(4, tags=[1])).tags == [1]

    @dataclasses.dataclass(slots=True)
    class Slotted:
        a: int
        b: int = 2

    assert copy(Slotted)(1).b == 2 and copy(Slotted(3)).a == 3


def test_named_tuples(copy):
    Pair = collections.namedtuple("Pair", "a b", defaults=[9])

    class Typed(typing.NamedTuple):
        a: int
        b: str = "x"

        def both(self):
            return f"{self.a}{self.b}"

    pair, typed = copy([Pair, Typed])
    assert pair(1) == (1, 9) and pair(1)._replace(a=2).a == 2 and pair._fields == ("a", "b")
    assert typed(1).both() == "1x" and copy(Typed(5)).both() == "5x"


def test_generic_classes_and_protocols(copy):
    T = typing.TypeVar("T", bound=int)

    class Box(typing.Generic[T]):
        def __init__(self, item: T):
            self.item = item

    class IntBox(Box[int]):
        pass

    class Closes(typing.Protocol):
        def close(self): ...

    closes = typing.runtime_checkable(Closes)
    box, int_box, variable, protocol = copy([Box, IntBox, T, closes])
    assert box.__parameters__ == (variable,) and variable.__bound__ is int
    assert box[int](3).item == 3 and int_box.__orig_bases__ == (box[int],)
    with open(os.devnull) as file:
        assert isinstance(file, protocol) and not isinstance(3, protocol)

    class Movie(typing.TypedDict, total=False):
        title: str

    assert copy(Movie)(title="t") == {"title": "t"} and copy(Movie).__total__ is False


def test_types_of_the_interpreter(copy):
    for kind in (type(None), type(...), types.FunctionType, types.GeneratorType, type({}.keys()), type(iter([]))):
        assert copy(kind) is kind


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in 3.12")
def test_type_parameters(copy):
    script = run("class Box[T: int]:\n    def get[S](self, s: S) -> T: ...\n")
    box = copy(script["Box"])
    assert box.__type_params__[0].__name__ == "T" and box[int]
    assert box.get.__type_params__[0].__name__ == "S"


def test_a_metaclass_may_do_anything(copy):
    class Meta(type):
        def __eq__(cls, other):
            raise RuntimeError

        def __getattribute__(cls, name):
            if name == "hidden":
                raise AttributeError
            return super().__getattribute__(name)

    class C(metaclass=Meta):
        hidden = 1

    assert copy(C).__dict__["hidden"] == 1


# --- equal things are equal bytes

DETERMINISTIC = """
    import abc, collections, dataclasses, enum, functools, typing

    def outer(values):
        "A docstring that is longer than thirty-two characters, all told."
        limit = 3
        def inner(x):
            return x in {"alpha", "beta", "gamma", "delta"} and x not in ("one", "two") and limit
        return inner

    inner = outer([1, 2])

    @dataclasses.dataclass
    class Record:
        name: str
        items: list = dataclasses.field(default_factory=list)
        def total(self):
            return sum(self.items)

    class Shape(abc.ABC):
        @abc.abstractmethod
        def one(self): ...
        @abc.abstractmethod
        def two(self): ...
    for kind in (int, str, float, complex, bytes):
        Shape.register(kind)

    class Color(enum.Enum):
        RED = 1
        BLUE = 2

    class Meta(type): pass
    class Made(metaclass=Meta):
        a_rather_long_attribute_name_that_is_interned = 1
        def method(self, a_rather_long_attribute_name_that_is_interned):
            self.x = self.y = self.z = a_rather_long_attribute_name_that_is_interned

    Pair = collections.namedtuple("Pair", "left right")
    class Typed(typing.NamedTuple):
        a: int
    T = typing.TypeVar("T")
    class Box(typing.Generic[T]): pass
    everything = {
        "outer": outer, "inner": inner, "Record": Record, "Shape": Shape, "Color": Color, "Made": Made, "Pair": Pair,
        "Typed": Typed, "Box": Box,
    }
"""


def test_saving_a_loaded_definition_gives_the_same_bytes():
    everything = run(DETERMINISTIC)["everything"]
    for name, value in everything.items():
        data, side, _names = reference_pickler.dump(value)
        again = reference_pickler.load(data, side)
        assert reference_pickler.dump(again)[0] == data, name


def in_three_processes(script: str) -> list[list[str]]:
    """What a script prints, line by line, under three hash seeds."""
    code = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n" + textwrap.dedent(script)
    return [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout.splitlines()
        for seed in ("0", "1", "12345")
    ]


def test_definitions_are_the_same_bytes_in_every_process():
    one, two, three = in_three_processes(
        """
        import hashlib, test_reducers, reference_pickler
        for name, value in test_reducers.run(test_reducers.DETERMINISTIC)["everything"].items():
            print(name, hashlib.sha256(reference_pickler.dump(value)[0]).hexdigest())
        """
    )
    assert one == two == three and len(one) == 9


@pytest.mark.skipif(not STREAMS, reason="no streams")
def test_streams_of_definitions_are_the_same_bytes_in_every_process():
    one, two, three = in_three_processes(
        """
        import chipmink, hashlib, test_reducers
        for name, value in test_reducers.run(test_reducers.DETERMINISTIC)["everything"].items():
            print(name, hashlib.sha256(chipmink.dumps(value)).hexdigest())
        """
    )
    assert one == two == three and len(one) == 9


def test_file_names_and_lines_stay_out_of_the_bytes():
    source = textwrap.dedent("def f(x):\n    return x + 1\nclass C:\n    def g(self): return 2\n")
    dumped = []
    for file, shift in (("/tmp/one.py", ""), ("/other/two.py", "\n\n# moved\n")):
        namespace = {"__name__": "__main__"}
        exec(compile(shift + source, file, "exec"), namespace)
        data, side, _names = reference_pickler.dump([namespace["f"], namespace["C"]])
        assert file in side and file.encode() not in data
        dumped.append(data)
    assert dumped[0] == dumped[1]


def test_unrelated_functions_of_one_file_share_no_constants():
    script = run("def f(): return ('x', 'y'), None\ndef g(): return ('x', 'y'), None\n")
    pair = [script["f"].__code__.co_consts[-1][0], script["g"].__code__.co_consts[-1][0]]
    assert pair[0] is pair[1] == ("x", "y")

    def tuples(code):
        _make, arguments = _reducers.DISPATCH[types.CodeType](code, _reducers.Context(None))
        pending = list(arguments)
        while pending:
            item = pending.pop()
            if type(item) is tuple and item:
                yield item
                pending.extend(item)

    first, second = list(tuples(script["f"].__code__)), list(tuples(script["g"].__code__))
    assert ("x", "y") in first and ("x", "y") in second
    assert not {id(item) for item in first} & {id(item) for item in second}


# --- troublesome objects


def test_locks_come_back_unlocked(copy):
    lock, rlock = threading.Lock(), threading.RLock()
    lock.acquire()
    rlock.acquire()
    try:
        lock2, rlock2, condition, event = copy([lock, rlock, threading.Condition(), threading.Event()])
    finally:
        lock.release()
        rlock.release()
    assert not lock2.locked() and lock2.acquire(blocking=False)
    with rlock2, rlock2:
        pass
    with condition:
        condition.notify_all()
    assert not event.is_set()


def test_a_queue_keeps_its_contents(copy):
    waiting = queue.Queue()
    waiting.put([1])
    assert copy(waiting).get_nowait() == [1]


def test_views_of_dicts_stay_views(copy):
    plain, ordered = {"a": 1}, collections.OrderedDict(b=2)
    for original in (plain, ordered):
        mapping, keys, values, items = copy([original, original.keys(), original.values(), original.items()])
        mapping["new"] = 5
        assert list(keys) == list(mapping) and list(values) == list(mapping.values())
        assert ("new", 5) in items
    mapping, proxy = copy([plain, types.MappingProxyType(plain)])
    mapping["c"] = 3
    assert proxy["c"] == 3


def test_class_namespace_proxy(copy):
    class C:
        x = 1

    cls, proxy = copy([C, vars(C)])
    cls.x = 2
    assert proxy["x"] == 2


def test_memoryviews(copy):
    base = bytearray(b"12345678")
    data, whole, words, readonly = copy([base, memoryview(base), memoryview(base).cast("H", [2, 2]), memoryview(base).toreadonly()])
    data[0] = 65
    assert whole[0] == 65 and words.shape == (2, 2) and words.tobytes() == data and readonly.readonly
    part = copy(memoryview(base)[2:4])
    assert part.tobytes() == b"34" and not part.readonly
    assert copy(memoryview(b"abc")).obj == b"abc"
    assert copy(memoryview(base)[::2]).tobytes() == b"1357"


class Node:
    pass


def test_weak_references(copy):
    node = Node()
    strong, ref = copy([node, weakref.ref(node)])
    assert ref() is strong
    assert copy(weakref.ref(node))() is None
    dead = weakref.ref(Node())
    assert copy(dead)() is None
    nodes, members, by_key, by_value = copy(
        [
            [node],
            weakref.WeakSet([node]),
            weakref.WeakKeyDictionary({node: 1}),
            weakref.WeakValueDictionary({"n": node}),
        ]
    )
    assert list(members) == nodes and by_key[nodes[0]] == 1 and by_value["n"] is nodes[0]
    node.me = weakref.ref(node)
    again = copy(node)
    assert again.me() is again


def test_weak_proxies():
    node = Node()
    strong, proxy = reference_pickler.copy([node, weakref.proxy(node)], namespace={})
    strong.value = 5
    assert proxy.value == 5 and type(proxy) is weakref.ProxyType
    del strong
    with pytest.raises(ReferenceError):
        proxy.value  # noqa: B018
    dead = weakref.proxy(Node())
    assert isinstance(reference_pickler.copy(dead, namespace={}), Placeholder)
    # Alone in a stream it is a copy of the object, as with pickle.
    assert type(reference_pickler.copy(weakref.proxy(node))) is Node


def test_process_wide_objects_by_name(copy):
    assert copy(sys) is sys and copy(os.path) is os.path
    assert copy([sys.stdout, sys.stderr]) == [sys.stdout, sys.stderr]
    assert copy(logging.getLogger("a.b")) is logging.getLogger("a.b")
    assert copy(logging.getLogger()) is logging.getLogger()


def test_a_module_made_by_the_program(copy):
    module = types.ModuleType("made_here", "Its doc.")
    exec("limit = 3\ndef f(): return limit", module.__dict__)
    made = copy(module)
    assert made.f() == 3 and made.__doc__ == "Its doc." and made is not module and "made_here" not in sys.modules


def test_struct(copy):
    assert copy(struct.Struct("<IH")).size == 6


def test_figures_are_the_same_bytes_each_time(copy):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.add_subplot()
    axes.plot([1, 2])
    axes.xaxis.set_major_formatter(lambda value, position: f"<{value}>")
    first = reference_pickler.dump(figure)[0]
    assert reference_pickler.dump(figure)[0] == first
    again = copy(figure)
    assert again.axes[0].xaxis.get_major_formatter()(3) == "<3>"
    again.axes[0].callbacks.process("xlim_changed", again.axes[0])


def suspended():
    yield 1


async def call():
    return None


def stubbable(tmp_path):
    text = tmp_path / "file.txt"
    text.write_text("hello")
    pending = concurrent.futures.Future()
    coroutine = call()
    coroutine.close()
    return {
        "file": open(text),  # noqa: SIM115
        "binary file": open(text, "rb"),  # noqa: SIM115
        "socket": socket.socket(),
        "generator": suspended(),
        "coroutine": coroutine,
        "frame": sys._getframe(),
        "thread": threading.Thread(name="worker"),
        "database": sqlite3.connect(":memory:"),
        "executor": concurrent.futures.ThreadPoolExecutor(2),
        "future": pending,
        "hash": hashlib.sha256(),
    }


def test_what_cannot_be_saved_says_why(tmp_path):
    objects = stubbable(tmp_path)
    for name, obj in objects.items():
        rule = _reducers.resolve(type(obj))
        assert rule is not None, name
        stub = rule(obj, _reducers.Context(None))
        assert type(stub) is _reducers.Stub, name
        assert stub.reason and stub.type_name == f"{type(obj).__module__}.{type(obj).__qualname__}"
        placeholder = reference_pickler.copy(obj)
        assert stub.reason in repr(placeholder)
        with pytest.raises(chipmink.PlaceholderError):
            placeholder.close()
    for obj in objects.values():
        if hasattr(obj, "close") and not isinstance(obj, threading.Thread):
            obj.close()
    assert "hello" in (tmp_path / "file.txt").read_text()


def test_a_file_open_for_writing_is_left_alone(tmp_path):
    path = tmp_path / "log.txt"
    with open(path, "w") as file:
        file.write("precious")
        reference_pickler.copy(file)
        assert path.read_text() == "", "describing the file flushed it"
    assert path.read_text() == "precious"


def test_subclasses_of_stubs(tmp_path):
    class Worker(threading.Thread):
        pass

    class Knows(threading.Thread):
        def __reduce__(self):
            return Knows, ()

    context = _reducers.Context(None)
    assert type(_reducers.resolve(Worker)(Worker(), context)) is _reducers.Stub
    assert _reducers.resolve(Knows) is None


def test_done_futures_are_data(copy):
    future = concurrent.futures.Future()
    future.set_result([1])
    assert copy(future).result() == [1]


def test_registered_reducers_come_first(copy):
    class Handle:
        def __init__(self, name):
            self.name = name
            self.lock = threading.Lock()

        def __reduce__(self):
            raise TypeError("never asked")

    before = _reducers.generation()
    chipmink.register_reducer(Handle, lambda handle: (Handle, (handle.name + "!",)))
    try:
        assert _reducers.generation() != before
        assert copy(Handle("a")).name == "a!"
    finally:
        del _reducers.DISPATCH[Handle]
    with pytest.raises(TypeError):
        chipmink.register_reducer("Handle", len)
    with pytest.raises(TypeError):
        chipmink.register_reducer(Handle, 3)


def test_copyreg_beats_a_stub():
    copyreg.pickle(socket.socket, lambda s: (list, ()))
    try:
        with socket.socket() as s:
            assert _reducers.resolve(type(s))(s, _reducers.Context(None)) == (list, ())
    finally:
        del copyreg.dispatch_table[socket.socket]


def test_classes_of_extension_modules_are_refused():
    class Looks:
        pass

    with pytest.raises(chipmink.UnsupportedError, match="extension module"):
        _reducers.reduce_class(type(sys.flags), _reducers.Context(None))
    _reducers.reduce_class(Looks, _reducers.Context(None))


def test_the_context_holds_no_globals_alive():
    context = _reducers.Context(None)
    namespace = run("class Big: pass\nbig = Big()\ndef f(): return big")
    ref = weakref.ref(namespace["big"])
    first = _reducers.DISPATCH[types.FunctionType](namespace["f"], context)[1][1]
    second = _reducers.DISPATCH[types.FunctionType](namespace["f"], context)[1][1]
    assert first is second
    del namespace, first, second
    gc.collect()
    assert ref() is None
