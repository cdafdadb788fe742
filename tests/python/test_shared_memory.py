"""Memory that other processes share: saved where it lies, and back as shared memory."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import pickle
import sys
from multiprocessing.shared_memory import ShareableList, SharedMemory
from typing import Any

import chipmink
import numpy as np
import pytest
from chipmink import _shared
from segments import CHUNK, FOLDER, attached, names, run, segment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="shared memory is saved on Linux only")

SIZES = [100, CHUNK, 3 * CHUNK + 17]


@pytest.mark.parametrize("segment", SIZES, indirect=True)
def test_a_segment_comes_back_as_one_of_its_own(repo, segment):
    content = bytes(segment.buf)
    loaded = repo.load(repo.save({"shm": segment}))["shm"]
    assert type(loaded) is SharedMemory
    assert loaded.name != segment.name
    assert (loaded.size, bytes(loaded.buf)) == (segment.size, content)
    assert attached(loaded.name, "print(shm.size, shm.buf[7]); shm.buf[7] ^= 255") == f"{segment.size} {content[7]}"
    assert loaded.buf[7] == content[7] ^ 255
    assert bytes(segment.buf) == content
    assert (FOLDER / segment.name).exists()
    assert os.stat(FOLDER / loaded.name).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("offset", [0, 24])
def test_arrays_and_views_over_it_are_over_the_new_one(repo, segment, offset):
    array = np.ndarray((100, 200), dtype="i4", buffer=segment.buf, offset=offset)
    array[:] = np.arange(20_000).reshape(100, 200)
    namespace = {
        "part": array[::-3, 5::2].T,
        "array": array,
        "shm": segment,
        "buf": segment.buf,
        "bytes": segment.buf[offset : offset + 40],
        "numbers": segment.buf[offset : offset + 800].cast("i", (100, 2)),
        "read_only": segment.buf[offset : offset + 8].toreadonly(),
        "of_view": np.frombuffer(segment.buf[offset:], dtype="u1"),
    }
    before = bytes(segment.buf)
    loaded = repo.load(repo.save(namespace))
    assert bytes(segment.buf) == before
    assert np.array_equal(loaded["array"], array)
    assert np.array_equal(loaded["part"], namespace["part"])
    assert loaded["part"].strides == namespace["part"].strides
    assert loaded["buf"] is loaded["shm"].buf
    assert loaded["numbers"].tolist() == namespace["numbers"].tolist()
    assert loaded["read_only"].readonly
    loaded["array"][0, 1] = -2
    assert loaded["bytes"][4] == loaded["shm"].buf[offset + 4] == loaded["of_view"][4] == 0xFE
    assert loaded["numbers"][0, 1] == -2
    assert loaded["read_only"][4] == 0xFE
    loaded["shm"].buf[offset + 99 * 800 + 4 * 5] = 77
    assert loaded["part"][0, 0] % 256 == 77
    assert attached(loaded["shm"].name, f"print(shm.buf[{offset + 4}])") == "254"
    assert repo.save(namespace).report.bytes_written < 1000
    del loaded["array"], namespace, array


def test_an_array_alone_is_over_shared_memory(repo, segment, names):
    array = np.ndarray((1000,), buffer=segment.buf, dtype="u1")
    loaded = repo.load(repo.save({"array": array, "half": array[500:]}))
    assert np.array_equal(loaded["array"], array)
    loaded["half"][0] ^= 255
    assert loaded["array"][500] == array[500] ^ 255
    pid = os.fork()
    if pid == 0:
        loaded["array"][1] = 123
        os._exit(0)
    os.waitpid(pid, 0)
    loaded_value = loaded["array"][1]
    assert loaded_value == 123
    # Nobody would know a name for it, so it has none.
    assert names == []
    assert repo.load(repo.save({"shm": segment}))["shm"].name == names[0]


def test_all_that_is_attached_to_one_segment_is_so_again(repo, segment):
    again = SharedMemory(segment.name)
    namespace = {"a": segment, "b": again, "array": np.frombuffer(again.buf, dtype="u1"), "same": segment}
    loaded = repo.load(repo.save(namespace))
    assert loaded["a"] is loaded["same"]
    assert loaded["a"] is not loaded["b"]
    assert loaded["a"].name == loaded["b"].name
    loaded["a"].buf[9] ^= 255
    assert loaded["b"].buf[9] == loaded["array"][9] == again.buf[9] ^ 255
    del namespace["array"]
    again.close()


def test_what_did_not_change_is_stored_once(repo):
    shm = SharedMemory(create=True, size=64 * CHUNK)
    try:
        shm.buf[:] = np.random.default_rng(1).bytes(64 * CHUNK)
        first = repo.save({"shm": shm}).report
        assert first.bytes_written > 64 * CHUNK
        assert repo.save({"shm": shm}).report.bytes_written < 1000
        shm.buf[5 * CHUNK] ^= 255
        changed = repo.save({"shm": shm})
        assert changed.report.bytes_written < CHUNK + 16 * 1024
        assert changed.report.region_bytes == 64 * CHUNK
        other = SharedMemory(create=True, size=64 * CHUNK)
        other.buf[:] = shm.buf
        assert repo.save({"shm": shm, "other": other}).report.bytes_written < 16 * 1024
        loaded = repo.load(changed)
        assert bytes(loaded["shm"].buf) == bytes(shm.buf)
        # The new one is what was saved, so saving it stores nothing anew.
        assert repo.save(loaded).report.bytes_written < 16 * 1024
        other.close()
        other.unlink()
    finally:
        shm.close()
        shm.unlink()


def write_second_mapping(shm: SharedMemory, array: Any, at: int, value: int) -> None:
    with open(FOLDER / shm.name, "r+b") as file, mmap.mmap(file.fileno(), 0) as again:
        again[at] = value


def write_child(shm: SharedMemory, array: Any, at: int, value: int) -> None:
    pid = os.fork()
    if pid == 0:
        array[at] = value
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def write_file(shm: SharedMemory, array: Any, at: int, value: int) -> None:
    with open(FOLDER / shm.name, "r+b") as file:
        os.pwrite(file.fileno(), bytes([value]), at)


def write_process(shm: SharedMemory, array: Any, at: int, value: int) -> None:
    attached(shm.name, f"shm.buf[{at}] = {value}")


@pytest.mark.parametrize("write", [write_second_mapping, write_child, write_file, write_process])
@pytest.mark.parametrize("track_pages", [False, True])
@pytest.mark.parametrize("accessed", [None, [], ["other"]])
def test_every_write_is_found(tmp_path, write, track_pages, accessed):
    shm = SharedMemory(create=True, size=2 << 20)
    array = np.frombuffer(shm.buf, dtype="u1")
    with chipmink.open(tmp_path / "repo", durable=False, track_pages=track_pages) as repo:
        # Neither what has it mapped nor an array over it is accessed; the second is in a variable of its own.
        namespace = {"shm": shm, "deep": [{"array": array}], "other": [1, 2]}
        for _ in range(4):
            report = repo.save(namespace).report
        assert report.unwritten_bytes == 0
        for turn in range(1, 5):
            at = turn * 300_001
            write(shm, array, at, turn)
            saved = repo.save(namespace, accessed=accessed)
            assert saved.report.bytes_written > 100
            loaded = repo.load(saved)
            assert loaded["shm"].buf[at] == loaded["deep"][0]["array"][at] == turn
            del loaded
    namespace.clear()
    del array
    gc.collect()
    shm.close()
    shm.unlink()


def test_nothing_is_held_of_it(repo):
    shm = SharedMemory(create=True, size=2 * CHUNK)
    namespace = {"shm": shm, "array": np.frombuffer(shm.buf, dtype="u1"), "mapping": mmap.mmap(-1, 2 * CHUNK)}
    for _ in range(3):
        repo.save(namespace)
    del namespace["array"]
    namespace["mapping"].resize(CHUNK)
    namespace["mapping"].close()
    shm.close()
    shm.unlink()
    descriptors = len(os.listdir("/proc/self/fd"))
    repo.save({"again": SharedMemory})
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_closed_one_is_a_placeholder_that_says_so(repo, segment):
    name = segment.name
    segment.close()
    with pytest.warns(Warning, match="closed"):
        saved = repo.save({"shm": segment, "other": 1})
    assert [lost.path for lost in saved.report.stubs] == [""]
    loaded = repo.load(saved)
    assert loaded["other"] == 1
    assert name in repr(loaded["shm"]) or name in saved.report.stubs[0].reason
    with pytest.raises(chipmink.PlaceholderError, match="closed"):
        _ = loaded["shm"].buf


def test_one_that_lost_its_name_has_none_again(repo, segment):
    content = bytes(segment.buf)
    segment.unlink()
    loaded = repo.load(repo.save({"shm": segment}))["shm"]
    assert bytes(loaded.buf) == content
    assert not (FOLDER / loaded.name).exists()
    with pytest.raises(FileNotFoundError):
        SharedMemory(loaded.name)
    with pytest.raises(FileNotFoundError):
        loaded.unlink()


class Labelled(SharedMemory):
    """With something of its own."""


def test_a_subclass_keeps_its_attributes(repo):
    shm = Labelled(create=True, size=1000)
    shm.label = ["mine"]  # type: ignore[attr-defined]
    loaded = repo.load(repo.save({"shm": shm}))["shm"]
    assert type(loaded) is Labelled
    assert loaded.label == ["mine"]
    again = repo.load(repo.save({"shm": loaded}))["shm"]
    assert set(again.__dict__) == set(loaded.__dict__)
    shm.close()
    shm.unlink()


def test_lists_in_shared_memory(repo):
    items = ShareableList([1, "two", 2.5, None, b"five", True])
    namespace = {"items": items, "shm": items.shm}
    loaded = repo.load(repo.save(namespace))
    assert list(loaded["items"]) == list(items)
    assert loaded["items"].shm is loaded["shm"]
    loaded["items"][1] = "2"
    assert (loaded["items"][1], items[1]) == ("2", "two")
    code = """
        import sys
        from multiprocessing import resource_tracker
        resource_tracker.register = lambda *_: None
        from multiprocessing.shared_memory import ShareableList
        print(list(ShareableList(name=sys.argv[1])))
    """
    done = run(code, loaded["items"].shm.name)
    assert done.stdout.strip() == "[1, '2', 2.5, None, b'five', True]"
    items.shm.close()
    items.shm.unlink()


@pytest.mark.parametrize("length", [5000, 5 * CHUNK])
def test_mapped_memory_is_saved_by_value(repo, tmp_path, length):
    shared = mmap.mmap(-1, length)
    private = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for mapping, name in ((shared, b"shared"), (private, b"private")):
        mapping.seek(100)
        mapping.write(name)
    namespace = {
        "shared": shared,
        "private": private,
        "one": np.frombuffer(shared, dtype="u1"),
        "two": np.frombuffer(private, dtype="u1")[50:],
        "three": np.frombuffer(private, dtype="u1")[:200],
        "view": memoryview(shared)[100:106],
    }
    loaded = repo.load(repo.save(namespace))
    for name in ("shared", "private"):
        assert type(loaded[name]) is mmap.mmap
        assert loaded[name][:] == namespace[name][:]
        assert loaded[name].tell() == namespace[name].tell()
    assert bytes(loaded["view"]) == b"shared"
    loaded["one"][100] = ord("S")
    assert loaded["shared"][100:106] == bytes(loaded["view"]) == b"Shared"
    loaded["two"][50] = ord("P")
    assert loaded["private"][100:107] == bytes(loaded["three"][100:107]) == b"Private"
    pid = os.fork()
    if pid == 0:
        loaded["shared"][0] = loaded["private"][0] = 9
        os._exit(0)
    os.waitpid(pid, 0)
    assert (loaded["shared"][0], loaded["private"][0]) == (9, 0)
    loaded.clear()
    namespace.clear()


def test_mapped_files_are_not_opened_again(repo, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 400)
    with open(path, "r+b") as file:
        mapping = mmap.mmap(file.fileno(), 0)
    whole = np.frombuffer(mapping, dtype="u1")
    namespace = {"part": whole[10:], "whole": whole, "head": whole[:20], "view": memoryview(mapping), "mapping": mapping}
    with pytest.warns(Warning, match="memory-mapped file"):
        saved = repo.save(namespace)
    loaded = repo.load(saved)
    assert isinstance(loaded["mapping"], chipmink.Placeholder)
    assert bytes(loaded["view"]) == mapping[:]
    for name in ("part", "whole", "head"):
        assert np.array_equal(loaded[name], namespace[name])
    loaded["whole"][15] = 99
    assert loaded["part"][5] == loaded["head"][15] == 99
    assert path.read_bytes() == mapping[:]
    closed = mmap.mmap(-1, 10)
    closed.close()
    with pytest.warns(Warning, match="closed"):
        assert isinstance(repo.load(repo.save({"closed": closed}))["closed"], chipmink.Placeholder)
    namespace.clear()


def test_a_read_only_mapping_is_so_again(repo, segment):
    with open(FOLDER / segment.name, "rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    loaded = repo.load(repo.save({"mapping": mapping, "shm": segment}))
    with pytest.raises(TypeError):
        loaded["mapping"][0] = 1
    loaded["shm"].buf[0] ^= 255
    assert loaded["mapping"][0] == mapping[0] ^ 255
    mapping.close()


def test_streams_name_it_as_pickle_does(segment):
    segment.buf[3] = 33
    loaded = chipmink.loads(chipmink.dumps({"shm": segment, "array": np.frombuffer(segment.buf, dtype="u1")}))
    assert loaded["shm"].name == segment.name
    segment.buf[3] = 44
    assert (loaded["shm"].buf[3], loaded["array"][3]) == (44, 33)
    loaded["shm"].close()


class Mapping(mmap.mmap):
    """A subclass, which is not saved itself."""


@pytest.mark.parametrize("length", [100, CHUNK * 2])
def test_arrays_over_mapped_memory_alone(repo, length):
    """Some of them named the mapping as what they are views of, where that cannot be saved."""
    shared, private = Mapping(-1, length), Mapping(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    plain = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    segment = SharedMemory(create=True, size=length)
    try:
        for mapping in (shared, private, plain, segment.buf):
            array = np.frombuffer(mapping, dtype="u1")
            array[:] = np.arange(length) % 251
            held = {"array": array, "part": array[5:50], "step": array[::3]}
            loaded = [chipmink.loads(chipmink.dumps(held)), chipmink.loads(chipmink.dumps([array]))[0]]
            stored = repo.save(held)
            assert stored.report.skipped == stored.report.stubs == ()
            for copy in (loaded[0], repo.load(stored)):
                assert all(np.array_equal(copy[name], held[name]) for name in held)
                copy["array"][6] = 255
                assert copy["part"][1] == copy["step"][2] == 255
            assert np.array_equal(loaded[1], array)
            del array, held, mapping, loaded, copy
    finally:
        gc.collect()
        with contextlib.suppress(BufferError):
            segment.close()
        segment.unlink()


def test_a_load_that_is_restricted(repo, segment):
    version = repo.save({"shm": segment})
    with pytest.raises(chipmink.ChipminkError):
        repo.load(version, allow=[])
    names = ["make_segment", "fill_segment", "make_mapping", "make_shared_memory"]
    allowed = [f"chipmink._shared.{name}" for name in names] + ["chipmink._rebuild.make_memoryview"]
    allowed.append("multiprocessing.shared_memory.SharedMemory")
    assert bytes(repo.load(version, allow=allowed)["shm"].buf) == bytes(segment.buf)


def test_without_room_nothing_is_left(repo, segment, monkeypatch, names):
    version = repo.save({"shm": segment, "other": 5})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=f"'{segment.name}'.*cannot be made.*make room"):
        repo.load(version)
    assert repo.load(version, names=["other"]) == {"other": 5}
    gc.collect()
    assert names == []
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_damaged_content_leaves_no_name(tmp_path, segment, names):
    with chipmink.open(tmp_path / "repo", durable=False) as repo:
        version = repo.save({"shm": segment})
    [pack] = [path for path in (tmp_path / "repo" / "packs").iterdir() if path.stat().st_size > segment.size]
    content = bytearray(pack.read_bytes())
    at = content.index(bytes(segment.buf[CHUNK : CHUNK + 100]))
    content[at + 50] ^= 1
    pack.write_bytes(content)
    with chipmink.open(tmp_path / "repo", durable=False) as repo, pytest.raises(chipmink.ChipminkError):
        repo.load(version)
    assert names == []


class Odd:
    """Stored as a damaged version may name it."""

    def __init__(self, *reduced: object) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize("length", [0, 10, 80_000, 100_001])
def test_a_content_of_another_length(repo, length):
    content = pickle.PickleBuffer(bytearray(length))
    short = Odd(_shared.make_segment, (100_000, False, "x"), content, None, None, _shared.fill_segment)
    version = repo.save({"short": short, "other": 1})
    with pytest.raises((chipmink.ChipminkError, IndexError, ValueError)):
        repo.load(version)


@pytest.mark.parametrize(
    "reduced",
    [
        (_shared.make_shared_memory, (SharedMemory, b"no segment", b"", b"")),
        (_shared.make_mapping, (mmap, False, 0)),
        (_shared.segment_storage, (None,)),
        (_shared.make_segment, (0, False, "")),
        (_shared.make_segment, (-1, True, "")),
        (_shared.make_segment, (1 << 60, True, "")),
    ],
)
def test_what_is_no_segment(repo, reduced):
    version = repo.save({"odd": Odd(*reduced)})
    with pytest.raises((OSError, OverflowError, ValueError)):
        repo.load(version)


def test_a_buffer_filled_by_the_setter_of_segments(repo):
    # Only new shared memory is filled in place; whatever else is given is filled as the setter does.
    odd = Odd(bytearray, (80_000,), pickle.PickleBuffer(bytearray(b"x" * 80_000)), None, None, _shared.fill_segment)
    assert repo.load(repo.save({"odd": odd}))["odd"] == b"x" * 80_000
