"""Saves of arrays that are long enough to be written by a thread, while the disk fills up or the process forks; and mappings of
what many saves have scattered.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

import chipmink

MEBIBYTE = 1 << 20
CHUNK = 64 << 10
COMPRESSIONS = ["auto", "none", "lz4", "zstd"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork, and no limit of file sizes")


def noise(byte_len, seed=0):
    return np.random.default_rng(seed).integers(0, 2**63, byte_len // 8)




class Forks:
    """Forks when it is saved. The child goes on with the save of its parent, or leaves."""

    def __init__(self, child):
        self.child = child
        self.pid = None

    def __reduce__(self):
        self.pid = os.fork()
        if self.pid == 0 and self.child == "leaves":
            os._exit(0)
        return (str, ("forked",))


@pytest.mark.parametrize("child", ["leaves", "goes on"])
@pytest.mark.parametrize("byte_len", [100_000, 24 * MEBIBYTE], ids=["short", "long"])
def test_a_fork_during_a_save_harms_neither_the_save_nor_the_child(tmp_path, child, byte_len):
    forks = Forks(child)
    # What stands behind it is met, and written, after the fork.
    namespace = {"before": noise(byte_len), "forks": forks, "behind": noise(byte_len, 1)}
    with chipmink.open(tmp_path / "repo") as repo:
        if child == "leaves":
            saved = repo.save(namespace)
        else:
            own = os.getpid()
            try:
                saved = repo.save(namespace)
            except BaseException:  # noqa: BLE001 - it is what the child must meet
                os._exit(7 if os.getpid() != own else 1)
            if os.getpid() != own:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(forks.pid, 0)[1]) == (0 if child == "leaves" else 7)
        assert not repo.verify(full=True)
        loaded = repo.load(saved)
        assert np.array_equal(loaded["before"], namespace["before"]) and np.array_equal(loaded["behind"], namespace["behind"])
        assert repo.save({**namespace, "forks": None}) > saved


@pytest.mark.parametrize("track", [False, True], ids=["hashed", "tracked"])
@pytest.mark.filterwarnings("ignore:.*pages.*:RuntimeWarning")
def test_a_disk_that_fills_up_at_any_stage_loses_nothing_and_nothing_is_believed(tmp_path, track):
    """Every save that fails is followed by one that finds all that changed since the last version."""
    folder = tmp_path / "repo"
    namespace = {"a": noise(20 * MEBIBYTE), "b": noise(2 * MEBIBYTE, 1)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Else a write beyond the limit ends the process.
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    rng = random.Random(5)
    try:
        with chipmink.open(folder, durable=False, track_pages=track, compression="none") as repo:
            versions = []
            for _ in range(4):
                namespace["b"][0] += 1
                versions.append((repo.save(namespace), {name: array.copy() for name, array in namespace.items()}))
            failed = 0
            for limit in [0, 100, 5_000, CHUNK + 5_000, MEBIBYTE, 3 * MEBIBYTE, 9 * MEBIBYTE, 17 * MEBIBYTE, 64 * MEBIBYTE]:
                for chunk in rng.sample(range(320), 1 if limit < CHUNK else 320):
                    namespace["a"][chunk * CHUNK // 8 + rng.randrange(8000)] += 1
                namespace["b"][rng.randrange(1000)] += 1
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
                try:
                    repo.save(namespace)
                except chipmink.ChipminkError:
                    failed += 1
                finally:
                    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
                assert os.listdir(folder / "tmp") == []
                namespace["a"][rng.randrange(1000)] += 1
                saved = repo.save(namespace)
                loaded = repo.load(saved)
                assert all(np.array_equal(loaded[name], namespace[name]) for name in namespace), f"after the limit {limit}"
            assert failed == 8
            for time, expected in versions:
                loaded = repo.load(time)
                assert all(np.array_equal(loaded[name], expected[name]) for name in expected)
            assert not repo.verify(full=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("durable", [False, True])
def test_a_region_of_more_pieces_than_may_be_mapped_is_read(tmp_path, durable):
    """A thousand chunks, every second of which another save wrote; then fewer pieces, which are mapped."""
    array = noise(1000 * CHUNK)
    items = CHUNK // 8
    with chipmink.open(tmp_path / "repo", durable=durable, compression="none") as repo:
        repo.save({"a": array})
        for chunk in range(0, 1000, 2):
            array[chunk * items] += 1
        scattered = repo.save({"a": array})
        kept = array.copy()
        for chunk in range(0, 800):
            array[chunk * items] += 1
        fewer = repo.save({"a": array})
        first = repo.load(scattered)["a"]
        assert np.array_equal(first, kept)
        second = repo.load(fewer)["a"]
        assert np.array_equal(second, array)
        if sys.platform == "linux":
            lines = Path("/proc/self/maps").read_text().splitlines()
            assert 1 <= sum("/packs/" in line for line in lines) <= 256
        second[:] = 0
        assert np.array_equal(repo.load(fewer)["a"], array)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_arrays_of_every_shape_change_at_random(tmp_path, compression):
    """In place, through views, anew, by another dtype or order, with no elements: every version comes back, aliases included."""
    rng = random.Random(COMPRESSIONS.index(compression))
    versions = []
    with chipmink.open(tmp_path / "repo", durable=False, compression=compression) as repo:
        whole = noise(MEBIBYTE)
        namespace = {"whole": whole, "part": whole[1000:60_000:3], "bits": np.zeros((300, 700), "u2")}
        for turn in range(25):
            array = namespace[rng.choice(["whole", "bits"])]
            match rng.randrange(10):
                case 0 | 1 | 2 | 3:
                    array.reshape(-1)[rng.randrange(array.size) :: rng.choice([1, 7, 5000])] += 1
                case 4:
                    namespace["part"][::-2] = rng.randrange(1000)
                case 5:
                    namespace["bits"] = np.asfortranarray(namespace["bits"])
                case 6:
                    namespace["bits"] = namespace["bits"].copy() + np.uint16(1)
                case 7:
                    namespace["bits"] = namespace["bits"].astype(rng.choice(["u2", "f8", "i4"]))
                case 8:
                    namespace["odd"] = np.frombuffer(namespace["whole"].tobytes()[1:], "u1")[3:-5]
                case 9:
                    namespace["none"] = np.empty((0, rng.randrange(5)))
            versions.append((repo.save(namespace), {name: (array.copy(), array.strides) for name, array in namespace.items()}))
        for time, expected in versions:
            loaded = repo.load(time)
            assert set(loaded) == set(expected)
            for name, (array, strides) in expected.items():
                again = loaded[name]
                assert (again.dtype, again.shape, again.strides) == (array.dtype, array.shape, strides)
                assert np.array_equal(again, array)
            loaded["whole"][1000] = -7
            assert loaded["part"][0] == -7
        assert not repo.verify(full=True)
