"""Volumetric intersection over union on voxel grids."""

from __future__ import annotations

import torch
from torch import Tensor

from reconlab.batch import Batch
from reconlab.errors import ConversionError, ReconlabError
from reconlab.metrics.base import Metric, or_nan
from reconlab.metrics.protocol import Protocol
from reconlab.shapes import ImplicitField, Shape, VoxelGrid


def voxel_iou(pred: Tensor, target: Tensor, threshold: float = 0.5) -> Tensor:
    """Intersection over union of each pair of grids.

    Args:
        pred: ``(B, D, D, D)`` occupancy in [0, 1] or bool; a cell is occupied where ``pred >= threshold``
            (3D-R2N2's rule).
        target: ``(B, D, D, D)`` true occupancy, {0, 1} or bool; occupied where ``>= 0.5``.
        threshold: For the prediction only.

    Returns:
        ``(B,)`` float32 in [0, 1]. Two empty grids agree: 1. One empty grid: 0. NaN for a sample with a value
        that is not finite.

    Raises:
        ReconlabError: Shapes are not equal or not ``(B, D, D, D)``.

    Example:
        >>> pred, target = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
        >>> pred[0, 0], target[0, :, 0] = 1, 1  # four cells each, two in common
        >>> voxel_iou(pred, target)
        tensor([0.3333])
    """
    if pred.ndim != 4 or pred.shape != target.shape:
        raise ReconlabError(
            f"voxel_iou: pred has shape {tuple(pred.shape)} and target {tuple(target.shape)}; "
            "expected (B, D, D, D) for both."
        )
    ours = (pred if pred.dtype == torch.bool else pred >= threshold).flatten(1)
    theirs = (target if target.dtype == torch.bool else target >= 0.5).flatten(1)
    intersection = (ours & theirs).sum(1)
    union = (ours | theirs).sum(1)
    iou = torch.where(union > 0, intersection / union.clamp_min(1), 1.0)
    return or_nan(iou, pred.isfinite().flatten(1).all(1) & target.isfinite().flatten(1).all(1))


def compared_grids(shape: Shape, batch: Batch, resolution: int, who: str) -> tuple[list[int], Tensor, Tensor]:
    """The rows of a batch that have a grid, and both sides' ``(rows, D, D, D)``; two empty tensors without rows.

    Raises:
        ReconlabError: The dataset's grids have another resolution.
        ConversionError: This kind of shape has no grid.
    """
    target = batch.require("voxels", who)
    if target.shape[1:] != (resolution,) * 3:
        raise ReconlabError(
            f"{who}: the dataset's grids are {tuple(target.shape[1:])}, the metric's resolution is "
            f"{resolution}; set resolution to the dataset's."
        )
    ok = torch.ones(len(shape), dtype=torch.bool)
    if not isinstance(shape, VoxelGrid | ImplicitField):  # theirs is told by the grid itself
        ok = shape.valid().cpu()
    rows: list[int] = torch.nonzero(ok).flatten().tolist()
    if not rows:
        return [], target[:0], target[:0]
    try:
        grids = [shape] if len(rows) == len(shape) else [shape[i] for i in rows]
        pred = torch.cat([grid.voxels(resolution).values for grid in grids])
    except ConversionError as error:
        raise ConversionError(f"{who}: {error}") from error
    return rows, pred, target[rows].to(pred.device)


class VoxelIoU(Metric):
    """Mean IoU over samples, ``voxel_iou``, on filled grids over [-0.5, 0.5]³.

    Every kind of shape answers ``voxels(resolution)``; a mesh by the cells that its surface crosses and encloses.
    A prediction without an occupied cell has failed.

    Args:
        resolution: Cells along each axis; the dataset's grids must have it.
        threshold: A cell counts as occupied at this value or above.
        name: Key of the value.

    Example:
        >>> metric = VoxelIoU(resolution=2)
        >>> full, half = torch.ones(1, 2, 2, 2), torch.ones(1, 2, 2, 2)
        >>> half[:, 0] = 0
        >>> metric.update(VoxelGrid(half), Batch(ids=["a"], categories=["chair"], voxels=full))
        >>> metric.compute()["voxel_iou"].item()
        0.5
    """

    higher_is_better = True
    needs = frozenset({"voxels"})

    def __init__(self, resolution: int = 32, threshold: float = 0.5, name: str | None = None) -> None:
        if resolution < 1:
            raise ReconlabError(f"VoxelIoU: resolution is {resolution}; expected at least 1.")
        protocol = Protocol(
            name=name or "voxel_iou",
            formula="|P ∩ T| / |P ∪ T| of filled cells; 1 where both are empty",
            unit="share",
            squared=None,
            points=None,
            alignment="none",
            scale=f"object: {resolution}³ cells over the cube [-0.5, 0.5]³",
            threshold=threshold,
            factor=100.0,
            higher_is_better=True,
            worst_value=0.0,
            source="3D-R2N2 (2016): filled 32³ grids, threshold 0.4 there",
        )
        super().__init__({protocol.name: protocol})
        self.resolution = resolution
        self.threshold = threshold

    def _measure(self, shape: Shape, batch: Batch) -> tuple[list[int], dict[str, Tensor]]:
        rows, pred, target = compared_grids(shape, batch, self.resolution, "VoxelIoU")
        if not rows:
            return [], {}
        iou = voxel_iou(pred, target, self.threshold)
        occupied = (pred >= self.threshold).flatten(1).any(1)
        return rows, {self.name: or_nan(iou, occupied)}
