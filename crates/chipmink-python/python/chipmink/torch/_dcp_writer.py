"""Saves of ``torch.distributed.checkpoint``: each process saves a version of its own part, and one of them makes one version of all.

The steps of a save, with who does them:

1. Each rank: what the plan gives to it is saved as a version of the ref ``REF.rank-N``, of which only what changed is written.
2. The coordinator: what DCP has to know to read it is saved as a version of ``REF.metadata``.
3. The coordinator: one entry makes a version of ``REF`` out of these, without copying. Only now is there a checkpoint.

Without collectives there is no coordinator: a rank's version holds what DCP has to know of it, and whoever finds all ranks'
versions there does step 3. A rank that dies leaves the previous checkpoint as the newest.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint import metadata as dcp_metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem, WriteItemType
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult

from chipmink._errors import RefMovedError, UnsupportedError
from chipmink._repository import Repository
from chipmink._results import Saved
from chipmink.torch._dcp_staging import Buffers, StagedDict, StagedShards, stage

__all__ = ["ABOUT", "ChipminkWriter", "message_of", "name_of", "rank_about"]

#: The variable with what DCP has to know.
ABOUT = "dcp"


def message_of(checkpoint_id: Any) -> str:
    """The message of a checkpoint's version."""
    return "checkpoint" if checkpoint_id is None else f"checkpoint {os.fspath(checkpoint_id)}"


def name_of(index: Any) -> str:
    """The variable in which a tensor, or part of one, is saved."""
    offset = getattr(index, "offset", None)
    return index.fqn if not offset or not any(offset) else f"{index.fqn}@{','.join(map(str, offset))}"


def rank_about(rank: int) -> str:
    """The variable with what DCP has to know of one rank, saved without collectives."""
    return f"{ABOUT}.rank-{rank}"


@dataclasses.dataclass
class _Save:
    """One save; several may be under way, each in a thread of its own."""

    checkpoint_id: Any = None
    is_coordinator: bool = False
    rank: int = 0
    uses_collectives: bool = True
    is_planned: bool = False
    namespace: dict[str, Any] = dataclasses.field(default_factory=dict)


class ChipminkWriter(StorageWriter):
    """Writes checkpoints of ``torch.distributed.checkpoint`` to a repository; every rank makes one.

    ::

        writer = chipmink.torch.dcp.ChipminkWriter("runs", ref="run7")
        dcp.save(state_dict, checkpoint_id="step-100", storage_writer=writer)
        future = dcp.async_save(state_dict, checkpoint_id="step-200", storage_writer=writer)

    It is its own stager for ``async_save``, whose thread then saves a copy. ``checkpoint_id`` is a name for the checkpoint; a
    ``ChipminkReader`` finds it by that, or takes the newest. All ranks name the same place, and the same ``staging`` if any: then a
    save returns when the checkpoint is in shared memory. ``keep_last`` checkpoints of the ref stay; all, if not given.
    ``open_options`` are those of ``chipmink.open``.
    """

    # DCP takes the writer as the stager if it has all that a stager has.
    _synchronize_after_execute = True

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        ref: str = "main",
        keep_last: int | None = None,
        staging: str | None = None,
        size: int | str | None = None,
        durable: bool = True,
        open_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if keep_last is not None and keep_last < 1:
            raise ValueError(f"keep_last is at least 1, not {keep_last}")
        self._url, self._ref, self._keep_last = url, ref, keep_last
        self._options = {"durable": durable, "staging": staging, "size": size, **(open_options or {})}
        self._repositories: dict[str, Repository] = {}
        self._turn = threading.RLock()
        self._under_way = threading.local()
        self._buffers = Buffers()
        self.last: int | None = None
        """Number of the checkpoint's version that this rank has published last."""

    # --- what DCP calls, in this order --------------------------------------------------------------------------------

    def reset(self, checkpoint_id: Any = None) -> None:
        """Begins a save in this thread."""
        self._under_way.save = _Save(checkpoint_id)

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Learns which rank this is."""
        save = self._save
        save.is_planned = True
        save.is_coordinator = is_coordinator
        save.rank = kwargs.get("rank", _rank())
        save.uses_collectives = kwargs.get("use_collectives", True)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Leaves the plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Leaves the plans as they are."""
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Any:
        """Saves what the plan gives to this rank, as a version of the rank's own."""
        save = self._save
        results = []
        prefix = "" if save.uses_collectives else f"rank-{save.rank}/"
        for item in plan.items:
            value, byte_len = _resolved(planner, item)
            name = prefix + name_of(item.index)
            save.namespace[name] = value
            results.append(WriteResult(index=item.index, size_in_bytes=byte_len, storage_data=name))
        if save.uses_collectives:
            saved = self._save_version(f"{self._ref}.rank-{save.rank}", save.namespace, save)
            save.namespace = {}
            # The number travels with the first result; a rank without any saves nothing that is needed.
            if results:
                results[0] = dataclasses.replace(results[0], storage_data=(results[0].storage_data, int(saved)))
        done: Any = torch.futures.Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Any, results: list[list[WriteResult]]) -> None:
        """Makes one version of all; on the coordinator, or on every rank without collectives."""
        save = self._save
        versions = [each[0].storage_data[1] for each in results if each and save.uses_collectives]
        named = (result for each in results for result in each)
        metadata.storage_data = {
            result.index: result.storage_data[0] if isinstance(result.storage_data, tuple) else result.storage_data
            for result in named
        }
        if save.uses_collectives:
            versions.append(int(self._save_version(f"{self._ref}.metadata", {ABOUT: metadata}, save)))
            self._join(versions, save)
        else:
            save.namespace[rank_about(save.rank)] = metadata
            ref = f"{self._ref}.rank-{save.rank}"
            self._save_version(ref, save.namespace, save, f" rank {save.rank} of {_world_size()}")
            save.namespace = {}
            self._join_if_last(self._repositories[ref].branches[ref], save)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: Any) -> bool:
        """Any name will do."""
        return isinstance(checkpoint_id, (str, os.PathLike))

    def storage_meta(self) -> Any:
        """The name of the checkpoint. DCP asks for it first, and has called ``reset`` before only if there is a name."""
        if self._save.is_planned:
            self.reset()
        return dcp_metadata.StorageMeta(checkpoint_id=self._save.checkpoint_id)

    # --- staging ------------------------------------------------------------------------------------------------------

    @property
    def should_synchronize_after_execute(self) -> bool:
        """Staging is complete when ``stage`` returns."""
        return False

    @property
    def staged_bytes(self) -> int:
        """Bytes that were copied aside for asynchronous saves."""
        return self._buffers.staged_bytes

    def stage(self, state_dict: Mapping[str, Any]) -> StagedDict:
        """Copies a state dict aside, in memory that a later save uses again."""
        return stage(state_dict, self._buffers)

    def synchronize_staging(self) -> None:
        """Nothing is left to wait for."""

    def close(self) -> None:
        """Waits until what was saved is durable, and gives back memory and files. Closing again does nothing."""
        self._buffers.close()
        with self._turn:
            repositories, self._repositories = self._repositories, {}
        for repository in repositories.values():
            repository.close()

    def wait(self) -> None:
        """Waits until what was saved is durable."""
        with self._turn:
            for repository in self._repositories.values():
                repository._wait_for(repository._usable().wait_all_durable, None, False)

    def __enter__(self) -> ChipminkWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        raise UnsupportedError(
            "a ChipminkWriter stays in its process: use AsyncCheckpointerType.THREAD; with staging=\"shm://NAME\" the rest of a "
            "save survives the death of this process, too"
        )

    # --- versions -----------------------------------------------------------------------------------------------------

    @property
    def _save(self) -> _Save:
        save = getattr(self._under_way, "save", None)
        if save is None:
            save = self._under_way.save = _Save()
        return save

    def _repository(self, ref: str) -> Repository:
        found = self._repositories.get(ref)
        if found is None:
            found = self._repositories[ref] = Repository(self._url, ref=ref, **self._options)
        return found

    def _save_version(self, ref: str, namespace: dict[str, Any], save: _Save, what: str = "") -> Saved:
        with self._turn:
            return self._repository(ref).save(namespace, message=message_of(save.checkpoint_id) + what, strict=True)

    def _join(self, versions: list[int], save: _Save) -> None:
        with self._turn:
            repository = next(iter(self._repositories.values()))
            while True:
                before = repository.branches.get(self._ref)
                try:
                    handle = repository._usable()
                    self.last = handle.join(self._ref, before, versions, message_of(save.checkpoint_id))
                    break
                except RefMovedError:
                    # Somebody else has saved there: this checkpoint follows.
                    continue
            self._drop_old(repository)

    def _join_if_last(self, own: int, save: _Save) -> None:
        """Joins the versions of all ranks if they are all there, and no other rank has done it."""
        with self._turn:
            repository = next(iter(self._repositories.values()))
            world = _world_size()
            ranks = [f"{self._ref}.rank-{rank}" for rank in range(world)]
            while True:
                refs = repository.branches
                before = refs.get(self._ref)
                heads = [refs.get(ref, 0) for ref in ranks]
                if (before or 0) > own:
                    self.last = before
                    return
                messages = {version.number: version.message for version in repository.log(4 * world)}
                wanted = [f"{message_of(save.checkpoint_id)} rank {rank} of {world}" for rank in range(world)]
                if min(heads) <= (before or 0) or [messages.get(head) for head in heads] != wanted:
                    return
                try:
                    handle = repository._usable()
                    self.last = handle.join(self._ref, before, heads, message_of(save.checkpoint_id))
                    break
                except RefMovedError:
                    continue
            self._drop_old(repository)

    def _drop_old(self, repository: Repository) -> None:
        if self._keep_last is None:
            return
        versions = repository.log()
        joined = [version.number for version in versions if version.ref == self._ref]
        # The newest of each rank stays by itself; the next save of the rank builds on it.
        parts = (f"{self._ref}.rank-", f"{self._ref}.metadata")
        old = [version.number for version in versions if version.ref.startswith(parts) and version.number < joined[0]]
        repository.sweep(drop=[*joined[self._keep_last :], *old], grace="0s")


def _rank() -> int:
    return int(dist.get_rank()) if dist.is_available() and dist.is_initialized() else 0


def _world_size() -> int:
    return int(dist.get_world_size()) if dist.is_available() and dist.is_initialized() else 1


def _resolved(planner: SavePlanner, item: WriteItem) -> tuple[Any, int]:
    """What is to be saved for an item, and its bytes."""
    if item.type is not WriteItemType.BYTE_IO:
        # A staged leaf is no tensor, so the planner would not look it up by its offset.
        leaf = getattr(planner, "state_dict", {}).get(item.index.fqn)
        value = leaf.shard(item.index) if isinstance(leaf, StagedShards) else planner.resolve_data(item)
        tensor = value.detach()
        return tensor, tensor.numel() * tensor.element_size()
    data = planner.resolve_data(item).getvalue()
    return data, len(data)
