"""What the losses on voxel grids ask of a shape."""

from __future__ import annotations

import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.shapes import Shape, VoxelGrid


def occupancy(shape: Shape, resolution: int, samples: int, who: str) -> Tensor:
    """``(B, D, D, D)`` occupancy of a shape, differentiable.

    Args:
        shape: A grid, or what converts to one with a gradient (an implicit field).
        resolution: ``D``.
        samples: Shapes that the batch calls for.
        who: The loss, for error messages.

    Raises:
        ReconlabError: Another number of shapes, or gradients are wanted and the conversion has none.
    """
    if len(shape) != samples:
        raise ReconlabError(f"{who} got {len(shape)} shapes for a batch of {samples}.")
    values = shape.voxels(resolution).values
    if torch.is_grad_enabled() and not isinstance(shape, VoxelGrid) and not values.requires_grad:
        raise ReconlabError(
            f"{who} needs differentiable voxels, which {type(shape).__name__} does not give; "
            "choose a network that predicts a VoxelGrid or an ImplicitField."
        )
    return values
