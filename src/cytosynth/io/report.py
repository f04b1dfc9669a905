"""A measured table: shown on the terminal, and written as JSON, Markdown and CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from . import atomic
from .plain import load, portable

Value = str | int | float | None
WIDE = 240
"""Width of a table written to a file or a pipe, so that no column is cut."""


@dataclass(frozen=True)
class Report:
    """A table of measurements.

    Attributes:
        title: one line.
        facts: everything needed for a repetition: sets, numbers, seeds, digests.
        columns: of the table.
        rows: of the table; None if there is no value.
        notes: how to read it, and its limits.
    """

    title: str
    facts: dict[str, Any]
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...]

    def show(self) -> None:
        """Print the table and the notes on standard output."""
        table = Table(title=self.title, title_justify="left")
        for index, column in enumerate(self.columns):
            table.add_column(column, justify="right" if _numeric(self.rows, index) else "left")
        for row in self.rows:
            table.add_row(*map(_text, row))
        console = Console(markup=False)
        if not console.is_terminal:
            console.width = WIDE
        console.print(table)
        for note in self.notes:
            console.print(f"* {note}", markup=False, highlight=False)

    def write(self, folder: Path, name: str) -> None:
        """Write `name`.json, .md and .csv into `folder`; of absolute paths among the facts, their last part."""
        atomic.write_json(folder / f"{name}.json", self.content())
        atomic.write_text(folder / f"{name}.md", self._markdown())
        write_csv(folder / f"{name}.csv", self.columns, self.rows)

    def content(self) -> dict[str, Any]:
        """Return title, facts, rows by column, and notes, as they go into the JSON file."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return {"title": self.title, **portable(self.facts), "rows": rows, "notes": list(self.notes)}

    def _markdown(self) -> str:
        lines = [f"# {self.title}", "", _line(self.columns), _line(["---"] * len(self.columns))]
        lines += [_line([_text(value) for value in row]) for row in self.rows]
        lines += ["", *(f"- {note}" for note in self.notes), "", "| | |", "|---|---|"]
        lines += [_line([key.replace("_", " "), _text(value)]) for key, value in portable(self.facts).items()]
        return "\n".join(lines) + "\n"


def read(path: Path) -> Report | None:
    """Return the report that `write` put into the `.json` file at `path`, None if it holds something else."""
    content = load(path)
    rows, notes = content.get("rows"), content.get("notes")
    if not (isinstance(content.get("title"), str) and isinstance(rows, list) and isinstance(notes, list)):
        return None
    if not rows or not all(isinstance(row, dict) and row.keys() == rows[0].keys() for row in rows):
        return None
    facts = {key: value for key, value in content.items() if key not in ("title", "rows", "notes")}
    columns = tuple(rows[0])
    return Report(content["title"], facts, columns, tuple(tuple(row.values()) for row in rows), tuple(notes))


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> None:
    """Write a table as CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    atomic.write_text(path, buffer.getvalue())


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _numeric(rows: Sequence[Sequence[Value]], column: int) -> bool:
    return all(isinstance(row[column], int | float) or row[column] is None for row in rows)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.1f}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(inner)}" for key, inner in value.items())
    return str(value)
