"""Fields that are queried point by point, and their differentiable surfaces."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from reconlab.errors import ReconlabError
from reconlab.kernels.marching_cubes import GUARD, marching_cubes
from reconlab.shapes.base import Shape
from reconlab.shapes.mesh import Mesh
from reconlab.shapes.voxels import VoxelGrid, nearest_levels, reach, warn_lost, without_surface


class ImplicitField(Shape):
    """A batch of occupancy fields; losses evaluate them at points of their choice.

    The surface is found by marching cubes on a lattice that is refined near the surface only, and is computed once
    per object: a network makes a new one each step. With gradients enabled its vertices carry the implicit
    gradient into whatever the function depends on, see :meth:`mesh`.

    Args:
        function: ``(B, N, 3) -> (B, N)`` occupancy logits, positive inside.
        batch_size: ``B``.
        device: Where the function computes.
        resolution: Cells along each axis when a surface is asked for.
        chunk: Points per evaluation, of all samples together. Evaluations of several chunks keep no activations for
            the backward pass but are repeated there, so that this bounds the memory whatever the number of points.
        coarse: Points along an axis at which the surface is looked for; finer ones only near it, see
            :meth:`lattice`.

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
        coarse: int = 32,
    ) -> None:
        for name, value in (("resolution", resolution), ("chunk", chunk), ("coarse", coarse)):
            if value < 1:
                raise ReconlabError(f"{type(self).__name__}: {name} is {value}; expected at least 1.")
        self.function = function
        self._batch_size = batch_size
        self._device = device
        self.resolution = resolution
        self.chunk = chunk
        self.coarse = coarse
        self._meshes: dict[bool, Mesh] = {}
        self._grid: Tensor | None = None

    def __len__(self) -> int:
        return self._batch_size

    def __getitem__(self, index: slice | int) -> ImplicitField:
        s = self.as_slice(index, len(self))
        chosen = list(range(*s.indices(len(self))))

        def only(points: Tensor) -> Tensor:
            full = points.new_zeros(self._batch_size, *points.shape[1:])
            full[chosen] = points
            return self.function(full)[chosen]

        return ImplicitField(only, len(chosen), self._device, self.resolution, self.chunk, self.coarse)

    @property
    def device(self) -> torch.device:
        """Where the function computes."""
        return self._device

    def logits(self, points: Tensor) -> Tensor:
        """``(B, N, 3) -> (B, N)``, in chunks of points. Differentiable."""
        parts = points.split(self._per_sample, dim=1)
        if len(parts) == 1 or not torch.is_grad_enabled():
            return torch.cat([self.function(p) for p in parts], dim=1)
        return torch.cat([checkpoint(self.function, p, use_reentrant=False) for p in parts], dim=1)

    @property
    def _per_sample(self) -> int:
        return max(1, self.chunk // max(1, len(self)))

    def valid(self) -> Tensor:
        """``(B,)`` bool: the lattice's values are finite and one is positive or 0."""
        flat = self.lattice().flatten(1)
        return flat.isfinite().all(1) & (flat >= 0).any(1)

    def voxels(self, resolution: int = 32) -> VoxelGrid:
        """The field at the cell centres, with logits. Differentiable."""
        if resolution < 1:
            raise ReconlabError(f"{type(self).__name__}: resolution is {resolution}; expected at least 1.")
        cells = torch.stack(torch.meshgrid(*[_centres(resolution, self._device)] * 3, indexing="ij"), -1)
        logits = self.logits(cells.reshape(1, -1, 3).expand(len(self), -1, 3))
        return VoxelGrid.from_logits(logits.reshape(len(self), resolution, resolution, resolution))

    def mesh(self) -> Mesh:
        """Marching cubes on the logits at level 0, each axis having ``resolution`` samples.

        With gradients enabled each vertex x is moved by ``-(f(x) - f(x).detach()) ∇f / |∇f|²``, which is zero but
        has the gradient of the surface itself: where f rises by ε, the surface moves outwards by ``ε / |∇f|``
        (MeshSDF, Remelli et al. 2020, for fields that are not distances). ``|∇f|`` counts as 0.001 per cell at
        least, as in marching cubes. An empty surface gives an empty mesh (in the graph, with gradient 0).
        """
        recorded = torch.is_grad_enabled()
        if recorded not in self._meshes:
            values = self.lattice()
            levels = values.new_zeros(len(self))
            lost = without_surface(values, levels)
            if recorded and bool(lost.any()):
                warn_lost(lost, "a loss on their meshes gives them no gradient")
            self._meshes[recorded] = self._mesh_at(levels)
        return self._meshes[recorded]

    def points(self, n: int | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Points on the surface (2500 if ``n`` is None). Differentiable; see :meth:`surface`."""
        return self.surface(2500 if n is None else n, generator)[0]

    def surface(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Points on the surface with face normals. Differentiable.

        With gradients enabled a field without a surface lends the one at the nearest level that it reaches, as
        :meth:`reconlab.shapes.VoxelGrid.surface`.
        """
        if not torch.is_grad_enabled():
            return self.mesh().surface(n, generator)
        values = self.lattice()
        levels = values.new_zeros(len(self))
        if not bool(without_surface(values, levels).any()):
            return self.mesh().surface(n, generator)
        levels, _ = nearest_levels(values, levels, levels - reach(values, levels))
        return self._mesh_at(levels).surface(n, generator)

    @torch.no_grad()
    def lattice(self, everywhere: bool = False) -> Tensor:
        """``(B, R, R, R)`` logits at the cell centres of ``resolution`` R, exact near the surface; no gradient.

        Every second, fourth … cell is evaluated first, so that ``coarse`` or more remain along an axis; then, level
        by level, the cells of blocks whose corners differ in sign and of the blocks next to them. Cells elsewhere
        are interpolated, which cannot make a new surface. What lies wholly between the coarse points is missed.

        Args:
            everywhere: Evaluate every cell.
        """
        if self._grid is not None and not everywhere:
            return self._grid
        size = self.resolution
        step = 1
        while not everywhere and size >= 2 * step * self.coarse:
            step *= 2
        points = (size - 2) // step + 2  # blocks reach beyond the last cell where the step does not divide
        grid = self._at(torch.ones(points, points, points, dtype=torch.bool).expand(len(self), -1, -1, -1), step)
        grid = grid.reshape(len(self), points, points, points)
        while step > 1:
            step //= 2
            known = grid
            grid = torch.nn.functional.interpolate(
                known.unsqueeze(1), size=[2 * n - 1 for n in known.shape[1:]], mode="trilinear", align_corners=True
            ).squeeze(1)
            grid[:, ::2, ::2, ::2] = known
            wanted = _near_surface(known)
            wanted[:, ::2, ::2, ::2] = False
            grid[wanted] = self._at(wanted, step)
        grid = grid[:, :size, :size, :size].contiguous()
        if not everywhere:
            self._grid = grid
        return grid

    def _at(self, wanted: Tensor, step: int) -> Tensor:
        """Logits at the marked points ``(B, P, P, P)`` of the lattice of every ``step``-th cell, packed."""
        index = [m.nonzero() for m in wanted]
        centres = [(i.to(self._device, torch.float32) * step + 0.5) / self.resolution - 0.5 for i in index]
        return self._packed(torch.cat(centres), [len(i) for i in index])

    def _packed(self, points: Tensor, counts: list[int]) -> Tensor:
        """``(ΣN, 3) -> (ΣN,)`` logits: samples of unequal counts, filled up to the largest."""
        if not points.shape[0]:
            return points.new_zeros(0)
        filled = torch.nn.utils.rnn.pad_sequence(list(points.split(counts)), batch_first=True)
        logits = self.logits(filled)
        return torch.cat([row[:n] for row, n in zip(logits, counts, strict=True)])

    def _mesh_at(self, levels: Tensor) -> Mesh:
        values = self.lattice()
        with torch.no_grad():
            surface = marching_cubes(values, levels, levels - reach(values, levels))
        if not torch.is_grad_enabled():
            return Mesh(*surface)
        counts = surface.vertex_splits.diff().tolist()
        vertices = surface.vertices
        if not len(vertices):  # stay in the graph: the gradient of no vertex is 0
            anywhere = self.function(vertices.new_zeros(len(self), 1, 3)).sum()
            return Mesh(vertices + 0 * anywhere, surface.faces, surface.vertex_splits, surface.face_splits)
        slope = self._gradients(vertices, counts)
        logits = self._packed(vertices, counts)
        length = slope.norm(dim=-1, keepdim=True).clamp_min(1e-30)
        direction = slope / length / length.clamp_min(GUARD * self.resolution)
        vertices = vertices - (logits - logits.detach()).unsqueeze(-1) * direction
        return Mesh(vertices, surface.faces, surface.vertex_splits, surface.face_splits)

    def _gradients(self, points: Tensor, counts: list[int]) -> Tensor:
        """``(ΣN, 3)`` gradients of the logits by the points, detached."""
        filled = torch.nn.utils.rnn.pad_sequence(list(points.detach().split(counts)), batch_first=True)
        found = []
        for part in filled.split(self._per_sample, dim=1):
            with torch.enable_grad():
                x = part.clone().requires_grad_(True)
                found.append(torch.autograd.grad(self.function(x).sum(), x)[0])
        return torch.cat([row[:n] for row, n in zip(torch.cat(found, dim=1), counts, strict=True)])


def _centres(resolution: int, device: torch.device) -> Tensor:
    return (torch.arange(resolution, device=device) + 0.5) / resolution - 0.5


def _near_surface(grid: Tensor) -> Tensor:
    """Points of the doubled lattice that lie in, or next to, blocks whose corners differ in sign.

    ``(B, P, P, P)`` to ``(B, 2P - 1, 2P - 1, 2P - 1)`` bool.
    """
    signs = (grid >= 0).float().unsqueeze(1)
    pool = torch.nn.functional.max_pool3d
    mixed = pool(signs, 2, 1) != -pool(-signs, 2, 1)  # by block
    near = pool(mixed.float(), 3, 1, 1)  # and its neighbours
    # Point 2 i + j of the doubled lattice belongs to block i, and even ones to block i - 1 as well.
    blocks = near.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
    return (pool(torch.nn.functional.pad(blocks, (1, 1, 1, 1, 1, 1)), 2, 1).squeeze(1)) > 0
