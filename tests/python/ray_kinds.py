"""One object of each kind that Ray has, and how to see that what a load brings is the same live thing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from drivers import Driver

#: Run in the program that saves.
MAKE = '''
import os, time, ray

class _Base:
    def __init__(self): self.count = 0
    def up(self):
        self.count += 1
        return self.count
    def put(self, value):
        self.held = [ray.put(value)]
        return self.held

Counter = ray.remote(num_cpus=0, resources={"first": 0.01})(type("Counter", (_Base,), {}))
FarCounter = ray.remote(num_cpus=0, resources={"second": 0.01})(type("FarCounter", (_Base,), {}))

@ray.remote(num_cpus=0)
def double(x): return 2 * x

@ray.remote(num_cpus=0, resources={"second": 0.01}, max_retries=0)
def far_bytes(n): return bytes(n)

@ray.remote(num_cpus=0, num_returns="streaming")
def stream():
    for i in range(3):
        yield i

SEEN = 1
anonymous, named = Counter.remote(), Counter.options(name="named").remote()
detached = Counter.options(name="detached", lifetime="detached", namespace="kept").remote()
far_detached = FarCounter.options(name="far", lifetime="detached", namespace="kept").remote()
kinds = {
    "object of the driver, small": ray.put([1, 2]),
    "object of the driver, large": ray.put(bytes(1 << 20)),
    "result of a task": double.remote(21),
    "result on the second node": far_bytes.remote(1 << 20),
    "object of a detached actor": ray.get(detached.put.remote("kept"))[0],
    "object of a detached actor on the second node": ray.get(far_detached.put.remote("far"))[0],
    "actor, anonymous": anonymous,
    "actor, named": named,
    "actor, detached": detached,
    "actor, detached, on the second node": far_detached,
    "remote function": double,
    "actor class": Counter,
    "placement group": ray.util.placement_group([{"CPU": 0.1}]),
    "placement group, detached": ray.util.placement_group([{"CPU": 0.1}], lifetime="detached", name="pg"),
    "stream of results": stream.remote(),
}
ray.get([actor.up.remote() for actor in (anonymous, named, detached, far_detached)])
ray.wait([kinds["result on the second node"]], fetch_local=False)
ray.get([kinds["placement group"].ready(), kinds["placement group, detached"].ready()])
'''

#: Run wherever something was loaded: says of each kind whether it works, or why it was lost.
LOOK = '''
def look(loaded):
    import time
    found = {}
    for kind, thing in loaded.items():
        if isinstance(thing, chipmink.Placeholder):
            try:
                thing.anything()
            except chipmink.RemoteObjectLost as error:
                found[kind] = "lost: " + str(error)
            except chipmink.PlaceholderError as error:
                found[kind] = "placeholder: " + str(error)
            continue
        try:
            value = use(kind, thing)
        except Exception as error:
            found[kind] = f"failed: {type(error).__name__}: {error}"
            continue
        found[kind] = f"live: {len(value) if isinstance(value, bytes) else value}"
    return found

def use(kind, thing):
    import ray
    if kind == "actor class":
        return ray.get(thing.remote().up.remote(), timeout=20)
    if "actor" in kind and "object" not in kind:
        return ray.get(thing.up.remote(), timeout=5)
    if "function" in kind:
        return ray.get(thing.remote(4), timeout=20)
    if "group" in kind:
        return thing.bundle_count
    if "stream" in kind:
        return type(thing).__name__
    return ray.get(thing, timeout=5)
'''

#: What a live object of each kind says; actors count how often they were asked.
VALUES = {
    "object of the driver, small": "[1, 2]",
    "object of the driver, large": str(1 << 20),
    "result of a task": "42",
    "result on the second node": str(1 << 20),
    "object of a detached actor": "kept",
    "object of a detached actor on the second node": "far",
    "remote function": "8",
    "placement group": "1",
    "placement group, detached": "1",
    "stream of results": "ObjectRefGenerator",
}


def save(driver: Driver, place: Any, mode: str = "reference") -> dict[str, Any]:
    """Makes one of each kind, saves them, and returns the version and what the report said."""
    driver.run(MAKE + LOOK)
    option = "" if mode == "reference" else f", remote={mode!r}"
    return driver.run(
        f"""
        repo = chipmink.open({str(place)!r}, durable=False)
        saved = repo.save(dict(kinds){option})
        answer = dict(
            version=int(saved),
            skipped=[str(each) for each in saved.report.skipped + saved.report.stubs],
            remote=[str(each) for each in saved.report.remote],
        )
        """
    )


def look(driver: Driver, place: Any, version: int, names: Iterable[str] | None = None) -> dict[str, str]:
    """What each kind loads as, in at most the time that a load may take."""
    wanted = None if names is None else sorted(names)
    seconds, found = driver.run(
        LOOK
        + f"""
import time
began = time.monotonic()
with chipmink.open({str(place)!r}, durable=False) as other:
    loaded = other.load({version}, names={wanted!r})
seconds = time.monotonic() - began
answer = [seconds, look(loaded)]
""",
        timeout=180,
    )
    assert seconds < 2 * 10, "a load gives each question to the cluster ten seconds"
    for kind, said in found.items():
        if said.startswith("live: ") and kind in VALUES:
            assert said == f"live: {VALUES[kind]}", kind
    return found


def kept(found: dict[str, str]) -> set[str]:
    """The kinds that work."""
    return {kind for kind, said in found.items() if said.startswith("live: ")}
