"""Objects of Ray that a save pins or saves by value, so that they outlive their owners, on a real cluster of two nodes."""

from __future__ import annotations

import time

import pytest
import ray_clusters
import ray_kinds

WHY = ray_clusters.is_possible()
pytestmark = pytest.mark.skipif(WHY is not None, reason=str(WHY))

OBJECTS = {
    "object of the driver, small",
    "object of the driver, large",
    "result of a task",
    "result on the second node",
    "object of a detached actor",
    "object of a detached actor on the second node",
}


def test_pins_outlive_owners_and_go_with_the_versions(tmp_path):
    with ray_clusters.ray_cluster() as cluster:
        place = tmp_path / "repo"
        first, second = cluster.driver(), cluster.driver()
        saved = ray_kinds.SavedKinds(first, place, ("pin",))
        version = saved.versions["pin"]
        # One of them is the block of a dataset.
        assert "7 × ray.object can be resolved while the keeper of the repository holds it" in saved.remote["pin"]
        dirty, count, is_on_head = first.run(
            """
            again = repo.save(dict(kinds), remote="pin")
            import chipmink.ray
            keeper = ray.get_actor(chipmink.ray._keeper.name_of(repo.url), namespace="chipmink")
            node = ray.get(keeper.__ray_call__.remote(lambda self: __import__("ray").get_runtime_context().get_node_id()), timeout=10)
            head = [each["NodeID"] for each in ray.nodes() if "node:__internal_head__" in each["Resources"]]
            answer = [again.report.pods_dirty, len(chipmink.ray.pins(repo.url)), head == [node]]
            """
        )
        assert (dirty, count, is_on_head) == (0, 7, True)
        # What the keeper owns already is not copied again.
        assert first.run(
            """
            loaded = repo.load(again, names=["object of the driver, small"])
            answer = [str(each) for each in repo.save(loaded, remote="pin").report.remote] + [len(chipmink.ray.pins(repo.url))]
            """
        ) == ["1 × ray.object can be resolved while the detached actor chipmink/" + first.run("answer = chipmink.ray._keeper.name_of(repo.url)") + " lives", 7]
        # A checkout in between knows what it has saved.
        assert first.run("answer = list(repo.checkout(again, dict(kinds)).changed)") == []
        first.kill()
        time.sleep(2)
        second.run("ray.kill(ray.get_actor('detached', namespace='kept'))")
        found = saved.look(second, "pin")
        assert ray_kinds.kept(found) >= OBJECTS
        assert "the actor is dead" in found["actor, anonymous"][1]

        # What no version names any more is let go of.
        answer = second.run(
            f"""
            import chipmink.ray
            repo = chipmink.open({str(place)!r}, durable=False)
            kept = repo.load({version}, names=["object of the driver, small", "result of a task"])
            latest = repo.save(kept, remote="pin")
            before = len(chipmink.ray.pins(repo.url))
            spared = repo.sweep(keep_last=1).released
            report = repo.sweep(keep_last=1, grace="0s")
            left = [pin.original for pin in chipmink.ray.pins(repo.url)]
            values = [ray.get(each, timeout=5) for each in repo.load(latest).values()]
            answer = [before, spared, report.released, len(left), values]
            """
        )
        assert answer == [7, 0, 5, 2, [[1, 2], 42]]
        lost = second.run(
            """
            for pin in chipmink.ray.pins():
                pin.release()
            import time
            del kept
            time.sleep(1)
            answer = [repr(each) for each in repo.load(latest).values()] + [len(chipmink.ray.pins())]
            """
        )
        assert "the object is gone" in lost[0] and "the object is gone" in lost[1] and lost[2] == 0

        # A keeper that dies is started anew, and what is still there is pinned again.
        answer = second.run(
            """
            import os, signal, time
            ref = ray.put("again")
            number = int(repo.save({"ref": ref}, remote="pin"))
            keeper = ray.get_actor(chipmink.ray._keeper.name_of(repo.url), namespace="chipmink")
            pid = ray.get(keeper.__ray_call__.remote(lambda self: os.getpid()), timeout=10)
            os.kill(pid, signal.SIGKILL)
            for _ in range(30):
                time.sleep(1)
                try:
                    if ray.get(keeper.__ray_call__.remote(lambda self: os.getpid()), timeout=10) != pid:
                        break
                except ray.exceptions.RayError:
                    continue
            lost = repr(repo.load(number)["ref"])
            third = repo.save({"ref": ref}, remote="pin")
            answer = [lost, ray.get(repo.load(third)["ref"], timeout=5), len(chipmink.ray.pins())]
            """
        )
        assert "its owner ended" in answer[0] and answer[1:] == ["again", 1]


def test_values_are_saved_where_they_are(tmp_path):
    with ray_clusters.ray_cluster() as cluster:
        place = tmp_path / "repo"
        first = cluster.driver()
        version = ray_kinds.SavedKinds(first, place, ("materialize",)).versions["materialize"]
        nodes, dirty, branches, log = first.run(
            """
            held = repo.save(dict(kinds), remote="materialize")
            answer = [len({node["NodeID"] for node in ray.nodes() if node["Alive"]}), held.report.pods_dirty, list(repo.branches), len(repo.log())]
            """
        )
        assert (nodes, dirty, branches, log) == (2, 0, ["main"], 2)
        assert first.run("answer = list(repo.checkout(held, dict(kinds)).changed)") == []
        cluster.stop()

        bare = cluster.bare_driver()
        found = bare.run(
            f"""
            repo = chipmink.open({str(place)!r}, durable=False)
            loaded = repo.load({version})
            values = {{kind: loaded[kind] for kind in {sorted(OBJECTS)!r}}}
            counts = {{kind: loaded[kind].count for kind in loaded if kind.startswith("actor, ")}}
            answer = [{{kind: value if not isinstance(value, bytes) else len(value) for kind, value in values.items()}}, counts]
            """
        )
        assert found[0] == {
            "object of the driver, small": [1, 2],
            "object of the driver, large": 1 << 20,
            "result of a task": 42,
            "result on the second node": 1 << 20,
            "object of a detached actor": "kept",
            "object of a detached actor on the second node": "far",
        }
        assert set(found[1].values()) == {1} and len(found[1]) == 4
        assert "as_refs puts values into a cluster" in bare.run("answer = repr(repo.load(names=['result of a task'], as_refs=True))")

        cluster.start()
        later = cluster.driver()
        answer = later.run(
            f"""
            repo = chipmink.open({str(place)!r}, durable=False)
            loaded = repo.load({version}, as_refs=True)
            counts = [ray.get(loaded[kind].up.remote(), timeout=30) for kind in sorted(loaded) if kind.startswith("actor, ")]
            answer = [ray.get(loaded["result of a task"], timeout=10), ray.get(loaded["object of the driver, small"], timeout=10), counts]
            """
        )
        assert answer == [42, [1, 2], [2, 2, 2, 2]]

        # Lines that no version names go with a sweep, and what they held with the next.
        answer = later.run(
            """
            numbers = repo.save({"nothing": 1}, remote="materialize")
            before = len([name for name in repo._usable().refs() if name.startswith("remote/")])
            released = repo.sweep(keep_last=1, grace="0s").released
            left = [name for name in repo._usable().refs() if name.startswith("remote/")]
            repo.sweep(keep_last=1, grace="0s")
            repo.sweep(keep_last=1, grace="0s")
            answer = [before == released, left, repo.stats().pack_bytes < 100_000, repo.load()]
            """
        )
        assert answer == [True, [], True, {"nothing": 1}]


def test_values_with_references_in_them_and_values_that_cannot_be_saved(tmp_path):
    with ray_clusters.ray_cluster() as cluster:
        place = tmp_path / "repo"
        first = cluster.driver()
        version = first.run(
            f"""
            inner = ray.put("inner")
            outer = ray.put({{"inner": [inner], "x": 1}})
            @ray.remote(num_cpus=0)
            def failing(): raise ValueError("by itself")
            failed = failing.remote()
            class Fragile:
                # Ends the first process that saves it.
                def __init__(self, mark, home): self.mark, self.home = mark, home
                def __reduce__(self):
                    import os
                    if os.getpid() != self.home and not os.path.exists(self.mark):
                        open(self.mark, "w").close()
                        os._exit(1)
                    return Fragile, (self.mark, self.home)
            import os
            fragile = ray.put(Fragile({str(tmp_path / "mark")!r}, os.getpid()))
            repo = chipmink.open({str(place)!r}, durable=False)
            saved = repo.save({{"outer": outer, "failed": failed, "twice": [outer], "fragile": fragile}}, remote="materialize")
            answer = [int(saved), [str(each) for each in saved.report.remote]]
            """
        )
        assert any("ValueError" in text or "RayTaskError" in text for text in version[1])
        cluster.stop()
        bare = cluster.bare_driver()
        answer = bare.run(
            f"""
            repo = chipmink.open({str(place)!r}, durable=False)
            loaded = repo.load({version[0]})
            answer = [loaded["outer"], loaded["twice"][0] is loaded["outer"], repr(loaded["failed"]), loaded["fragile"].mark]
            """
        )
        assert answer[:2] == [{"inner": ["inner"], "x": 1}, True]
        assert "Ray is not installed" in answer[2]
        assert answer[3] == str(tmp_path / "mark") and (tmp_path / "mark").exists()


def test_what_a_node_that_is_lost_was_saving_is_saved_by_another(tmp_path):
    with ray_clusters.ray_cluster() as cluster:
        place, mark = tmp_path / "repo", tmp_path / "mark"
        first = cluster.driver()
        first.run(
            f"""
            import os, pathlib, threading, time
            mark = pathlib.Path({str(mark)!r})
            class Slow:
                # On the second node, saving it takes longer than the node lives.
                def __init__(self, data, home, far, mark): self.data, self.home, self.far, self.mark = data, home, far, mark
                def __reduce__(self):
                    import os, ray, time
                    if os.getpid() != self.home:
                        node = ray.get_runtime_context().get_node_id()
                        with open(self.mark, "a") as file:
                            file.write(node + " ")
                        if node == self.far:
                            time.sleep(600)
                    return Slow, (self.data, self.home, self.far, self.mark)
            far = next(each["NodeID"] for each in ray.nodes() if "second" in each["Resources"])
            slow = ray.put([Slow(7, os.getpid(), far, str(mark))])
            repo = chipmink.open({str(place)!r}, durable=False)
            import chipmink.ray._jobs as values
            batches = values._batches
            # It is given to that node.
            def to_the_second(cluster, refs):
                for batch in batches(cluster, refs):
                    batch.node = far
                    yield batch
            values._batches = to_the_second
            def save():
                global saved
                saved = repo.save({{"slow": slow}}, remote="materialize")
            thread = threading.Thread(target=save)
            thread.start()
            while not mark.exists():
                time.sleep(0.1)
            """
        )
        cluster.lose_node()
        nodes, value, said = first.run(
            """
            thread.join(100)
            loaded = repo.load(saved)["slow"]
            answer = [mark.read_text().split(), loaded[0].data if isinstance(loaded, list) else repr(loaded), [str(each) for each in saved.report.remote]]
            """,
            timeout=150,
        )
        assert value == 7, said
        assert len(set(nodes)) == 2


def test_how_far_a_save_is(tmp_path):
    with ray_clusters.ray_cluster(nodes=1) as cluster:
        first = cluster.driver()
        said = first.run(
            f"""
            import asyncio
            repo = chipmink.open({str(tmp_path / "repo")!r}, durable=False)
            refs = [ray.put(bytes(1 << 20)) for _ in range(3)]
            told = []
            for mode in ("reference", "pin", "materialize"):
                repo.save({{"refs": refs}}, remote=mode, progress=lambda each: told.append([each.phase, each.done, each.total]))
            asyncio.run(repo.asave({{"refs": [ray.put(1)]}}, remote="materialize", progress=lambda each: told.append(["async", each.done, each.total])))
            answer = told
            """
        )
        assert {phase for phase, *_ in said} == {"pinning", "materializing", "async"}
        for phase in ("pinning", "materializing"):
            done = [done for name, done, _ in said if name == phase]
            total = {total for name, _, total in said if name == phase}
            assert done[0] == 0 and done == sorted(done) and total == {done[-1]} and done[-1] > 3 << 20

        # Who is told may end it; then nothing is published, and the next save does it.
        answer = first.run(
            """
            def stop(each):
                raise InterruptedError("enough")
            before = len(repo.log())
            try:
                repo.save({"more": ray.put(2)}, remote="materialize", progress=stop)
            except InterruptedError as error:
                answer = [str(error), len(repo.log()) - before]
            """
        )
        assert answer == ["enough", 0]


def test_a_place_that_nodes_cannot_reach_is_refused(tmp_path):
    with ray_clusters.ray_cluster(nodes=1) as cluster:
        first = cluster.driver()
        said = first.run(
            """
            repo = chipmink.open("memory://")
            try:
                repo.save({"ref": ray.put(1)}, remote="materialize")
            except chipmink.UnsupportedError as error:
                answer = str(error)
            """
        )
        assert "needs a place that all nodes of the cluster reach" in said
        assert first.run("answer = len(repo.log())") == 0
        assert first.run(
            """
            try:
                repo.save({}, remote="copy")
            except ValueError as error:
                answer = str(error)
            """
        ) == "what lives elsewhere is saved by 'reference', 'pin', 'materialize', not by 'copy'"


def test_datasets(tmp_path):
    with ray_clusters.ray_cluster() as cluster:
        place = tmp_path / "repo"
        first, second = cluster.driver(), cluster.driver()
        numbers = first.run(
            f"""
            import pyarrow, pyarrow.parquet
            pyarrow.parquet.write_table(pyarrow.table({{"id": list(range(50))}}), {str(tmp_path / "rows.parquet")!r})
            kept = ray.data.range(100, override_num_blocks=2).materialize()
            plan = ray.data.read_parquet({str(tmp_path / "rows.parquet")!r})
            repo = chipmink.open({str(place)!r}, durable=False)
            saved = [repo.save({{"kept": kept, "plan": plan}})]
            saved += [repo.save({{"kept": kept, "plan": plan}}), repo.save({{"kept": kept, "plan": plan}}, remote="materialize")]
            answer = [[int(each) for each in saved], saved[1].report.pods_dirty, [str(each) for each in saved[0].report.stubs + saved[2].report.stubs]]
            """,
            timeout=240,
        )
        (version, _, values), dirty, stubs = numbers
        assert (dirty, stubs) == (0, [])
        code = f"""
            repo = chipmink.open({str(place)!r}, durable=False)
            loaded = repo.load({{}})
            answer = [thing.sum("id") if not isinstance(thing, chipmink.Placeholder) else repr(thing) for thing in (loaded["kept"], loaded["plan"])]
            """
        assert second.run(code.format(version), timeout=240) == [4950, 1225]
        first.end()
        time.sleep(1)
        lost, plan = second.run(code.format(version), timeout=240)
        assert "a block of it is lost" in lost and "its owner ended" in lost and plan == 1225
        assert second.run(code.format(values), timeout=240) == [4950, 1225]
        bare = cluster.bare_driver()
        assert "Ray is not installed" in bare.run(f"answer = repr(chipmink.open({str(place)!r}, durable=False).load({version})['kept'])")
