"""The tables of the documentation that say what comes back when, as the tests assert them: cell by cell.

A table begins with a line of situations, and each of its rows is of one kind or, separated by semicolons, of several. A row
``everything else`` stands for the kinds of the first table that the table does not name.
"""

from __future__ import annotations

from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "crates" / "chipmink-python" / "REMOTE.md"
ELSE = "everything else"

Matrix = dict[str, dict[str, str]]


def matrix(title: str, base: Matrix | None = None) -> Matrix:
    """The table whose first line begins with a title: for each kind, what is said of each situation."""
    lines = iter(DOCUMENT.read_text().splitlines())
    header = next(cells for line in lines if (cells := _cells(line)) and cells[0] == title)
    found: Matrix = {}
    for line in lines:
        cells = _cells(line)
        if cells is None:
            break
        if set(cells[0]) <= {"-", ":"}:
            continue
        assert len(cells) == len(header), line
        said = dict(zip(header[1:], cells[1:], strict=True))
        if cells[0] == ELSE:
            assert base is not None and set(said.values()) == {"as by reference"}, line
            found.update({kind: base[kind] for kind in base if kind not in found})
            continue
        for kind in cells[0].split("; "):
            assert kind not in found, kind
            found[kind] = said
    return found


def _cells(line: str) -> list[str] | None:
    if not line.startswith("|"):
        return None
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


class Asserted:
    """Which cells a test has seen to be as they are documented; it is about all, or about some situations."""

    def __init__(self, tables: dict[str, Matrix], situations: set[str] | None = None) -> None:
        self.tables = tables
        cells = {(mode, kind, situation) for mode, table in tables.items() for kind, row in table.items() for situation in row}
        self._left = {cell for cell in cells if situations is None or cell[2] in situations}

    def check(self, mode: str, situation: str, found: dict[str, tuple[str, str]]) -> None:
        """``found`` has for each kind the word of the table, and what was said."""
        expected = {kind: row[situation] for kind, row in self.tables[mode].items()}
        wrong = {kind: (found.get(kind), word) for kind, word in expected.items() if kind not in found or found[kind][0] != word}
        assert not wrong, f"by {mode}, {situation}: {wrong}"
        self._left -= {(mode, kind, situation) for kind in expected}

    def all(self) -> None:
        """Every cell was looked at."""
        assert not self._left, sorted(self._left)
