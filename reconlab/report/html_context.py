"""What the page's template is filled with."""

from __future__ import annotations

import base64
import importlib
import json
import math
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconlab import __version__
from reconlab.report import html_curves, html_tables
from reconlab.report.html_configs import differences
from reconlab.report.html_runs import Run, Value
from reconlab.report.html_samples import Shown
from reconlab.report.html_sweeps import Cell, Sweep
from reconlab.report.html_text import as_json, inline, template

SCRIPTS = ("report.js", "viewer.js", "samples.js")
PICTURE_LIMIT = 3_000_000
"""Bytes of a run's validation picture, at most; larger ones are left out."""


@dataclass(frozen=True)
class Report:
    """What goes into a page.

    Attributes:
        title: Of the page.
        runs: All runs, in order; those of sweeps too.
        sweeps: Their overviews.
        shown: The samples.
        command: That made the page.
    """

    title: str
    runs: list[Run]
    sweeps: list[Sweep]
    shown: Shown
    command: str


def context(report: Report) -> dict[str, Any]:
    """The template's variables."""
    charts = html_curves.charts(report.runs)
    values, rows = html_tables.compared(report.runs)
    spread = any(count > 1 for row in rows for _, count, _ in row.cells)
    shown = report.shown
    sections = [(f"sweep-{i + 1}", f"Sweep {s.name}") for i, s in enumerate(report.sweeps)]
    sections += [("side", "Side by side")] if len(rows) > 1 else []
    sections += [("runs", "Run")] if len(report.runs) == 1 else []
    sections += [("curves", "Curves")] if charts else []
    sections += [("samples", "Samples")]
    sections += [("runs", "Runs")] if len(report.runs) > 1 else []
    plotly = importlib.import_module("plotly.offline").get_plotlyjs() if charts else ""
    return {
        "title": report.title,
        "version": __version__,
        "nonce": secrets.token_urlsafe(16),
        "written": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "sections": sections,
        "style": template("report.css"),
        "scripts": [inline(template(name)) for name in SCRIPTS],
        "plotly": inline(plotly),
        "sweeps": [_sweep(sweep) for sweep in report.sweeps],
        "rows": rows,
        "values": values,
        "side_caption": "Overall numbers, each times its factor"
        + ("; mean ± standard deviation over the seeds of one configuration" if spread else "")
        + ". The best of each column is marked where all were measured alike, on the same samples.",
        "differences": differences(report.runs) if len(report.runs) <= 12 else [],
        "disagreeing": html_tables.disagreeing(report.runs),
        "runs": [_run(run, not shown.samples) for run in report.runs],
        "charts": [chart | {"summary": _summary(chart)} for chart in charts],
        "thinned": max([chart["means"] for chart in charts if chart["means"] > 1], default=0),
        "has_samples": bool(shown.samples),
        "sample_notes": [*shown.notes, *([] if shown.samples else [_why_no_samples(report)])],
        "sample_caption": _caption(shown),
        "footer": f"Made by: {report.command}",
        "data": as_json(_data(report, charts)),
    }


def _data(report: Report, charts: list[dict[str, Any]]) -> dict[str, Any]:
    shown, style = report.shown, html_curves.styles(report.runs)
    return {
        "runs": [{"name": run.name, "color": style[id(run)][0]} for run in shown.runs],
        "metrics": [
            {"name": v.name, "header": v.header, "factor": v.factor, "higher": v.higher, "counts": v.counts}
            for v in shown.metrics
        ],
        "samples": shown.samples,
        "charts": charts,
    }


def _why_no_samples(report: Report) -> str:
    trained = next((run for run in report.runs if (run.path / "checkpoints" / "last.ckpt").is_file()), None)
    if trained is None:
        return "No predictions are in the run directory; reconlab test writes them."
    path = trained.path / "checkpoints" / "last.ckpt"
    return (
        f"No predictions are in the run directory. `reconlab test --ckpt_path {path}` writes them into a run "
        "directory of its own: report that one."
    )


def _caption(shown: Shown) -> str:
    text = f"{shown.with_shapes} of {shown.total} samples have their shapes in this file"
    if shown.with_shapes < shown.total:
        text += (
            ": failed ones, the worst by each metric in turn, and an even spread of the rest; the others numbers only"
        )
    if shown.simplified:
        text += (
            f". {shown.simplified} shapes are simplified for display to {shown.faces} faces or points at most "
            "(--faces); their numbers are of the originals"
        )
    return text + "."


def _run(run: Run, alone: bool) -> dict[str, Any]:
    table = html_tables.breakdown(run)
    info = run.info
    wall = info.get("wall_seconds")
    picture = _picture(run) if alone else None
    facts = {
        "stage": info.get("stage"),
        "network": _class_of(run, "network"),
        "loss": _class_of(run, "loss"),
        "commit": _commit(info.get("commit")),
        "machine": _machine(info.get("machine")),
        "seed": run.seed,
        "time": info.get("time"),
        "steps": info.get("steps"),
        "wall time": duration(wall) if isinstance(wall, int | float) else None,
    }
    lines = {"command": info.get("command"), "checkpoint": run.checkpoint, "trained in": run.trained}
    measured = [v for v in run.values.values() if v.protocol]
    split = {"test": "Test", "val": "Validation"}.get(run.split or "", "")
    return {
        "name": run.name,
        "status": str(info.get("status", "status unknown")),
        "facts": [(k, str(v)) for k, v in facts.items() if v is not None and v != ""],
        "lines": [(k, str(v)) for k, v in {**lines, "folder": run.path}.items() if v],
        "notes": run.notes,
        "table": table,
        "caption": f"{split} metrics of {run.name}, each times its factor",
        "protocols": measured,
        "config": run.config_text,
        "info": json.dumps({k: v for k, v in info.items() if k not in ("metrics", "protocols")}, indent=2)
        if info
        else "",
        "picture": None if picture is None else base64.b64encode(picture.read_bytes()).decode("ascii"),
        "picture_name": "" if picture is None else picture.name,
    }


def _commit(commit: Any) -> str | None:
    """Its first twelve digits and whether the checkout was edited; run.json has it whole."""
    if not commit:
        return None
    digest, plus, changes = str(commit).partition("+")
    return digest[:12] + plus + changes


def _class_of(run: Run, part: str) -> str | None:
    model = run.config.get("model")
    found = model.get(part) if isinstance(model, dict) else None
    path = found.get("class_path") if isinstance(found, dict) else None
    return str(path).rsplit(".", 1)[-1] if path else None


def _machine(machine: Any) -> str | None:
    if not isinstance(machine, dict):
        return None if machine is None else str(machine)
    parts = [machine.get("accelerator"), machine.get("processor"), machine.get("system")]
    text = ", ".join(str(p) for p in parts if p)
    return f"{text}, {machine['cores']} cores" if machine.get("cores") else text


def _picture(run: Run) -> Path | None:
    found = sorted((run.path / "pictures").glob("step_*.png"))
    return found[-1] if found and found[-1].stat().st_size <= PICTURE_LIMIT else None


def _sweep(sweep: Sweep) -> dict[str, Any]:
    values: dict[str, Value] = {}
    for cell in sweep.cells:
        for name in sweep.values:
            if cell.run is not None and name in cell.run.values:
                values.setdefault(name, cell.run.values[name])
    shown = [values.get(name, Value(name)) for name in sweep.values]
    states: dict[str, int] = {}
    for cell in sweep.cells:
        states[_state(cell)] = states.get(_state(cell), 0) + 1
    about = {**sweep.info, "commit": _commit(sweep.info.get("commit"))}
    facts = [f"{key}: {about[key]}" for key in ("profile", "file", "commit", "time") if about.get(key)]
    cells = [{"name": c.name, "state": _state(c), "facts": _cell_facts(c, shown)} for c in sweep.cells]
    failures = [
        {"name": c.name, "reason": c.record.get("reason") or c.note, "attempts": c.record.get("attempts", "–")}
        for c in sweep.cells
        if _state(c) in ("failed", "damaged") or c.note
    ]
    return {
        "name": sweep.name,
        "facts": " · ".join(facts),
        "states": list(states.items()),
        "metrics": shown,
        "cells": cells,
        "failures": failures,
    }


def _state(cell: Cell) -> str:
    return str(cell.record.get("state", "unknown"))


def _cell_facts(cell: Cell, values: Sequence[Value]) -> list[tuple[str, Any]]:
    record, absent = cell.record, html_tables.ABSENT
    own = record.get("values") if isinstance(record.get("values"), dict) else {}
    facts: list[tuple[str, Any]] = []
    for key in ("seed", "attempts", "steps", "wall_seconds"):
        number = record.get(key)
        text = absent if number is None else str(number)
        if key == "wall_seconds" and isinstance(number, int | float):
            text = duration(number)
        facts.append((text, "" if number is None else number))
    for value in values:
        number = (own or {}).get(value.name)
        good = isinstance(number, int | float) and math.isfinite(number)
        facts.append((html_tables.shown(number if good else None, value), number if good else ""))
    for key in ("n", "n_failed"):
        number = record.get(key)
        facts.append((absent if number is None else str(number), "" if number is None else number))
    return facts


def duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds.

    Example:
        >>> duration(42.3), duration(3725)
        ('42 s', '1 h 02 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _summary(chart: dict[str, Any]) -> str:
    """What a chart says, for those who do not see it."""
    lines = [f"{n['name']} from {n['y'][0]:g} to {n['y'][-1]:g} at step {n['x'][-1]}" for n in chart["lines"][:8]]
    more = len(chart["lines"]) - len(lines)
    return f"{chart['title']}: {'; '.join(lines)}" + (f"; and {more} more lines" if more else "")
