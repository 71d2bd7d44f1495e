"""The report's tables: metrics by category, and runs side by side with the spread over their seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from reconlab.report.html_configs import IGNORED, experiment
from reconlab.report.html_runs import Run, Value

ABSENT = "–"


@dataclass(frozen=True)
class Line:
    """A metric of a run: shown values over all samples and by category, and how many samples."""

    value: Value
    overall: str
    categories: list[str]
    n: str
    failed: str


@dataclass(frozen=True)
class Breakdown:
    """A run's metrics: a line per value, a column per category."""

    split: str
    categories: list[str]
    lines: list[Line]


@dataclass
class Row:
    """Runs of one experiment (or one run), for the table side by side.

    Attributes:
        label: Of the experiment.
        runs: Its runs, one per seed.
        cells: Per metric ``(text, count, best)``.
    """

    label: str
    runs: list[Run]
    cells: list[tuple[str, int, bool]] = field(default_factory=list)

    @property
    def seeds(self) -> str:
        """The seeds, in order."""
        return ", ".join(str(run.seed) for run in self.runs if run.seed is not None) or ABSENT


def shown(number: float | None, value: Value) -> str:
    """A stored number times its factor: two decimals, none from 1000 on, three figures below 0.1.

    Example:
        >>> shown(0.0431, Value("cd", 100)), shown(43.84, Value("cd", 100)), shown(0.000123456, Value("cd", 100))
        ('4.31', '4384', '0.0123')
    """
    if number is None:
        return ABSENT
    size = abs(number * value.factor)
    if 0 < size < 0.1:
        return f"{number * value.factor:.3g}"
    return f"{number * value.factor:.{0 if size >= 1000 else 2}f}"


def split_key(key: str, names: Sequence[str]) -> tuple[str, str] | None:
    """``<value>[/<rest>]`` -> value name and rest, where value names may hold slashes; None for another key.

    Example:
        >>> split_key("cd/chair/n", ["cd", "coarse/cd"]), split_key("coarse/cd", ["cd", "coarse/cd"])
        (('cd', 'chair/n'), ('coarse/cd', ''))
    """
    for name in sorted(names, key=len, reverse=True):
        if key == name:
            return name, ""
        if key.startswith(f"{name}/"):
            return name, key[len(name) + 1 :]
    return None


def breakdown(run: Run) -> Breakdown | None:
    """The numbers of a run's test (else validation); None if it has none."""
    split = run.split
    if split is None:
        return None
    table: dict[str, dict[str, float]] = {}
    for key, number in run.metrics.items():
        found = split_key(key.removeprefix(f"{split}/"), list(run.values)) if key.startswith(f"{split}/") else None
        if found is not None:
            table.setdefault(found[0], {})[found[1]] = number
    counts = {"n", "n_failed"}
    categories = sorted({k for rests in table.values() for k in rests if k and k.split("/")[-1] not in counts})
    lines = []
    for name, value in run.values.items():
        if name in table:
            own, head = table[name], table.get(value.counts, {})
            cells = [shown(own.get(c), value) for c in categories]
            n, failed = (str(int(head[k])) if k in head else ABSENT for k in ("n", "n_failed"))
            lines.append(Line(value, shown(own.get(""), value), cells, n, failed))
    return Breakdown(split, categories, lines)


def cell_key(run: Run) -> str:
    """What runs that differ in their seed only have in common."""
    if run.cell is not None:
        parameters = run.cell.get("parameters")
        others = {k: v for k, v in parameters.items() if k not in IGNORED} if isinstance(parameters, dict) else None
        known = [run.cell.get(k) for k in ("sweep", "row", "group", "profile")]
        return json.dumps([*known, others], sort_keys=True, default=str)
    return experiment(run) if run.config else str(run.path)


def grouped(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs of the same experiment together, in order, if their seeds all differ; else each alone."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(f"{run.split}|{cell_key(run)}", []).append(run)
    out: list[list[Run]] = []
    for group in groups.values():
        distinct = len({str(run.seed) for run in group}) == len(group)
        out += [group] if distinct else [[run] for run in group]
    return out


def compared(runs: Sequence[Run]) -> tuple[list[Value], list[Row]]:
    """Overall numbers of runs side by side: mean ± standard deviation where several seeds are one experiment."""
    values: dict[str, Value] = {}
    for run in runs:
        for name, value in run.values.items():
            if run.split and f"{run.split}/{name}" in run.metrics:
                values.setdefault(name, value)
    rows = [Row(_label(group), group) for group in grouped(runs)]
    for name, value in values.items():
        numbers = [[r.metrics[k] for r in row.runs if (k := f"{r.split}/{name}") in r.metrics] for row in rows]
        means = [statistics.fmean(n) if n else None for n in numbers]
        present = [m for m in means if m is not None]
        best = None
        if value.higher is not None and len(present) > 1 and _same_protocol(name, rows):
            best = (max if value.higher else min)(present)
        for row, own, mean in zip(rows, numbers, means, strict=True):
            text = shown(mean, value)
            if len(own) > 1:
                decimals = len(text.partition(".")[2]) if "e" not in text else 2
                text += f" ± {statistics.stdev(own) * value.factor:.{decimals}f}"
            row.cells.append((text, len(own), mean is not None and mean == best))
    return list(values.values()), rows


def _same_protocol(name: str, rows: Sequence[Row]) -> bool:
    """Whether all runs measured this value alike, on the same samples; else none may be called the best."""
    found = [(_tested(r, name), dict(r.values[name].protocol)) for row in rows for r in row.runs if _has(r, name)]
    return all(one == found[0] for one in found)


def _has(run: Run, name: str) -> bool:
    return name in run.values and f"{run.split}/{name}" in run.metrics


def _tested(run: Run, name: str) -> list[Any]:
    """What is known of the samples that a value is the mean of: split, data, how many of which categories."""
    data = run.config.get("data")
    root = data.get("root") if isinstance(data, dict) else None
    head = f"{run.split}/{run.values[name].counts}"
    counts = {k: v for k, v in run.metrics.items() if k.startswith(f"{head}/") and k.endswith("/n")}
    return [run.split, root, counts]


def disagreeing(runs: Sequence[Run]) -> list[str]:
    """Values that some runs measured under another protocol than others."""
    names = dict.fromkeys(name for run in runs for name in run.values)
    out = []
    for name in names:
        stored: list[Any] = [dict(p) for r in runs if name in r.values and (p := r.values[name].protocol)]
        if any(one != stored[0] for one in stored[1:]):
            out.append(name)
    return out


def _label(group: Sequence[Run]) -> str:
    if len(group) == 1 or group[0].cell is None:
        return (
            " · ".join(run.name for run in group) if len(group) <= 3 else f"{group[0].name} and {len(group) - 1} more"
        )
    row, part = group[0].cell.get("row"), group[0].cell.get("group")
    stem = str(row).rsplit("/", 1)[-1].removesuffix(".yaml")
    return f"{stem} · {part}" if part else stem
