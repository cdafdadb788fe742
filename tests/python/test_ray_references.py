"""Objects of Ray: every kind in every situation, saved in every way, on real clusters of two nodes.

What is expected are the tables of the documentation.
"""

from __future__ import annotations

import time

import pytest
import ray_clusters
import ray_kinds
from matrices import Asserted, matrix

WHY = ray_clusters.is_possible()
pytestmark = pytest.mark.skipif(WHY is not None, reason=str(WHY))

BY_REFERENCE = matrix("by reference")
TABLES = {
    "reference": BY_REFERENCE,
    "pin": matrix('with `remote="pin"`', BY_REFERENCE),
    "materialize": matrix('with `remote="materialize"`', BY_REFERENCE),
}
CODE = {"remote function", "actor class"}


def words(found):
    return {kind: word for kind, (word, _) in found.items()}


IN_ONE_CLUSTER = {"same driver", "second driver", "driver gone", "cluster restarted", "cluster absent", "no Ray"}
LOSSES = {"owner killed", "its node lost"}


def assert_all(seen, driver, situation, *saved):
    """What each kind loads as, by mode; each mode is that of one of the saves."""
    found = {mode: each.look(driver, mode) for each in saved for mode in each.versions}
    for mode in ray_kinds.MODES:
        seen.check(mode, situation, found[mode])
    return found


def test_each_situation_of_the_documentation_is_tested():
    for table in TABLES.values():
        assert all(set(row) == IN_ONE_CLUSTER | LOSSES for row in table.values())


def test_every_kind_while_programs_and_clusters_come_and_go(tmp_path):
    seen = Asserted(TABLES, IN_ONE_CLUSTER)
    with ray_clusters.ray_cluster() as cluster:
        first, second = cluster.driver(), cluster.driver(namespace="other")
        saved = ray_kinds.SavedKinds(first, tmp_path / "repo", ray_kinds.MODES)
        assert set(BY_REFERENCE) == set(saved.identities)
        said = saved.remote["reference"]
        assert "5 × ray.object can be resolved while the driver that made it runs" in said
        assert "× ray.actor can be resolved while the detached actor 'detached' lives" in said
        assert "× ray.object can be resolved while the keeper of the repository holds it" in saved.remote["pin"]
        assert "× ray.object can be resolved from the repository" in saved.remote["materialize"]

        assert_all(seen, first, "same driver", saved)
        there = assert_all(seen, second, "second driver", saved)["reference"]
        assert "only in the process that began it" in there["stream of results"][1]

        found = assert_all(seen, cluster.driver(connect=False), "cluster absent", saved)
        for mode, kinds in found.items():
            for kind, (word, reason) in kinds.items():
                assert word != "×" or "call ray.init(" in reason, (mode, kind)
        bare = cluster.bare_driver()
        assert bare.run("import importlib.util; answer = importlib.util.find_spec('ray') is None")
        for mode, kinds in assert_all(seen, bare, "no Ray", saved).items():
            for kind, (word, reason) in kinds.items():
                assert word != "×" or "not installed" in reason or kind in CODE and "install it" in reason, (mode, kind)

        first.end()
        time.sleep(1)
        later = assert_all(seen, second, "driver gone", saved)["reference"]
        for kind, (word, reason) in later.items():
            if word == "×" and (kind.startswith("object") or kind.startswith("result")):
                assert "its owner ended" in reason and 'remote="pin"' in reason, kind
        for kind in ("actor, anonymous", "actor, named"):
            assert "the actor is dead" in later[kind][1] and 'lifetime="detached"' in later[kind][1]
        assert "it was removed" in later["placement group"][1]

        cluster.stop()
        cluster.start()
        for mode, kinds in assert_all(seen, cluster.driver(), "cluster restarted", saved).items():
            for kind, (word, reason) in kinds.items():
                assert word != "×" or "before a restart" in reason, (mode, kind)

    seen.all()


def test_every_kind_when_its_owner_or_its_node_is_lost(tmp_path):
    seen = Asserted(TABLES, LOSSES)
    with ray_clusters.ray_cluster() as cluster:
        first, second = cluster.driver(), cluster.driver()
        saved = ray_kinds.SavedKinds(first, tmp_path / "repo", ray_kinds.MODES)
        second.run("[ray.kill(ray.get_actor(name, namespace='kept')) for name in ('detached', 'far')]")
        first.kill()
        time.sleep(3)
        found = assert_all(seen, second, "owner killed", saved)["reference"]
        assert "its owner ended" in found["object of a detached actor"][1]
        assert "ray.kill" in found["actor, detached"][1]

        # Pinning makes copies on other nodes, so what is saved by reference is not pinned, too.
        third, fourth = cluster.driver(), cluster.driver()
        saved = ray_kinds.SavedKinds(third, tmp_path / "third", ("reference",), "-third")
        kept = ray_kinds.SavedKinds(fourth, tmp_path / "fourth", ("pin", "materialize"), "-fourth")
        cluster.lose_node()
        expected = {kind: row["its node lost"] for kind, row in BY_REFERENCE.items()}
        for _ in range(20):
            # The cluster needs some seconds to notice that a node is gone.
            if words(saved.look(second)) == expected:
                break
            time.sleep(1)
        found = assert_all(seen, second, "its node lost", saved, kept)["reference"]
        reason = found["object of a detached actor on the second node"][1]
        assert "of its owner is gone" in reason or "owner died" in reason, reason
        assert "the object is gone" in found["result on the second node"][1]
    seen.all()


def test_what_is_looked_at_once_and_what_is_freed(tmp_path):
    with ray_clusters.ray_cluster(nodes=1) as cluster:
        place = tmp_path / "repo"
        first, second = cluster.driver(), cluster.driver()
        # What a rule has said of a number is not asked again, and a new object at an old address is another.
        answer = first.run(
            f"""
            repo = chipmink.open({str(place)!r}, durable=False)
            refs = [ray.put(number) for number in range(1000)]
            counts = []
            for _ in range(3):
                report = repo.save({{"refs": refs}}).report
                counts.append([sum(each.count for each in report.remote), report.pods_dirty > 0])
            refs[500:] = [ray.put(-number) for number in range(500)]
            last = repo.save({{"refs": refs}})
            counts.append([sum(each.count for each in last.report.remote), repo.load(last)["refs"] == refs])
            answer = counts
            """
        )
        assert answer == [[1000, True], [0, False], [0, False], [500, True]]

        # What nobody refers to any more is gone, though its owner lives.
        freed = first.run(
            """
            passing, kept = ray.put("soon gone"), ray.put(42)
            number = int(repo.save({"passing": passing, "kept": kept}))
            del passing
            answer = number
            """
        )
        time.sleep(1)
        gone = ray_kinds.look(second, place, freed, {})
        assert gone["kept"] == ("copy", "42")
        assert "the object is gone" in gone["passing"][1] and "owned by" in gone["passing"][1]

        # What is gone when it is saved is known to be.
        lost = second.run(
            f"""
            ref = chipmink.open({str(place)!r}, durable=False).load({freed})["kept"]
            answer = ref.hex()
            """
        )
        first.end()
        time.sleep(1)
        said = second.run("answer = [str(each) for each in chipmink.open('memory://').save({'ref': ref}).report.remote]")
        assert lost and len(said) == 1 and said[0].startswith("1 × ray.object: lost: its owner ended")


def test_a_placeholder_that_is_saved_again_is_the_reference_that_it_was(tmp_path):
    with ray_clusters.ray_cluster(nodes=1) as cluster:
        place = tmp_path / "repo"
        first = cluster.driver()
        version = first.run(
            f"""
            Counter = ray.remote(num_cpus=0)(type("Counter", (), {{"up": lambda self: 1}}))
            made = Counter.options(name="made", lifetime="detached", namespace="kept").remote()
            function = ray.remote(lambda number: 2 * number)
            answer = int(chipmink.open({str(place)!r}, durable=False).save({{"made": made, "function": function}}))
            """
        )
        first.end()
        again = cluster.bare_driver().run(
            f"""
            with chipmink.open({str(place)!r}, durable=False) as repo:
                answer = int(repo.save({{"made": repo.load({version})["made"], "fine": [1]}}))
            """
        )
        answer = cluster.driver().run(
            f"""
            loaded = chipmink.open({str(place)!r}, durable=False).load({again})
            answer = [ray.get(loaded["made"].up.remote(), timeout=30), loaded["fine"]]
            """
        )
        assert answer == [1, [1]]

        # A remote function needs no cluster before it is called, and no load has connected to one.
        absent = cluster.driver(connect=False)
        code = f"repo = chipmink.open({str(place)!r}); loaded = repo.load({version}); import ray"
        assert absent.run(f"{code}; answer = [callable(loaded['function'].remote), ray.is_initialized()]") == [True, False]


def test_a_cluster_that_does_not_answer(tmp_path):
    """Every question has its limit of time, and what was asked in vain loads as a placeholder."""
    with ray_clusters.ray_cluster() as cluster:
        place = tmp_path / "repo"
        first, second = cluster.driver(), cluster.driver()
        saved = ray_kinds.SavedKinds(first, place)
        cluster.pause()
        try:
            seconds, lost = second.run(
                f"""
                import time
                with chipmink.open({str(place)!r}, durable=False) as repo:
                    began = time.monotonic()
                    with chipmink.time_limit(0.5):
                        loaded = repo.load({saved.versions["reference"]})
                answer = [time.monotonic() - began, [kind for kind, thing in loaded.items() if isinstance(thing, chipmink.Placeholder)]]
                """
            )
        finally:
            cluster.resume()
        assert seconds < 17 * 0.5 + 3
        assert {"actor, detached", "actor, named", "placement group, detached"} <= set(lost)
        assert words(saved.look(second)) == {kind: row["second driver"] for kind, row in BY_REFERENCE.items()}
