"""Repositories in the memory of the process."""

from __future__ import annotations

import chipmink
import numpy as np
import pytest


def test_versions_in_memory_come_back():
    random = np.random.default_rng(1)
    namespace = {"weights": random.integers(0, 1 << 16, 200_000, dtype="u2"), "words": ["lorem ipsum"] * 1000, "n": 0}
    expected = {}
    with chipmink.open("memory://") as repo:
        for turn in range(12):
            namespace["n"] = turn
            time = repo.save(namespace, message=f"turn {turn}")
            expected[time] = {"weights": namespace["weights"].copy(), "n": turn}
            namespace["weights"][random.choice(200_000, 500, replace=False)] ^= 1 << turn
        for time, values in expected.items():
            found = repo.load(time)
            assert (found["weights"] == values["weights"]).all()
            assert found["n"] == values["n"]
            assert found["words"] == namespace["words"]
        assert [version.message for version in repo.log()][:2] == ["turn 11", "turn 10"]
        assert repo.verify(full=True) == []
        repo.checkout(min(expected), namespace, force=True)
        assert (namespace["weights"] == expected[min(expected)]["weights"]).all()


def test_each_is_a_repository_of_its_own():
    with chipmink.open("memory://") as one, chipmink.open("memory://") as other:
        one.save({"x": 1})
        assert one.url != other.url
        with pytest.raises(chipmink.NotFoundError):
            other.load()
        with pytest.raises(chipmink.ChipminkError):
            chipmink.open(one.url)


def test_a_full_memory_refuses_and_keeps_what_it_has():
    random = np.random.default_rng(2)
    with chipmink.open("memory://", memory_bytes=3 << 20) as repo:
        values = {"x": random.integers(0, 255, 1 << 20, dtype="u1")}
        first = repo.save(values)
        for _ in range(3):
            with pytest.raises(chipmink.StorageError, match="memory_bytes"):
                repo.save({**values, "y": random.integers(0, 255, 3 << 20, dtype="u1")})
        second = repo.save({**values, "y": random.integers(0, 255, 1 << 20, dtype="u1")})
        assert (repo.load(first)["x"] == values["x"]).all()
        assert list(repo.load(second)) == ["x", "y"]
        assert repo.verify(full=True) == []


def test_the_bound_is_of_memory_only(tmp_path):
    with pytest.raises(ValueError, match="memory://"):
        chipmink.open(tmp_path, memory_bytes=1 << 20)
    with pytest.raises(ValueError, match="compression"):
        chipmink.open("memory://", compression="best")


@pytest.mark.parametrize("compression", ["auto", "none", "lz4", "zstd"])
def test_compression_in_memory(compression):
    with chipmink.open("memory://", compression=compression) as repo:
        value = {"words": [f"word {i % 50}" for i in range(5000)], "zeros": np.zeros(100_000)}
        saved = repo.save(value)
        assert repo.load(saved)["words"] == value["words"]
        # Equal chunks are stored once in any case.
        assert saved.report.bytes_written < (200_000 if compression == "none" else 60_000)
