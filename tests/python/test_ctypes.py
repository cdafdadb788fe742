"""Memory of ctypes: arrays and structures are values; pointers, functions and libraries are addresses of their process."""

from __future__ import annotations

import ctypes
from typing import Any

import chipmink
import numpy as np
import pytest
from reducing import run


def copies(repo: chipmink.Repository, value: Any) -> list[Any]:
    """A value loaded from a repository after two saves, and from a stream."""
    repo.save({"value": value})
    saved = repo.save({"value": value})
    assert saved.report.skipped == saved.report.stubs == ()
    return [repo.load(saved)["value"], chipmink.loads(chipmink.dumps(value))]


@pytest.mark.parametrize("length", [0, 7, 50_000])
def test_arrays(repo, length):
    numbers = (ctypes.c_int * length)(*range(length))
    for copy in copies(repo, {"numbers": numbers, "same": numbers, "kind": type(numbers)}):
        # ctypes has one type for each item and length.
        assert type(copy["numbers"]) is type(numbers) is copy["kind"]
        assert list(copy["numbers"]) == list(numbers)
        assert copy["same"] is copy["numbers"]


def test_arrays_of_arrays_and_of_characters(repo):
    grid = ((ctypes.c_double * 3) * 2)((1, 2, 3), (4, 5, 6))
    text = ctypes.create_string_buffer(b"text", 10)
    for copy in copies(repo, [grid, text, ctypes.c_int(5), ctypes.c_bool(True)]):
        assert [list(row) for row in copy[0]] == [[1, 2, 3], [4, 5, 6]]
        assert (copy[1].raw, type(copy[1])) == (text.raw, type(text))
        assert (copy[2].value, copy[3].value) == (5, True)


def test_a_change_of_one_element_is_found(repo):
    numbers = (ctypes.c_long * 100_000)()
    names = {"numbers": numbers, "other": [1]}
    repo.save(names)
    numbers[70_000] = 5
    saved = repo.save(names)
    assert saved.report.bytes_written < 3 * 65_536
    assert repo.load(saved)["numbers"][70_000] == 5


def test_numpy_over_an_array_of_ctypes_sees_its_writes(repo):
    memory = (ctypes.c_double * 20_000)(*range(20_000))
    value = {"array": np.ctypeslib.as_array(memory), "memory": memory, "part": np.frombuffer(memory)[5:9]}
    saved = repo.save(value)
    assert saved.report.skipped == ()
    loaded = repo.load(saved)
    assert loaded["array"][7] == loaded["memory"][7] == loaded["part"][2] == 7
    loaded["array"][7] = -1
    assert loaded["part"][2] == -1


STRUCTURES = """
    import ctypes
    class Point(ctypes.Structure):
        _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_double)]
        _pack_ = 1
        _layout_ = "ms"
        def sum(self): return self.x + self.y
    class Node(ctypes.Structure):
        pass
    Node._fields_ = [("points", Point * 3), ("next", ctypes.POINTER(Node)), ("low", ctypes.c_uint, 3)]
    class Either(ctypes.Union):
        class Halves(ctypes.Structure):
            _fields_ = [("first", ctypes.c_short), ("second", ctypes.c_short)]
        _anonymous_ = ("halves",)
        _fields_ = [("all", ctypes.c_int), ("halves", Halves)]
    point, either = Point(3, 4.5), Either(all=7 << 16 | 5)
    many = (Point * 5)(point)
"""


def test_structures_of_a_program(repo):
    program = run(STRUCTURES)
    saved = repo.save({name: value for name, value in program.items() if not name.startswith("__")})
    assert saved.report.skipped == saved.report.stubs == ()
    loaded = repo.load(saved)
    assert (loaded["point"].x, loaded["point"].y, loaded["point"].sum()) == (3, 4.5, 7.5)
    assert ctypes.sizeof(loaded["Point"]) == ctypes.sizeof(program["Point"]) == 12
    assert type(loaded["many"]) is loaded["Point"] * 5
    assert (loaded["many"][0].y, loaded["many"][1].y) == (4.5, 0)
    assert (loaded["either"].first, loaded["either"].second) == (5, 7)
    node = loaded["Node"](next=ctypes.pointer(loaded["Node"](low=5)))
    assert (node.next.contents.low, ctypes.sizeof(node)) == (5, ctypes.sizeof(program["Node"]))


def test_addresses_are_placeholders_that_say_so(repo):
    number = ctypes.c_int(5)
    library = ctypes.CDLL(None)
    value = {
        "pointer": ctypes.pointer(number),
        "text": ctypes.c_char_p(b"text"),
        "void": ctypes.c_void_p(1),
        "function": library.strlen,
        "library": library,
        "callback": ctypes.CFUNCTYPE(None)(print),
    }
    with pytest.warns(chipmink.SkippedVariableWarning, match="placeholder"):
        saved = repo.save({"value": value, "number": number})
    assert saved.report.skipped == ()
    assert {lost.variable for lost in saved.report.stubs} == {"value"}
    assert len(saved.report.stubs) == len(value)
    loaded = repo.load(saved)
    assert loaded["number"].value == 5
    for placeholder in loaded["value"].values():
        assert isinstance(placeholder, chipmink.Placeholder)
