"""Checkpoints as records: which there are of a run, in which order, and which of them are kept.

A checkpoint is a version whose message is ``step N``, followed by its metrics in JSON if it has some; so a run is listed
from the log alone, and ``chipmink log`` shows it to people.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chipmink._results import Saved, Version

__all__ = ["Best", "Checkpoint", "Retention", "SavedCheckpoint", "best_of", "line_of", "message_of"]

_MESSAGE = re.compile(r"step (\d+)(?: (\{.*\}))?", re.DOTALL)


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint of a run."""

    step: int
    """What ``save`` was called with."""
    version: int
    """The version of the repository that it is."""
    metrics: Mapping[str, float]
    """What the program measured, as given to ``save``."""
    saved_at: datetime.datetime
    """When, in UTC."""
    ref: str
    """The line of versions that it was saved to."""
    metadata: Any = field(default=None, compare=False)
    """What the program added; only ``restore`` fills it in."""


class SavedCheckpoint(Saved):
    """The version that a save has made; an int, as ``Repository.save`` returns it."""

    step: int
    """What ``save`` was called with."""
    stall: float
    """Seconds for which the training stood still."""

    @classmethod
    def of(cls, saved: Saved, step: int, stall: float) -> SavedCheckpoint:
        """A saved version with its step and stall."""
        made = cls(saved, saved.report, saved._wait, saved.ref)
        made.step, made.stall = step, stall
        return made


@dataclass(frozen=True)
class Best:
    """Which checkpoints are the best: those with the least value of a metric, or with ``mode="max"`` the greatest."""

    metric: str
    mode: str = "min"
    count: int = 1

    def __post_init__(self) -> None:
        if self.mode not in ("min", "max"):
            raise ValueError(f'mode is "min" or "max", not {self.mode!r}')
        if self.count < 1:
            raise ValueError(f"count is at least 1, not {self.count}")


@dataclass(frozen=True)
class Retention:
    """Which checkpoints of a run stay; without a rule, all."""

    keep_last: int | None = None
    keep_every: int | None = None
    keep_best: Best | None = None

    def __post_init__(self) -> None:
        for name in ("keep_last", "keep_every"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} is a number of at least 1, not {value!r}")

    @property
    def has_rules(self) -> bool:
        """Whether anything is ever dropped."""
        return self != Retention()

    def surplus(self, line: list[Checkpoint], own: Iterable[Checkpoint]) -> list[int]:
        """Versions to drop of those in ``own``; ``line`` is the run, newest first. The newest always stays, and so do those
        that were saved after it, which ``line`` does not know yet.
        """
        if not self.has_rules or not line:
            return []
        kept = {each.version for each in line[: max(1, self.keep_last or 0)]}
        if self.keep_every is not None:
            kept.update(each.version for each in line if each.step % self.keep_every == 0)
        if self.keep_best is not None:
            kept.update(each.version for each in best_of(line, self.keep_best))
        return [each.version for each in own if each.version not in kept and each.version < line[0].version]


def message_of(step: int, metrics: Mapping[str, float]) -> str:
    """The message of a checkpoint's version."""
    return f"step {step} {json.dumps(dict(metrics))}" if metrics else f"step {step}"


def checkpoint_of(version: Version) -> Checkpoint | None:
    """The checkpoint that a version is, if it is one."""
    found = _MESSAGE.fullmatch(version.message)
    if found is None:
        return None
    try:
        metrics = json.loads(found[2]) if found[2] else {}
    except ValueError:
        return None
    return Checkpoint(int(found[1]), version.number, metrics, version.saved_at, version.ref)


def best_of(checkpoints: Iterable[Checkpoint], best: Best) -> list[Checkpoint]:
    """The best checkpoints, the best first; of equal ones the newest. What lacks the metric, or has no number there, is not among them."""
    sign = 1 if best.mode == "min" else -1
    found = [
        each for each in checkpoints if best.metric in each.metrics and not math.isnan(float(each.metrics[best.metric]))
    ]
    found.sort(key=lambda each: (sign * float(each.metrics[best.metric]), -each.version))
    return found[: best.count]


def line_of(versions: list[Version], ref: str, head: int | None) -> tuple[list[Checkpoint], list[Checkpoint]]:
    """The checkpoints of a run, newest first, and all that were ever saved to its ref.

    ``versions`` is the log, newest first. The run is what its newest version follows, from parent to parent; so what was
    saved after a step to which the program went back is not in it. Where a parent was dropped, it goes on with what
    was saved before to the same ref.
    """
    by_commit = {version.commit: at for at, version in enumerate(versions)}
    at = next((at for at, version in enumerate(versions) if version.number == head), None)
    line = []
    while at is not None:
        version = versions[at]
        line.append(version)
        known = [by_commit[parent] for parent in version.parents[:1] if parent in by_commit]
        older = (later for later in range(at + 1, len(versions)) if versions[later].ref == version.ref)
        at = known[0] if known else next(older, None) if version.parents else None
    return _only(line), _only(version for version in versions if version.ref == ref)


def _only(versions: Iterable[Version]) -> list[Checkpoint]:
    return [each for each in map(checkpoint_of, versions) if each is not None]


def with_metadata(checkpoint: Checkpoint, metadata: Any) -> Checkpoint:
    """The same checkpoint with what the program had added."""
    return dataclasses.replace(checkpoint, metadata=metadata)
