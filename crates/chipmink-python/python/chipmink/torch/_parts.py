"""Parts: what a program gives to a ``Checkpointer``, each with the way to read its state and to put a stored one back.

A part reads the live state as it is, without copying it, and restores in place: tensors keep their storage and their
``data_ptr``. Stored types are written as they are; ``load_state_dict`` of torch would convert some of them (the fp32 and
uint8 state that optimizers keep of bf16 parameters).
"""

from __future__ import annotations

import random
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch.nn.parameter import is_lazy

from chipmink._errors import UnsupportedError
from chipmink.torch._containers import merged, refuse_parts
from chipmink.torch._writes import Writes, address, is_sharded, like

__all__ = ["COPIED", "Part", "part_of", "tensors_in"]

# What `torch.compile` puts before the names of a module's parameters.
_COMPILED = "_orig_mod."
_OF_OPTIMIZERS = {"state", "param_groups"}


class Part(Protocol):
    """One thing whose state is saved."""

    kind: str
    """What errors and ``Checkpoint`` call it."""

    def capture(self) -> Any:
        """Its state, over live memory."""

    def plan(self, stored: Any, writes: Writes, strict: bool) -> None:
        """Plans to make it what was stored; raises if that does not fit."""


def part_of(name: str, value: Any) -> Part:
    """The part for an object."""
    if isinstance(value, torch.nn.Module):
        return _Model(name, value)
    if isinstance(value, torch.optim.Optimizer):
        return _Optimizer(name, value)
    if isinstance(value, torch.Tensor):
        return _Tensor(name, value)
    if isinstance(value, torch.Generator):
        return _Accessors(name, "generator", value.get_state, value.set_state)
    if isinstance(value, random.Random):
        return _Accessors(name, "generator", value.getstate, value.setstate)
    if _has_state_dict(value):
        return _Stateful(name, value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _Tensor(name, torch.from_numpy(value))
    if numpy is not None and isinstance(value, numpy.random.Generator):
        bits = value.bit_generator
        return _Accessors(name, "generator", lambda: bits.state, lambda state: setattr(bits, "state", state))
    if type(value) in (dict, list):
        refuse_parts(name, value)
        return _Container(name, value)
    raise TypeError(
        f"{name} is a {type(value).__qualname__}, which cannot be restored in place: give an object with state_dict and "
        "load_state_dict, a tensor, an array, a generator of random numbers, a dict or a list; other values go to "
        "save(step, metadata=...)"
    )


def _has_state_dict(value: Any) -> bool:
    return callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None))


class _Model:
    """Parameters and persistent buffers of a module, and what its own state hooks add to them."""

    kind = "model"

    def __init__(self, name: str, module: torch.nn.Module) -> None:
        self._name = name
        wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
        while isinstance(module, wrappers) or hasattr(module, "_orig_mod"):
            module = module.module if isinstance(module, wrappers) else module._orig_mod
        self._module = module

    def capture(self) -> dict[str, Any]:
        state = {}
        for key, value in self._module.state_dict().items():
            if is_sharded(value):
                raise UnsupportedError(
                    f"{self._name}: {key} is a shard of a distributed tensor; save it with torch.distributed.checkpoint and "
                    "chipmink.torch.dcp"
                )
            state[key.replace(_COMPILED, "")] = value
        return state

    def plan(self, stored: Any, writes: Writes, strict: bool) -> None:
        module = self._module
        state = module.state_dict()
        named = {key.replace(_COMPILED, ""): (key, value) for key, value in state.items()}
        self._check_names(set(stored), set(named), strict)
        own = {_memory(name, tensor) for each in (module.named_parameters, module.named_buffers) for name, tensor in each(remove_duplicate=False)}
        is_watched = _is_watched(module)
        rest: OrderedDict[str, Any] = OrderedDict()
        for key, value in stored.items():
            if key not in named:
                continue
            name, live = named[key]
            is_own = isinstance(live, torch.Tensor) and isinstance(value, torch.Tensor) and _memory(name, live) in own
            has_memory = is_own and not is_lazy(live) and address(live) is not None
            if is_watched or not has_memory:
                # Extra state, what a hook of the module has made, and tensors made of others: only the module knows what to do with it.
                rest[name] = value
            if not is_own or is_lazy(live):
                continue
            if not like(live, value):
                raise UnsupportedError(
                    f"{self._name}: {key} is {_described(value)} in the checkpoint and {_described(live)} here: "
                    "make the model as it was when it was saved"
                )
            if has_memory:
                writes.copy(f"{self._name}.{key}", live, value)
        if rest:
            # By these modules know which version of theirs has made the state.
            rest._metadata = getattr(stored, "_metadata", None) or getattr(state, "_metadata", None)  # type: ignore[attr-defined]
            writes.call(lambda: module.load_state_dict(rest, strict=False))

    def _check_names(self, stored: set[str], live: set[str], strict: bool) -> None:
        if strict and stored != live:
            lacking, surplus = sorted(live - stored), sorted(stored - live)
            texts = [f"the checkpoint lacks {_listed(lacking)}"] if lacking else []
            texts += [f"the model lacks {_listed(surplus)}"] if surplus else []
            raise UnsupportedError(f"{self._name}: {' and '.join(texts)}; strict=False restores what both have")


def _is_watched(module: torch.nn.Module) -> bool:
    """Whether one of its modules wants to see, or to change, what is loaded."""
    for each in module.modules():
        if any(getattr(each, name, None) for name in ("_load_state_dict_pre_hooks", "_load_state_dict_post_hooks")):
            return True
        method = type(each)._load_from_state_dict
        if method is not torch.nn.Module._load_from_state_dict and not method.__module__.startswith("torch."):
            return True
    return False


class _Optimizer:
    """State and options of an optimizer, by the order of its parameters."""

    kind = "optimizer"

    def __init__(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        self._name = name
        self._optimizer = optimizer

    def capture(self) -> dict[str, Any]:
        state = self._optimizer.state_dict()
        for values in state.get("state", {}).values():
            if isinstance(values, Mapping) and any(map(is_sharded, values.values())):
                raise UnsupportedError(
                    f"{self._name} has shards of distributed tensors; save it with torch.distributed.checkpoint and "
                    "chipmink.torch.dcp"
                )
        return dict(state)

    def plan(self, stored: Any, writes: Writes, strict: bool) -> None:
        optimizer = self._optimizer
        if set(stored) != _OF_OPTIMIZERS or getattr(optimizer, "_optimizer_load_state_dict_pre_hooks", None):
            # Somebody wants to see, or to change, what is loaded; or it has more than optimizers of torch have.
            writes.call(lambda: optimizer.load_state_dict(stored))
            return
        groups, saved = optimizer.param_groups, stored["param_groups"]
        counts, saved_counts = ([len(group["params"]) for group in each] for each in (groups, saved))
        if counts != saved_counts:
            raise UnsupportedError(
                f"{self._name} has groups of {counts} parameters, and {saved_counts} in the checkpoint: "
                "make it as it was when it was saved"
            )
        parameters: dict[Any, tuple[torch.Tensor, dict[str, Any]]] = {}
        for group, saved_group in zip(groups, saved, strict=True):
            parameters.update(zip(saved_group["params"], ((each, group) for each in group["params"]), strict=True))
        state: dict[Any, Any] = {}
        for key, values in stored["state"].items():
            if key not in parameters:
                # State of the optimizer as a whole.
                state[key] = values
                continue
            parameter, group = parameters[key]
            state[parameter] = self._state_of(key, parameter, group, values, writes)
        options = [self._options_of(group, saved_group, writes) for group, saved_group in zip(groups, saved, strict=True)]

        def finish() -> None:
            optimizer.state.clear()
            optimizer.state.update(state)
            for group, values in zip(groups, options, strict=True):
                group.clear()
                group.update(values)
            # Adds what an optimizer of an earlier torch did not have.
            optimizer.__setstate__({"state": optimizer.state, "param_groups": optimizer.param_groups})
            for hook in list(getattr(optimizer, "_optimizer_load_state_dict_post_hooks", {}).values()):
                hook(optimizer)

        writes.call(finish)

    def _state_of(
        self, key: Any, parameter: torch.Tensor, group: dict[str, Any], values: Any, writes: Writes
    ) -> Any:
        if not isinstance(values, Mapping):
            return values
        live = self._optimizer.state.get(parameter, {})
        made = {}
        for field, value in values.items():
            now = live.get(field)
            if not isinstance(value, torch.Tensor):
                made[field] = value
            elif like(now, value):
                writes.copy(f"{self._name}.state[{key}].{field}", now, value)
                made[field] = now
            else:
                made[field] = writes.make(value, _home(parameter, field, group))
                if parameter.requires_grad:
                    writes.stepped.append(made[field])
        return made

    def _options_of(self, group: dict[str, Any], stored: dict[str, Any], writes: Writes) -> dict[str, Any]:
        made: dict[str, Any] = {name: group[name] for name in ("params", "param_names") if name in group}
        for field, value in stored.items():
            now = group.get(field)
            if field == "params":
                continue
            if like(now, value):
                writes.copy(f"{self._name}.{field}", now, value)
                value = now
            elif isinstance(value, torch.Tensor):
                value = writes.make(value, now.device if isinstance(now, torch.Tensor) else value.device)
            made[field] = value
        return made


def _home(parameter: torch.Tensor, field: str, group: dict[str, Any]) -> torch.device:
    """Where the optimizer would have made a tensor of its state."""
    if field == "step" and not group.get("capturable") and not group.get("fused"):
        return torch.device("cpu")
    return parameter.device


class _Stateful:
    """Whatever says itself what its state is: schedulers, scalers of gradients, loaders, samplers."""

    kind = "stateful"

    def __init__(self, name: str, value: Any) -> None:
        self._name = name
        self._value = value

    def capture(self) -> Any:
        return self._value.state_dict()

    def plan(self, stored: Any, writes: Writes, strict: bool) -> None:
        writes.call(lambda: self._value.load_state_dict(stored))


class _Tensor:
    """A tensor, or an array, restored where it lies."""

    kind = "tensor"

    def __init__(self, name: str, tensor: torch.Tensor) -> None:
        self._name = name
        self._tensor = tensor

    def capture(self) -> torch.Tensor:
        return self._tensor.detach()

    def plan(self, stored: Any, writes: Writes, strict: bool) -> None:
        if not like(self._tensor, stored):
            raise UnsupportedError(
                f"{self._name} is {_described(stored)} in the checkpoint and {_described(self._tensor)} here"
            )
        writes.copy(self._name, self._tensor, stored)


class _Accessors:
    """Something with a function that gives its state, and one that takes it."""

    def __init__(self, name: str, kind: str, get: Any, put: Any) -> None:
        self.kind = kind
        self._get = get
        self._put = put

    def capture(self) -> Any:
        return self._get()

    def plan(self, stored: Any, writes: Writes, strict: bool) -> None:
        writes.call(lambda: self._put(stored))


class _Container:
    """A dict or list of the program's own, which stays the same object, as do tensors in it."""

    kind = "container"

    def __init__(self, name: str, value: dict[Any, Any] | list[Any]) -> None:
        self._name = name
        self._value = value

    def capture(self) -> Any:
        return self._value

    def plan(self, stored: Any, writes: Writes, strict: bool) -> None:
        if type(stored) is not type(self._value):
            raise UnsupportedError(
                f"{self._name} is a {type(stored).__name__} in the checkpoint and a {type(self._value).__name__} here"
            )

        merged(self._name, self._value, stored, writes)


COPIED = (_Model, _Optimizer, _Tensor)
"""Parts of which a restore copies what was stored into live tensors."""


def tensors_in(state: Any) -> Iterator[torch.Tensor]:
    """The tensors of what a part has captured."""
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, (Mapping, list, tuple)):
        for each in state.values() if isinstance(state, Mapping) else state:
            yield from tensors_in(each)


def _memory(name: str, tensor: torch.Tensor) -> Any:
    """Whose memory it is; tensors without a byte have none, and count as one. What has no memory of its own is known by its name."""
    place = None if is_lazy(tensor) else address(tensor)
    return name if place is None else (tensor.device, place)


def _described(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return f"a {type(value).__qualname__}"
    if is_lazy(value):
        return "not initialized"
    place = " without memory (meta)" if value.device.type == "meta" else ""
    return f"{str(value.dtype).removeprefix('torch.')} of {tuple(value.shape)}{place}"


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
