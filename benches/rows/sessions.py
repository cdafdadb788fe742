"""Whole sessions: CPU of all saves against pickled snapshots, bytes on disk, and whether every version is right.

Each side runs the whole session in a process of its own, interleaved; CPU is that of all threads during the saves.
Correctness is checked apart, against the canonical graph that the tests use, taken before each save: of every version
in full, of a random few names of each, in the same process and again in another that opens the closed repository.
"""

from __future__ import annotations

import functools
import hashlib
import json
import pickle
import random
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from benches.measure import Result, bytes_in, folder, second_thread
from benches.rows import Options, Row
from benches.workloads import Tracked, sessions

#: Bytes on disk of the best other system all of whose versions loaded right (values, types and sharing between
#: objects), at these scales; measured once on CPython 3.11 with numpy 1.26 and pandas 2.2: kishu 0.3.4 on eda, the
#: prototype of the authors of the paper *Chipmink* (PVLDB 19(4), 2025) on the others.
BEST_PEER_BYTES = {"eda": 43.6e6, "tweets": 1.79e6, "deep": 3.11e6, "graph": 6.12e6}
#: What the paper's prototype reached on eda, with versions that loaded wrongly.
EDA_BYTES = 4e6
CPU_BAR = {"accessed": 1.0, "everything": 1.5}
#: The canonical graph is plain Python and slow: sessions are checked at this part of their scale.
CHECK_PART = {"eda": 0.2, "tweets": 0.5, "deep": 0.3, "graph": 0.3}


class PickleFiles:
    """One file for each version, with the whole namespace."""

    def __init__(self, place: Path):
        self.place = place
        place.mkdir()
        self.count = 0

    def save(self, namespace: dict[str, Any], accessed: list[str]) -> int:
        self.count += 1
        with open(self.place / str(self.count), "wb") as file:
            pickle.dump(namespace, file, protocol=5)
        return self.count


class Chipmink:
    """A version for each step, with or without the names that the step touched."""

    def __init__(self, place: Path, hint: bool):
        import chipmink

        self.repo = chipmink.open(place, durable=False)
        self.hint = hint

    def save(self, namespace: dict[str, Any], accessed: list[str]) -> int:
        return int(self.repo.save(namespace, accessed=accessed if self.hint else None))


def make_system(name: str, place: Path) -> Any:
    return PickleFiles(place) if name == "pickle" else Chipmink(place, name == "accessed")


def timed(name: str, system_name: str, place: Path, threads: bool) -> dict[str, Any]:
    """Runs a session in this process; CPU seconds of the saves and bytes on disk."""
    session, scale = sessions()[name]
    system = make_system(system_name, place)
    namespace = Tracked()
    seconds = []
    with second_thread(threads):
        for _label in session(namespace, scale):
            accessed = namespace.take()
            began = time.process_time()
            system.save(namespace.plain, accessed)
            seconds.append(time.process_time() - began)
    return {"seconds": seconds, "bytes": bytes_in(place)}


def _oracle() -> Any:
    sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "python"))
    import oracle

    return oracle


def fingerprint(namespace: dict[str, Any], names: list[str] | None = None) -> str:
    """A short form of the canonical graph."""
    digest = hashlib.blake2b(digest_size=16)
    for node in _oracle().canonical(namespace, names, namespace).nodes:
        digest.update(repr(node).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def checked(name: str, system_name: str, place: Path) -> dict[str, Any]:
    """Runs a session and loads every version; what does not match, and what another process has to find."""
    session, scale = sessions()[name]
    system = make_system(system_name, place)
    namespace = Tracked()
    source = random.Random(1)
    versions = []
    for label in session(namespace, scale * CHECK_PART[name]):
        accessed = namespace.take()
        some = sorted(source.sample(list(namespace.plain), min(len(namespace.plain), source.randrange(1, 4))))
        want = (fingerprint(namespace.plain), fingerprint(namespace.plain, some))
        number = system.save(namespace.plain, accessed)
        assert fingerprint(namespace.plain) == want[0], f"the save after {label!r} changed the namespace"
        versions.append((number, label, some, *want))
    wrong = verify(system.repo, versions)
    system.repo.close()
    return {"versions": versions, "wrong": wrong}


def verify(repo: Any, versions: list[Any]) -> list[str]:
    """Labels of the versions that do not load as they were saved."""
    wrong = []
    for number, label, some, want, want_some in versions:
        if fingerprint(repo.load(number)) != want:
            wrong.append(label)
        if fingerprint(repo.load(number, names=some), some) != want_some:
            wrong.append(f"{label}: {some}")
    return wrong


def reopened(place: Path, versions: list[Any]) -> list[str]:
    import chipmink

    with chipmink.open(place, durable=False) as repo:
        return verify(repo, versions)


def main(arguments: list[str]) -> None:
    """The child processes: ``timed|checked|reopened NAME SYSTEM PLACE [threads]``; input and output are JSON."""
    warnings.simplefilter("ignore")
    action, name, system, place = arguments[:4]
    if action == "timed":
        outcome: Any = timed(name, system, Path(place), "threads" in arguments)
    elif action == "checked":
        outcome = checked(name, system, Path(place))
    else:
        outcome = reopened(Path(place), json.load(sys.stdin))
    print(json.dumps(outcome))


def _child(*arguments: str, given: Any = None) -> Any:
    command = [sys.executable, "-m", "benches.rows.sessions", *arguments]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: status {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def costs(name: str, options: Options, threads: bool) -> list[Result]:
    seconds: dict[str, list[float]] = {"pickle": [], "everything": [], "accessed": []}
    sizes: dict[str, int] = {}
    for _ in range(options.repeats):
        for system in seconds:
            with folder() as place:
                outcome = _child("timed", name, system, str(place / "s"), *(["threads"] if threads else []))
            seconds[system].append(sum(outcome["seconds"]))
            sizes[system] = outcome["bytes"]
    suffix = "/second thread" if threads else ""
    base = statistics.median(seconds["pickle"])
    results = []
    for system, bar in CPU_BAR.items():
        samples = {"ours": seconds[system], "theirs": seconds["pickle"]}
        title = f"session/{name}/CPU, {'names given' if system == 'accessed' else 'no names given'}{suffix}"
        results.append(Result(title, "pickled snapshots", statistics.median(seconds[system]), base, bar, "CPU s", samples=samples))
    if not threads:
        snapshot = f"pickle {sizes['pickle'] / 1e6:.1f} MB"
        results.append(Result(f"session/{name}/bytes", "best right peer", sizes["accessed"], BEST_PEER_BYTES[name], 1.05, "B", note=snapshot))
        if name == "eda":
            results.append(Result(f"session/{name}/bytes", "4 MB", sizes["accessed"], EDA_BYTES, 1.0, "B"))
    return results


def correctness(name: str, options: Options) -> list[Result]:
    results = []
    for system in CPU_BAR:
        with folder() as place:
            outcome = _child("checked", name, system, str(place / "s"))
            again = _child("reopened", name, system, str(place / "s"), given=outcome["versions"])
        wrong = sorted({*outcome["wrong"], *again})
        title = f"session/{name}/wrong versions, {'names given' if system == 'accessed' else 'no names given'}"
        count = len(outcome["versions"])
        results.append(Result(title, f"of {count}, twice", len(wrong), count, 0, "", value=len(wrong), note="; ".join(wrong)[:80]))
    return results


ROWS: dict[str, Row] = {}
for _name in ("eda", "tweets", "deep", "graph"):
    ROWS[f"session/{_name}"] = functools.partial(costs, _name, threads=False)
    ROWS[f"session/{_name}/right"] = functools.partial(correctness, _name)
ROWS["session/graph/second thread"] = functools.partial(costs, "graph", threads=True)

if __name__ == "__main__":
    main(sys.argv[1:])
