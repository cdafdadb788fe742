"""Classes with slots that importing finds."""

from __future__ import annotations

import dataclasses
from typing import Any

__all__ = [
    "Base",
    "Both",
    "Derived",
    "Frozen",
    "FrozenWithMore",
    "Hidden",
    "Hooked",
    "Mutable",
    "Nothing",
    "Overridden",
    "Private",
    "Weak",
]


class Base:
    __slots__ = ("b", "a")


class Derived(Base):
    __slots__ = ("c",)


class Both(Base):
    """Slots and a dict."""


class Weak:
    __slots__ = ("__dict__", "__weakref__", "x")


class Nothing:
    __slots__ = ()


class Private:
    __slots__ = ("__secret", "shown")

    def __init__(self, secret: Any) -> None:
        self.__secret = secret

    def secret(self) -> Any:
        return self.__secret


class Sub(Private):
    __slots__ = ("__secret",)

    def __init__(self, secret: Any, own: Any) -> None:
        super().__init__(secret)
        self.__secret = own

    def own(self) -> Any:
        return self.__secret


class Hidden(Base):
    """Its base's slot cannot be reached under its name."""

    __slots__ = ("a",)


class Overridden:
    __slots__ = ("x", "y")

    def __getstate__(self) -> Any:
        return None, {"x": self.x * 2}


class Hooked:
    __slots__ = ("x",)

    def __reduce__(self) -> Any:
        return Hooked, (), (None, {"x": "reduced"})


@dataclasses.dataclass(slots=True)
class Mutable:
    x: Any
    y: Any = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: Any
    y: Any = 2


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenWithMore(Derived):
    """Slots of a base that are no fields, which its own state leaves out."""

    x: Any = 1
