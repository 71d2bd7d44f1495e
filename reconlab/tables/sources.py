"""Where measured cells are read: sweep folders, run directories, stored files; nothing is dropped without a word."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconlab.errors import ReconlabError
from reconlab.tables.cells import Cell, cell_of
from reconlab.tables.reading import close_to
from reconlab.tables.schema import Table

_COUNT = re.compile(r".*/(n|n_failed)$")


@dataclass
class Cells:
    """What was read.

    Attributes:
        cells: Every readable record.
        problems: Sentences about what could not be read, or is not there.
        sources: The files and folders.
        notes: The stored files' own notes.
        missing: Cells that a sweep lists and that have no record.
    """

    cells: list[Cell] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing: int = 0

    def __iadd__(self, other: Cells) -> Cells:
        self.cells += other.cells
        self.problems += other.problems
        self.sources += other.sources
        self.notes += other.notes
        self.missing += other.missing
        return self


def read_stored(table: Table) -> Cells:
    """The stored measurements of a table, ``results/tables/<name>.json`` beside ``configs``, if there are any.

    Raises:
        ReconlabError: A file is there and cannot be read.
    """
    found = Cells()
    for name in table.measurements:
        file = table.root / "results" / "tables" / f"{name}.json"
        if file.is_file():
            found += read_file(file)
    return found


def read_source(text: str, table: Table) -> Cells:
    """What ``--from`` names: a sweep folder, a stored file, or ``row=RUN``.

    Raises:
        ReconlabError: It is none of these; the sentence says what it lacks.
    """
    row, _, rest = text.partition("=")
    path = Path(text)
    if not path.exists() and rest:
        rows = [r.name for r in table.rows]
        if row not in rows:
            raise ReconlabError(f"--from {text}: {table.name} has no row {row!r}; {close_to(row, rows)}")
        return _read_run(Path(rest), row, table)
    if not path.exists():
        raise ReconlabError(f"--from {text} does not exist; name a sweep's folder, a stored JSON file, or ROW=RUN.")
    if path.is_file():
        return read_file(path)
    if (path / "sweep.json").is_file() or (path / "cells").is_dir():
        return read_sweep(path)
    if (path / "run.json").is_file():
        raise ReconlabError(f"--from {text} is a run; say which row it is: --from ROW={text}.")
    below = sorted(p.parent.name for p in path.glob("*/sweep.json"))
    hint = f"name one of the sweeps in it: {', '.join(below[:5])}." if below else "it holds no sweep.json, no cells/."
    raise ReconlabError(f"--from {text} is no sweep's folder; {hint}")


def read_file(file: Path) -> Cells:
    """A stored file of cells, or the JSON of ``reconlab figure drkfs-fig6``.

    Raises:
        ReconlabError: It cannot be read, or a record in it is wrong.
    """
    content = _json(file)
    if isinstance(content, str):
        raise ReconlabError(content)
    records = content.get("cells") if isinstance(content, dict) else None
    if isinstance(content, dict) and records is None and isinstance(content.get("table"), dict):
        records = _from_bars(content, file)
    if not isinstance(records, list):
        raise ReconlabError(f"{file}: the key 'cells' is no list of records (docs/tables.md says what it holds).")
    found = Cells(sources=[str(file)])
    note = content.get("note")
    if note:
        found.notes.append(str(note))
    for i, record in enumerate(records):
        cell = cell_of(record, f"{file}: cells[{i}]", str(file), content.get("profile"))
        if isinstance(cell, str):
            raise ReconlabError(cell)
        found.cells.append(cell)
    return found


def read_sweep(folder: Path) -> Cells:
    """The cells of a sweep's folder. What is damaged or gone is named in ``problems``."""
    found = Cells(sources=[str(folder)])
    sweep = _json(folder / "sweep.json")
    if isinstance(sweep, str):
        found.problems.append(f"{sweep} The cells that are there are shown.")
    sweep = sweep if isinstance(sweep, dict) else {}
    listed = sweep.get("cells")
    names = [str(name) for name in listed] if isinstance(listed, list) else []
    base = folder / "cells"
    there = sorted(p.name for p in base.iterdir() if p.is_dir()) if base.is_dir() else []
    gone = [name for name in names if name not in there]
    if gone:
        found.missing += len(gone)
        found.problems.append(
            f"{folder}: {len(gone)} of {len(names)} cells have not run or were moved: {_some(gone)}."
        )
    damaged, homeless = [], []
    for name in [n for n in names if n in there] + [n for n in there if n not in names]:
        file = base / name / "cell.json"
        if not file.exists():
            damaged.append(f"{name} (no cell.json)")
            continue
        content = _json(file)
        cell = content if isinstance(content, str) else cell_of(content, str(file), str(folder), sweep.get("profile"))
        if isinstance(cell, str):
            damaged.append(f"{name} ({cell.removeprefix(str(file)).lstrip(': ').rstrip('.')})")
            continue
        found.cells.append(cell)
        run = cell.record.get("run")
        if cell.state == "done" and isinstance(run, str) and not (base / name / run).is_dir():
            homeless.append(name)
    if damaged:
        found.missing += len(damaged)
        found.problems.append(f"{folder}: {len(damaged)} cells are damaged: {_some(damaged)}.")
    if homeless:
        found.problems.append(
            f"{folder}: the run directories of {len(homeless)} finished cells are gone (their records are shown): "
            f"{_some(homeless)}."
        )
    return found


def _read_run(folder: Path, row: str, table: Table) -> Cells:
    file = folder / "run.json"
    content = _json(file)
    if isinstance(content, str):
        runs = sorted(p.parent.name for p in folder.glob("*/run.json"))
        hint = f" Name one of its runs: {', '.join(runs[:5])}." if runs else ""
        raise ReconlabError(f"--from {row}={folder}: {content}{hint}")
    if not isinstance(content, dict):
        raise ReconlabError(f"{file} is no report of a run; name a run directory.")
    metrics = content.get("metrics")
    test = {k[5:]: v for k, v in metrics.items() if k.startswith("test/")} if isinstance(metrics, dict) else {}
    if not test:
        raise ReconlabError(
            f"{file} has no test metrics (status: {content.get('status', 'unknown')}); run reconlab test --ckpt_path "
            f"on its checkpoint first."
        )
    counts: dict[str, list[int]] = {"n": [], "n_failed": []}
    for key, value in test.items():
        match = _COUNT.fullmatch(key)
        if match and key.count("/") == 1 and isinstance(value, int | float) and math.isfinite(value):
            counts[match[1]].append(int(value))
    record = {
        "cell": str(folder),
        "row": row,
        "group": _group_of_run(folder, table),
        "seed": content.get("seed"),
        "state": "done",
        "profile": content.get("profile"),
        "values": {k: v for k, v in test.items() if not _COUNT.fullmatch(k)},
        "n": max(counts["n"], default=None),
        "n_failed": max(counts["n_failed"], default=0),
        **{k: content.get(k) for k in ("command", "commit", "machine", "time", "steps", "protocols", "wall_seconds")},
    }
    cell = cell_of(record, str(file), str(folder), None)
    if isinstance(cell, str):
        raise ReconlabError(cell)
    return Cells([cell], sources=[str(folder)])


def _group_of_run(folder: Path, table: Table) -> str | None:
    """The category that a run was trained on, where the table has one network per category."""
    if not table.groups:
        return None
    import yaml

    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        categories = config["data"]["categories"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        categories = None
    if isinstance(categories, list) and len(categories) == 1:
        return str(categories[0])
    raise ReconlabError(
        f"{folder / 'config.yaml'} does not say one category in data.categories; {table.name} has a network per "
        f"category ({', '.join(table.groups)})."
    )


def _from_bars(content: dict[str, Any], file: Path) -> list[dict[str, Any]]:
    """Records of ``reconlab figure drkfs-fig6 --json``: a row per measure, a group per family of chairs."""
    rows = {"MSE(I)": "mse_image", "descriptors of I": "descriptors", "MSE(PoI)": "mse_poi", "DR-KFS": "drkfs"}
    edits = ("shift_up", "shift_down", "deletion")
    common = {k: content.get(k) for k in ("command", "commit", "machine", "time", "seed")}
    records = []
    for family, measures in content["table"].items():
        for name, numbers in measures.items() if isinstance(measures, dict) else ():
            means = numbers.get("mean") if isinstance(numbers, dict) else None
            if name not in rows or not isinstance(means, list) or len(means) != len(edits):
                raise ReconlabError(f"{file}: table.{family}.{name} is no line of reconlab figure drkfs-fig6 --json.")
            values = dict(zip(edits, means, strict=True))
            record = {"cell": f"{rows[name]}-{family}", "row": rows[name], "group": family, "state": "done", **common}
            records.append({**record, "values": values, "n": numbers.get("n")})
    return records


def _json(file: Path) -> Any:
    """The content, or a sentence about why there is none."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"{file} is missing."
    except (OSError, UnicodeDecodeError, ValueError) as error:
        return f"{file} cannot be read ({error})."


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
