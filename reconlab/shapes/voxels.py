"""Occupancy grids."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.kernels.marching_cubes import marching_cubes
from reconlab.precision import at_least_single
from reconlab.shapes.base import Shape

if TYPE_CHECKING:
    from reconlab.shapes.mesh import Mesh


class NoSurfaceWarning(UserWarning):
    """A loss asked for points of a grid that nowhere reaches its level."""


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
        self.values = at_least_single(values)
        self.threshold = threshold
        self.logits = None if logits is None else at_least_single(logits)

    @classmethod
    def from_logits(cls, logits: Tensor, threshold: float = 0.5) -> VoxelGrid:
        """The grid of the log-odds ``(B, D, D, D)``."""
        logits = at_least_single(logits)
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
        """Marching cubes at the threshold, the grid padded by empty cells. Differentiable in logits or values.

        On the logits at the threshold's log-odds where there are logits, else on the values. A grid that nowhere
        reaches the threshold, or is not finite, gives an empty mesh (in the graph, with gradient 0).
        """
        values, levels, outside = self._levels()
        if torch.is_grad_enabled() and values.requires_grad:
            lost = without_surface(values, levels)
            if bool(lost.any()):
                warn_lost(lost, "a loss on their meshes gives them no gradient")
        return _mesh(values, levels, outside)

    def points(self, n: int | None = None, generator: torch.Generator | None = None) -> Tensor:
        """``(B, n, 3)`` points on the surface (2500 if ``n`` is None). Differentiable; see :meth:`surface`."""
        return self.surface(2500 if n is None else n, generator)[0]

    def surface(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Points on the surface with face normals. Differentiable in logits or values.

        While training (gradients are recorded into the grid), a grid that nowhere reaches the threshold lends the
        surface at the nearest level that it has, see :func:`nearest_levels`, so that a loss on points is finite
        and can raise the grid; :class:`NoSurfaceWarning` counts such grids. Otherwise that is an error, as for any
        empty mesh, and the metrics count it as a failed prediction.
        """
        values, levels, outside = self._levels()
        if torch.is_grad_enabled() and values.requires_grad:
            levels, outside = nearest_levels(values, levels, outside)
        return _mesh(values, levels, outside).surface(n, generator)

    def _levels(self) -> tuple[Tensor, Tensor, Tensor]:
        """What marching cubes runs on, the level and the value beyond the border of each grid."""
        if self.logits is None:
            values = self.values.float() if self.values.dtype != torch.float64 else self.values
            flat = values.detach().flatten(1)
            most = flat.amax(1)
            # At the largest value itself triangles would degenerate: plain grids of 0 and 1 at threshold 1.
            levels = torch.full_like(most, self.threshold).clamp_min(1e-6)
            below = levels.minimum(most - 1e-6).clamp_min(5e-7)
            return values, torch.where(most >= levels, below, levels), torch.zeros_like(most)
        limit = 1e6  # a cell that is certain beyond float's range still has a place between its neighbours
        values = self.logits.float() if self.logits.dtype != torch.float64 else self.logits
        values = torch.where(values.detach().isinf(), values.detach().clamp(-limit, limit), values)
        odds = min(max(self.threshold, 1e-6), 1 - 1e-6)
        levels = values.detach().new_full((len(values),), math.log(odds / (1 - odds)))
        return values, levels, levels - reach(values, levels)


def reach(values: Tensor, levels: Tensor) -> Tensor:
    """``(B,)`` largest distance of grids' values from their levels, 1 at least.

    A value beyond the border so far below the level keeps the surface within half a cell of the outermost centres.
    """
    far = (values.detach().flatten(1) - levels.unsqueeze(1)).abs().amax(1)
    return torch.where(far.isfinite(), far, 1.0).clamp_min(1.0)


def without_surface(values: Tensor, levels: Tensor) -> Tensor:
    """``(B,)`` bool: finite grids that nowhere reach their level."""
    flat = values.detach().flatten(1)
    return (flat.amax(1) < levels) & flat.isfinite().all(1)


def warn_lost(lost: Tensor, consequence: str) -> None:
    """Say how many grids have no surface, and what follows."""
    text = f"{int(lost.sum())} of {len(lost)} shapes nowhere reach the level of their surface; {consequence}."
    warnings.warn(text, NoSurfaceWarning, stacklevel=3)


def nearest_levels(values: Tensor, levels: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
    """Levels, and values beyond the border, at which every finite grid has a surface.

    Grids that reach their level keep it. The others take one a tenth of their range below their largest value:
    so near to it that a loss on the surface raises more cells than it lowers, until the level itself is reached.
    A grid without range counts as full. Warns with :class:`NoSurfaceWarning`, which says how many there are.
    """
    lost = without_surface(values, levels)
    if not bool(lost.any()):
        return levels, outside
    warn_lost(lost, "points are taken of the surface at the nearest level that they reach")
    flat = values.detach().flatten(1)
    most, least = flat.amax(1), flat.amin(1)
    span, flatness = most - least, 1e-5 * (1 + most.abs())
    lower = torch.where(span > flatness, most - 0.1 * span, least - flatness)
    levels = torch.where(lost, lower, levels)
    return levels, torch.where(lost, levels - reach(values, levels), outside)


def _mesh(values: Tensor, levels: Tensor, outside: Tensor) -> Mesh:
    from reconlab.shapes.mesh import Mesh

    return Mesh(*marching_cubes(values, levels, outside))
