"""What stands in for an object that could not be saved.

1. Looking at a placeholder is free: ``repr``, ``type``, hashing, comparison by identity, copying and saving it again.
2. Any other use raises ``PlaceholderError`` with the path, the type, the reason and what to do.
3. Loading one has no effect on the outside world: nothing is opened, connected, started or run.
"""

from __future__ import annotations

from typing import Any, NoReturn

from chipmink._errors import PlaceholderError

__all__ = ["Placeholder"]


class _MissingAttribute(PlaceholderError, AttributeError):
    """So that ``hasattr`` and ``getattr`` with a default keep working on a placeholder."""


class Placeholder:
    """An object that is not in the version, and why.

    ``kind`` groups what it was ("file", "thread", "variable" ...), ``type_name`` is the module and name of its type,
    ``reason`` one line on why it was not saved, ``path`` where it was met, from the variable on.
    """

    # No public attributes: whatever a program asks the lost object for must explain itself.
    __slots__ = ("__weakref__", "_chipmink_placeholder_")

    def __init__(self, kind: str, type_name: str, reason: str, path: str = "") -> None:
        object.__setattr__(self, "_chipmink_placeholder_", (kind, type_name, reason, path))

    def __repr__(self) -> str:
        kind, type_name, reason, path = _fields(self)
        where = f" at {path}" if path else ""
        return f"<chipmink placeholder for a {type_name} ({kind}){where}: {reason}>"

    def __copy__(self) -> Placeholder:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Placeholder:
        return self

    def __reduce__(self) -> tuple[type[Placeholder], tuple[str, str, str, str]]:
        return Placeholder, _fields(self)

    def __getattr__(self, name: str) -> NoReturn:
        self._chipmink_refuse_(f"cannot get attribute {name!r}", _MissingAttribute)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        self._chipmink_refuse_(f"cannot set attribute {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        self._chipmink_refuse_(f"cannot delete attribute {name!r}")

    def _chipmink_refuse_(self, what: str, error: type[PlaceholderError] = PlaceholderError) -> NoReturn:
        raise error(_explain(self, what))


def _fields(placeholder: Placeholder) -> tuple[str, str, str, str]:
    fields: tuple[str, str, str, str] = object.__getattribute__(placeholder, "_chipmink_placeholder_")
    return fields


def _explain(placeholder: Placeholder, what: str) -> str:
    _kind, type_name, reason, path = _fields(placeholder)
    where = f"{path!r}" if path else "here"
    return f"{what}: the {type_name} that stood {where} was not saved ({reason}); make it anew and assign it"


def _refusal(name: str) -> Any:
    operation = name.strip("_")

    def refuse(self: Placeholder, *_args: object, **_kwargs: object) -> NoReturn:
        self._chipmink_refuse_(f"cannot use it for {operation!r}")

    refuse.__name__ = name
    refuse.__qualname__ = f"Placeholder.{name}"
    return refuse


_NUMBERS = "add sub mul matmul truediv floordiv mod divmod pow lshift rshift and xor or".split()
_REFUSED = [
    *_NUMBERS,
    *(f"r{name}" for name in _NUMBERS),
    *(f"i{name}" for name in _NUMBERS if name != "divmod"),
    *"lt le gt ge neg pos abs invert int float complex index round trunc floor ceil bool bytes".split(),
    *"call len length_hint getitem setitem delitem contains iter next reversed".split(),
    *"enter exit aenter aexit await aiter anext fspath".split(),
]
for _name in _REFUSED:
    setattr(Placeholder, f"__{_name}__", _refusal(f"__{_name}__"))
del _name
