"""A checkout writes into arrays that only the namespace refers to, and makes all others anew."""

from __future__ import annotations

import random
import weakref

import chipmink
import numpy as np
import pytest

LENGTH = 100_000


def saved(repo, namespace, change):
    """Saves, changes, saves again; returns the first version."""
    first = repo.save(namespace)
    change(namespace)
    repo.save(namespace)
    return first


def few(namespace):
    namespace["a"][5] = -1
    namespace["a"][70_000:70_010] = 7


@pytest.mark.parametrize("tracked", [False, True])
def test_an_array_of_the_namespace_alone_is_restored_where_it_lies(tmp_path, tracked):
    namespace = {"a": np.arange(float(LENGTH)), "other": [1]}
    with chipmink.open(tmp_path / "repo", durable=False, track_pages=tracked) as repo:
        first = saved(repo, namespace, few)
        identity, address = id(namespace["a"]), namespace["a"].ctypes.data
        changed = repo.checkout(first, namespace)
        assert changed.changed == ("a",)
        assert not changed.added
        assert not changed.removed
        assert id(namespace["a"]) == identity
        assert namespace["a"].ctypes.data == address
        np.testing.assert_array_equal(namespace["a"], np.arange(float(LENGTH)))
        few(namespace)
        again = repo.save(namespace)
        np.testing.assert_array_equal(repo.load(again)["a"], namespace["a"])
        np.testing.assert_array_equal(repo.load(first)["a"], np.arange(float(LENGTH)))


@pytest.mark.parametrize("holder", ["variable", "list", "view", "memoryview", "weak"])
def test_whoever_else_holds_an_array_keeps_its_values(tmp_path, holder):
    namespace = {"a": np.arange(float(LENGTH))}
    with chipmink.open(tmp_path / "repo", durable=False) as repo:
        first = saved(repo, namespace, few)
        array = namespace["a"]
        identity = id(array)
        held = {"variable": array, "list": [array], "view": array[10:], "memoryview": memoryview(array), "weak": weakref.ref(array)}[holder]
        if holder != "variable":
            del array
        repo.checkout(first, namespace)
        assert namespace["a"][5] == 5
        if holder == "weak":
            assert held() is None
        else:
            assert id(namespace["a"]) != identity
            assert np.asarray({"variable": held, "list": held[0], "view": held.base if holder == "view" else held, "memoryview": held}[holder])[5] == -1


@pytest.mark.parametrize(
    "change",
    [
        lambda namespace: namespace.update(a=namespace["a"].astype("f4")),
        lambda namespace: namespace.update(a=namespace["a"].reshape(100, -1).copy()),
        lambda namespace: namespace.update(a=namespace["a"][:-1].copy()),
        lambda namespace: namespace.update(a=namespace["a"].reshape(100, -1).T.copy().T),
        lambda namespace: namespace["a"].fill(0),
        lambda namespace: (namespace["a"].__setitem__(3, 9), namespace["a"].setflags(write=False)),
        lambda namespace: namespace.update(a=np.ma.masked_less(namespace["a"], 4)),
        lambda namespace: namespace.update(a=namespace["a"].astype(object)),
    ],
)
def test_what_differs_in_more_than_some_values_is_made_anew(tmp_path, change):
    namespace = {"a": np.arange(float(LENGTH))}
    with chipmink.open(tmp_path / "repo", durable=False) as repo:
        first = saved(repo, namespace, change)
        repo.checkout(first, namespace)
    assert type(namespace["a"]) is np.ndarray
    assert namespace["a"].dtype == "f8"
    assert namespace["a"].flags.writeable
    np.testing.assert_array_equal(namespace["a"], np.arange(float(LENGTH)))


@pytest.mark.parametrize("others", [lambda array: array, lambda array: [array], lambda array: array[5:], lambda array: {"x": array}])
@pytest.mark.parametrize("live", [0.0, 1.0])
def test_what_the_version_shares_is_shared_again(tmp_path, others, live):
    array = np.arange(float(LENGTH))
    namespace = {"a": array, "b": others(array), "c": np.arange(float(LENGTH))}
    del array
    with chipmink.open(tmp_path / "repo", durable=False) as repo:
        first = repo.save(namespace)
        # Arrays of the same kind, which share nothing; one of them may have the version's values.
        namespace["a"] = np.arange(float(LENGTH)) + 1
        namespace["b"] = others(np.arange(float(LENGTH)) + live)
        namespace["c"][7] = -1
        alone = id(namespace["c"])
        repo.save(namespace)
        repo.checkout(first, namespace)
    assert id(namespace["c"]) == alone
    np.testing.assert_array_equal(namespace["c"], np.arange(float(LENGTH)))
    namespace["a"][70_000] = 99
    np.testing.assert_array_equal(namespace["a"][:70_000], np.arange(70_000.0))
    shared = namespace["b"]
    shared = shared[0] if type(shared) is list else shared["x"] if type(shared) is dict else shared
    assert np.shares_memory(shared, namespace["a"])
    assert 99 in shared[-LENGTH // 2 :]


def test_damage_is_found_before_anything_is_written(tmp_path):
    namespace = {"a": np.random.default_rng(1).random(LENGTH), "b": np.arange(float(LENGTH)), "c": 1}
    with chipmink.open(tmp_path / "repo", durable=False, compression="none") as repo:
        first = repo.save(namespace)
        namespace["a"][5] = namespace["b"][5] = -1
        namespace["c"] = 2
        repo.save(namespace)
    before = {name: np.copy(value) for name, value in namespace.items()}
    [pack, *_] = sorted((tmp_path / "repo" / "packs").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0, reverse=True)
    content = bytearray(pack.read_bytes())
    at = content.find(np.random.default_rng(1).random(10).tobytes())
    assert at > 0
    content[at] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(content)
    with chipmink.open(tmp_path / "repo", durable=False) as repo:
        with pytest.raises(chipmink.DamagedError):
            repo.checkout(first, namespace, force=True)
    for name, value in before.items():
        np.testing.assert_array_equal(namespace[name], value)


def test_random_undo(tmp_path):
    """Arrays of all layouts under random writes, checkouts and saves, some of them held by others."""
    source = random.Random(5)
    made = {
        "c": np.arange(float(LENGTH)),
        "fortran": np.asfortranarray(np.arange(60_000.0).reshape(300, 200)),
        "wide": np.arange(300_000).reshape(3, 100_000),
        "small": np.arange(20),
        "fields": np.zeros(9000, dtype=[("x", "f8"), ("y", "i4")]),
        "dates": np.arange(40_000).astype("M8[s]"),
        "texts": np.array([f"text {i}" for i in range(9000)]),
    }
    with chipmink.open(tmp_path / "repo", durable=False) as repo:
        versions = {}
        held = []
        for turn in range(60):
            for name in source.sample(list(made), 3):
                flat = made[name].ravel(order="K")
                assert np.shares_memory(flat, made[name])
                for _ in range(source.randrange(4)):
                    at = source.randrange(len(flat))
                    flat[at] = flat[source.randrange(len(flat))]
                del flat
            number = int(repo.save(made))
            versions[number] = {name: value.copy(order="K") for name, value in made.items()}
            if source.randrange(3) == 0:
                held = [*held[-3:], made[source.choice(list(made))]]
            if source.randrange(2):
                before = [array.copy(order="K") for array in held]
                chosen = source.choice(list(versions))
                repo.checkout(chosen, made)
                for name, value in versions[chosen].items():
                    np.testing.assert_array_equal(made[name], value, err_msg=f"{name} of version {chosen} after turn {turn}")
                    assert made[name].flags.c_contiguous == value.flags.c_contiguous
                for array, value in zip(held, before, strict=True):
                    np.testing.assert_array_equal(array, value)
