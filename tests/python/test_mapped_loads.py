"""Loads that map large arrays instead of reading them: the same arrays, and nothing that they do reaches the repository."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import chipmink

MEBIBYTE = 1 << 20
VERIFY = ["background", "eager", "never"]


def array(byte_len=3 * MEBIBYTE + 40, seed=0):
    return np.random.default_rng(seed).integers(0, 2**63, byte_len // 8)


def opened(folder, **options):
    return chipmink.open(folder, durable=False, **options)


def mapped_files():
    """How many mappings of packs this process has."""
    return sum("/packs/" in line for line in Path("/proc/self/maps").read_text().splitlines())


needs_mapping = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says what is mapped")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "repo"


@needs_mapping
@pytest.mark.parametrize("verify", VERIFY)
def test_large_arrays_are_mapped_and_given_back(folder, verify):
    with opened(folder, verify=verify) as repo:
        saved = repo.save({"a": array(), "small": array(100_000, 1)})
        loaded = repo.load(saved)
        assert mapped_files() == 1
        assert np.array_equal(loaded["a"], array()) and np.array_equal(loaded["small"], array(100_000, 1))
        again = repo.load(saved, names=["a"])
        assert mapped_files() == 2
        del loaded, again
        gc.collect()
        assert mapped_files() == 0


def test_nothing_is_mapped_if_that_is_not_wanted(folder):
    with opened(folder, map=False) as repo:
        loaded = repo.load(repo.save({"a": array()}))
        assert np.array_equal(loaded["a"], array())
        if sys.platform.startswith("linux"):
            assert mapped_files() == 0


def test_writing_to_a_loaded_array_reaches_neither_the_repository_nor_another_load(folder):
    with opened(folder) as repo:
        saved = repo.save({"a": array()})
        first, second = repo.load(saved)["a"], repo.load(saved)["a"]
        first[:] = 7
        first.flags.writeable = False
        second[5] = -1
        expected = array()
        expected[5] = -1
        assert np.array_equal(second, expected)
        assert np.array_equal(repo.load(saved)["a"], array())
        assert not repo.verify(full=True)


def test_a_loaded_array_is_like_any_other(folder):
    with opened(folder) as repo:
        loaded = repo.load(repo.save({"a": array(), "f": np.asfortranarray(array()[:300_000].reshape(5, -1))}))
        a = loaded["a"]
        assert a.flags.owndata and a.flags.writeable and a.base is None and a.flags.aligned
        assert loaded["f"].flags.f_contiguous and loaded["f"].shape == (5, 60_000)
        # numpy resizes no array that another module refers to, so the only reference is ours.
        loaded.clear()
        a.resize(10 * len(a), refcheck=False)
        assert np.array_equal(a[: len(array())], array()) and not a[len(array()) :].any()
        a.resize(1000, refcheck=False)
        assert np.array_equal(a, array()[:1000])
        b = a.copy()
        del a
        gc.collect()
        assert np.array_equal(b, array()[:1000])


def test_new_arrays_are_not_made_by_our_allocator(folder):
    from numpy.lib import introspect  # noqa: F401 - numpy 2 only

    get_handler_name = np._core.multiarray.get_handler_name
    default = get_handler_name(np.zeros(3))
    with opened(folder) as repo:
        loaded = repo.load(repo.save({"a": array()}))
    assert get_handler_name(np.zeros(3)) == default
    if sys.platform.startswith("linux"):
        assert get_handler_name(loaded["a"]) == "chipmink"


def test_read_only_arrays_stay_so(folder):
    frozen = array()
    frozen.flags.writeable = False
    with opened(folder) as repo:
        loaded = repo.load(repo.save({"a": frozen}))["a"]
    assert not loaded.flags.writeable
    assert np.array_equal(loaded, frozen)


def test_the_repository_may_be_closed_and_deleted_under_a_loaded_array(folder):
    with opened(folder) as repo:
        loaded = repo.load(repo.save({"a": array()}))["a"]
    for pack in (folder / "packs").iterdir():
        pack.unlink()
    assert np.array_equal(loaded, array())


def test_saving_what_was_loaded_stores_nothing_new(folder):
    with opened(folder) as repo:
        saved = repo.save({"a": array()})
    with opened(folder) as repo:
        namespace = repo.load(saved)
        assert repo.save(namespace).report.bytes_written < 1024
        namespace["a"][1000] += 1
        report = repo.save(namespace).report
        assert report.bytes_written <= 65536 + 16384
        expected = array()
        expected[1000] += 1
        assert np.array_equal(repo.load()["a"], expected)


def test_views_and_frames_come_back_as_they_were(folder):
    pd = pytest.importorskip("pandas")
    whole = array()
    frame = pd.DataFrame({f"c{i}": array(MEBIBYTE, i) for i in range(5)})
    with opened(folder) as repo:
        saved = repo.save({"whole": whole, "part": whole[1000:200_000], "turned": whole[::-2], "frame": frame})
        loaded = repo.load(saved)
        assert np.array_equal(loaded["turned"], whole[::-2])
        loaded["whole"][1001] = 5
        assert loaded["part"][1] == 5
        pd.testing.assert_frame_equal(loaded["frame"], frame)
        loaded["frame"].iloc[5, 2] = 11
        assert loaded["frame"].iloc[5, 2] == 11
        pd.testing.assert_frame_equal(repo.load(saved)["frame"], frame)


def test_an_array_that_changed_in_many_saves(folder):
    live = array()
    versions = {}
    rng = np.random.default_rng(5)
    with opened(folder) as repo:
        for _ in range(20):
            live[rng.integers(len(live), size=2)] = rng.integers(1000)
            versions[repo.save({"a": live})] = live.copy()
        for number, expected in versions.items():
            assert np.array_equal(repo.load(number)["a"], expected)


CHUNK_ITEMS = (64 << 10) // 8


def scattered(repo, chunk_count=700):
    """An array of which each third chunk was written since its first save, in two saves: some 470 pieces of three packs."""
    live = array(chunk_count * CHUNK_ITEMS * 8)
    repo.save({"a": live})
    for first in (1, 4):
        for chunk in range(first, chunk_count, 6):
            live[chunk * CHUNK_ITEMS : (chunk + 1) * CHUNK_ITEMS] += chunk
        last = repo.save({"a": live})
    return last, live


@needs_mapping
@pytest.mark.parametrize("verify", VERIFY)
def test_an_array_in_very_many_pieces_is_mapped_with_what_lies_between(folder, verify):
    with opened(folder, verify=verify, compression="none") as repo:
        last, live = scattered(repo)
        # In a background check, whatever was mapped and does not belong there would be damage.
        for _ in range(3):
            loaded = repo.load(last)["a"]
            assert 1 <= mapped_files() <= 256
            assert np.array_equal(loaded, live)
            loaded[5::CHUNK_ITEMS] = 0
            del loaded
        assert np.array_equal(repo.load(1)["a"], array(live.nbytes))


@needs_mapping
@pytest.mark.parametrize("verify", VERIFY)
def test_damage_of_what_is_copied_into_a_mapping_is_found_at_once(folder, verify):
    with opened(folder, verify=verify, compression="none") as repo:
        last, _ = scattered(repo)
        packs = sorted((folder / "packs").iterdir(), key=lambda path: path.stat().st_size)
        # The largest pack is that of the first save; what is in another was written over it.
        with open(packs[-2], "r+b") as file:
            file.seek(packs[-2].stat().st_size // 2)
            file.write(b"damage")
        with pytest.raises(chipmink.DamagedError):
            repo.load(last)
        assert mapped_files() == 0


def damage(folder):
    pack = max((folder / "packs").iterdir(), key=lambda path: path.stat().st_size)
    with open(pack, "r+b") as file:
        file.seek(pack.stat().st_size // 2)
        file.write(b"damage")


@needs_mapping
def test_damage_is_said_at_the_next_use(folder):
    with opened(folder) as repo:
        saved = repo.save({"fine": 1, "a": [array()]})
        damage(folder)
        repo.load(saved)
        with pytest.raises(chipmink.DamagedError, match='variable "a" of version 1'):
            for _ in range(500):
                time.sleep(0.01)
                repo.names(saved)
        # It was said; the repository goes on.
        assert repo.names(saved) == ["fine", "a"]


def checkers():
    """Threads of this process that check what was mapped."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        try:
            names.append((task / "comm").read_text().strip())
        except OSError:  # it has just ended
            pass
    return names.count("chipmink-check")


@needs_mapping
def test_one_thread_checks_what_many_loads_have_mapped(folder):
    with opened(folder) as repo:
        saved = repo.save({"x": array(64 * MEBIBYTE)})
        most = 0
        for _ in range(20):
            loaded = repo.load(saved)
            most = max(most, checkers())
        assert most == 1
        # It ends when all is checked, and begins again for the next load.
        deadline = time.monotonic() + 60
        while checkers():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        damage(folder)
        loaded = repo.load(saved)
        with pytest.raises(chipmink.DamagedError, match="loaded earlier"):
            while time.monotonic() < deadline:
                repo.log()
                time.sleep(0.01)
        del loaded


def test_damage_is_found_before_an_eager_load_returns(folder):
    with opened(folder, verify="eager") as repo:
        saved = repo.save({"a": array()})
        damage(folder)
        with pytest.raises(chipmink.DamagedError):
            repo.load(saved)


def test_a_pack_that_was_cut_is_an_error_and_no_crash(folder):
    with opened(folder) as repo:
        saved = repo.save({"a": array()})
    for pack in (folder / "packs").iterdir():
        os.truncate(pack, pack.stat().st_size // 2)
    with pytest.raises(chipmink.ChipminkError), opened(folder) as repo:
        repo.load(saved)


def test_unknown_ways_to_verify_are_refused(folder):
    with pytest.raises(ValueError, match="sometimes"):
        opened(folder, verify="sometimes")


@needs_mapping
def test_a_process_that_ends_with_mapped_arrays_ends_well(folder):
    with opened(folder) as repo:
        repo.save({"a": array()})
    program = f"""
import chipmink, threading
loaded = chipmink.open({str(folder)!r}).load()
keep = [loaded["a"], loaded]
keep.append(keep)
threading.Thread(target=lambda: loaded["a"].sum()).start()
print(int(loaded["a"][0]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ}, check=True)
    assert done.stdout.strip() == str(int(array()[0]))
    assert not done.stderr


@needs_mapping
def test_a_forked_child_has_its_own_copy(folder):
    with opened(folder) as repo:
        loaded = repo.load(repo.save({"a": array()}))["a"]
    pid = os.fork()
    if pid == 0:
        is_right = np.array_equal(loaded, array())
        loaded[:] = 1
        del loaded
        os._exit(0 if is_right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert np.array_equal(loaded, array())
