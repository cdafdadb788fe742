"""Objects of Ray: what was pinned for repositories, and checkpoints of Ray Train and Tune.

Importing this module imports no part of Ray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chipmink.ray._keeper import Pin, pins

if TYPE_CHECKING:
    from chipmink.ray._train import checkpoint_of, download, restore, upload_to

__all__ = ["Pin", "checkpoint_of", "download", "pins", "restore", "upload_to"]


def __getattr__(name: str) -> Any:
    # It needs repositories, which need the rules of this package.
    if name in ("checkpoint_of", "download", "restore", "upload_to"):
        from chipmink.ray import _train

        return getattr(_train, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
