"""Reducers for classes that no import finds, and for the descriptors in them.

1. A class is made with what must be known at creation, and then gets its attributes in the order in which it had them.
2. What the interpreter makes by itself (descriptors of slots, ``__dict__``, ``__weakref__``, the caches of ABCs) is left out.
3. Equal definitions reduce to equal bytes: no random ids, no order of a set.
"""

from __future__ import annotations

import _abc  # type: ignore[import-not-found]
import abc
import copyreg
import dataclasses
import enum
import sys
import types
import typing
from types import GetSetDescriptorType, MemberDescriptorType, MethodDescriptorType, WrapperDescriptorType
from typing import Any

from chipmink import _rebuild
from chipmink._errors import UnsupportedError
from chipmink._live import note_class
from chipmink._markers import Context, Side, place_of
from chipmink._reduce_functions import importable_name

__all__ = ["REDUCERS", "reduce_class", "unnamed"]

# Known at creation, or made anew by it; __slotnames__ is a note that copyreg leaves in any class it has met.
_LEFT_OUT = frozenset(
    {"__module__", "__orig_bases__", "__qualname__", "__slotnames__", "__slots__", "__weakref__", "_abc_impl"}
)

# What EnumType makes of the members.
_ENUM_LEFT_OUT = frozenset(
    {
        "__new__",
        "_all_bits_",
        "_boundary_",
        "_flag_mask_",
        "_hashable_values_",
        "_inverted_",
        "_member_map_",
        "_member_names_",
        "_member_type_",
        "_singles_mask_",
        "_unhashable_values_",
        "_unhashable_values_map_",
        "_value2member_map_",
        "_value_repr_",
    }
)
# What EnumType may set by itself, at places of its own choice; their order says nothing.
_ENUM_FIRST = (
    *("_generate_next_value_", "_new_member_", "_use_args_", "__new_member__"),
    *("__repr__", "__str__", "__format__", "__reduce_ex__"),
    *("__or__", "__and__", "__xor__", "__ror__", "__rand__", "__rxor__", "__invert__"),
)
_MEMBER_LEFT_OUT = frozenset({"__objclass__", "_inverted_", "_name_", "_sort_order_", "_value_"})

# By address: a metaclass may make its classes unhashable.
_BUILTIN_NAMES = {id(value): name for name, value in reversed(_rebuild.BUILTIN_TYPES.items())}

# Py_TPFLAGS_HEAPTYPE, from CPython's Include/object.h: unset for the types that the interpreter is built with.
_HEAP_TYPE = 1 << 9


def reduce_class(cls: type, ctx: Context) -> tuple[Any, ...]:
    """By value; for a class that importing its module does not find."""
    builtin = _BUILTIN_NAMES.get(id(cls))
    if builtin is not None:
        return _rebuild.builtin_type, (builtin,)
    derived = _derived(cls)
    if derived is not None:
        return derived
    _refuse_foreign(cls)
    note_class(cls)
    head = _head(cls)
    state: dict[str, Any] = {}
    if isinstance(cls, enum.EnumMeta):
        members, extra = _members(cls)
        attributes = _attributes(cls, _ENUM_LEFT_OUT | cls.__members__.keys())
        first = {key: attributes.pop(key) for key in _ENUM_FIRST if key in attributes}
        state["attributes"] = {**first, **attributes}
        if extra:
            state["members"] = extra
        boundary = getattr(cls, "_boundary_", None)
        arguments = (type(cls), cls.__name__, cls.__bases__, head, members, boundary and boundary.name)
        return _rebuild.make_enum, arguments, state, None, None, _rebuild.class_setstate
    state["attributes"] = attributes = _attributes(cls, frozenset())
    if _is_ctypes(cls, "Structure", "Union"):
        for name in [name for name, value in attributes.items() if place_of(type(value)) == ("_ctypes", "CField")]:
            del attributes[name]
        if "_fields_" in attributes:
            state["fields"] = attributes.pop("_fields_")
    if isinstance(cls, abc.ABCMeta):
        registered = _registered(cls)
        if registered:
            state["registered"] = registered
    return _rebuild.make_class, (type(cls), cls.__name__, cls.__bases__, head), state, None, None, _rebuild.class_setstate


def _is_ctypes(cls: type, *kinds: str) -> bool:
    """Whether a class has the metaclass of one of these of ctypes."""
    ctypes = sys.modules.get("ctypes")
    return ctypes is not None and any(isinstance(cls, type(getattr(ctypes, kind))) for kind in kinds)


def _derived(cls: Any) -> tuple[Any, ...] | None:
    """A type of ctypes that has no name to be found under: one made of another, once in each process, or a class of such types."""
    ctypes = sys.modules.get("ctypes")
    if ctypes is not None and issubclass(cls, type):
        for kind in (ctypes.Structure, ctypes.Union, ctypes.Array, ctypes._Pointer, ctypes._SimpleCData):
            if cls is type(kind):
                return type, (kind,)
    if _is_ctypes(cls, "Array"):
        item, length = getattr(cls, "_type_", None), getattr(cls, "_length_", None)
        if item is not None and item * length is cls:
            return _rebuild.make_ctypes_array, (item, length)
    elif _is_ctypes(cls, "_Pointer"):
        target = cls.__dict__.get("_type_")
        if isinstance(target, type) and sys.modules["ctypes"].POINTER(target) is cls:
            return _rebuild.make_ctypes_pointer, (target,)
    return None


def unnamed(obj: Any, module: str, ctx: Context) -> tuple[Any, ...] | None:
    """An object by value that wants to be saved by name in the program's own module, where no other program finds it.

    ``None``: the module is one that can be imported, or not all of the object can be told.
    """
    found = sys.modules.get(module)
    is_own = module == "__main__" or found is None or getattr(found, "__dict__", None) is ctx.namespace
    kind = type(obj)
    makers = [vars(base).get("__new__") for base in kind.__mro__[:-1]]
    is_plain = all(base.__flags__ & _HEAP_TYPE for base in kind.__mro__[:-1])
    if not is_own or not is_plain or any(type(maker) not in (type(None), staticmethod) for maker in makers):
        return None
    slots = {name: getattr(obj, name) for name in copyreg._slotnames(kind) if hasattr(obj, name)}  # type: ignore[attr-defined]
    state = (dict(getattr(obj, "__dict__", ())), slots)
    return _rebuild.make_bare, (kind,), state, None, None, _rebuild.instance_setstate


def _refuse_foreign(cls: type) -> None:
    foreign = not cls.__flags__ & _HEAP_TYPE or any(
        isinstance(value, (MethodDescriptorType, WrapperDescriptorType)) and value.__objclass__ is cls
        for value in cls.__dict__.values()
    )
    if foreign:
        name = ".".join(place_of(cls))
        raise UnsupportedError(
            f"class {name} is made by an extension module and no import finds it; "
            "give it a name in its module, or register a reducer for its instances"
        )


def _head(cls: type) -> dict[str, Any]:
    attributes = cls.__dict__
    head: dict[str, Any] = {}
    if "__module__" in attributes:
        head["__module__"] = attributes["__module__"]
    head["__qualname__"] = cls.__qualname__
    if "__slots__" in attributes:
        slots = attributes["__slots__"]
        if not isinstance(slots, (str, tuple, list, dict)):
            # Another iterable may be used up by now; the descriptors tell the names.
            slots = tuple(name for name, value in attributes.items() if _is_own_slot(cls, value))
        head["__slots__"] = slots
    if "__orig_bases__" in attributes:
        head["__orig_bases__"] = attributes["__orig_bases__"]
    if "__class__" in attributes:
        # What a class says of its instances' class cannot be set later: it would be taken for its own.
        head["__class__"] = attributes["__class__"]
    if "__dict__" in attributes and not isinstance(attributes["__dict__"], GetSetDescriptorType):
        head["__dict__"] = attributes["__dict__"]
    return head


def _is_own_slot(cls: type, value: Any) -> bool:
    return isinstance(value, MemberDescriptorType) and value.__objclass__ is cls


def _attributes(cls: type, left_out: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    # Where a docstring stands among the attributes depends on whether the class body had one.
    doc = cls.__dict__.get("__doc__")
    if doc is not None:
        found["__doc__"] = doc
    for name, value in cls.__dict__.items():
        if name in _LEFT_OUT or name in left_out or name in ("__class__", "__doc__", "__dict__") or _is_own_slot(cls, value):
            continue
        if name == "__firstlineno__":
            value = Side(value)
        elif name == "__static_attributes__":
            # In the order of a set, before 3.14.
            value = tuple(sorted(value))
        found[name] = value
    return found


def _registered(cls: abc.ABCMeta) -> list[type]:
    references = _abc._get_dump(cls)[0]
    found = [subclass for subclass in (reference() for reference in references) if subclass is not None]
    return sorted(found, key=place_of)


_PAYLOADS: dict[type, Any] = {
    int: int.__pos__,
    float: float.__pos__,
    complex: complex.__pos__,
    str: lambda member: str.__getitem__(member, slice(None)),
    bytes: lambda member: bytes.__getitem__(member, slice(None)),
}


def _members(cls: Any) -> tuple[dict[str, tuple[Any, Any]], dict[str, dict[str, Any]]]:
    members: dict[str, tuple[Any, Any]] = {}
    extra: dict[str, dict[str, Any]] = {}
    for name, member in cls.__members__.items():
        value = member._value_
        payload = None
        for kind, read in _PAYLOADS.items():
            if isinstance(member, kind):
                held = read(member)
                if type(value) is not kind or held != value:
                    payload = (held,)
        if isinstance(member, tuple):
            payload = (tuple.__getitem__(member, slice(None)),)
        members[name] = (value, payload)
        if name == member._name_:
            rest = {key: item for key, item in vars(member).items() if key not in _MEMBER_LEFT_OUT}
            if rest:
                extra[name] = rest
    return members, extra


def reduce_property(value: property, ctx: Context) -> tuple[Any, ...]:
    """Its functions and its docstring."""
    arguments = (value.fget, value.fset, value.fdel, value.__doc__)
    return (_rebuild.make_property, arguments) if type(value) is property else _of_subclass(property, value, arguments)


def reduce_wrapped(value: Any, ctx: Context) -> tuple[Any, ...]:
    """A classmethod or staticmethod: the function in it."""
    kind, arguments = type(value), (value.__func__,)
    if kind is classmethod or kind is staticmethod:
        return kind, arguments
    return _of_subclass(classmethod if isinstance(value, classmethod) else staticmethod, value, arguments)


def _of_subclass(base: type, value: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    kind = type(value)
    slots = {name: getattr(value, name) for name in copyreg._slotnames(kind) if hasattr(value, name)}  # type: ignore[attr-defined]
    state = (dict(getattr(value, "__dict__", ())), slots)
    return _rebuild.make_descriptor_of, (base, kind, arguments), state, None, None, _rebuild.instance_setstate


def reduce_super(value: Any, ctx: Context) -> tuple[Any, ...]:
    """The class after which attributes are looked for, and the object; asked itself, it answers for the object."""
    owner = super.__getattribute__(value, "__thisclass__")
    target = super.__getattribute__(value, "__self__")
    return super, (owner,) if target is None else (owner, target)


def reduce_new_type(value: Any, ctx: Context) -> str | tuple[Any, ...]:
    """By name if its module has it, else by value."""
    name = importable_name(value)
    if name is not None:
        return name
    state = {"__module__": value.__module__, "__qualname__": value.__qualname__}
    arguments = (value.__name__, value.__supertype__)
    return _rebuild.make_new_type, arguments, state, None, None, _rebuild.attributes_setstate


def reduce_descriptor(value: Any, ctx: Context) -> tuple[Any, ...]:
    """The class that owns it, and its name there."""
    return _rebuild.make_descriptor, (value.__objclass__, value.__name__)


def reduce_type_variable(value: Any, ctx: Context) -> str | tuple[Any, ...]:
    """By name if its module has it, else by value."""
    name = importable_name(value)
    if name is not None:
        return name
    kind = type(value).__name__
    options: dict[str, Any] = {}
    if kind == "TypeVar" and value.__constraints__:
        options["constraints"] = value.__constraints__
    for option, unset in (("bound", None), ("covariant", False), ("contravariant", False), ("infer_variance", False)):
        found = getattr(value, f"__{option}__", unset)
        if found is not unset and found:
            options[option] = found
    if getattr(value, "has_default", bool)():
        options["default"] = value.__default__
    arguments = (kind, value.__name__, options)
    return _rebuild.make_typevar, arguments, {"module": value.__module__}, None, None, _rebuild.typevar_setstate


def reduce_dataclass_sentinel(value: Any, ctx: Context) -> str | tuple[Any, ...]:
    """The one object of its kind: dataclasses compares them by identity."""
    for name in ("MISSING", "KW_ONLY", "_HAS_DEFAULT_FACTORY", "_FIELD", "_FIELD_CLASSVAR", "_FIELD_INITVAR"):
        if getattr(dataclasses, name, None) is value:
            return name
    reduced: tuple[Any, ...] = value.__reduce_ex__(5)
    return reduced


REDUCERS: dict[type, Any] = {
    property: reduce_property,
    classmethod: reduce_wrapped,
    staticmethod: reduce_wrapped,
    GetSetDescriptorType: reduce_descriptor,
    MemberDescriptorType: reduce_descriptor,
    types.ClassMethodDescriptorType: reduce_descriptor,
    typing.TypeVar: reduce_type_variable,
    typing.ParamSpec: reduce_type_variable,
    typing.TypeVarTuple: reduce_type_variable,
    typing.NewType: reduce_new_type,
    super: reduce_super,
    **{
        type(getattr(dataclasses, name)): reduce_dataclass_sentinel
        for name in ("MISSING", "KW_ONLY", "_HAS_DEFAULT_FACTORY", "_FIELD")
        if hasattr(dataclasses, name)
    },
}
