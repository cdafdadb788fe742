"""Checkpoints of ``torch_checkpointing`` in a repository."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import chipmink
import pytest

torch = pytest.importorskip("torch")
torch_checkpointing = pytest.importorskip("torch_checkpointing")

from chipmink.torch.checkpointing import ChipminkStorage, ChipminkStorageConfig  # noqa: E402


@pytest.fixture
def config(tmp_path) -> ChipminkStorageConfig:
    return ChipminkStorageConfig(str(tmp_path / "runs"), durable=False)


@pytest.fixture
def storage(config) -> Any:
    made = config.create_storage()
    yield made
    made.close()


def manager(config: ChipminkStorageConfig, how: str = "with_sync_save") -> Any:
    made = getattr(torch_checkpointing.CheckpointManager.Config, how)()
    made.storage_config = config
    if how == "with_async_save":
        # The half minute that it gives its process by itself is too little for a busy machine.
        made.save.process_config.subprocess_init_timeout_secs = 600
        staging = made.save.staging_config
        staging.use_pinned_memory = staging.use_non_blocking_copy = torch.cuda.is_available()
    return made.build()


def state(value: float) -> dict[str, Any]:
    torch.manual_seed(1)
    weights = torch.randn(400_000)
    weights[:10] = value
    return {"model": {"weights": weights, "bias": torch.full((3,), value)}, "step": int(value)}


def zeros() -> dict[str, Any]:
    return {"model": {"weights": torch.zeros(400_000), "bias": torch.zeros(3)}, "step": 0}


def pack_bytes(place: str) -> int:
    return sum(each.stat().st_size for each in Path(place, "packs").rglob("*") if each.is_file())


def test_a_manager_saves_and_loads(config):
    made = manager(config)
    sizes = []
    for value in (1.0, 2.0, 3.0):
        made.save(f"step-{value:.0f}", state(value))
        sizes.append(pack_bytes(config.url))
    made.close()
    # Only what changed was written.
    assert sizes[0] > 1_500_000 and sizes[2] - sizes[0] < 300_000
    again = manager(config)
    for value in (3.0, 1.0, 2.0):
        into = zeros()
        place = into["model"]["weights"].data_ptr()
        found = again.load(f"step-{value:.0f}", into=into)
        wanted = state(value)
        assert found["step"] == wanted["step"]
        assert torch.equal(into["model"]["weights"], wanted["model"]["weights"])
        assert torch.equal(into["model"]["bias"], wanted["model"]["bias"])
        assert into["model"]["weights"].data_ptr() == place
    with pytest.raises(FileNotFoundError):
        again.load("step-9", into=zeros())
    again.close()
    with chipmink.open(config.url) as repo:
        assert repo.verify().ok
        assert [version.message.partition("\n")[0] for version in repo.log() if version.ref == "main"] == [
            "checkpoint step-3",
            "checkpoint step-2",
            "checkpoint step-1",
        ]


def test_a_process_of_its_own_writes(config):
    made = manager(config, "with_async_save")
    live = state(1.0)
    written = made.save("step-1", live)
    with made.lock():
        live["model"]["weights"].zero_()
    written.result()
    into = zeros()
    made.load("step-1", into=into)
    made.close()
    assert torch.equal(into["model"]["weights"], state(1.0)["model"]["weights"])


def test_a_save_that_ends_before_the_rename_is_no_checkpoint(config, storage):
    made = manager(config)
    made.save("step-1", state(1.0))
    made.close()
    storage.write(Path("tmp_step-2/model.pt"), b"half")
    assert storage.exists(Path("tmp_step-2/model.pt")) and not storage.exists(Path("step-2"))
    with chipmink.open(config.url) as repo:
        assert repo.log()[0].message == "file tmp_step-2/model.pt"
        assert repo.branches["main"] < repo.log()[0].number
    # The next attempt does not find what is left of it.
    storage.write(Path("tmp_step-2/model.pt"), b"whole")
    storage.rename(Path("tmp_step-2"), Path("step-2"), is_directory=True)
    assert storage.read(Path("step-2/model.pt")) == b"whole"
    assert not storage.exists(Path("tmp_step-2"))


def test_old_checkpoints_go(config):
    config.keep_last = 2
    made = manager(config)
    for value in range(5):
        made.save(f"step-{value}", state(value))
    made.close()
    storage = config.create_storage()
    assert storage.ls(Path()) == ["step-3", "step-4"]
    with chipmink.open(config.url) as repo:
        assert len(repo.log()) < 10
        assert repo.verify().ok
    storage.close()


def test_files_and_folders(storage):
    content = bytes(range(256)) * 1000
    with storage.stream_write(Path("tmp_a/inner/large")) as file:
        file.write(content[:1000])
        file.write(memoryview(content)[1000:200_000])
        file.write(content[200_000:])
    storage.write(Path("tmp_a/small"), b"")
    storage.mkdir(Path("empty/inner"))
    assert storage.isdir(Path("empty")) and storage.ls(Path("empty")) == ["inner"]
    storage.rmdir(Path("empty"))
    assert not storage.exists(Path("empty"))
    assert storage.ls(Path("tmp_a")) == ["inner", "small"]
    storage.rename(Path("tmp_a"), Path("a"), is_directory=True)
    assert storage.ls(Path()) == ["a"] and storage.ls(Path("a/inner")) == ["large"]
    assert storage.glob("a/s*") == ["a/small"]
    assert storage.getsize(Path("a/inner/large")) == len(content) and storage.getsize(Path("a/small")) == 0
    assert storage.isdir(Path("a/inner")) and not storage.isdir(Path("a/small"))
    with storage.stream_read(Path("a/inner/large")) as file:
        assert file.seek(-5, 2) == len(content) - 5 and file.read() == content[-5:]
        assert file.seek(999) == 999 and file.read(3) == content[999:1002] and file.tell() == 1002
        buffer = bytearray(250_000)
        assert file.readinto(buffer) == 250_000 and buffer == content[1002:251_002]
        assert file.seek(10**7) == 10**7 and file.read() == b"" and file.read(5) == b""
    # One that has become a checkpoint is replaced, deleted, and removed.
    storage.write(Path("a/small"), b"more")
    assert storage.read(Path("a/small")) == b"more"
    with pytest.raises(chipmink.UnsupportedError, match="cannot be renamed"):
        storage.rename(Path("a"), Path("b"), is_directory=True)
    storage.delete(Path("a/small"))
    assert storage.ls(Path("a")) == ["inner"]
    with pytest.raises(FileNotFoundError):
        storage.delete(Path("a/small"))
    storage.rename(Path("a/inner/large"), Path("c/large"))
    assert storage.ls(Path()) == ["c"] and storage.read(Path("c/large")) == content
    storage.rmdir(Path("c"))
    assert storage.ls(Path()) == []
    for act in (storage.rmdir, storage.ls, storage.getsize, storage.stream_read):
        with pytest.raises(FileNotFoundError):
            act(Path("c/large"))


def test_what_is_removed_stays_removed(storage):
    for name in ("a", "b"):
        storage.write(Path(f"tmp_{name}/{name}"), name.encode())
        storage.rename(Path(f"tmp_{name}"), Path(name), is_directory=True)
    storage.rmdir(Path("b"))
    storage.write(Path("tmp_c/a"), b"c")
    assert storage.ls(Path()) == ["a", "tmp_c"]
    storage.rename(Path("tmp_c"), Path("a"), is_directory=True)
    assert storage.ls(Path()) == ["a"] and storage.read(Path("a/a")) == b"c"
    storage.rmdir(Path("a"))
    assert storage.ls(Path()) == []
    storage.write(Path("tmp_b/b"), b"again")
    assert storage.ls(Path()) == ["tmp_b"]
    storage.rename(Path("tmp_b"), Path("b"), is_directory=True)
    assert storage.ls(Path("b")) == ["b"]


def test_a_file_that_is_not_finished_is_not_there(storage):
    with pytest.raises(ZeroDivisionError), storage.stream_write(Path("tmp_a/x")) as file:
        file.write(b"half")
        raise ZeroDivisionError
    file = storage.stream_write(Path("tmp_a/y"))
    file.write(b"half")
    del file
    assert storage.ls(Path()) == []


def test_names_that_are_none(storage):
    with pytest.raises(chipmink.UnsupportedError, match="let a checkpoint's id be a name"):
        storage.write(Path("/tmp/a/x"), b"")
    with pytest.raises(chipmink.UnsupportedError, match="is in no checkpoint"):
        storage.write(Path("x"), b"")
    storage.write(Path("run/tmp_a/x"), b"")
    with pytest.raises(chipmink.UnsupportedError, match="without a slash"):
        storage.rename(Path("run/tmp_a"), Path("run/a"), is_directory=True)
    with pytest.raises(ValueError, match="keep_last"):
        ChipminkStorageConfig("x", keep_last=0)


def test_a_config_goes_to_other_processes(config, storage):
    assert isinstance(storage, ChipminkStorage)
    storage.write(Path("tmp_a/x"), b"1")
    other = pickle.loads(pickle.dumps(config)).create_storage()
    other.rename(Path("tmp_a"), Path("a"), is_directory=True)
    assert storage.read(Path("a/x")) == b"1"
    assert other.remap_path(Path("a/x")).endswith("/runs#a/x")
    other.close()
