"""Live classes that a load may use again, because they equal the stored ones.

Those of ``__main__``, and those that were saved by value in this process: a save notes each whose bytes it makes. They are
held weakly.
"""

from __future__ import annotations

import sys
import weakref
from typing import Any

__all__ = ["known_classes", "live_namespace", "note_class"]

# By address: a metaclass may make its classes unhashable.
_known: dict[int, weakref.ref[type]] = {}


def note_class(cls: type) -> None:
    """Remembers a class as one that is saved by value."""
    key = id(cls)
    if key not in _known:
        # The address is free for another class only after the callback has run.
        _known[key] = weakref.ref(cls, lambda _dead: _known.pop(key, None))


def known_classes() -> list[type]:
    """The classes that are still alive, the one noted last first."""
    return [cls for cls in (reference() for reference in reversed(list(_known.values()))) if cls is not None]


def live_namespace() -> dict[str, Any]:
    """The namespace whose classes a load looks at: that of the program."""
    main = sys.modules.get("__main__")
    return {} if main is None else vars(main)
