"""Which names byte code looks up in its globals, read off the instructions of CPython 3.11 to 3.13."""

from __future__ import annotations

import opcode
from types import CodeType

# LOAD_NAME stands in class bodies, which fall back to the globals; the *_FROM_DICT_* forms (3.12) likewise.
_PLAIN = {
    opcode.opmap[name]
    for name in ("STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
    if name in opcode.opmap
}
# Its lowest bit says whether a NULL is pushed as well; the name follows above it (since 3.11).
_LOAD_GLOBAL = opcode.opmap["LOAD_GLOBAL"]
_EXTENDED = opcode.opmap["EXTENDED_ARG"]
_WANTED = bytes(sorted({_LOAD_GLOBAL, *_PLAIN}))


def global_names(code: CodeType) -> list[str]:
    """The names, in order of first use, of this code object alone."""
    instructions = code.co_code
    operations = instructions[::2]
    if not any(operation in operations for operation in _WANTED):
        return []
    arguments = instructions[1::2]
    found: dict[str, None] = {}
    extended = 0
    for operation, argument in zip(operations, arguments, strict=True):
        argument |= extended
        extended = 0
        if operation == _LOAD_GLOBAL:
            found.setdefault(code.co_names[argument >> 1])
        elif operation in _PLAIN:
            found.setdefault(code.co_names[argument])
        elif operation == _EXTENDED:
            extended = argument << 8
    return list(found)
