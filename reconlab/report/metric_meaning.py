"""What each metric minds: known changes of a shape, ranked by how much each measure charges for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from matplotlib.figure import Figure

from reconlab.datasets.synth import generate
from reconlab.errors import ReconlabError
from reconlab.lab.evaluate_files import Truth
from reconlab.lab.evaluate_judge import Judge
from reconlab.lab.evaluate_metrics import CLASSES, Plan, make_metrics
from reconlab.report.drkfs_edits import EDITS, editable_chairs
from reconlab.shapes import Mesh

LEFT_OUT = ("point_iou", "voxel_mse")  # of clouds; and on hard grids an affine function of IoU's counts
NOISE = 0.01
TURN = 15.0
"""Noise's standard deviation along each axis in object units (the bounding box's diagonal is 1), and degrees."""


@dataclass(frozen=True)
class Subject:
    """A true shape and what is handed in for it.

    Attributes:
        name: ``category/id``.
        truth: The true mesh.
        cases: Changed meshes by the change's name, the same names for all subjects.
    """

    name: str
    truth: Mesh
    cases: Mapping[str, Mesh]


def noisy(mesh: Mesh, seed: int, deviation: float = NOISE) -> Mesh:
    """The mesh, its edges cut to at most 0.05, with Gaussian noise on the vertices (one draw per merged vertex)."""
    merged = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=True)
    vertices, faces = trimesh.remesh.subdivide_to_size(merged.vertices, merged.faces, 0.05, max_iter=12)
    fine = trimesh.Trimesh(vertices, faces, process=True)
    draw = np.random.default_rng(seed).normal(0, deviation, fine.vertices.shape)
    return Mesh(torch.from_numpy(fine.vertices + draw).float(), torch.from_numpy(fine.faces.copy()).long())


def turned(mesh: Mesh, degrees: float = TURN) -> Mesh:
    """The mesh turned about the upright axis."""
    a = np.radians(degrees)
    turn = torch.tensor([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]).float()
    return Mesh(mesh.vertices @ turn.T, mesh.faces)


def procedural_subjects(count: int) -> list[Subject]:
    """``count`` chairs with Fig. 2's edits of DR-KFS, noise, and an airplane in the chair's place."""
    subjects = []
    for shape in editable_chairs(count):
        vertices, faces, _ = shape.mesh()
        truth = Mesh(torch.from_numpy(vertices).float(), torch.from_numpy(faces))
        cases = {}
        for name, edit in EDITS.items():
            v, f, _ = edit(shape).mesh()
            cases[name] = Mesh(torch.from_numpy(v).float(), torch.from_numpy(f))
        v, f, _ = generate("airplane", shape.seed).mesh()
        cases |= {
            "noise": noisy(truth, shape.seed),
            "wrong category": Mesh(torch.from_numpy(v).float(), torch.from_numpy(f)),
        }
        subjects.append(Subject(f"chair/{shape.seed}", truth, cases))
    return subjects


def real_subjects(root: Path, count: int) -> list[Subject]:
    """``count`` shapes of each category of a built dataset's test list, with shapes of other families.

    Raises:
        ReconlabError: The folder is no built dataset, or a category has fewer than two test shapes.
    """
    lists: dict[str, list[str]] = {}
    for path in sorted(root.glob("*/test.lst")):
        lists[path.parent.name] = path.read_text().split()
    if len(lists) < 2 or any(len(names) < 2 for names in lists.values()):
        raise ReconlabError(f"--root {root} needs two categories or more with two test shapes each (*/test.lst).")

    def mesh(category: str, place: int) -> Mesh:
        names = lists[category]
        with np.load(root / category / names[place % len(names)] / "mesh.npz") as data:
            return Mesh(torch.from_numpy(data["vertices"]).float(), torch.from_numpy(data["faces"]).long())

    subjects = []
    categories = list(lists)
    for c, category in enumerate(categories):
        size = len(lists[category])
        for i in range(min(count, size)):
            place = (2 * i + 1) * size // (2 * min(count, size))
            truth = mesh(category, place)
            cases = {
                "noise": noisy(truth, place),
                f"turned by {TURN:g}°": turned(truth),
                # Lists are sorted, families side by side: half the list away is another one
                "another of the category": mesh(category, place + max(1, size // 2)),
                "wrong category": mesh(categories[(c + 1) % len(categories)], place),
            }
            subjects.append(Subject(f"{category}/{lists[category][place]}", truth, cases))
    return subjects


@torch.no_grad()
def charge(
    subjects: Sequence[Subject], names: Sequence[str], progress: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """What every metric charges for every case.

    A cost is ``|value(case) - value(truth as its own prediction)|`` of the headline value, so that measures with a
    sampling floor start at 0, too.

    Args:
        subjects: From :func:`procedural_subjects` or :func:`real_subjects`.
        names: Keys of :data:`~reconlab.lab.evaluate_metrics.CLASSES`.
        progress: Called with each finished subject's name.

    Returns:
        ``{metric: {"cases": {case: {"cost": median, "rank": mean rank (1 = cheapest)}}, "n": subjects}}``.
    """
    metrics = make_metrics(Plan({name: (CLASSES[name], {}) for name in names}))
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    cases = list(subjects[0].cases)
    for subject in subjects:
        category, _, sample = subject.name.partition("/")
        truth = Truth(category, sample, subject.truth, 10_000)
        for name, metric in metrics.items():
            batch = truth.batch(metric.needs, getattr(metric, "resolution", 32))
            values = [
                float(metric.per_sample(m, batch)[metric.name][0]) for m in (subject.truth, *subject.cases.values())
            ]
            found[name].append([abs(v - values[0]) for v in values[1:]])
        progress(subject.name)
    table = {}
    for name, rows in found.items():
        costs = np.array(rows)
        ranks = costs.argsort(1).argsort(1) + 1
        table[name] = {
            "cases": {
                case: {"cost": float(np.median(costs[:, i])), "rank": float(ranks[:, i].mean())}
                for i, case in enumerate(cases)
            },
            "n": len(rows),
        }
    return table


def tables(count: int, root: Path | None, names: Sequence[str] | None = None) -> dict[str, Any]:
    """:func:`charge` on ``count`` procedural chairs and, with a dataset, ``count`` real shapes of each category.

    Args:
        count: See :func:`procedural_subjects` and :func:`real_subjects`.
        root: A built dataset with test lists, or None.
        names: Of metrics; None takes all that apply to meshes and whose libraries are installed.
    """
    chosen = [n for n in CLASSES if n not in LEFT_OUT] if names is None else list(names)
    if names is None:
        probe = Judge(Plan({name: (CLASSES[name], {}) for name in chosen}))
        chosen = [name for name in chosen if probe.cannot_run(name) == ""]
    sets = {f"{count} procedural chairs": procedural_subjects(count)}
    if root is not None:
        real = real_subjects(root, count)
        sets[f"{len(real)} test shapes of {root}"] = real
    return {title: charge(subjects, chosen) for title, subjects in sets.items()}


def text(table: Mapping[str, Any], title: str) -> str:
    """Mean ranks and, relative to the cheapest case, median costs, in lines."""
    cases = list(next(iter(table.values()))["cases"])
    lines = [f"{title}: mean rank (1 = cheapest), median cost", f"{'':14}" + "".join(f"{c:>26}" for c in cases)]
    for name, row in table.items():
        cells = "".join(f"{v['rank']:14.1f}  {v['cost']:<10.4g}" for v in row["cases"].values())
        lines.append(f"{name:14}{cells}")
    return "\n".join(lines)


def figure(tables: Mapping[str, Mapping[str, Any]]) -> Figure:
    """One heat map per set of subjects: colour and number are mean ranks, dearest dark."""
    chart = Figure(figsize=(7.5 * len(tables), 5.6), layout="constrained")
    axes = np.atleast_1d(np.asarray(chart.subplots(1, len(tables))))
    for axis, (title, table) in zip(axes, tables.items(), strict=True):
        cases = list(next(iter(table.values()))["cases"])
        grid = np.array([[row["cases"][c]["rank"] for c in cases] for row in table.values()])
        axis.imshow(grid, cmap="YlOrRd", vmin=1, vmax=len(cases), aspect="auto")
        for i in range(len(grid)):
            for j in range(len(cases)):
                dark = grid[i, j] > 0.7 * len(cases)
                axis.text(j, i, f"{grid[i, j]:.1f}", ha="center", va="center", color="white" if dark else "black")
        axis.set_xticks(range(len(cases)), [c.replace(" ", "\n", 1) for c in cases])
        axis.set_yticks(range(len(grid)), list(table))
        axis.set_title(f"{title}\nmean rank of each change's cost, 1 = minded least")
    return chart
