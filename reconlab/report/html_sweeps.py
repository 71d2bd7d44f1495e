"""Reading sweep folders for the HTML report: their cells, and which of them show samples."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconlab.errors import ReconlabError
from reconlab.report.html_runs import Run, read_history, read_run

SHOWN_CELLS = 6
"""Cells whose samples are shown if none are named."""


@dataclass
class Cell:
    """A cell of a sweep: its record, and its run if one can be read.

    Attributes:
        name: Of the cell.
        record: ``cell.json``; ``{"state": "not started"}`` without.
        run: That has the test values, else the newest; with the curves of those that it went on from.
        note: Why there is none though there should be, or what is damaged.
    """

    name: str
    record: dict[str, Any]
    run: Run | None = None
    note: str = ""


@dataclass
class Sweep:
    """A folder that ``reconlab sweep`` made.

    Attributes:
        path: The folder.
        name: Of the sweep.
        info: ``sweep.json``.
        cells: In the sweep's order.
    """

    path: Path
    name: str
    info: dict[str, Any]
    cells: list[Cell] = field(default_factory=list)

    @property
    def values(self) -> list[str]:
        """The names of the metrics that some cell has, in order; per-category ones and counts left out."""
        found: dict[str, None] = {}
        for cell in self.cells:
            values = cell.record.get("values")
            names = list(values) if isinstance(values, dict) else []
            known = set(cell.run.values) if cell.run else {n for n in names if "/" not in n}
            found |= dict.fromkeys(n for n in names if n in known)
        return list(found)


def is_sweep(path: Path) -> bool:
    """Whether a folder was made by ``reconlab sweep``."""
    return (path / "sweep.json").is_file() or (path / "cells").is_dir()


def read_sweep(path: Path) -> Sweep:
    """Read a sweep's folder; cells that cannot be read keep their place with a note.

    Raises:
        ReconlabError: ``sweep.json`` is damaged, or there are no cells.
    """
    info: dict[str, Any] = {}
    if (path / "sweep.json").is_file():
        info = _read_json(path / "sweep.json")
    folder = path / "cells"
    there = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    planned = [str(name) for name in info.get("cells") or []]
    names = list(dict.fromkeys([*planned, *there]))
    if not names:
        raise ReconlabError(f"The sweep {path} has no cells yet: run reconlab sweep first.")
    sweep = Sweep(path, str(info.get("name") or path.absolute().name), info)
    sweep.cells = [_read_cell(folder / name, name) for name in names]
    return sweep


def _read_cell(folder: Path, name: str) -> Cell:
    cell = Cell(name, {"state": "not started"})
    if not (folder / "cell.json").is_file():
        return cell
    try:
        cell.record = _read_json(folder / "cell.json")
    except ReconlabError as error:
        cell.record, cell.note = {"state": "damaged"}, str(error)
        return cell
    there = sorted((p.name for p in folder.iterdir() if p.is_dir() and p.name.isdigit()), key=int)
    run = cell.record.get("run") or (there[-1] if there else None)
    if not isinstance(run, str):
        cell.note = "it has no run directory" if cell.record.get("state") == "done" else ""
        return cell
    place = folder / run
    if not place.resolve().is_relative_to(folder.resolve()):
        cell.note = f"its run {run!r} lies outside of the cell's folder"
        return cell
    try:
        cell.run = read_run(place, name)
    except ReconlabError as error:
        cell.note = str(error)
        return cell
    cell.run.cell = cell.record
    for earlier in reversed([n for n in there if int(n) < int(run)] if run.isdigit() else []):
        prepend(cell.run, read_history(folder / earlier / "metrics.csv", cell.run.notes))
    return cell


def prepend(run: Run, earlier: dict[str, list[tuple[int, float]]]) -> None:
    """Put the curves of an interrupted run before those of the one that went on from its checkpoint.

    Steps that were made twice are those of the later run.
    """
    for column, points in earlier.items():
        later = run.history.get(column, [])
        first = min((step for step, _ in later), default=None)
        run.history[column] = [p for p in points if first is None or p[0] < first] + later


def choose_cells(sweep: Sweep, wanted: list[str] | None) -> list[Run]:
    """The runs whose samples are shown: the named cells; else the finished ones of the first seed, at most six.

    Raises:
        ReconlabError: A name is no cell, or its run cannot be read.
    """
    if wanted is None:
        done = [c.run for c in sweep.cells if c.record.get("state") == "done" and c.run is not None]
        seeds = [r.cell.get("seed") for r in done if r.cell]
        first = 0 if 0 in seeds else next(iter(seeds), None)
        return [r for r in done if r.cell and r.cell.get("seed") == first][:SHOWN_CELLS]
    by_name = {cell.name: cell for cell in sweep.cells}
    runs = []
    for name in wanted:
        if name not in by_name:
            raise ReconlabError(f"--cells: {sweep.path} has no cell {name!r}; it has {', '.join(by_name)}.")
        cell = by_name[name]
        if cell.run is None:
            why = cell.note or f"it is {cell.record.get('state')}"
            raise ReconlabError(f"--cells: the cell {name!r} has nothing to show: {why.rstrip('.')}.")
        runs.append(cell.run)
    return runs


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReconlabError(f"{path} is damaged ({error}): restore it or run the sweep again.") from error
    if not isinstance(found, dict):
        raise ReconlabError(f"{path} is damaged (no mapping): restore it or run the sweep again.")
    return found
