"""A random session against a repository: change, save, load any part of any version, reopen, check out; compare always.

Driven by hypothesis (`test_random_graphs`) and by the soak target (`soak.py`), which differ only in the source of
randomness.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import chipmink
from graphs import Program, Source
from oracle import Canon, assert_same, canonical

POLICIES = ("bundle-all", "split-all", "random:7", "lga", "lga-siblings")


def policy_of(source: Source) -> str:
    """A policy; the random one with a seed of its own."""
    name = source.choice(POLICIES)
    return f"random:{source.randrange(1000)}" if name.startswith("random") else name


def check_stream(source: Source, size: int = 16) -> None:
    """One graph through ``dumps`` and ``loads``."""
    namespace = Program(source, size).namespace
    want = canonical(namespace, None, namespace)
    loaded = chipmink.loads(chipmink.dumps(namespace))
    assert_same(want, loaded, note="loads(dumps(graph))")
    assert list(loaded) == list(namespace)
    if canonical(namespace, None, namespace) != want:
        raise AssertionError("dumps changed the graph")


class Session:
    """One program, one repository, and what every version has to be."""

    def __init__(self, source: Source, folder: Path, size: int = 16):
        self.source = source
        self.folder = folder
        self.policy = policy_of(source)
        self.program = Program(source, size)
        self.repo = self.open()
        self.versions: dict[int, dict[str, Any]] = {}
        self.trace: list[str] = [f"policy {self.policy}"]

    def open(self) -> Any:
        return chipmink.open(self.folder, durable=False, policy=self.policy)

    def run(self, saves: int) -> int:
        """Runs the session; the number of versions that were saved and loaded right."""
        source = self.source
        try:
            for _ in range(saves):
                for _ in range(source.randrange(6)):
                    self.program.step()
                self.save()
                choice = source.randrange(8)
                if choice < 3:
                    self.check_some()
                elif choice == 3:
                    self.reopen()
                elif choice == 4:
                    self.checkout()
                elif choice == 5:
                    gc.collect()
            self.reopen()
            for number in self.versions:
                self.check(number, None)
            self.check_some()
        except AssertionError as error:
            raise AssertionError(f"{error}\n  {'; '.join(self.trace)}") from error
        finally:
            self.repo.close()
        return len(self.versions)

    def save(self) -> None:
        namespace = self.program.namespace
        canon = canonical(namespace, None, namespace)
        # One canon for each name, so that any subset can be compared, is dear; subsets are drawn when the version is made.
        names = list(namespace)
        subsets: list[tuple[list[str], Canon]] = []
        for _ in range(2):
            chosen = [name for name in names if self.source.randrange(3) == 0]
            subsets.append((chosen, canonical(namespace, chosen, namespace)))
        accessed = sorted(self.program.touched) if self.versions and self.source.randrange(2) else None
        number = int(self.repo.save(namespace, accessed=accessed))
        self.trace.append(f"save {number} accessed={accessed}")
        self.program.touched.clear()
        if canonical(namespace, None, namespace) != canon:
            raise AssertionError(f"save {number} changed the namespace")
        if number in self.versions:
            raise AssertionError(f"number {number} was given out twice")
        self.versions[number] = {"canon": canon, "names": names, "subsets": subsets}

    def check(self, number: int, subset: int | None) -> None:
        version = self.versions[number]
        if subset is None:
            loaded = self.repo.load(number)
            assert list(loaded) == version["names"], f"version {number}: names {list(loaded)}, not {version['names']}"
            assert_same(version["canon"], loaded, note=f"version {number}")
            return
        names, want = version["subsets"][subset]
        loaded = self.repo.load(number, names=names)
        assert set(loaded) == set(names), f"version {number}: asked for {names}, got {list(loaded)}"
        assert_same(want, loaded, names, note=f"names {names} of version {number}")

    def check_some(self) -> None:
        number = self.source.choice(list(self.versions))
        self.check(number, self.source.randrange(2))
        self.check(self.source.choice(list(self.versions)), None)
        names, want = self.versions[number]["subsets"][0]
        lazy = self.repo.at(number)
        assert_same(want, {name: lazy[name] for name in names}, names, note=f"at({number}), names {names}")

    def reopen(self) -> None:
        self.trace.append("reopen")
        self.repo.close()
        self.repo = self.open()

    def checkout(self) -> None:
        number = self.source.choice(list(self.versions))
        self.trace.append(f"checkout {number}")
        namespace = self.program.namespace
        self.repo.checkout(number, namespace, force=True)
        assert_same(self.versions[number]["canon"], namespace, note=f"checkout of version {number}")
