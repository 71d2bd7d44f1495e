"""Exact traversal of a voxel grid by rays in plain torch: the definition of the kernel."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SHORTEST = 1e-9
"""A cell counts as crossed where the ray spends more than this length in it (object units)."""


class Crossings(NamedTuple):
    """The cells that each ray crosses, in order; ``n`` is ``3 D + 2``, unused places carry cell -1.

    Attributes:
        cells: ``(..., n)`` int64 index into the flattened [x, y, z] grid, or -1.
        enter, leave: ``(..., n)`` float64 distances from the origin at which the ray is in the cell.
    """

    cells: Tensor
    enter: Tensor
    leave: Tensor

    @property
    def crossed(self) -> Tensor:
        """``(..., n)`` bool: this place holds a cell."""
        return self.cells >= 0


def traverse(origins: Tensor, directions: Tensor, resolution: int) -> Crossings:
    """The cells of a ``D`` grid over [-0.5, 0.5]³ that rays cross, from the nearest on.

    The distances to all ``3 (D + 1)`` cell planes, sorted, cut a ray into the pieces that lie in one cell each.
    A ray that runs inside a plane between cells belongs to the cell of the larger index, and to none at +0.5.

    Args:
        origins: ``(..., 3)``; cells behind the origin are not crossed.
        directions: ``(..., 3)`` unit vectors.
        resolution: ``D``.

    Returns:
        The crossings; a ray that is not finite crosses nothing.
    """
    o, d = origins.double(), directions.double()
    finite = (o.isfinite() & d.isfinite()).all(-1, keepdim=True)
    o, d = torch.where(finite, o, 2.0), torch.where(finite, d, 1.0)
    along = d != 0
    planes = torch.arange(resolution + 1, dtype=torch.float64, device=o.device) / resolution - 0.5
    # Without motion along an axis its planes are never met: the ray is always or never between -0.5 and 0.5.
    distance = (planes - o.unsqueeze(-1)) / torch.where(along, d, 1.0).unsqueeze(-1)
    between = (o >= -0.5) & (o < 0.5)
    first, last = (
        torch.minimum(distance[..., 0], distance[..., -1]),
        torch.maximum(distance[..., 0], distance[..., -1]),
    )
    first = torch.where(along, first, torch.where(between, -torch.inf, torch.inf)).amax(-1).clamp_min(0)
    last = torch.where(along, last, torch.inf).amin(-1)
    distance = torch.where(along.unsqueeze(-1), distance, torch.inf).flatten(-2)
    hit = (last - first > SHORTEST) & finite.squeeze(-1)
    first, last = torch.where(hit, first, 0.0), torch.where(hit, last, 0.0)
    ends = torch.cat([first.unsqueeze(-1), distance, last.unsqueeze(-1)], -1)
    ends = torch.maximum(torch.minimum(ends, last.unsqueeze(-1)), first.unsqueeze(-1)).sort(-1).values
    enter, leave = ends[..., :-1], ends[..., 1:]
    middle = o.unsqueeze(-2) + (enter + leave).unsqueeze(-1) / 2 * d.unsqueeze(-2)
    index = ((middle + 0.5) * resolution).floor().long().clamp(0, resolution - 1)
    cells = (index[..., 0] * resolution + index[..., 1]) * resolution + index[..., 2]
    pieces = leave - enter > SHORTEST
    # Crossed cells first, in their order: callers then need not step over the gaps.
    order = torch.argsort(~pieces, dim=-1, stable=True)
    cells = torch.where(pieces, cells, -1).gather(-1, order)
    keep = 3 * resolution + 2
    return Crossings(cells[..., :keep], enter.gather(-1, order)[..., :keep], leave.gather(-1, order)[..., :keep])


def gather_cells(grid: Tensor, cells: Tensor) -> Tensor:
    """``(B, R, n)`` values of ``grid (B, D, D, D)`` at flat ``cells (B, R, n)``; 0 where the index is -1."""
    flat = grid.flatten(1)
    values = flat.gather(1, cells.clamp_min(0).flatten(1)).reshape(cells.shape)
    return torch.where(cells >= 0, values, 0.0)


def escape_probability(grid: Tensor, origins: Tensor, directions: Tensor) -> Tensor:
    """``Π_i (1 - o_i)`` over the cells that each ray crosses: the probability that nothing stops it.

    Args:
        grid: ``(B, D, D, D)`` probability of being occupied, indexed [x, y, z].
        origins: ``(B, R, 3)``.
        directions: ``(B, R, 3)`` unit vectors.

    Returns:
        ``(B, R)``; 1 for a ray that misses the grid, NaN for one that is not finite.
    """
    crossings = traverse(origins, directions, grid.shape[1])
    escape = (1 - gather_cells(grid, crossings.cells)).prod(-1)
    finite = (origins.isfinite() & directions.isfinite()).all(-1)
    return torch.where(finite, escape, torch.nan)
