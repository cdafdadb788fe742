"""A placeholder can be looked at, copied and saved again; anything else explains itself."""

from __future__ import annotations

import copy
import gc
import importlib
import os
import pickle
import sys
import weakref

import chipmink
import pytest
from chipmink import Placeholder, PlaceholderError


@pytest.fixture
def lost():
    return Placeholder("socket", "socket.socket", "connections are not made again", "conn.sock")


def test_looking_is_free(lost):
    assert type(lost) is Placeholder
    assert repr(lost) == (
        "<chipmink placeholder for a socket.socket (socket) at conn.sock: connections are not made again>"
    )
    assert str(lost) == repr(lost) == f"{lost}"
    assert lost == lost and lost != Placeholder("socket", "socket.socket", "r") and {lost: 1}[lost] == 1
    assert copy.copy(lost) is lost and copy.deepcopy([lost])[0] is lost
    assert weakref.ref(lost)() is lost
    assert not hasattr(lost, "close") and getattr(lost, "close", None) is None


def test_it_can_be_saved_again(lost):
    assert repr(pickle.loads(pickle.dumps(lost))) == repr(lost)
    kind, arguments = lost.__reduce__()
    assert repr(kind(*arguments)) == repr(lost)


USES = [
    lambda lost: lost(),
    lambda lost: lost.close,
    lambda lost: lost.close(),
    lambda lost: setattr(lost, "x", 1),
    lambda lost: delattr(lost, "x"),
    lambda lost: lost[0],
    lambda lost: lost.__setitem__(0, 1),
    lambda lost: len(lost),
    lambda lost: bool(lost),
    lambda lost: iter(lost),
    lambda lost: next(lost),
    lambda lost: 1 in lost,
    lambda lost: lost + 1,
    lambda lost: 1 + lost,
    lambda lost: -lost,
    lambda lost: lost < 1,
    lambda lost: int(lost),
    lambda lost: float(lost),
    lambda lost: range(lost),
    lambda lost: lost.__enter__(),
    lambda lost: lost.__await__(),
    lambda lost: os.fspath(lost),
]


@pytest.mark.parametrize("use", USES, ids=range(len(USES)))
def test_any_other_use_explains_itself(lost, use):
    with pytest.raises(PlaceholderError) as caught:
        use(lost)
    text = str(caught.value)
    for part in ("socket.socket", "conn.sock", "connections are not made again", "make it anew"):
        assert part in text
    assert isinstance(caught.value, TypeError) and caught.value.kind == "placeholder"


def test_augmented_assignment(lost):
    with pytest.raises(PlaceholderError):
        lost += 1


def test_it_dies_like_any_object():
    lost = Placeholder("lock", "t", "r")
    ref = weakref.ref(lost)
    del lost
    gc.collect()
    assert ref() is None


def test_errors_are_one_tree_with_stable_kinds():
    kinds = {
        "BusyError": ("busy", RuntimeError),
        "ClosedError": ("closed", RuntimeError),
        "DamagedError": ("damaged", ValueError),
        "NotAllowedError": ("not-allowed", PermissionError),
        "NotFoundError": ("not-found", KeyError),
        "OutcomeUnknownError": ("outcome-unknown", RuntimeError),
        "PlaceholderError": ("placeholder", TypeError),
        "RefMovedError": ("ref-moved", RuntimeError),
        "StorageError": ("storage", OSError),
        "UnsavedChangesError": ("unsaved-changes", RuntimeError),
        "UnsupportedError": ("unsupported", TypeError),
    }
    found = {name: kind for name, kind in vars(chipmink).items() if name.endswith("Error") and name != "ChipminkError"}
    assert set(found) == set(kinds)
    for name, (kind, builtin) in kinds.items():
        assert issubclass(found[name], chipmink.ChipminkError) and issubclass(found[name], builtin)
        assert found[name].kind == kind
    assert str(chipmink.NotFoundError("version 3 has no variable 'x'")) == "version 3 has no variable 'x'"


def test_a_module_that_cannot_be_imported_any_more(repo, tmp_path, monkeypatch):
    """It failed the whole load."""
    (tmp_path / "passing_module.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("passing_module")
    version = repo.save({"module": module, "fine": [1]})
    assert repo.load(version)["module"] is module
    del sys.modules["passing_module"]
    (tmp_path / "passing_module.py").unlink()
    importlib.invalidate_caches()
    loaded = repo.load(version)
    assert loaded["fine"] == [1]
    with pytest.raises(PlaceholderError, match="'passing_module' cannot be imported here .* install it"):
        loaded["module"].anything  # noqa: B018
