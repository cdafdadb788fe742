"""A class saved by value comes back as the live class if that is equal to it, and as a new one if not."""

from __future__ import annotations

import gc
import sys
import types

import chipmink
import graphs
import pytest


@pytest.fixture
def main(monkeypatch):
    """A program of its own: what its code defines is in ``__main__``."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    yield module.__dict__
    gc.collect()


def run(code: str, namespace: dict) -> None:
    exec(code, namespace)  # noqa: S102


def variables(namespace: dict) -> dict:
    return {name: value for name, value in namespace.items() if not name.startswith("__")}


POINT = """
class Point:
    scale = 2
    def __init__(self, x, y=0):
        self.x, self.y = x, y
    def length(self, add=1):
        return (self.x ** 2 + self.y ** 2) ** 0.5 * self.scale + add
point = Point(3, 4)
points = [point, Point(1)]
"""


def test_an_equal_class_is_the_live_class(repo, main):
    run(POINT, main)
    repo.save(main)
    for _ in range(2):
        loaded = repo.load()
        assert loaded["Point"] is main["Point"] is type(loaded["point"])
        assert isinstance(repo.load(names=["points"])["points"][1], main["Point"])
        assert loaded["point"] is not main["point"]
        assert loaded["point"] is loaded["points"][0]
        assert loaded["point"].length() == 11.0
    assert type(repo.at(None)["point"]) is main["Point"]


def test_a_class_defined_again_in_the_same_way_is_used(repo, main):
    run(POINT, main)
    repo.save(main)
    old = main["Point"]
    run(POINT, main)
    assert main["Point"] is not old
    assert type(repo.load(names=["point"])["point"]) is main["Point"]


CHANGES = {
    "a method": "def length(self, add=1):\n    return 0\nPoint.length = length",
    "a constant in a method": "Point.length = lambda self, add=2: 0",
    "a default": "Point.length.__defaults__ = (5,)",
    "an attribute": "Point.scale = 3",
    "a type of an attribute": "Point.scale = 2.0",
    "one more attribute": "Point.more = None",
    "one attribute less": "del Point.scale",
    "the docstring": "Point.__doc__ = 'A point.'",
    "the name": "Point.__qualname__ = 'Points'",
    "the annotations": "Point.__annotations__ = {'x': int}",
    "an attribute of a method": "Point.length.unit = 'm'",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_class_is_left_alone_and_the_saved_one_made_anew(repo, main, change):
    run(POINT, main)
    repo.save(main)
    class_now = main["Point"]
    run(CHANGES[change], main)
    before = dict(class_now.__dict__)
    first, second = repo.load(), repo.load()
    assert dict(class_now.__dict__) == before
    made = type(first["point"])
    assert made is first["Point"] is type(first["points"][1])
    assert made is not class_now
    # One per load.
    assert made is not type(second["point"])
    assert first["point"].length() == 11.0
    assert made.scale == 2
    # The change is a version of its own, of which the live class is that of its objects.
    version = repo.save(main)
    assert type(repo.load(version)["point"]) is class_now


FAMILY = """
class Meta(type):
    def __len__(cls):
        return 7
class Base:
    kind = "base"
class Mixin:
    pass
class Child(Base, Mixin, metaclass=Meta):
    def kind_of(self):
        return super().kind
child = Child()
"""


def test_bases_and_metaclasses(repo, main):
    run(FAMILY, main)
    repo.save(main)
    assert type(repo.load()["child"]) is main["Child"]
    old = main["Child"]
    # A base that is defined anew, in the same words, is equal; but the live class is that of the old base.
    run('class Base:\n    kind = "base"', main)
    loaded = repo.load()
    assert type(loaded["child"]) is old
    assert loaded["Base"] is old.__base__
    assert isinstance(loaded["child"], loaded["Base"])
    assert loaded["child"].kind_of() == "base"
    # A changed base is a changed class.
    run(FAMILY.replace("base", "other"), main)
    loaded = repo.load()
    assert loaded["child"].kind_of() == "base"
    assert not isinstance(loaded["child"], main["Base"])
    assert loaded["Base"].kind == "base"


def test_changed_bases_in_place(repo, main):
    run(FAMILY, main)
    repo.save(main)
    main["Child"].__bases__ = (main["Mixin"], main["Base"])
    loaded = repo.load()
    assert type(loaded["child"]) is not main["Child"]
    assert type(loaded["child"]).__mro__[1:3] == (main["Base"], main["Mixin"])


def test_changed_metaclass(repo, main):
    run(FAMILY, main)
    repo.save(main)
    run("Meta.__len__ = lambda cls: 8", main)
    loaded = repo.load()
    assert len(type(loaded["child"])) == 7
    assert len(main["Child"]) == 8
    assert type(type(loaded["child"])) is loaded["Meta"] is not main["Meta"]


KINDS = """
import dataclasses, enum, typing, collections, abc
class Color(enum.Enum):
    RED = 1
    BLUE = "b"
    def dark(self):
        return self.name.lower()
class Mask(enum.IntFlag):
    A = 1
    B = 2
@dataclasses.dataclass
class Data:
    x: int
    items: list = dataclasses.field(default_factory=list)
@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: int = 3
class Named(typing.NamedTuple):
    a: int
    b: str = ""
Older = collections.namedtuple("Older", "a b")
class Abstract(abc.ABC):
    @abc.abstractmethod
    def m(self): ...
class Concrete(Abstract):
    def m(self):
        return __class__
class Slotted:
    __slots__ = ("a", "__b")
    def __init__(self):
        self.a, self.__b = 1, 2
class Outer:
    class Inner:
        pass
values = [Color.RED, Mask.A | Mask.B, Data(1, [2]), Frozen(), Named(1), Older(1, 2), Concrete(), Slotted(), Outer.Inner()]
"""


def test_classes_of_all_kinds(repo, main):
    run(KINDS, main)
    repo.save(main)
    loaded = repo.load(names=["values"])["values"]
    for mine, live in zip(loaded, main["values"], strict=True):
        assert type(mine) is type(live), type(live)
    assert loaded[0] is main["Color"].RED
    assert loaded[:6] == main["values"][:6]
    assert loaded[6].m() is main["Concrete"]


@pytest.mark.parametrize("name", ["Color", "Data", "Named", "Older", "Abstract", "Slotted"])
def test_classes_of_all_kinds_when_changed(repo, main, name):
    run(KINDS, main)
    repo.save(main)
    main[name].note = "changed"
    loaded = repo.load(names=["values"])["values"]
    # Named tuples share the code of their methods, and what a changed class offers to others is of that class.
    changed = {name, {"Abstract": "Concrete", "Named": "Older"}.get(name)}
    for mine, live in zip(loaded, main["values"], strict=True):
        assert (type(mine) is type(live)) == (type(live).__name__ not in changed), type(live)
        assert not hasattr(type(mine), "note")


CYCLE = """
class Node:
    registry = {}
    def __init__(self, name):
        self.name = name
Node.default = Node("default")
Node.registry["default"] = Node.default
Node.default.self = Node
other = Node("other")
"""


def test_a_class_that_holds_its_own_instances(repo, main):
    run(CYCLE, main)
    repo.save(main)
    loaded = repo.load()
    assert type(loaded["other"]) is main["Node"] is loaded["Node"]
    main["Node"].registry["second"] = main["other"]
    other = repo.load(1, names=["other"])["other"]
    assert type(other) is not main["Node"]
    assert set(type(other).registry) == {"default"}
    assert type(type(other).default) is type(other) is type(other).default.self


def test_what_a_variable_shares_with_a_class_is_never_the_live_object(repo, main):
    run(CYCLE + "registry = Node.registry\n", main)
    repo.save(main)
    loaded = repo.load()
    assert loaded["registry"] is not main["registry"]
    assert loaded["registry"] is loaded["Node"].registry
    assert type(loaded["other"]) is loaded["Node"]


def test_two_equal_classes_stay_two(repo, main):
    run(
        """
def make():
    class Local:
        pass
    return Local
first, second = make(), make()
objects = [first(), second(), first()]
""",
        main,
    )
    repo.save(main)
    loaded = repo.load()
    kinds = [type(item) for item in loaded["objects"]]
    assert kinds[0] is kinds[2] is loaded["first"] is main["first"]
    assert kinds[1] is loaded["second"] is main["second"]
    kinds = [type(item) for item in repo.load(names=["objects"])["objects"]]
    assert kinds[0] is kinds[2] is not kinds[1]


def test_an_old_class_and_one_defined_again(repo, main):
    run(POINT, main)
    run("old = point", main)
    run(POINT, main)
    assert type(main["old"]) is not main["Point"]
    repo.save(main)
    loaded = repo.load()
    assert type(loaded["old"]) is type(main["old"])
    assert type(loaded["point"]) is main["Point"]


def test_a_local_class_that_was_saved_is_found(repo):
    class Local:
        def m(self):
            return __class__

    repo.save({"x": Local()})
    x = repo.load()["x"]
    assert type(x) is Local
    assert x.m() is Local


def test_classes_are_not_kept_alive(repo):
    import weakref

    class Local:
        pass

    repo.save({"x": Local()})
    assert type(repo.load()["x"]) is Local
    reference = weakref.ref(Local)
    repo.close()
    del Local
    gc.collect()
    assert reference() is None


def test_classes_of_another_namespace_with_other_globals_are_not_used(repo, main):
    namespace: dict = {"__name__": "__main__"}
    run("count = 0\nclass Counter:\n    def up(self):\n        global count\n        count += 1\nc = Counter()", namespace)
    repo.save(namespace)
    loaded = repo.load()
    assert type(loaded["c"]) is not namespace["Counter"]
    loaded["c"].up()
    assert loaded["count"] == 1
    assert namespace["count"] == 0


def test_functions_of_a_load_are_bound_to_what_is_loaded(repo, main):
    run("count = 0\ndef up():\n    global count\n    count += 1\n", main)
    repo.save(main)
    loaded = repo.load()
    assert loaded["up"] is not main["up"]
    loaded["up"]()
    assert (loaded["count"], main["count"]) == (1, 0)


def test_another_process_makes_the_class(repo, main, monkeypatch):
    run(POINT, main)
    repo.save(main)
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    main.clear()
    gc.collect()
    loaded = repo.load()
    assert type(loaded["point"]) is loaded["Point"]
    assert loaded["point"].length() == 11.0


def test_a_restricted_load_makes_its_own(repo, main):
    run(POINT, main)
    repo.save(main)
    loaded = repo.load(allow=lambda module, name: True)
    assert type(loaded["point"]) is loaded["Point"] is not main["Point"]


# --- checkout ---------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["main", "other"])
def namespace(request, main):
    return main if request.param == "main" else {"__name__": "__main__"}


def test_checkout_uses_the_live_class_and_keeps_equal_objects(repo, namespace):
    run(POINT, namespace)
    first = repo.save(namespace)
    namespace["points"].append(namespace["Point"](9))
    run("alone = Point(5)", namespace)
    repo.save(namespace)
    alone_class, kept = namespace["Point"], namespace["alone"]
    second = repo.save(namespace)
    repo.checkout(first, namespace)
    assert namespace["Point"] is alone_class
    assert [type(point) for point in namespace["points"]] == [alone_class] * 2
    diff = repo.checkout(second, namespace)
    assert namespace["Point"] is alone_class is type(namespace["alone"])
    assert kept is not namespace["alone"]
    assert "Point" not in diff.changed


def test_checkout_after_the_class_was_edited(repo, namespace):
    run(POINT, namespace)
    first = repo.save(namespace)
    live = namespace["Point"]
    run("Point.scale = 5", namespace)
    repo.save(namespace)
    repo.checkout(first, namespace)
    # The live class is another now: all that uses it is new.
    assert live.scale == 5
    assert namespace["Point"] is not live
    assert namespace["Point"].scale == 2
    assert type(namespace["point"]) is namespace["Point"] is type(namespace["points"][1])
    assert namespace["points"][0] is namespace["point"]
    assert namespace["point"].length() == 11.0


def test_checkout_after_the_class_was_defined_anew(repo, namespace):
    run(POINT, namespace)
    first = repo.save(namespace)
    old, point = namespace["Point"], namespace["point"]
    run("class Point:\n    pass", namespace)
    repo.save(namespace)
    diff = repo.checkout(first, namespace)
    # The objects were left alone, so their class is bound again.
    assert diff.changed == ("Point",)
    assert namespace["Point"] is old
    assert namespace["point"] is point


def test_checkout_keeps_the_class_of_variables_that_stay(repo, namespace):
    run(POINT + "first = [Point(1)]\nsecond = [Point(2)]\n", namespace)
    version = repo.save(namespace)
    run("first.append(1)\ndel Point", namespace)
    repo.save(namespace)
    stays = namespace["second"]
    repo.checkout(version, namespace)
    assert namespace["second"] is stays
    assert type(namespace["first"][0]) is type(stays[0]) is namespace["Point"]


def test_checkout_keeps_functions_as_keys(repo, namespace):
    run("def f():\n    return count\ncount = 1\ntable = {f: 1}\n", namespace)
    version = repo.save(namespace)
    run("table[f] = 2", namespace)
    repo.save(namespace)
    live = namespace["f"]
    diff = repo.checkout(version, namespace)
    assert diff.changed == ("table",)
    assert namespace["table"] == {live: 1}
    run("def f():\n    return -count\n", namespace)
    repo.save(namespace)
    repo.checkout(version, namespace)
    assert namespace["table"] == {namespace["f"]: 1}
    assert namespace["f"]() == 1


@pytest.mark.parametrize("others", [[], ["a"], ["a", "b"]])
@pytest.mark.parametrize("edit", ["delete", "replace", "call", "define anew", "swap"])
def test_checkout_of_functions_of_a_module_of_which_some_are_still_there(repo, edit, others):
    namespace = {"a": graphs.make_closure([1]), "b": graphs.make_closure([2])}
    namespace["others"] = [namespace[name] for name in others]
    version = repo.save(namespace)
    match edit:
        case "delete":
            del namespace["b"]
        case "replace":
            namespace["b"] = 5
        case "call":
            namespace["b"]([9])
        case "define anew":
            namespace["b"] = graphs.make_closure([3])
        case "swap":
            namespace["a"], namespace["b"] = namespace["b"], namespace["a"]
    repo.save(namespace)
    repo.checkout(version, namespace)
    assert (namespace["a"](), namespace["b"]()) == ([1], [2])
    assert namespace["others"] == [namespace[name] for name in others]
    for name in "ab":
        assert namespace[name].__globals__ is vars(graphs)


def test_checkout_with_equal_classes_that_no_name_tells_apart(repo, namespace):
    run(
        """
def make():
    class Local:
        pass
    return Local
a, b = make(), make()
x, y, z = [a()], [b()], [a()]
del a, b
""",
        namespace,
    )
    version = repo.save(namespace)
    run("x.append(1)", namespace)
    repo.save(namespace)
    repo.checkout(version, namespace)
    kinds = [type(namespace[name][0]) for name in "xyz"]
    assert kinds[0] is kinds[2] is not kinds[1]


def test_a_function_that_is_made_anew_shares_its_globals_with_new_methods(repo, main):
    """The stand-in of the live globals was handed to the function in their place, so the load failed."""
    run(POINT + "factor = 3\ndef triple(x):\n    return factor * x\n", main)
    version = repo.save({"Point": main["Point"], "triple": main["triple"]})
    loaded = repo.load(version)
    assert loaded["triple"](2) == 6
    assert loaded["triple"].__globals__ is not main
    assert loaded["triple"].__globals__ is loaded["Point"].length.__globals__
