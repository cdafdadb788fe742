"""Objects of Spark: frames, sessions and functions of PySpark, classic and Connect.

Importing this module imports no part of PySpark.
"""

from __future__ import annotations

__all__: list[str] = []
