"""One object of each kind that Ray has, and how to see that what a load brings is the same live thing."""

from __future__ import annotations

from typing import Any

from drivers import Driver

MODES = ("reference", "pin", "materialize")

#: Run in the program that saves; ``SUFFIX`` ends the names of its actors.
MAKE = '''
import os, time, ray, ray.data

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

anonymous, named = Counter.remote(), Counter.options(name="named" + SUFFIX).remote()
detached = Counter.options(name="detached" + SUFFIX, lifetime="detached", namespace="kept").remote()
far_detached = FarCounter.options(name="far" + SUFFIX, lifetime="detached", namespace="kept").remote()
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
    "placement group, detached": ray.util.placement_group([{"CPU": 0.1}], lifetime="detached", name="group" + SUFFIX),
    "stream of results": stream.remote(),
    "dataset, a plan": ray.data.range(100),
    "dataset, materialized": ray.data.from_items([{"id": number} for number in range(50)], override_num_blocks=1),
}
ray.get([actor.up.remote() for actor in (anonymous, named, detached, far_detached)])
ray.wait([kinds["result on the second node"]], fetch_local=False)
ray.get([kinds["placement group"].ready(), kinds["placement group, detached"].ready()])
'''

#: Run wherever something was loaded: a word for each kind, and what was said.
LOOK = '''
def look(loaded, identities):
    found = {}
    for kind, thing in loaded.items():
        if isinstance(thing, chipmink.Placeholder):
            try:
                thing.anything()
            except chipmink.PlaceholderError as error:
                is_lost = isinstance(error, chipmink.RemoteObjectLost)
                found[kind] = ["×", f"{'lost' if is_lost else 'placeholder'}: {error}"]
            continue
        try:
            found[kind] = word(kind, thing, identities.get(kind))
        except Exception as error:
            found[kind] = ["failed", f"{type(error).__name__}: {error}"]
    return found

def identity(thing):
    for name in ("binary", "_actor_id", "id"):
        found = getattr(thing, name, None)
        if found is not None:
            return (found() if callable(found) else found).hex()
    generator = getattr(thing, "_generator_ref", None)
    return generator.hex() if generator is not None else ""

def word(kind, thing, original):
    if kind in ("remote function", "actor class"):
        import ray
        if not ray.is_initialized():
            return ["equal", type(thing).__name__]
        said = thing.remote(4) if kind == "remote function" else thing.remote().up.remote()
        return ["equal", str(ray.get(said, timeout=30))]
    if not type(thing).__module__.startswith("ray"):
        # An instance of an actor's class, or a value.
        return ["value", str(thing.count if hasattr(thing, "up") else len(thing) if isinstance(thing, bytes) else thing)]
    import ray
    if kind.startswith("dataset"):
        return ["equal", str(thing.count())]
    if isinstance(thing, ray.actor.ActorHandle):
        said = ray.get(thing.up.remote(), timeout=10) > 1
    elif isinstance(thing, ray.ObjectRef):
        value = ray.get(thing, timeout=10)
        said = len(value) if isinstance(value, bytes) else value
    elif kind.startswith("placement"):
        said = thing.bundle_count
    else:
        said = type(thing).__name__
    return ["same" if identity(thing) == original else "copy", str(said)]
'''

#: What a live object of each kind says.
VALUES = {
    "object of the driver, small": "[1, 2]",
    "object of the driver, large": str(1 << 20),
    "result of a task": "42",
    "result on the second node": str(1 << 20),
    "object of a detached actor": "kept",
    "object of a detached actor on the second node": "far",
    "placement group": "1",
    "placement group, detached": "1",
    "stream of results": "ObjectRefGenerator",
    "dataset, a plan": "100",
    "dataset, materialized": "50",
}


class SavedKinds:
    """One of each kind, saved in some ways."""

    def __init__(self, driver: Driver, place: Any, modes: tuple[str, ...] = ("reference",), suffix: str = "") -> None:
        self.place = place
        driver.run(f"SUFFIX = {suffix!r}\n" + MAKE + LOOK, timeout=240)
        said = driver.run(
            f"""
            repo = chipmink.open({str(place)!r}, durable=False)
            answer = {{"identities": {{kind: identity(thing) for kind, thing in kinds.items()}}}}
            for mode in {modes!r}:
                saved = repo.save(dict(kinds), remote=mode)
                answer[mode] = dict(
                    version=int(saved),
                    skipped=[str(each) for each in saved.report.skipped + saved.report.stubs],
                    remote=[str(each) for each in saved.report.remote],
                )
            """,
            timeout=240,
        )
        self.identities: dict[str, str] = said.pop("identities")
        self.versions: dict[str, int] = {mode: said[mode]["version"] for mode in modes}
        self.remote: dict[str, str] = {mode: "\n".join(said[mode]["remote"]) for mode in modes}
        for mode in modes:
            assert said[mode]["skipped"] == [], mode

    def look(self, driver: Driver, mode: str = "reference") -> dict[str, tuple[str, str]]:
        """What each kind loads as, in at most the time that a load may take."""
        return look(driver, self.place, self.versions[mode], self.identities)


def look(driver: Driver, place: Any, version: int, identities: dict[str, str]) -> dict[str, tuple[str, str]]:
    """A word for each variable of a version, and what was said."""
    seconds, found = driver.run(
        LOOK
        + f"""
import time
began = time.monotonic()
with chipmink.open({str(place)!r}, durable=False) as other:
    loaded = other.load({version})
seconds = time.monotonic() - began
answer = [seconds, look(loaded, {identities!r})]
""",
        timeout=240,
    )
    assert seconds < 2 * 10, "a load gives each question to the cluster ten seconds"
    for kind, (word, said) in found.items():
        if word in ("same", "copy", "value", "equal") and kind in VALUES:
            assert said == VALUES[kind], kind
        # When they were saved they had been asked once.
        assert word != "value" or not kind.startswith("actor, ") or said == "1", kind
    return {kind: (word, said) for kind, (word, said) in found.items()}


def kept(found: dict[str, tuple[str, str]]) -> set[str]:
    """The kinds that work."""
    return {kind for kind, (word, _) in found.items() if word not in ("×", "failed")}
