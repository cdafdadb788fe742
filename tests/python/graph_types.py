"""Classes of which the random graphs are made: one for each way in which an object can say how it is saved.

They are importable by name, so that other processes can load what was saved; classes by value have tests of their own.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
from typing import Any, NamedTuple


class Plain:
    """Attributes in `__dict__`, nothing said about saving."""


class Sibling:
    """Same layout as `Plain`; an instance may change from one class to the other."""


class Slotted:
    """Attributes in slots only; some stay unset."""

    __slots__ = ("left", "right", "extra")


class SlottedDict(Slotted):
    """Slots of a base and a dict."""


@dataclasses.dataclass
class Record:
    """A dataclass: compared by value, so not hashable."""

    number: int
    content: Any = None
    more: list[Any] = dataclasses.field(default_factory=list)


class Key:
    """Hashed by state that a load has to restore first; `content` may lead back to the dict or set that holds it."""

    def __init__(self, ident: int, content: Any = None):
        self.content = content  # before `ident`: a load in order of attributes meets the cycle first
        self.ident = ident

    def __hash__(self) -> int:
        return hash((Key, self.ident))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self.ident == other.ident


class SlottedKey:
    """As `Key`, with slots."""

    __slots__ = ("content", "ident")

    def __init__(self, ident: int, content: Any = None):
        self.content = content
        self.ident = ident

    def __hash__(self) -> int:
        return hash((SlottedKey, self.ident))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SlottedKey) and self.ident == other.ident


@dataclasses.dataclass(frozen=True)
class FrozenPoint:
    """A value: hashed by its fields, which are atoms."""

    x: int
    y: str


class Pair(NamedTuple):
    """A tuple with a class."""

    first: Any
    second: Any


class Colour(enum.Enum):
    """Saved by name."""

    RED = 1
    GREEN = "green"


class Bits(enum.Flag):
    """Combinations are made on demand."""

    A = 1
    B = 2
    C = 4


class ListChild(list[Any]):
    """A list with attributes."""


class DictChild(dict[Any, Any]):
    """A dict with attributes."""


class TupleChild(tuple[Any, ...]):
    """A tuple with attributes."""


class SetChild(set[Any]):
    """A set with attributes."""


class StrChild(str):
    """A str with attributes: not an exact atom, so its identity counts."""


class IntChild(int):
    """An int with attributes."""


class Reduced:
    """Built from reduce arguments; the list among them may lead back to the object itself."""

    def __init__(self, items: list[Any], label: str):
        self.items = items
        self.label = label

    def __reduce__(self) -> Any:
        return (Reduced, (self.items, self.label))


class ReducedWithState:
    """Arguments, and state that is set by `__setstate__`."""

    def __init__(self, number: int):
        self.number = number
        self.content: Any = None

    def __reduce__(self) -> Any:
        return (ReducedWithState, (self.number,), {"wrapped": self.content})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.content = state["wrapped"]


class ReducedAll:
    """All six elements of a reduce value."""

    def __init__(self, number: int):
        self.number = number
        self.list_items: list[Any] = []
        self.dict_items: dict[Any, Any] = {}
        self.content: Any = None

    def append(self, item: Any) -> None:
        self.list_items.append(item)

    def extend(self, items: Any) -> None:
        self.list_items.extend(items)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.dict_items[key] = value

    def __reduce__(self) -> Any:
        return (ReducedAll, (self.number,), {"content": self.content}, iter(self.list_items), iter(self.dict_items.items()), set_state)


def set_state(instance: Any, state: dict[str, Any]) -> None:
    """The sixth element of `ReducedAll`."""
    instance.content = state["content"]


class WithNewArgs(tuple[Any, ...]):
    """`__getnewargs_ex__` with keywords, over a builtin base."""

    def __new__(cls, *, number: int) -> WithNewArgs:
        self = super().__new__(cls, (number, -number))
        self.content = None  # type: ignore[attr-defined]
        return self

    def __getnewargs_ex__(self) -> Any:
        return (), {"number": self[0]}


class WithGetState:
    """State that is a tuple, not a dict."""

    def __init__(self, content: Any = None, note: str = ""):
        self.content = content
        self.note = note

    def __getstate__(self) -> Any:
        return (self.note, self.content)

    def __setstate__(self, state: Any) -> None:
        self.content = state[1]
        self.note = state[0]


class OrderedChild(collections.OrderedDict[Any, Any]):
    """An ordered dict whose order is kept in C beside the dict."""
