"""From cells to the numbers of a table: mean and spread over seeds, and every remark that belongs beside a number."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from reconlab.tables.cells import Cell
from reconlab.tables.protocols import protocol_remarks
from reconlab.tables.schema import Column, Row, Table
from reconlab.tables.sources import Cells
from reconlab.tables.values import COST_VALUES


@dataclass
class Measured:
    """A measured number, in the paper's unit.

    Attributes:
        by_seed: The values, by seed (or by the cell's name where it has none).
        remarks: What must be said of it; each becomes a footnote.
    """

    by_seed: dict[Any, float]
    remarks: list[str] = field(default_factory=list)

    @property
    def n(self) -> int:
        """The number of seeds."""
        return len(self.by_seed)

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return statistics.fmean(self.by_seed.values())

    @property
    def sd(self) -> float | None:
        """The sample standard deviation; None for one seed."""
        return statistics.stdev(self.by_seed.values()) if self.n > 1 else None


@dataclass
class Measurement:
    """All measured numbers of a table.

    Attributes:
        table: The table.
        profile: The profile that most cells have, or the one asked for.
        numbers: By row and column; no entry where there is none.
        used: The finished cells that count.
        counts: Cells ``done``, ``failed``, ``running`` and ``missing``.
        problems: Sentences about cells that do not count.
        sources: Where the cells were read.
    """

    table: Table
    profile: str | None
    numbers: dict[tuple[str, str], Measured] = field(default_factory=dict)
    used: list[Cell] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def get(self, row: str, column: str) -> Measured | None:
        """The number, if it was measured."""
        return self.numbers.get((row, column))

    def best(self, column: Column) -> float | None:
        """The best measured mean of a column; None where there are fewer than two, or no direction."""
        means = [m.mean for (_, name), m in self.numbers.items() if name == column.name]
        if len(means) < 2 or column.direction == "none":
            return None
        return min(means) if column.lower else max(means)


def row_of(cell: Cell, table: Table) -> Row | None:
    """The row that a cell belongs to: by the row's name or by its config, wherever the checkout lies."""
    given = PurePath(cell.row).parts
    for row in table.rows:
        parts = PurePath(row.config).parts if row.config else ()
        if cell.row == row.name or (parts and given[-len(parts) :] == parts):
            return row
    return None


def measure(table: Table, cells: Cells, profile: str | None = None) -> Measurement:
    """Sort the cells into the table.

    Args:
        table: The table.
        cells: What was read.
        profile: Take cells of this profile alone; by default each row's cells of the commonest profile, or of
            another one, marked, where it has none.
    """
    result = Measurement(table, profile, problems=list(cells.problems), sources=list(cells.sources))
    mine = _of_rows(table, cells, result)
    done = [(row, cell) for row, cell in mine if cell.state == "done"]
    if profile is None:
        common = Counter(cell.profile for _, cell in done if cell.profile).most_common(1)
        result.profile = common[0][0] if common else None
    chosen = _one_profile(done, result, strict=profile is not None)
    chosen = _one_per_seed(chosen, result)
    result.used = [cell for _, cell in chosen]
    for column in table.columns:
        if not column.mean_of:
            _fill(column, table, chosen, result)
    for column in table.columns:
        if column.mean_of:
            _fill_mean(column, table, result)
    _count(table, mine, chosen, cells, result)
    return result


def _of_rows(table: Table, cells: Cells, result: Measurement) -> list[tuple[Row, Cell]]:
    found, strangers, groups = [], Counter[str](), Counter[str]()
    for cell in cells.cells:
        row = row_of(cell, table)
        if row is None:
            strangers[cell.row] += 1
        elif row.quoted:
            result.problems.append(f"{cell.name} ({cell.source}) is of {row.name}, which is quoted; it is not shown.")
        elif table.groups and cell.group not in table.groups:
            groups[f"{row.name} of {cell.group or 'all categories at once'}"] += 1
        else:
            found.append((row, cell))
    if table.measurements != (table.name,) and strangers:  # it reads another table's cells: of its other rows, too
        result.problems.append(f"{strangers.total()} cells of other tables' rows are not of this one.")
        strangers.clear()
    for what, counted in (("row", strangers), ("group", groups)):
        if counted:
            listed = ", ".join(f"{name} ({count})" for name, count in sorted(counted.items()))
            result.problems.append(f"Cells of no {what} of this table are not shown: {listed}.")
    return found


def _one_profile(done: list[tuple[Row, Cell]], result: Measurement, strict: bool) -> list[tuple[Row, Cell]]:
    """Of each row the cells of one profile."""
    chosen, left = [], Counter[str]()
    by_row: dict[str, list[tuple[Row, Cell]]] = {}
    for row, cell in done:
        by_row.setdefault(row.name, []).append((row, cell))
    for pairs in by_row.values():
        profiles = Counter(cell.profile for _, cell in pairs)
        kept = result.profile in profiles or strict
        wanted = result.profile if kept else profiles.most_common(1)[0][0]
        chosen += [pair for pair in pairs if pair[1].profile == wanted]
        left.update(str(cell.profile or "unknown") for _, cell in pairs if cell.profile != wanted)
    for name, count in sorted(left.items()):
        result.problems.append(f"{count} finished cells of the profile {name} are not shown (--profile {name} does).")
    return chosen


def _one_per_seed(chosen: list[tuple[Row, Cell]], result: Measurement) -> list[tuple[Row, Cell]]:
    """Of several records of one row, group and seed the last that was read."""
    last: dict[tuple[Any, ...], tuple[Row, Cell]] = {}
    again: list[str] = []
    for row, cell in chosen:
        key = (row.name, cell.group, cell.name if cell.seed is None else cell.seed)
        if key in last:
            again.append(f"{row.name}{'-' + cell.group if cell.group else ''} seed {cell.seed}")
        last[key] = (row, cell)
    if again:
        result.problems.append(f"Measured more than once, the last one read counts: {', '.join(sorted(again))}.")
    return list(last.values())


def _fill(column: Column, table: Table, chosen: list[tuple[Row, Cell]], result: Measurement) -> None:
    """The measured numbers of a column that has a metric."""
    key = str(column.metric)
    members = [(row, cell) for row, cell in chosen if not table.groups or cell.group == column.group]
    with_protocol = key not in table.values and key not in COST_VALUES
    remarks = protocol_remarks(column, [c for _, c in members if key in c.values]) if with_protocol else {}
    judged_on = Counter(names for _, c in members if (names := _categories(c, key))).most_common(1)
    usual = judged_on[0][0] if judged_on else frozenset()
    for row in table.rows:
        mine = [cell for r, cell in members if r is row]
        found = {id(cell): _value(cell, key, column.mean) for cell in mine}
        having = [cell for cell in mine if math.isfinite(found[id(cell)])]
        if not having or (column.times and row.times is None):
            continue
        factor = column.factor * (row.times if column.times and row.times is not None else 1.0)
        groups = sorted({str(c.group) for c in having})
        several = len(groups) > 1
        values = {(c.group, _seed(c)) if several else _seed(c): factor * found[id(c)] for c in having}
        said = [remark for cell in having for remark in remarks.get(id(cell), [])]
        bad = [c for c in mine if key in c.values and not math.isfinite(found[id(c)])]
        if bad:
            said.append(f"the value of {_seeds(bad)} is not finite and left out")
        if len(mine) > len(having) + len(bad):
            said.append(f"measured on {len(having)} of {len(mine)} seeds only")
        failed, judged = sum(c.n_failed for c in having), sum(c.n or 0 for c in having)
        if failed and with_protocol:
            said.append(f"{failed} of {judged or '?'} predictions failed and count with the worst value")
        if column.mean == "categories" and any(not _by_category(c, key) for c in having):
            said.append("the mean over samples: its categories' values were not recorded")
        if column.mean == "categories":
            odd = sorted({", ".join(sorted(own)) for c in having if (own := _categories(c, key)) and own != usual})
            said += [f"the mean over {names}; elsewhere over {', '.join(sorted(usual))}" for names in odd]
        if several:
            said.append(f"trained on {', '.join(groups)} apart and mixed here")
        profiles = {c.profile for c in having} - {result.profile}
        if profiles:
            said.append(f"at the profile {', '.join(sorted(str(p or 'unknown') for p in profiles))}")
        result.numbers[row.name, column.name] = Measured(values, list(dict.fromkeys(said)))


def _fill_mean(column: Column, table: Table, result: Measurement) -> None:
    """The mean of other columns, over the seeds that all of them have."""
    for row in table.rows:
        parts = [result.get(row.name, name) for name in column.mean_of]
        there = [part for part in parts if part is not None]
        if len(there) < len(parts):
            continue
        shared = [seed for seed in there[0].by_seed if all(seed in part.by_seed for part in there)]
        if not shared:
            continue
        values = {seed: column.factor * statistics.fmean(part.by_seed[seed] for part in there) for seed in shared}
        said = [remark for part in there for remark in part.remarks]
        if any(part.n > len(shared) for part in there):
            said.append(f"over the {len(shared)} seeds that {', '.join(column.mean_of)} have in common")
        result.numbers[row.name, column.name] = Measured(values, list(dict.fromkeys(said)))


def _count(
    table: Table,
    mine: list[tuple[Row, Cell]],
    chosen: list[tuple[Row, Cell]],
    cells: Cells,
    result: Measurement,
) -> None:
    states = Counter(cell.state for _, cell in mine)
    result.counts = {"done": len(chosen), "failed": states["failed"], "running": states["running"]}
    result.counts["missing"] = cells.missing
    for row, cell in mine:
        if cell.state == "failed":
            reason = (cell.reason or "no reason recorded").strip().splitlines()[-1]
            result.problems.append(f"failed: {cell.name} ({row.name}): {reason}")
    running = [cell.name for _, cell in mine if cell.state == "running"]
    if running:
        result.problems.append(f"running, or stopped before their end: {', '.join(running)}")
    groups: list[str | None] = [*table.groups] if table.groups else [None]
    wanted = [(row.name, group) for row in table.rows if row.config for group in groups]
    have = {(row.name, cell.group if table.groups else None) for row, cell in chosen}
    empty = [f"{name}{'-' + str(group) if group else ''}" for name, group in wanted if (name, group) not in have]
    if empty and chosen:
        result.problems.append(f"Not measured: {', '.join(empty)}.")


def _by_category(cell: Cell, key: str) -> list[float]:
    return [value for name, value in cell.values.items() if name.startswith(f"{key}/")]


def _categories(cell: Cell, key: str) -> frozenset[str]:
    return frozenset(name.split("/", 1)[1] for name in cell.values if name.startswith(f"{key}/"))


def _value(cell: Cell, key: str, mean: str) -> float:
    """A cell's value of a metric, NaN where it has none; a mean over categories needs their values."""
    value = cell.values.get(key, math.nan)
    parts = _by_category(cell, key) if mean == "categories" else []
    return statistics.fmean(parts) if parts and math.isfinite(value) else value


def _seed(cell: Cell) -> Any:
    return cell.name if cell.seed is None else cell.seed


def _seeds(cells: list[Cell]) -> str:
    names = ", ".join(str(_seed(cell)) for cell in cells)
    return f"seed{'s' if len(cells) > 1 else ''} {names}"
