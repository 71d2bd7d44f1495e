"""What a study takes of run directories: their reconstructions, the views they were given, values per sample."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from reconlab.errors import ReconlabError

SHAPES = (".obj", ".ply")
LOWER_IS_BETTER = {"lfd": True, "shape_google": True, "mvcnn": True}
VIEW = re.compile(r"(?P<id>.+)_view(?P<view>\d+)")


class Sample(NamedTuple):
    """One reconstruction's input: a shape of the dataset and the number of the picture that the network saw."""

    category: str
    id: str
    view: int

    @property
    def key(self) -> str:
        """``category/id``, and the view where it is not the first."""
        name = f"{self.category}/{self.id}" if self.category else self.id
        return f"{name} (view {self.view})" if self.view else name


@dataclass(frozen=True)
class Run:
    """A run directory with reconstructions.

    Attributes:
        folder: As given.
        files: Reconstructions by sample.
        config: Content of ``config.yaml``, ``{}`` without.
    """

    folder: Path
    files: dict[Sample, Path]
    config: dict[str, Any]

    @property
    def root(self) -> Path | None:
        """The dataset that the run names: ``data.root``, or the ground truth of ``reconlab evaluate``."""
        for part, name in (("data", "root"), ("evaluate", "gt")):
            value = self.config.get(part)
            if isinstance(value, dict) and isinstance(value.get(name), str):
                return Path(value[name])
        return None


def read_run(folder: Path) -> Run:
    """Find a run's reconstructions, ``predictions/<category>/<id>.obj`` (``.ply`` of points; ``<id>_view<k>``).

    Raises:
        ReconlabError: The folder does not exist or has no reconstructions.
    """
    if not folder.is_dir():
        raise ReconlabError(f"The run {folder} does not exist, or is not a folder.")
    shapes = folder / "predictions"
    found = [p for p in sorted(shapes.rglob("*")) if p.suffix in SHAPES and not p.name.startswith(".")]
    if not found:
        raise ReconlabError(
            f"The run {folder} has no reconstructions in predictions/: make them with "
            f"`reconlab test --config {folder}/config.yaml --ckpt_path {folder}/checkpoints/last.ckpt --out …` "
            "(save_meshes is true unless you say otherwise) and name the run directory that it prints."
        )
    views: dict[tuple[str, str], set[int]] = {}
    for row in rows(folder):
        views.setdefault((row.get("category") or "", row["id"]), set()).add(_integer(row.get("view")))
    files: dict[Sample, Path] = {}
    for path in found:
        category, _, name = path.relative_to(shapes).with_suffix("").as_posix().rpartition("/")
        files.setdefault(_sample(category, name, views), path)  # .obj comes before .ply
    return Run(folder, files, _config(folder))


def rows(folder: Path) -> list[dict[str, str]]:
    """All lines of ``predictions/per_sample_rank*.csv``; none where there is no such file.

    Raises:
        ReconlabError: A file cannot be read.
    """
    out: list[dict[str, str]] = []
    for path in sorted((folder / "predictions").glob("per_sample_rank*.csv")):
        try:
            with path.open(newline="", encoding="utf-8") as stream:
                lines = list(csv.DictReader(stream))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise ReconlabError(f"{path} cannot be read ({error}): test the run again.") from error
        if lines and "id" not in lines[0]:
            raise ReconlabError(f"{path} has no column 'id': test the run again.")
        out += lines
    return out


def read_scores(folder: Path, metrics: tuple[str, ...], samples: list[Sample]) -> dict[str, list[float]]:
    """Badness of each sample under each metric: lower is better, failed ones are infinite.

    Args:
        folder: A run directory whose ``per_sample`` tables have the metrics.
        metrics: Names of values (columns).
        samples: Which, in this order.

    Raises:
        ReconlabError: A metric or a sample is not there; the sentence has the command that computes it.
    """
    table = {(r.get("category") or "", r["id"], _integer(r.get("view"))): r for r in rows(folder)}
    columns = set().union(*(r.keys() for r in table.values())) if table else set()
    lacking = [m for m in metrics if m not in columns]
    if lacking:
        raise ReconlabError(
            f"The run {folder} has no values per sample of {', '.join(lacking)}: compute them with "
            f"`reconlab evaluate {folder}/predictions DATA --metrics {','.join(metrics)} "
            f"--out {folder}_visual` (DATA is the dataset) and name that folder in --scores."
        )
    directions = _directions(folder)
    out: dict[str, list[float]] = {}
    for metric in metrics:
        lower = directions.get(metric, LOWER_IS_BETTER.get(metric))
        if lower is None:
            raise ReconlabError(f"{folder}/run.json does not say in which direction {metric!r} is better.")
        values = []
        for sample in samples:
            row = table.get((sample.category, sample.id, sample.view)) or table.get((sample.category, sample.id, 0))
            if row is None:
                raise ReconlabError(f"{folder} has no values of {sample.key}: evaluate the same predictions.")
            values.append(_badness(row, metric, lower, folder))
        out[metric] = values
    return out


def _badness(row: dict[str, str], metric: str, lower: bool, folder: Path) -> float:
    if row.get(f"{metric}/failed", "").lower() in ("true", "1", "1.0") or not (row.get(metric) or "").strip():
        return math.inf
    try:
        value = float(row[metric])
    except ValueError:
        raise ReconlabError(
            f"{folder}: the value {metric} of {row['id']} is {row[metric]!r}, expected a number."
        ) from None
    return math.inf if math.isnan(value) else value if lower else -value


def _directions(folder: Path) -> dict[str, bool]:
    try:
        protocols = json.loads((folder / "run.json").read_text()).get("protocols", {})
        return {name: not p["higher_is_better"] for values in protocols.values() for name, p in values.items()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return {}


def _sample(category: str, name: str, views: dict[tuple[str, str], set[int]]) -> Sample:
    if (category, name) in views:
        return Sample(category, name, min(views[category, name]))
    several = VIEW.fullmatch(name)
    if several and (not views or (category, several["id"]) in views):
        return Sample(category, several["id"], int(several["view"]))
    return Sample(category, name, 0)


def _config(folder: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load((folder / "config.yaml").read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _integer(text: str | None) -> int:
    try:
        return int(float(text or 0))
    except ValueError:
        return 0
