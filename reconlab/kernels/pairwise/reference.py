"""Weighted pairwise repulsion in plain torch, in blocks of rows: the definition of the kernel."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCKS = {"cpu": 1 << 17, "cuda": 1 << 24}
"""Pairs held at once (a few tensors of this size): cache-sized on the CPU, enough to fill a GPU."""


def repulsion(
    points: Tensor, row: Tensor, column: Tensor, sigma: float, squared: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``Σ_jk row_j column_k exp(-d(p_j, p_k) / σ)`` of each image and its gradients, in closed form.

    Args:
        points: ``(M, J, 2)``.
        row: ``(M, J)``.
        column: ``(M, J)``.
        sigma: Decay, in the unit of the distance.
        squared: Whether ``d`` is the squared distance or the distance; the gradient of the latter is taken
            as 0 between equal points.

    Returns:
        The value ``(M,)`` and its gradients by ``points``, ``row`` and ``column``.
    """
    count = points.shape[1]
    rows = max(1, BLOCKS.get(points.device.type, 1 << 20) // max(1, count))
    value = points.new_zeros(points.shape[0])
    by_points, by_row, by_column = (torch.zeros_like(x) for x in (points, row, column))
    for m in range(points.shape[0]):
        x, y = points[m, :, 0].contiguous(), points[m, :, 1].contiguous()
        for i in range(0, count, rows):
            here = slice(i, i + rows)
            dx, dy = x - x[here, None], y - y[here, None]
            distance = dx.square() + dy.square()
            if not squared:
                distance = distance.sqrt_()
            kernel = torch.exp(distance / -sigma)
            by_row[m, here] = kernel @ column[m]
            by_column[m] += row[m, here] @ kernel
            # The pair counts twice, once in each row: a_j b_k + a_k b_j.
            force = kernel * (row[m, here, None] * column[m] + row[m] * column[m, here, None])
            force *= 2.0 if squared else torch.where(distance > 0, 1.0 / distance, torch.zeros_like(distance))
            by_points[m, here, 0] = (force * dx).sum(1) / sigma
            by_points[m, here, 1] = (force * dy).sum(1) / sigma
        value[m] = (row[m] * by_row[m]).sum()
    return value, by_points, by_row, by_column
