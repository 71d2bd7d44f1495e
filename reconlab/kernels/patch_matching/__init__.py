"""Localised patch matching: every patch of one grid against the patches near it on another (DR-KFS Eq. 2)."""

from __future__ import annotations

import torch
from torch import Tensor

from reconlab.kernels.patch_matching.reference import best_offsets, gather_distance


def match_patches(query: Tensor, key: Tensor, radius: int = 1) -> tuple[Tensor, Tensor]:
    """Distance of each query patch to its best match within a window of the other grid.

    The argmin is hard and found without a graph, so nothing of size window × patches × C is kept for the backward
    pass; the gradient goes through the chosen pair.

    Args:
        query: ``(M, gh, gw, C)`` descriptors.
        key: ``(M, gh, gw, C)`` descriptors of the other image.
        radius: Window half-width in patches: 0 compares like positions only, 1 is a 3×3 window.

    Returns:
        ``distance (M, gh, gw)``, mean squared over C, and ``index (M, gh, gw)`` int64 into the flattened grid.

    Raises:
        ValueError: The grids differ or the radius is negative.

    Example:
        >>> a = torch.tensor([0.0, 1.0, 2.0]).view(1, 1, 3, 1)
        >>> b = torch.tensor([1.0, 2.5, 9.0]).view(1, 1, 3, 1)
        >>> [x.flatten().tolist() for x in match_patches(a, b, radius=1)]
        [[1.0, 0.0, 0.25], [0, 0, 1]]
    """
    if query.shape != key.shape or query.dim() != 4:
        raise ValueError(
            f"match_patches takes two grids (M, gh, gw, C) of one shape, not {tuple(query.shape)} and "
            f"{tuple(key.shape)}"
        )
    if radius < 0:
        raise ValueError(f"radius must be 0 or more, not {radius}")
    with torch.no_grad():
        index = best_offsets(query, key, radius)
    return gather_distance(query, key, index), index
