"""Cross-entropy of voxels (3D-R2N2, Choy et al., ECCV 2016)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from reconlab.batch import Batch
from reconlab.errors import ConversionError, ReconlabError
from reconlab.losses.base import Loss
from reconlab.shapes import Shape


def voxel_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over cells of ``-v log p - (1 - v) log(1 - p)``, ``p = 1 / (1 + exp(-logit))``.

    A softmax over two numbers a (empty) and b (occupied) is the logistic function of b - a: with that difference as
    the logit this is 3D-R2N2's two-class softmax cross-entropy.

    Args:
        logits: ``(B, D, D, D)``.
        target: The true occupancy in [0, 1].

    Returns:
        ``(B,)``, in nats.

    Raises:
        ReconlabError: Shapes differ.

    Example:
        >>> import torch
        >>> voxel_cross_entropy(torch.zeros(1, 2, 2, 2), torch.ones(1, 2, 2, 2))
        tensor([0.6931])
    """
    if logits.shape != target.shape or logits.ndim != 4:
        raise ReconlabError(
            f"voxel_cross_entropy: logits are {tuple(logits.shape)}, the true voxels {tuple(target.shape)}; "
            "expected (B, D, D, D) for both."
        )
    loss = F.binary_cross_entropy_with_logits(logits, target.to(logits), reduction="none")
    return loss.flatten(1).mean(1)


class VoxelCrossEntropy(Loss):
    """:func:`voxel_cross_entropy` on any shape whose voxels have logits, mean over samples."""

    needs = frozenset({"voxels"})

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``"loss"``.

        Raises:
            ConversionError: The shape's voxels have no logits.
            ReconlabError: The true grids have another resolution.
        """
        target = batch.require("voxels", "VoxelCrossEntropy")
        own = getattr(shape, "resolution", target.shape[-1])
        grid = shape.voxels(target.shape[-1])
        if grid.logits is None and own != target.shape[-1]:
            raise ReconlabError(
                f"VoxelCrossEntropy: the data's voxels are {tuple(target.shape)}, the network's {own} cells wide; "
                "set the network's resolution to the dataset's."
            )
        if grid.logits is None:
            raise ConversionError(
                f"VoxelCrossEntropy needs voxels with logits, which {type(shape).__name__} does not give here: "
                "choose a network that predicts a VoxelGrid from logits (R2N2), or another loss."
            )
        return {"loss": voxel_cross_entropy(grid.logits, target).mean()}
