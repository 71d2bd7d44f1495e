"""Surface voxelisation: which cells of a grid over [-0.5, 0.5]³ a set of triangles meets, and what they enclose."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from reconlab.errors import ReconlabError

__all__ = ["fill_enclosed", "occupied_cells", "triangles_to_cells"]

SHRINK = 1.0 - 1e-6
"""Corners are scaled by this about the origin first, so that a face lying exactly on a cell boundary marks the
cell on its inner side only and an axis-aligned box is not thickened."""


def triangles_to_cells(
    corners: Tensor, resolution: int, backend: Literal["auto", "reference", "cpu"] = "auto"
) -> Tensor:
    """Cells that the triangles meet, by the exact triangle/box overlap test (Akenine-Möller, 2001).

    Args:
        corners: ``(F, 3, 3)`` corner positions, object frame; parts outside [-0.5, 0.5]³ mark nothing.
            Triangles with a coordinate that is not finite are an error; degenerate ones count as the segment
            or the point that they are.
        resolution: Cells along each axis, ``D >= 1``.
        backend: ``auto`` takes the numba kernel for tensors on the CPU and batched torch otherwise.

    Returns:
        ``(D, D, D)`` bool on the input's device, indexed [x, y, z]. Not differentiable.

    Raises:
        ReconlabError: The shape is wrong or a coordinate is not finite.

    Examples:
        >>> flat = torch.tensor([[[-0.4, 0.1, -0.4], [0.4, 0.1, -0.4], [-0.4, 0.1, 0.4]]])
        >>> triangles_to_cells(flat, 2).sum(dim=(0, 2))
        tensor([0, 4])
    """
    if corners.dim() != 3 or corners.shape[1:] != (3, 3):
        raise ReconlabError(f"triangles_to_cells() takes corners (F, 3, 3), not {tuple(corners.shape)}.")
    if resolution < 1:
        raise ReconlabError(f"triangles_to_cells() takes a resolution of at least 1, not {resolution}.")
    if not bool(torch.isfinite(corners).all()):
        raise ReconlabError("triangles_to_cells() got corners that are not finite: leave those triangles out.")
    if backend not in ("auto", "cpu", "reference"):
        raise ReconlabError(f"triangles_to_cells() has the backends auto, cpu and reference, not {backend!r}.")
    # Grid units: cell i spans [i, i + 1]. Float64, because the overlap test compares products of coordinates.
    grid = (corners.detach().double() * SHRINK + 0.5) * resolution
    if backend == "reference" or (backend == "auto" and corners.device.type != "cpu"):
        from reconlab.kernels.voxelize.reference import mark_cells

        return mark_cells(grid, resolution)
    if corners.device.type != "cpu":
        raise ReconlabError("triangles_to_cells(backend='cpu') takes tensors on the CPU.")
    from reconlab.kernels.voxelize import cpu

    cells = torch.zeros((resolution,) * 3, dtype=torch.uint8)
    cpu.mark_cells(grid.contiguous().numpy(), cells.numpy())
    return cells.bool()


def fill_enclosed(cells: Tensor) -> Tensor:
    """Add the empty cells that no face-connected path of empty cells joins to the outside of the grid.

    Args:
        cells: ``(..., D, D, D)`` bool.

    Returns:
        The filled grids, same shape, bool. Not differentiable.

    Examples:
        >>> box = torch.ones(3, 3, 3, dtype=torch.bool)
        >>> box[1, 1, 1] = False
        >>> bool(fill_enclosed(box).all())
        True
    """
    from scipy.ndimage import binary_fill_holes

    grids = cells.detach().bool().cpu().reshape(-1, *cells.shape[-3:]).numpy()
    filled = [torch.from_numpy(binary_fill_holes(g)) for g in grids]
    stacked = torch.stack(filled) if filled else torch.zeros(grids.shape, dtype=torch.bool)
    return stacked.reshape(cells.shape).to(cells.device)


def occupied_cells(points: Tensor, resolution: int) -> Tensor:
    """Cells of the cube [-0.5, 0.5]³ that hold a point; points outside, or not finite, mark none.

    Args:
        points: ``(B, N, 3)``.
        resolution: ``D``.

    Returns:
        ``(B, D, D, D)`` bool, indexed [x, y, z].
    """
    cells = torch.zeros(points.shape[0], resolution**3, dtype=torch.bool, device=points.device)
    position = (points.detach() + 0.5) * resolution
    inside = ((position >= 0) & (position < resolution)).all(-1)
    index = position.nan_to_num(0).long().clamp(0, resolution - 1)
    flat = (index[..., 0] * resolution + index[..., 1]) * resolution + index[..., 2]
    sample = torch.arange(len(points), device=points.device).unsqueeze(1).expand_as(flat)
    cells[sample[inside], flat[inside]] = True
    return cells.reshape(len(points), *(resolution,) * 3)
