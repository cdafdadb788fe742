"""Arrays that changed a little are stored as differences, also when the session no longer knows them: after opening anew, and when
another array has taken a name.
"""

from __future__ import annotations

import numpy as np
import pytest

import chipmink

LENGTH = 1 << 20


def weights(seed=0, length=LENGTH):
    return (np.random.default_rng(seed).standard_normal(length, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16)


def nudged(array, seed=1):
    """Another array, of which one element in a hundred differs in its lowest bit."""
    changed = array.copy()
    changed[np.random.default_rng(seed).integers(0, len(array), len(array) // 100)] ^= 1
    return changed


def opened(folder):
    return chipmink.open(folder, durable=False)


def saved_bytes(repo, namespace):
    """Bytes that a save writes; what it wrote is what was there."""
    expected = {name: [np.copy(each) for each in arrays(value)] for name, value in namespace.items()}
    saved = repo.save(namespace)
    loaded = repo.load(saved)
    for name, values in expected.items():
        for before, after in zip(values, arrays(loaded[name]), strict=True):
            assert np.array_equal(before, after)
    return saved.report.bytes_written


def arrays(value):
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]


LITTLE = 2 * LENGTH // 20


def test_an_array_that_replaces_another_is_stored_as_what_differs(tmp_path):
    with opened(tmp_path) as repo:
        namespace = {"w": weights()}
        assert saved_bytes(repo, namespace) > LENGTH
        written = []
        for turn in range(18):
            namespace["w"] = nudged(namespace["w"], turn)
            written.append(saved_bytes(repo, namespace))
        # A chain of differences ends now and then.
        assert sum(size > LITTLE for size in written) <= 2 and min(written[:8]) < LITTLE
        assert not repo.verify(full=True)


def test_the_first_save_after_opening_knows_what_it_continues(tmp_path):
    namespace = {"other": weights(5), "model": {f"layer{i}": weights(i) for i in range(4)}}
    with opened(tmp_path) as repo:
        saved_bytes(repo, namespace)
    for turn in range(3):
        namespace["model"] = {name: nudged(array, turn) for name, array in namespace["model"].items()}
        with opened(tmp_path) as repo:
            assert saved_bytes(repo, namespace) < 5 * LITTLE
            # And what has not changed is not stored again.
            assert saved_bytes(repo, namespace) < LITTLE


def test_what_another_object_continues_is_no_base(tmp_path):
    kept, replaced = weights(1), weights(2)
    with opened(tmp_path) as repo:
        namespace = {"pair": [kept, replaced]}
        saved_bytes(repo, namespace)
        kept[::100] ^= 1
        namespace["pair"][1] = nudged(replaced)
        assert saved_bytes(repo, namespace) < 2 * LITTLE


@pytest.mark.parametrize("change", ["order", "length", "name"])
def test_a_wrong_guess_costs_no_byte_of_content(tmp_path, change):
    namespace = {"model": [weights(i) for i in range(3)]}
    with opened(tmp_path) as repo:
        first = saved_bytes(repo, namespace)
    if change == "order":
        namespace = {"model": [array.copy() for array in reversed(namespace["model"])]}
    elif change == "length":
        namespace = {"model": [weights(9, LENGTH + 5), *namespace["model"]]}
    else:
        namespace = {"renamed": [nudged(array) for array in namespace["model"]]}
    with opened(tmp_path) as repo:
        again = saved_bytes(repo, namespace)
        assert not repo.verify(full=True)
    assert again < {"order": LITTLE, "length": first / 2, "name": 1.01 * first}[change]


def test_versions_of_replaced_arrays_all_come_back(tmp_path):
    """More versions than a chain of differences may be long, opened anew now and then."""
    random = np.random.default_rng(3)
    versions = []
    repo = opened(tmp_path)
    array = weights()
    for turn in range(25):
        array = weights(turn) if turn % 9 == 8 else nudged(array, turn)
        namespace = {"a": array, "b": [nudged(array, -turn % 7), weights(4)]}
        versions.append((repo.save(namespace), array, namespace["b"][0]))
        if random.random() < 0.3:
            repo.close()
            repo = opened(tmp_path)
    for time, a, b in versions:
        loaded = repo.load(time)
        assert np.array_equal(loaded["a"], a) and np.array_equal(loaded["b"][0], b)
    assert not repo.verify(full=True)
    repo.close()
