"""Reducers for functions that no import finds, and for what they are made of.

1. Equal functions reduce to equal bytes in every process: no addresses, no ids, no order of a set. File names and line
   numbers are wrapped in ``Side``.
2. A function of the saved namespace is bound to the namespace that it is loaded into; a function whose globals are
   those of an importable module to that module; one whose globals are a dict that is saved itself to that dict; any other
   brings the globals that it reads.
3. Cells are objects of their own, so functions that share one keep sharing it, and recursion runs through them.
"""

from __future__ import annotations

import builtins
import functools
import sys
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from chipmink import _rebuild
from chipmink._markers import NAMESPACE, CapturedGlobals, Context, Side, code_names
from chipmink.spark import _references as _spark

__all__ = ["REDUCERS", "importable_name"]


def importable_name(obj: Any) -> str | None:
    """The qualified name under which importing an object's module finds this very object, if it does."""
    module_name = getattr(obj, "__module__", None)
    qualname = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
    if type(module_name) is not str or type(qualname) is not str or module_name == "__main__":
        return None
    found: Any = sys.modules.get(module_name)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return qualname if found is obj else None


def reduce_function(function: FunctionType, ctx: Context) -> tuple[Any, ...]:
    """By value: code, globals, name and cells make it; the rest is state."""
    if (udf := _spark.udf_of(function)) is not None:
        return _spark.make_udf_wrapper, (udf,)
    code = function.__code__
    read = code_names(code)
    state: dict[str, Any] = {"module": _fresh(function.__module__)}
    globals_dict = function.__globals__
    source: Any
    if globals_dict is ctx.namespace:
        source = NAMESPACE
        ctx.add_names(tuple(name for name in read if name in globals_dict or not hasattr(builtins, name)))
    elif (module := importable_module(globals_dict)) is not None:
        source = module_globals(module)
    elif ctx.has_met_globals:
        source = globals_dict
    else:
        source = ctx.captured_globals(function)
        captured = {name: globals_dict[name] for name in read if name in globals_dict and name != "__builtins__"}
        if captured:
            state["globals"] = captured
    name = function.__name__
    _attributes(function, code, state)
    submodules = _submodules(code, read, globals_dict, function.__closure__)
    if submodules:
        state["imports"] = submodules
    made_name = None if name == code.co_name else _fresh(name)
    arguments = (code, source, made_name, function.__closure__)
    return _rebuild.make_function, arguments, state, None, None, _rebuild.function_setstate


def _attributes(function: FunctionType, code: CodeType, state: dict[str, Any]) -> None:
    if function.__qualname__ != code.co_qualname:
        state["qualname"] = _fresh(function.__qualname__)
    if function.__doc__ != _code_doc(code):
        state["doc"] = _fresh(function.__doc__)
    if function.__defaults__ is not None:
        state["defaults"] = function.__defaults__
    if function.__kwdefaults__ is not None:
        state["kwdefaults"] = function.__kwdefaults__
    if function.__annotations__:
        state["annotations"] = function.__annotations__
    type_params = getattr(function, "__type_params__", ())
    if type_params:
        state["type_params"] = type_params
    if function.__dict__:
        state["dict"] = dict(function.__dict__)


def _code_doc(code: CodeType) -> str | None:
    # What the constructor of functions takes for the docstring.
    first = code.co_consts[0] if code.co_consts else None
    return first if isinstance(first, str) else None


def importable_module(globals_dict: dict[str, Any]) -> str | None:
    """The name of the imported module whose globals these are, if a fresh process can import it too."""
    name = globals_dict.get("__name__")
    if type(name) is not str or name == "__main__":
        return None
    module = sys.modules.get(name)
    if module is None or getattr(module, "__dict__", None) is not globals_dict:
        return None
    return name if getattr(module, "__spec__", None) is not None else None


class ModuleGlobals:
    """Stands for the globals of an importable module."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


@functools.cache
def module_globals(name: str) -> ModuleGlobals:
    """The one stand-in for the globals of a module, so that a memo knows it again."""
    return ModuleGlobals(name)


def _submodules(
    code: CodeType, read: tuple[str, ...], globals_dict: dict[str, Any], closure: tuple[CellType, ...] | None
) -> tuple[str, ...]:
    """The imported submodules that a function reaches through a package, as ``concurrent.futures`` through ``concurrent``."""
    values = [globals_dict.get(name) for name in read]
    for cell in closure or ():
        try:
            values.append(cell.cell_contents)
        except ValueError:
            continue
    packages = [value for value in values if type(value) is ModuleType and hasattr(value, "__path__")]
    if not packages:
        return ()
    attributes: set[str] = set()
    _attribute_names(code, attributes)
    found: set[str] = set()
    pending = [package.__name__ for package in packages]
    while pending:
        prefix = pending.pop()
        for attribute in attributes:
            full = f"{prefix}.{attribute}"
            if full not in found and type(sys.modules.get(full)) is ModuleType:
                found.add(full)
                pending.append(full)
    return tuple(sorted(found))


def _attribute_names(code: CodeType, names: set[str]) -> None:
    names.update(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            _attribute_names(constant, names)


def reduce_code(code: CodeType, ctx: Context) -> tuple[Any, ...]:
    """Field by field, for this version of Python."""
    fields = (
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_nlocals,
        code.co_stacksize,
        code.co_flags,
        code.co_code,
        _fresh_constant(code.co_consts),
        _fresh_names(code.co_names),
        _fresh_names(code.co_varnames),
        Side(code.co_filename),
        _fresh(code.co_qualname),
        Side(code.co_firstlineno),
        Side(code.co_linetable),
        code.co_exceptiontable,
        _fresh_names(code.co_freevars),
        _fresh_names(code.co_cellvars),
    )
    return _rebuild.make_code, (_rebuild.PYTHON_TAG, _fresh(code.co_name), *fields)


# Longer strings are told apart by identity in a pod, and the interpreter shares equal names between unrelated code objects.
_SHORT = 32


def _fresh(text: Any) -> Any:
    if type(text) is str and len(text) > _SHORT:
        return text[:1] + text[1:]
    return text


def _fresh_names(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple([_fresh(name) for name in names])


def _fresh_constant(constant: Any) -> Any:
    # The compiler merges equal constants of all functions of a file; the functions have nothing to do with each other.
    if type(constant) is tuple:
        return tuple([_fresh_constant(item) for item in constant])
    if type(constant) is frozenset:
        return frozenset([_fresh_constant(item) for item in constant])
    return _fresh(constant)


def reduce_cell(cell: CellType, ctx: Context) -> tuple[Any, ...]:
    """An empty cell, filled by state."""
    try:
        contents = cell.cell_contents
    except ValueError:
        return _rebuild.make_cell, ()
    return _rebuild.make_cell, (), (contents,), None, None, _rebuild.cell_setstate


def reduce_method(method: MethodType, ctx: Context) -> tuple[Any, ...]:
    """Function and instance: by name, as pickle does it, an unfinished class could not answer."""
    return _rebuild.make_method, (method.__func__, method.__self__)


def reduce_lru_cache(cache: Any, ctx: Context) -> str | tuple[Any, ...]:
    """The function and the parameters of its cache; what was cached is not kept."""
    name = importable_name(cache)
    if name is not None:
        return name
    parameters = cache.cache_parameters()
    state = {key: value for key, value in cache.__dict__.items() if key != "cache_parameters"}
    arguments = (cache.__wrapped__, parameters["maxsize"], parameters["typed"])
    return _rebuild.make_lru_cache, arguments, state, None, None, _rebuild.attributes_setstate


def reduce_captured_globals(captured: CapturedGlobals, ctx: Context) -> tuple[Any, ...]:
    """A dict with the module attributes only; each function brings what it reads."""
    return _rebuild.make_globals, (captured.name, captured.package)


def reduce_module_globals(stand_in: ModuleGlobals, ctx: Context) -> tuple[Any, ...]:
    """By name."""
    return _rebuild.module_globals, (stand_in.name,)


REDUCERS: dict[type, Any] = {
    FunctionType: reduce_function,
    CodeType: reduce_code,
    CellType: reduce_cell,
    MethodType: reduce_method,
    functools._lru_cache_wrapper: reduce_lru_cache,
    CapturedGlobals: reduce_captured_globals,
    ModuleGlobals: reduce_module_globals,
}
