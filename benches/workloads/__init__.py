"""What is saved: object graphs (`micro`) and sessions that change a namespace step by step (the other modules).

A session is a generator function of a tracked namespace and a scale; it yields a label after each step, and the harness
saves there. Everything is fetched from the namespace in the step that uses it, so that the names a step touched are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

Session = Callable[["Tracked", float], Iterator[str]]


class Tracked(MutableMapping[str, Any]):
    """A namespace that notes which names were read, bound or deleted since `take` was last called."""

    def __init__(self) -> None:
        self.plain: dict[str, Any] = {}
        self._touched: set[str] = set()

    def take(self) -> list[str]:
        """The names touched since the last call."""
        touched, self._touched = sorted(self._touched), set()
        return touched

    def __getitem__(self, name: str) -> Any:
        self._touched.add(name)
        return self.plain[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._touched.add(name)
        self.plain[name] = value

    def __delitem__(self, name: str) -> None:
        self._touched.add(name)
        del self.plain[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.plain)

    def __len__(self) -> int:
        return len(self.plain)


def sessions() -> dict[str, tuple[Session, float]]:
    """Whole sessions by name, each with the scale at which it is measured."""
    from benches.workloads import frames, objects, texts

    return {
        "eda": (frames.eda, 0.2),
        "tweets": (texts.tweets, 0.1),
        "deep": (objects.deep, 0.1),
        "graph": (objects.graph, 0.2),
    }
