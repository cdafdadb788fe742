"""Single files: ``save`` and ``load`` in the place of torch's, and versions to and from the files that others read.

1. A file is complete or not there: it is written under another name, synced, and renamed.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from chipmink import _stream
from chipmink._errors import NotFoundError, UnsupportedError
from chipmink._repository import Repository
from chipmink._results import Saved
from chipmink.torch._checkpoints import message_of
from chipmink.torch._writes import address

__all__ = ["export_file", "import_file", "load", "save"]

_MAGIC = b"\xc1chm"
_SUFFIXES = {".safetensors": "safetensors", ".pt": "torch", ".pth": "torch", ".bin": "torch", ".ckpt": "torch"}

File = str | os.PathLike[str] | IO[bytes]


def save(obj: object, f: File) -> None:
    """Writes an object to a file, as ``torch.save`` does, but with views and shared storages at their own size."""
    if isinstance(f, (str, os.PathLike)):
        _write(Path(f), lambda path: _dump(obj, path))
    else:
        _stream.dump(obj, f)


def _dump(obj: object, path: Path) -> None:
    with open(path, "wb") as file:
        _stream.dump(obj, file)


def load(f: File, map_location: Any = None, *, weights_only: bool = True) -> Any:
    """Loads what ``save`` has written, or ``torch.save``.

    With ``weights_only`` nothing is made but tensors, containers and numbers; of a file that holds more ``NotAllowedError`` says what.
    ``map_location`` is a device, or a dict from devices to devices, as for ``torch.load``.
    """
    if isinstance(f, (str, os.PathLike)):
        with open(f, "rb") as file:
            return load(file, map_location, weights_only=weights_only)
    start = f.tell()
    head = f.read(len(_MAGIC))
    f.seek(start)
    if head != _MAGIC:
        return torch.load(f, map_location=map_location, weights_only=weights_only)
    loaded = _stream.load(f, allow=_is_harmless if weights_only else None)
    if map_location is None:
        return loaded
    return _Mover(map_location).moved(loaded)


#: What tensors and the containers of state dicts are made of.
_HARMLESS = frozenset(
    {
        ("collections", "OrderedDict"),
        ("collections", "defaultdict"),
        ("torch", "Size"),
        ("torch", "device"),
        *((f"chipmink.{module}", name) for module, name in (
            ("_torch", "make_tensor"),
            ("_torch", "make_parameter"),
            ("_torch", "make_generator"),
            ("_torch", "tensor_setstate"),
        )),
    }
)


def _is_harmless(module: str, name: str) -> bool:
    return (module, name) in _HARMLESS or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype))


class _Mover:
    """Moves the tensors in containers and modules to other devices; storages that were shared still are."""

    def __init__(self, map_location: Any) -> None:
        if not isinstance(map_location, (str, torch.device, Mapping)):
            kind = type(map_location).__qualname__
            raise TypeError(f"map_location is a device, or a dict from devices to devices, not a {kind}")
        self._map = map_location
        self._storages: dict[Any, Any] = {}
        self._done: dict[int, Any] = {}

    def _target(self, device: torch.device) -> torch.device:
        if isinstance(self._map, Mapping):
            return torch.device(self._map.get(str(device), device))
        return torch.device(self._map)

    def moved(self, value: Any) -> Any:
        """The value with its tensors elsewhere."""
        known = self._done.get(id(value))
        if known is not None:
            return known[1]
        if isinstance(value, torch.Tensor):
            made = self._tensor(value)
        elif isinstance(value, torch.nn.Module):
            made = value._apply(self._tensor)
        elif isinstance(value, dict):
            self._done[id(value)] = (value, value)
            for key, item in value.items():
                value[key] = self.moved(item)
            made = value
        elif type(value) is list:
            self._done[id(value)] = (value, value)
            value[:] = [self.moved(item) for item in value]
            made = value
        elif type(value) is tuple:
            made = tuple(self.moved(item) for item in value)
        else:
            made = value
        self._done[id(value)] = (value, made)
        return made

    def _tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        target = self._target(tensor.device)
        if target == tensor.device:
            return tensor
        storage = tensor.untyped_storage()
        key = (storage._cdata, target)
        if key not in self._storages:
            whole = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage, 0, (storage.nbytes(),), (1,))
            self._storages[key] = (storage, whole.to(target).untyped_storage())
        made = torch.empty(0, dtype=tensor.dtype, device=target)
        made.set_(self._storages[key][1], tensor.storage_offset(), tensor.shape, tensor.stride())
        if isinstance(tensor, torch.nn.Parameter):
            return torch.nn.Parameter(made, tensor.requires_grad)
        return made.requires_grad_(tensor.requires_grad)


def export_file(
    repository: Repository, path: str | os.PathLike[str], version: int | str | None = None, *, name: str = "model"
) -> None:
    """Writes a variable of a version, such as the ``"model"`` of a checkpoint, to a file that others read.

    What kind of file it is its suffix says: ``.safetensors``, or ``.pt``, ``.pth``, ``.bin`` or ``.ckpt`` for ``torch.load``. In
    safetensors there are tensors only, each by itself.
    """
    kind = _kind(path)
    state = repository.load(version, names=[name])[name]
    if kind == "torch":
        _write(Path(path), lambda made: torch.save(state, made))
        return
    save_file = _safetensors().save_file
    if not isinstance(state, Mapping):
        raise UnsupportedError(f"{name} is a {type(state).__qualname__}; a safetensors file holds tensors by name")
    others = [key for key, value in state.items() if not isinstance(value, torch.Tensor) or address(value) is None]
    if others:
        raise UnsupportedError(f"{name} holds {', '.join(map(str, others[:5]))}, which are no plain tensors; export to .pt instead")
    seen: set[Any] = set()
    tensors = {}
    for key, tensor in state.items():
        storage = tensor.untyped_storage().data_ptr()
        # The format knows no shared memory.
        tensors[str(key)] = tensor.contiguous() if storage not in seen and tensor.is_contiguous() else tensor.clone().contiguous()
        seen.add(storage)
    _write(Path(path), lambda made: save_file(tensors, made, metadata={"format": "pt"}))


def import_file(
    repository: Repository,
    path: str | os.PathLike[str],
    *,
    name: str = "model",
    step: int = 0,
    weights_only: bool = True,
) -> Saved:
    """Saves what a file of safetensors or ``torch.save`` holds as a checkpoint with one part, ``name``.

    A ``Checkpointer`` restores it with ``restore(names=[name])``. What is stored already, of another run say, costs nothing.
    """
    if _kind(path) == "safetensors":
        state: Any = _safetensors().load_file(os.fspath(path))
    else:
        # Files of torch before 1.6 are no archives, and cannot be mapped.
        state = torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path), weights_only=weights_only)
    about = {"step": step, "metrics": {}, "metadata": None, "parts": {name: "model"}, "torch": torch.__version__}
    return repository.save({"checkpoint": about, name: state}, message=message_of(step, {}))


def _kind(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix
    if suffix not in _SUFFIXES:
        raise ValueError(f"{os.fspath(path)!r} does not say what kind of file it is: let it end in {', '.join(_SUFFIXES)}")
    return _SUFFIXES[suffix]


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise NotFoundError("safetensors is not installed: pip install safetensors") from error
    return safetensors.torch


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    made = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(made)
        descriptor = os.open(made, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        made.replace(path)
    except BaseException:
        made.unlink(missing_ok=True)
        raise
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
