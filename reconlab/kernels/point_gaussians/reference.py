"""Sums of Gaussians at points, on a pixel grid, in plain torch: the definition of the kernel."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 4096
"""Points held at once: two factors of this many rows of pixels."""

FAR = 1e9
"""Positions are cut here: all the same 0, without 0 times infinity in the gradient."""


def splat(points: Tensor, size: int, variance: float) -> Tensor:
    """``Σ_j exp(-|q - p_j|² / 2σ²)`` at every pixel q, as a product of two matrices a block of points.

    Args:
        points: ``(M, J, 2)`` positions (x, y) in pixels.
        size: ``V``, pixels a side.
        variance: σ², in square pixels.

    Returns:
        ``(M, V, V)``, rows are y.
    """
    out = points.new_zeros(points.shape[0], size, size)
    for block in points.split(BLOCK, dim=1):
        across, down, _, _ = _factors(block, size, variance)
        out += down.transpose(1, 2) @ across
    return out


def splat_gradient(points: Tensor, grad: Tensor, variance: float) -> Tensor:
    """``(M, J, 2)``, the gradient by the points of ``Σ_q grad_q · splat_q``; ``grad`` is ``(M, V, V)``."""
    parts = []
    for block in points.split(BLOCK, dim=1):
        across, down, dx, dy = _factors(block, grad.shape[-1], variance)
        by_across = down @ grad
        by_x = (by_across * across * dx).sum(-1)
        by_y = ((across @ grad.transpose(1, 2)) * down * dy).sum(-1)
        parts.append(torch.stack([by_x, by_y], -1) / variance)
    return torch.cat(parts, 1)


def _factors(points: Tensor, size: int, variance: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``(M, j, V)`` each: Gaussians along x and y, and the differences pixel - point that are in them."""
    pixels = torch.arange(size, device=points.device, dtype=points.dtype)
    points = points.clamp(-FAR, FAR)
    dx, dy = pixels - points[..., :1], pixels - points[..., 1:]
    return torch.exp(dx.square() / (-2 * variance)), torch.exp(dy.square() / (-2 * variance)), dx, dy
