"""Weighted pairwise repulsion in plain torch, in blocks of rows: the definition of the kernel."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 1 << 22
"""Pairs held at once (a few tensors of this size)."""


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
    rows = max(1, BLOCK // max(1, count))
    value = points.new_zeros(points.shape[0])
    by_points, by_row, by_column = (torch.zeros_like(x) for x in (points, row, column))
    for m in range(points.shape[0]):
        p = points[m]
        for i in range(0, count, rows):
            here = slice(i, i + rows)
            away = p[None, :] - p[here, None]
            square = away.square().sum(-1)
            distance = square if squared else square.sqrt()
            kernel = torch.exp(-distance / sigma)
            by_row[m, here] = kernel @ column[m]
            by_column[m] += row[m, here] @ kernel
            # The pair counts twice, once in each row: a_j b_k + a_k b_j.
            force = kernel * (row[m, here, None] * column[m] + row[m] * column[m, here, None])
            slope = 2.0 if squared else torch.where(distance > 0, 1.0 / distance, torch.zeros_like(distance))
            by_points[m, here] = ((force * slope)[..., None] * away).sum(1) / sigma
        value[m] = (row[m] * by_row[m]).sum()
    return value, by_points, by_row, by_column
