"""The programs of the README run and answer what the README says."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)


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
