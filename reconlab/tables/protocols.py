"""Which protocols a column's numbers were made by, and where they are not the one that the column states."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from reconlab.tables.cells import Cell
from reconlab.tables.schema import Column


def stored_protocol(cell: Cell, key: str) -> dict[str, Any] | None:
    """The protocol of a value, which its categories share."""
    return cell.protocols.get(key) or cell.protocols.get(key.split("/", 1)[0])


def protocol_remarks(column: Column, cells: list[Cell]) -> dict[int, list[str]]:
    """What must be said of each cell's protocol, by the cell's ``id``.

    A protocol is compared with what the column states, and in its other fields with the one that most cells of the
    column have: numbers by different protocols never stand in one column without a mark.
    """
    key = str(column.metric)
    found = {id(cell): stored_protocol(cell, key) for cell in cells}
    common = Counter(_text(p) for p in found.values() if p is not None).most_common(1)
    usual: dict[str, Any] = json.loads(common[0][0]) if common else {}
    remarks: dict[int, list[str]] = {}
    for name, protocol in found.items():
        if protocol is None:
            remarks[name] = ["its protocol was not stored"]
            continue
        plain = json.loads(_text(protocol))
        other = [f for f, value in column.protocol.items() if plain.get(f) != json.loads(_text(value))]
        said = [f"{f} {_short(plain.get(f))} instead of {_short(column.protocol[f])}" for f in other]
        rest = [f for f in {**usual, **plain} if f not in column.protocol and plain.get(f) != usual.get(f)]
        said += [f"{f} {_short(plain.get(f))}, elsewhere {_short(usual.get(f))}" for f in rest]
        if said:
            remarks[name] = [f"other protocol of {key}: {'; '.join(said)}"]
    return remarks


def protocols_seen(column: Column, cells: list[Cell]) -> list[dict[str, Any]]:
    """The different protocols of a column's value, the commonest first."""
    found = [stored_protocol(cell, str(column.metric)) for cell in cells if str(column.metric) in cell.values]
    return [json.loads(text) for text, _ in Counter(_text(p) for p in found if p is not None).most_common()]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _short(value: Any) -> str:
    return "none" if value is None else str(value)
