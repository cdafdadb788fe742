"""A repository as a place of variables: making those of its versions again.

A load has no effect on anything that is live.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from chipmink import _chipmink
from chipmink._asynchronous import load_in_thread
from chipmink._device import placing
from chipmink._lazy import LazyVersion
from chipmink._live import live_namespace
from chipmink._remote import resolving
from chipmink._stored import StoredRepository, names_of
from chipmink._stream import Allow

__all__ = ["LoadingRepository"]


class LoadingRepository(StoredRepository):
    """What every repository can load."""

    def load(
        self,
        version: int | str | None = None,
        names: Iterable[str] | None = None,
        *,
        allow: Allow | None = None,
        as_refs: bool = False,
        as_pandas: bool = False,
        map_location: Any = None,
    ) -> dict[str, Any]:
        """Makes the variables of a version again: all of them, or those named, with what they share still shared.

        ``None`` is the newest version, a str the one of a tag or the newest of a branch. Functions of the saved namespace are
        bound to the dict that is returned; if ``names`` leaves out variables that they read, these are loaded too and the
        functions are bound to a dict of their own. ``allow`` restricts what may be imported and called, as in
        ``chipmink.loads``. What was saved with ``remote="materialize"`` loads as its values; with ``as_refs`` these go back to
        the cluster, and references to them are loaded. Of Spark's frames these are frames of the active session, or with
        ``as_pandas`` of pandas.
        Tensors and arrays of a device go back to it, or where ``map_location`` says: a device, a dict of devices, or a function of
        the device's name; what has no such device here stays on the host, with a ``DeviceWarning``.
        """
        wanted = None if names is None else names_of(names)
        return self._load(self._number(version), wanted, allow, as_refs, as_pandas, map_location)

    def _load(
        self,
        number: int,
        names: list[str] | None,
        allow: Allow | None = None,
        as_refs: bool = False,
        as_pandas: bool = False,
        map_location: Any = None,
        into: _chipmink.Loaded | None = None,
        cancel: _chipmink.Cancel | None = None,
    ) -> dict[str, Any]:
        """As ``load``. Who passes ``into`` sees to the checks of what is mapped."""
        handle = self._usable()
        namespace: dict[str, Any] = {}

        def load() -> list[tuple[str, Any]]:
            return handle.load(number, names, namespace, allow, live_namespace(), into, cancel)

        with placing(map_location):
            # Functions are made before the variables are there; the dict they are bound to gets each as it is made.
            loaded = resolving(load, self, as_refs, as_pandas, allow)
        # In their order.
        namespace.clear()
        namespace.update(loaded)
        if names is None or len(loaded) == len(names):
            return namespace
        # What is only read stands behind what was asked for.
        return dict(loaded[: len(names)])

    async def aload(
        self,
        version: int | str | None = None,
        names: Iterable[str] | None = None,
        *,
        allow: Allow | None = None,
        as_refs: bool = False,
        as_pandas: bool = False,
        map_location: Any = None,
    ) -> dict[str, Any]:
        """As ``load``, in a thread, so that the event loop goes on meanwhile. If the task is cancelled, the load ends with
        what it is reading."""
        wanted = None if names is None else names_of(names)
        return await load_in_thread(
            lambda cancel: self._load(self._number(version), wanted, allow, as_refs, as_pandas, map_location, None, cancel)
        )

    def at(self, version: int | str | None = None, *, allow: Allow | None = None, map_location: Any = None) -> LazyVersion:
        """A read-only mapping of the variables of a version, each loaded when it is first asked for.

        Variables taken from one such mapping share with each other what they shared when they were saved.
        """
        self._usable()
        return LazyVersion(self, self._number(version), allow, map_location)

    def names(self, version: int | str | None = None) -> list[str]:
        """The names of a version, in the order of the namespace."""
        return self._usable().names(self._number(version))
