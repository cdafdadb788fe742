"""What the tests of reducers share."""

from __future__ import annotations

import textwrap

__all__ = ["public", "run"]


def run(source: str, name: str = "__main__") -> dict:
    """The globals after running a script that no import finds again."""
    namespace: dict = {"__name__": name}
    exec(compile(textwrap.dedent(source), f"<{name}>", "exec"), namespace)
    return namespace


def public(cls: type) -> dict:
    """The attributes of a class, without the note that copyreg leaves in it."""
    return {name: value for name, value in cls.__dict__.items() if name != "__slotnames__"}
