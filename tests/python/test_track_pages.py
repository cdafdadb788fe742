"""Saves that ask the kernel which pages were written (``track_pages=True``): no change is ever missed.

What is saved is loaded again and compared with a copy taken at the save, whatever wrote to the memory in between, and
whatever became of the saves. The same programs run without tracking, so that a difference is the tracking's.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import random
import tempfile
import warnings

import numpy as np
import pytest

import chipmink

MEBIBYTE = 1 << 20
PAGE = mmap.PAGESIZE

# One page more than the least that is tracked, and not a whole number of chunks.
ITEMS = (MEBIBYTE + 5 * PAGE + 24) // 8


def _why_not() -> str | None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        chipmink.open(folder, durable=False, track_pages=True).close()
    return str(caught[0].message) if caught else None


WHY_NOT = _why_not()
needs_tracking = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


def opened(folder, track=True):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return chipmink.open(folder, durable=False, track_pages=track)


@pytest.fixture(params=[True, False], ids=["tracked", "hashed"])
def repo(request, tmp_path):
    with opened(tmp_path / "repo", request.param) as repository:
        yield repository


@pytest.fixture
def tracked(tmp_path):
    with opened(tmp_path / "repo") as repository:
        yield repository


def settle(repo, namespace, saves=5):
    """Saves until calm arrays are tracked. Returns the last report."""
    for _ in range(saves):
        report = repo.save(namespace).report
    return report


def check(repo, namespace):
    """Saves, loads, and compares with what is live: arrays, or arrays in lists. Returns the report."""
    expected = {name: _bare(value).copy() for name, value in namespace.items()}
    number = repo.save(namespace)
    loaded = repo.load(number)
    assert set(loaded) == set(expected)
    for name, array in expected.items():
        again = _bare(loaded[name])
        assert (again.dtype, again.shape) == (array.dtype, array.shape)
        assert again.tobytes() == array.tobytes(), f"{name} in version {number}"
    return number.report


def _bare(value):
    return value[0] if isinstance(value, list) else value


def array_over(start, byte_len, owner):
    buffer = (ctypes.c_char * byte_len).from_address(start)
    array = np.frombuffer(buffer, dtype=np.uint8)
    array.flags.writeable = True
    return array, (buffer, owner)


@needs_tracking
def test_an_array_that_nobody_writes_to_is_not_hashed(tracked):
    namespace = {"a": np.arange(ITEMS, dtype=float)}
    report = settle(tracked, namespace)
    assert report.unwritten_bytes >= MEBIBYTE - 3 * 65536
    assert report.region_bytes <= 4 * 65536
    namespace["a"][ITEMS // 2] = -1
    report = check(tracked, namespace)
    assert report.unwritten_bytes >= MEBIBYTE - 6 * 65536
    assert report.bytes_written <= 65536 + 16384


def test_without_the_option_everything_is_hashed(tmp_path):
    with opened(tmp_path / "repo", track=False) as repo:
        report = settle(repo, {"a": np.arange(ITEMS, dtype=float)})
    assert report.region_bytes == 8 * ITEMS
    assert report.unwritten_bytes == 0


@needs_tracking
def test_small_arrays_are_not_tracked(tracked):
    assert settle(tracked, {"a": np.arange(100_000, dtype=float)}).unwritten_bytes == 0


@needs_tracking
def test_an_array_that_is_always_rewritten_is_not_tracked(tracked):
    namespace = {"a": np.zeros(ITEMS)}
    for i in range(12):
        namespace["a"] += 1
        assert check(tracked, namespace).unwritten_bytes == 0, f"save {i}"


def test_every_way_to_write_is_seen(repo, tmp_path):
    namespace = {"a": np.arange(ITEMS, dtype=float)}
    array = namespace["a"]
    raw = memoryview(array).cast("B")
    path = tmp_path / "bytes"
    path.write_bytes(os.urandom(3 * PAGE))
    reader, writer = os.pipe()

    def by_read():
        with open(path, "rb", buffering=0) as file:
            assert file.readinto(raw[400_000 : 400_000 + 2 * PAGE]) == 2 * PAGE

    def by_pread():
        descriptor = os.open(path, os.O_RDONLY)
        assert os.preadv(descriptor, [raw[500_001:500_004], raw[700_000:700_100]], 1) == 103
        os.close(descriptor)

    def by_pipe():
        os.write(writer, b"12345678")
        assert os.readv(reader, [raw[900_000:900_008]]) == 8

    def by_direct_read():
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
        except OSError:
            return
        start = -array.ctypes.data % PAGE + 20 * PAGE
        os.preadv(descriptor, [raw[start : start + PAGE]], 0)
        os.close(descriptor)

    writes = [
        lambda: array.__setitem__(7, 3.5),
        lambda: array.__setitem__(-1, 3.5),
        lambda: array[1000:2000].sort(),
        lambda: array[5000:].__setitem__(slice(None, 100), 1),
        lambda: array.view("u1").__setitem__(801_234, 255),
        lambda: np.add(array[:10], 1, out=array[60_000:60_010]),
        lambda: ctypes.memset(array.ctypes.data + 333_333, 9, 100),
        lambda: ctypes.memmove(array.ctypes.data + 610_000, array.ctypes.data, 5000),
        lambda: array.byteswap(inplace=True),
        by_read,
        by_pread,
        by_pipe,
        by_direct_read,
        lambda: array.fill(2),
        lambda: array[1::2].__setitem__(slice(None), 4),
    ]
    settle(repo, namespace)
    for write in writes:
        write()
        check(repo, namespace)
        check(repo, namespace)
    os.close(reader)
    os.close(writer)


def test_an_array_that_is_freed_and_another_at_its_place(repo):
    namespace = {"a": np.full(4 * ITEMS, 1.0)}
    settle(repo, namespace)
    places = set()
    for value in range(8):
        places.add(namespace["a"].ctypes.data)
        del namespace["a"]
        namespace["a"] = np.full(4 * ITEMS, float(value))
        namespace["a"][value] = -1
        check(repo, namespace)
        settle(repo, namespace, 3)
    # Zeros that were never written to, where something else was.
    del namespace["a"]
    namespace["a"] = np.zeros(4 * ITEMS)
    check(repo, namespace)


def test_arrays_that_are_resized(repo):
    # In a list: numpy resizes no array to which there are weak references, and the session has one to each variable's.
    array = np.arange(4 * ITEMS, dtype=float)
    namespace = {"a": [array]}
    settle(repo, namespace)
    for items in (5 * ITEMS, 40 * ITEMS, 39 * ITEMS, ITEMS, 2 * ITEMS):
        array.resize(items, refcheck=False)
        array[items // 3] += 1
        check(repo, namespace)
        settle(repo, namespace, 3)
        array[items // 2] += 1
        check(repo, namespace)


def test_memory_that_is_emptied_moved_or_mapped_anew(repo):
    byte_len = 8 * MEBIBYTE
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    private, fixed = 0x22, 0x10
    start = libc.mmap(None, byte_len, 3, private, -1, 0)
    array, _keep = array_over(start, byte_len, None)
    array[:] = np.arange(byte_len, dtype=np.uint8)
    namespace = {"a": array}
    settle(repo, namespace)

    assert libc.madvise(start + 2 * MEBIBYTE, 4 * MEBIBYTE, 4) == 0  # MADV_DONTNEED
    assert not array[3 * MEBIBYTE]
    check(repo, namespace)
    settle(repo, namespace)

    assert libc.mmap(start + MEBIBYTE, PAGE, 3, private | fixed, -1, 0) == start + MEBIBYTE
    assert not array[MEBIBYTE]
    check(repo, namespace)
    settle(repo, namespace)

    # Other memory is moved to its place.
    other = libc.mmap(None, byte_len, 3, private, -1, 0)
    ctypes.memset(other, 77, byte_len)
    assert libc.mremap(other, byte_len, byte_len, 3, start) == start
    assert array[5] == 77
    check(repo, namespace)
    settle(repo, namespace)
    array[6] = 1
    check(repo, namespace)
    del namespace["a"], array
    gc.collect()
    repo.save(namespace)
    libc.munmap(start, byte_len)


def test_shared_memory_and_files_written_behind_the_mapping(repo, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(2 * MEBIBYTE))
    with open(path, "r+b") as file:
        shared = mmap.mmap(-1, 2 * MEBIBYTE)
        of_file = mmap.mmap(file.fileno(), 2 * MEBIBYTE)
        again = mmap.mmap(file.fileno(), 2 * MEBIBYTE)
        private = mmap.mmap(file.fileno(), 2 * MEBIBYTE, flags=mmap.MAP_PRIVATE)
        namespace = {
            name: np.frombuffer(memory, dtype=np.uint8)
            for name, memory in {"shared": shared, "file": of_file, "private": private}.items()
        }
        assert settle(repo, namespace).unwritten_bytes == 0
        for i in range(1, 6):
            again[i * 100_000] = i
            check(repo, namespace)
            os.pwrite(file.fileno(), bytes([i]), i * 150_000)
            check(repo, namespace)
            pid = os.fork()
            if pid == 0:
                shared[i * 200_000] = i
                os._exit(0)
            os.waitpid(pid, 0)
            assert namespace["shared"][i * 200_000] == i
            report = check(repo, namespace)
            assert report.unwritten_bytes == 0
        namespace.clear()
        gc.collect()


@needs_tracking
def test_a_fork_between_two_saves(tracked, tmp_path):
    namespace = {"a": np.arange(ITEMS, dtype=float)}
    settle(tracked, namespace)
    namespace["a"][1000] = -1
    pid = os.fork()
    if pid == 0:
        try:
            # The child's own copy, and its own repository.
            namespace["a"][50_000] = 7
            with opened(tmp_path / "child") as own:
                settle(own, namespace)
                namespace["a"][60_000] = 8
                check(own, namespace)
                is_tracked = settle(own, namespace).unwritten_bytes > MEBIBYTE // 2
            os._exit(0 if is_tracked else 3)
        except BaseException:  # noqa: BLE001 - the parent reports it
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    namespace["a"][120_000] = -1
    report = check(tracked, namespace)
    assert namespace["a"][50_000] == 50_000
    assert report.unwritten_bytes > MEBIBYTE // 2
    for at in (0, 70_000, ITEMS - 1):
        namespace["a"][at] = -5
        check(tracked, namespace)


@needs_tracking
def test_a_save_that_fails_is_followed_by_one_that_finds_everything(tracked):
    class Unsaveable:
        def __reduce__(self):
            raise OSError("not today")

    namespace = {"a": np.arange(ITEMS, dtype=float), "b": np.arange(ITEMS, dtype=float)}
    settle(tracked, namespace)
    for at in (10, 70_000, ITEMS - 2):
        namespace["a"][at] = -1
        namespace["z"] = Unsaveable()
        with pytest.raises(chipmink.UnsupportedError):
            tracked.save(namespace, strict=True)
        del namespace["z"]
        namespace["b"][at] = -2
        report = check(tracked, namespace)
        assert report.unwritten_bytes > MEBIBYTE


@needs_tracking
def test_two_repositories_look_at_the_same_array(tmp_path):
    namespace = {"a": np.arange(ITEMS, dtype=float)}
    with opened(tmp_path / "one") as one, opened(tmp_path / "two") as two:
        settle(one, namespace)
        settle(two, namespace)
        for at, order in [(10, (one, two)), (50_000, (two, one)), (90_000, (one, one, two))]:
            namespace["a"][at] = -1
            for repo in order:
                check(repo, namespace)
        report = check(two, namespace)
        assert report.unwritten_bytes > MEBIBYTE // 2
        assert report.bytes_written < 1024
        one.close()
        namespace["a"][100_000] = -1
        check(two, namespace)


def test_views_of_one_buffer_and_another_shape(repo):
    whole = np.arange(4 * ITEMS, dtype=float)
    namespace = {"whole": whole, "half": whole[ITEMS : 3 * ITEMS], "plane": whole[: 4 * ITEMS // 2 * 2].reshape(2, -1)}
    settle(repo, namespace)
    for i in range(6):
        [whole, namespace["half"], namespace["plane"].reshape(-1)][i % 3][i * 10_000 + 5] = -i
        check(repo, namespace)
        if i == 3:
            namespace["whole"] = whole[5:]
        check(repo, namespace)


@pytest.mark.parametrize("seed", range(6))
def test_random_writes_under_random_saves(tmp_path, seed):
    rng = random.Random(seed)
    with (
        opened(tmp_path / "one", seed % 3 != 2) as one,
        opened(tmp_path / "two") as two,
    ):
        # In lists, see above.
        namespace = {name: [np.full(ITEMS + 1000 * i, float(i))] for i, name in enumerate("abc")}
        known = 0
        for step in range(60):
            for _ in range(rng.choice([0, 0, 1, 1, 2, 5])):
                name = rng.choice(sorted(namespace))
                array = namespace[name][0]
                at = rng.randrange(len(array))
                span = slice(at, at + rng.choice([1, 100, 20_000]))
                match rng.randrange(12):
                    case 0 | 1 | 2 | 3:
                        array[span] = rng.random()
                    case 4:
                        array[at::50_000] += 1
                    case 5:
                        ctypes.memset(array.ctypes.data + 8 * at, rng.randrange(256), 1)
                    case 6:
                        with open("/dev/urandom", "rb", buffering=0) as file:
                            file.readinto(memoryview(array[span]).cast("B"))
                    case 7 if array.flags.owndata:
                        array.resize(max(1000, len(array) + rng.choice([-5000, 1, 9000])), refcheck=False)
                    case 8:
                        del array, namespace[name]
                        namespace[name] = [np.zeros(ITEMS + rng.randrange(3000))]
                    case 9:
                        namespace[name][0] = np.array(array[::-1])
                    case 10:
                        namespace[name][0] = array.view("f8" if array.dtype == np.dtype("i8") else "i8")
                    case _:
                        other = rng.choice(sorted(namespace))
                        namespace[name], namespace[other] = namespace[other], namespace[name]
            repo = rng.choice([one, one, two])
            if rng.random() < 0.15:
                namespace["z"] = (item for item in ())
                with pytest.raises(chipmink.UnsupportedError):
                    repo.save(namespace, strict=True)
                del namespace["z"]
            elif rng.random() < 0.1:
                pid = os.fork()
                if pid == 0:
                    for box in namespace.values():
                        box[0][:] = 99
                    os._exit(0)
                os.waitpid(pid, 0)
            known += check(repo, namespace).unwritten_bytes
        if WHY_NOT is None and seed % 3 != 2:
            assert known > 0
