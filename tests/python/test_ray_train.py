"""Ray Train and Tune report checkpoints to a repository, and go on from them when a worker or trial is lost."""

from __future__ import annotations

import importlib.util

import pytest
import ray_clusters

WHY = ray_clusters.is_possible() or (None if importlib.util.find_spec("torch") else "PyTorch is not installed")
pytestmark = pytest.mark.skipif(WHY is not None, reason=str(WHY))

TRAIN = """
import ray.train, ray.train.torch

def loop(config):
    import os, tempfile, pathlib, torch, chipmink.ray
    model, start = torch.zeros(1 << 20), 0
    found = ray.train.get_checkpoint()
    if found is not None:
        with tempfile.TemporaryDirectory() as folder:
            state = torch.load(chipmink.ray.download(found, folder) / "state" / "model.pt")
        model, start = state["model"], state["step"]
    mark = pathlib.Path(config["mark"])
    for step in range(start + 1, 6):
        if step == 4 and not mark.exists():
            mark.write_text(str(start))
            os._exit(1)
        model[step * 1000 : step * 1000 + 10] += step
        with tempfile.TemporaryDirectory() as folder:
            os.makedirs(folder + "/state")
            torch.save({"model": model, "step": step}, folder + "/state/model.pt")
            open(folder + "/empty", "w").close()
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report({"step": step, "began": start}, checkpoint=checkpoint, checkpoint_upload_fn=config["upload"])
"""


def test_checkpoints_grow_by_what_changed_and_survive_a_worker(tmp_path):
    with ray_clusters.ray_cluster(nodes=1) as cluster:
        driver = cluster.driver()
        driver.run(TRAIN)
        found = driver.run(
            f"""
            import os, chipmink.ray
            # Workers have other folders.
            os.chdir({str(tmp_path)!r})
            trainer = ray.train.torch.TorchTrainer(
                loop,
                train_loop_config={{"upload": chipmink.ray.upload_to("repo", durable=False), "mark": {str(tmp_path / "mark")!r}}},
                scaling_config=ray.train.ScalingConfig(num_workers=1),
                run_config=ray.train.RunConfig(storage_path={str(tmp_path / "runs")!r}, failure_config=ray.train.FailureConfig(max_failures=1)),
            )
            result = trainer.fit()
            import torch
            folder = chipmink.ray.download(result.checkpoint, {str(tmp_path / "back")!r})
            state = torch.load(folder / "state" / "model.pt")
            changed = sorted({{int(place) // 1000 for place in state["model"].nonzero()}})
            repo = chipmink.open({str(tmp_path / "repo")!r}, ref="train-0")
            answer = [result.metrics["step"], result.metrics["began"], changed, (folder / "empty").stat().st_size, len(repo.log()), repo.stats().pack_bytes]
            """,
            timeout=400,
        )
        step, began, changed, empty, versions = found[:5]
        # What the lost worker had reported last may not have been noted yet.
        assert (step, changed, empty) == (5, [1, 2, 3, 4, 5], 0) and 1 <= began <= 3
        assert versions == 5 + (3 - began)
        # Five versions of four mebibytes, in which ten numbers each have changed.
        assert found[5] < 1.5 * (4 << 20)


CHECKPOINTER = """
import ray.train, ray.train.torch, ray.tune

def loop(config):
    import os, pathlib, torch, chipmink.ray, chipmink.torch
    rank = ray.train.get_context().get_world_rank()
    model = torch.nn.Linear(512, 512)
    torch.nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with chipmink.torch.Checkpointer(config["place"], ref=f"worker-{rank}", model=model, optimizer=optimizer, durable=False) as checkpointer:
        found = chipmink.ray.restore(ray.train.get_checkpoint(), checkpointer)
        start = found.step if found else 0
        mark = pathlib.Path(config["mark"])
        for step in range(start + 1, 6):
            if rank == 1 and step == 4 and not mark.exists():
                mark.write_text(str(start))
                os._exit(1)
            optimizer.zero_grad()
            model.weight.grad = torch.zeros_like(model.weight)
            model.weight.grad[step] = rank + 1.0
            optimizer.step()
            # A step whose effect was not restored would be missing here.
            steps = [int(number) for number in (model.weight[1:6, 0] != 0).nonzero().flatten() + 1]
            checkpointer.save(step)
            with chipmink.ray.checkpoint_of(checkpointer) as checkpoint:
                ray.train.report({"step": step, "began": start, "steps": steps}, checkpoint=checkpoint)

def trial(config):
    import torch, chipmink.ray, chipmink.torch
    model = torch.nn.Linear(4, 4)
    torch.nn.init.zeros_(model.weight)
    with chipmink.torch.Checkpointer(config["place"], ref=f"trial-{config['number']}", model=model, durable=False) as checkpointer:
        found = chipmink.ray.restore(ray.tune.get_checkpoint(), checkpointer)
        for step in range(found.step + 1 if found else 1, 4):
            with torch.no_grad():
                model.weight += config["number"]
            checkpointer.save(step)
            with chipmink.ray.checkpoint_of(checkpointer) as checkpoint:
                ray.tune.report({"step": step, "sum": float(model.weight.sum()), "resumed": bool(found)}, checkpoint=checkpoint)
            if step == 2 and config["number"] == 2 and not found:
                raise RuntimeError("a trial that fails once")
"""


def test_a_checkpointer_in_a_run_of_two_workers_goes_on_after_one_is_lost(tmp_path):
    with ray_clusters.ray_cluster() as cluster:
        driver = cluster.driver()
        driver.run(CHECKPOINTER)
        found = driver.run(
            f"""
            trainer = ray.train.torch.TorchTrainer(
                loop,
                train_loop_config={{"place": {str(tmp_path / "repo")!r}, "mark": {str(tmp_path / "mark")!r}}},
                scaling_config=ray.train.ScalingConfig(num_workers=2),
                run_config=ray.train.RunConfig(storage_path={str(tmp_path / "runs")!r}, failure_config=ray.train.FailureConfig(max_failures=1)),
            )
            result = trainer.fit()
            import chipmink.ray, chipmink.torch, torch
            weights = []
            for rank in (0, 1):
                model = torch.nn.Linear(512, 512)
                optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
                place = {str(tmp_path / "repo")!r}
                with chipmink.torch.Checkpointer(place, ref=f"worker-{{rank}}", model=model, optimizer=optimizer) as checkpointer:
                    step = chipmink.ray.restore(result.checkpoint, checkpointer, rank=rank).step
                    weights.append([step, [float(each) for each in model.weight[1:6, 0]]])
            import pathlib
            size = sum(path.stat().st_size for path in pathlib.Path({str(tmp_path / "runs")!r}).rglob("*") if "checkpoint" in str(path) and path.is_file())
            answer = [result.metrics["step"], result.metrics["began"], result.metrics["steps"], weights, size]
            """,
            timeout=500,
        )
        step, began, steps, weights, noted = found
        assert (step, steps) == (5, [1, 2, 3, 4, 5]) and 1 <= began <= 3
        for rank, (restored, column) in enumerate(weights):
            assert restored == 5
            # Momentum of each step goes on in the following ones: another number of steps would give other weights.
            weight, speed = [0.0] * 5, [0.0] * 5
            for at in range(5):
                speed = [0.9 * each + (rank + 1.0 if place == at else 0.0) for place, each in enumerate(speed)]
                weight = [each - 0.1 * fast for each, fast in zip(weight, speed, strict=True)]
            assert column == pytest.approx(weight, rel=1e-4)
        # Ray keeps notes, and nothing of the model.
        assert noted < 20_000

        found = driver.run(
            f"""
            space = {{"place": {str(tmp_path / "trials")!r}, "number": ray.tune.grid_search([1, 2])}}
            run = ray.tune.RunConfig(storage_path={str(tmp_path / "tuned")!r}, failure_config=ray.tune.FailureConfig(max_failures=1))
            results = ray.tune.Tuner(ray.tune.with_resources(trial, {{"cpu": 1}}), param_space=space, run_config=run).fit()
            answer = sorted([each.metrics["step"], each.metrics["sum"], each.metrics["resumed"]] for each in results)
            best = results.get_best_result("sum", mode="max")
            model = torch.nn.Linear(4, 4)
            with chipmink.torch.Checkpointer({str(tmp_path / "trials")!r}, ref="trial-2", model=model) as checkpointer:
                answer.append([chipmink.ray.restore(best.checkpoint, checkpointer).step, float(model.weight.sum())])
                try:
                    chipmink.ray.restore(result.checkpoint, checkpointer)
                except chipmink.UnsupportedError as error:
                    answer.append(str(error))
            """,
            timeout=500,
        )
        assert found[:3] == [[3, 48.0, False], [3, 96.0, True], [3, 96.0]]
        assert "the checkpointer saves to" in found[3]
