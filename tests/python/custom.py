"""A class whose reducer each test chooses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["Custom", "rebuilt", "reduced_by"]


class Custom:
    """Saves itself as a function says; the function is set on the class for the length of a test."""

    reducer: Callable[[Any], Any] = object.__reduce__

    def __init__(self, content: Any = None):
        self.content = content

    def __reduce__(self) -> Any:
        return Custom.reducer(self)


@contextlib.contextmanager
def reduced_by(reducer: Callable[[Any], Any]) -> Iterator[None]:
    before, Custom.reducer = Custom.reducer, staticmethod(reducer)  # type: ignore[assignment]
    try:
        yield
    finally:
        Custom.reducer = before


def rebuilt(content: Any) -> Custom:
    return Custom(content)
