"""What stands in for an object of a cluster or session that cannot be reached.

1. It is a placeholder: looking at it is free, and any use raises ``RemoteObjectLost``.
2. Saving it again saves the reference as it was, so a later load where the object can be reached brings it back.
"""

from __future__ import annotations

from typing import Any, NoReturn

from chipmink._errors import PlaceholderError, RemoteObjectLost
from chipmink._placeholder import Placeholder
from chipmink._remote import RemoteReference, make_reference

__all__ = ["LostReference", "reference_of"]


class _MissingAttribute(RemoteObjectLost, AttributeError):
    """So that ``hasattr`` and ``getattr`` with a default keep working."""


class _Explained(type):
    def __repr__(cls) -> str:
        # Libraries that take handles only, such as Ray, name the type of what they were given.
        return "<chipmink placeholder for what is lost: its repr says what, and why>"


class LostReference(Placeholder, metaclass=_Explained):
    """A reference that could not be resolved when it was loaded, and why."""

    __slots__ = ("_chipmink_again_", "_chipmink_reference_")

    def __init__(self, reference: RemoteReference, reason: str, again: tuple[Any, ...] | None = None) -> None:
        super().__init__(reference.kind, reference.type_name, reason)
        object.__setattr__(self, "_chipmink_reference_", reference)
        # As what it was saved, and is saved again.
        object.__setattr__(self, "_chipmink_again_", again or (make_reference, reference.stored()))

    def __repr__(self) -> str:
        return f"<chipmink placeholder for {reference_of(self)}: {_reason(self)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        again: tuple[Any, ...] = object.__getattribute__(self, "_chipmink_again_")
        return again

    def _chipmink_refuse_(self, what: str, error: type[PlaceholderError] = PlaceholderError) -> NoReturn:
        kind = RemoteObjectLost if error is PlaceholderError else _MissingAttribute
        raise kind(f"{what}: {reference_of(self)} is lost: {_reason(self)}")


def reference_of(placeholder: LostReference) -> RemoteReference:
    """The reference that a placeholder stands for."""
    found: RemoteReference = object.__getattribute__(placeholder, "_chipmink_reference_")
    return found


def _reason(placeholder: LostReference) -> str:
    fields: tuple[str, str, str, str] = object.__getattribute__(placeholder, "_chipmink_placeholder_")
    return fields[2]
