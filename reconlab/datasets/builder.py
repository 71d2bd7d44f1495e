"""Building datasets: resumable, atomic per shape, the same bytes for the same settings."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from reconlab.datasets import format as files
from reconlab.datasets.content import Sizes, shape_content, shape_rng
from reconlab.datasets.meshes import RawMesh, empty_categories, find_meshes, read_mesh
from reconlab.datasets.splits import check_fractions, group, read_groups, split
from reconlab.datasets.store import claim, is_done, locked, remove_leftovers
from reconlab.errors import ReconlabError

Deal = Callable[[str, list[str]], Mapping[str, Sequence[str]]]
"""``(category, names that could be made) -> names of each split``."""

EMBEDDED_COUNT = 40
EMBEDDED_SIZES = Sizes(queries=20000)


@dataclass(frozen=True)
class Task:
    """One shape to build.

    Attributes:
        category: Its category.
        name: Its id.
        key: Checksum of all that decides its files; a shape on disk with the same key is not built again.
        seed: Of the build.
        sizes: How much to make.
        path: The mesh file, or None for a procedural shape.
        number: Of the procedural shape.
        make: Makes the files of a shape of another kind; must survive pickling.
    """

    category: str
    name: str
    key: str
    seed: int
    sizes: Sizes
    path: Path | None = None
    number: int = 0
    make: Callable[[], dict[str, bytes]] | None = None


@dataclass
class BuildReport:
    """What a build did.

    Attributes:
        root: The dataset.
        built: Shapes made now, as ``category/name``.
        reused: Shapes that were there already.
        failed: Reason by shape (or category) that could not be made.
        splits: Number of shapes by split.
        notes: What else is worth knowing of the input, one sentence each; nothing is wrong with the shapes built.
        seconds: Wall time.
    """

    root: Path
    built: list[str] = field(default_factory=list)
    reused: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every shape could be made."""
        return not self.failed

    def summary(self) -> str:
        """The report as a few lines of text."""
        counts = ", ".join(f"{s} {n}" for s, n in self.splits.items())
        lines = [
            f"{self.root}: {len(self.built)} shapes built, {len(self.reused)} reused, {len(self.failed)} failed "
            f"in {self.seconds:.0f} s ({counts})."
        ]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines + [f"  {name}: {reason}" for name, reason in self.failed.items()])


def build_synth(
    out: Path | str,
    categories: Sequence[str] | None = None,
    count: int = EMBEDDED_COUNT,
    seed: int = 0,
    *,
    sizes: Sizes = EMBEDDED_SIZES,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    workers: int = 1,
    force: bool = False,
    progress: bool = True,
) -> BuildReport:
    """Build a dataset of procedural shapes.

    Args:
        out: The dataset's folder.
        categories: Of airplane, car, chair, lamp; all four if None.
        count: Shapes per category.
        seed: Shape ``i`` of a category is number ``seed * 1000000 + i`` of the generator.
        sizes: How much each shape gets.
        fractions: Of train, val and test.
        workers: Processes.
        force: Replace a build that has other settings.
        progress: Show a progress bar on the terminal.

    Raises:
        ReconlabError: A setting is impossible, or ``out`` holds something else.
    """
    from reconlab.datasets.synth import CATEGORIES

    chosen = list(categories) if categories else list(CATEGORIES)
    unknown = [c for c in chosen if c not in CATEGORIES]
    if unknown:
        raise ReconlabError(f"There is no procedural category {unknown[0]!r}: choose from {', '.join(CATEGORIES)}.")
    if count < 1:
        raise ReconlabError(f"count is {count}: choose at least 1 shape per category.")
    check_numbers(seed, workers)
    settings = {
        "source": "synth",
        "categories": sorted(chosen),
        "count": count,
        "seed": seed,
        "split": list(check_fractions(fractions)),
        **asdict(sizes),
    }
    shape_settings = {k: settings[k] for k in ("source", "seed", *asdict(sizes))}
    tasks = [
        Task(c, name, task_key(shape_settings, f"{c}/{name}"), seed, sizes, None, seed * 1000000 + i)
        for c in sorted(chosen)
        for i, name in enumerate(f"{c}_{j:05d}" for j in range(count))
    ]
    return run_build(Path(out), tasks, settings, _dealer(Path(out), settings), workers, force, progress)


def build_meshes(
    input: Path | str,
    out: Path | str,
    *,
    seed: int = 0,
    sizes: Sizes | None = None,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    split_by: str = "family",
    groups: Path | str | None = None,
    workers: int = 1,
    force: bool = False,
    progress: bool = True,
) -> BuildReport:
    """Build a dataset from a folder ``<category>/<name>.{obj,glb,ply,stl,off}``.

    Args:
        input: The folder of meshes.
        out: The dataset's folder.
        seed: Of viewpoints, samples and splits.
        sizes: How much each shape gets.
        fractions: Of train, val and test.
        split_by: ``family`` keeps near-identical variants on one side; ``shape`` deals each out by itself.
        groups: A CSV ``category/name,family`` that overrules the names' families.
        workers: Processes.
        force: Replace a build that has other settings.
        progress: Show a progress bar on the terminal.

    Raises:
        ReconlabError: A setting is impossible, ``out`` holds something else, or no mesh at all could be used.
    """
    if split_by not in ("family", "shape"):
        raise ReconlabError(f"split_by is {split_by!r}: choose family or shape.")
    check_numbers(seed, workers)
    sizes = sizes or Sizes()
    folder = Path(input)
    found = find_meshes(folder)
    table = read_groups(Path(groups)) if groups is not None else None
    settings = {
        "source": "meshes",
        "seed": seed,
        "split": list(check_fractions(fractions)),
        "split_by": split_by,
        "groups": files.sha256(Path(groups).read_bytes()) if groups is not None else None,
        **asdict(sizes),
    }
    shape_settings = {k: settings[k] for k in ("source", "seed", *asdict(sizes))}
    failed = {c: "the input folder has no mesh of this category." for c in empty_categories(folder)}
    tasks = []
    for category, name, path in found:
        try:
            digest = files.sha256(path.read_bytes())
        except OSError as error:
            failed[f"{category}/{name}"] = f"{path} cannot be read ({error})."
            continue
        tasks.append(Task(category, name, task_key(shape_settings, f"{category}/{name}", digest), seed, sizes, path))
    deal = _dealer(Path(out), settings, table, split_by == "family")
    return run_build(Path(out), tasks, settings, deal, workers, force, progress, failed)


def ensure_embedded(
    root: Path | str,
    categories: Sequence[str] | None = None,
    count: int = EMBEDDED_COUNT,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """The embedded procedural set, built at ``root`` on first use and taken as it is afterwards.

    Two processes that ask at once build it once: the second waits.
    """
    root = Path(root)
    if not (root / files.METADATA).exists():
        with locked(root, wait=True):
            if not (root / files.METADATA).exists():
                _build_locked_synth(root, categories, count, seed, progress)
    return root


def _build_locked_synth(root: Path, categories: Sequence[str] | None, count: int, seed: int, progress: bool) -> None:
    report = build_synth(root, categories, count, seed, progress=progress)
    if report.failed:
        name, reason = next(iter(report.failed.items()))
        raise ReconlabError(f"The embedded data could not be built: {name}: {reason}")


def check_numbers(seed: int, workers: int) -> None:
    """Refuse a negative seed and less than one process."""
    if seed < 0:
        raise ReconlabError(f"seed is {seed}: choose an integer >= 0.")
    if workers < 1:
        raise ReconlabError(f"workers is {workers}: choose at least 1.")


def task_key(settings: dict[str, Any], *more: str) -> str:
    """Checksum of the settings and inputs that decide a shape's files."""
    text = json.dumps([files.VERSION, settings, *more], sort_keys=True)
    return files.sha256(text.encode())


def _dealer(
    root: Path, settings: dict[str, Any], table: dict[str, str] | None = None, by_family: bool = False
) -> Deal:
    def deal(category: str, names: list[str]) -> dict[str, list[str]]:
        groups = np.arange(len(names))
        if by_family:
            grids = np.stack([files.read_binvox(root / category / n / files.VOXELS) for n in names])
            groups = group(category, names, grids, table)
        return split(category, names, groups, tuple(settings["split"]), settings["seed"])

    return deal


def run_build(
    root: Path,
    tasks: Sequence[Task],
    settings: dict[str, Any],
    deal: Deal,
    workers: int,
    force: bool,
    progress: bool,
    failed: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
) -> BuildReport:
    """Make the shapes, then the split lists, then ``metadata.yaml``.

    Args:
        root: The dataset's folder.
        tasks: The shapes.
        settings: What decides the dataset; a folder with other ones is refused.
        deal: Puts the shapes of a category into splits.
        workers: Processes.
        force: Replace a build that has other settings.
        progress: Show a progress bar on the terminal.
        failed: Reason by shape (or category) that is known not to be usable.
        notes: For the report.
        labels: Readable names of categories, for ``metadata.yaml``.

    Raises:
        ReconlabError: ``root`` holds something else or cannot be written, or no shape at all could be made.
    """
    import yaml

    start = time.monotonic()
    with locked(root, wait=False):
        claim(root, settings, force)
        report = BuildReport(root, failed=dict(failed or {}), notes=list(notes))
        complete = {"settings": settings, "shapes": task_key({}, *(t.key for t in tasks))}
        try:
            remove_leftovers(root, {(t.category, t.name) for t in tasks} if force else None)
            todo = [t for t in tasks if not is_done(root, t.category, t.name, t.key)]
            pending = {(t.category, t.name) for t in todo}
            report.reused = [f"{t.category}/{t.name}" for t in tasks if (t.category, t.name) not in pending]
            from reconlab.datasets.work import run_tasks

            for task, error in run_tasks(root, todo, workers, progress):
                if error is None:
                    report.built.append(f"{task.category}/{task.name}")
                else:
                    report.failed[f"{task.category}/{task.name}"] = error
        except OSError as error:
            raise ReconlabError(f"The dataset folder {root} cannot be written ({error}).") from error
        good: dict[str, list[str]] = {}
        for t in tasks:
            if f"{t.category}/{t.name}" not in report.failed:
                good.setdefault(t.category, []).append(t.name)
        if not good:
            name = f"{tasks[0].category}/{tasks[0].name}" if tasks else next(iter(report.failed))
            reason = report.failed[name]
            raise ReconlabError(
                f"None of the {len(tasks)} shapes of {root} could be built; the first, {name}: {reason}"
            )
        for t in tasks:
            if t.category not in good:
                report.failed.setdefault(t.category, "no shape of this category could be built.")
        report.splits = dict.fromkeys(files.SPLITS, 0)
        for category, names in good.items():
            for s, members in deal(category, names).items():
                files.write_atomic(root / category / f"{s}.lst", "".join(f"{n}\n" for n in members).encode())
                report.splits[s] += len(members)
        metadata: dict[str, Any] = {c: {"id": c, "name": (labels or {}).get(c, c)} for c in sorted(good)}
        metadata["reconlab"] = {"format": files.VERSION, **complete, "failed": dict(sorted(report.failed.items()))}
        files.write_atomic(root / files.METADATA, yaml.safe_dump(metadata, sort_keys=True, width=110).encode())
        (root / files.BUILDING).unlink(missing_ok=True)
    report.seconds = time.monotonic() - start
    return report


def make_shape(task: Task) -> dict[str, bytes]:
    """The files of one shape, by path relative to its folder.

    Raises:
        ReconlabError: The mesh cannot be used.
    """
    if task.make is not None:
        return task.make()
    rng = shape_rng(task.seed, task.category, task.name)
    if task.path is not None:
        return shape_content(read_mesh(task.path), task.sizes, rng)
    from reconlab.datasets.synth import generate

    shape = generate(task.category, task.number)
    vertices, faces, colors = shape.mesh()
    raw = RawMesh(vertices.astype(np.float64), faces.astype(np.int64), colors)
    return shape_content(raw, task.sizes, rng, shape.occupancy)
