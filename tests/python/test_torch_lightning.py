"""Checkpoints of Lightning in a repository."""

from __future__ import annotations

from typing import Any

import chipmink
import pytest

torch = pytest.importorskip("torch")
try:
    import lightning.pytorch as lightning
except ImportError:
    lightning = pytest.importorskip("pytorch_lightning")

from chipmink.torch.lightning import ChipminkCallback, ChipminkIO  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


class Model(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = torch.nn.Sequential(torch.nn.Linear(20, 400), torch.nn.Linear(400, 1))
        self.losses: list[float] = []

    def training_step(self, batch: Any, _: int) -> Any:
        loss = (self.layers(batch) ** 2).mean()
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(torch.arange(320.0).view(16, 20) / 320, batch_size=4)


def trainer(folder: Any, plugin: ChipminkIO, epochs: int) -> Any:
    callback = lightning.callbacks.ModelCheckpoint(folder / "named", every_n_epochs=1, save_top_k=2, monitor="step", mode="max")
    return lightning.Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        plugins=[plugin],
        callbacks=[callback],
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def test_a_trainer_saves_and_goes_on(tmp_path):
    whole = Model()
    plugin = ChipminkIO(tmp_path / "runs", durable=False)
    trainer(tmp_path / "a", plugin, 6).fit(whole)
    first = Model()
    begun = trainer(tmp_path / "b", plugin, 3)
    begun.fit(first)
    kept = sorted((tmp_path / "b" / "named").iterdir())
    assert len(kept) == 2 and all(each.stat().st_size < 300 for each in kept)
    second = Model()
    trainer(tmp_path / "b", plugin, 6).fit(second, ckpt_path=begun.checkpoint_callback.best_model_path)
    assert first.losses + second.losses == whole.losses
    # What Lightning removed is gone, and of runs that are equal nothing is stored twice.
    assert len(plugin.repository.log()) <= 5
    assert plugin.repository.verify().ok
    with pytest.raises(chipmink.NotFoundError, match="no checkpoint"):
        plugin.load_checkpoint(tmp_path / "nothing.ckpt")


def test_files_of_torch_load_too(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(2)}}, tmp_path / "old.ckpt")
    plugin = ChipminkIO(tmp_path / "runs", durable=False)
    assert torch.equal(plugin.load_checkpoint(tmp_path / "old.ckpt", weights_only=True)["state_dict"]["a"], torch.ones(2))
    plugin.save_checkpoint({"state_dict": {"a": torch.ones(2)}, "epoch": 3}, tmp_path / "new.ckpt")
    loaded = plugin.load_checkpoint(tmp_path / "new.ckpt", map_location="meta")
    assert loaded["state_dict"]["a"].device.type == "meta" and loaded["epoch"] == 3
    other = ChipminkIO(tmp_path / "others", durable=False)
    with pytest.raises(chipmink.UnsupportedError, match="is a checkpoint of"):
        other.load_checkpoint(tmp_path / "new.ckpt")


class Scheduled(Model):
    """With a scheduler, and with what it logs."""

    def training_step(self, batch: Any, index: int) -> Any:
        loss = super().training_step(batch, index)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)]


def with_callback(folder: Any, callback: ChipminkCallback, epochs: int) -> tuple[Any, Any]:
    stopping = lightning.callbacks.EarlyStopping("loss", patience=50, mode="max", check_on_train_epoch_end=True)
    made = lightning.Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        callbacks=[stopping, callback],
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return made, stopping


@pytest.mark.parametrize("every", [{"every_n_epochs": 1}, {"every_n_steps": 4}])
def test_a_callback_saves_and_brings_back(tmp_path, every):
    whole = Scheduled()
    with_callback(tmp_path, ChipminkCallback(tmp_path / "whole", durable=False, **every), 6)[0].fit(whole)
    first = Scheduled()
    callback = ChipminkCallback(tmp_path / "runs", durable=False, keep_last=2, **every)
    assert callback.checkpointer.latest() is None
    begun, stopping = with_callback(tmp_path, callback, 3)
    begun.fit(first)
    assert [each.step for each in callback.checkpointer.checkpoints()] == [12, 8]
    assert callback.checkpointer.latest().metrics["loss"] == pytest.approx(first.losses[-1], rel=0.5)
    # No files of Lightning's own.
    assert not list(tmp_path.rglob("*.ckpt"))
    waited = stopping.wait_count
    callback.close()
    second = Scheduled()
    callback = ChipminkCallback(tmp_path / "runs", durable=False, **every)
    place = second.layers[0].weight.data_ptr()
    again, stopping = with_callback(tmp_path, callback, 6)
    again.fit(second)
    assert second.layers[0].weight.data_ptr() == place
    assert first.losses + second.losses == whole.losses
    assert again.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01 * 0.8**6)
    assert stopping.wait_count > waited
    assert [each.step for each in callback.checkpointer.checkpoints()] == [24, 20, 16, 12, 8]
    # One that shall begin anew does.
    third = Scheduled()
    fresh = ChipminkCallback(tmp_path / "runs", durable=False, resume=False, **every)
    with_callback(tmp_path, fresh, 1)[0].fit(third)
    assert third.losses == whole.losses[:4]
    with pytest.raises(ValueError, match="every_n_steps"):
        ChipminkCallback(tmp_path / "runs", every_n_steps=0)
    for each in (callback, fresh):
        each.close()
