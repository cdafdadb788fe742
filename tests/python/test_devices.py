"""Memory of devices, over an emulated driver: what is "on the device" here lies in the memory of the process."""

from __future__ import annotations

import gc
import sys
import types
import warnings
import weakref

import chipmink
import numpy
import pytest
from chipmink import _chipmink, _device

torch = pytest.importorskip("torch")

KIB = 1024
LOST = 719


def test_tensors_come_back_to_the_device_with_their_values_dtypes_and_layout(repo, cuda):
    torch.manual_seed(1)
    whole = cuda.put(torch.randn(300, 200))
    saved = {
        "whole": whole,
        "half": cuda.put(torch.randn(70_000).half()),
        "bfloat": cuda.put(torch.randn(70_000).bfloat16()),
        "eight": cuda.put(torch.randn(90_000).to(torch.float8_e4m3fn)),
        "complex": cuda.put(torch.randn(30_000, dtype=torch.complex64)),
        "flags": cuda.put(torch.randint(0, 2, (100_000,)).bool()),
        "small": cuda.put(torch.arange(7)),
        "empty": cuda.put(torch.empty(0, 3)),
        "scalar": cuda.put(torch.tensor(2.5)),
        "transposed": whole.t(),
        "slice": whole[5:9, 2:50:3],
        "conjugate": cuda.put(torch.randn(30_000, dtype=torch.complex64)).conj(),
        "parameter": torch.nn.Parameter(cuda.put(torch.randn(200, 200))),
    }
    repo.save(saved)
    loaded = repo.load()
    for name, tensor in saved.items():
        found = loaded[name]
        assert (type(found), found.dtype, found.shape, found.stride()) == (type(tensor), tensor.dtype, tensor.shape, tensor.stride())
        assert found.requires_grad == tensor.requires_grad
        assert torch.equal(found.float() if found.dtype == torch.float8_e4m3fn else found, tensor.float() if tensor.dtype == torch.float8_e4m3fn else tensor), name
        assert cuda.has(found) == cuda.has(tensor)
    assert loaded["transposed"].data_ptr() == loaded["whole"].data_ptr()
    loaded["whole"][5, 2] = 77.0
    assert loaded["slice"][0, 0] == 77.0


def test_only_what_changed_leaves_the_device(repo, cuda):
    weights = cuda.put(torch.zeros(4 * KIB * KIB, dtype=torch.uint8))
    weights += torch.arange(len(weights)).mul(2654435761).bitwise_right_shift(7).to(torch.uint8)
    model = {"weights": weights, "step": 1}
    repo.save(model)
    copied, allocated = cuda.driver.copied(), cuda.driver.calls("cuMemAlloc_v2")
    weights[1_000_000:1_000_003] += 1
    model["step"] = 2
    second = repo.save(model)
    # One chunk, and the list of those that changed.
    assert 64 * KIB <= cuda.driver.copied() - copied <= 64 * KIB + 32 * 64 + 16
    assert cuda.driver.calls("cuMemAlloc_v2") == allocated
    copied = cuda.driver.copied()
    third = repo.save(model)
    assert cuda.driver.copied() - copied <= 32 * 64 + 16
    assert torch.equal(repo.load(second)["weights"], weights)
    assert repo.diff(second, third).changed == ()


def test_the_same_bytes_are_the_same_chunks_on_host_and_device(tmp_path, cuda):
    content = torch.randint(0, 256, (1 << 20,), dtype=torch.uint8)
    with chipmink.open(tmp_path / "r", durable=False, compression="none") as repo:
        repo.save({"host": content.clone()})
        saved = repo.save({"host": content.clone(), "device": cuda.put(content.clone())})
        assert saved.report.bytes_written < 100_000


def test_a_save_is_of_the_moment_at_which_it_was_asked_for(repo, cuda):
    state = cuda.put(torch.zeros(1 << 20, dtype=torch.uint8))
    for step in range(1, 6):
        cuda.driver.train(cuda.stream, state.data_ptr(), len(state), 1)
        number = repo.save({"state": state})
        cuda.driver.train(cuda.stream, state.data_ptr(), len(state), 100)
        cuda.driver.train(cuda.stream, state.data_ptr(), len(state), 156)
        assert torch.all(repo.load(number)["state"] == step)
    cuda.driver.synchronize(cuda.stream)


def test_modules_and_optimizers_on_the_device_go_on_where_they_were(repo, cuda):
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(300, 200), torch.nn.ReLU(), torch.nn.Linear(200, 200))
    model[2].weight = torch.nn.Parameter(torch.randn(200, 200))
    optimizer = torch.optim.Adam(model.parameters())

    def step(model, optimizer):
        optimizer.zero_grad()
        model(torch.ones(4, 300)).square().sum().backward()
        optimizer.step()

    step(model, optimizer)
    for tensor in [*model.parameters(), *(value for state in optimizer.state.values() for value in state.values())]:
        cuda.put(tensor.data if isinstance(tensor, torch.nn.Parameter) else tensor)
    tied = model[0].weight
    number = repo.save({"model": model, "optimizer": optimizer, "tied": tied})
    loaded = repo.load(number)
    assert loaded["tied"] is loaded["model"][0].weight
    assert loaded["optimizer"].param_groups[0]["params"][0] is loaded["tied"]
    step(model, optimizer)
    step(loaded["model"], loaded["optimizer"])
    for one, other in zip(model.parameters(), loaded["model"].parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_device_that_fails_fails_the_save_and_nothing_is_published(repo, cuda):
    state = cuda.put(torch.arange(100_000))
    first = repo.save({"state": state})
    state += 1
    for call, code in [("cuLaunchKernel", 1), ("cuMemcpyDtoHAsync_v2", 1), ("cuEventSynchronize", LOST)]:
        cuda.driver.fail(call, 1, code)
        with pytest.raises(chipmink.ChipminkError, match="device 0"):
            repo.save({"state": state})
        cuda.driver.heal()
        assert [version.number for version in repo.log()] == [first]
    second = repo.save({"state": state})
    assert torch.equal(repo.load(second)["state"], state)
    assert torch.equal(repo.load(first)["state"], state - 1)


def test_a_stream_that_is_being_captured_is_refused(repo, cuda):
    state = cuda.put(torch.arange(100_000))
    cuda.driver.capture(cuda.stream, True)
    with pytest.raises(chipmink.ChipminkError, match="captured into a CUDA graph"):
        repo.save({"state": state})
    cuda.driver.capture(cuda.stream, False)
    repo.save({"state": state})


def test_without_a_compiler_everything_is_copied_and_a_warning_says_why(repo, cuda, monkeypatch):
    monkeypatch.setattr(_chipmink, "device_unusable", lambda *_: "NVRTC was not found")
    state = cuda.put(torch.arange(100_000))
    launches = cuda.driver.calls("cuLaunchKernel")
    with pytest.warns(chipmink.DeviceWarning, match="NVRTC was not found"):
        repo.save({"state": state})
    assert torch.equal(repo.load()["state"], state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state += 1
        repo.save({"state": state})
    assert torch.equal(repo.load()["state"], state)
    assert cuda.driver.calls("cuLaunchKernel") == launches


def test_where_the_device_is_missing_tensors_stay_on_the_host_with_a_note(repo, cuda, monkeypatch):
    state = cuda.put(torch.arange(100_000))
    repo.save({"state": state, "view": state[3:8]})
    monkeypatch.undo()
    with pytest.warns(chipmink.DeviceWarning, match="what was on cuda:0 was loaded to the host"):
        loaded = repo.load()
    assert loaded["state"].device.type == "cpu"
    assert torch.equal(loaded["state"], state)
    loaded["state"][3] = -1
    assert loaded["view"][0] == -1
    for where in ("cpu", torch.device("cpu"), {"cuda:0": "cpu"}, lambda label: "cpu"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.equal(repo.load(map_location=where)["state"], state)
            assert torch.equal(repo.at(map_location=where)["state"], state)


def test_a_dead_storage_leaves_nothing_behind(repo, cuda):
    state = cuda.put(torch.arange(100_000))
    repo.save({"state": state})
    gone = weakref.ref(state.untyped_storage())
    del state
    gc.collect()
    assert gone() is None


def test_streams_of_single_objects_hold_the_bytes(cuda):
    state = cuda.put(torch.arange(100_000))
    copy = chipmink.loads(chipmink.dumps({"state": state, "again": state}))
    assert torch.equal(copy["state"], state)
    assert copy["again"] is copy["state"]


@pytest.fixture
def cupy(monkeypatch):
    """As much of CuPy as chipmink uses, over memory of the process."""
    module = types.ModuleType("cupy")

    class ndarray:  # noqa: N801
        __module__ = "cupy"
        __qualname__ = "ndarray"

        def __init__(self, shape, dtype, memptr=None, strides=None, host=None, base=None):
            self.host = numpy.ndarray(shape, dtype, memptr[0].host.data, memptr[1], strides) if host is None else host
            self.base = memptr[0] if memptr is not None else base
            self.dtype, self.shape, self.strides, self.nbytes = self.host.dtype, self.host.shape, self.host.strides, self.host.nbytes
            self.device = types.SimpleNamespace(id=0)

        @property
        def data(self):
            return Pointer(self, self.host.__array_interface__["data"][0])

        def __getitem__(self, key):
            return ndarray(None, None, host=self.host[key], base=self)

        def ravel(self, order):
            return ndarray(None, None, host=self.host.ravel(order="K"))

        def get(self):
            return self.host.copy()

    class Pointer:
        def __init__(self, array, ptr):
            self.array, self.ptr = array, ptr

        def __add__(self, offset):
            return (self.array, offset)

    class Device:
        def __init__(self, index):
            if index != 0:
                raise RuntimeError("invalid device ordinal")

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

    stream = types.SimpleNamespace(ptr=0)
    module.ndarray = ndarray
    module.asarray = lambda host: ndarray(None, None, host=host.copy())
    module.cuda = types.SimpleNamespace(Device=Device, get_current_stream=lambda: stream, Stream=types.SimpleNamespace(null=stream))
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


def test_arrays_of_cupy_share_their_allocation_again(repo, driver, cupy):
    whole = cupy.asarray(numpy.arange(60_000.0).reshape(300, 200))
    part = whole[4:9, ::3]
    copied = driver.copied()
    repo.save({"whole": whole, "part": part, "small": cupy.asarray(numpy.arange(5))})
    assert driver.copied() - copied >= whole.nbytes
    loaded = repo.load()
    assert type(loaded["whole"]) is cupy.ndarray
    assert numpy.array_equal(loaded["whole"].host, whole.host)
    assert numpy.array_equal(loaded["part"].host, part.host)
    assert numpy.array_equal(loaded["small"].host, numpy.arange(5))
    loaded["whole"].host[4, 0] = -1
    assert loaded["part"].host[0, 0] == -1
    copied = driver.copied()
    whole.host[0, 0] = 5
    repo.save({"whole": whole, "part": part})
    assert driver.copied() - copied < 70_000
    assert repo.load()["whole"].host[0, 0] == 5


def test_arrays_without_their_library_are_arrays_of_numpy(repo, driver, cupy, monkeypatch):
    repo.save({"array": cupy.asarray(numpy.arange(60_000.0))})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        on_host = repo.load(map_location="cpu")["array"]
    assert type(on_host) is numpy.ndarray
    assert numpy.array_equal(on_host, numpy.arange(60_000.0))
    with pytest.warns(chipmink.DeviceWarning, match="invalid device ordinal"):
        assert numpy.array_equal(repo.load(map_location="cuda:7")["array"], on_host)


class Interface:
    """An array with ``__cuda_array_interface__``, as Numba's are."""

    def __init__(self, host):
        self.host, self.dtype, self.nbytes = host, host.dtype, host.nbytes

    @property
    def __cuda_array_interface__(self):
        data = self.host.__array_interface__["data"]
        return {"shape": self.host.shape, "typestr": self.host.dtype.str, "data": data, "version": 3, "strides": None, "stream": 1}

    def copy_to_host(self):
        return self.host.copy()


Interface.__module__, Interface.__qualname__ = "numba.cuda.cudadrv.devicearray", "DeviceNDArray"


def test_contiguous_arrays_of_other_libraries_are_captured(repo, driver, monkeypatch):
    monkeypatch.setitem(_device._MAKERS, "numba", lambda loaded, index, host, first: Interface(host.copy()))
    monkeypatch.setattr(_device, "_index_of", lambda array: 0)
    array = Interface(numpy.arange(50_000).reshape(500, 100))
    launches = driver.calls("cuLaunchKernel")
    repo.save({"array": array})
    assert driver.calls("cuLaunchKernel") > launches
    loaded = repo.load()["array"]
    assert type(loaded) is Interface
    assert numpy.array_equal(loaded.host, array.host)


class Borrowing:
    """An array whose type only DLPack knows, as JAX has for bfloat16."""

    def __init__(self, tensor, step=1):
        self.tensor, self.step = tensor, step
        self.dtype, self.shape, self.nbytes = numpy.dtype("int16"), tuple(tensor.shape), tensor.nbytes

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, *, stream):
        assert stream == 1
        if self.step == 0:
            raise BufferError("it lies on several devices")
        return torch.utils.dlpack.to_dlpack(self.tensor[:: self.step])

    def __reduce__(self):
        return list, ([len(self.tensor)],)


Borrowing.__module__, Borrowing.__qualname__ = "jaxlib._jax", "ArrayImpl"


def test_arrays_that_only_dlpack_knows_are_captured(repo, driver, monkeypatch):
    monkeypatch.setitem(_device._MAKERS, "jax", lambda loaded, index, host, first: Borrowing(torch.from_numpy(host.copy())))
    array = Borrowing(torch.arange(60_000, dtype=torch.int16).reshape(300, 200))
    launches = driver.calls("cuLaunchKernel")
    repo.save({"array": array})
    assert driver.calls("cuLaunchKernel") > launches
    loaded = repo.load()["array"]
    assert type(loaded) is Borrowing
    assert torch.equal(loaded.tensor, array.tensor)
    copied = driver.copied()
    array.tensor[7, 7] = -1
    repo.save({"array": array})
    assert driver.copied() - copied < 70_000
    with pytest.warns(chipmink.DeviceWarning, match="invalid"):
        monkeypatch.setitem(_device._MAKERS, "jax", lambda *_: int("invalid"))
        assert repo.load()["array"][7, 7] == -1


@pytest.mark.parametrize("step", [0, 2])
def test_arrays_in_pieces_go_as_their_library_has_it(repo, driver, step):
    repo.save({"array": Borrowing(torch.arange(60_000, dtype=torch.int16), step)})
    assert repo.load()["array"] == [60_000]


def test_short_tensors_are_captured_without_waiting_for_the_device(repo, cuda, monkeypatch):
    state = {f"t{i}": cuda.put(torch.arange(i, i + 5)) for i in range(50)}
    monkeypatch.setattr(_device, "_read_storage", lambda storage: pytest.fail("the host waits for a copy"))
    repo.save(state)
    state["t7"] += 1
    repo.save(state)
    loaded = repo.load()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    assert not repo.verify(full=True)


@pytest.fixture
def pipeline(driver):
    return _chipmink.DevicePipeline(0, scratch_len=1 << 20, block_len=1 << 17, block_count=2, chunk_capacity=64)


def captured(pipeline, memory, streams=(), **options):
    return pipeline.begin([(memory.ctypes.data, memory.nbytes)], list(streams), memory, **options)


def test_a_capture_can_be_taken_while_the_program_goes_on(pipeline, driver):
    memory = numpy.arange(300_000, dtype=numpy.uint8)
    stream = driver.stream()
    stored = {}

    def take(region, ordinal, digest, content):
        assert region == 0
        stored[digest] = content

    for step in range(1, 6):
        driver.train(stream, memory.ctypes.data, memory.nbytes, 3)
        expected = numpy.arange(300_000, dtype=numpy.uint8) + numpy.uint8(3 * step)
        capture = captured(pipeline, memory, [stream])
        if step < 5:
            # The next step is enqueued before anything was copied.
            driver.train(stream, memory.ctypes.data, memory.nbytes, 0)
        chunks, byte_len, late = capture.take(take)
        assert (chunks, byte_len, late) == (5, 300_000, 0)
        assert b"".join(stored[digest] for digest in capture.digests(0)) == expected.tobytes()
        capture.adopt()
    driver.synchronize(stream)
    capture = captured(pipeline, memory)
    assert capture.take() == (0, 0, 0)
    capture.close()
    pipeline.forget()
    assert captured(pipeline, memory).take()[0] == 5


def test_captures_refuse_what_makes_no_sense(pipeline, driver):
    memory = numpy.zeros(100_000, dtype=numpy.uint8)
    capture = captured(pipeline, memory, fence=False)
    capture.fence([])
    with pytest.raises(RuntimeError, match="still under way"):
        captured(pipeline, memory)
    with pytest.raises(ValueError, match="was not taken"):
        capture.digests(0)
    with pytest.raises(ValueError, match="was not taken"):
        capture.adopt()
    with pytest.raises(ZeroDivisionError):
        capture.take(lambda *_: 1 / 0)
    capture.close()
    for call in (capture.take, capture.adopt, lambda: capture.digests(0), lambda: capture.fence([])):
        with pytest.raises(ValueError, match="the capture is over"):
            call()
    with pytest.raises(OSError, match="there is no device 7"):
        _chipmink.DevicePipeline(7)
    driver.fail("cuMemAlloc_v2", 1, 2)
    with pytest.raises(MemoryError, match="scratch memory on device 0"):
        _chipmink.DevicePipeline(0)


def test_what_keeps_the_memory_is_let_go(pipeline):
    class Memory(numpy.ndarray):
        pass

    memory = numpy.zeros(100_000, dtype=numpy.uint8).view(Memory)
    gone = weakref.ref(memory)
    capture = captured(pipeline, memory)
    del memory
    gc.collect()
    assert gone() is not None
    capture.take()
    gc.collect()
    assert gone() is None
    capture.close()


def test_damaged_content_is_refused():
    loaded = _device.make_device_memory("cuda:0", 5)
    with pytest.raises(ValueError, match="has 4 bytes instead of 5"):
        _device.fill_device_memory(loaded, b"four")


def test_the_doctor_says_what_there_is(driver):
    health = chipmink.doctor()
    assert health["CUDA driver"].is_there
    assert health["CUDA driver"].detail == "13.0"
    assert "Emulated device, compute capability 9.0" in health["device 0"].detail
    assert health["NVRTC"].is_there
    assert "chipmink" in str(health)
    with pytest.raises(KeyError):
        health["device 9"]
