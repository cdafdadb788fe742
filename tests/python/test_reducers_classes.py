"""Classes by value: what their reducers yield, through the standard pickler and through streams."""

from __future__ import annotations

import abc
import collections
import dataclasses
import enum
import functools
import os
import sys
import types
import typing
import weakref

import chipmink
import pytest
import reference_pickler
from reducing import public, run


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


def test_classes_made_where_no_module_is_known(copy):
    """Called in a namespace without ``__name__``, such as that of a bare ``exec``, ``type`` knows none."""
    made: dict = {}
    exec("Plain, Of, Words = (type(name, (base,), {}) for name, base in (('Plain', object), ('Of', tuple), ('Words', dict)))", made)  # noqa: S102
    assert not hasattr(made["Of"], "__module__")
    plain, of, words, kinds = copy([made["Plain"](), made["Of"]((1, 2)), made["Words"](a=1), [made["Of"], made["Words"]]])
    assert type(plain).__qualname__ == "Plain"
    assert of == (1, 2)
    assert type(of) is kinds[0]
    assert words == {"a": 1}
    assert type(words) is kinds[1]


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


def test_subclasses_of_descriptors(copy):
    class Counted(property):
        def __init__(self, fget, *, extra=5):
            super().__init__(fget)
            self.extra = extra

    class Marked(staticmethod):
        pass

    class OfClass(classmethod):
        pass

    class C:
        value = Counted(lambda self: 3, extra=7)
        static = Marked(lambda: 4)
        static.note = [1]

        @OfClass
        def of_class(cls):
            return cls

    made = copy(C())
    attributes = type(made).__dict__
    assert (made.value, made.static(), made.of_class()) == (3, 4, type(made))
    assert type(attributes["value"]).__name__ == "Counted" and attributes["value"].extra == 7
    assert type(attributes["static"]).__name__ == "Marked" and attributes["static"].note == [1]
    assert type(attributes["of_class"]).__name__ == "OfClass"


def test_new_types(copy):
    scope = run("import typing\nUserId = typing.NewType('UserId', int)\nclass C:\n    kinds = [UserId]")
    user_id, cls = copy([scope["UserId"], scope["C"]])
    assert user_id("a") == "a" and user_id.__supertype__ is int and repr(user_id) == "__main__.UserId"
    assert cls.kinds[0] is user_id


def test_super_objects(copy):
    class A:
        def who(self):
            return "a"

    class B(A):
        def who(self):
            return "b"

    made, instance = copy([super(B, made := B()), made])
    assert made.who() == "a" and made.__self__ is instance and type(made) is super


def test_a_metaclass_that_does_not_let_its_classes_be_compared():
    class Meta(type):
        __hash__ = None

        def __eq__(cls, other):
            raise RuntimeError("not to be compared")

    class C(metaclass=Meta):
        pass

    made = C()
    made.attribute = [1]
    assert chipmink.loads(chipmink.dumps(made)).attribute == [1]


@pytest.mark.parametrize("lie", [int, property(lambda self: dict)], ids=["class", "property"])
def test_instances_that_give_themselves_out_as_others(repo, lie):
    """The standard pickler refuses them."""

    class C:
        __class__ = lie

    made = C()
    made.attribute = [made]
    for again in (chipmink.loads(chipmink.dumps(made)), repo.load(repo.save({"x": made}))["x"]):
        assert type(again).__name__ == "C" and again.attribute[0] is again
        assert again.__class__ in (int, dict)
