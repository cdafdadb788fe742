"""Troublesome objects: what their reducers yield, or why there is none, through the standard pickler and through streams."""

from __future__ import annotations

import collections
import concurrent.futures
import copyreg
import ctypes
import gc
import hashlib
import json
import logging
import os
import queue
import socket
import sqlite3
import struct
import sys
import threading
import types
import weakref

import chipmink
import numpy
import pytest
import reference_pickler
from chipmink import _numpy, _reducers
from chipmink._placeholder import Placeholder
from reducing import run


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


@pytest.mark.parametrize("with_numpy", [True, False])
def test_parts_of_buffers_with_other_items(copy, with_numpy, monkeypatch):
    if not with_numpy:
        monkeypatch.setattr(_numpy, "array_over", lambda view: None)
    for kind, numbers in ((ctypes.c_int, [1, -2, 3]), (ctypes.c_long, [1, 1 << 40, 3]), (ctypes.c_double, [0.5, 1.5, 2.5])):
        buffer = memoryview((kind * 3)(*numbers))
        for part in (slice(1, 3), slice(None, None, 2)):
            assert copy(buffer[part]).tolist() == numbers[part]
    for dtype in ("f2", ">i4", "c16", "S3", "i4,f8"):
        array = numpy.arange(6).astype(dtype)[1:]
        if with_numpy:
            made = copy(memoryview(array))
            assert (made.format, made.tobytes()) == (memoryview(array).format, array.tobytes())


def test_views_that_cannot_be_made_of_a_copy_are_placeholders(repo):
    class Pair(ctypes.Structure):
        _fields_ = (("a", ctypes.c_int), ("b", ctypes.c_double))

    with pytest.warns(chipmink.SkippedVariableWarning, match="no view of a copy"):
        version = repo.save({"pairs": memoryview((Pair * 3)())[1:], "other": 1})
    loaded = repo.load(version)
    assert loaded["other"] == 1 and isinstance(loaded["pairs"], chipmink.Placeholder)


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


def test_a_module_made_by_the_program_as_a_variable(repo):
    made = types.ModuleType("json")
    made.value, made.itself = [1], made
    namespace = {"made": made, "also": [made], "imported": json}
    first = repo.save(namespace)
    made.value.append(2)
    second = repo.save(namespace)
    assert repo.diff(first, second).changed == ("also", "made")
    for version, value in ((first, [1]), (second, [1, 2])):
        loaded = repo.load(version)
        assert loaded["made"].value == value and loaded["made"].itself is loaded["also"][0] is loaded["made"]
        assert loaded["made"] is not json and loaded["imported"] is json


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
