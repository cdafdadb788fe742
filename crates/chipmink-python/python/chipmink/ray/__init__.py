"""Objects of Ray: what was pinned for repositories.

Importing this module imports no part of Ray.
"""

from __future__ import annotations

from chipmink.ray._keeper import Pin, pins

__all__ = ["Pin", "pins"]
