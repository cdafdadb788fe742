"""References to what lives elsewhere, of a kind that the program itself registers."""

from __future__ import annotations

import asyncio
import copy
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import chipmink
import pytest
from chipmink import RemoteObjectLost, RemoteReference, Stub, _reducers, _remote

SERVER: dict[str, list] = {}


class Session:
    """A handle of something that a server holds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.secret = threading.Lock()


def capture(session: Session) -> RemoteReference | Stub:
    if session.name == "unsaveable":
        return Stub("session", "Session", "it says no")
    if session.name == "slow":
        time.sleep(5)
    return RemoteReference(
        "tests.session",
        session.name,
        place={"server": "here"},
        owner={"user": "me"},
        lasts="while the server runs",
        found="alive" if session.name in SERVER else "lost: the server does not know it",
        details={"type": "tests.Session", "name": "the session"},
    )


def resolve(reference: RemoteReference) -> Session:
    if reference.identity == "slow to resolve":
        time.sleep(5)
    if reference.identity not in SERVER:
        raise RemoteObjectLost("the server has closed it; open another")
    if SERVER[reference.identity] is None:
        raise ConnectionError("no route")
    return Session(reference.identity)


@pytest.fixture(autouse=True)
def registered():
    before, kinds = dict(_reducers.DISPATCH), dict(_remote._resolvers)
    SERVER.clear()
    SERVER.update(a=[1], b=[2])
    chipmink.register_handle("tests.session", Session, capture, resolve)
    yield
    _reducers.DISPATCH.clear()
    _reducers.DISPATCH.update(before)
    _remote._resolvers.clear()
    _remote._resolvers.update(kinds)


def test_a_reference_is_resolved(repo):
    session = Session("a")
    saved = repo.save({"x": [session, session], "y": {"session": Session("b")}})
    assert saved.report.skipped == saved.report.stubs == ()
    (summary,) = saved.report.remote
    assert (summary.kind, summary.count, summary.lasts, summary.found) == ("tests.session", 2, "while the server runs", "alive")
    loaded = repo.load(saved)
    assert loaded["x"][0] is loaded["x"][1]
    assert (loaded["x"][0].name, loaded["y"]["session"].name) == ("a", "b")
    assert repo.save({"x": [session, session]}).report.remote[0].count == 1
    assert chipmink.loads(chipmink.dumps([session]))[0].name == "a"


def test_what_is_gone_explains_itself_and_spoils_nothing(repo):
    version = repo.save({"both": [Session("a"), Session("b")], "fine": [1]})
    del SERVER["a"]
    loaded = repo.load(version)
    lost, live = loaded["both"]
    assert live.name == "b" and loaded["fine"] == [1]
    assert isinstance(lost, chipmink.Placeholder)
    said = "the tests.session a (the session) of server here, owned by user me"
    assert repr(lost) == f"<chipmink placeholder for {said}: the server has closed it; open another>"
    with pytest.raises(RemoteObjectLost, match="cannot get attribute 'name': the tests.session a .* is lost: the server has closed it"):
        lost.name  # noqa: B018
    with pytest.raises(RemoteObjectLost, match="cannot use it for 'call'"):
        lost()
    for error in (chipmink.PlaceholderError, LookupError, TypeError):
        with pytest.raises(error):
            len(lost)
    assert not hasattr(lost, "name") and getattr(lost, "name", 3) == 3
    assert copy.deepcopy([lost])[0] is lost
    assert repo.at(version)["both"][1].name == "b"


def test_a_placeholder_that_is_saved_again_is_the_reference(repo):
    first = repo.save({"session": Session("a")})
    values = SERVER.pop("a")
    lost = repo.load(first)["session"]
    again = repo.save({"session": lost, "more": 1})
    assert isinstance(repo.load(again)["session"], chipmink.Placeholder)
    SERVER["a"] = values
    assert repo.load(again)["session"].name == "a"
    assert not repo.diff(again, repo.save({"session": Session("a"), "more": 1}))


def test_errors_and_silence_of_a_rule_are_reasons(repo):
    slow = Session("slow to resolve")
    SERVER["slow to resolve"] = [3]
    SERVER["broken"] = None
    version = repo.save({"slow": slow, "broken": Session("broken"), "fine": 1})
    began = time.monotonic()
    with chipmink.time_limit(0.2):
        loaded = repo.load(version)
    assert time.monotonic() - began < 4
    assert "no answer within 0.2 seconds" in repr(loaded["slow"])
    assert "ConnectionError: no route" in repr(loaded["broken"])
    assert loaded["fine"] == 1


def test_the_limit_of_time_is_that_of_a_task_too(repo):
    async def save_and_load(seconds):
        with chipmink.time_limit(seconds):
            saved = await repo.asave({"slow": [Session("slow")], "a": Session("a")})
            # Another task of the same thread has its own.
            await asyncio.sleep(0)
            await repo.aload(saved)
        return saved.report.stubs

    async def both():
        return await asyncio.gather(save_and_load(0.2), save_and_load(0.3))

    with pytest.warns(chipmink.SkippedVariableWarning):
        stubs = asyncio.run(both())
    assert ["no answer within 0.2 seconds" in stubs[0][0].reason, "no answer within 0.3 seconds" in stubs[1][0].reason] == [True, True]


def test_a_place_that_kept_silent_twice_is_given_a_tenth_of_the_time():
    patience = _remote.Patience(0.5)
    seconds = []
    for _ in range(4):
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            patience.ask(time.sleep, 30)
        seconds.append(time.monotonic() - began)
    assert min(seconds[:2]) >= 0.5 and max(seconds[2:]) < 0.4
    assert patience.ask(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        patience.ask(lambda: 1 / 0)
    # It has answered.
    with pytest.raises(TimeoutError, match=r"within 0\.5 seconds"):
        patience.ask(time.sleep, 30)


def test_what_a_capture_may_say(repo):
    with pytest.warns(chipmink.SkippedVariableWarning):
        saved = repo.save({"no": Session("unsaveable"), "fine": [1]})
    assert saved.report.stubs[0].reason == "it says no"
    with chipmink.time_limit(0.2), pytest.warns(chipmink.SkippedVariableWarning):
        saved = repo.save({"slow": [Session("slow")], "fine": [1]})
    assert "no answer within 0.2 seconds" in saved.report.stubs[0].reason
    chipmink.register_handle("tests.session", Session, lambda session: 3, resolve)
    with pytest.warns(chipmink.SkippedVariableWarning):
        saved = repo.save({"wrong": Session("a")})
    assert "not a RemoteReference of that kind" in saved.report.skipped[0].reason


def test_a_kind_that_nobody_resolves_here(repo):
    version = repo.save({"session": Session("a")})
    del _remote._resolvers["tests.session"]
    assert "nothing here resolves 'tests.session': import what registers it" in repr(repo.load(version)["session"])


def test_kinds_have_names_of_their_own():
    for kind in ("", "ray.mine", "spark", "dask.future", "session", "mine.", ".session", 3):
        with pytest.raises(ValueError, match="a name of its own"):
            chipmink.register_handle(kind, Session, capture, resolve)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="two functions"):
        chipmink.register_handle("tests.other", Session, capture, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="longer than none"), chipmink.time_limit(0):
        pass


def test_restricted_loads_resolve_nothing_unless_granted(repo):
    version = repo.save({"session": Session("a")})
    with pytest.raises(chipmink.NotAllowedError, match="make_reference"):
        repo.load(version, allow=[])
    assert repo.load(version, allow=["chipmink._remote.make_reference"])["session"].name == "a"


def test_importing_chipmink_and_using_it_imports_no_library(tmp_path):
    """Also where they are installed, and also the modules for them."""
    code = f"""
import chipmink, sys
libraries = ("ray", "pyspark", "distributed", "dask", "numpy", "torch")
def imported():
    return [name for name in libraries if name in sys.modules]
said = imported()
import chipmink.ray, chipmink.spark
said += imported()
with chipmink.open({str(tmp_path / "repo")!r}, durable=False) as repo:
    repo.load(repo.save({{"x": [1, {{"y": print}}]}}, remote="materialize"))
    repo.sweep()
print(said + imported())
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def test_the_program_of_the_documentation(capsys):
    text = (Path(__file__).parents[2] / "crates" / "chipmink-python" / "REMOTE.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(compile(program, "REMOTE.md", "exec"), {"__name__": "documentation"})  # noqa: S102
    said = [line.partition("# ")[2] for line in program.split("\n") if line.startswith("print(")]
    assert capsys.readouterr().out.split("\n") == [*said, ""]
