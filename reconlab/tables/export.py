"""A page as JSON, with every number unrounded; and the cells that were read, to be stored."""

from __future__ import annotations

import json
import math
from typing import Any

from reconlab.tables.judge import Verdict
from reconlab.tables.measure import Measurement
from reconlab.tables.page import Page, source_names
from reconlab.tables.protocols import protocols_seen
from reconlab.tables.schema import Table
from reconlab.tables.sources import Cells


def to_json(page: Page, measurement: Measurement) -> str:
    """Everything, as numbers."""
    table = measurement.table
    rows = []
    for row in table.rows:
        numbers: dict[str, Any] = {}
        for column in table.columns:
            printed, found = row.paper.get(column.name), measurement.get(row.name, column.name)
            if printed is None and found is None:
                continue
            entry: dict[str, Any] = {"paper": printed}
            if found is not None and not page.paper_only:
                difference = found.mean - printed if isinstance(printed, float) else None
                seeds = {_key(seed): value for seed, value in found.by_seed.items()}
                entry |= {
                    "mean": found.mean,
                    "sd": found.sd,
                    "n": found.n,
                    "by_seed": seeds,
                    "difference": difference,
                }
                entry |= {"best": found.mean == measurement.best(column), "remarks": found.remarks}
            numbers[column.name] = entry
        about = {"name": row.name, "label": row.label, "config": row.config, "quoted": row.quoted, "note": row.note}
        rows.append({**about, "numbers": numbers})
    columns = [
        {
            "name": c.name, "label": c.label, "metric": c.metric, "group": c.group, "factor": c.factor,
            "direction": c.direction, "mean_of": list(c.mean_of), "stated_protocol": c.protocol, "note": c.note,
            "protocols": [] if c.metric is None or page.paper_only else protocols_seen(c, measurement.used),
        }
        for c in table.columns
    ]  # fmt: skip
    content = {
        "table": table.name,
        "title": table.title,
        "paper": table.paper,
        "profile": measurement.profile,
        "columns": columns,
        "rows": rows,
        "claims": [
            {**_verdict(here), "in_paper": _verdict(there)}
            for here, there in zip(page.verdicts, page.paper_verdicts, strict=True)
        ],
        "cells": measurement.counts,
        "sources": source_names(measurement),
        "remarks": page.remarks,
    }
    return json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _verdict(verdict: Verdict) -> dict[str, Any]:
    about = {"text": verdict.claim.text, "ours": verdict.claim.ours, "note": verdict.claim.note}
    return {
        **about,
        "verdict": verdict.verdict,
        "numbers": verdict.numbers,
        "remarks": verdict.remarks,
        "won": verdict.won,
        "compared": verdict.compared,
        "paper": verdict.claim.paper,
        "of": verdict.claim.of,
    }


def _key(seed: Any) -> str:
    return "-".join(str(part) for part in seed) if isinstance(seed, tuple) else str(seed)


def _finite(value: Any) -> Any:
    """The content with null for numbers that JSON lacks."""
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def stored_text(table: Table, cells: Cells, profile: str | None, note: str) -> str:
    """The content of ``results/tables/<name>.json``: every cell that was read, failed ones too."""
    records = [{**cell.record, "state": cell.state, "profile": cell.profile} for cell in cells.cells]
    content = {"table": table.name, "profile": profile, "note": note, "cells": records}
    return json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
