"""Point clouds of equal size."""

from __future__ import annotations

import torch
from torch import Tensor

from reconlab.devices import send
from reconlab.errors import ReconlabError
from reconlab.precision import at_least_single
from reconlab.shapes.base import Shape
from reconlab.shapes.voxels import VoxelGrid


class PointCloud(Shape):
    """``B`` clouds of ``N`` points.

    Args:
        points: ``(B, N, 3)``; half precision becomes float32, as in every shape.
        normals: ``(B, N, 3)`` unit normals, if the network has them.

    Example:
        >>> cloud = PointCloud(torch.zeros(2, 5, 3))
        >>> len(cloud), cloud.points(3).shape
        (2, torch.Size([2, 3, 3]))
    """

    def __init__(self, points: Tensor, normals: Tensor | None = None) -> None:
        if points.ndim != 3 or points.shape[-1] != 3:
            raise ReconlabError(f"PointCloud: points have shape {tuple(points.shape)}; expected (B, N, 3).")
        if normals is not None and normals.shape != points.shape:
            raise ReconlabError(
                f"PointCloud: normals have shape {tuple(normals.shape)}; expected {tuple(points.shape)}, as points."
            )
        self.positions = at_least_single(points)
        self.normals = None if normals is None else at_least_single(normals)

    def __len__(self) -> int:
        return self.positions.shape[0]

    def __getitem__(self, index: slice | int) -> PointCloud:
        s = self.as_slice(index, len(self))
        return PointCloud(self.positions[s], None if self.normals is None else self.normals[s])

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.positions.device

    def to(self, device: torch.device | str) -> PointCloud:
        """Move to a device."""
        return PointCloud(self.positions.to(device), None if self.normals is None else self.normals.to(device))

    def valid(self) -> Tensor:
        """``(B,)`` bool: at least one point, all finite."""
        if self.positions.shape[1] == 0:
            return torch.zeros(len(self), dtype=torch.bool, device=self.device)
        return self.positions.detach().isfinite().all(-1).all(-1)

    def points(self, n: int | None = None, generator: torch.Generator | None = None) -> Tensor:
        """All points, or ``n`` of them, with replacement only if there are too few. Differentiable."""
        index = self._choose(n, generator)
        return self.positions if index is None else self.positions[:, index]

    def surface(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Points and the network's own normals.

        Raises:
            ConversionError: The cloud has no normals.
        """
        if self.normals is None:
            raise self._missing("surface points with normals")
        index = self._choose(n, generator)
        if index is None:
            return self.positions, self.normals
        return self.positions[:, index], self.normals[:, index]

    def voxels(self, resolution: int = 32) -> VoxelGrid:
        """Cells that hold a point, and the cells that they enclose. Not differentiable."""
        from reconlab.kernels.voxelize import fill_enclosed, occupied_cells

        return VoxelGrid(fill_enclosed(occupied_cells(self.positions, resolution)).float())

    def anchors(self) -> list[Tensor]:
        """The points."""
        return [self.positions]

    def _choose(self, n: int | None, generator: torch.Generator | None) -> Tensor | None:
        total = self.positions.shape[1]
        if n is None or n == total:
            return None
        if total == 0:
            raise ReconlabError("PointCloud: cannot draw points from an empty cloud.")
        where = generator.device if generator is not None else torch.device("cpu")
        if n < total:
            index = torch.randperm(total, generator=generator, device=where)[:n]
        else:
            index = torch.randint(total, (n,), generator=generator, device=where)
        return send(index, self.device)
