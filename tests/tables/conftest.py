"""A small table in a folder of its own, and cells for it."""

import json
from pathlib import Path

import pytest
import yaml

PROTOCOL = {"name": "dpc_cd", "squared": False, "points": "all", "scale": "object", "factor": 100.0}
TABLE = {
    "title": "A table",
    "paper": {"name": "Paper", "table": 9, "where": "section 1", "data": "shapes", "protocol": "CD × 100"},
    "profiles": {"desk": ["--trainer.max_steps=8"]},
    "columns": [
        {"name": "CD", "metric": "dpc_cd", "factor": 100, "protocol": {"squared": False, "points": "all"}},
        {"name": "IoU", "metric": "point_iou", "factor": 100, "direction": "higher", "digits": 1},
    ],
    "rows": [
        {"name": "full", "config": "configs/full.yaml", "paper": {"CD": 4.01, "IoU": 60.0}},
        {"name": "half", "config": "configs/half.yaml", "paper": {"CD": 5.5}},
        {"name": "old", "label": "Old & <odd>", "paper": {"CD": 9.0}, "quoted": "another split"},
    ],
    "claims": [{"text": "full is better", "holds": "full.CD < half.CD"}],
}


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """A working directory with the configs that the table names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs" / "tables").mkdir(parents=True)
    for name in ("full", "half"):
        (tmp_path / "configs" / f"{name}.yaml").write_text(f"name: {name}\n")
    return tmp_path


@pytest.fixture
def write(root):
    """Writes the table with changes, as ``configs/tables/small.yaml``."""

    def make(**changes) -> Path:
        file = root / "configs" / "tables" / "small.yaml"
        content = json.loads(json.dumps({**TABLE, **changes}))
        file.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False))
        return file

    return make


@pytest.fixture
def record():
    """A cell's record."""

    def make(row: str, seed: int | None, values: dict | None, **more) -> dict:
        names = list(values or {})
        protocols = {name: {**PROTOCOL, "name": name} for name in names}
        return {
            "cell": f"{row}-seed{seed}", "row": row, "group": None, "seed": seed, "state": "done", "profile": "desk",
            "steps": 800, "values": values, "n": 10, "n_failed": 0, "protocols": protocols, "reason": None,
            "commit": "0123456789abcdef+changes", "machine": {"processor": "P", "cores": 2},
            **more,
        }  # fmt: skip

    return make


@pytest.fixture
def stored(root):
    """Writes records as stored measurements; by default where the small table looks for them."""

    def make(records: list[dict], name: str = "small", **more) -> Path:
        file = root / "results" / "tables" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"table": name, "profile": "desk", "cells": records, **more}))
        return file

    return make


@pytest.fixture
def sweep(root):
    """Writes a sweep's folder."""

    def make(records: list[dict], folder: str = "runs/sweeps/small", listed: list[str] | None = None) -> Path:
        out = root / folder
        for content in records:
            cell = out / "cells" / content["cell"]
            cell.mkdir(parents=True)
            (cell / "cell.json").write_text(json.dumps(content))
        names = listed or [content["cell"] for content in records]
        (out / "sweep.json").write_text(json.dumps({"name": "small", "profile": "desk", "cells": names}))
        return out

    return make
