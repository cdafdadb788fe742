"""Instances with slots are walked natively: shape and values, no call of Python code."""

from __future__ import annotations

import copyreg
import gc
import weakref

import chipmink
import pytest
import slot_types as types_


def filled(kind, **values):
    made = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def state(instance):
    names = [name for kind in type(instance).__mro__ for name in copyreg._slotnames(kind)]
    slots = {name: getattr(instance, name) for name in dict.fromkeys(names) if hasattr(instance, name)}
    return slots, dict(getattr(instance, "__dict__", {}))


INSTANCES = {
    "both slots": filled(types_.Base, a=1, b=[2]),
    "one slot": filled(types_.Base, b="x"),
    "no slot set": filled(types_.Base),
    "inherited": filled(types_.Derived, a=1, b=2.5, c=None),
    "inherited, some unset": filled(types_.Derived, c=(1, 2)),
    "slots and dict": filled(types_.Both, a=1, z={"k": 1}, y=2),
    "slots and empty dict": filled(types_.Both, b=1),
    "dict and no slot set": filled(types_.Both, y=1),
    "dict and weak references": filled(types_.Weak, x=1, other=2),
    "nothing": filled(types_.Nothing),
    "private": types_.Private([1]),
    "two of one private name": types_.Sub([1], [2]),
    "dataclass": types_.Mutable([1], "y"),
    "frozen dataclass": types_.Frozen([1], "y"),
    "frozen dataclass with an unset field": filled(types_.Frozen, y=1),
}


@pytest.fixture
def no_reduce(monkeypatch):
    """Fails when an object is asked how it is pickled."""

    def refuse(cls):
        raise AssertionError(f"{cls} was reduced")

    monkeypatch.setattr(copyreg, "_slotnames", refuse)
    for kind in (types_.Base, types_.Derived, types_.Both, types_.Weak, types_.Private, types_.Mutable, types_.Frozen):
        if "__slotnames__" in vars(kind):
            del kind.__slotnames__


@pytest.mark.parametrize("name", INSTANCES)
def test_round_trip_without_reducing(repo, name, no_reduce, monkeypatch):
    instance = INSTANCES[name]
    version = repo.save({"x": [instance, instance]})
    first, second = repo.load(version)["x"]
    streamed = chipmink.loads(chipmink.dumps(instance))
    monkeypatch.undo()
    assert first is second is not instance
    for copied in (first, streamed):
        assert type(copied) is type(instance)
        assert state(copied) == state(instance)


def test_private_slots_keep_their_owners(repo):
    copied = repo.load(repo.save({"x": types_.Sub([1], [2])}))["x"]
    assert (copied.secret(), copied.own()) == ([1], [2])


def test_slots_of_a_base_that_a_frozen_dataclass_forgets(repo):
    instance = filled(types_.FrozenWithMore, a=1, c=3, x=4)
    copied = repo.load(repo.save({"x": instance}))["x"]
    assert (copied.a, copied.c, copied.x) == (1, 3, 4)
    assert not hasattr(copied, "b")


def test_what_says_itself_how_it_is_pickled_is_asked(repo):
    hidden = filled(types_.Hidden, a=1, b=2)
    types_.Base.a.__set__(hidden, "below")
    over, hooked = filled(types_.Overridden, x=1, y=2), filled(types_.Hooked, x=1)
    loaded = repo.load(repo.save({"over": over, "hooked": hooked, "hidden": hidden}))
    assert loaded["over"].x == 2
    assert not hasattr(loaded["over"], "y")
    assert loaded["hooked"].x == "reduced"
    assert (loaded["hidden"].a, loaded["hidden"].b) == (1, 2)


def test_copyreg_comes_first(repo):
    copyreg.pickle(types_.Base, lambda obj: (filled, (types_.Base,), (None, {"a": "registered"})))
    try:
        assert repo.load(repo.save({"x": INSTANCES["both slots"]}))["x"].a == "registered"
    finally:
        del copyreg.dispatch_table[types_.Base]
    assert repo.load(repo.save({"x": INSTANCES["both slots"]}))["x"].a == 1


def test_cycles_and_sharing(repo):
    one, two = filled(types_.Derived, c=[]), filled(types_.Both)
    one.a, one.b, two.a = two, one, one
    two.me, two.list = two, one.c
    first = repo.load(repo.save({"one": one, "two": two}))
    assert first["one"].b is first["one"]
    assert first["one"].a is first["two"] is first["two"].me
    assert first["two"].a is first["one"]
    assert first["two"].list is first["one"].c


def test_a_dict_that_is_seen_elsewhere(repo):
    both = filled(types_.Both, a=1, z=2)
    loaded = repo.load(repo.save({"both": both, "attributes": both.__dict__}))
    assert loaded["both"].__dict__ is loaded["attributes"]
    assert (loaded["both"].a, loaded["both"].z) == (1, 2)
    loaded["attributes"]["z"] = 3
    assert loaded["both"].z == 3


CHANGES = {
    "a value": lambda x: setattr(x, "a", "new"),
    "a value for an equal one elsewhere": lambda x: setattr(x, "b", [[2]]),
    "inside a value": lambda x: x.b.append(3),
    "a slot unset": lambda x: delattr(x, "a"),
    "another slot set": lambda x: setattr(x, "c", None),
    "the slots exchanged": lambda x: [setattr(x, name, value) for name, value in (("a", x.b), ("b", x.a))],
}


@pytest.mark.parametrize("accessed", [None, ["x"]])
@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_found(repo, change, accessed):
    x = filled(types_.Derived, a=[1], b=[2])
    namespace = {"x": x, "filler": [filled(types_.Derived, c=i) for i in range(50)]}
    for _ in range(4):
        last = repo.save(namespace)
    assert last.report.pods_dirty == 0
    assert last.report.pods_shadow == last.report.pods_clean > 0
    CHANGES[change](x)
    version = repo.save(namespace, accessed=accessed)
    assert version.report.pods_dirty > 0
    assert state(repo.load(version)["x"]) == state(x)
    assert repo.save(namespace).report.pods_dirty == 0


def test_change_of_the_dict_beside_the_slots(repo):
    x = filled(types_.Both, a=1, z=2)
    namespace = {"x": x}
    for _ in range(4):
        repo.save(namespace)
    x.z = 3
    assert repo.load(repo.save(namespace))["x"].z == 3
    x.a = 4
    assert repo.load(repo.save(namespace))["x"].a == 4
    x.w = 5
    assert repo.load(repo.save(namespace))["x"].w == 5


def test_a_class_that_loses_a_slot_while_it_is_in_use(repo):
    class Local:
        __slots__ = ("x", "y")

    local = Local()
    local.x, local.y = 1, 2
    namespace = {"local": local}
    for _ in range(4):
        repo.save(namespace)
    del Local.x
    loaded = repo.load(repo.save(namespace))["local"]
    assert loaded.y == 2
    assert not hasattr(loaded, "x")


def test_classes_by_value(repo):
    class Local:
        __slots__ = ("_Local__p", "x")

    local = Local()
    local.x, local._Local__p = [local], 1
    version = repo.save({"local": local, "other": local.x})
    Local.changed = True
    loaded = repo.load(version)
    assert loaded["local"].x is loaded["other"]
    assert loaded["other"][0] is loaded["local"]
    assert loaded["local"]._Local__p == 1
    assert type(loaded["local"]) is not Local


def test_nothing_is_held(repo):
    class Value:
        pass

    value = Value()
    x = filled(types_.Derived, a=value)
    reference = weakref.ref(value)
    for _ in range(4):
        repo.save({"x": x})
    del value, x
    gc.collect()
    assert reference() is None


def test_many_slots(repo):
    for count in (64, 65):
        kind = type("Many", (), {"__slots__": tuple(f"s{i}" for i in range(count))})
        many = kind()
        for i in range(0, count, 2):
            setattr(many, f"s{i}", [i])
        loaded = repo.load(repo.save({"x": many}))["x"]
        assert {i: getattr(loaded, f"s{i}") for i in range(count) if hasattr(loaded, f"s{i}")} == {
            i: [i] for i in range(0, count, 2)
        }


def test_equal_instances_are_the_same_bytes(repo):
    first = repo.save({"x": [filled(types_.Derived, a=1, c=i) for i in range(10)]})
    second = repo.save({"x": [filled(types_.Derived, c=i, a=1) for i in range(10)]})
    assert repo.diff(first, second).changed == ()
