"""Values: immutable descriptions, such as the types of columns, that are written anew in each pod, as atoms are.

Libraries share them at will (pyarrow has one object for each simple type), so they must not connect variables, and after a
load equal ones may be one object or several. A rule says with which call a value is made again.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable
from typing import Any

from chipmink._markers import Value, place_of

__all__ = ["RULES", "NotAValue", "described", "value_of"]


class NotAValue(Exception):
    """An object, or something that it is made of, is not one that a few atoms describe."""


_ATOMS = frozenset({bool, bytes, complex, float, int, str, type(None)})


def described(thing: Any) -> Any:
    """``thing`` itself if it is made of atoms and importable classes, else with a ``Value`` for each value in it.

    Raises ``NotAValue`` if it is made of anything else.
    """
    kind = type(thing)
    if kind in _ATOMS:
        if kind in (str, bytes) and len(thing) > _LONGEST:
            raise NotAValue
        return thing
    if kind is tuple or kind is list:
        return kind(described(item) for item in thing)
    if kind is dict:
        return {described(key): described(value) for key, value in thing.items()}
    if kind is type and getattr(sys.modules.get(place_of(thing)[0]), thing.__qualname__, None) is thing:
        return thing
    rule = RULES.get(place_of(kind))
    found = None if rule is None else rule(thing)
    if found is None:
        raise NotAValue
    return found


# In units of length; well below what would leave a pod as a region.
_LONGEST = 4096


def value_of(thing: Any) -> Value | None:
    """How a value is made again; ``None`` if this one is to be saved as other objects are."""
    try:
        found = described(thing)
    except NotAValue:
        return None
    return found if type(found) is Value else None


def _time_zone(zone: datetime.timezone) -> Value | None:
    return Value("datetime:timezone.utc") if zone is datetime.timezone.utc else None


def _zone_info(zone: Any) -> Value | None:
    # The process has one for each key; another of that key is an object of its own.
    if type(zone.key) is not str or type(zone)(zone.key) is not zone:
        return None
    return Value("zoneinfo:ZoneInfo", (zone.key,))


RULES: dict[tuple[str, str], Callable[[Any], Value | None]] = {
    ("datetime", "timezone"): _time_zone,
    ("zoneinfo", "ZoneInfo"): _zone_info,
}
"""By module and name of the exact type, so that nothing has to be imported for it."""
