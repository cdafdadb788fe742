"""Checkpoints of training runs on a device that go on while the training does, over an emulated driver."""

from __future__ import annotations

import threading

import chipmink
import numpy
import pytest
from chipmink import _chipmink

torch = pytest.importorskip("torch")

from chipmink import _device  # noqa: E402
from chipmink.torch import Checkpointer, PendingCheckpoint, _background  # noqa: E402

KIB = 1024
LOST = 719
#: The least scratch and pinned memory: two chunks, and two of each block.
LEAST = {"device_scratch": 128 * KIB, "device_pinned": 512 * KIB}


class Run:
    """Tensors on the device, and what they are when all that was enqueued has been done."""

    def __init__(self, cuda, lengths) -> None:
        self.cuda = cuda
        self.live = {f"t{i}": cuda.put(torch.zeros(length, dtype=torch.uint8)) for i, length in enumerate(lengths)}
        self.state = {name: tensor.numpy().copy() for name, tensor in self.live.items()}
        cuda.alive.append(self.live)

    def step(self, random, share=1.0) -> None:
        """Enqueues a change of a part of each tensor."""
        for name, tensor in self.live.items():
            count = max(1, int(share * len(tensor)))
            first = int(random.integers(0, len(tensor) - count + 1))
            by = int(random.integers(1, 256))
            self.cuda.driver.train(self.cuda.stream, tensor.data_ptr() + first, count, by)
            self.state[name][first : first + count] += numpy.uint8(by)

    def copy(self):
        return {name: content.copy() for name, content in self.state.items()}


class Steps(torch.optim.Optimizer):
    """An optimizer that enqueues its step on the emulated device."""

    def __init__(self, run, random) -> None:
        super().__init__([tensor.requires_grad_(False) for tensor in run.live.values()], {})
        self.run, self.random = run, random

    def step(self, closure=None):
        self.run.step(self.random)


def saved_wrong(checkpointer, states) -> int:
    """How many checkpoints are not the state of their step."""
    wrong = 0
    for step, state in states.items():
        found = checkpointer._at(step)
        loaded = checkpointer.repository.load(found.version, names=list(state), map_location="cpu")
        wrong += any(loaded[name].numpy().tobytes() != content.tobytes() for name, content in state.items())
    return wrong


def trained(tmp_path, cuda, seed, options, fence="stream", is_fenced=True, steps=12):
    """Trains on while each save is under way. Returns how many checkpoints are wrong."""
    random = numpy.random.default_rng(seed)
    run = Run(cuda, [300_000, 70_000, 200_000])
    parts = dict(run.live)
    if fence == "optimizer":
        parts["optimizer"] = optimizer = Steps(run, random)
    states = {}
    with Checkpointer(
        tmp_path / f"{fence}{seed}{is_fenced}", fence=fence, random=False, durable=False, open_options=options, **parts
    ) as checkpointer:
        if not is_fenced:
            checkpointer._steps.close()
        for step in range(steps):
            pending = checkpointer.save(step)
            assert isinstance(pending, PendingCheckpoint)
            states[step] = run.copy()
            for _ in range(int(random.integers(0, 4))):
                if fence == "optimizer":
                    optimizer.step()
                else:
                    run.step(random, share=float(random.choice([0.0, 0.1, 1.0])))
        pending.wait()
        cuda.driver.synchronize(cuda.stream)
        for name, content in run.state.items():
            assert run.live[name].numpy().tobytes() == content.tobytes(), "the training itself must not be disturbed"
        return saved_wrong(checkpointer, states)


@pytest.fixture
def hooked(cuda, monkeypatch):
    monkeypatch.setattr(_background, "_current_stream", lambda index: cuda.stream)
    return cuda


# All fits in the scratch memory; hardly anything does; there is none.
@pytest.mark.parametrize("options", [{}, LEAST, {**LEAST, "device_scratch": 0}], ids=["scratch", "little", "none"])
@pytest.mark.parametrize("fence", ["stream", "optimizer"])
def test_every_checkpoint_is_the_state_at_its_own_step(tmp_path, hooked, fence, options):
    for seed in range(3):
        assert trained(tmp_path, hooked, seed, options, fence) == 0


def test_without_the_fence_checkpoints_are_torn(tmp_path, hooked):
    """The control: what the fence prevents does happen without it, sooner or later, as threads are scheduled."""
    assert any(trained(tmp_path, hooked, seed, {}, "optimizer", is_fenced=False) for seed in range(40))


def test_streams_that_share_one_queue_stop_no_save(tmp_path, hooked, monkeypatch):
    monkeypatch.setenv("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    hooked.driver.share_one_queue()
    for options in ({}, LEAST):
        assert trained(tmp_path / str(len(options)), hooked, 1, options, steps=5) == 0


def test_a_save_returns_before_anything_was_copied(tmp_path, cuda, monkeypatch):
    run = Run(cuda, [300_000])
    may_go_on = threading.Event()
    with Checkpointer(tmp_path / "run", fence="stream", durable=False, **run.live) as checkpointer:
        save = checkpointer.repository._save

        def slowly(*arguments):
            *others, captured = arguments

            def told(fences):
                captured(fences)
                # As if the device, the disk or the network took long.
                assert may_go_on.wait(20)

            return save(*others, told)

        monkeypatch.setattr(checkpointer.repository, "_save", slowly)
        pending = checkpointer.save(1, metrics={"loss": 2.0})
        assert not pending.done
        assert "being saved" in repr(pending)
        with pytest.raises(TimeoutError):
            pending.wait(timeout=0.01)
        assert 0 < pending.stall < 10
        assert checkpointer.stall_seconds == pending.stall
        may_go_on.set()
        # Whoever asks for the newest gets this one.
        latest = checkpointer.latest()
        assert (latest.step, latest.version, latest.metrics) == (1, int(pending), {"loss": 2.0})
        assert pending.done
        assert pending.wait().step == 1
        assert pending.report.region_bytes >= 300_000
        assert checkpointer.repository.load(pending)["t0"].shape == (300_000,)


def test_what_a_save_could_not_do_is_raised_by_the_next_call(tmp_path, cuda):
    run = Run(cuda, [300_000])
    random = numpy.random.default_rng(1)
    with Checkpointer(tmp_path / "run", fence="stream", durable=False, **run.live) as checkpointer:
        checkpointer.save(1).wait()
        run.step(random)
        cuda.driver.fail("cuMemcpyDtoHAsync_v2", 2, 1)
        checkpointer.save(2)
        with pytest.raises(chipmink.ChipminkError, match="device 0"):
            checkpointer.save(3)
        cuda.driver.heal()
        assert [each.step for each in checkpointer.checkpoints()] == [1]
        pending = checkpointer.save(4)
        states = {4: run.copy()}
        pending.wait()
        assert saved_wrong(checkpointer, states) == 0
        cuda.driver.fail("cuMemcpyDtoHAsync_v2", 1, LOST)
        failed = checkpointer.save(5)
        for _ in range(2):
            with pytest.raises(chipmink.ChipminkError, match="device 0"):
                failed.wait()
        cuda.driver.heal()
        # It was raised, and is not raised again.
        assert checkpointer.latest().step == 4


def test_a_save_that_fails_before_it_returns_raises_at_the_next_call(tmp_path, cuda):
    run = Run(cuda, [300_000])
    with Checkpointer(tmp_path / "run", fence="stream", durable=False, **run.live) as checkpointer:
        cuda.driver.capture(cuda.stream, True)
        pending = checkpointer.save(1)
        with pytest.raises(chipmink.ChipminkError, match="captured into a CUDA graph"):
            pending.wait()
        cuda.driver.capture(cuda.stream, False)
        assert checkpointer.save(2).wait().step == 2


def test_a_save_while_a_graph_is_captured_is_refused_at_once(tmp_path, cuda, monkeypatch):
    run = Run(cuda, [300_000])
    with Checkpointer(tmp_path / "run", fence="stream", random=False, durable=False, **run.live) as checkpointer:
        with monkeypatch.context() as capturing:
            capturing.setattr(torch.cuda, "is_initialized", lambda: True)
            capturing.setattr(torch.cuda, "device_count", lambda: 1)
            capturing.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
            with pytest.raises(chipmink.UnsupportedError, match="captured into a CUDA graph"):
                checkpointer.save(1)
        assert checkpointer.save(2).wait().step == 2
        assert [each.step for each in checkpointer.checkpoints()] == [2]


def test_a_restored_run_is_copied_from_the_device_only_where_it_changes(tmp_path, cuda):
    random = numpy.random.default_rng(3)
    run = Run(cuda, [2_000_000])
    run.step(random)
    cuda.driver.synchronize(cuda.stream)
    with Checkpointer(tmp_path / "run", durable=False, **run.live) as checkpointer:
        assert isinstance(checkpointer.save(1), PendingCheckpoint), "what lies on a device is not waited for"
    other = Run(cuda, [2_000_000])
    with Checkpointer(tmp_path / "run", durable=False, **other.live) as checkpointer:
        uploads = cuda.driver.calls("cuMemcpyHtoDAsync_v2")
        place = other.live["t0"].data_ptr()
        assert checkpointer.restore().step == 1
        assert other.live["t0"].data_ptr() == place
        assert torch.equal(other.live["t0"], run.live["t0"])
        assert cuda.driver.calls("cuMemcpyHtoDAsync_v2") > uploads
        other.live["t0"][1_000_000] += 1
        copied = cuda.driver.copied()
        written = checkpointer.save(2).report.bytes_written
        assert cuda.driver.copied() - copied <= 64 * KIB + 32 * 64 + 16
        assert written < 100_000
        assert torch.equal(checkpointer.repository.load(map_location="cpu")["t0"], other.live["t0"])


def test_memory_of_several_devices_is_one_checkpoint(tmp_path, cuda, monkeypatch):
    second = cuda.put(torch.zeros(200_000, dtype=torch.uint8))
    cuda.alive.append(second)
    label_of = cuda.label_of
    monkeypatch.setattr(_device, "label_of", lambda tensor: "cuda:1" if tensor is second or tensor.data_ptr() == second.data_ptr() else label_of(tensor))
    run = Run(cuda, [300_000])
    random = numpy.random.default_rng(5)
    parts = {**run.live, "second": second}
    states = {}
    with Checkpointer(tmp_path / "run", fence="stream", durable=False, **parts) as checkpointer:
        for step in range(6):
            checkpointer.save(step)
            states[step] = {**run.copy(), "second": numpy.full(200_000, step, dtype=numpy.uint8)}
            run.step(random)
            cuda.driver.train(cuda.stream, second.data_ptr(), 200_000, 1)
        assert saved_wrong(checkpointer, states) == 0
        cuda.driver.synchronize(cuda.stream)


def test_an_optimizer_that_is_captured_into_a_graph_is_fenced_by_streams(tmp_path, hooked, monkeypatch):
    run = Run(hooked, [300_000])
    optimizer = Steps(run, numpy.random.default_rng(1))
    with Checkpointer(tmp_path / "run", fence="optimizer", durable=False, optimizer=optimizer, **run.live) as checkpointer:
        checkpointer.save(1)
        assert checkpointer._steps.storages()
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        optimizer.step()
        monkeypatch.undo()
        assert checkpointer._steps.is_captured


def test_options_that_make_no_sense_are_refused(tmp_path, cuda):
    tensor = cuda.put(torch.zeros(5))
    with pytest.raises(ValueError, match="fence is one of host, stream, optimizer"):
        Checkpointer(tmp_path / "a", fence="never", tensor=tensor)
    with pytest.raises(ValueError, match="needs an optimizer among the parts"):
        Checkpointer(tmp_path / "b", fence="optimizer", tensor=tensor)
    with pytest.raises(ValueError, match="is no size"):
        chipmink.open(tmp_path / "c", device_pinned="much")


def test_with_the_host_as_fence_a_save_returns_a_version(tmp_path, cuda):
    run = Run(cuda, [300_000])
    with Checkpointer(tmp_path / "run", fence="host", durable=False, **run.live) as checkpointer:
        saved = checkpointer.save(1)
        assert isinstance(saved, int)
        assert saved.done


def test_memory_of_the_host_is_read_before_a_save_returns(tmp_path):
    state = torch.zeros(500_000, dtype=torch.uint8)
    counts = {"seen": 0}
    with Checkpointer(tmp_path / "run", fence="stream", durable=False, state=state, counts=counts) as checkpointer:
        for step in range(20):
            state += 1
            counts["seen"] = step
            checkpointer.save(step)
        for step in range(20):
            loaded = checkpointer.repository.load(checkpointer._at(step).version)
            assert torch.all(loaded["state"] == step + 1)
            assert loaded["counts"] == {"seen": step}


def test_copies_to_a_device_keep_to_what_was_asked(cuda):
    source = numpy.arange(1_000_000, dtype=numpy.uint8)
    target = numpy.zeros(1_000_000, dtype=numpy.uint8)
    piece = (target.ctypes.data + 5, source.ctypes.data, 900_000)
    _chipmink.device_upload(0, [piece], [cuda.stream])
    assert numpy.array_equal(target[5:900_005], source[:900_000])
    assert not target[:5].any()
    assert not target[900_005:].any()
    with pytest.raises(OSError, match="there is no device 9"):
        _chipmink.device_upload(9, [piece], [])
