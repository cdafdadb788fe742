"""The errors of chipmink, grouped by what a handler would do next.

Each is also the fitting builtin, and carries a stable ``kind`` by which a program (or the command's ``--json``) can
tell it apart without reading the message.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BusyError",
    "ChipminkError",
    "ClosedError",
    "DamagedError",
    "DeviceWarning",
    "NotAllowedError",
    "NotFoundError",
    "OutcomeUnknownError",
    "PlaceholderError",
    "RefMovedError",
    "RemoteObjectLost",
    "RemoteReferenceWarning",
    "SkippedVariableWarning",
    "StorageError",
    "UnsavedChangesError",
    "UnsteadyVariableWarning",
    "UnsupportedError",
]


class ChipminkError(Exception):
    """Anything that chipmink reports; catch this to catch all of them."""

    kind: ClassVar[str] = "error"


class NotFoundError(ChipminkError, KeyError):
    """There is no such version, variable or ref."""

    kind = "not-found"

    # KeyError shows the repr of its argument, which makes a sentence hard to read.
    __str__ = Exception.__str__


class DamagedError(ChipminkError, ValueError):
    """Stored bytes are not what was written, or are no chipmink bytes at all."""

    kind = "damaged"


class RefMovedError(ChipminkError, RuntimeError):
    """Another writer has moved the ref since this repository object last saw it; nothing was saved, nothing is lost."""

    kind = "ref-moved"


class OutcomeUnknownError(ChipminkError, RuntimeError):
    """The store stopped answering while a version was being published: it may or may not exist."""

    kind = "outcome-unknown"


class StorageError(ChipminkError, OSError):
    """The place that holds the repository failed: disk full, no permission, connection lost."""

    kind = "storage"


class UnsavedChangesError(ChipminkError, RuntimeError):
    """A checkout would overwrite objects that no version holds."""

    kind = "unsaved-changes"


class PlaceholderError(ChipminkError, TypeError):
    """An object that could not be saved was used; its placeholder says why it is not there."""

    kind = "placeholder"


class RemoteObjectLost(PlaceholderError, LookupError):
    """What a reference stood for in a cluster or session cannot be reached: it says which, whose, why, and what to do.

    A rule that resolves references raises it with why, and what to do; then the reference loads as a placeholder.
    """

    kind = "remote-object-lost"


class UnsupportedError(ChipminkError, TypeError):
    """This object, this stream or this request is beyond what chipmink can do, and says so rather than guess."""

    kind = "unsupported"


class NotAllowedError(ChipminkError, PermissionError):
    """A restricted load met a name that its allowlist does not grant; nothing of it was called."""

    kind = "not-allowed"


class ClosedError(ChipminkError, RuntimeError):
    """The repository object was closed, or was opened by the process that this one was forked from."""

    kind = "closed"


class BusyError(ChipminkError, RuntimeError):
    """A save was begun while another save of the same repository object was running in the same thread."""

    kind = "busy"


class DeviceWarning(UserWarning):
    """Memory of a device was brought to the host, since the device is not there or cannot be used."""


class SkippedVariableWarning(UserWarning):
    """A variable, or an object inside one, could not be saved."""


class RemoteReferenceWarning(UserWarning):
    """References to objects of a cluster or session were saved that may not be resolved later."""


class UnsteadyVariableWarning(UserWarning):
    """A variable was changed by another thread again and again while it was saved."""
