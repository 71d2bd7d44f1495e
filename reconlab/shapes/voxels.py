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
    """

    def __init__(self, values: Tensor, threshold: float = 0.5) -> None:
        if values.ndim != 4 or len(set(values.shape[1:])) != 1:
            raise ReconlabError(f"VoxelGrid: values have shape {tuple(values.shape)}; expected (B, D, D, D).")
        self.values = values
        self.threshold = threshold

    def __len__(self) -> int:
        return self.values.shape[0]

    def __getitem__(self, index: slice | int) -> VoxelGrid:
        return VoxelGrid(self.values[self.as_slice(index, len(self))], self.threshold)

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
        return VoxelGrid(self.values.to(device), self.threshold)

    def valid(self) -> Tensor:
        """``(B,)`` bool: finite, with at least one occupied cell."""
        flat = self.values.detach().flatten(1)
        return flat.isfinite().all(1) & (flat >= self.threshold).any(1)

    def voxels(self, resolution: int = 32) -> VoxelGrid:
        """The grid itself; another resolution is resampled (mean when coarser). Differentiable."""
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

        return Mesh.from_list([self._surface(v) for v in self.values.detach().cpu().float().numpy()]).to(self.device)

    def points(self, n: int | None = None, generator: torch.Generator | None = None) -> Tensor:
        """``(B, n, 3)`` points on the marching-cubes surface (2500 if ``n`` is None). Not differentiable."""
        return self.mesh().points(2500 if n is None else n, generator)

    def surface(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Points on the marching-cubes surface with face normals. Not differentiable."""
        return self.mesh().surface(n, generator)

    def _surface(self, grid: np.ndarray) -> tuple[Tensor, Tensor]:
        from skimage.measure import marching_cubes

        if not np.isfinite(grid).all() or not (grid >= self.threshold).any():
            return torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64)
        # Values equal to the level would give degenerate triangles; binary grids never meet it.
        padded = np.pad(grid, 1)
        level = min(max(self.threshold, 1e-6), float(padded.max()) - 1e-6)
        vertices, faces, _, _ = marching_cubes(padded, level, gradient_direction="ascent")
        vertices = (vertices - 0.5) / grid.shape[0] - 0.5
        return torch.from_numpy(vertices.astype(np.float32)), torch.from_numpy(faces.astype(np.int64))
