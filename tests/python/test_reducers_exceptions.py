"""Exceptions: whatever their ``__init__`` takes they load again, with what they were raised from."""

from __future__ import annotations

import builtins

import chipmink
import pytest
from reducing import run


class Coded(Exception):
    """Keeps other arguments than its ``__init__`` takes."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code = code
        self.calls = getattr(self, "calls", 0) + 1


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code):
        super().__init__("fixed text")
        self.code = code


class NotThere(FileNotFoundError):
    def __init__(self, path):
        super().__init__(2, "not there", path)


class Made(Exception):
    def __new__(cls, *, code):
        made = super().__new__(cls, code)
        made.code = code
        return made

    def __init__(self, *, code):
        super().__init__(code)


def test_an_init_with_other_arguments_is_not_called(copy):
    error = copy(Coded(7, "no"))
    assert type(error) is Coded and (str(error), error.code, error.calls) == ("7: no", 7, 1)
    error = copy(Slotted(7))
    assert (str(error), error.code) == ("fixed text", 7)
    error = copy(NotThere("/a"))
    assert (error.errno, error.filename, str(error)) == (2, "/a", "[Errno 2] not there: '/a'")
    assert copy(Made(code=5)).code == 5


def test_it_spoils_no_load(repo):
    scope = run(
        """
        class Own(Exception):
            def __init__(self, a, b):
                super().__init__(a + b)
        error = Own(1, 2)
        """
    )
    loaded = repo.load(repo.save({"error": scope["error"], "other": [1]}))
    assert loaded["error"].args == (3,) and loaded["other"] == [1]


def test_what_it_was_raised_from_comes_along(copy):
    try:
        try:
            raise KeyError("first")
        except KeyError as first:
            raise Coded(1, "second") from first
    except Coded as error:
        error.add_note("a note")
        error.extra = [error]
        made = copy(error)
    assert type(made.__cause__) is KeyError and made.__cause__.args == ("first",)
    assert made.__context__ is made.__cause__ and made.__suppress_context__
    assert made.__notes__ == ["a note"] and made.extra[0] is made
    assert made.__traceback__ is None


def test_a_context_that_is_hidden_stays_hidden(copy):
    try:
        try:
            raise KeyError(1)
        except KeyError:
            raise ValueError(2) from None
    except ValueError as error:
        made = copy(error)
    assert made.__cause__ is None and made.__suppress_context__ and made.__context__.args == (1,)


def test_a_change_of_the_cause_is_found(repo):
    namespace = {"error": ValueError(1)}
    first = repo.save(namespace)
    namespace["error"].__cause__ = KeyError(2)
    second = repo.save(namespace)
    assert repo.diff(first, second).changed == ("error",)
    assert repo.load(first)["error"].__cause__ is None
    assert repo.load(second)["error"].__cause__.args == (2,)


def test_errors_of_the_interpreter_keep_their_fields(copy):
    error = copy(AttributeError("no", name="a"))
    assert error.args == ("no",)
    assert copy(StopIteration(5)).value == 5 and copy(SystemExit(3)).code == 3
    assert copy(ImportError("no", name="n", path="p")).path == "p"
    assert copy(SyntaxError("no", ("f", 1, 2, "t"))).lineno == 1
    with pytest.raises(UnicodeDecodeError) as caught:
        b"\xff".decode()
    assert copy(caught.value).start == 0
    group = copy(ExceptionGroup("g", [ValueError(1), Coded(2, "x")]))
    assert group.message == "g" and group.exceptions[1].code == 2


@pytest.mark.parametrize("error", [ValueError(1), OSError(2, "no"), KeyError()], ids=repr)
def test_a_plain_one_needs_no_other_grant(error):
    name = f"builtins.{type(error).__name__}"
    assert repr(chipmink.loads(chipmink.dumps(error), allow=[name])) == repr(error)
    assert getattr(builtins, type(error).__name__) is type(error)


def test_an_own_way_of_pickling_comes_first(copy):
    class Reduced(Exception):
        def __reduce__(self):
            return Reduced, ("reduced",)

    class Restored(Exception):
        def __setstate__(self, state):
            self.restored = True

    made = Reduced("a")
    made.__cause__ = KeyError()
    assert copy([made])[0].args == ("reduced",)
    made = Restored("a")
    made.attribute = 1
    assert copy([made])[0].restored
