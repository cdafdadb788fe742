"""Objects of Ray: what a save does with references to them.

Importing this module imports no part of Ray.
"""

from __future__ import annotations

__all__: list[str] = []
