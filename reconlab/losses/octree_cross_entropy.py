"""OGN's loss (Tatarchenko et al., ICCV 2017): the classes of octree cells, level by level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from reconlab.batch import Batch
from reconlab.errors import ConversionError, ReconlabError
from reconlab.kernels.octree import IGNORE, MIXED, Below, octree_labels
from reconlab.losses.base import Loss
from reconlab.shapes import Shape
from reconlab.shapes.octree import OctreeLevel, true_grid

Missing = Below


def octree_cross_entropy(levels: Sequence[OctreeLevel], labels: Sequence[Tensor], count: int) -> Tensor:
    """Softmax cross-entropy of the cells' classes, the mean over each sample's cells of each level.

    Args:
        levels: Of ``count`` octrees, coarsest first.
        labels: Per level ``(B · side³,)`` classes in Morton order, of :func:`reconlab.kernels.octree.octree_labels`.
            IGNORE, a level's context cells, and MIXED at the finest level (which cannot say it) do not count.
        count: ``B``.

    Returns:
        ``(B, L)``; 0 where no cell of a sample counts.

    Raises:
        ReconlabError: Labels of another number of levels or cells.

    Example:
        >>> keys, no = torch.arange(8), torch.zeros(8, dtype=torch.bool)
        >>> level = OctreeLevel(2, keys, torch.zeros(8, 3), no, no)
        >>> octree_cross_entropy([level], [torch.zeros(8, dtype=torch.uint8)], 1)  # ln 3
        tensor([[1.0986]])
    """
    if len(levels) != len(labels) or any(len(t) != count * v.cells for v, t in zip(levels, labels, strict=False)):
        raise ReconlabError(
            f"octree_cross_entropy() got labels of {[len(t) for t in labels]} cells for {count} octrees of sides "
            f"{[v.side for v in levels]}."
        )
    columns = []
    for level, classes in zip(levels, labels, strict=True):
        target = classes[level.keys].long()
        last = level.logits.shape[1] == MIXED
        counts = (target != IGNORE) & ~level.context & ~((target == MIXED) & last)
        target = torch.where(counts, target, 0)
        cost = F.cross_entropy(
            level.logits if level.logits.dtype == torch.float64 else level.logits.float(), target, reduction="none"
        )
        cost = torch.where(counts, cost, 0)
        sample = torch.div(level.keys, level.cells, rounding_mode="floor")
        total = cost.new_zeros(count).index_add(0, sample, cost)
        number = cost.new_zeros(count).index_add(0, sample, counts.to(cost))
        columns.append(total / number.clamp_min(1))
    return torch.stack(columns, 1)


class OctreeCrossEntropy(Loss):
    """OGN's loss: :func:`octree_cross_entropy` summed over levels, mean over samples.

    Args:
        truth: The dataset's ``voxels``, at the octree's resolution, or the true ``mesh``, voxelised at it.
        missing: The label of a cell that the true octree does not have, because a coarser one is uniform there; such
            cells appear when a network divides by its own classes. ``leaf`` is the uniform cell's class. The
            released code reads such keys as MIXED (``mixed``), and so never closes what was opened in vain;
            ``ignore`` leaves them out. In known propagation there are none.

    Raises:
        ReconlabError: A setting is none of these.
    """

    def __init__(self, truth: Literal["voxels", "mesh"] = "voxels", missing: Missing = "leaf") -> None:
        super().__init__()
        for name, text, allowed in (
            ("truth", truth, ("voxels", "mesh")),
            ("missing", missing, ("leaf", "mixed", "ignore")),
        ):
            if text not in allowed:
                raise ReconlabError(f"OctreeCrossEntropy: {name} must be one of {', '.join(allowed)}, not {text!r}.")
        self.truth = truth
        self.missing: Missing = missing
        self.needs = frozenset({truth})

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``loss``, and each level's part as ``level_<side>``, detached means over samples.

        Raises:
            ConversionError: The shape has no octree levels.
            ReconlabError: Another number of shapes than samples, or grids of another resolution.
        """
        levels: list[OctreeLevel] | None = getattr(shape, "levels", None)
        if levels is None:
            raise ConversionError(
                f"OctreeCrossEntropy needs octree levels, which {type(shape).__name__} does not have; "
                "train OGN with it."
            )
        truth = batch.require(self.truth, "OctreeCrossEntropy")
        if len(shape) != len(truth):
            raise ReconlabError(f"OctreeCrossEntropy got {len(shape)} shapes for a batch of {len(truth)}.")
        voxels, mesh = (truth, None) if self.truth == "voxels" else (None, truth)
        grid = true_grid(voxels, mesh, levels[-1].side, "OctreeCrossEntropy").to(shape.device)
        parts = octree_cross_entropy(levels, octree_labels(grid, levels[0].side, self.missing), len(shape))
        named = {f"level_{v.side}": p for v, p in zip(levels, parts.detach().mean(0), strict=True)}
        return {"loss": parts.sum(1).mean(), **named}

    def extra_repr(self) -> str:
        """The settings."""
        return f"truth={self.truth}, missing={self.missing}"
