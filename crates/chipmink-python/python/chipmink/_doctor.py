"""What this machine offers to chipmink, and why not more."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import sys

from chipmink import _chipmink, _device

__all__ = ["Facility", "Health", "doctor"]

# What is looked at if it is installed; nothing is imported for it.
_LIBRARIES = ("numpy", "pandas", "pyarrow", "torch", "cupy", "jax", "numba")


@dataclasses.dataclass(frozen=True)
class Facility:
    """Something that a save or a load may use: whether it is there, and what it is, or why it is not."""

    name: str
    is_there: bool
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {'' if self.is_there else 'no; '}{self.detail}"


@dataclasses.dataclass(frozen=True)
class Health:
    """What ``chipmink.doctor`` found. ``print`` shows it."""

    versions: dict[str, str]
    facilities: tuple[Facility, ...]

    def __getitem__(self, name: str) -> Facility:
        for facility in self.facilities:
            if facility.name == name:
                return facility
        raise KeyError(name)

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return "\n".join([versions, *map(str, self.facilities)])


def doctor() -> Health:
    """Looks at versions, the kernel's page tracking, shared memory, the CUDA driver, devices and NVRTC.

    It opens the context of each device, but compiles and allocates nothing.
    """
    found = _chipmink.examine(_device.compiler_libraries())
    versions = {"chipmink": found["version"], "Python": platform.python_version(), "system": found["system"]}
    for library in _LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    facilities = [
        _facility("dirty pages", found["dirty_pages_missing"], "the kernel tells which pages were written (track_pages=True)"),
        _facility("shared memory", found["shared_memory_missing"], "it is saved where it lies"),
        _facility("CUDA driver", found["driver_missing"], _dotted(found["driver"])),
        *(Facility(f"device {index}", True, detail) for index, detail in enumerate(found["devices"])),
        _facility("NVRTC", found["nvrtc_missing"], _dotted(found["nvrtc"])),
    ]
    torch = sys.modules.get("torch")
    if torch is not None and found["driver"] is not None and not torch.cuda.is_available():
        facilities.append(Facility("torch.cuda", False, "PyTorch does not find the devices that the driver has"))
    return Health(versions, tuple(facilities))


def _dotted(version: tuple[int, int] | None) -> str:
    return "" if version is None else f"{version[0]}.{version[1]}"


def _facility(name: str, missing: str | None, detail: str) -> Facility:
    return Facility(name, missing is None, detail if missing is None else missing)
