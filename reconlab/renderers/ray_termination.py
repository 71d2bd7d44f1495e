"""Where rays end in a volume of occupancies (Tulsiani et al. 2017; DPC, PTN's successors)."""

from __future__ import annotations

import torch
from torch import Tensor

from reconlab.errors import ReconlabError

OCCUPANCY_EPS = 1e-5
"""Occupancies are clipped to [1e-5, 1 - 1e-5], as DPC does (in log space 0 and 1 have no gradient)."""


def ray_termination(occupancy: Tensor, dim: int = -1) -> Tensor:
    """Probability of a ray to end in each cell, and to escape: ``p_i = o_i Π_{k<i} (1 - o_k)``, ``Π (1 - o_k)``.

    Computed in log space with the occupancy clipped to [1e-5, 1 - 1e-5]; the gradient through the clip is that of
    ``torch.clamp`` (none outside of it).

    Args:
        occupancy: Any shape, values in [0, 1], nearest cell first along ``dim``.
        dim: The axis along the ray, of K cells.

    Returns:
        The same shape with K + 1 entries along ``dim``, the last one the escape; they sum to 1. At least float32.

    Raises:
        ReconlabError: The tensor has no such axis, or no cell along it.

    Example:
        >>> ray_termination(torch.tensor([0.5, 0.5]))
        tensor([0.5000, 0.2500, 0.2500])
    """
    o = _clipped(occupancy, dim, "ray_termination()")
    passed = torch.log1p(-o).cumsum(dim)
    start = torch.zeros_like(passed.narrow(dim, 0, 1))
    # Each event as the product of what came before it and the event itself; the escape's own factor is 1.
    before = torch.cat([start, passed], dim)
    return torch.exp(before + torch.cat([o.log(), start], dim))


def ray_silhouettes(occupancy: Tensor, dim: int = -1) -> Tensor:
    """Probability of a ray to end anywhere: ``1 - Π (1 - o_k)``, the sum of all events but the escape.

    Args:
        occupancy: As in :func:`ray_termination`.
        dim: The axis along the ray.

    Returns:
        The shape without ``dim``. A ray through K empty cells gives about ``1e-5 K``, as in DPC.
    """
    return -torch.expm1(torch.log1p(-_clipped(occupancy, dim, "ray_silhouettes()")).sum(dim))


def _clipped(occupancy: Tensor, dim: int, who: str) -> Tensor:
    if not -occupancy.dim() <= dim < occupancy.dim() or occupancy.shape[dim] == 0:
        raise ReconlabError(
            f"{who} needs at least one cell along axis {dim} of its occupancy, not shape {tuple(occupancy.shape)}."
        )
    kind = torch.promote_types(occupancy.dtype, torch.float32)
    return occupancy.to(kind).clamp(OCCUPANCY_EPS, 1 - OCCUPANCY_EPS)
