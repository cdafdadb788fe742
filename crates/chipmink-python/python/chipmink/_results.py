"""What a repository hands out beside the saved objects themselves: plain records, free of any connection to it."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from chipmink._remote import RemoteSummary
from chipmink._staging import Progress

__all__ = ["Diff", "Report", "Saved", "Skipped", "Version"]


@dataclass(frozen=True)
class Skipped:
    """An object that could not be saved, and loads as a placeholder."""

    variable: str
    """The variable in which it stands."""
    path: str
    """Where in the variable, such as ``.connection`` or ``["a"][3]``; empty for the variable itself."""
    type_name: str
    """Module and name of its type."""
    reason: str
    """What went wrong, in one line."""

    def __str__(self) -> str:
        return f"{self.variable}{self.path}: {self.type_name}: {self.reason}"


@dataclass(frozen=True)
class Report:
    """What one save did."""

    objects: int = 0
    """Objects looked at, each as often as it was met."""
    pods_dirty: int = 0
    """Pods whose bytes were new."""
    pods_clean: int = 0
    """Pods found unchanged."""
    pods_shadow: int = 0
    """Pods among those that were proved unchanged without producing a byte."""
    region_bytes: int = 0
    """Bytes of large buffers that were hashed."""
    unwritten_bytes: int = 0
    """Bytes of large buffers that need not be hashed, because nobody had written to them (``track_pages=True``)."""
    bytes_written: int = 0
    """Bytes added to the repository."""
    shadow_bytes: int = 0
    """Bytes of memory that are kept to recognise unchanged objects at the next save."""
    skipped: tuple[Skipped, ...] = ()
    """Variables that are not in the version."""
    stubs: tuple[Skipped, ...] = ()
    """Objects inside saved variables that were replaced by placeholders."""
    unsteady: tuple[str, ...] = ()
    """Variables that other threads went on changing while they were saved: the version may mix two states of them."""
    remote: tuple[RemoteSummary, ...] = ()
    """References to objects of a cluster or session that this save has looked at."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Time by phase: ``walk``; of that, ``detection`` of what has changed in large buffers; ``publish``; and ``total``."""


class Saved(int):
    """The number of a version, and how it came to be. It is the int that ``load`` takes."""

    # Only what a program asks for: an int subclass cannot have slots.
    report: Report
    ref: str
    """The line of versions that it was added to; empty if it was made from a plain number."""
    # Waits until the version is durable, at most so many seconds; `None`: it is.
    _wait: Callable[[float | None, Progress], bool] | None

    def __new__(
        cls,
        number: int,
        report: Report | None = None,
        wait: Callable[[float | None, Progress], bool] | None = None,
        ref: str = "",
    ) -> Saved:
        saved = super().__new__(cls, number)
        saved.report = Report() if report is None else report
        saved._wait = wait
        saved.ref = ref
        return saved

    @property
    def done(self) -> bool:
        """Whether the version is durable."""
        return self._wait is None or self._wait(0.0, False)

    def wait(self, stage: str = "durable", *, timeout: float | None = None, progress: Progress = False) -> Saved:
        """Waits until the version has reached ``"staged"`` or ``"durable"``. Without a staging tier it has already.

        ``TimeoutError`` after ``timeout`` seconds; the version stays where it is, and goes on. If it cannot be made durable at
        this moment ``StorageError`` is raised, and it is tried again. ``progress`` is called with a ``Status`` every now and
        then; ``True`` shows a bar, if there is a terminal.
        """
        if stage not in ("staged", "durable"):
            raise ValueError(f'there is no stage {stage!r}: wait for "staged" or "durable"')
        # A save returns when it is staged.
        if stage == "durable" and self._wait is not None:
            if not self._wait(timeout, progress):
                raise TimeoutError(f"version {int(self)} is not durable after {timeout} seconds; it goes on")
            self._wait = None
        return self

    def __reduce__(self) -> tuple[type[Saved], tuple[int]]:
        return Saved, (int(self),)

    def __repr__(self) -> str:
        return int.__repr__(self)


@dataclass(frozen=True)
class Version:
    """One line of ``Repository.log``."""

    number: int
    """What ``save`` returned."""
    ref: str
    """The ref that the save moved."""
    message: str
    """What the program said about it."""
    saved_at: datetime.datetime
    """When, in UTC."""
    commit: str
    """The commit's digest: its identity in any repository."""
    parents: tuple[str, ...] = ()
    """The digests of the commits before it."""
    author: str = ""
    """Who saved it, if the program said so."""


@dataclass(frozen=True)
class Diff:
    """How the variables of one version differ from those of another."""

    added: tuple[str, ...] = ()
    """Names that only the later one has."""
    removed: tuple[str, ...] = ()
    """Names that only the earlier one has."""
    changed: tuple[str, ...] = ()
    """Names whose objects, or what they share with others, differ."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)
