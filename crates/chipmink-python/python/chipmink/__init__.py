"""A persistence runtime for Python object graphs: saves what changed, brings back any variable of any version.

::

    import chipmink

    repo = chipmink.open("checkpoints")
    t1 = repo.save({"df": df, "model": model})
    model = repo.load(t1, names=["model"])["model"]

``chipmink.torch``, which keeps checkpoints of training runs, is imported when it is first used.
"""

import importlib
from typing import Any

from chipmink._chipmink import __version__
from chipmink._doctor import Facility, Health, doctor
from chipmink._errors import (
    BusyError,
    ChipminkError,
    ClosedError,
    DamagedError,
    DeviceWarning,
    NotAllowedError,
    NotFoundError,
    OutcomeUnknownError,
    PlaceholderError,
    RefMovedError,
    RemoteObjectLost,
    RemoteReferenceWarning,
    SkippedVariableWarning,
    StorageError,
    UnsavedChangesError,
    UnsteadyVariableWarning,
    UnsupportedError,
)
from chipmink._lazy import LazyVersion
from chipmink._placeholder import Placeholder
from chipmink._reducers import Stub
from chipmink._reducers import register as register_reducer
from chipmink._reports import Damage, Lost, RepairReport, Stats, SweepReport, VerifyReport
from chipmink._remote import RemoteReference, RemoteSummary, register_handle, time_limit
from chipmink._repository import Repository, open
from chipmink._results import Diff, Report, Saved, Skipped, Version
from chipmink._staging import Status
from chipmink._stream import dump, dumps, load, loads
from chipmink._transfer import Transfer, TransferProgress

__all__ = [
    "BusyError",
    "ChipminkError",
    "ClosedError",
    "Damage",
    "DamagedError",
    "DeviceWarning",
    "Diff",
    "Facility",
    "Health",
    "LazyVersion",
    "Lost",
    "NotAllowedError",
    "NotFoundError",
    "OutcomeUnknownError",
    "Placeholder",
    "PlaceholderError",
    "RefMovedError",
    "RemoteObjectLost",
    "RemoteReference",
    "RemoteReferenceWarning",
    "RemoteSummary",
    "RepairReport",
    "Report",
    "Repository",
    "Saved",
    "Skipped",
    "SkippedVariableWarning",
    "Stats",
    "Status",
    "StorageError",
    "Stub",
    "SweepReport",
    "Transfer",
    "TransferProgress",
    "UnsavedChangesError",
    "UnsteadyVariableWarning",
    "UnsupportedError",
    "VerifyReport",
    "Version",
    "__version__",
    "doctor",
    "dump",
    "dumps",
    "load",
    "loads",
    "open",
    "register_handle",
    "register_reducer",
    "time_limit",
]


def __getattr__(name: str) -> Any:
    if name == "torch":
        return importlib.import_module("chipmink.torch")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
