"""A table as lines of text cells, before any format: measured beside the paper, marks, claims, footnotes."""

from __future__ import annotations

import string
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconlab.tables.cells import Cell
from reconlab.tables.judge import Verdict, judge, judge_paper
from reconlab.tables.measure import Measured, Measurement, row_of
from reconlab.tables.schema import Column, Row, Table

MINUS = "−"


@dataclass
class Square:
    """A cell of the page.

    Attributes:
        measured: ``5.11 ± 0.14 (3)``, or empty.
        paper: The paper's number as text, or empty.
        difference: Measured minus paper, signed, or empty.
        best: Whether the measured number is the column's best.
        marks: Letters of footnotes.
    """

    measured: str = ""
    paper: str = ""
    difference: str = ""
    best: bool = False
    marks: list[str] = field(default_factory=list)

    @property
    def beside(self) -> str:
        """The paper's number and the difference: ``paper 4.01, +1.10``."""
        if not self.paper:
            return ""
        return f"paper {self.paper}" + (f", {self.difference}" if self.difference else "")


@dataclass
class Line:
    """A row of the page: its label with marks, and a square per column."""

    label: str
    marks: list[str]
    squares: list[Square]
    quoted: bool


@dataclass
class Page:
    """Everything that is printed.

    Attributes:
        title: Of the table.
        caption: The original, its data and protocol.
        columns: Headers, with an arrow towards better.
        column_marks: Letters of footnotes per column.
        lines: The rows.
        verdicts: The claims; in the paper's own numbers where ``paper_only``.
        paper_verdicts: The claims in the paper's own numbers.
        footnotes: Letter and text.
        remarks: What holds for the whole table: counts, machines, damage.
        paper_only: Whether nothing measured is shown.
    """

    title: str
    caption: list[str]
    columns: list[str]
    column_marks: list[list[str]]
    lines: list[Line]
    verdicts: list[Verdict]
    paper_verdicts: list[Verdict]
    footnotes: list[tuple[str, str]]
    remarks: list[str]
    paper_only: bool


class _Footnotes:
    """Gives each text its letter, in order of appearance."""

    def __init__(self) -> None:
        self.letters: dict[str, str] = {}

    def mark(self, text: str) -> str:
        if text not in self.letters:
            self.letters[text] = letter(len(self.letters))
        return self.letters[text]


def letter(number: int) -> str:
    """The mark of a footnote: a … z, and so on.

    Example:
        >>> [letter(i) for i in (0, 25, 26, 52)]
        ['a', 'z', 'aa', 'ba']
    """
    name = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        name = string.ascii_lowercase[rest] + name
    return name


def in_order(marks: list[str]) -> list[str]:
    """Marks as they are printed beside a number."""
    return sorted(set(marks), key=lambda mark: (len(mark), mark))


def number(value: float, digits: int, sign: bool = False) -> str:
    """A number with its decimals, a true minus, and a sign if asked for.

    Example:
        >>> number(-0.004, 2, sign=True), number(1.1, 2, sign=True), number(-3.0, 1)
        ('±0.00', '+1.10', '−3.0')
    """
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return f"±{text}" if sign else text
    return (MINUS if value < 0 else "+" if sign else "") + text


def measured_text(measured: Measured, digits: int) -> str:
    """``mean ± sd (seeds)``, without a spread for one seed."""
    spread = "" if measured.sd is None else f" ± {number(measured.sd, digits)}"
    return f"{number(measured.mean, digits)}{spread} ({measured.n})"


def page(measurement: Measurement, notes: list[str], paper_only: bool = False) -> Page:
    """Lay out a table.

    Args:
        measurement: What was measured.
        notes: Of the stored measurements.
        paper_only: Show the paper's numbers and judge its claims in them.
    """
    table = measurement.table
    footnotes = _Footnotes()
    shown = [column for column in table.columns if _has_numbers(column, table, measurement, paper_only)]
    hidden = [column.name for column in table.columns if column not in shown]
    common = {} if paper_only else {column.name: _common(column, measurement) for column in shown}
    column_marks = [
        [footnotes.mark(text) for text in ([column.note] if column.note else []) + common.get(column.name, [])]
        for column in shown
    ]
    lines = []
    for row in table.rows:
        measured = not paper_only and any(name == row.name for name, _ in measurement.numbers)
        if not (row.config or row.quoted or row.paper or measured):
            continue  # of ours, and not measured
        marks = [footnotes.mark(f"not measured: {row.quoted}")] if row.quoted else []
        marks += [footnotes.mark(row.note)] if row.note else []
        squares = [
            _square(row, column, measurement, footnotes, None if paper_only else common[column.name])
            for column in shown
        ]
        lines.append(Line(row.label, marks, squares, bool(row.quoted)))
    in_paper = judge_paper(table)
    remarks = list(table.notes)
    if not paper_only:
        remarks += notes + _remarks(measurement)
        if hidden:
            remarks.append(f"Columns without a number: {', '.join(hidden)}.")
    paper = table.paper
    caption = [f"{paper.get('name', '')}, Table {paper.get('table', '?')}, {paper.get('where', '')}".strip(" ,")]
    caption += [f"{key}: {paper[key]}" for key in ("data", "protocol") if key in paper]
    return Page(
        title=table.title,
        caption=caption,
        columns=[_header(column) for column in shown],
        column_marks=column_marks,
        lines=lines,
        verdicts=in_paper if paper_only else judge(measurement),
        paper_verdicts=in_paper,
        footnotes=[(mark, text) for text, mark in footnotes.letters.items()],
        remarks=remarks,
        paper_only=paper_only,
    )


def _has_numbers(column: Column, table: Table, measurement: Measurement, paper_only: bool) -> bool:
    if any(column.name in row.paper for row in table.rows):
        return True
    return not paper_only and any(measurement.get(row.name, column.name) for row in table.rows)


def _header(column: Column) -> str:
    return column.label + {"lower": " ↓", "higher": " ↑", "none": ""}[column.direction]


def _common(column: Column, measurement: Measurement) -> list[str]:
    """What must be said of every measured number of a column, which its header says once."""
    found = [m.remarks for (_, name), m in measurement.numbers.items() if name == column.name]
    if len(found) < 2:
        return []
    return [remark for remark in found[0] if all(remark in other for other in found)]


def _square(
    row: Row, column: Column, measurement: Measurement, footnotes: _Footnotes, common: list[str] | None
) -> Square:
    """``common`` are the remarks of the header; None: the paper's numbers alone."""
    printed = row.paper.get(column.name)
    square = Square()
    if printed is not None:
        square.paper = printed if isinstance(printed, str) else number(printed, column.digits)
    measured = None if common is None else measurement.get(row.name, column.name)
    if measured is None or common is None:
        return square
    square.measured = measured_text(measured, column.digits)
    square.best = measured.mean == measurement.best(column)
    square.marks = [footnotes.mark(remark) for remark in measured.remarks if remark not in common]
    if isinstance(printed, float) and column.direction != "none":
        square.difference = number(measured.mean - printed, column.digits, sign=True)
    return square


def _remarks(measurement: Measurement) -> list[str]:
    """What holds for all measured numbers."""
    counts = measurement.counts
    if not measurement.sources:
        stored = ", ".join(f"results/tables/{name}.json" for name in measurement.table.measurements)
        return [f"Nothing is measured: there is no {stored}; run the sweep, or name one with --from."]
    said = [f"Measured: mean ± sample standard deviation (seeds); read from {', '.join(source_names(measurement))}."]
    count = ", ".join(f"{counts.get(k, 0)} {k}" for k in ("done", "failed", "running", "missing"))
    said.append(f"Cells: {count}.")
    used = measurement.used
    if used:
        said.append(f"Profile: {measurement.profile or 'not recorded'}. {_steps(measurement)}".strip())
        said.append(f"Commits: {_listed(_commit(cell) for cell in used)}.")
        said.append(f"Machines: {_listed(_machine(cell) for cell in used)}.")
    return said + measurement.problems


def source_names(measurement: Measurement) -> list[str]:
    """The files and folders, from the folder of ``configs`` where they lie in it: no machine's paths in results."""
    root = measurement.table.root
    found = [Path(source).absolute() for source in measurement.sources]
    shown = [
        p.relative_to(root) if p.is_relative_to(root) else s for p, s in zip(found, measurement.sources, strict=True)
    ]
    return [str(path) for path in shown]


def _steps(measurement: Measurement) -> str:
    """The steps of the trainings: one number, or the rows of each."""
    rows: dict[int, list[str]] = {}
    for cell in measurement.used:
        row = row_of(cell, measurement.table)
        if cell.steps is not None and row is not None:
            rows.setdefault(cell.steps, []).append(row.name)
    if not rows:
        return ""
    if len(rows) == 1:
        return f"{next(iter(rows))} steps each."
    parts = [f"{steps} ({', '.join(dict.fromkeys(names))})" for steps, names in sorted(rows.items(), reverse=True)]
    return f"Steps: {'; '.join(parts)}."


def _listed(found: Any) -> str:
    counts = Counter(found)
    return "; ".join(name if len(counts) == 1 else f"{name} ({n})" for name, n in counts.most_common())


def _commit(cell: Cell) -> str:
    commit = cell.record.get("commit")
    if not isinstance(commit, str) or not commit:
        return "not recorded"
    name, plus, changes = commit.partition("+")
    return name[:10] + plus + changes


def _machine(cell: Cell) -> str:
    machine = cell.record.get("machine")
    if not isinstance(machine, dict):
        return str(machine or "not recorded")
    parts = [machine.get("accelerator"), machine.get("processor")]
    cores = machine.get("cores")
    return ", ".join(str(p) for p in parts if p) + (f", {cores} cores" if cores else "") or "not recorded"
