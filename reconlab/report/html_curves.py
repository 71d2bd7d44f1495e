"""The curves of an HTML report: which charts there are, with their lines thinned to what a screen shows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from reconlab.report.html_runs import Run, Value
from reconlab.report.html_tables import grouped

POINTS = 40_000
"""Points of all lines together, at most about."""
COLORS = 8
"""Colours that the page has."""
LEAST = 100
"""Points that a line keeps however many lines there are."""


def charts(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A chart of the loss and its parts, and one per validation value; several runs lie over each other.

    Returns:
        ``{"id", "title", "log", "means", "lines": [{"name", "run", "color", "dash", "x", "y"}]}``; ``means`` is the
        number of logged values that a point stands for at most, 1 where nothing was thinned.
    """
    columns = list(dict.fromkeys(c for run in runs for c in run.history))
    train = [c for c in columns if c.startswith("train/")]
    val = [c for c in columns if c.startswith("val/") and _overall(c, runs)]
    lines = sum(c in run.history for run in runs for c in (*train, *val))
    keep = max(LEAST, POINTS // max(lines, 1))
    out = []
    if len([r for r in runs if r.history]) == 1 and train:
        out.append(_chart("Training: loss and its parts", train, runs, keep, None))
    else:
        out += [_chart(f"Training: {c.removeprefix('train/')}", [c], runs, keep, None) for c in train]
    for column in val:
        name = column.removeprefix("val/")
        value = next(r.values[name] for r in runs if name in r.values)
        out.append(_chart(f"Validation: {value.header}", [column], runs, keep, value))
    return out


def _overall(column: str, runs: Sequence[Run]) -> bool:
    return any(column.removeprefix("val/") in run.values for run in runs)


def _chart(title: str, columns: Sequence[str], runs: Sequence[Run], keep: int, value: Value | None) -> dict[str, Any]:
    lines, means = [], 1
    factor = 1.0 if value is None else value.factor
    style = styles(runs)
    for index, run in enumerate(runs):
        for c, column in enumerate(columns):
            points = run.history.get(column)
            if not points:
                continue
            x, y, per = thin(points, keep)
            means = max(means, per)
            color, dash = (c, 0) if len(columns) > 1 else style[id(run)]
            name = column.removeprefix("train/") if len(columns) > 1 else run.name
            line = {"name": name, "run": index, "color": color, "dash": dash, "x": x}
            lines.append(line | {"y": [float(f"{v * factor:.6g}") for v in y]})
    key = hashlib.sha256(title.encode()).hexdigest()[:10]
    return {"id": f"chart-{key}", "title": title, "log": value is None, "means": means, "lines": lines}


def styles(runs: Sequence[Run]) -> dict[int, tuple[int, int]]:
    """Colour and dash of each run, by ``id(run)``: a colour each, or one per experiment where there are many runs."""
    if len(runs) <= COLORS:
        return {id(run): (index, 0) for index, run in enumerate(runs)}
    return {id(run): (g, s) for g, same in enumerate(grouped(runs)) for s, run in enumerate(same)}


def thin(points: Sequence[tuple[int, float]], keep: int) -> tuple[list[int], list[float], int]:
    """Means of equally many neighbours, so that at most ``keep`` points are left.

    Returns:
        Steps (of each group's middle), values, and the size of a group.

    Example:
        >>> thin([(0, 1.0), (1, 3.0), (2, 5.0), (3, 7.0)], 2)
        ([1, 3], [2.0, 6.0], 2)
    """
    per = -(-len(points) // keep)
    groups = [points[i : i + per] for i in range(0, len(points), per)]
    return [g[len(g) // 2][0] for g in groups], [sum(v for _, v in g) / len(g) for g in groups], per
