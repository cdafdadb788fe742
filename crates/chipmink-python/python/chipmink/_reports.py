"""What a check of a repository, a repair or a sweep reports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["Damage", "Lost", "RepairReport", "Stats", "SweepReport", "VerifyReport"]


@dataclass(frozen=True)
class Damage:
    """Something in a repository that is not what was written."""

    version: int | None
    """The newest version that needs it; ``None`` if it was found apart from any."""
    object: str
    """What it is: the path of a pack or entry, a blob, a variable."""
    reason: str
    """What is wrong with it, and where."""

    def __str__(self) -> str:
        at = "" if self.version is None else f"version {self.version}: "
        return f"{at}{self.object}: {self.reason}"


@dataclass(frozen=True)
class Lost:
    """What damage costs of one version."""

    version: int
    """Its number."""
    variables: tuple[str, ...]
    """The variables that cannot be loaded. The others can, unless ``whole``."""
    whole: bool
    """Whether more may be lost: its entry, or its list of variables, cannot be read."""


class VerifyReport(list[str]):
    """What is wrong with a repository: a list of lines, empty if nothing is, and the same for programs."""

    def __init__(
        self,
        *,
        versions: int,
        blobs: int,
        packs: int,
        bytes: int,
        damaged: Iterable[tuple[int | None, str, str]],
        damaged_count: int,
        lost: Iterable[tuple[int, list[str], bool]],
        lost_count: int,
        void_entries: list[int],
        orphan_packs: int,
    ) -> None:
        self.damaged = tuple(Damage(*item) for item in damaged)
        """Pieces of damage, the first thousand."""
        self.damaged_count = damaged_count
        """All pieces of damage."""
        self.lost = tuple(Lost(version, tuple(names), whole) for version, names, whole in lost)
        """The versions that have lost something, newest first, the first thousand."""
        self.lost_count = lost_count
        """All versions that have lost something."""
        self.versions = versions
        """Versions that were checked; all but the lost ones are intact."""
        self.blobs = blobs
        """Distinct blobs that they need."""
        self.packs = packs
        """Packs that were checked."""
        self.bytes = bytes
        """Bytes of these."""
        self.void_entries = tuple(void_entries)
        """Numbers that a power failure, or a save that failed, has spent. That is no damage."""
        self.orphan_packs = orphan_packs
        """Packs of saves that failed, or are running now. That is no damage."""
        super().__init__(map(str, self.damaged))
        if damaged_count > len(self.damaged):
            self.append(f"and {damaged_count - len(self.damaged)} more")

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return self.damaged_count == 0

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


class RepairReport:
    """What a repair found and did."""

    def __init__(
        self,
        *,
        before: dict[str, Any],
        after: dict[str, Any],
        blobs_fetched: int,
        blobs_salvaged: int,
        packs_replaced: int,
        versions_fetched: int,
    ) -> None:
        self.before = VerifyReport(**before)
        """What was damaged."""
        self.after = VerifyReport(**after)
        """What is damaged now."""
        self.blobs_fetched = blobs_fetched
        """Blobs that the mirror had."""
        self.blobs_salvaged = blobs_salvaged
        """Blobs that lay in packs of nobody."""
        self.packs_replaced = packs_replaced
        """Packs that were replaced."""
        self.versions_fetched = versions_fetched
        """Versions that were brought back from the mirror, under new numbers."""

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged any more."""
        return self.after.ok

    def __repr__(self) -> str:
        return f"<RepairReport: {self.before.damaged_count} damaged before, {self.after.damaged_count} after>"


@dataclass(frozen=True)
class Stats:
    """How much there is in a place."""

    entries: int
    """Entries of the root log."""
    versions: int
    """Versions."""
    packs: int
    """Packs that the log names."""
    pack_bytes: int
    """Their bytes."""
    orphan_packs: int
    """Packs that the log does not name (any more)."""
    orphan_bytes: int
    """Their bytes."""
    blobs: int
    """Blobs in the packs, copies counted."""
    stored_bytes: int
    """Bytes of the blobs as they are stored."""
    decoded_bytes: int
    """Bytes of the blobs as they are used."""
    deltas: int
    """Blobs that are stored as differences."""


@dataclass(frozen=True)
class SweepReport:
    """What a sweep did, or with ``dry_run`` would do."""

    dry_run: bool
    """Nothing was written: it says what would be done."""
    versions_dropped: tuple[int, ...]
    """Versions that are no longer there."""
    versions_kept: int
    """How many are left."""
    tags_deleted: tuple[str, ...]
    """Tags that went with their versions."""
    freed_bytes: int
    """Bytes of the packs that were deleted, those that an earlier sweep had condemned included."""
    waiting_bytes: int
    """Bytes of the packs that a later sweep deletes, when the grace is over."""
    kept_bytes: int
    """Bytes of the packs that stay."""
    condemned_bytes: int
    """Bytes of the packs that this sweep has condemned."""
    moved_bytes: int
    """Bytes that were moved to a new pack, because little else was left of their old one."""
    packs_deleted: int
    """Packs that were deleted."""
    packs_waiting: int
    """Packs that wait for the grace."""
    packs_condemned: int
    """Packs of versions that were condemned."""
    orphans_condemned: int
    """Packs of saves that died that were condemned."""
    released: int = 0
    """What was kept in clusters for versions that are no longer there, and is no longer kept."""
