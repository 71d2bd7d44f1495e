"""DR-KFS' Fig. 2: what edits of a chair cost under distortion measures and under visual ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from reconlab.batch import Batch
from reconlab.cameras import Cameras, hemisphere_views, softras_cameras
from reconlab.datasets.synth import SynthShape, bend_back, generate, lengthen, remove_part, thicken
from reconlab.errors import ReconlabError
from reconlab.losses import DRKFS
from reconlab.losses.pixel_mse import pixel_mse
from reconlab.losses.silhouette_iou import silhouette_iou
from reconlab.losses.view_images import RenderSettings, render_views
from reconlab.metrics import chamfer_distance
from reconlab.renderers import soft_rasterize
from reconlab.shapes import Mesh

LEGS = "leg_*"
EDITS: dict[str, Callable[[SynthShape], SynthShape]] = {
    "legs thickened": lambda s: thicken(s, LEGS, 2.0),
    "legs elongated": lambda s: lengthen(s, LEGS, 1.3),
    "legs shortened": lambda s: lengthen(s, LEGS, 0.7),
    "back bent": lambda s: bend_back(s, 25.0),
    "one leg removed": lambda s: remove_part(s, "leg_0"),
}
"""Twice as thick, 30 % longer or shorter, the back's top turned by 25°; nothing else moves or is normalised again."""

MEASURES = {
    "CD": "distortion",
    "1 - IoU": "distortion",
    "MSE of shaded views": "pixels",
    "1 - silhouette IoU": "pixels",
    "DR-KFS": "visual",
}


def editable_chairs(count: int) -> list[SynthShape]:
    """The first ``count`` procedural chairs with four legs and a back."""
    found: list[SynthShape] = []
    seed = 0
    while len(found) < count:
        shape = generate("chair", seed)
        legs = [n for n in shape.names if n.startswith("leg_")]
        if len(legs) == 4 and any(p.kind == "back" for p in shape):
            found.append(shape)
        seed += 1
    return found


def _mesh(shape: SynthShape) -> Mesh:
    vertices, faces, _ = shape.mesh()
    return Mesh(torch.from_numpy(vertices).float(), torch.from_numpy(faces))


@torch.no_grad()
def costs(shape: SynthShape, visual: DRKFS, points: int = 20000, resolution: int = 64) -> dict[str, list[float]]:
    """Every measure between a chair and each of its :data:`EDITS`; lower is closer, and 0 is equal.

    CD is DPC's (sum of both mean distances, object units) on ``points`` surface points, IoU that of filled grids of
    ``resolution``³; the pixel measures and DR-KFS compare 25 views of the upper hemisphere.
    """
    truth = _mesh(shape)
    edited = [_mesh(edit(shape)) for edit in EDITS.values()]
    draw = torch.Generator().manual_seed(0)
    cloud, grid = truth.points(points, draw), truth.voxels(resolution).values > 0.5
    views = hemisphere_views(half_fov=11.5)
    shaded = RenderSettings("shaded", 128, 1e-5, 1e-4, "flat")
    outline = RenderSettings("silhouette", 128, 1e-6, 1e-4, "flat")
    seen, mask = render_views(truth, views, shaded), _mask(truth, views, outline)
    out: dict[str, list[float]] = {name: [] for name in MEASURES}
    for mesh in edited:
        other = mesh.voxels(resolution).values > 0.5
        out["CD"].append(float(chamfer_distance(mesh.points(points, draw), cloud, variant="dpc")))
        out["1 - IoU"].append(1 - float((grid & other).sum() / (grid | other).sum()))
        out["MSE of shaded views"].append(float(pixel_mse(render_views(mesh, views, shaded), seen).mean()))
        out["1 - silhouette IoU"].append(float(silhouette_iou(_mask(mesh, views, outline), mask).mean()))
        batch = Batch(ids=[str(shape.seed)], categories=["chair"], mesh=truth)
        out["DR-KFS"].append(float(sum(p.mean() for p in visual.per_view(mesh, batch))))
    return out


def edit_table(count: int = 20, image_size: int = 128) -> dict[str, Any]:
    """The measures of ``count`` chairs.

    Returns:
        ``measure -> {"relative": per edit, the mean over chairs of its cost over the leg's removal (geometric),
        "removal_highest": fraction of chairs where removing the leg costs most, "above": per edit, the fraction of
        chairs where it costs more than the removal, "n": count}``.

    Raises:
        ReconlabError: ``count`` is below 1.
    """
    if count < 1:
        raise ReconlabError(f"--count is {count}; choose at least 1.")
    visual = DRKFS(image_size=image_size, radius=1, half_fov=11.5).eval()
    rows: dict[str, list[list[float]]] = {name: [] for name in MEASURES}
    for shape in editable_chairs(count):
        for name, values in costs(shape, visual).items():
            rows[name].append(values)
    out: dict[str, Any] = {}
    for name, many in rows.items():
        v = np.array(many)
        ratios = v / v[:, -1:]
        out[name] = {
            "relative": dict(zip(EDITS, np.exp(np.log(ratios).mean(0)).tolist(), strict=True)),
            "above": dict(zip(EDITS, (ratios > 1).mean(0).tolist(), strict=True)),
            "removal_highest": float((ratios[:, :-1] < 1).all(1).mean()),
            "n": len(v),
        }
    return out


def text(table: dict[str, Any]) -> str:
    """The table in lines."""
    count = next(iter(table.values()))["n"]
    lines = [f"cost of an edit, one leg's removal = 1 (geometric mean of {count} chairs)"]
    lines.append(f"{'':22}" + "".join(f"{e:>17}" for e in EDITS) + f"{'removal highest':>17}")
    for name, row in table.items():
        values = "".join(f"{v:17.2f}" for v in row["relative"].values())
        lines.append(f"{name:22}{values}{row['removal_highest']:17.0%}")
    return "\n".join(lines)


def figure2(table: dict[str, Any]) -> Figure:
    """The chart: the edits of one chair on top, under them their costs, one group of bars per measure."""
    shape = editable_chairs(1)[0]
    figure = Figure(figsize=(11, 6), layout="constrained")
    top, bottom = np.asarray(figure.subfigures(2, 1, height_ratios=(1, 1.5)))
    pictures = [_picture(s) for s in (shape, *(edit(shape) for edit in EDITS.values()))]
    colours = ["black", "tab:blue", "tab:cyan", "tab:green", "tab:purple", "tab:orange"]
    for axis, picture, title, colour in zip(
        top.subplots(1, len(pictures)), pictures, ("original", *EDITS), colours, strict=True
    ):
        axis.imshow(picture, cmap="gray_r", vmin=0, vmax=1)
        axis.set_title(title, color=colour)
        axis.set(xticks=[], yticks=[])
    axis = bottom.subplots()
    width = 0.8 / len(EDITS)
    for i, (edit, colour) in enumerate(zip(EDITS, colours[1:], strict=True)):
        heights = [row["relative"][edit] for row in table.values()]
        at = [k + (i - (len(EDITS) - 1) / 2) * width for k in range(len(table))]
        axis.bar(at, heights, width, color=colour, label=edit)
    axis.axhline(1, color="gray", linewidth=0.8)
    axis.set_xticks(range(len(table)), [f"{name}\n({MEASURES[name]})" for name in table])
    axis.set_ylabel("cost, one leg's removal = 1")
    axis.set_title(f"geometric mean of {next(iter(table.values()))['n']} procedural chairs")
    axis.legend()
    return figure


def _mask(mesh: Mesh, views: Cameras, outline: RenderSettings) -> Tensor:
    return (render_views(mesh, views, outline) > 0.5).float()


@torch.no_grad()
def _picture(shape: SynthShape) -> Tensor:
    image = soft_rasterize(_mesh(shape), softras_cameras(30.0, 15.0).reshape(1), 192, sigma=1e-5, normals="flat")
    assert image.shaded is not None  # noqa: S101 - shading was asked for
    return image.shaded[0, 0].clamp(0, 1)
