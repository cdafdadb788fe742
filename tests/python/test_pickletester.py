"""CPython's own tests of pickle, of the running Python, against ``chipmink.dumps`` and ``chipmink.loads``.

`EXCLUDED` lists every test that is left out, each with its reason. Allowed reasons are: it asserts on pickle's bytes or
opcodes; it feeds pickle's bytes to ``loads``; it is about the classes ``Pickler``/``Unpickler`` or ``persistent_id``; it
asserts that something *cannot* be saved that we save by value; it asserts on the identity of immutable atoms. Where such a test also checks a round trip, that half is
kept in `TestKeptHalves`. The protocol argument is dropped, and loops over protocols run once.
"""

from __future__ import annotations

import collections
import io
import pickle
import unittest
from typing import Any

import chipmink
import pytest

try:
    from test import pickletester
except ImportError:
    pytest.skip("this Python comes without its `test` package", allow_module_level=True)

_OPCODES = "asserts on pickle opcodes in the stream; the round trip is in TestKeptHalves"
_BYTES = "asserts on the bytes of a pickle"
_CLASSES = "tests the classes Pickler and Unpickler, which chipmink does not have"
_FREE = "asserts that one short str or bytes object comes back as one; the identity of exact immutable atoms is free"
_BY_VALUE = "asserts that an object cannot be pickled that chipmink saves by value; the rest is in TestKeptHalves"

_NOWHERE = " (an object that reduces to a name, in no module or in one that is not there)"

EXCLUDED: dict[str, str] = {
    # AbstractPickleTests
    "test_proto": "tests the protocol header of a pickle and the refusal of an unknown protocol",
    "test_float_format": _BYTES + " (protocol 0)",
    "test_bytearray": _OPCODES,
    "test_long1": _OPCODES,
    "test_long4": _OPCODES,
    "test_short_tuples": _OPCODES,
    "test_singletons": _OPCODES,
    "test_list_chunking": _OPCODES,
    "test_dict_chunking": _OPCODES,
    "test_set_chunking": _OPCODES,
    "test_simple_newobj": _OPCODES,
    "test_complex_newobj": _OPCODES,
    "test_complex_newobj_ex": _OPCODES,
    "test_appends_on_non_lists": _OPCODES,
    "test_setitems_on_non_dicts": _OPCODES,
    "test_in_band_buffers": _OPCODES,
    "test_oob_buffers": _OPCODES,
    "test_framing_many_objects": "tests the frames of pickle protocol 4; the round trip is in TestKeptHalves",
    "test_framing_large_objects": "tests the frames of pickle protocol 4; the round trip is in TestKeptHalves",
    "test_optional_frames": "removes frames from the bytes of a pickle",
    "test_framed_write_sizes_with_delayed_writer": "tests the writes of a Pickler, frame by frame",
    "test_global_ext1": "tests the opcodes of copyreg's extension registry",
    "test_global_ext2": "tests the opcodes of copyreg's extension registry",
    "test_global_ext4": "tests the opcodes of copyreg's extension registry",
    "test_pickle_to_2x": _BYTES + " (protocol 2 as Python 2 wrote it)",
    "test_compat_pickle": _BYTES + " (names of Python 2)",
    "test_int_pickling_efficiency": "asserts on opcodes, and that the lengths of pickles grow with the integer",
    "test_picklebuffer_error": "asserts that protocols below 5 refuse a PickleBuffer; there are no protocols",
    "test_bad_getattr": "asserts that protocols 0 and 1 refuse the object; protocol 5's half is in TestKeptHalves",
    "test_evil_pickler_mutating_collection": _CLASSES + " (a subclass of Pickler with persistent_id)",
    "test_local_lookup_error": _BY_VALUE,
    "test_py_methods": _BY_VALUE + " (staticmethod and classmethod objects)",
    "test_c_methods": _BY_VALUE + " (staticmethod objects)",
    # AbstractPicklingErrorTests, since Python 3.13
    "test_bad_ext_code": "tests the opcodes of copyreg's extension registry",
    "test_unpickleable_newobj_class": _BY_VALUE + " (a local class)",
    "test_unpickleable_newobj_ex_class": _BY_VALUE + " (a local class)",
    "test_unicode_memoization": _FREE,
    "test_bytes_memoization": _FREE,
    "test_global_lookup_error": _BY_VALUE + _NOWHERE,
    "test_nested_lookup_error": _BY_VALUE + _NOWHERE,
    "test_wrong_object_lookup_error": _BY_VALUE + _NOWHERE,
    # AbstractPickleModuleTests
    "test_incomplete_input": "feeds bytes of a pickle to load; the same for our streams is in TestKeptHalves",
    "test_highest_protocol": "tests pickle.HIGHEST_PROTOCOL",
    "test_callapi": _CLASSES,
    "test_bad_init": _CLASSES,
    "test_unpickler_bad_file": _CLASSES,
    "test_pickler_bad_file": _CLASSES,
    "test_dumps_loads_oob_buffers": "asserts that protocols below 5 refuse buffer_callback; protocol 5's half is in TestKeptHalves",
    "test_dump_load_oob_buffers": "asserts that protocols below 5 refuse buffer_callback; protocol 5's half is in TestKeptHalves",
}

#: Of these, tests that older Pythons lack.
SINCE_3_13: set[str] = {
    "test_bad_ext_code",
    "test_unpickleable_newobj_class",
    "test_unpickleable_newobj_ex_class",
    "test_unicode_memoization",
    "test_bytes_memoization",
    "test_global_lookup_error",
    "test_nested_lookup_error",
    "test_wrong_object_lookup_error",
}

#: Whole classes of the module that no test of ours derives from.
EXCLUDED_CLASSES: dict[str, str] = {
    "AbstractUnpickleTests": "every test feeds bytes of a pickle to loads",
    "AbstractPersistentPicklerTests": "tests persistent_id",
    "AbstractIdentityPersistentPicklerTests": "tests persistent_id",
    "AbstractPicklerUnpicklerObjectTests": _CLASSES,
    "AbstractDispatchTableTests": _CLASSES + " (their attribute dispatch_table)",
    "AbstractHookTests": _CLASSES + " (their method reducer_override)",
}

USED_CLASSES = ("AbstractPickleTests", "AbstractPickleModuleTests", "AbstractPicklingErrorTests", "BigmemPickleTests")


class _Adapter:
    """Our functions under the signatures that the suite calls."""

    def dumps(self, arg: Any, protocol: Any = None, *, fix_imports: bool = True, buffer_callback: Any = None) -> bytes:
        return chipmink.dumps(arg, buffer_callback=buffer_callback)

    def loads(self, buf: bytes, *, buffers: Any = None, **_ignored: Any) -> Any:
        return chipmink.loads(buf, buffers=buffers)

    def dump(self, arg: Any, file: Any, protocol: Any = None, *, buffer_callback: Any = None) -> None:
        chipmink.dump(arg, file, buffer_callback=buffer_callback)

    def load(self, file: Any, *, buffers: Any = None, **_ignored: Any) -> Any:
        return chipmink.load(file, buffers=buffers)

    @classmethod
    def setUpClass(cls) -> None:
        cls._protocols = pickletester.protocols
        pickletester.protocols = range(5, 6)

    @classmethod
    def tearDownClass(cls) -> None:
        pickletester.protocols = cls._protocols


def _with_exclusions(*bases: type) -> type:
    """A namespace that skips the excluded tests of the bases."""
    names = {name for base in bases for name in dir(base) if name in EXCLUDED}
    return type("Exclusions", (), {name: unittest.skip(EXCLUDED[name])(lambda self: None) for name in names})


class TestPickling(
    _Adapter,
    _with_exclusions(pickletester.AbstractPickleTests),
    pickletester.AbstractPickleTests,
    pickletester.BigmemPickleTests,
    unittest.TestCase,
):
    """The suite of ``pickle.dumps`` and ``pickle.loads``."""


class TestModule(
    _Adapter,
    _with_exclusions(pickletester.AbstractPickleModuleTests),
    pickletester.AbstractPickleModuleTests,
    unittest.TestCase,
):
    """The suite of the functions of the module."""


if hasattr(pickletester, "AbstractPicklingErrorTests"):  # since Python 3.13

    class TestErrors(
        _Adapter,
        _with_exclusions(pickletester.AbstractPicklingErrorTests),
        pickletester.AbstractPicklingErrorTests,
        unittest.TestCase,
    ):
        """The suite of what cannot be pickled."""

        pickler = None  # some tests ask which of pickle's own classes this is

        @classmethod
        def setUpClass(cls) -> None:
            super().setUpClass()
            pickletester.protocols = (5, 5, 5)  # many loops begin at the third


class Named:
    """It reduces to a name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> str:
        return self.name


class TestKeptHalves(_Adapter, unittest.TestCase):
    """What excluded tests check besides pickle's format."""

    assert_is_copy = pickletester.AbstractUnpickleTests.assert_is_copy
    buffer_like_objects = pickletester.AbstractPickleTests.buffer_like_objects

    def round_trip(self, value: Any) -> Any:
        copy = self.loads(self.dumps(value))
        self.assert_is_copy(value, copy)
        return copy

    def test_values(self):
        number = 12345678910111213141516178920
        for value in (number, number << (256 * 8), (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), None, True, False, 1.2):
            self.round_trip(value)
        for value in (2**n for n in range(70)):
            self.round_trip(value)

    def test_long_containers(self):
        for count in (10, 2500):
            self.round_trip(list(range(count)))
            self.round_trip(dict.fromkeys(range(count)))
            self.round_trip(set(range(count)))
        self.round_trip(list(range(1000 * 1000)))

    def test_large_objects(self):
        large = ["x" * (1 << 20), b"y" * (1 << 20), {"k": ["z" * (1 << 16)] * 3}]
        copy = self.round_trip(large)
        self.assertIs(copy[2]["k"][0], copy[2]["k"][1])

    def test_new_objects(self):
        for kind in (pickletester.SimpleNewObj, pickletester.ComplexNewObj, pickletester.ComplexNewObjEx):
            value = kind.__new__(kind, 0xFACE)  # avoids __init__, which raises
            value.abc = 666
            self.round_trip(value)

    def test_items_on_other_types(self):
        self.round_trip(pickletester.REX_six([1, 2, 3]))
        self.round_trip(pickletester.REX_seven({1: -1, 2: -2, 3: -3}))

    def test_other_values(self):
        for value in (range(1, 7), collections.UserDict(a=1), collections.UserList([1]), collections.defaultdict(list)):
            copy = self.loads(self.dumps(value))
            self.assertIs(type(copy), type(value))
            self.assertEqual(copy, value)
        for content in (b"", b"xyz", bytes(range(256)), b"xyz" * 100_000):
            self.assertEqual(self.round_trip(bytearray(content)), content)
        self.dumps(pickletester.BadGetattr())

    def test_extension_codes_do_no_harm(self):
        saver = pickletester.ExtensionSaver(0xF0)
        try:
            import copyreg

            copyreg.add_extension(pickletester.__name__, "MyList", 0xF0)
            value = pickletester.MyList([1, 2, 3])
            value.foo = 42
            self.round_trip(value)
        finally:
            saver.restore()

    def test_names_that_lead_elsewhere_are_refused(self):
        for name in ("spam", "AbstractPickleTests.spam", "AbstractPickleTests"):
            value = Named(name)
            value.__module__ = pickletester.__name__
            with self.assertRaises(pickle.PicklingError):
                self.dumps(value)

    def test_objects_of_no_module_are_saved_by_value(self):
        for module in ("nonexisting", "", None):
            value = Named("AbstractPickleTests")
            value.__module__ = module
            copy = self.loads(self.dumps(value))
            self.assertIs(type(copy), Named)
            self.assertEqual(vars(copy), vars(value))

    def test_local_function_is_saved_by_value(self):
        def local():
            return "here"

        self.assertEqual(self.loads(self.dumps(local))(), "here")

    def test_methods(self):
        module = pickletester
        module.PyMethodsTest = type(
            "PyMethodsTest",
            (),
            {
                "__module__": module.__name__,
                "__qualname__": "PyMethodsTest",
                "cheese": staticmethod(lambda: "cheese"),
                "wine": classmethod(lambda cls: (cls, "wine")),
                "biscuits": _biscuits,
            },
        )
        try:
            kind = module.PyMethodsTest
            for method in (kind.cheese, kind.wine, kind().biscuits):
                self.assertEqual(self.loads(self.dumps(method))(), method())
        finally:
            del module.PyMethodsTest

    def test_methods_in_c(self):
        pickletester.Subclass = subclass = type("Subclass", (tuple,), {"__module__": pickletester.__name__})
        try:
            for method, arguments in (
                ("abcd".index, ("c",)),
                (str.index, ("abcd", "c")),
                ([1, 2, 3].__len__, ()),
                (list.__len__, ([1, 2, 3],)),
                ({1, 2}.__contains__, (2,)),
                (set.__contains__, ({1, 2}, 2)),
                (dict.fromkeys, (("a", 1), ("b", 2))),
                (bytearray.maketrans, (b"abc", b"xyz")),
                (subclass([1, 2, 2]).count, (2,)),
                (subclass.count, (subclass([1, 2, 2]), 2)),
            ):
                with self.subTest(method=method):
                    self.assertEqual(self.loads(self.dumps(method))(*arguments), method(*arguments))
        finally:
            del pickletester.Subclass

    def test_incomplete_input(self):
        data = self.dumps([1, "two", {"three": [4.0]}])
        for length in range(len(data)):
            with self.assertRaises((EOFError, ValueError, pickle.UnpicklingError)):
                self.load(io.BytesIO(data[:length]))

    def test_in_band_buffers(self):
        for value in self.buffer_like_objects():
            for callback in (None, lambda buffer: True):
                copy = self.loads(self.dumps(value, buffer_callback=callback))
                self.assertIsNot(copy, value)
                self.assertIs(type(copy), type(value))
                self.assertEqual(copy, value)

    def test_out_of_band_buffers(self):
        for value in self.buffer_like_objects():
            buffers: list[Any] = []
            data = self.dumps(value, buffer_callback=lambda buffer: buffers.append(buffer.raw()))  # noqa: B023
            self.assertNotIn(b"abcdefgh", data)
            self.assertEqual(len(buffers), 1)
            if value.c_contiguous:
                self.assertEqual(bytes(buffers[0]), b"abcdefgh")
            with self.assertRaises(pickle.UnpicklingError):
                self.loads(data)
            for given in (buffers, iter(buffers)):
                copy = self.loads(data, buffers=given)
                if value.zero_copy_reconstruct:
                    self.assertIs(copy, value)
                else:
                    self.assertIs(type(copy), type(value))
                    self.assertEqual(copy, value)

    def test_out_of_band_buffers_of_files(self):
        value = pickletester.ZeroCopyBytes(b"foo")
        buffers: list[Any] = []
        file = io.BytesIO()
        self.dump(value, file, buffer_callback=buffers.append)
        self.assertNotIn(b"foo", file.getvalue())
        self.assertEqual(bytes(buffers[0]), b"foo")
        with self.assertRaises(pickle.UnpicklingError):
            self.load(io.BytesIO(file.getvalue()))
        self.assertIs(self.load(io.BytesIO(file.getvalue()), buffers=buffers), value)


def _biscuits(self: Any) -> str:
    return type(self).__name__


class TestTable(unittest.TestCase):
    """The table of exclusions is complete and has nothing stale."""

    def test_every_class_is_used_or_excluded(self):
        used = {*USED_CLASSES, *EXCLUDED_CLASSES}
        found = {name for name in vars(pickletester) if name.endswith("Tests") and isinstance(getattr(pickletester, name), type)}
        self.assertEqual(sorted(found - used), [])

    def test_every_exclusion_exists(self):
        known = {name for used in USED_CLASSES for name in dir(getattr(pickletester, used, None))}
        missing = set() if hasattr(pickletester, "AbstractPicklingErrorTests") else SINCE_3_13
        self.assertEqual(sorted(EXCLUDED.keys() - known - missing), [])
