"""Volumetric intersection over union of point clouds, by one written rule."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.kernels.voxelize import occupied_cells
from reconlab.metrics.base import Metric, sample_generator
from reconlab.metrics.iou import voxel_iou
from reconlab.metrics.protocol import Protocol
from reconlab.shapes import ImplicitField, PointCloud, Shape, VoxelGrid


def fill_between(cells: Tensor) -> Tensor:
    """Cells that lie between occupied ones along all three axes, and those themselves.

    A cell is filled if along x, along y and along z there is an occupied cell on either side of it (itself counts).
    One pass over the given cells: what is filled encloses nothing further. Unlike a flood fill from outside it
    does not leak through the gaps of a sampled shell.

    Args:
        cells: ``(B, D, D, D)`` bool.

    Returns:
        The same shape, bool.
    """
    filled = torch.ones_like(cells)
    whole = cells.to(torch.uint8)
    for axis in (1, 2, 3):
        before = whole.cummax(axis).values
        after = whole.flip(axis).cummax(axis).values.flip(axis)
        filled &= (before & after).bool()
    return filled


class PointIoU(Metric):
    """Mean IoU at 32³ of point clouds with the true filled grids: ``point_iou``.

    DRWR's paper states no rule. Ours: a cell of the cube [-0.5, 0.5]³ is occupied if it holds a point; then
    :func:`fill_between`. Beside it ``point_iou_unfilled``, without the filling, and the sanity row
    ``point_iou_truth``: as many points of the true surface through the same rule (at most ``data.points``). That is
    what a perfect reconstruction of the surface would score.

    Args:
        resolution: Cells along each axis; the dataset's grids must have it.
        points: Points taken of a shape that is no cloud (a cloud is taken whole).
        seed: Changes the points drawn.
    """

    higher_is_better = True
    needs = frozenset({"voxels", "surface"})

    def __init__(self, resolution: int = 32, points: int = 2500, seed: int = 0) -> None:
        for name, value in (("resolution", resolution), ("points", points)):
            if value < 1:
                raise ReconlabError(f"PointIoU: {name} is {value}; expected at least 1.")
        iou = Protocol(
            name="point_iou",
            formula="|P ∩ T| / |P ∪ T|; P: cells with a point and those between them along all three axes; T: filled",
            unit="share",
            squared=None,
            points="all of a cloud",
            alignment="none",
            scale=f"object: {resolution}³ cells over the cube [-0.5, 0.5]³",
            threshold=None,
            factor=100.0,
            higher_is_better=True,
            worst_value=0.0,
            source="this project's rule for DRWR (2020), Table 2, which states none",
        )
        unfilled = replace(iou, name="point_iou_unfilled", formula="the same; P: cells with a point")
        truth = replace(
            iou, name="point_iou_truth", formula="the same; P: as many of the loaded points of the true surface"
        )
        super().__init__({p.name: p for p in (iou, unfilled, truth)})
        self.resolution, self.points, self.seed = resolution, points, seed

    def _measure(self, shape: Shape, batch: Batch) -> tuple[list[int], dict[str, Tensor]]:
        target = batch.require("voxels", "PointIoU")
        surface = batch.require("points", "PointIoU")
        if target.shape[1:] != (self.resolution,) * 3:
            raise ReconlabError(
                f"PointIoU: the dataset's grids are {tuple(target.shape[1:])}, the metric's resolution is "
                f"{self.resolution}; set resolution to the dataset's."
            )
        if isinstance(shape, VoxelGrid | ImplicitField):
            shape = shape.mesh()
        rows: list[int] = []
        values: dict[str, list[Tensor]] = {name: [] for name in self.protocols}
        for i in torch.nonzero(shape.valid().cpu()).flatten().tolist():
            one = shape[i]
            key = (batch.categories[i], batch.ids[i])
            count = None if isinstance(one, PointCloud) else self.points
            cloud = one.points(count, sample_generator(*key, "prediction", self.seed))
            pred = occupied_cells(cloud, self.resolution)
            if not bool(pred.any()):
                continue  # nothing inside the cube: failed
            chosen = torch.randperm(surface.shape[1], generator=sample_generator(*key, "truth", self.seed))
            same = surface[i : i + 1, chosen[: cloud.shape[1]].to(surface.device)]
            truth = fill_between(occupied_cells(same, self.resolution))
            true = target[i : i + 1].to(pred.device)
            rows.append(i)
            for name, cells in zip(self.protocols, (fill_between(pred), pred, truth.to(pred.device)), strict=True):
                values[name].append(voxel_iou(cells, true))
        return rows, {name: torch.cat(v) for name, v in values.items()} if rows else {}
