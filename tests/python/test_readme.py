"""The documents say what is so: programs of the README answer what it says, and what else is named (methods and their arguments,
verbs and options of the command, targets of make, files) exists."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import chipmink
import pytest
from chipmink._storage import StorageOptions

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "ARCHITECTURE.md", ROOT / "CHANGELOG.md", ROOT / "crates" / "README.md", ROOT / "crates" / "chipmink-python" / "REMOTE.md"]
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)


def name(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block {i}" for i in range(len(BLOCKS))])
def test_program(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = block.split("\n")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    answers = 0
    for statement in ast.parse(block).body:
        source = ast.get_source_segment(block, statement)
        assert source is not None
        last = lines[(statement.end_lineno or 1) - 1]
        if isinstance(statement, ast.Expr) and "# -> " in last:
            shown = last.partition("# -> ")[2]
            assert repr(eval(source, namespace)) == shown, source
            answers += 1
        else:
            exec(compile(ast.Module([statement], []), "<README>", "exec"), namespace)
    assert answers == block.count("# -> "), "an answer stands at a line that is no expression"


# --- programs that need a bucket, a cluster or a training run: what they call is there, and takes what they give it

EXCERPTS = {
    f"{name(document)} {at}": block
    for document in DOCUMENTS
    for at, block in enumerate(re.findall(r"```py\n(.*?)```", document.read_text(), re.S))
}


def called(function: ast.expr, known: dict[str, Any]) -> Any:
    """What a program calls there, if it is ours."""
    if isinstance(function, ast.Name):
        return known.get(function.id)
    owner = called(function.value, known) if isinstance(function, ast.Attribute) else None
    return None if owner is None else getattr(owner, function.attr)


@pytest.mark.parametrize("where", EXCERPTS)
def test_what_an_excerpt_calls_takes_what_it_is_given(where):
    tree = compile(EXCERPTS[where], where, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    known: dict[str, Any] = {"chipmink": chipmink, "repo": chipmink.Repository, "saved": chipmink.Saved}
    if "heckpoint" in EXCERPTS[where]:
        pytest.importorskip("torch")
        known["checkpointer"] = chipmink.torch.Checkpointer
    for statement in ast.walk(tree):
        if isinstance(statement, ast.ImportFrom) and str(statement.module).startswith("chipmink"):
            module = importlib.import_module(str(statement.module))
            known.update({alias.name: getattr(module, alias.name) for alias in statement.names})
    checked = 0
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        function = called(call.func, known)
        if function is None:
            continue
        signature = inspect.signature(function)
        itself = ["self"] if next(iter(signature.parameters), "") == "self" else []
        options = {keyword.arg: None for keyword in call.keywords if keyword.arg is not None}
        bound = signature.bind(*itself, *call.args, **options)
        assert set(bound.arguments.get("storage", ())) <= set(StorageOptions.__annotations__), ast.unparse(call)
        checked += 1
    assert checked, "nothing of it is ours"


# --- the command, make, files


@functools.cache
def options_of(verb: str) -> str:
    shown = subprocess.run([sys.executable, "-m", "chipmink", *verb.split(), "--help"], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, f"there is no `chipmink {verb}`"
    return shown.stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_commands(document):
    for command in re.findall(r"`chipmink (\w[^`]*)`", document.read_text()):
        verb, *rest = command.split()
        verb = f"{verb} {rest[0]}" if verb == "shm" else verb
        for option in (word for word in rest if word.startswith("--")):
            assert f"{option} " in options_of(verb), command
        assert options_of(verb)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_targets_and_files(document):
    text = document.read_text()
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([\w-]+)`", text)) <= targets
    for file in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (document.parent / file).exists(), file
    for file in re.findall(r"`((?:crates|tests|examples|benches|kernels)/[\w./-]+)`", text):
        assert (ROOT / file).exists(), file
