"""Saving and loading from an event loop: it goes on meanwhile, and what is cancelled is either there or not."""

from __future__ import annotations

import asyncio
import threading

import chipmink
import pytest
from oracle import assert_same, canonical


def test_saving_and_loading(tmp_path):
    async def main():
        repo = chipmink.open(tmp_path / "repo")
        shared = [1, 2]
        namespace = {"a": shared, "b": {"shared": shared}, "text": "x" * 1000}
        want = canonical(namespace)
        version = await repo.asave(namespace, message="one", author="me")
        assert version == 1 and version.ref == "main" and repo.log()[0].message == "one"
        assert_same(want, await repo.aload(version))
        assert await repo.aload(names=["text"]) == {"text": "x" * 1000}
        with pytest.raises(chipmink.NotFoundError):
            await repo.aload(99)
        with pytest.raises(chipmink.UnsupportedError):
            await repo.asave([1])
        numbers = await asyncio.gather(*(repo.asave({"x": [i]}) for i in range(5)))
        assert sorted(numbers) == [2, 3, 4, 5, 6]
        loaded = [await repo.aload(number) for number in numbers]
        assert sorted(namespace["x"][0] for namespace in loaded) == list(range(5))
        repo.close()

    asyncio.run(main())


class Slow:
    """Is saved when it is allowed to."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __reduce__(self):
        self.begun.set()
        assert self.go_on.wait(60)
        return str, ("slow",)


def test_the_loop_goes_on_meanwhile(tmp_path):
    async def main():
        with chipmink.open(tmp_path / "repo") as repo:
            slow = Slow()
            task = asyncio.create_task(repo.asave({"slow": slow}))
            while not slow.begun.is_set():
                await asyncio.sleep(0.01)
            assert not task.done()
            slow.go_on.set()
            assert await repo.aload(await task) == {"slow": "slow"}

    asyncio.run(main())


def test_what_is_cancelled_before_it_is_visible_is_not_there(tmp_path):
    async def main():
        with chipmink.open(tmp_path / "repo") as repo:
            first = await repo.asave({"x": [1]})
            slow = Slow()
            task = asyncio.create_task(repo.asave({"x": [2], "slow": slow, "large": b"x" * 300_000}))
            while not slow.begun.is_set():
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.sleep(0.05)
            task.cancel()
            slow.go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert [version.number for version in repo.log()] == [first]
            report = repo.verify()
            assert report.ok and report.orphan_packs == 0
            # The session goes on as if nothing had been.
            assert await repo.aload(await repo.asave({"x": [3]})) == {"x": [3]}
            assert repo.log()[0].parents == (repo.log()[1].commit,)

    asyncio.run(main())


def test_a_walk_that_finds_nothing_new_ends_when_it_is_cancelled(tmp_path):
    async def main():
        with chipmink.open(tmp_path / "repo", durable=False) as repo:
            first, last = Slow(), Slow()
            namespace = {"first": first, "many": [[i] for i in range(1_000_000)], "last": last}
            first.go_on.set()
            last.go_on.set()
            await repo.asave(namespace)
            for slow in (first, last):
                slow.begun.clear()
            first.go_on.clear()
            task = asyncio.create_task(repo.asave(namespace))
            while not first.begun.is_set():
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.sleep(0.05)
            first.go_on.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not last.begun.is_set(), "it was walked to its end"
            assert len(repo.log()) == 1 and repo.load(await repo.asave({"x": 1})) == {"x": 1}

    asyncio.run(main())


def test_a_cancelled_task_waits_until_it_is_decided(tmp_path):
    """At whatever moment it comes, the version is there exactly if the save went through."""

    async def main():
        with chipmink.open(tmp_path / "repo", durable=False) as repo:
            await repo.asave({"x": [0]})
            there = 0
            for step in range(40):
                before = repo.log()[0].number
                task = asyncio.create_task(repo.asave({"x": [step], "text": str(step) * 2000}))
                await asyncio.sleep(step * 0.0005)
                task.cancel()
                try:
                    await task
                except asyncio.CancelledError:
                    pass
                newest = repo.log()[0].number
                assert newest in (before, before + 1)
                there += newest - before
                if newest > before:
                    assert repo.load()["x"] == [step]
                # Nothing of it comes later.
                await asyncio.sleep(0.002)
                assert repo.log()[0].number == newest
            assert await repo.aload(await repo.asave({"x": ["end"]})) == {"x": ["end"]}
            assert repo.verify().ok

    asyncio.run(main())

