"""A repository as a place of stored bytes: what is done with its versions without an object being made of them.

1. None of it waits for a save of the same repository object, or keeps one waiting: the store arbitrates.
2. Text and durations are understood here; below are numbers.
"""

from __future__ import annotations

import abc
import datetime
import operator
import os
from collections.abc import Iterable
from typing import SupportsIndex, Unpack

from chipmink import _chipmink
from chipmink._durations import Duration, parse_duration
from chipmink._errors import NotFoundError, UnsupportedError
from chipmink._remote import LINE, swept
from chipmink._reports import RepairReport, Stats, SweepReport, VerifyReport
from chipmink._results import Diff, Version
from chipmink._staging import parse_size
from chipmink._storage import StorageOptions, as_text
from chipmink._transfer import Transfer, Watch, parse_limit, parse_refs, parse_since
from chipmink._transfer import watcher as transfer_watcher

__all__ = ["TAG", "StoredRepository", "names_of"]

#: Begins the names of those refs that are tags.
TAG = "tag/"
#: Seconds of a sweep that says nothing of its grace, as in the store.
_GRACE = 3600.0
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


class StoredRepository(abc.ABC):
    """What every repository can do with what it has stored."""

    @property
    @abc.abstractmethod
    def url(self) -> str:
        """Where the repository is."""

    @abc.abstractmethod
    def _usable(self) -> _chipmink.Handle:
        """The native side, or the reason why there is none."""

    @abc.abstractmethod
    def _number(self, version: int | str | None) -> int:
        """The number of a version; ``None`` is the newest."""

    def branch(self, name: str, version: int | str | None = None) -> None:
        """Begins a line of versions at a version; ``chipmink.open(place, ref=name)`` saves to it.

        ``None`` is the newest version of this repository object's own line.
        """
        if name.startswith(TAG):
            raise UnsupportedError(f"{name!r} cannot be the name of a branch: {TAG!r} begins the names of tags")
        if name.startswith(LINE):
            what = "the names of lines that hold what was saved of a cluster, which are not listed"
            raise UnsupportedError(f"{name!r} cannot be the name of a branch: {LINE!r} begins {what}")
        self._usable().create_ref(name, self._number(version))

    def tag(self, name: str, version: int | str | None = None) -> None:
        """Gives a version a name that stays with it; loads take that name instead of the number."""
        self._usable().create_ref(TAG + name, self._number(version))

    def delete_branch(self, name: str) -> None:
        """Takes a line's name away. Its versions stay."""
        if name.startswith(TAG):
            raise NotFoundError(f"there is no branch {name!r}; delete_tag takes tags away")
        self._usable().delete_ref(name)

    def delete_tag(self, name: str) -> None:
        """Takes a version's name away. The version stays."""
        self._usable().delete_ref(TAG + name)

    @property
    def branches(self) -> dict[str, int]:
        """The newest version of each line."""
        return {name: number for name, number in self._usable().refs().items() if not name.startswith((TAG, LINE))}

    @property
    def tags(self) -> dict[str, int]:
        """The version of each tag."""
        found = self._usable().refs().items()
        return {name.removeprefix(TAG): number for name, number in found if name.startswith(TAG)}

    def log(self, limit: int | None = None) -> list[Version]:
        """The versions of the repository, newest first; the newest ``limit`` if that is given."""
        if limit is not None and limit < 0:
            raise ValueError(f"limit is a number of versions, not {limit}")
        wanted = limit
        while True:
            read = self._versions(wanted)
            found = [version for version in read if not version.ref.startswith(LINE)]
            if limit is None or wanted is None or len(found) >= limit or len(read) < wanted:
                return found[:limit]
            # Lines of another kind stood between them.
            wanted *= 4

    def _versions(self, limit: int | None) -> list[Version]:
        versions = self._usable().log(limit)
        return [
            Version(
                number=number,
                ref=ref,
                message=message,
                saved_at=_EPOCH + datetime.timedelta(microseconds=micros),
                commit=commit,
                parents=tuple(parents),
                author=author,
            )
            for number, ref, message, micros, commit, parents, author in versions
        ]

    def diff(self, earlier: int | str, later: int | str) -> Diff:
        """Which variables differ between two versions. Nothing is loaded for it."""
        added, removed, changed = self._usable().diff(self._number(earlier), self._number(later))
        return Diff(tuple(added), tuple(removed), tuple(changed))

    def push(
        self,
        destination: str | os.PathLike[str] | StoredRepository,
        *,
        refs: Iterable[str] | str | None = None,
        since: int | datetime.datetime | None = None,
        names: Iterable[str] | None = None,
        mirror: bool = False,
        limit: int | str | None = None,
        verify: bool = True,
        progress: Watch = False,
        **storage: Unpack[StorageOptions],
    ) -> Transfer:
        """Brings the versions of this repository to another place, where one is made if there is none.

        What the versions name outside of themselves (values of a cluster, files that Spark has written) goes before them.
        Only what the destination lacks is moved, by several threads, each blob checked against its digest; what was written
        is read back before it becomes visible (``verify=False`` does without). Whatever interrupts it, the next call goes
        on. A new destination becomes a copy with the same numbers; in another repository a version gets a new number.

        ``refs`` are the branches, and tags as ``"tag/NAME"``, to carry (all of them if not given), each with another name in the
        destination if it is ``"NAME:OTHER"``. A branch that has newer versions there is left alone; one that went another way
        raises ``RefMovedError`` before anything is moved. ``mirror=True`` makes branches and tags there equal to those here
        instead, and takes away the others' names. ``since`` leaves out older versions (before that number, or that were
        saved before that time); ``names`` brings only these variables, with all that shares objects with them and what
        their functions read, as versions of their own. ``limit`` is a number of bytes per second, or text such as ``"10MB/s"``.
        ``progress`` is called with a ``TransferProgress`` every now and then; ``True`` shows a bar, if there is a terminal.
        """
        return self._transfer(destination, True, refs, since, names, mirror, limit, verify, progress, storage)

    def pull(
        self,
        source: str | os.PathLike[str] | StoredRepository,
        *,
        refs: Iterable[str] | str | None = None,
        since: int | datetime.datetime | None = None,
        names: Iterable[str] | None = None,
        mirror: bool = False,
        limit: int | str | None = None,
        verify: bool = True,
        progress: Watch = False,
        **storage: Unpack[StorageOptions],
    ) -> Transfer:
        """Brings versions of the repository at another place to this one; see ``push``.

        For later saves it is as if another program had saved them here: if the line of this repository object was moved,
        check a version of it out.
        """
        return self._transfer(source, False, refs, since, names, mirror, limit, verify, progress, storage)

    def _transfer(
        self,
        other: str | os.PathLike[str] | StoredRepository,
        push: bool,
        refs: Iterable[str] | str | None,
        since: int | datetime.datetime | None,
        names: Iterable[str] | None,
        mirror: bool,
        limit: int | str | None,
        verify: bool,
        progress: Watch,
        storage: StorageOptions,
    ) -> Transfer:
        handle = self._usable()
        end = self._end(other, storage)
        if end is None:
            raise TypeError("the other repository is a place, or a Repository, not None")
        first, saved_at = parse_since(since)
        wanted = None if names is None else names_of(names)
        if wanted == []:
            raise ValueError("names is empty, so versions without variables would be made; leave it out for all")
        call, finish = transfer_watcher(progress)
        try:
            done = handle.transfer(
                end,
                push,
                parse_refs(refs),
                first,
                saved_at,
                wanted,
                mirror,
                parse_limit(limit),
                verify,
                as_text(storage),
                call,
            )
        finally:
            finish()
        return Transfer(**{**done, "refs": tuple(done["refs"]), "ahead": tuple(done["ahead"])})

    def verify(self, *, full: bool = True) -> VerifyReport:
        """Reads the repository and returns what is wrong with it: ``report.ok`` says whether nothing is.

        Each byte of every pack and entry is compared with its digest or checksum. ``report.damaged`` says which objects are
        not what was written, ``report.lost`` which variables of which versions that costs. ``full=False`` looks at the
        structure of all packs and at the tables of the newest versions only.
        """
        return VerifyReport(**self._usable().verify(full))

    def repair(
        self, mirror: str | os.PathLike[str] | StoredRepository | None = None, **storage: Unpack[StorageOptions]
    ) -> RepairReport:
        """Replaces what is damaged by what is whole, from the place itself or from a mirror that holds the same versions.

        No file that is there is changed: what can be had goes to new packs. Only if nothing stays lost are the damaged packs
        given up; else they stay, so that what is whole in them loads, and a mirror may be found later. ``report.ok`` says
        whether all is well, ``report.after.lost`` what is not.
        """
        return RepairReport(**self._usable().repair(self._end(mirror, storage), as_text(storage)))

    def stats(self) -> Stats:
        """How much there is: versions, packs, blobs, and their bytes."""
        return Stats(**self._usable().stats())

    @staticmethod
    def _end(
        other: str | os.PathLike[str] | StoredRepository | None, storage: StorageOptions
    ) -> _chipmink.Handle | str | None:
        if not isinstance(other, StoredRepository):
            return None if other is None else os.fspath(other)
        if storage:
            raise TypeError(f"{next(iter(storage))} says how a place is reached, and this repository is open already")
        return other._usable()

    def sweep(
        self,
        *,
        keep_last: int | None = None,
        keep_every: int | Duration | None = None,
        keep_tagged: bool = True,
        max_bytes: int | str | None = None,
        older_than: Duration | None = None,
        drop: Iterable[int] = (),
        grace: Duration | None = None,
        dry_run: bool = False,
    ) -> SweepReport:
        """Drops versions, and gives back the room of what no version needs any more, while others go on saving.

        A version stays if any rule keeps it: the ``keep_last`` newest of each branch; with ``keep_every`` the newest of each branch
        of every such time (``"1d"``), or of every so many numbers (``10``); with ``keep_tagged`` those with a tag (else a
        tag goes with its version); with ``older_than`` those that are not older. Of these, ``max_bytes`` (``"10GiB"``) keeps the newest
        that fit. ``drop`` names versions that go whatever these rules say, unless they have a tag that counts. The newest version of
        each branch always stays, and without a rule all do; then a sweep only clears away what failed saves have left. Times are a ``timedelta`` or text, such as ``"45s"``, ``"30m"``, ``"12h"``, ``"7d"`` or ``"2w"``.

        Packs that nothing needs are condemned, and deleted by the first sweep after ``grace`` (an hour if not given), so that
        who still reads a dropped version can finish. ``dry_run=True`` changes nothing and says what would be done.
        """
        numbers = seconds = None
        if isinstance(keep_every, SupportsIndex):
            numbers = operator.index(keep_every)
        else:
            seconds = parse_duration(keep_every, "keep_every")
        if keep_last is not None and keep_last < 1:
            raise ValueError(f"keep_last is at least 1, not {keep_last}: the newest version of a branch always stays")
        if numbers is not None and numbers < 1:
            raise ValueError(f"keep_every is at least 1, not {numbers}")
        if seconds == 0:
            raise ValueError("keep_every must be longer than no time")
        if isinstance(drop, str):
            raise TypeError(f"versions to drop are given as a list of numbers, not as {drop!r}")
        dropped_numbers = [operator.index(number) for number in drop]
        if any(not 0 <= number < 1 << 64 for number in dropped_numbers):
            raise ValueError(f"versions to drop are given by their numbers, and one of {dropped_numbers} is none")
        seconds_left = parse_duration(grace, "grace")
        figures = self._usable().sweep(
            keep_last,
            numbers,
            seconds,
            keep_tagged,
            parse_size(max_bytes),
            parse_duration(older_than, "older_than"),
            dropped_numbers,
            seconds_left,
            dry_run,
        )
        released = 0 if dry_run else swept(self, _GRACE if seconds_left is None else seconds_left)
        tags = tuple(name.removeprefix(TAG) for name in figures.pop("refs_deleted"))
        dropped = tuple(figures.pop("versions_dropped"))
        return SweepReport(versions_dropped=dropped, tags_deleted=tags, released=released, **figures)


def names_of(names: Iterable[str]) -> list[str]:
    if isinstance(names, str):
        raise TypeError(f"names are given as a list of str: [{names!r}]")
    found = list(dict.fromkeys(names))
    for name in found:
        if not isinstance(name, str):
            raise TypeError(f"a name is a str, not {name!r}")
    return found
