"""Objects of Ray by reference: every kind in every situation, on real clusters of two nodes."""

from __future__ import annotations

import time

import pytest
import ray_clusters
import ray_kinds

WHY = ray_clusters.is_possible()
pytestmark = pytest.mark.skipif(WHY is not None, reason=str(WHY))

EVERYTHING = {
    "object of the driver, small",
    "object of the driver, large",
    "result of a task",
    "result on the second node",
    "object of a detached actor",
    "object of a detached actor on the second node",
    "actor, anonymous",
    "actor, named",
    "actor, detached",
    "actor, detached, on the second node",
    "remote function",
    "actor class",
    "placement group",
    "placement group, detached",
    "stream of results",
}
CODE = {"remote function", "actor class"}
OF_ACTOR = {"object of a detached actor", "actor, detached"}
OF_FAR_ACTOR = {"object of a detached actor on the second node", "actor, detached, on the second node"}
OUTLIVING = CODE | OF_ACTOR | OF_FAR_ACTOR | {"placement group, detached"}


def reasons(found: dict[str, str], kinds: set[str]) -> str:
    return "\n".join(found[kind] for kind in sorted(kinds))


def test_every_kind_while_the_cluster_runs(tmp_path):
    with ray_clusters.ray_cluster() as cluster:
        place = tmp_path / "repo"
        first, second = cluster.driver(), cluster.driver(namespace="other")
        saved = ray_kinds.save(first, place)
        version = saved["version"]
        assert saved["skipped"] == []
        said = "\n".join(saved["remote"])
        assert "4 × ray.object can be resolved while the driver that made it runs" in said
        assert "× ray.actor can be resolved while the detached actor 'detached' lives" in said

        here = ray_kinds.look(first, place, version)
        assert ray_kinds.kept(here) == EVERYTHING
        assert first.run("loaded = repo.load(); answer = loaded['stream of results'] is kinds['stream of results']")
        there = ray_kinds.look(second, place, version)
        assert ray_kinds.kept(there) == EVERYTHING - {"stream of results"}
        assert "only in the process that began it" in there["stream of results"]

        # What a rule has said of a number is not asked again, and a new object at an old address is another.
        answer = first.run(
            """
            refs = [ray.put(number) for number in range(1000)]
            counts = []
            for _ in range(3):
                report = repo.save({"refs": refs}).report
                counts.append([sum(each.count for each in report.remote), report.pods_dirty > 0])
            refs[500:] = [ray.put(-number) for number in range(500)]
            last = repo.save({"refs": refs})
            counts.append([sum(each.count for each in last.report.remote), repo.load(last)["refs"] == refs])
            answer = counts
            """
        )
        assert answer == [[1000, True], [0, False], [0, False], [500, True]]

        # What nobody refers to any more is gone, though its owner lives.
        freed = first.run(
            """
            passing = ray.put("soon gone")
            number = int(repo.save({"passing": passing, "kept": kinds["result of a task"]}))
            del passing
            answer = number
            """
        )
        time.sleep(1)
        gone = ray_kinds.look(second, place, freed)
        assert gone["kept"] == "live: 42"
        assert "the object is gone" in gone["passing"] and "owned by" in gone["passing"]

        first.end()
        time.sleep(1)
        later = ray_kinds.look(second, place, version)
        assert ray_kinds.kept(later) == OUTLIVING
        lost = EVERYTHING - OUTLIVING - {"stream of results", "placement group"}
        for kind in lost - {"actor, anonymous", "actor, named"}:
            assert "its owner ended" in later[kind] and 'remote="pin"' in later[kind], kind
        for kind in ("actor, anonymous", "actor, named"):
            assert "the actor is dead" in later[kind] and 'lifetime="detached"' in later[kind]
        assert "it was removed" in later["placement group"]


def test_owner_killed_and_node_lost(tmp_path):
    with ray_clusters.ray_cluster() as cluster:
        place = tmp_path / "repo"
        first, second = cluster.driver(), cluster.driver()
        version = ray_kinds.save(first, place)["version"]

        cluster.lose_node()
        found = ray_kinds.look(second, place, version)
        for _ in range(20):
            # The cluster needs some seconds to notice that a node is gone.
            if all(found[kind].startswith("lost: ") for kind in OF_FAR_ACTOR | {"result on the second node"}):
                break
            time.sleep(1)
            found = ray_kinds.look(second, place, version)
        lost = OF_FAR_ACTOR | {"result on the second node", "stream of results"}
        assert ray_kinds.kept(found) >= EVERYTHING - lost - {"placement group", "placement group, detached"}
        assert all(found[kind].startswith("lost: ") for kind in lost)
        said = found["object of a detached actor on the second node"]
        assert "of its owner is gone" in said or "owner died" in said, said
        assert "the object is gone" in found["result on the second node"]

        second.run("ray.kill(ray.get_actor('detached', namespace='kept'))")
        time.sleep(1)
        found = ray_kinds.look(second, place, version)
        assert not ray_kinds.kept(found) & OF_ACTOR
        assert "its owner ended" in found["object of a detached actor"]
        assert "ray.kill" in found["actor, detached"]

        first.kill()
        time.sleep(3)
        found = ray_kinds.look(second, place, version)
        assert ray_kinds.kept(found) - {"placement group, detached"} == CODE


def test_another_cluster_none_and_no_library(tmp_path):
    with ray_clusters.ray_cluster() as cluster:
        place = tmp_path / "repo"
        first = cluster.driver()
        version = ray_kinds.save(first, place)["version"]
        first.end()

        absent = cluster.driver(connect=False)
        bound = EVERYTHING - CODE
        found = ray_kinds.look(absent, place, version, bound)
        assert ray_kinds.kept(found) == set()
        assert all("call ray.init(address=" in found[kind] for kind in bound)
        # A remote function needs no cluster before it is called, and no load has connected to one.
        code = f"repo = chipmink.open({str(place)!r}); loaded = repo.load({version})"
        assert absent.run(f"{code}; import ray; answer = [callable(loaded['remote function'].remote), ray.is_initialized()]") == [True, False]

        bare = cluster.bare_driver()
        assert bare.run("import importlib.util; answer = importlib.util.find_spec('ray') is None")
        found = ray_kinds.look(bare, place, version)
        assert all("Ray is not installed" in found[kind] for kind in bound)
        assert all(found[kind].startswith("placeholder: ") and "install it" in found[kind] for kind in CODE)

        # A placeholder that is saved again is the reference that it was.
        again = bare.run(
            f"""
            with chipmink.open({str(place)!r}, durable=False) as repo:
                loaded = repo.load({version})
                answer = int(repo.save({{"detached": loaded["actor, detached"], "fine": [1]}}))
            """
        )
        connected = cluster.driver()
        answer = connected.run(
            f"""
            loaded = chipmink.open({str(place)!r}, durable=False).load({again})
            answer = [ray.get(loaded["detached"].up.remote(), timeout=10) > 1, loaded["fine"]]
            """
        )
        assert answer == [True, [1]]

        cluster.stop()
        cluster.start()
        later = cluster.driver()
        found = ray_kinds.look(later, place, version)
        assert ray_kinds.kept(found) == CODE
        assert all("before a restart" in found[kind] for kind in bound)


def test_a_cluster_that_does_not_answer(tmp_path):
    """Every question has its limit of time, and what was asked in vain loads as a placeholder."""
    with ray_clusters.ray_cluster() as cluster:
        place = tmp_path / "repo"
        first, second = cluster.driver(), cluster.driver()
        version = ray_kinds.save(first, place)["version"]
        cluster.pause()
        try:
            seconds, lost = second.run(
                f"""
                import time
                with chipmink.open({str(place)!r}, durable=False) as repo:
                    began = time.monotonic()
                    with chipmink.time_limit(0.5):
                        loaded = repo.load({version})
                answer = [time.monotonic() - began, [kind for kind, thing in loaded.items() if isinstance(thing, chipmink.Placeholder)]]
                """
            )
        finally:
            cluster.resume()
        assert seconds < 15 * 0.5 + 3
        assert {"actor, detached", "actor, named", "placement group, detached"} <= set(lost)
        assert ray_kinds.kept(ray_kinds.look(second, place, version)) == EVERYTHING - {"stream of results"}
