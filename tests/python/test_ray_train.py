"""Ray Train reports checkpoints to a repository, and goes on from them when a worker is lost."""

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
            upload = chipmink.ray.upload_to(config["place"], durable=False)
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report({"step": step, "began": start}, checkpoint=checkpoint, checkpoint_upload_fn=upload)
"""


def test_checkpoints_grow_by_what_changed_and_survive_a_worker(tmp_path):
    with ray_clusters.ray_cluster(nodes=1) as cluster:
        driver = cluster.driver()
        driver.run(TRAIN)
        found = driver.run(
            f"""
            trainer = ray.train.torch.TorchTrainer(
                loop,
                train_loop_config={{"place": {str(tmp_path / "repo")!r}, "mark": {str(tmp_path / "mark")!r}}},
                scaling_config=ray.train.ScalingConfig(num_workers=1),
                run_config=ray.train.RunConfig(storage_path={str(tmp_path / "runs")!r}, failure_config=ray.train.FailureConfig(max_failures=1)),
            )
            result = trainer.fit()
            import chipmink.ray, torch
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
