"""The reader behind :func:`reconlab.tables.load_table`."""

from __future__ import annotations

import math
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from reconlab.errors import ReconlabError
from reconlab.tables.claims import NEEDS, Claim, Wins, parse
from reconlab.tables.reading import Entry, close_to, read_yaml
from reconlab.tables.schema import Column, Group, Row, Table, root_of
from reconlab.tables.values import COST_VALUES, METRIC_VALUES, is_known

PROFILES = ("smoke", "desk", "paper")
_TOP = [f.name for f in fields(Table) if f.name not in ("name", "file")]
_PAPER = ["name", "table", "where", "data", "protocol"]
_COLUMN, _ROW, _CLAIM = ([f.name for f in fields(kind)] for kind in (Column, Row, Claim))
_NAME = re.compile(r"\w+")
PROTOCOL_FIELDS = (
    *("name", "formula", "unit", "squared", "points", "alignment", "scale", "threshold"),
    *("factor", "higher_is_better", "worst_value", "source"),
)
"""The fields of :class:`reconlab.metrics.Protocol`, which cannot be imported without torch (a test compares them)."""


def read(file: Path, check_files: bool) -> Table:
    """See :func:`reconlab.tables.load_table`."""
    top = Entry(read_yaml(file), file, "", _TOP)
    paper = Entry(top.mapping("paper"), file, "paper", _PAPER)
    groups = _groups(top)
    values = top.texts("values")
    columns = _columns(top, groups, values)
    profiles = {k: _options(top, f"profiles.{k}", v) for k, v in _profiles(top, "profiles").items()}
    rows = _rows(top, columns)
    sweep = top.text("sweep") if "sweep" in top else None
    for i, row in enumerate(rows):
        if not (row.config or row.quoted or row.note):
            top.wrong(f"rows[{i}]", f"({row.name}) has neither config nor quoted; without both, note says why.")
    table = Table(
        name=file.stem,
        file=file,
        title=top.text("title"),
        paper={key: paper.text(key) for key in _PAPER if key in paper},
        sweep=sweep,
        measurements=top.texts("measurements") or (file.stem,),
        profiles=profiles,
        groups=groups,
        columns=columns,
        rows=rows,
        claims=_claims(top, rows, columns),
        values=values,
        notes=top.texts("notes"),
    )
    if check_files:
        _check_files(table)
    return table


def _groups(top: Entry) -> dict[str, Group]:
    found = {}
    for name, content in top.mapping("groups").items():
        entry = Entry(content or {}, top.file, f"groups.{name}", ("label",))
        found[name] = Group(name, entry.text("label", name))
    return found


def _named(entry: Entry, kind: str, seen: dict[str, Any]) -> str:
    name = entry.text("name")
    if not _NAME.fullmatch(name):
        entry.wrong("name", f"is {name!r}; write letters, digits and underscores (label is for the rest).")
    if name in seen:
        entry.wrong("name", f"is {name!r}, which stands twice; {kind} need different names.")
    return name


def _columns(top: Entry, groups: dict[str, Group], values: tuple[str, ...]) -> tuple[Column, ...]:
    found: dict[str, Column] = {}
    for entry in top.entries("columns", _COLUMN):
        name = _named(entry, "columns", found)
        if name[0].isdigit():
            entry.wrong("name", f"is {name!r}; begin it with a letter, so that claims can tell it from a number.")
        metric = entry.text("metric") if "metric" in entry else None
        mean_of = entry.texts("mean_of")
        if (metric is None) == (not mean_of):
            entry.wrong("metric", "and mean_of: a column has one of the two.")
        if metric is not None and not is_known(metric, values):
            entry.wrong(
                "metric", f"is {metric!r}, no value of a metric; {close_to(metric, _known_values(metric, values))}"
            )
        for other in mean_of:
            if other not in found:
                entry.wrong("mean_of", f"names the column {other!r}, which is not above; {close_to(other, found)}")
        group = entry.text("group") if "group" in entry else None
        if group is not None and group not in groups:
            entry.wrong("group", f"is {group!r}; {close_to(group, groups)}")
        digits = entry.number("digits", 2)
        if digits != int(digits) or not 0 <= digits <= 6:
            entry.wrong("digits", f"is {digits:g}; expected a whole number from 0 to 6.")
        protocol = Entry(entry.mapping("protocol"), top.file, entry.at("protocol"), PROTOCOL_FIELDS).content
        found[name] = Column(
            name=name,
            label=entry.text("label", name),
            metric=metric,
            group=group,
            factor=entry.number("factor", 1.0),
            direction=entry.choice("direction", "lower", ("lower", "higher", "none")),
            digits=int(digits),
            protocol=protocol,
            mean=entry.choice("mean", "samples", ("samples", "categories")),
            mean_of=mean_of,
            times=entry.flag("times"),
            note=entry.text("note", ""),
        )
    if not found:
        top.wrong("columns", "is empty; a table has at least one.")
    return tuple(found.values())


def _known_values(metric: str, values: tuple[str, ...]) -> list[str]:
    return [*values, *COST_VALUES, *METRIC_VALUES]


def _rows(top: Entry, columns: tuple[Column, ...]) -> tuple[Row, ...]:
    found: dict[str, Row] = {}
    named = [column.name for column in columns]
    configs: dict[str, str] = {}
    for entry in top.entries("rows", _ROW):
        name = _named(entry, "rows", found)
        paper: dict[str, float | str] = {}
        for column, value in entry.mapping("paper").items():
            key = f"paper.{column}"
            if column not in named:
                entry.wrong(key, f"is of no column; {close_to(column, named)}")
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                entry.wrong(key, f"must be a number (or a text where the paper prints one), not {value!r}.")
            if isinstance(value, int | float) and not math.isfinite(value):
                entry.wrong(key, f"is {value!r}; expected a finite number.")
            if isinstance(value, str) and _is_number(value):
                entry.wrong(key, f"is the text {value!r} to YAML; write a number, with a point: 1.0e-3.")
            paper[column] = value if isinstance(value, str) else float(value)
        config = entry.text("config") if "config" in entry else None
        quoted = entry.text("quoted", "")
        if config and quoted:
            entry.wrong("quoted", "and config: a quoted row is never run; leave one of them out.")
        if config in configs:
            entry.wrong("config", f"is {config}, which the row {configs[str(config)]!r} has; their cells would mix.")
        if config:
            configs[config] = name
        options = {k: _options(entry, f"options.{k}", v) for k, v in _profiles(entry, "options").items()}
        found[name] = Row(
            name=name,
            label=entry.text("label", name),
            config=config,
            options=options,
            paper=paper,
            quoted=quoted,
            times=entry.number("times", 0.0) if "times" in entry else None,
            note=entry.text("note", ""),
        )
    if not found:
        top.wrong("rows", "is empty; a table has at least one.")
    return tuple(found.values())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _profiles(entry: Entry, key: str) -> dict[str, Any]:
    content = entry.mapping(key)
    return Entry(content, entry.file, entry.at(key), PROFILES).content


def _options(entry: Entry, key: str, content: Any) -> list[str]:
    if not isinstance(content, list) or not all(isinstance(option, str) for option in content):
        entry.wrong(key, f"must be a list of options such as --trainer.max_steps=800, not {content!r}.")
    for option in content:
        if not option.startswith("--") or "=" not in option:
            entry.wrong(key, f"holds {option!r}; write options as --key=value.")
    return list(content)


def _claims(top: Entry, rows: tuple[Row, ...], columns: tuple[Column, ...]) -> tuple[Claim, ...]:
    found = []
    row_names, column_names = [r.name for r in rows], [c.name for c in columns]
    for entry in top.entries("claims", _CLAIM):
        if ("holds" in entry) == ("wins" in entry):
            entry.wrong("holds", "and wins: a claim has one of the two.")
        count = {key: int(entry.number(key, 0)) if key in entry else None for key in ("paper", "of")}
        common: dict[str, Any] = {"ours": entry.flag("ours"), "note": entry.text("note", "")}
        if "holds" in entry:
            try:
                comparisons = parse(entry.text("holds"))
            except ReconlabError as error:
                entry.wrong("holds", f"is wrong: {error}")
            for term in (t for c in comparisons for t in (c.left, c.right) if t.row is not None):
                _check_name(entry, "holds", "row", term.row, row_names)
                _check_name(entry, "holds", "column", term.column, column_names)
            found.append(Claim(entry.text("text"), holds=comparisons, **common))
            continue
        wins = _wins(entry, row_names, columns)
        if count["of"] not in (None, wins.total):
            entry.wrong("of", f"is {count['of']}, but pairs × columns are {wins.total} comparisons.")
        found.append(Claim(entry.text("text"), wins=wins, paper=count["paper"], of=count["of"], **common))
    return tuple(found)


def _wins(entry: Entry, rows: list[str], columns: tuple[Column, ...]) -> Wins:
    inner = Entry(entry.mapping("wins"), entry.file, entry.at("wins"), ("pairs", "columns", "needs"))
    pairs = []
    for pair in inner.items("pairs"):
        if not isinstance(pair, list) or len(pair) != 2:
            inner.wrong("pairs", f"holds {pair!r}; expected [original, other] of two rows.")
        for row in pair:
            _check_name(inner, "pairs", "row", str(row), rows)
        pairs.append((str(pair[0]), str(pair[1])))
    chosen = inner.texts("columns")
    directions = {column.name: column.direction for column in columns}
    for name in chosen:
        _check_name(inner, "columns", "column", name, list(directions))
        if directions[name] == "none":
            inner.wrong("columns", f"names {name}, whose direction is none: neither is better.")
    if not pairs or not chosen:
        inner.wrong("pairs" if not pairs else "columns", "is empty; a count needs both.")
    return Wins(tuple(pairs), chosen, inner.choice("needs", "majority", NEEDS))


def _check_name(entry: Entry, key: str, kind: str, name: str | None, known: list[str]) -> None:
    if name not in known:
        entry.wrong(key, f"names the {kind} {name!r}, which the table lacks; {close_to(str(name), known)}")


def _check_files(table: Table) -> None:
    root = root_of(table.file)
    wanted = [(f"rows.{row.name}.config", row.config) for row in table.rows]
    wanted.append(("sweep", table.sweep))
    options = [(f"profiles.{k}", v) for k, v in table.profiles.items()]
    options += [(f"rows.{row.name}.options.{k}", v) for row in table.rows for k, v in row.options.items()]
    wanted += [(key, o.split("=", 1)[1]) for key, many in options for o in many if o.startswith("--config=")]
    for key, path in wanted:
        if path and not (root / path).is_file():
            raise ReconlabError(f"{table.file}: {key} is {path}, which is not there (looked in {root}).")
