"""The functions that stored objects name as their constructors and state setters.

1. The names in this module, and what their arguments mean, are part of format version 1: they never change. A better
   way gets a new name.
2. None of them has an effect outside of the object that it makes: nothing is opened, connected, started or registered,
   and no live class, module or function is altered.
3. They are called in the order of creation: a constructor never needs the state of an object that leads back to it.
"""

from __future__ import annotations

import _abc  # type: ignore[import-not-found]
import abc
import array
import builtins
import enum
import functools
import importlib
import logging
import sys
import threading
import types
import typing
import weakref
from collections import OrderedDict
from typing import Any

from chipmink._errors import UnsupportedError
from chipmink._placeholder import Placeholder

PYTHON_TAG = sys.implementation.cache_tag or f"{sys.implementation.name}-{sys.hexversion:x}"
"""What byte code of this interpreter is marked with: it runs on the same minor version of the same interpreter only."""


# --- functions -------------------------------------------------------------------------------------------------------


class ForeignCode:
    """Byte code of another Python version; a function made of it is a placeholder."""

    __slots__ = ("name", "tag")

    def __init__(self, tag: str, name: str) -> None:
        self.tag = tag
        self.name = name


def make_code(tag: str, name: str, *fields: Any) -> types.CodeType | ForeignCode:
    """Makes a code object of the fields that the constructor of the version ``tag`` takes, except the name."""
    if tag != PYTHON_TAG:
        return ForeignCode(tag, name)
    arguments = list(fields)
    arguments.insert(_CODE_NAME_POSITION, name)
    return types.CodeType(*arguments)


# Position of co_name among the arguments of CodeType, the same in 3.11 to 3.13.
_CODE_NAME_POSITION = 11


def make_function(
    code: types.CodeType | ForeignCode,
    global_names: dict[str, Any],
    name: str | None,
    closure: tuple[types.CellType, ...] | None,
) -> types.FunctionType | Placeholder:
    """Makes a function that reads its globals from ``global_names``; the rest comes by ``function_setstate``."""
    if isinstance(code, ForeignCode):
        reason = f"its byte code was saved by {code.tag} and cannot run on {PYTHON_TAG}; load it with that version"
        return Placeholder("function", "builtins.function", reason, code.name)
    return types.FunctionType(code, global_names, name, None, closure)


def function_setstate(function: types.FunctionType | Placeholder, state: dict[str, Any]) -> None:
    """Sets what a function has beyond code, globals and cells; names that are absent keep what the code implies."""
    if isinstance(function, Placeholder):
        return
    for name, value in state.items():
        if name == "globals":
            # The functions of one globals dict each bring what they read of it.
            function.__globals__.update(value)
        elif name == "dict":
            function.__dict__.update(value)
        elif name == "imports":
            # Submodules that the function reaches as attributes of a package.
            for module in value:
                importlib.import_module(module)
        else:
            setattr(function, f"__{name}__", value)


def make_globals(name: str | None, package: str | None) -> dict[str, Any]:
    """Makes the globals that functions of one origin share; they fill in what they read."""
    made: dict[str, Any] = {"__builtins__": builtins}
    if name is not None:
        made["__name__"] = name
    if package is not None:
        made["__package__"] = package
    return made


def module_globals(name: str) -> dict[str, Any]:
    """The live globals of an importable module."""
    return importlib.import_module(name).__dict__


def attributes_setstate(made: Any, state: dict[str, Any]) -> None:
    """Sets attributes."""
    for name, value in state.items():
        setattr(made, name, value)


def make_cell() -> types.CellType:
    """Makes an empty cell."""
    return types.CellType()


def cell_setstate(cell: types.CellType, state: tuple[Any]) -> None:
    """Fills a cell."""
    cell.cell_contents = state[0]


def make_method(function: Any, instance: Any) -> types.MethodType:
    """Binds a function to an instance."""
    return types.MethodType(function, instance)


def make_lru_cache(function: Any, maxsize: int | None, typed: bool) -> Any:
    """Makes an empty cache around a function."""
    return functools.lru_cache(maxsize, typed)(function)


# --- classes ---------------------------------------------------------------------------------------------------------


class _Quiet:
    """Stands first among the bases while a class is made, so that no ``__init_subclass__`` of a program runs."""

    def __init_subclass__(cls, **_kwargs: Any) -> None:
        pass


class _QuietSlots:
    """The same for classes whose instances have no ``__dict__``."""

    __slots__ = ()

    def __init_subclass__(cls, **_kwargs: Any) -> None:
        pass


def make_class(metaclass: type, name: str, bases: tuple[type, ...], head: dict[str, Any]) -> type:
    """Makes a class with only what must be known at creation; ``class_setstate`` brings the rest.

    Neither the metaclass's ``__new__`` and ``__init__`` nor any ``__init_subclass__`` and ``__set_name__`` are called,
    as pickle does not call ``__init__``: they ran when the class was defined, and what they did is in the state.
    """
    if any(isinstance(base, Placeholder) for base in bases):
        raise UnsupportedError(f"class {name!r} cannot be made: one of its bases could not be saved")
    cls = _new_class(metaclass, name, bases, head)
    if issubclass(metaclass, abc.ABCMeta):
        _abc._abc_init(cls)
    # What hooks of the standard library have added comes again with the state, in its place.
    for attribute, value in list(cls.__dict__.items()):
        if attribute not in head and attribute not in _MADE_WITH_CLASS and getattr(value, "__objclass__", None) is not cls:
            type.__delattr__(cls, attribute)
    return cls


_MADE_WITH_CLASS = frozenset({"__dict__", "__doc__", "__hash__", "__module__", "__weakref__", "_abc_impl"})


def _new_class(metaclass: type, name: str, bases: tuple[type, ...], head: dict[str, Any]) -> type:
    if _inherits_hook(bases):
        for quiet in (_Quiet, _QuietSlots):
            try:
                cls: type = type.__new__(metaclass, name, (quiet, *bases), dict(head))
                type.__setattr__(cls, "__bases__", bases)
            except TypeError:
                # The layouts do not allow it; the next way may.
                continue
            if cls.__dictoffset__ == _expected_dictoffset(cls, metaclass, name, bases, head):
                return cls
    try:
        made: type = type.__new__(metaclass, name, bases, dict(head))
    except TypeError:
        # A metaclass written in C insists on its own constructor.
        made = metaclass.__new__(metaclass, name, bases, dict(head))
    return made


def _inherits_hook(bases: tuple[type, ...]) -> bool:
    """Whether a base has an ``__init_subclass__`` that may do more than set attributes of the new class."""
    for base in bases:
        for cls in base.__mro__:
            if cls in (object, typing.Generic, typing.Protocol):
                continue
            if "__init_subclass__" in cls.__dict__:
                return True
    return False


def _expected_dictoffset(
    cls: type, metaclass: type, name: str, bases: tuple[type, ...], head: dict[str, Any]
) -> int:
    # A slots class whose bases have no __dict__ must not get one from the stand-in base.
    if "__slots__" not in head or any(base.__dictoffset__ for base in bases):
        return cls.__dictoffset__
    slots = head["__slots__"]
    wants_dict = slots == "__dict__" or (not isinstance(slots, str) and "__dict__" in slots)
    return cls.__dictoffset__ if wants_dict else 0


def class_setstate(cls: type, state: dict[str, Any]) -> None:
    """Sets the attributes of a class, in the order in which it had them, past its metaclass's ``__setattr__``."""
    attributes = state["attributes"]
    setter = _class_setter(type(cls))
    for name, value in attributes.items():
        setter(cls, name, value)
    if "fields" in state:
        # Of a structure of ctypes: they make the layout, from what was set before.
        type(cls).__setattr__(cls, "_fields_", state["fields"])
    if "__firstlineno__" in attributes:
        # Setting any attribute of that name through type.__setattr__ drops it; a second time keeps it.
        setter(cls, "__firstlineno__", attributes["__firstlineno__"])
    for subclass in state.get("registered", ()):
        abc.ABCMeta.register(cls, subclass)  # type: ignore[arg-type]
    for member_name, extra in state.get("members", {}).items():
        cls.__members__[member_name].__dict__.update(extra)  # type: ignore[attr-defined]


def _class_setter(metaclass: type) -> Any:
    try:
        static = next(kind for kind in metaclass.__mro__ if not kind.__flags__ & _HEAP_TYPE)
    except StopIteration:
        static = type
    return static.__setattr__


# Py_TPFLAGS_HEAPTYPE, from CPython's Include/object.h.
_HEAP_TYPE = 1 << 9


def make_enum(
    metaclass: type,
    name: str,
    bases: tuple[type, ...],
    head: dict[str, Any],
    members: dict[str, tuple[Any, Any]],
    boundary: str | None,
) -> type:
    """Makes an enumeration; their further attributes of its members come by ``class_setstate``.

    ``members`` has, in order of definition and with aliases, the value of each member and, where it differs from the
    value, what the member holds as the number or string that it also is. No ``__new__`` or ``__init__`` of a program runs.
    """
    namespace = metaclass.__prepare__(name, bases)
    for key, value in head.items():
        namespace[key] = value
    # Not tuples: those would be spread over arguments.
    for key, (value, payload) in members.items():
        namespace[key] = _Member(value, payload)
    namespace["__new__"] = _new_member
    namespace["__init__"] = _init_member
    kwargs = {} if boundary is None else {"boundary": enum.FlagBoundary[boundary]}
    create: Any = enum.EnumMeta.__new__
    made: type = create(metaclass, name, bases, namespace, **kwargs)
    for key in ("__init__", "__new_member__"):
        if key in made.__dict__:
            type.__delattr__(made, key)
    return made


class _Member:
    __slots__ = ("payload", "value")

    def __init__(self, value: Any, payload: Any) -> None:
        self.value = value
        self.payload = payload


def _new_member(cls: type, member: _Member) -> Any:
    static = next(base for base in cls.__mro__ if not base.__flags__ & _HEAP_TYPE)
    made: Any
    if static is object:
        made = object.__new__(cls)
    elif member.payload is not None:
        made = static.__new__(cls, *member.payload)
    else:
        made = static.__new__(cls, *(member.value if isinstance(member.value, tuple) else (member.value,)))
    made._value_ = member.value
    return made


def _init_member(self: Any, member: _Member) -> None:
    pass


def make_ctypes_array(item: Any, length: int) -> type:
    """The type of arrays of ctypes, of which the process has one."""
    made: type = item * length
    return made


def make_ctypes_pointer(target: type) -> type:
    """The type of pointers of ctypes, of which the process has one."""
    made: type = importlib.import_module("ctypes").POINTER(target)
    return made


def builtin_type(name: str) -> type:
    """A type of the interpreter that has no name in its own module, such as the type of functions."""
    found: type = BUILTIN_TYPES[name]
    return found


def _builtin_types() -> dict[str, type]:
    found = {name: value for name, value in vars(types).items() if type(value) is type}
    ordered: OrderedDict[Any, Any] = OrderedDict()
    views = {
        "dict_keys": {}.keys(),
        "dict_values": {}.values(),
        "dict_items": {}.items(),
        "odict_keys": ordered.keys(),
        "odict_values": ordered.values(),
        "odict_items": ordered.items(),
        "list_iterator": iter([]),
        "tuple_iterator": iter(()),
        "set_iterator": iter(set()),
        "range_iterator": iter(range(0)),
        "str_iterator": iter(""),
        "bytes_iterator": iter(b""),
        "dict_keyiterator": iter({}),
        "dict_valueiterator": iter({}.values()),
        "dict_itemiterator": iter({}.items()),
        "callable_iterator": iter(int, 1),
    }
    found.update({name: type(value) for name, value in views.items()})
    return found


BUILTIN_TYPES = _builtin_types()


def make_property(fget: Any, fset: Any, fdel: Any, doc: str | None) -> property:
    """Makes a property."""
    return property(fget, fset, fdel, doc)


def make_descriptor(owner: type, name: str) -> Any:
    """The descriptor of a type by which one of its C-level attributes is reached."""
    return owner.__dict__[name]


def make_typevar(kind: str, name: str, options: dict[str, Any]) -> Any:
    """Makes a TypeVar, ParamSpec or TypeVarTuple that no module holds."""
    options = dict(options)
    constraints = options.pop("constraints", ())
    made = getattr(typing, kind)(name, *constraints, **options)
    return made


def typevar_setstate(made: Any, state: dict[str, Any]) -> None:
    """Sets where a type variable was made."""
    made.__module__ = state["module"]


def class_namespace(cls: type) -> types.MappingProxyType[str, Any]:
    """The live read-only view of a class's attributes."""
    return cls.__dict__


def make_descriptor_of(base: type, kind: type, arguments: tuple[Any, ...]) -> Any:
    """Makes a property, classmethod or staticmethod of a subclass; its attributes follow."""
    maker: Any = base
    made = maker.__new__(kind, *arguments)
    maker.__init__(made, *arguments)
    return made


def make_new_type(name: str, supertype: Any) -> Any:
    """Makes a ``typing.NewType`` that no module holds; where it was made follows."""
    return typing.NewType(name, supertype)


def instance_setstate(made: Any, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Sets the attributes of an object: those in its ``__dict__``, then its slots."""
    attributes, slots = state
    if attributes:
        made.__dict__.update(attributes)
    for name, value in slots.items():
        object.__setattr__(made, name, value)


def make_bare(kind: type) -> Any:
    """Makes an instance without calling anything of its class; ``instance_setstate`` brings its attributes."""
    return object.__new__(kind)


# --- exceptions ------------------------------------------------------------------------------------------------------


def make_exception(kind: type, arguments: tuple[Any, ...]) -> Any:
    """Makes an exception as the interpreter's class that it derives from does, whatever its own ``__init__`` takes."""
    static: Any = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE)
    made = static.__new__(kind, *arguments)
    static.__init__(made, *arguments)
    return made


def exception_setstate(made: Any, state: tuple[Any, dict[str, Any], Any, Any, bool]) -> None:
    """Sets what an exception has beyond its arguments, and what it was raised from."""
    attributes, slots, cause, context, is_suppressed = state
    if attributes:
        BaseException.__setstate__(made, attributes)
    for name, value in slots.items():
        object.__setattr__(made, name, value)
    made.__cause__ = cause
    made.__context__ = context
    made.__suppress_context__ = is_suppressed


# --- modules, streams, handles ---------------------------------------------------------------------------------------


def import_module(name: str) -> types.ModuleType | Placeholder:
    """Imports a module by its full name; a placeholder if there is none of that name here."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        return Placeholder("module", "builtins.module", f"{name!r} cannot be imported here ({error}): install it, and load again")


def make_module(name: str, doc: str | None) -> types.ModuleType:
    """Makes a module that no import finds; its contents come by ``module_setstate``. ``sys.modules`` is not touched."""
    return types.ModuleType(name, doc)


def module_setstate(module: types.ModuleType, state: dict[str, Any]) -> None:
    """Fills a module."""
    module.__dict__.update(state)


def standard_stream(name: str) -> Any:
    """The live ``sys.stdin``, ``sys.stdout`` or ``sys.stderr``."""
    if name not in ("stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__"):
        raise UnsupportedError(f"no standard stream is called {name!r}")
    return getattr(sys, name)


def logger(name: str | None) -> logging.Logger:
    """The live logger of that name; its level and handlers are not touched."""
    return logging.getLogger(name)


def repository(url: str) -> Any:
    """The open repository of this process at that place, if there is one; else a placeholder. Opens nothing."""
    from chipmink import _registry

    found = _registry.find_open(url)
    if found is not None:
        return found
    reason = f"it was open on {url}; open it again with chipmink.open({url!r})"
    return Placeholder("repository", "chipmink.Repository", reason)


def lazy_version(url: str, version: int) -> Any:
    """A version of the open repository of this process at that place; else a placeholder. Reads nothing."""
    found = repository(url)
    return found if isinstance(found, Placeholder) else found.at(version)


# --- small objects ---------------------------------------------------------------------------------------------------


def make_lock() -> Any:
    """Makes a new, unlocked lock."""
    return threading.Lock()


def make_rlock() -> Any:
    """Makes a new, unlocked reentrant lock."""
    return threading.RLock()


def make_ref(target: Any, callback: Any = None) -> weakref.ref[Any]:
    """Makes a weak reference; it is dead as soon as nothing else holds the target."""
    return weakref.ref(target, callback)


class _Nothing:
    __slots__ = ("__weakref__",)


def make_dead_ref() -> weakref.ref[Any]:
    """Makes a weak reference whose target is gone."""
    return weakref.ref(_Nothing())


def make_proxy(target: Any) -> Any:
    """Makes a weak proxy."""
    return weakref.proxy(target)


def make_weak_method(method: Any) -> weakref.WeakMethod[Any]:
    """Makes a weak reference to a bound method."""
    return weakref.WeakMethod(method)


def make_weak_set() -> weakref.WeakSet[Any]:
    """Makes an empty weak set."""
    return weakref.WeakSet()


def weak_set_setstate(made: weakref.WeakSet[Any], state: list[Any]) -> None:
    """Fills a weak set."""
    made.update(state)


def make_mappingproxy(mapping: Any) -> types.MappingProxyType[Any, Any]:
    """Makes a read-only view of a mapping."""
    return types.MappingProxyType(mapping)


def make_memoryview(base: Any, format: str, shape: tuple[int, ...]) -> memoryview:
    """Makes a view of the whole of a buffer."""
    view = memoryview(base)
    if (view.format, view.shape) == (format, shape):
        return view
    flat = view if view.format == "B" and view.ndim == 1 else view.cast("B")
    cast: Any = flat.cast
    format = native_format(format) or format
    made: memoryview = cast(format, shape) if len(shape) != 1 else cast(format)
    return made


def native_format(format: str) -> str | None:
    """The format of items in which ``memoryview.cast`` gives the same numbers; ``None`` if there is none."""
    import struct

    order, kind = (format[0], format[1:]) if format[:1] in ("@", "=", "<", ">", "!") else ("@", format)
    if order == "@":
        return kind if kind in _CASTS else None
    if order != "=" and (order == "<") != (sys.byteorder == "little"):
        return None
    alike = next((kinds for kinds in ("bhilq", "BHILQ", "fd", "c", "?") if kind and kind in kinds), "")
    # In another order than the machine's own, the types have other sizes.
    return next((native for native in alike if struct.calcsize(native) == struct.calcsize(order + kind)), None)


_CASTS = frozenset("c b B h H i I l L q Q n N f d ? P".split())


def view_of_array(shown: Any, format: str) -> memoryview:
    """Makes a view of what a numpy array shows, with the format that it had."""
    view = memoryview(shown)
    if view.format == format:
        return view
    if not view.c_contiguous:
        raise UnsupportedError(f"a view of items {format!r} with gaps cannot be made of items {view.format!r}")
    flat: Any = view.cast("B")
    made: memoryview = flat.cast(format, view.shape) if view.ndim != 1 else flat.cast(format)
    return made


def make_array(typecode: str, itemsize: int, byteorder: str, content: Any) -> array.array[Any]:
    """Makes an array of numbers that had this size and byte order where they were saved."""
    made: array.array[Any] = array.array(typecode)
    if made.itemsize != itemsize:
        raise UnsupportedError(f"numbers of type {typecode!r} took {itemsize} bytes where they were saved, here {made.itemsize}")
    # A buffer that was kept out of a stream comes back with items of its own kind.
    made.frombytes(memoryview(content).cast("B"))
    if byteorder != sys.byteorder:
        made.byteswap()
    return made


def make_readonly_memoryview(base: Any, format: str, shape: tuple[int, ...]) -> memoryview:
    """Makes a read-only view of the whole of a writable buffer."""
    return make_memoryview(base, format, shape).toreadonly()


def dict_view(mapping: Any, kind: str) -> Any:
    """The ``keys``, ``values`` or ``items`` view of a dict."""
    if kind not in ("keys", "values", "items"):
        raise UnsupportedError(f"no view of a dict is called {kind!r}")
    return getattr(mapping, kind)()


def make_struct(format: str) -> Any:
    """Makes a ``struct.Struct``."""
    import struct

    return struct.Struct(format)


def make_local() -> threading.local:
    """Makes an empty thread-local."""
    return threading.local()


def local_setstate(made: threading.local, state: dict[str, Any]) -> None:
    """Sets what the saving thread saw, for the loading thread."""
    made.__dict__.update(state)
