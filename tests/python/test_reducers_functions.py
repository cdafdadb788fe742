"""Functions, closures and methods by value: what their reducers yield, through the standard pickler and through streams."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import textwrap

import chipmink
import pytest
import reference_pickler
from chipmink._placeholder import Placeholder
from reducing import run


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
