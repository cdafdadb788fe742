"""`dumps` and its kin: what they take and refuse, beyond what goes round."""

from __future__ import annotations

import array
import io
import os
import pickle
import sys
import threading
from pathlib import Path

import chipmink
import pytest


def test_loads_takes_any_buffer():
    data = chipmink.dumps({"a": [1, 2]})
    assert isinstance(data, bytes)
    for given in (data, bytearray(data), memoryview(data), memoryview(bytearray(data))):
        assert chipmink.loads(given) == {"a": [1, 2]}
    with pytest.raises(TypeError):
        chipmink.loads("text")


def test_there_is_no_protocol():
    with pytest.raises(TypeError):
        chipmink.dumps(1, protocol=5)
    with pytest.raises(TypeError):
        chipmink.dumps(1, 5)


def test_other_bytes_are_told_apart():
    with pytest.raises(chipmink.UnsupportedError, match=r"pickle\.loads"):
        chipmink.loads(pickle.dumps([1]))
    for rubbish in (b"", b"rubbish", b"PK\x03\x04"):
        with pytest.raises(chipmink.DamagedError):
            chipmink.loads(rubbish)


def test_truncated_streams_in_files():
    data = chipmink.dumps(list(range(1000)))
    for cut in (1, 5, 6, 7, 9, len(data) - 1):
        with pytest.raises(chipmink.DamagedError):
            chipmink.load(io.BytesIO(data[:cut]))
    with pytest.raises(chipmink.UnsupportedError, match="pickle"):
        chipmink.load(io.BytesIO(pickle.dumps({"a": 1})))


def test_load_reads_no_further_than_its_stream():
    file = io.BytesIO()
    chipmink.dump([1], file)
    file.write(b"what follows")
    file.seek(0)
    assert chipmink.load(file) == [1] and file.read() == b"what follows"


def test_load_takes_files_that_give_less_than_asked_for():
    data = chipmink.dumps(os.urandom(300_000))
    want = chipmink.loads(data)
    read, write = os.pipe()
    writer = threading.Thread(target=lambda: os.fdopen(write, "wb").write(data))
    writer.start()
    with os.fdopen(read, "rb", buffering=0) as pipe:
        assert chipmink.load(pipe) == want
    writer.join()

    class OnlyReads:
        def __init__(self, data):
            self.file = io.BytesIO(data)

        def read(self, size):
            return self.file.read(min(size, 3))

    assert chipmink.load(OnlyReads(chipmink.dumps([1]))) == [1]
    with pytest.raises(chipmink.DamagedError):
        chipmink.load(OnlyReads(b"rubbish"))


def test_a_length_in_a_stream_costs_no_memory():
    class Counts(io.BytesIO):
        most = 0

        def read(self, size=-1):
            self.most = max(self.most, size)
            return super().read(size)

    head = bytearray(chipmink.dumps([1])[:6])
    file = Counts(bytes(head) + b"\xff" * 8 + b"\x7f" + b"x" * 100)
    with pytest.raises(chipmink.DamagedError):
        chipmink.load(file)
    assert file.most <= 1 << 30


def test_loads_takes_buffers_of_any_items():
    data = chipmink.dumps([1, 2])
    data += b""
    assert chipmink.loads(array.array("b", data)) == [1, 2]


def test_names_to_allow_are_a_list():
    with pytest.raises(TypeError, match="list of str"):
        chipmink.loads(chipmink.dumps(1), allow="datetime.date")


def test_a_stream_refuses_what_a_repository_would_stub():
    for value in ((i for i in ()), [threading.Thread()], {"f": sys._getframe()}):
        with pytest.raises(TypeError):
            chipmink.dumps(value)


def test_allow_for_streams():
    data = chipmink.dumps([Path("x"), 1])
    kind = type(Path("x"))
    with pytest.raises(chipmink.NotAllowedError, match=r"pathlib.*PosixPath"):
        chipmink.loads(data, allow=[])
    assert chipmink.loads(data, allow=[f"{kind.__module__}.{kind.__qualname__}"])[1] == 1

    class Evil:
        def __reduce__(self):
            return os.system, ("echo never > /dev/null; exit 7",)

    with pytest.raises(chipmink.NotAllowedError, match="system"):
        chipmink.loads(chipmink.dumps(Evil()), allow=lambda module, name: "system" not in name)
