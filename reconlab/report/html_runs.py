"""Reading run directories for the HTML report: what happened, the curves, the values per sample."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconlab.errors import ReconlabError

SUFFIXES = (".obj", ".ply", ".off", ".stl", ".glb")
"""Of prediction files, in the order in which they are looked for."""
MARKS = ("run.json", "config.yaml", "metrics.csv", "predictions")
"""A folder with one of these is taken for a run directory."""


@dataclass(frozen=True)
class Value:
    """How a metric's value is shown: the parts of its stored protocol that the page needs.

    Attributes:
        name: Key in ``run.json`` and in the tables per sample, without ``test/``.
        factor: Shown values are multiplied by it.
        higher: Whether higher is better; None if no protocol was stored, so that nobody knows.
        protocol: All that was stored, for the reader.
        counts: The metric's headline value, under whose name ``n`` and ``n_failed`` are stored.
    """

    name: str
    factor: float = 1.0
    higher: bool | None = None
    protocol: Mapping[str, Any] = field(default_factory=dict)
    counts: str = ""

    @property
    def header(self) -> str:
        """Name, factor and direction."""
        arrow = "" if self.higher is None else " ↑" if self.higher else " ↓"
        return f"{self.name}{'' if self.factor == 1 else f' ×{self.factor:g}'}{arrow}"


@dataclass
class Sample:
    """One line of ``per_sample_rank*.csv``.

    Attributes:
        category: Of the shape.
        id: Of the shape.
        view: The input view, or None where the table has no such column.
        values: By metric; None where the sample has none (or no finite one).
        failed: Metrics that counted it as failed.
        file: The prediction; None if there is none.
    """

    category: str
    id: str
    view: int | None
    values: dict[str, float | None]
    failed: list[str]
    file: Path | None


@dataclass
class Run:
    """A run directory, as far as it can be read.

    Attributes:
        path: The folder.
        name: Short, unique within a report.
        config_text: ``config.yaml`` as written; "" without.
        config: The same, parsed; {} without.
        info: ``run.json``; {} without.
        history: Columns of ``metrics.csv``: ``{name: [(step, value), ...]}``, values finite.
        values: How each metric is shown, by name.
        samples: Of the test.
        notes: What is missing or damaged, one sentence each.
        cell: The record of the sweep's cell that it belongs to.
        trained: The run directory of the training whose checkpoint was tested, if its curves are shown here.
    """

    path: Path
    name: str
    config_text: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    history: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cell: dict[str, Any] | None = None
    trained: Path | None = None

    @property
    def metrics(self) -> dict[str, float]:
        """The finite numbers of ``run.json``: ``test/<value>[/<category>][/n]`` and ``val/…``."""
        return {k: float(v) for k, v in _mapping(self.info.get("metrics")).items() if _finite(v) is not None}

    @property
    def split(self) -> str | None:
        """The split of the numbers to show: test before val; None if there are none."""
        keys = self.metrics
        return next((s for s in ("test", "val") if any(k.startswith(f"{s}/") for k in keys)), None)

    @property
    def seed(self) -> Any:
        """The seed of the training, else what ``run.json`` says."""
        return self.config.get("seed_everything", self.info.get("seed"))

    @property
    def checkpoint(self) -> str | None:
        """The checkpoint that a test or a resumed training read."""
        found = self.config.get("ckpt_path")
        return found if isinstance(found, str) and found else None


def read_run(path: Path, name: str | None = None) -> Run:
    """Read a run directory; what is missing or damaged in it becomes a note.

    Raises:
        ReconlabError: There is no such folder, it is no run directory, or its ``run.json`` is damaged.
    """
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise ReconlabError(
            f"The run directory {path} {what}: name a folder that reconlab fit, test or evaluate made."
        )
    if not any((path / mark).exists() for mark in MARKS):
        raise ReconlabError(f"{path} is no run directory: it has none of {', '.join(MARKS)}.")
    run = Run(path, name or "/".join(path.absolute().parts[-2:]))
    run.info = _read_info(path / "run.json", run.notes)
    run.config_text, run.config = _read_config(path / "config.yaml", run.notes)
    run.history = read_history(path / "metrics.csv", run.notes)
    run.samples = _read_samples(path / "predictions", run.notes)
    run.values = _values(run)
    return run


def _read_info(path: Path, notes: list[str]) -> dict[str, Any]:
    if not path.exists():
        notes.append("run.json is missing: commit, machine and protocols are not known.")
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReconlabError(
            f"{path} is damaged ({error}): restore it, or move it away and report without it."
        ) from error
    if not isinstance(found, dict):
        raise ReconlabError(f"{path} is damaged (no mapping): restore it, or move it away and report without it.")
    return found


def _read_config(path: Path, notes: list[str]) -> tuple[str, dict[str, Any]]:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        notes.append("config.yaml is missing or cannot be read.")
        return "", {}
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        notes.append("config.yaml is no valid YAML; it is shown as it is.")
        return text, {}
    return text, found if isinstance(found, dict) else {}


def read_history(path: Path, notes: list[str]) -> dict[str, list[tuple[int, float]]]:
    """The curves of a ``metrics.csv``; numbers per category and counts are left out.

    Args:
        path: The file.
        notes: Is told if the file is damaged.

    Returns:
        ``{column: [(step, value), …]}`` of finite values, in the file's order.
    """
    curves: dict[str, list[tuple[int, float]]] = {}
    if not path.is_file():
        return curves
    bad = 0
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            wanted = [c for c in reader.fieldnames or [] if c and c not in ("epoch", "step")]
            for line in reader:
                try:
                    step = int(float(line.get("step") or ""))
                except (ValueError, OverflowError):
                    bad += 1
                    continue
                for column in wanted:
                    if (value := _finite(line.get(column))) is not None:
                        curves.setdefault(column, []).append((step, value))
    except (OSError, ValueError, csv.Error) as error:
        notes.append(f"metrics.csv cannot be read to its end ({error}).")
    if bad:
        notes.append(f"metrics.csv has {bad} damaged line{'s' if bad > 1 else ''}, which the curves leave out.")
    return {k: v for k, v in curves.items() if k.split("/")[-1] not in ("n", "n_failed")}


def find_training(run: Run, others: Sequence[Run]) -> None:
    """Give a test the curves of the training whose checkpoint it read, unless that run is in the report itself."""
    if run.checkpoint is None or any(c.startswith("train/") for c in run.history):
        return
    folder = Path(run.checkpoint).parent.parent
    for base in (*run.path.absolute().parents, Path()):  # another project's folder here may have the same names
        place = base / folder
        if not (place / "metrics.csv").is_file():
            continue
        if place.resolve() not in {other.path.resolve() for other in others}:
            run.history = read_history(place / "metrics.csv", run.notes)
            run.trained = place
        return


def _read_samples(folder: Path, notes: list[str]) -> list[Sample]:
    samples: list[Sample] = []
    tables = sorted(folder.glob("per_sample_rank*.csv")) if folder.is_dir() else []
    for table in tables:
        try:
            with table.open(encoding="utf-8", newline="") as file:
                lines = list(csv.DictReader(file))
        except (OSError, ValueError, csv.Error) as error:
            notes.append(f"predictions/{table.name} cannot be read ({error}).")
            continue
        whole = [line for line in lines if line.get("id") and line.get("category") is not None]
        if len(whole) < len(lines):
            notes.append(f"predictions/{table.name} has {len(lines) - len(whole)} lines without category or id.")
        for line in whole:
            values = {
                k: _finite(v) for k, v in line.items() if k and not k.endswith("/failed") and k not in _NO_VALUES
            }
            failed = [k[: -len("/failed")] for k, v in line.items() if k and k.endswith("/failed") and _true(v)]
            view = _finite(line.get("view"))
            found = find_prediction(folder, line["category"], line["id"], None if view is None else int(view))
            samples.append(
                Sample(line["category"], line["id"], None if view is None else int(view), values, failed, found)
            )
    if not tables and folder.is_dir() and any(folder.rglob("*.*")):
        notes.append("predictions/ has no per_sample_rank*.csv: samples are shown without numbers.")
        samples = _without_numbers(folder)
    return samples


_NO_VALUES = ("category", "id", "view", "exported")


def find_prediction(folder: Path, category: str, name: str, view: int | None) -> Path | None:
    """The file of a prediction: ``<id>_view<k>`` before ``<id>``, of the first of :data:`SUFFIXES` that is there.

    Names that lead out of the folder have no file.
    """
    stems = [name] if view is None else [f"{name}_view{view}", name]
    for stem in stems:
        for suffix in SUFFIXES:
            path = folder / category / f"{stem}{suffix}"
            try:
                inside = path.resolve().is_relative_to(folder.resolve())
                if inside and path.is_file():
                    return path
            except (OSError, ValueError):  # a name that no file can have
                return None
    return None


def _without_numbers(folder: Path) -> list[Sample]:
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix in SUFFIXES and not p.name.startswith(".")):
        relative = path.relative_to(folder)
        category = relative.parts[0] if len(relative.parts) > 1 else ""
        found.setdefault((category, relative.relative_to(category).with_suffix("").as_posix()), path)
    return [Sample(c, i, None, {}, [], path) for (c, i), path in found.items()]


def _values(run: Run) -> dict[str, Value]:
    """Protocols by value name; of ``evaluate`` also as ``<metric>/<value>`` where two metrics have a value."""
    stored: dict[str, Value] = {}
    for metric, protocols in _mapping(run.info.get("protocols")).items():
        head = ""
        for name, protocol in _mapping(protocols).items():
            if not isinstance(protocol, dict):
                continue
            key = f"{metric}/{name}" if name in stored else name
            head = head or key
            higher, factor = protocol.get("higher_is_better"), _finite(protocol.get("factor")) or 1.0
            stored[key] = Value(key, factor, higher if isinstance(higher, bool) else None, protocol, head)
    plain = [k.split("/", 1)[1] for k in run.metrics if k.startswith(("test/", "val/"))] if not stored else []
    names = [name for sample in run.samples for name in sample.values]
    for name in dict.fromkeys([*names, *(k for k in plain if "/" not in k)]):  # numbers without a protocol
        stored.setdefault(name, Value(name, counts=name))
    return stored


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _true(value: Any) -> bool:
    return str(value).strip().lower() in ("true", "1", "1.0")


def _finite(value: Any) -> float | None:
    if value is None or value == "" or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
