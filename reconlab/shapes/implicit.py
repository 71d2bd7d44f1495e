"""Fields that are queried point by point."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reconlab.shapes.base import Shape
from reconlab.shapes.mesh import Mesh
from reconlab.shapes.voxels import VoxelGrid, marching_cubes_surface


class ImplicitField(Shape):
    """A batch of occupancy fields; losses evaluate them at points of their choice.

    Args:
        function: ``(B, N, 3) -> (B, N)`` occupancy logits, positive inside.
        batch_size: ``B``.
        device: Where the function computes.
        resolution: Cells along each axis when a surface is asked for.
        chunk: Points per evaluation.

    Example:
        >>> ball = ImplicitField(lambda x: 0.3 - x.norm(dim=-1), 1, torch.device("cpu"), resolution=16)
        >>> vertices, faces = ball.mesh().item(0)
        >>> bool((vertices.norm(dim=-1) - 0.3).abs().max() < 0.05)
        True
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        batch_size: int,
        device: torch.device,
        resolution: int = 64,
        chunk: int = 65536,
    ) -> None:
        self.function = function
        self._batch_size = batch_size
        self._device = device
        self.resolution = resolution
        self.chunk = chunk

    def __len__(self) -> int:
        return self._batch_size

    def __getitem__(self, index: slice | int) -> ImplicitField:
        s = self.as_slice(index, len(self))
        chosen = list(range(*s.indices(len(self))))

        def only(points: Tensor) -> Tensor:
            full = points.new_zeros(self._batch_size, *points.shape[1:])
            full[chosen] = points
            return self.function(full)[chosen]

        return ImplicitField(only, len(chosen), self._device, self.resolution, self.chunk)

    @property
    def device(self) -> torch.device:
        """Where the function computes."""
        return self._device

    def logits(self, points: Tensor) -> Tensor:
        """``(B, N, 3) -> (B, N)``, in chunks of points. Differentiable."""
        return torch.cat([self.function(p) for p in points.split(self.chunk, dim=1)], dim=1)

    def valid(self) -> Tensor:
        """``(B,)`` bool: the sampled grid is finite and has an occupied cell."""
        return self.voxels(self.resolution).valid()

    def voxels(self, resolution: int = 32) -> VoxelGrid:
        """The field's probability at the cell centres. Differentiable."""
        return VoxelGrid(torch.sigmoid(self._grid(resolution)))

    def mesh(self) -> Mesh:
        """Marching cubes on the logits at level 0. Not differentiable."""
        with torch.no_grad():
            logits = self._grid(self.resolution)
        # On the logits themselves: they are nearly linear across the surface, probabilities are not.
        outside = -max(float(logits.nan_to_num(0).abs().max()), 1.0)
        items = [marching_cubes_surface(v, 0.0, outside) for v in logits.cpu().float().numpy()]
        return Mesh.from_list(items).to(self._device)

    def points(self, n: int | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Points on the marching-cubes surface. Not differentiable."""
        return self.mesh().points(2500 if n is None else n, generator)

    def surface(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Points on the marching-cubes surface with face normals. Not differentiable."""
        return self.mesh().surface(n, generator)

    def _grid(self, resolution: int) -> Tensor:
        axis = (torch.arange(resolution, device=self._device) + 0.5) / resolution - 0.5
        cells = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(1, -1, 3)
        return self.logits(cells.expand(len(self), -1, 3)).reshape(len(self), resolution, resolution, resolution)
