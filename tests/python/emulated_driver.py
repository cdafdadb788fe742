"""Builds the emulated CUDA driver of ``tests/emulator`` and loads it where the real one would be looked for."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
import weakref
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


class EmulatedDriver:
    """Counts and failures of the emulated driver."""

    def __init__(self, driver: ctypes.CDLL, compiler: Path) -> None:
        self.compiler = compiler
        self._driver = driver
        for name in ("emulated_calls", "emulated_copied"):
            getattr(driver, name).restype = ctypes.c_uint64

    def calls(self, name: str) -> int:
        return self._driver.emulated_calls(name.encode())

    def copied(self) -> int:
        """Bytes that went from the device to the host."""
        return self._driver.emulated_copied()

    def fail(self, name: str, nth: int, code: int) -> None:
        """The n-th call of a function from now on fails."""
        self._driver.emulated_fail(name.encode(), ctypes.c_int64(nth), code)

    def heal(self) -> None:
        self._driver.emulated_heal()

    def stream(self) -> int:
        handle = ctypes.c_void_p()
        assert self._driver.cuStreamCreate(ctypes.byref(handle), 1) == 0
        return handle.value or 0

    def capture(self, stream: int, is_capturing: bool) -> None:
        self._driver.emulated_capture(ctypes.c_void_p(stream), int(is_capturing))

    def share_one_queue(self) -> None:
        """What waits in a stream keeps back what was enqueued later in any, until ``heal``."""
        self._driver.emulated_one_queue(1)

    def train(self, stream: int, address: int, byte_len: int, by: int) -> None:
        """Each of these bytes grows, when the stream comes to it."""
        assert self._driver.emulated_train(ctypes.c_void_p(stream), ctypes.c_void_p(address), ctypes.c_size_t(byte_len), by) == 0

    def synchronize(self, stream: int) -> None:
        assert self._driver.cuStreamSynchronize(ctypes.c_void_p(stream)) == 0


@functools.cache
def emulated_driver() -> EmulatedDriver:
    """The one of the process. It stays loaded, so there must be no real driver that other tests could want."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler (c++) to build the emulated CUDA driver with")
    for name in ("libcuda.so", "libcuda.so.1"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        pytest.skip("there is a real CUDA driver; benches/gpu checks what is tested here")
    folder = Path(tempfile.mkdtemp(prefix="chipmink-emulated-"))
    sources = ROOT / "tests" / "emulator"

    def build(name: str, *files: str) -> Path:
        options = ["-std=c++17", "-O2", "-w", "-shared", "-fPIC", f"-Wl,-soname,{name}", f"-I{ROOT / 'kernels' / 'cuda'}"]
        subprocess.run([compiler, *options, *(str(sources / file) for file in files), "-o", str(folder / name)], check=True)
        return folder / name

    driver = ctypes.CDLL(str(build("libcuda.so", "kernels.cpp", "driver.cpp")), mode=ctypes.RTLD_GLOBAL)
    return EmulatedDriver(driver, build("libnvrtc.so", "nvrtc.cpp"))


class EmulatedCuda:
    """Storages that are taken to be on ``cuda:0``, and the stream in which the program writes to them."""

    def __init__(self, driver) -> None:
        self.driver = driver
        self.storages = weakref.WeakSet()
        self.stream = driver.stream()
        self.index = 0
        # What must outlive all that the stream does.
        self.alive = []

    def put(self, tensor):
        """The tensor itself, of which the storage is on the device from now on."""
        self.storages.add(tensor.untyped_storage())
        return tensor

    def has(self, tensor) -> bool:
        return tensor.untyped_storage() in self.storages

    def label_of(self, tensor):
        return f"cuda:{self.index}" if self.has(tensor) else None

    def end(self) -> None:
        """Waits for all that was enqueued."""
        self.driver.heal()
        self.driver.synchronize(self.stream)
        self.alive.clear()

    def to(self, torch, host, label):
        if not label.startswith("cuda"):
            return host
        return self.put(host.clone())
