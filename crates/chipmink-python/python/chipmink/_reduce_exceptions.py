"""Reducers for exceptions: made again without calling an ``__init__`` of the program's own, which may take other arguments
than the exception keeps; and with what they were raised from. Tracebacks belong to the calls, and are not kept.
"""

from __future__ import annotations

import builtins
import copyreg
from typing import Any

from chipmink import _rebuild
from chipmink._markers import Context

__all__ = ["BY_NAME"]

# Py_TPFLAGS_HEAPTYPE, from CPython's Include/object.h: unset for the types that the interpreter is built with.
_HEAP_TYPE = 1 << 9

# Those that keep more than ``args``, which their own ``__init__`` sets.
_WITH_FIELDS = (
    *(AttributeError, BaseExceptionGroup, ImportError, NameError, OSError, StopIteration, SyntaxError, SystemExit),
    UnicodeError,
)


def reduce_exception(error: BaseException, ctx: Context) -> Any:
    """What it says itself, with slots and what it was raised from; its ``__init__`` is not called again."""
    kind = type(error)
    reduced: Any = error.__reduce_ex__(5)
    is_usual = type(reduced) is tuple and 2 <= len(reduced) <= 3 and reduced[0] is kind
    if not is_usual or kind.__setstate__ is not BaseException.__setstate__:
        return reduced
    made = reduced[:2]
    static = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE)
    own_new = kind.__new__ is not static.__new__
    slots: dict[str, Any] = {}
    if own_new or kind.__init__ is not static.__init__:  # type: ignore[misc]
        slots = {name: getattr(error, name) for name in copyreg._slotnames(kind) if hasattr(error, name)}  # type: ignore[attr-defined]
        if own_new or issubclass(static, _WITH_FIELDS):
            made = _rebuild.make_exception, made
        else:
            made = copyreg.__newobj__, (kind, *made[1])  # type: ignore[attr-defined]
    raised = (error.__cause__, error.__context__, error.__suppress_context__)
    if not slots and raised == (None, None, False):
        return (*made, *reduced[2:])
    state = reduced[2] if len(reduced) == 3 else None
    return (*made, (state, slots, *raised), None, None, _rebuild.exception_setstate)


# Where a base says itself how it is pickled, its subclasses are compared with that.
BY_NAME: dict[tuple[str, str], Any] = {
    ("builtins", name): reduce_exception
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, BaseException) and "__reduce__" in vars(kind)
}
