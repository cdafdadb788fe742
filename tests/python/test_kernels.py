"""The kernels of the device tier compile with NVRTC, without an error and without spilling registers."""

import ctypes
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "kernels" / "cuda"
# In this order they are one translation unit.
PARTS = ["chunks.cuh", "xxh3.cuh", "digest.cu", "compact.cu", "gather.cu"]
KERNELS = ["digest", "compare", "compact", "adopt", "gather", "confirm", "release"]


def nvrtc() -> ctypes.CDLL:
    try:
        spec = importlib.util.find_spec("nvidia")
    except ModuleNotFoundError:
        spec = None
    for place in (spec.submodule_search_locations or []) if spec else []:
        for library in sorted(Path(place).glob("*/lib/libnvrtc.so.1*")):
            if "builtins" not in library.name and "alt" not in library.name:
                return ctypes.CDLL(str(library))
    pytest.skip("NVRTC is not installed (the wheel nvidia-cuda-nvrtc)")


def text_of(library: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    length = ctypes.c_size_t()
    assert getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(length)) == 0
    text = ctypes.create_string_buffer(length.value)
    assert getattr(library, f"nvrtcGet{what}")(program, text) == 0
    return text.raw


def test_the_parts_are_all_files_in_the_order_of_the_crate():
    named = re.findall(r'^    \("([a-z0-9.]+)", include_str!', (ROOT / "kernels/src/source.rs").read_text(), re.MULTILINE)
    assert named == PARTS
    assert {file.name for file in FOLDER.iterdir()} == set(PARTS)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100"])
def test_kernels_compile_and_spill_nothing(arch, record_property):
    library = nvrtc()
    source = b"".join((FOLDER / part).read_bytes() for part in PARTS)
    program = ctypes.c_void_p()
    assert library.nvrtcCreateProgram(ctypes.byref(program), source, b"chipmink.cu", 0, None, None) == 0
    # As `compile.rs` of chipmink-cuda has them, but for the report.
    options = [f"--gpu-architecture={arch}".encode(), b"--std=c++17", b"--ptxas-options=-v"]
    result = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    log = text_of(library, program, "ProgramLog").rstrip(b"\0").decode()
    assert result == 0, log
    assert "error" not in log
    assert "warning" not in log, log
    image = text_of(library, program, "CUBIN")
    assert image.startswith(b"\x7fELF")
    for kernel in KERNELS:
        name = f"chipmink_{kernel}"
        assert name.encode() in image
        found = re.search(rf"entry function '{name}'.*?Used (\d+) registers", log, re.DOTALL)
        assert found, log
        record_property(f"{arch} {name} registers", int(found.group(1)))
        print(f"{arch} {name}: {found.group(1)} registers")
    spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", log)
    assert len(spills) >= 2 * len(KERNELS)
    assert set(spills) == {"0"}, log
    library.nvrtcDestroyProgram(ctypes.byref(program))
