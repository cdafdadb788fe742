"""Loads of ``torch.distributed.checkpoint``: each rank reads what its plan asks for, out of whatever parts were saved.

1. A variable is loaded once for all that a plan reads of it, and mapped where that can be done: of a large tensor only the pages
   that are needed are read.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.storage import StorageReader

from chipmink._errors import NotFoundError, UnsupportedError
from chipmink._repository import Repository
from chipmink.torch._dcp_writer import ABOUT, message_of, rank_about

__all__ = ["ChipminkReader"]

#: Variables that are loaded at once.
_BATCH = 64


class ChipminkReader(StorageReader):
    """Reads checkpoints that a ``ChipminkWriter`` has written, on as many ranks as there are now.

    ::

        dcp.load(state_dict, checkpoint_id="step-100", storage_reader=chipmink.torch.dcp.ChipminkReader("runs", ref="run7"))

    Without ``checkpoint_id`` and ``version`` it is the newest of the ref. ``version`` is a number or a tag. ``verify`` and
    ``open_options`` are those of ``chipmink.open``.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        ref: str = "main",
        version: int | str | None = None,
        verify: str = "background",
        open_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._repository = Repository(url, ref=ref, verify=verify, **(open_options or {}))
        self._version = version
        self._checkpoint_id: Any = None
        self._number: int | None = None
        self._names: dict[Any, str] = {}

    def reset(self, checkpoint_id: Any = None) -> None:
        """Begins a load."""
        self._checkpoint_id = checkpoint_id
        self._number = None

    def read_metadata(self, *args: Any, **kwargs: Any) -> Any:
        """What DCP has to know of the checkpoint; with ``rank``, of that rank's part of one saved without collectives."""
        number = self._number = self._find()
        rank = kwargs.get("rank")
        name = ABOUT if rank is None else rank_about(rank)
        if name not in self._repository.names(number):
            told = "was saved without collectives: each rank reads its own part, and" if rank is None else f"of rank {rank}"
            raise NotFoundError(f"version {number} has no variable {name!r}: the checkpoint {told} as many ranks as saved it can load it")
        return self._repository.load(number, names=[name])[name]

    def set_up_storage_reader(self, metadata: Any, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Learns where what is."""
        self._names = metadata.storage_data
        if self._number is None:
            self._number = self._find()
        # DCP calls `reset` only if there is a name.
        self._checkpoint_id = None

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Leaves the plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Leaves the plans as they are."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Any:
        """Reads what the plan asks for."""
        wanted: dict[str, list[ReadItem]] = {}
        for item in plan.items:
            wanted.setdefault(self._names[item.storage_index], []).append(item)
        names = list(wanted)
        for start in range(0, len(names), _BATCH):
            batch = names[start : start + _BATCH]
            loaded = self._repository.load(self._number, names=batch)
            for name in batch:
                for item in wanted[name]:
                    _read(loaded[name], item, planner)
            del loaded
        done: Any = torch.futures.Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        """Any name will do."""
        return isinstance(checkpoint_id, (str, os.PathLike))

    def close(self) -> None:
        """Gives back what is held."""
        self._repository.close()

    def __enter__(self) -> ChipminkReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _find(self) -> int:
        if self._checkpoint_id is None or self._version is not None:
            return self._repository._number(self._version)
        message = message_of(self._checkpoint_id)
        for version in self._repository.log():
            if version.ref == self._repository.ref and version.message == message:
                return version.number
        raise NotFoundError(f"ref {self._repository.ref!r} of {self._repository.url!r} has no {message!r}")


def _read(stored: Any, item: ReadItem, planner: LoadPlanner) -> None:
    if item.type is LoadItemType.BYTE_IO:
        planner.load_bytes(item, io.BytesIO(stored))
        return
    for dimension, (offset, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
        stored = torch.narrow(stored, dimension, offset, length)
    target = planner.resolve_tensor(item).detach()
    if target.shape != stored.shape:
        raise UnsupportedError(
            f"{item.dest_index.fqn}: the program has room for {tuple(target.shape)}, and the checkpoint {tuple(stored.shape)} there"
        )
    with torch.no_grad():
        target.copy_(stored)
    planner.commit_tensor(item, target)
