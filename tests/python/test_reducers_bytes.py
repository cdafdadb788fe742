"""Equal definitions are equal bytes, in every process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import types

import reference_pickler
from chipmink import _reducers
from reducing import run


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
        import hashlib, test_reducers_bytes, reference_pickler
        for name, value in test_reducers_bytes.run(test_reducers_bytes.DETERMINISTIC)["everything"].items():
            print(name, hashlib.sha256(reference_pickler.dump(value)[0]).hexdigest())
        """
    )
    assert one == two == three and len(one) == 9


def test_streams_of_definitions_are_the_same_bytes_in_every_process():
    one, two, three = in_three_processes(
        """
        import chipmink, hashlib, test_reducers_bytes
        for name, value in test_reducers_bytes.run(test_reducers_bytes.DETERMINISTIC)["everything"].items():
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
