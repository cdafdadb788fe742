"""Lengths of time, as people write them."""

from __future__ import annotations

import datetime
import re

__all__ = ["Duration", "parse_duration"]

#: A ``timedelta``, or text such as ``"12h"``.
Duration = datetime.timedelta | str

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_duration(duration: Duration | None, name: str) -> float | None:
    """Seconds; ``name`` is what errors call the argument."""
    if duration is None:
        return None
    if isinstance(duration, datetime.timedelta):
        seconds = duration.total_seconds()
    else:
        found = re.fullmatch(r"(\d{1,12})([smhdw])", duration) if isinstance(duration, str) else None
        if found is None:
            raise ValueError(f'{name} is a timedelta or text such as "45s", "30m", "12h", "7d" or "2w", not {duration!r}')
        seconds = float(int(found[1]) * _UNITS[found[2]])
    if seconds < 0:
        raise ValueError(f"{name} cannot be negative: {duration!r}")
    return seconds
