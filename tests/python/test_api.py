"""The package's face: what a repository and the stream functions promise beyond round trips."""

from __future__ import annotations

import copy
import inspect
import json
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import types
import warnings
from pathlib import Path

import chipmink
import numpy
import pytest


def run(source: str, namespace: dict | None = None) -> dict:
    """A namespace after running a script in it, as a notebook does."""
    namespace = {"__name__": "__main__"} if namespace is None else namespace
    exec(compile(textwrap.dedent(source), "<cell>", "exec"), namespace)
    return namespace


def in_new_process(script: str, *arguments: str) -> str:
    """What a script prints in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- the surface


def test_everything_public_is_documented():
    for name in chipmink.__all__:
        value = getattr(chipmink, name)
        if name == "__version__":
            assert value.count(".") == 2
            continue
        assert inspect.getdoc(value), name
        if inspect.isclass(value):
            for attribute, member in vars(value).items():
                if not attribute.startswith("_") and callable(member):
                    assert inspect.getdoc(member), f"{name}.{attribute}"


def test_import_brings_no_library():
    script = "import sys, chipmink; print(sorted(set(sys.modules) & {'numpy', 'pandas', 'cloudpickle', 'dill', 'IPython', 'asyncio'}))"
    assert in_new_process(script) == "[]\n"


# --- opening


def test_places(tmp_path):
    by_str = chipmink.open(str(tmp_path / "one"), durable=False)
    by_path = chipmink.open(Path(tmp_path / "two"), durable=False)
    by_url = chipmink.open((tmp_path / "three").as_uri(), durable=False)
    for repo in (by_str, by_path, by_url):
        assert repo.load(repo.save({"a": [1]})) == {"a": [1]}
        assert "main" in repr(repo) and not repo.closed
        repo.close()
        assert repo.closed and "closed" in repr(repo)
    assert (tmp_path / "three").is_dir()


def test_unknown_kinds_of_places():
    with pytest.raises(chipmink.ChipminkError, match="gopher"):
        chipmink.open("gopher://host/path")


def test_unknown_policy(tmp_path):
    with pytest.raises(ValueError, match="no-such"):
        chipmink.open(tmp_path / "repo", policy="no-such")


def test_newest_version_is_the_default(repo):
    with pytest.raises(chipmink.NotFoundError, match="no version"):
        repo.load()
    repo.save({"a": 1})
    repo.save({"a": 2})
    assert repo.load() == {"a": 2} and repo.at()["a"] == 2 and repo.names() == ["a"]


def test_only_dicts_are_namespaces(repo):
    for wrong in ([("a", 1)], types.SimpleNamespace(a=1), types.MappingProxyType({"a": 1})):
        with pytest.raises(TypeError, match="dict"):
            repo.save(wrong)
    with pytest.raises(TypeError):
        repo.save({"a": 1}, accessed="a")
    with pytest.raises(TypeError):
        repo.load(repo.save({"a": 1}), names=[1])
    with pytest.raises((TypeError, chipmink.ChipminkError), match="str"):
        repo.save({1: 2})


# --- what save returns


def test_saved_is_an_int_with_a_report(repo):
    saved = repo.save({"a": [1]}, message="first", author="me")
    assert isinstance(saved, int) and saved == int(saved) and repr(saved) == str(int(saved))
    assert saved.done and saved.wait() is saved and saved.wait("staged") is saved
    with pytest.raises(ValueError, match="stage"):
        saved.wait("eventually")
    assert saved.report.bytes_written > 0 and saved.report.seconds["total"] > 0
    assert json.dumps({"version": saved}) == f'{{"version": {int(saved)}}}'
    assert copy.copy(saved) == saved and pickle.loads(pickle.dumps(saved)) == saved
    (entry,) = repo.log()
    assert (entry.number, entry.message, entry.author, entry.ref) == (saved, "first", "me", "main")
    assert entry.parents == () and len(entry.commit) == 34
    second = repo.save({"a": [2]})
    assert repo.log()[0].parents == (entry.commit,) and repo.log(limit=1)[0].number == second


def test_its_own_handles_in_a_namespace(tmp_path):
    place = tmp_path / "repo"
    with chipmink.open(place, durable=False) as repo:
        first = repo.save({"x": [1]})
        saved = repo.save({"x": [1], "repo": repo, "t": first, "times": [first]}, strict=True)
        loaded = repo.load(saved)
        assert loaded["repo"] is repo and loaded["t"] == first and type(loaded["times"][0]) is chipmink.Saved
        view = repo.at(saved)
        third = repo.save({"view": view, "x": 2}, strict=True)
        assert repo.load(third)["view"]["x"] == [1]
    with chipmink.open(place, durable=False) as other:
        assert other.load(saved)["repo"] is other
    moved = tmp_path / "moved"
    place.rename(moved)
    with chipmink.open(moved, durable=False) as other:
        lost = other.load(saved)["repo"]
        with pytest.raises(chipmink.PlaceholderError, match="open it again"):
            lost.save({})


# --- what cannot be saved


def test_warnings_point_at_the_caller(repo):
    with pytest.warns(chipmink.SkippedVariableWarning, match=r"generator.*placeholder|placeholder.*generator") as caught:
        repo.save({"g": [(i for i in ())]})
    assert caught[0].filename == __file__


def test_stubs_are_reported(repo):
    with open(os.devnull) as file, pytest.warns(chipmink.SkippedVariableWarning):
        saved = repo.save({"state": {"n": 1, "file": file}})
    assert saved.report.skipped == ()
    (stub,) = saved.report.stubs
    assert stub.variable == "state" and "file" in stub.path and "TextIOWrapper" in stub.type_name
    placeholder = repo.load(saved)["state"]["file"]
    assert os.devnull in repr(placeholder)


def test_losses_are_reported_as_long_as_they_last_and_warned_about_once(repo):
    class Stubborn:
        def __reduce__(self):
            raise ValueError("never")

    namespace = {"bad": Stubborn(), "g": [(i for i in ())], "x": [1]}
    with pytest.warns(chipmink.SkippedVariableWarning) as caught:
        first = repo.save(namespace).report
    assert len(caught) == 2 and [item.variable for item in first.skipped + first.stubs] == ["bad", "g"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for accessed in ([], ["x"], ["bad"], None):
            namespace["x"].append(accessed)
            report = repo.save(namespace, accessed=accessed).report
            assert (report.skipped, report.stubs) == (first.skipped, first.stubs)
        with pytest.raises(chipmink.UnsupportedError, match="never"):
            repo.save(namespace, accessed=[], strict=True)
        del namespace["bad"], namespace["g"]
        report = repo.save(namespace, strict=True).report
        assert report.skipped == report.stubs == ()


def test_strict_counts_stubs(repo):
    with pytest.raises(chipmink.UnsupportedError, match="strict=True"):
        repo.save({"g": [(i for i in ())]}, strict=True)
    assert repo.log() == []
    repo.save({"lock": threading.Lock()}, strict=True)


# --- functions of a namespace


NOTEBOOK = """
    import math
    count = 0
    class Model:
        def predict(self, x):
            return scale(x) + bias
    def scale(x):
        return x * factor
    def bump():
        global count
        count += 1
        return count
    factor, bias = 2, [1][0]
    model = Model()
    data = [1, 2, 3]
    total = lambda: math.fsum(data)
"""


def test_functions_are_bound_to_what_they_are_loaded_into(repo):
    namespace = run(NOTEBOOK)
    saved = repo.save(namespace)
    loaded = repo.load(saved)
    assert loaded["bump"]() == 1 and loaded["count"] == 1 and namespace["count"] == 0
    loaded["factor"] = 10
    assert loaded["model"].predict(3) == 31 and namespace["model"].predict(3) == 7
    loaded["data"].append(4)
    assert loaded["total"]() == 10
    assert loaded["scale"].__globals__ is loaded
    assert loaded["math"] is sys.modules["math"]
    assert type(loaded["model"]) is loaded["Model"]


def test_a_function_alone_brings_what_it_reads(repo):
    saved = repo.save(run(NOTEBOOK))
    loaded = repo.load(saved, names=["model"])
    assert list(loaded) == ["model"] and loaded["model"].predict(3) == 7
    bump = repo.load(saved, names=["bump"])["bump"]
    assert (bump(), bump()) == (1, 2)
    view = repo.at(saved)
    assert view["total"]() == 6 and view["model"].predict(1) == 3
    assert type(view["model"]) is view["Model"]


def test_functions_after_a_checkout_use_the_live_namespace(repo):
    namespace = run(NOTEBOOK)
    first = repo.save(namespace)
    run("count = 50\ndef bump(): return 'another'\nextra = [1]", namespace)
    repo.save(namespace)
    diff = repo.checkout(first, namespace)
    assert "extra" in diff.removed and {"count", "bump"} <= set(diff.changed) and not diff.added
    assert namespace["bump"]() == 1 and namespace["count"] == 1
    assert eval("bump()", namespace) == 2
    assert namespace["bump"].__globals__ is namespace
    assert namespace["__builtins__"] is not None and "extra" not in namespace
    run("data.append(5)", namespace)
    assert namespace["total"]() == 11


def test_an_edited_function_is_a_change(repo):
    namespace = run("def f(): return 1\nx = [1]")
    first = repo.save(namespace)
    again = repo.save(namespace)
    assert not repo.diff(first, again)
    run("def f(): return 2", namespace)
    assert repo.diff(first, repo.save(namespace)).changed == ("f",)


def test_moving_a_function_in_its_file_changes_no_pod(repo):
    first = run("def f(x): return x + 1")["f"]
    moved = run("\n\n# a comment\n\ndef f(x): return x + 1")["f"]
    written = [repo.save({"f": f}).report.bytes_written for f in (first, moved, first, moved)]
    # The second one stores the other line numbers; after that there is nothing new.
    assert max(written[2:]) < 512
    assert repo.load()["f"].__code__.co_firstlineno == 5


def test_another_process_can_load_it(tmp_path):
    script = """
        import chipmink, sys
        counter = 5
        class Point:
            def __init__(self, x): self.x = x
            def shifted(self): return Point(self.x + counter)
        points = [Point(1), Point(2)]
        def grow(by):
            global counter
            counter += by
            return points[0].shifted().x
        repo = chipmink.open(sys.argv[1], durable=False)
        print(int(repo.save(globals())))
        repo.close()
    """
    place = str(tmp_path / "repo")
    number = int(in_new_process(script, place))
    with chipmink.open(place) as repo:
        loaded = repo.load(number)
        assert loaded["grow"](5) == 11 and loaded["counter"] == 10
        assert type(loaded["points"][0]) is loaded["Point"]
    second = """
        import chipmink, sys
        repo = chipmink.open(sys.argv[1], durable=False)
        ns = repo.load(int(sys.argv[2]), names=["grow", "points"])
        print(ns["grow"](1), sorted(ns))
    """
    assert in_new_process(second, place, str(number)) == "7 ['grow', 'points']\n"


# --- names of the interpreter


def test_code_that_a_load_runs_finds_its_globals(tmp_path):
    script = """
        import sys, textwrap, chipmink
        repo = chipmink.open(sys.argv[1], durable=False)
        if sys.argv[2] == "save":
            # Names that stand behind what needs them.
            exec(textwrap.dedent('''
                class Key:
                    def __init__(self, text): self.text = text
                    def __hash__(self): return hash(helper(self.text))
                    def __eq__(self, other): return self.text == other.text
                    def __getstate__(self): return self.text
                    def __setstate__(self, text): self.text = json.loads(json.dumps(text)) + SUFFIX
                table = {Key("a"): 1} if "helper" in globals() else None
                class Other:
                    def __setstate__(self, state): self.made = Key("b")
                other = Other()
                other.state = 1
                import json
                def helper(text): return text.upper()
                SUFFIX = ""
                table = {Key("a"): 1}
            '''), namespace := {"__name__": "__main__"})
            del namespace["__builtins__"]
            print(list(namespace), int(repo.save(namespace)))
        else:
            for loaded in (repo.load(1), repo.load(1, names=["table", "other", "Key"]), repo.at(1)):
                assert loaded["table"][loaded["Key"]("a")] == 1 and loaded["other"].made.text == "b"
            view = repo.at(1)
            assert view["other"].made.text == "b" and view["json"].dumps(1) == "1"
            print(list(repo.load(1)))
    """
    names = "['__name__', 'Key', 'table', 'Other', 'other', 'json', 'helper', 'SUFFIX']"
    assert in_new_process(script, str(tmp_path / "repo"), "save").strip() == f"{names} 1"
    assert in_new_process(script, str(tmp_path / "repo"), "load").strip() == names


def test_a_lazy_version_forgets_what_failed(repo):
    namespace = run(
        """
        import sys
        class Fails:
            def __setstate__(self, state):
                if getattr(sys, "fails", False):
                    raise ValueError("not now")
                self.state = state
        first = [1]
        second = [Fails(), first]
        second[0].a = 1
        """
    )
    view = repo.at(repo.save(namespace))
    sys.fails = True
    try:
        with pytest.raises(ValueError, match="not now"):
            view["first"]
    finally:
        del sys.fails
    assert view["second"][1] is view["first"]


def test_dunders_of_the_interpreter_are_saved_by_name(repo):
    namespace = run("x = [1]")
    assert isinstance(namespace["__builtins__"], dict)
    saved = repo.save(namespace, strict=True)
    assert saved.report.objects < 100
    loaded = repo.load(saved)
    assert loaded["__builtins__"] is namespace["__builtins__"] and loaded["x"] == [1]


# --- versions


def test_at_makes_each_object_once(repo):
    namespace = run(
        """
        class Shared: pass
        one, two = [Shared()], [Shared()]
        three = {"one": one}
        """
    )
    view = repo.at(repo.save(namespace))
    assert type(view["one"][0]) is type(view["two"][0]) is view["Shared"]
    assert view["three"]["one"] is view["one"]
    assert "one" in view and "nope" not in view and "variables" in repr(view)


def test_a_lazy_version_reads_only_what_is_asked_for(tmp_path):
    place = tmp_path / "repo"
    with chipmink.open(place, durable=False) as repo:
        saved = repo.save({"small": [1], "big": os.urandom(4_000_000)})
        number = int(saved)
    for pack in place.rglob("*"):
        assert pack.exists()
    with chipmink.open(place, durable=False) as repo:
        assert repo.at(number)["small"] == [1]


def test_checkout_is_all_or_nothing(repo):
    class Fragile:
        broken = False

        def __setstate__(self, state):
            raise RuntimeError("cannot be restored")

    namespace = {"a": [1], "z": Fragile()}
    namespace["z"].x = 1
    first = repo.save(namespace)
    namespace["a"] = [2]
    del namespace["z"]
    second = repo.save(namespace)
    before = dict(namespace)
    with pytest.raises(RuntimeError, match="cannot be restored"):
        repo.checkout(first, namespace)
    assert namespace == before and namespace["a"] is before["a"]
    namespace["a"].append(3)
    third = repo.save(namespace)
    assert repo.load(third) == {"a": [2, 3]} and repo.load(second) == {"a": [2]}


def test_checkout_of_an_unknown_version(repo):
    repo.save({"a": 1})
    namespace = {"a": 1}
    with pytest.raises(KeyError):
        repo.checkout(1_000_000, namespace)
    assert namespace == {"a": 1}


def test_checkout_into_an_empty_namespace(repo):
    first = repo.save({"a": [1], "b": {"c": 2}})
    namespace: dict = {}
    diff = repo.checkout(first, namespace)
    assert namespace == {"a": [1], "b": {"c": 2}} and sorted(diff.added) == ["a", "b"]
    assert not diff.changed and not diff.removed and diff


def test_versions_are_numbers(repo):
    saved = repo.save({"x": 1})
    assert repo.load(numpy.int64(saved)) == {"x": 1}
    for wrong in (1.5, [1], b"1"):
        with pytest.raises(TypeError):
            repo.load(wrong)
    for missing in (-1, 1 << 64, 99):
        with pytest.raises(chipmink.NotFoundError):
            repo.load(missing)


def test_the_log_reads_no_more_than_asked_for(repo):
    for i in range(5):
        repo.save({"x": i})
    with chipmink.open(repo.url, ref="remote/line", durable=False) as line:
        for i in range(9):
            line.save({"x": i})
    assert [version.number for version in repo.log(2)] == [5, 4]
    assert [version.number for version in repo.log()] == [5, 4, 3, 2, 1]
    assert repo.log(0) == [] and len(repo.log(99)) == 5
    with pytest.raises(ValueError, match="-1"):
        repo.log(-1)


# --- restricted loads


def test_allow(repo):
    saved = repo.save({"plain": [1, {"a": (2,)}], "path": Path("x"), "f": lambda: 1})
    assert repo.load(saved, names=["plain"], allow=[]) == {"plain": [1, {"a": (2,)}]}
    with pytest.raises(chipmink.NotAllowedError, match="Path"):
        repo.load(saved, names=["path"], allow=[])
    with pytest.raises(chipmink.NotAllowedError):
        repo.load(saved, names=["f"], allow=[])
    with pytest.raises(chipmink.NotAllowedError):
        repo.at(saved, allow=[])["path"]
    asked = []

    def allow(module, name):
        asked.append(f"{module}.{name}")
        return module.startswith("pathlib")

    assert repo.load(saved, names=["path"], allow=allow) == {"path": Path("x")}
    assert any("PosixPath" in name for name in asked)


# --- the command


def test_the_command_is_installed(tmp_path):
    place = tmp_path / "repo"
    with chipmink.open(place, durable=False) as repo:
        saved = repo.save({"a": [1]}, message="the message")
    for command in ([str(Path(sys.executable).with_name("chipmink"))], [sys.executable, "-m", "chipmink"]):
        done = subprocess.run([*command, "log", str(place), "--json"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "the message" in done.stdout and str(int(saved)) in done.stdout
    done = subprocess.run([*command, "no-such-command"], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "no-such-command" in done.stderr
