"""Mean squared error of occupancy grids (the "MSE" of DR-KFS' Table 1 beside OGN's cross-entropy)."""

from __future__ import annotations

from torch import Tensor

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.losses.base import Loss
from reconlab.losses.occupancy import occupancy
from reconlab.shapes import Shape


def voxel_mse(pred: Tensor, target: Tensor) -> Tensor:
    """``(B, D, D, D)`` twice to ``(B,)``: the mean over cells of the squared difference.

    Example:
        >>> import torch
        >>> voxel_mse(torch.full((1, 2, 2, 2), 0.5), torch.ones(1, 2, 2, 2))
        tensor([0.2500])
    """
    if pred.dim() != 4 or pred.shape != target.shape:
        raise ReconlabError(
            f"voxel_mse compares grids (B, D, D, D) of one shape, not {tuple(pred.shape)} and {tuple(target.shape)}."
        )
    return (pred - target.to(pred)).square().flatten(1).mean(1)


class VoxelMSE(Loss):
    """:func:`voxel_mse` against the dataset's grids, mean over samples.

    For any shape that gives differentiable voxels, at the dataset's resolution; of an octree it takes the soft
    composition, so that all levels are trained by the finest cells.
    """

    needs = frozenset({"voxels"})

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``loss``."""
        target = batch.require("voxels", "VoxelMSE")
        return {"loss": voxel_mse(occupancy(shape, target.shape[1], len(target), "VoxelMSE"), target).mean()}
