"""Surface voxelisation in plain torch: the separating-axis test on every triangle and cell of its bounding box.

A triangle and a box are disjoint exactly when one of 13 axes separates them: the box's 3, the triangle's normal,
and the 9 cross products of their edges. T. Akenine-Möller, "Fast 3D Triangle-Box Overlap Testing", 2001.
"""

from __future__ import annotations

import torch
from torch import Tensor

PAIRS = 1 << 18
"""Triangle-cell pairs tested at once; bounds the memory."""


def mark_cells(corners: Tensor, resolution: int) -> Tensor:
    """``(F, 3, 3)`` float64 corners in grid units -> ``(D, D, D)`` bool."""
    out = torch.zeros(resolution**3, dtype=torch.bool, device=corners.device)
    low = corners.amin(1).ceil().sub(1).clamp_min(0).long()  # cells are closed: x = i touches cells i - 1 and i
    high = corners.amax(1).floor().clamp_max(resolution - 1).long()
    extent = (high - low + 1).clamp_min(0)
    count = extent.prod(1)
    ends = count.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, PAIRS):
        flat = torch.arange(start, min(start + PAIRS, total), device=corners.device)
        face = torch.searchsorted(ends, flat, right=True)
        local = flat - (ends[face] - count[face])
        size = extent[face]
        cell = torch.stack(
            [local // (size[:, 1] * size[:, 2]), local // size[:, 2] % size[:, 1], local % size[:, 2]], 1
        )
        cell = cell + low[face]
        hit = _overlap(corners[face] - (cell.double() + 0.5).unsqueeze(1))
        x, y, z = cell[hit].unbind(1)
        out[(x * resolution + y) * resolution + z] = True
    return out.reshape((resolution,) * 3)


def _overlap(corners: Tensor) -> Tensor:
    """Does a triangle ``(N, 3, 3)`` meet the cube [-0.5, 0.5]³? ``(N,)`` bool; touching counts."""
    edges = corners.roll(-1, 1) - corners
    units = torch.eye(3, dtype=corners.dtype, device=corners.device)
    axes = torch.linalg.cross(edges[:, :, None], units[None, None]).flatten(1, 2)
    normal = torch.linalg.cross(edges[:, 0], edges[:, 1]).unsqueeze(1)
    axes = torch.cat([units.expand(len(corners), 3, 3), normal, axes], 1)  # (N, 13, 3)
    along = axes @ corners.transpose(1, 2)
    radius = 0.5 * axes.abs().sum(-1)
    return ((along.amin(-1) <= radius) & (along.amax(-1) >= -radius)).all(1)
