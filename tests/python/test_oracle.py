"""The oracle sees what it has to see: a check that cannot fail would prove nothing."""

from __future__ import annotations

import collections
import copy
import pickle
import random
from typing import Any

import graph_types as kinds
import pytest
from oracle import assert_same, canonical, describe_difference


def same(left: Any, right: Any) -> bool:
    return canonical({"x": left}) == canonical({"x": right})


def test_equal_copies_are_equal():
    value = [kinds.Plain(), (1, 2), {"a": {1, 2}}, collections.OrderedDict(z=1), kinds.Record(1), random.Random(1)]
    assert same(value, pickle.loads(pickle.dumps(value)))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        ("a", b"a"),
        ([], ()),
        ([1], [1, 1]),
        ({1: 2, 3: 4}, {3: 4, 1: 2}),
        (collections.OrderedDict(a=1), {"a": 1}),
        ({1, 2}, frozenset((1, 2))),
        ({(1, 2)}, {(1, 3)}),
        (kinds.Plain(), kinds.Sibling()),
        (kinds.IntChild(7), 7),
        (kinds.TupleChild(), ()),
        (random.Random(1), random.Random(2)),
        (bytearray(b"x"), b"x"),
        ("x" * 1000, "x" * 999 + "y"),
    ],
    ids=repr,
)
def test_different_values_differ(left, right):
    assert not same(left, right)


def test_sharing_counts():
    one, other = [1], [1]
    assert not same([one, one], [one, other])
    assert not same((one, {"k": one}), (one, {"k": other}))
    pair = (one, 2)
    assert not same([pair, pair], [pair, (one, 2)])
    assert canonical({"a": one, "b": one}) != canonical({"a": one, "b": other})


def test_cycles_count():
    loop: list[Any] = []
    loop.append(loop)
    longer: list[Any] = [[]]
    longer[0].append(longer)
    assert not same(loop, longer)
    assert same(longer, pickle.loads(pickle.dumps(longer)))


def test_members_of_sets_are_told_apart_by_what_refers_to_them():
    one, other = kinds.Plain(), kinds.Plain()
    assert same(({one, other}, one), ({other, one}, other))
    one.a = other
    assert not same(({one, other}, one), ({one, other}, other))


def test_attributes_in_slots_count():
    left, right = kinds.SlottedDict(), kinds.SlottedDict()
    left.left = 1
    assert not same(left, right)
    right.left = 1
    assert same(left, right)
    right.more = []
    assert not same(left, right)


def test_functions_by_value():
    def make(value: Any) -> Any:
        return lambda: value

    shared: list[Any] = []
    assert same(make(1), make(1))
    assert not same(make(1), make(2))
    assert not same([make(shared), shared], [make([]), shared])


def test_nan_payload_and_bits():
    import struct

    quiet, other = (struct.unpack(">d", bytes.fromhex(text))[0] for text in ("7ff8000000000001", "7ff8000000000002"))
    assert same(quiet, copy.copy(quiet))
    assert not same(quiet, other)


def test_arrays():
    numpy = pytest.importorskip("numpy")
    array = numpy.arange(12.0).reshape(3, 4)
    assert same(array, array.copy())
    assert same(array[:, ::2], array[:, ::2].copy())
    assert not same(array, array.T)
    assert not same(array, numpy.asfortranarray(array))
    assert not same(array, array.astype("f4"))
    frozen = array.copy()
    frozen.flags.writeable = False
    assert not same(array, frozen)


def test_deep_nesting():
    value: Any = None
    for _ in range(200_000):
        value = [value]
    assert len(canonical({"x": value})) == 200_001


def test_a_difference_is_described():
    want = canonical({"x": [1, {"k": (2, [3])}]})
    with pytest.raises(AssertionError, match=r"namespace\[0\] > list\[1\] > dict\[1\] > tuple\[1\]"):
        assert_same(want, {"x": [1, {"k": (2, [4])}]})
    assert describe_difference(want, want) == "no difference"
