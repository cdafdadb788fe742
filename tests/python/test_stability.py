"""The same objects give the same bytes: across saves, processes, hash seeds, addresses, and whatever changes beside them.

Bytes in the repository are the measure: what was stored before under the same digest is not stored again.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import chipmink
import graph_types as kinds
import pytest
from oracle import assert_same, canonical

HERE = Path(__file__).parent
#: What a save of nothing new may store: commit, root entry, manifest and table leaves.
OVERHEAD = 8_192


def repository_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def build_namespace(padding: int = 0) -> dict[str, Any]:
    """The same graph in every process; `padding` moves everything to other addresses."""
    ballast = [object() for _ in range(padding)]
    numbers = random.Random(3)
    shared = ["shared", numbers.random()]
    record = kinds.Record(1, "content", [shared])
    namespace: dict[str, Any] = {
        "lists": [[numbers.randbytes(100) for _ in range(50)] for _ in range(50)],
        "people": [{"name": f"name {i}", "age": i, "tags": {f"t{i % 7}", "x", "y"}, "shared": shared} for i in range(500)],
        "records": [kinds.Record(i, f"r{i}", [i, str(i)]) for i in range(500)] + [record],
        "points": {kinds.FrozenPoint(i, "p"): i for i in range(200)},
        "words": {f"word {i}" for i in range(300)},
        "mixed": frozenset({1, "one", b"one", None, 2.5, True, 1j}),
        "function": make_function(7, shared),
        "text": "long text " * 20_000,
    }
    namespace["cycle"] = [namespace["records"]]
    namespace["cycle"].append(namespace["cycle"])
    del ballast
    return namespace


def make_function(number: int, box: list[Any]) -> Any:
    """A function by value."""

    def inner(more: set[str] = frozenset({"a", "b", "c"})) -> Any:  # type: ignore[assignment]
        return number, box, more, {"k1", "k2", "k3"} & more

    return inner


CHILD = """
import sys, json, hashlib
sys.path.insert(0, {here!r})
import chipmink
from test_stability import build_namespace
namespace = build_namespace(int(sys.argv[1]))
out = {{name: hashlib.sha256(chipmink.dumps(value)).hexdigest() for name, value in namespace.items()}}
if len(sys.argv) > 2:
    with chipmink.open(sys.argv[2], durable=False) as repo:
        saved = repo.save(namespace)
        out["saved"] = int(saved)
print(json.dumps(out))
"""


def run_child(padding: int, seed: str, folder: Path | None = None) -> dict[str, Any]:
    command = [sys.executable, "-c", CHILD.format(here=str(HERE)), str(padding)]
    if folder is not None:
        command.append(str(folder))
    environment = dict(os.environ, PYTHONHASHSEED=seed)
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def test_streams_are_equal_across_processes_and_hash_seeds():
    outcomes = [run_child(padding, seed) for padding, seed in ((0, "0"), (1000, "1"), (77, "random"))]
    for name in outcomes[0]:
        assert len({outcome[name] for outcome in outcomes}) == 1, name


def test_pods_are_equal_across_processes_and_hash_seeds(tmp_path):
    folder = tmp_path / "repo"
    run_child(0, "0", folder)
    before = repository_bytes(folder)
    assert before > 250_000
    for padding, seed in ((1000, "1"), (77, "4711")):
        outcome = run_child(padding, seed, folder)
        after = repository_bytes(folder)
        assert after - before < OVERHEAD, f"{after - before} bytes for nothing new"
        before = after
        with chipmink.open(folder, durable=False) as repo:
            # The functions of the child were made by a module of this name, not by the one that pytest made of the file.
            theirs = importlib.import_module("test_stability")
            assert_same(canonical(theirs.build_namespace()), repo.load(outcome["saved"]))


def test_stream_is_equal_on_every_call():
    namespace = build_namespace()
    first = chipmink.dumps(namespace)
    ballast = [chipmink.dumps(namespace) for _ in range(3)]
    assert all(stream == first for stream in ballast)
    assert chipmink.dumps(chipmink.loads(first)) == first


@pytest.mark.parametrize("accessed", [None, "all", "none"])
def test_nothing_is_stored_for_nothing(tmp_path, accessed):
    folder = tmp_path / "repo"
    namespace = build_namespace()
    with chipmink.open(folder, durable=False) as repo:
        repo.save(namespace)
        for _ in range(5):
            before = repository_bytes(folder)
            names = {None: None, "all": list(namespace), "none": []}[accessed]
            saved = repo.save(namespace, accessed=names)
            assert saved.report.pods_dirty == 0
            assert repository_bytes(folder) - before < OVERHEAD
        assert_same(canonical(namespace), repo.load(saved))


def test_equal_values_at_new_addresses_store_little(tmp_path):
    """What is known of objects is known by address. Where another object takes an address, that may cut pods elsewhere than
    before and store equal content once more; it must settle, and in a new process (above) it costs nothing."""
    folder = tmp_path / "repo"
    with chipmink.open(folder, durable=False) as repo:
        repo.save(build_namespace())
        first = repository_bytes(folder)
        for padding in (10, 1000, 5, 77, 3):
            namespace = build_namespace(padding)
            saved = repo.save(namespace)
        assert repository_bytes(folder) < 3 * first
        assert_same(canonical(namespace), repo.load(saved))


def test_neighbours_may_change(tmp_path):
    """One list of fifty changes at random each time: the others cost nothing."""
    folder = tmp_path / "repo"
    namespace = build_namespace()
    numbers = random.Random(5)
    with chipmink.open(folder, durable=False) as repo:
        repo.save(namespace)
        for step in range(12):
            namespace["lists"][numbers.randrange(50)][numbers.randrange(50)] = numbers.randbytes(100)
            namespace["people"][numbers.randrange(500)]["age"] = step
            namespace["records"].append(kinds.Record(1000 + step))
            namespace[f"new {step}"] = [numbers.random() for _ in range(10)]
            before = repository_bytes(folder)
            saved = repo.save(namespace)
            assert repository_bytes(folder) - before < 60_000, step
            assert_same(canonical(namespace), repo.load(saved))


def test_a_new_first_visitor_of_a_shared_object(tmp_path):
    """A large shared object is met first from another variable in each version; it is stored once."""
    folder = tmp_path / "repo"
    shared = [random.Random(1).randbytes(100) for _ in range(3_000)]
    with chipmink.open(folder, durable=False) as repo:
        namespace: dict[str, Any] = {"b": [shared, "b"], "c": [shared, "c"]}
        repo.save(namespace)
        for step in range(6):
            namespace = {f"a{step}": [shared, "first visitor"], **dict(reversed(namespace.items()))}
            before = repository_bytes(folder)
            saved = repo.save(namespace)
            grown = repository_bytes(folder) - before
            # The first change of visitor may store the object once more: it becomes a pod of its own then.
            assert grown < (400_000 if step == 0 else OVERHEAD), f"step {step}: {grown} bytes"
            assert_same(canonical(namespace), repo.load(saved))


def test_looking_stores_nothing(tmp_path):
    pandas = pytest.importorskip("pandas")
    numpy = pytest.importorskip("numpy")
    folder = tmp_path / "repo"
    frame = pandas.DataFrame({"a": numpy.arange(50_000.0), "b": [f"s{i}" for i in range(50_000)], "c": numpy.arange(50_000) % 7})
    namespace = {"frame": frame, "array": numpy.arange(100_000)}
    with chipmink.open(folder, durable=False) as repo:
        repo.save(namespace)
        for _ in range(3):
            frame.describe(), frame.head(), frame.groupby("c").mean(numeric_only=True), frame.iloc[3:9]
            before = repository_bytes(folder)
            repo.save(namespace)
            assert repository_bytes(folder) - before < OVERHEAD


class Tree:
    """Says what it holds by making it anew each time, as scikit-learn's trees do."""

    asked = 0

    def __init__(self, seed: int):
        self.numbers = random.Random(seed).sample(range(10**6), 400)

    def __reduce__(self) -> Any:
        type(self).asked += 1
        parts = [[list(map(str, self.numbers[i : i + 40])), (i, [i])] for i in range(0, 400, 40)]
        return Tree, (len(parts),), {"numbers": list(self.numbers), "parts": parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


@pytest.mark.parametrize("policy", ["lga", "lga-siblings", "split-all", "bundle-all"])
def test_what_reducers_make_anew_is_stored_once(policy, tmp_path):
    folder = tmp_path / "repo"
    trees = [Tree(seed) for seed in range(30)]
    with chipmink.open(folder, durable=False, policy=policy) as repo:
        namespace: dict[str, Any] = {"forest": {"trees": trees}, "alias": [trees[3]], "counter": [0]}
        repo.save(namespace)
        for step in range(5):
            before = repository_bytes(folder)
            report = repo.save(namespace).report
            assert report.pods_dirty == 0, f"{policy}, save {step}"
            assert repository_bytes(folder) - before < OVERHEAD


def test_objects_that_die_with_a_walk_activate_nobody(tmp_path):
    """Addresses of what one variable's reducers made are used again by what another's make."""
    namespace = {"forest": [Tree(seed) for seed in range(30)], "other": [Tree(seed) for seed in range(30, 32)]}
    with chipmink.open(tmp_path / "repo", durable=False) as repo:
        repo.save(namespace)
        for _ in range(5):
            Tree.asked = 0
            repo.save(namespace, accessed=["other"])
            assert Tree.asked == len(namespace["other"])


#: Definitions that lead back to themselves, by way of what they are made of.
CIRCULAR = {
    "super": "class C:\n    def f(self): return super().__repr__()\nx = C()",
    "a class that holds its instance": "class C: pass\nC.root = C()\nC.root.others = [C()]\nx = C.root",
    "a base that knows its subclasses": "class B:\n    known = []\nclass C(B): pass\nB.known.append(C)\nx = [C(), B]",
    "a metaclass": (
        "class M(type):\n    def __new__(m, *a):\n        return super().__new__(m, *a)\nclass C(metaclass=M): pass\nx = C()"
    ),
    "a frozen dataclass with slots": (
        "import dataclasses\n@dataclasses.dataclass(slots=True, frozen=True)\nclass C:\n    a: int\nx = {C(1): 'a'}"
    ),
    "single dispatch": (
        "import functools\n@functools.singledispatch\ndef x(a): return 'any'\n@x.register\ndef of_int(a: int): return 'int'"
    ),
    "functions that call each other": (
        "def make():\n    def even(n): return n == 0 or odd(n - 1)\n    def odd(n): return n != 0 and even(n - 1)\n    return even\nx = make()"
    ),
    "a reducer that names its class": (
        "class C:\n    def __reduce__(self): return C, (), {'c': C}\n    def __setstate__(self, state): self.c = state['c']\nx = C()"
    ),
}


@pytest.mark.parametrize("policy", ["lga-siblings", "split-all"])
@pytest.mark.parametrize("whole", [True, False], ids=["namespace", "variable"])
@pytest.mark.parametrize("name", CIRCULAR)
def test_definitions_that_lead_back_to_themselves(tmp_path, name, whole, policy):
    session: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(CIRCULAR[name], "<cell>", "exec", dont_inherit=True), session)
    namespace = session if whole else {"x": session["x"]}
    with chipmink.open(tmp_path / "repo", durable=False, policy=policy) as repo:
        first = repo.save(namespace)
        for _ in range(3):
            saved = repo.save(namespace)
            assert saved.report.pods_dirty == 0
            assert not repo.diff(first, saved)
        live = namespace["x"]
        assert not repo.checkout(first, namespace) and namespace["x"] is live
        assert list(repo.load(first)) == list(namespace)
