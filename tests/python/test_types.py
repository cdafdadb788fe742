"""Every kind of object comes back as it was, from a stream and from a repository."""

from __future__ import annotations

import array
import builtins
import collections
import contextvars
import copyreg
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import io
import ipaddress
import math
import operator
import os
import pathlib
import random
import re
import string
import sys
import types
import typing
import uuid
import warnings
import zoneinfo
from typing import Any

import chipmink
import graph_types as kinds
import pytest
from oracle import assert_same, canonical


def round_trips(repo: Any, value: Any) -> Any:
    """Saves and loads in both ways, twice in one namespace; the last copy."""
    namespace = {"x": value, "again": [value]}
    want = canonical(namespace)
    assert_same(want, chipmink.loads(chipmink.dumps(namespace)), note="stream")
    number = repo.save(namespace)
    assert not number.report.skipped
    assert_same(want, namespace, note="the saved namespace")
    loaded = repo.load(number)
    assert_same(want, loaded, note="repository")
    return loaded["x"]


def _exception() -> BaseException:
    error = ValueError("what", 3)
    error.extra = [1]  # type: ignore[attr-defined]
    return error


def _slice_of_everything() -> list[Any]:
    shared = [1, 2]
    return [shared, (shared, {"k": shared}), {1: shared}, collections.deque([shared])]


BUILTINS: dict[str, Any] = {
    "none": None,
    "ints": [0, 1, -1, 127, 128, 255, 256, 32767, 1 << 31, -(1 << 31), (1 << 63) - 1, -(1 << 63), 1 << 64, 1 << 4000, -(1 << 4000)],
    "floats": [0.0, -0.0, 1e-310, math.inf, -math.inf, math.nan, sys.float_info.max],
    "complex": [1j, complex(-0.0, math.nan)],
    "bools": [True, False],
    "strings": ["", "ascii", "latin \xe9", "bmp \u0416", "astral \U0001f40d", "lone \ud800", "\x00", "x" * 100_000, "\u0416" * 70_000],
    "bytes": [b"", b"\x00\xff", b"x" * 100_000],
    "bytearray": bytearray(b"abc" * 1000),
    "empty containers": [[], {}, (), set(), frozenset(), bytearray()],
    "nested": _slice_of_everything(),
    "tuples": [(), (1,), ((),), tuple(range(300))],
    "sets": [{1, "a", None, 2.5, (1, 2)}, frozenset({frozenset({1}), b"x"})],
    "dicts": {1: "a", "k": {2: {}}, (1, 2): None, None: 3, 2.5: 1j, frozenset({1}): ()},
    "range": [range(3), range(0, 100, 7), range(1 << 70)],
    "slice": [slice(1), slice(None, 3, -1)],
    "ellipsis and friends": [..., NotImplemented],
    "types": [int, type, object, dict, collections.OrderedDict, kinds.Plain, type(None), type(...), type(NotImplemented)],
    "builtin functions": [len, print, math.sin, os.path.join, operator.add],
    "methods of builtins": [str.upper, "abc".upper, [1].append, dict.fromkeys, list.__len__, int.from_bytes],
    "generic aliases": [list[int], dict[str, list[int]], typing.List[int], typing.Optional[int], int | None],  # noqa: UP006, UP045
    "modules": [math, os.path, re],
    "iterators": [iter([1, 2, 3]), iter((1, 2)), enumerate("ab"), zip([1], [2], strict=False), map(abs, [-1]), reversed([1, 2])],
    "exceptions": [_exception(), KeyError("k"), OSError(2, "no", "file"), StopIteration(3), UnicodeDecodeError("utf-8", b"x", 0, 1, "bad")],
    "exception group": ExceptionGroup("several", [ValueError(1), TypeError(2)]),
    "simple namespace": types.SimpleNamespace(a=1, b=[2]),
    "notimplemented": NotImplemented,
}

LIBRARY: dict[str, Any] = {
    "deque": [collections.deque([1, [2]], 5), collections.deque()],
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "ordered dict": collections.OrderedDict([("z", 1), ("a", [2])]),
    "counter": collections.Counter("abracadabra"),
    "chain map": collections.ChainMap({"a": 1}, {"b": [2]}),
    "user types": [collections.UserDict(a=1), collections.UserList([1]), collections.UserString("s")],
    "array": [array.array("d", [1.5, 2.5]), array.array("u", "xy"), array.array("B", bytes(100_000))],
    "datetime": [
        datetime.datetime(2024, 2, 29, 12, 30, 1, 5, datetime.UTC, fold=1), datetime.date(1, 1, 1), datetime.time(1, 2, fold=1),
        datetime.timedelta(-1, 5, 7), datetime.timezone(datetime.timedelta(hours=5), "X"), zoneinfo.ZoneInfo("UTC"),
    ],
    "decimal": [decimal.Decimal("1.50"), decimal.Decimal("NaN"), fractions.Fraction(1, 3)],
    "uuid": uuid.UUID(int=5),
    "paths": [pathlib.Path("/a/b"), pathlib.PurePosixPath("x"), pathlib.PureWindowsPath("c:/x")],
    "addresses": [ipaddress.ip_address("10.0.0.1"), ipaddress.ip_network("10.0.0.0/8")],
    "regular expression": re.compile(r"(\w+)\s*", re.I | re.X),
    "random": random.Random(7),
    "partial": functools.partial(int, base=2),
    "partial method": functools.partialmethod(print, 1),
    "getters": [operator.itemgetter(1, "a"), operator.attrgetter("a.b"), operator.methodcaller("f", 1, k=2)],
    "string io": io.StringIO("text"),
    "bytes io": io.BytesIO(b"bytes"),
    "template": string.Template("$a"),
    "structseq": [os.stat("/"), os.times()],
    "enum": [kinds.Colour.RED, kinds.Bits.A | kinds.Bits.C, kinds.Bits(0), re.I, kinds.Colour],
    "named tuple": [kinds.Pair(1, [2]), kinds.Pair],
}  # fmt: skip


def _with(value: Any, **attributes: Any) -> Any:
    for name, attribute in attributes.items():
        setattr(value, name, attribute)
    return value


def _slotted() -> Any:
    value = kinds.SlottedDict()
    value.left, value.more = [1], {"a": 1}
    return value


CLASSES: dict[str, Any] = {
    "plain": _with(kinds.Plain(), a=1, b=[2]),
    "many of one shape": [_with(kinds.Plain(), a=i, b=str(i)) for i in range(100)],
    "many shapes": [_with(kinds.Plain(), **{f"a{i}": i}) for i in range(100)],
    "without attributes": kinds.Plain(),
    "slots": [_slotted(), kinds.Slotted()],
    "dataclass": [kinds.Record(1, "x", [2]), kinds.FrozenPoint(1, "y")],
    "list child": _with(kinds.ListChild([1, [2]]), a=1),
    "dict child": _with(kinds.DictChild({1: [2]}), a=1),
    "tuple child": _with(kinds.TupleChild((1, [2])), a=1),
    "set child": _with(kinds.SetChild({1, "a"}), a=[1]),
    "str child": _with(kinds.StrChild("text"), a=[1]),
    "int child": _with(kinds.IntChild(1 << 70), a=[1]),
    "ordered child": kinds.OrderedChild(z=1, a=2),
    "reduce": kinds.Reduced([1, 2], "r"),
    "reduce with state": kinds.ReducedWithState(3),
    "reduce with all six": kinds.ReducedAll(4),
    "new arguments": _with(kinds.WithNewArgs(number=3), content=[1]),
    "state that is a tuple": kinds.WithGetState([1], "n"),
    "keys with a hash": {kinds.Key(1, [1]): 1, kinds.SlottedKey(2): {kinds.Key(3)}, (kinds.Key(4), 1): 2},
    "bound method": kinds.ReducedWithState(1).__setstate__,
    "class": [kinds.Plain, kinds.Pair, kinds.Colour],
}


@pytest.mark.parametrize("name", BUILTINS)
def test_builtin(repo, name):
    round_trips(repo, BUILTINS[name])


@pytest.mark.parametrize("name", LIBRARY)
def test_library(repo, name):
    round_trips(repo, LIBRARY[name])


@pytest.mark.parametrize("name", CLASSES)
def test_class(repo, name):
    round_trips(repo, CLASSES[name])


def test_reduce_with_all_six_elements(repo):
    value = kinds.ReducedAll(4)
    value.list_items += [1, [value]]
    value.dict_items.update({"a": value, (1, 2): [3]})
    value.content = {"self": value}
    copy = round_trips(repo, value)
    assert copy.list_items[1][0] is copy and copy.dict_items["a"] is copy and copy.content["self"] is copy


def test_all_builtin_types_and_exceptions(repo):
    """Every class of `builtins` is saved by name."""
    for value in vars(builtins).values():
        if isinstance(value, type):
            assert chipmink.loads(chipmink.dumps(value)) is value


def test_copyreg(repo):
    copyreg.pickle(Registered, lambda value: (Registered, (value.number * 2,)))
    try:
        assert chipmink.loads(chipmink.dumps([Registered(3)]))[0].number == 6
        assert repo.load(repo.save({"x": Registered(3)}))["x"].number == 6
    finally:
        copyreg.dispatch_table.pop(Registered)


class Registered:
    """Saved through copyreg while a test runs."""

    def __init__(self, number: int):
        self.number = number


def test_recursive_everything(repo):
    value: list[Any] = []
    key = kinds.Key(1)
    plain = _with(kinds.Plain(), up=value)
    value += [value, (value,), {key: value}, {key}, plain, kinds.Reduced(value, "r")]
    key.content = value
    round_trips(repo, value)


def test_order_of_dicts_with_late_hashes(repo):
    """A key that can only be inserted late holds back what follows it."""
    key = kinds.Key(5)
    value = {"first": 1, key: 2, "last": 3}
    key.content = value
    copy = round_trips(repo, value)
    assert [type(each).__name__ for each in copy] == ["str", "Key", "str"]
    assert copy[next(each for each in copy if isinstance(each, kinds.Key))] == 2


# --- by value


def _lambda_with_closure() -> Any:
    count, box = 3, [1]
    return lambda by, *more, key=box, **rest: (count, by, more, key is box, rest)


def test_lambda(repo):
    copy = round_trips(repo, _lambda_with_closure())
    assert copy(1, 2, z=3) == (3, 1, (2,), True, {"z": 3})


def test_closure_shared_by_two_functions(repo):
    def make() -> Any:
        count = 0

        def up() -> None:
            nonlocal count
            count += 1

        return up, lambda: count

    up, read = round_trips(repo, make())
    up()
    assert read() == 1


def test_recursive_function(repo):
    def make() -> Any:
        def factorial(n: int) -> int:
            return n * factorial(n - 1) if n else 1

        return factorial

    assert round_trips(repo, make())(5) == 120


def test_function_with_attributes(repo):
    def make() -> Any:
        def inner(a: int, b: str = "x", *, c: list[int] | None = None) -> float:
            """A docstring."""
            return 1.0

        inner.note = [inner]  # type: ignore[attr-defined]
        return inner

    copy = round_trips(repo, make())
    assert copy.note[0] is copy and copy.__doc__ == "A docstring." and copy.__kwdefaults__ == {"c": None}


def test_class_by_value(repo):
    def make() -> Any:
        class Base:
            shared: typing.ClassVar[list[int]] = [1]

            def __init__(self, value: int):
                self.value = value

            def get(self) -> int:
                return self.value

        class Child(Base):
            __slots__ = ("extra",)

            def get(self) -> int:
                return super().get() + 1

            @property
            def double(self) -> int:
                return 2 * self.value

            @staticmethod
            def three() -> int:
                return 3

            @classmethod
            def name(cls) -> str:
                return cls.__name__

        return Child

    kind = make()
    value = kind(4)
    value.extra = [value]
    copy = chipmink.loads(chipmink.dumps([value, kind]))
    assert type(copy[0]) is copy[1]
    assert (copy[0].get(), copy[0].double, copy[1].three(), copy[1].name()) == (5, 8, 3, "Child")
    assert copy[0].extra[0] is copy[0]
    loaded = repo.load(repo.save({"value": value, "kind": kind}))
    assert type(loaded["value"]) is loaded["kind"] and loaded["value"].get() == 5


def test_dataclass_enum_and_named_tuple_by_value(repo):
    def make() -> Any:
        @dataclasses.dataclass(order=True)
        class Local:
            a: int
            b: list[int] = dataclasses.field(default_factory=list)

        class Shade(enum.Enum):
            DARK = 1
            LIGHT = [2]

            def label(self) -> str:
                return self.name.lower()

        class Both(typing.NamedTuple):
            left: int
            right: Any = None

        return Local(1, [2]), Shade.LIGHT, Shade, Both(3, Shade.DARK)

    copy = chipmink.loads(chipmink.dumps(make()))
    assert dataclasses.asdict(copy[0]) == {"a": 1, "b": [2]} and copy[0] == type(copy[0])(1, [2])
    assert copy[1] is copy[2].LIGHT and copy[1].label() == "light" and list(copy[2]) == [copy[2].DARK, copy[2].LIGHT]
    assert copy[3].left == 3 and copy[3].right is copy[2].DARK
    loaded = repo.load(repo.save({"all": make()}))["all"]
    assert loaded[1] is loaded[2].LIGHT and loaded[3].right is loaded[2].DARK


MAIN = """
import math
counter = 0
table = {}
class Account:
    rate = 2
    def __init__(self, amount): self.amount = amount
    def worth(self): return self.amount * Account.rate * scale(1)
def scale(x): return math.floor(x) * factor
def bump():
    global counter
    counter += 1
    table[counter] = account
factor = 3
account = Account(5)
bump()
"""


def _main() -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(MAIN, "<cell>", "exec"), namespace)
    return namespace


def test_functions_of_a_session_are_bound_to_the_namespace_that_they_are_loaded_into(repo):
    namespace = _main()
    loaded = repo.load(repo.save(namespace))
    assert loaded["bump"].__globals__ is loaded
    loaded["bump"]()
    assert (loaded["counter"], namespace["counter"]) == (2, 1)
    assert loaded["table"][2] is loaded["account"] is loaded["table"][1]
    loaded["factor"] = 10
    assert loaded["account"].worth() == 100
    assert type(loaded["account"]) is loaded["Account"]


def test_a_function_alone_brings_the_names_it_reads(repo):
    number = repo.save(_main())
    loaded = repo.load(number, names=["scale"])
    assert loaded["scale"](2.5) == 6
    assert repo.load(number, names=["account"])["account"].worth() == 30


def test_a_restore_alters_no_live_class(repo):
    namespace = _main()
    number = repo.save(namespace)
    live = namespace["Account"]
    live.rate = 100
    loaded = repo.load(number)
    assert live.rate == 100
    assert loaded["Account"].rate == 2


# --- buffers


def test_out_of_band_buffers():
    numpy = pytest.importorskip("numpy")
    value = {"big": numpy.arange(100_000.0), "small": numpy.arange(3), "text": "t"}
    buffers: list[Any] = []
    data = chipmink.dumps(value, buffer_callback=buffers.append)
    assert len(data) < 2_000 and buffers
    copy = chipmink.loads(data, buffers=buffers)
    assert numpy.shares_memory(copy["big"], value["big"])
    assert_same(canonical({"x": value}), {"x": copy})
    writable = [bytearray(buffer.raw()) for buffer in buffers]
    assert_same(canonical({"x": value}), {"x": chipmink.loads(data, buffers=iter(writable))})


def test_out_of_band_arrays_of_numbers():
    numbers = array.array("d", range(20_000))
    kept: list[Any] = []
    stream = chipmink.dumps([numbers, numbers[:0]], buffer_callback=kept.append)
    for given in (kept, [buffer.raw() for buffer in kept]):
        assert len(stream) < 2_000 and chipmink.loads(stream, buffers=given) == [numbers, numbers[:0]]


def test_buffers_in_band_on_request():
    import pickle

    data = bytearray(b"0123456789" * 20)
    kept: list[Any] = []
    stream = chipmink.dumps([pickle.PickleBuffer(data), pickle.PickleBuffer(b"readonly")], buffer_callback=lambda b: kept.append(b) or True)
    first, second = chipmink.loads(stream)
    assert bytes(first) == data and bytes(second) == b"readonly" and len(kept) == 2


# --- streams


def test_a_pickle_is_refused_by_name():
    import pickle

    with pytest.raises(chipmink.ChipminkError, match="(?i)pickle"):
        chipmink.loads(pickle.dumps([1]))


def test_streams_in_a_row():
    file = io.BytesIO()
    values = [[1], {"a": (2,)}, "text"]
    for value in values:
        chipmink.dump(value, file)
    file.seek(0)
    assert [chipmink.load(file) for _ in values] == values
    with pytest.raises(EOFError):
        chipmink.load(file)


@pytest.mark.parametrize("make", [contextvars.copy_context, lambda: (x for x in "ab"), sys._getframe], ids=["context", "generator", "frame"])
def test_nothing_is_lost_in_silence(make):
    """There is no report to a stream: what cannot be saved raises, or warns."""
    with pytest.raises((TypeError, chipmink.ChipminkError, chipmink.SkippedVariableWarning)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            chipmink.dumps(["before", make()])
