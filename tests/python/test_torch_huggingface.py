"""Checkpoints of the Trainer of Hugging Face, and of Accelerate, in a repository."""

from __future__ import annotations

from typing import Any

import chipmink
import pytest

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore")


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = torch.nn.Sequential(torch.nn.Linear(20, 400), torch.nn.Dropout(0.1), torch.nn.Linear(400, 1))

    def forward(self, x: Any) -> Any:
        return {"loss": (self.layers(x) ** 2).mean()}


def data() -> list[dict[str, Any]]:
    return [{"x": row} for row in torch.arange(640.0).view(32, 20) / 640]


def trainer(folder: Any, callback: Any, steps: int) -> Any:
    transformers = pytest.importorskip("transformers")
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        save_steps=3,
        logging_steps=1,
        per_device_train_batch_size=4,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        # The schedule of a run that is cut short is that of the whole one.
        lr_scheduler_type="constant",
    )
    return transformers.Trainer(Model(), arguments, train_dataset=data(), callbacks=[callback])


def losses(made: Any) -> dict[int, float]:
    return {entry["step"]: entry["loss"] for entry in made.state.log_history if "loss" in entry}


def test_a_trainer_saves_and_goes_on(tmp_path):
    pytest.importorskip("transformers")
    from chipmink.torch.transformers import ChipminkCallback

    whole = trainer(tmp_path / "a", ChipminkCallback(tmp_path / "whole", durable=False), 12)
    whole.train()
    callback = ChipminkCallback(tmp_path / "runs", durable=False, keep_last=2)
    assert callback.folder(tmp_path / "b") is None
    first = trainer(tmp_path / "b", callback, 8)
    first.train()
    # The callback saves in the place of the Trainer.
    assert not list((tmp_path / "b").glob("checkpoint-*/pytorch_model.bin"))
    assert callback.checkpointer.latest().step == 8
    callback = ChipminkCallback(tmp_path / "runs", durable=False)
    place = callback.folder(tmp_path / "b", 6)
    second = trainer(tmp_path / "b", callback, 12)
    second.train(resume_from_checkpoint=place)
    # What is logged of the very step after it was saved is not in the checkpoint.
    wanted = losses(whole)
    del wanted[6]
    assert losses(second) == wanted
    assert [each.step for each in callback.checkpointer.checkpoints()][:2] == [12, 9]


def test_accelerate_keeps_weights_in_a_repository(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    from chipmink.torch.accelerate import attach

    accelerator = accelerate.Accelerator(cpu=True)
    model = Model()
    prepared, optimizer = accelerator.prepare(model, torch.optim.Adam(model.parameters()))
    repository = attach(accelerator, tmp_path / "runs", durable=False)
    prepared(torch.ones(2, 20))["loss"].backward()
    optimizer.step()
    accelerator.save_state(str(tmp_path / "state"))
    assert not list((tmp_path / "state").glob("model*")) and not list((tmp_path / "state").glob("pytorch_model*"))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    place = model.layers[0].weight.data_ptr()
    optimizer.step()
    accelerator.load_state(str(tmp_path / "state"))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.layers[0].weight.data_ptr() == place
    assert repository.save({"other": 1}) and repository.load(1).keys() == {"model0"}
    repository.close()
    with pytest.raises(TypeError, match=r"accelerate\.Accelerator"):
        attach(model, tmp_path / "runs")
    assert isinstance(repository, chipmink.Repository)
