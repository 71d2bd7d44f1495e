"""Localised patch matching: every patch of one grid against the patches near it on another (DR-KFS Eq. 2)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reconlab.kernels.gpu import choose_backend
from reconlab.kernels.patch_matching.reference import best_offsets, gather_distance


def match_patches(
    query: Tensor, key: Tensor, radius: int = 1, backend: Literal["auto", "reference", "cuda"] = "auto"
) -> tuple[Tensor, Tensor]:
    """Distance of each query patch to its best match within a window of the other grid.

    The argmin is hard and found without a graph, so nothing of size window × patches × C is kept for the backward
    pass; the gradient goes through the chosen pair. Among equals the undisplaced patch wins, then the first in row
    order.

    Args:
        query: ``(M, gh, gw, C)`` descriptors.
        key: ``(M, gh, gw, C)`` descriptors of the other image.
        radius: Window half-width in patches: 0 compares like positions only, 1 is a 3×3 window.
        backend: ``reference`` is plain torch; ``cuda`` finds distance and match in one pass on the GPU, keeps only
            the inputs and the indices for its gradient (which is differentiable no further), and gives the same
            bits every time. ``auto`` takes ``cuda`` for float32 on a GPU, and ``reference`` otherwise.

    Returns:
        ``distance (M, gh, gw)``, mean squared over C, and ``index (M, gh, gw)`` int64 into the flattened grid.

    Raises:
        ValueError: The grids differ or the radius is negative.
        ReconlabError: The backend is unknown, or does not take this input.

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
    path = choose_backend("match_patches", backend, query, key, cpu=False)
    if path == "cuda" and query.numel() > 0:
        distance, index = _Match.apply(query, key, radius)
        return distance, index
    with torch.no_grad():
        index = best_offsets(query, key, radius)
    return gather_distance(query, key, index), index


class _Match(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, radius: int) -> tuple[Tensor, Tensor]:
        from reconlab.kernels.patch_matching import cuda

        query, key = query.contiguous(), key.contiguous()
        distance, index = cuda.best_matches(query, key, radius)
        ctx.save_for_backward(query, key, index)
        ctx.mark_non_differentiable(index)
        ctx.radius = radius
        return distance, index

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        from reconlab.kernels.patch_matching import cuda

        query, key, index = ctx.saved_tensors
        by_query, by_key, _radius = ctx.needs_input_grad
        return *cuda.gradients(query, key, index, grad.contiguous(), ctx.radius, by_query, by_key), None
