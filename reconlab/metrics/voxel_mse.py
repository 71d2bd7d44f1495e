"""Mean squared difference of occupancy."""

from __future__ import annotations

from torch import Tensor

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.metrics.base import Metric, or_nan
from reconlab.metrics.iou import compared_grids
from reconlab.metrics.protocol import Protocol
from reconlab.shapes import Shape


def voxel_mse(pred: Tensor, target: Tensor) -> Tensor:
    """Mean over all cells of the squared difference of occupancy.

    Args:
        pred: ``(B, D, D, D)`` occupancy in [0, 1], or bool. Not thresholded.
        target: ``(B, D, D, D)`` true occupancy, {0, 1} or bool.

    Returns:
        ``(B,)`` float32 in [0, 1]; of two binary grids, the share of cells that differ. NaN for a sample with a
        value that is not finite.

    Raises:
        ReconlabError: Shapes are not equal or not ``(B, D, D, D)``, or hold no cell.

    Example:
        >>> import torch
        >>> pred, target = torch.full((1, 2, 2, 2), 0.5), torch.zeros(1, 2, 2, 2)
        >>> pred[0, 0] = 0  # four cells agree, four are half wrong
        >>> voxel_mse(pred, target)
        tensor([0.1250])
    """
    if pred.ndim != 4 or pred.shape != target.shape or pred.shape[1:].numel() == 0:
        raise ReconlabError(
            f"voxel_mse: pred has shape {tuple(pred.shape)} and target {tuple(target.shape)}; "
            "expected (B, D, D, D) for both, D at least 1."
        )
    difference = (pred.float() - target.float()).flatten(1)
    return or_nan(difference.square().mean(1), difference.isfinite().all(1))


class VoxelMSE(Metric):
    """Mean squared difference of occupancy over samples, ``voxel_mse``, on filled grids over [-0.5, 0.5]³.

    Grids are made as for :class:`reconlab.metrics.VoxelIoU`; a network's own grid enters with its probabilities. A
    prediction without an occupied cell (0.5 or more) has failed.

    Args:
        resolution: Cells along each axis; the dataset's grids must have it.
        name: Key of the value.

    Example:
        >>> import torch
        >>> from reconlab.shapes import VoxelGrid
        >>> metric = VoxelMSE(resolution=2)
        >>> full, half = torch.ones(1, 2, 2, 2), torch.ones(1, 2, 2, 2)
        >>> half[:, 0] = 0
        >>> metric.update(VoxelGrid(half), Batch(ids=["a"], categories=["chair"], voxels=full))
        >>> metric.compute()["voxel_mse"].item()
        0.5
    """

    higher_is_better = False
    needs = frozenset({"voxels"})

    def __init__(self, resolution: int = 32, name: str | None = None) -> None:
        if resolution < 1:
            raise ReconlabError(f"VoxelMSE: resolution is {resolution}; expected at least 1.")
        protocol = Protocol(
            name=name or "voxel_mse",
            formula="mean over cells of (P - T)², P in [0, 1], T in {0, 1}",
            unit="occupancy squared",
            squared=True,
            points=None,
            alignment="none",
            scale=f"object: {resolution}³ cells over the cube [-0.5, 0.5]³",
            threshold=None,
            factor=100.0,
            higher_is_better=False,
            worst_value=1.0,
            source="the mean squared error of filled 32³ grids",
        )
        super().__init__({protocol.name: protocol})
        self.resolution = resolution

    def _measure(self, shape: Shape, batch: Batch) -> tuple[list[int], dict[str, Tensor]]:
        rows, pred, target = compared_grids(shape, batch, self.resolution, "VoxelMSE")
        if not rows:
            return [], {}
        value = voxel_mse(pred, target)
        return rows, {self.name: or_nan(value, (pred >= 0.5).flatten(1).any(1))}
