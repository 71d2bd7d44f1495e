"""A measured cell: one training's record, as sweeps write it and tables store it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

STATES = ("done", "failed", "running")


@dataclass(frozen=True)
class Cell:
    """One training's test values: a cell of a sweep, or a run.

    Attributes:
        name: The cell's name.
        row: A row's name or config, as recorded.
        group: The category of its own that it was trained on, or None.
        seed: Of the training.
        state: ``done``, ``failed`` or ``running``.
        values: Test values without ``test/``; raw.
        protocols: The protocol of each value, by its name.
        n: Judged predictions.
        n_failed: Those of them that failed and were charged the worst value.
        profile: Scale of the training; None where it is not recorded.
        steps: Of the training.
        reason: Why it failed.
        source: Where the record was read.
        record: The whole record.
    """

    name: str
    row: str
    group: str | None
    seed: int | None
    state: str
    values: dict[str, float]
    protocols: dict[str, dict[str, Any]]
    n: int | None
    n_failed: int
    profile: str | None
    steps: int | None
    reason: str | None
    source: str
    record: dict[str, Any] = field(repr=False)


def cell_of(record: Any, where: str, source: str, profile: Any) -> Cell | str:
    """The record as a cell, or the sentence that says what is wrong with it."""
    if not isinstance(record, dict):
        return f"{where} is no record but {record!r}."
    state = record.get("state", "done")
    if state not in STATES:
        return f"{where}: the state is {state!r}; expected {', '.join(STATES)}."
    if not isinstance(record.get("row"), str):
        return f"{where}: 'row' is {record.get('row')!r}; expected a row's name or config."
    values = record.get("values") or {}
    numeric = isinstance(values, dict) and all(
        v is None or (isinstance(v, int | float) and not isinstance(v, bool)) for v in values.values()
    )
    if not numeric or (state == "done" and not values):
        return f"{where}: 'values' holds no numbers, but the state is {state}."
    for key in ("seed", "n", "n_failed", "steps"):
        value = record.get(key)
        if value is not None and not _whole(value):
            return f"{where}: {key!r} is {value!r}; expected a whole number."
    whole = {k: None if record.get(k) is None else int(record[k]) for k in ("seed", "n", "n_failed", "steps")}
    texts = {k: None if record.get(k) is None else str(record[k]) for k in ("group", "reason")}
    given = record.get("profile") or profile
    return Cell(
        name=str(record.get("cell", record["row"])),
        row=record["row"],
        group=texts["group"],
        seed=whole["seed"],
        state=state,
        values={str(k): math.nan if v is None else _float(v) for k, v in values.items()},
        protocols=flat_protocols(record.get("protocols")),
        n=whole["n"],
        n_failed=whole["n_failed"] or 0,
        profile=None if given is None else str(given),
        steps=whole["steps"],
        reason=texts["reason"],
        source=source,
        record=record,
    )


def flat_protocols(content: Any) -> dict[str, dict[str, Any]]:
    """Protocols by value name, from that form or from ``run.json``'s, which nests them by metric."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, dict) and value and all(isinstance(inner, dict) for inner in value.values()):
            found |= value
        elif isinstance(value, dict):
            found[str(key)] = value
    return found


def _whole(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and _float(value).is_integer()


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number beyond all floats
        return math.inf
