"""A persistence runtime for Python object graphs: saves what changed, brings back any variable of any version.

::

    import chipmink

    repo = chipmink.open("checkpoints")
    t1 = repo.save({"df": df, "model": model})
    model = repo.load(t1, names=["model"])["model"]
"""

from chipmink._chipmink import __version__
from chipmink._errors import (
    BusyError,
    ChipminkError,
    ClosedError,
    DamagedError,
    NotAllowedError,
    NotFoundError,
    OutcomeUnknownError,
    PlaceholderError,
    RefMovedError,
    SkippedVariableWarning,
    StorageError,
    UnsavedChangesError,
    UnsteadyVariableWarning,
    UnsupportedError,
)
from chipmink._placeholder import Placeholder
from chipmink._reducers import Stub
from chipmink._reducers import register as register_reducer
from chipmink._repository import LazyVersion, Repository, open
from chipmink._results import Diff, Report, Saved, Skipped, SweepReport, Version
from chipmink._staging import Status
from chipmink._stream import dump, dumps, load, loads

__all__ = [
    "BusyError",
    "ChipminkError",
    "ClosedError",
    "DamagedError",
    "Diff",
    "LazyVersion",
    "NotAllowedError",
    "NotFoundError",
    "OutcomeUnknownError",
    "Placeholder",
    "PlaceholderError",
    "RefMovedError",
    "Report",
    "Repository",
    "Saved",
    "Skipped",
    "SkippedVariableWarning",
    "Status",
    "StorageError",
    "Stub",
    "SweepReport",
    "UnsavedChangesError",
    "UnsteadyVariableWarning",
    "UnsupportedError",
    "Version",
    "__version__",
    "dump",
    "dumps",
    "load",
    "loads",
    "open",
    "register_reducer",
]
