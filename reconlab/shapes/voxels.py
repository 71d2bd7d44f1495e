"""Occupancy grids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.shapes.base import Shape

if TYPE_CHECKING:
    from reconlab.shapes.mesh import Mesh


class VoxelGrid(Shape):
    """``B`` grids over [-0.5, 0.5]³, indexed [x, y, z]; cell ``i`` of ``D`` is centred at ``(i + 0.5) / D - 0.5``.

    Args:
        values: ``(B, D, D, D)`` occupancy in [0, 1].
        threshold: What counts as occupied when a surface is asked for.
        logits: ``(B, D, D, D)`` log-odds of ``values`` if the network has them: losses that want them (cross-entropy)
            and the surface (interpolated on logits, where a saturated probability has no slope) use them.
    """

    def __init__(self, values: Tensor, threshold: float = 0.5, logits: Tensor | None = None) -> None:
        if values.ndim != 4 or len(set(values.shape[1:])) != 1:
            raise ReconlabError(f"VoxelGrid: values have shape {tuple(values.shape)}; expected (B, D, D, D).")
        if logits is not None and logits.shape != values.shape:
            raise ReconlabError(
                f"VoxelGrid: logits have shape {tuple(logits.shape)}; expected {tuple(values.shape)}, as values."
            )
        self.values = values
        self.threshold = threshold
        self.logits = logits

    @classmethod
    def from_logits(cls, logits: Tensor, threshold: float = 0.5) -> VoxelGrid:
        """The grid of the log-odds ``(B, D, D, D)``."""
        return cls(torch.sigmoid(logits), threshold, logits)

    def __len__(self) -> int:
        return self.values.shape[0]

    def __getitem__(self, index: slice | int) -> VoxelGrid:
        s = self.as_slice(index, len(self))
        return VoxelGrid(self.values[s], self.threshold, None if self.logits is None else self.logits[s])

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.values.device

    @property
    def resolution(self) -> int:
        """Cells along each axis."""
        return self.values.shape[1]

    def to(self, device: torch.device | str) -> VoxelGrid:
        """Move to a device."""
        logits = None if self.logits is None else self.logits.to(device)
        return VoxelGrid(self.values.to(device), self.threshold, logits)

    def valid(self) -> Tensor:
        """``(B,)`` bool: finite, with at least one occupied cell."""
        flat = self.values.detach().flatten(1)
        return flat.isfinite().all(1) & (flat >= self.threshold).any(1)

    def voxels(self, resolution: int = 32) -> VoxelGrid:
        """The grid itself; another resolution is resampled (mean when coarser). Differentiable."""
        if resolution < 1:
            raise ReconlabError(f"VoxelGrid: resolution is {resolution}; expected at least 1.")
        if resolution == self.resolution:
            return self
        grid = self.values.unsqueeze(1).float()
        if self.resolution % resolution == 0:
            grid = torch.nn.functional.avg_pool3d(grid, self.resolution // resolution)
        else:
            grid = torch.nn.functional.interpolate(
                grid, size=(resolution,) * 3, mode="trilinear", align_corners=False
            )
        return VoxelGrid(grid.squeeze(1), self.threshold)

    def mesh(self) -> Mesh:
        """Marching cubes at the threshold, the grid padded by empty cells; not differentiable.

        Empty grids give empty meshes.
        """
        from reconlab.shapes.mesh import Mesh

        grids = self.values.detach().cpu().float().numpy()
        return Mesh.from_list([marching_cubes_surface(g, self.threshold) for g in grids]).to(self.device)

    def points(self, n: int | None = None, generator: torch.Generator | None = None) -> Tensor:
        """``(B, n, 3)`` points on the marching-cubes surface (2500 if ``n`` is None). Not differentiable."""
        return self.mesh().points(2500 if n is None else n, generator)

    def surface(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Points on the marching-cubes surface with face normals. Not differentiable."""
        return self.mesh().surface(n, generator)


def marching_cubes_surface(grid: np.ndarray, level: float, outside: float = 0.0) -> tuple[Tensor, Tensor]:
    """The surface of one grid at a level, closed at the grid's border.

    Args:
        grid: ``(D, D, D)`` values at cell centres, higher inside.
        level: Where the surface lies; kept away from the grid's largest value, where triangles would degenerate.
        outside: What lies beyond the border; below the level.

    Returns:
        ``vertices (V, 3)`` in [-0.5, 0.5]³ (a cell beyond at most) and ``faces (F, 3)``, turned outwards; none of
        either where the grid is not finite or nowhere reaches the level.
    """
    from skimage.measure import marching_cubes

    empty = torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64)
    if not np.isfinite(grid).all() or not (grid >= level).any() or float(grid.max()) <= outside:
        return empty
    padded = np.pad(grid, 1, constant_values=outside)
    level = min(max(level, outside + 1e-6), float(padded.max()) - 1e-6)
    vertices, faces, _, _ = marching_cubes(padded, level, gradient_direction="ascent")
    vertices = (vertices - 0.5) / grid.shape[0] - 0.5
    return torch.from_numpy(vertices.astype(np.float32)), torch.from_numpy(faces.astype(np.int64))
