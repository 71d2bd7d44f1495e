"""Rays through voxel grids: which cells they cross, and whether anything stops them."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reconlab.errors import ReconlabError
from reconlab.kernels.voxel_rays.reference import Crossings, gather_cells, traverse
from reconlab.threads import parallel_map

__all__ = ["Crossings", "escape_probability", "gather_cells", "traverse"]

Backend = Literal["auto", "reference", "cpu"]


def escape_probability(grid: Tensor, origins: Tensor, directions: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Probability that a ray passes through a grid of independent cells: ``Π (1 - o)`` over those it crosses.

    Args:
        grid: ``(B, D, D, D)`` probability of being occupied, indexed [x, y, z] over [-0.5, 0.5]³; values are
            not clamped. Half precision is computed in float32.
        origins: ``(B, R, 3)``; only what lies in front of them counts.
        directions: ``(B, R, 3)`` of any positive length.
        backend: ``auto`` takes the fused kernel for float32 on the CPU, plain torch otherwise; ``reference``
            and ``cpu`` force one.

    Returns:
        ``(B, R)``, differentiable once by ``grid`` (not by the rays). 1 for a ray that misses the grid; NaN for
        one that is not finite, or that crosses a NaN.

    Raises:
        ReconlabError: Shapes do not fit, the grid has no cell, a direction is zero, or no such backend.

    Example:
        >>> grid = torch.zeros(1, 2, 2, 2)
        >>> grid[0, 0, 1, 1], grid[0, 1, 1, 1] = 0.5, 0.2
        >>> ray = torch.tensor([[[-2.0, 0.3, 0.3]]]), torch.tensor([[[1.0, 0.0, 0.0]]])
        >>> escape_probability(grid, *ray)  # (1 - 0.5) (1 - 0.2)
        tensor([[0.4000]])
    """
    if grid.dim() != 4 or len(set(grid.shape[1:])) != 1 or grid.numel() == 0:
        raise ReconlabError(
            f"escape_probability() takes a grid (B, D, D, D) with at least one cell, not {tuple(grid.shape)}."
        )
    if origins.dim() != 3 or origins.shape != directions.shape or origins.shape[::2] != (len(grid), 3):
        raise ReconlabError(
            f"escape_probability() takes origins and directions (B, R, 3) for {len(grid)} grids, "
            f"not {tuple(origins.shape)} and {tuple(directions.shape)}."
        )
    if backend not in ("auto", "cpu", "reference"):
        raise ReconlabError(f"escape_probability() has the backends auto, cpu and reference, not {backend!r}.")
    grid = grid.to(torch.promote_types(grid.dtype, torch.float32))
    origins, directions = origins.detach().double(), directions.detach().double()
    length = directions.norm(dim=-1, keepdim=True)
    if bool((length == 0).any()):
        raise ReconlabError("escape_probability() takes directions of positive length; one is zero.")
    directions = directions / length
    host = grid.device.type == "cpu" and grid.dtype == torch.float32
    if backend == "cpu" and not host:
        raise ReconlabError("escape_probability(backend='cpu') takes a float32 grid on the CPU.")
    if host and backend != "reference":
        value: Tensor = _Escape.apply(grid, origins, directions)
        return value
    from reconlab.kernels.voxel_rays import reference

    return reference.escape_probability(grid, origins, directions)


class _Escape(torch.autograd.Function):
    """The rays are walked again in the backward pass: cheaper than keeping their cells."""

    @staticmethod
    def forward(ctx: Any, grid: Tensor, origins: Tensor, directions: Tensor) -> Tensor:
        from reconlab.kernels.voxel_rays import cpu

        grid, origins, directions = (x.detach().contiguous() for x in (grid, origins, directions))
        escape = torch.empty(origins.shape[:2])
        cells, o, d, out = grid.flatten(1).numpy(), origins.numpy(), directions.numpy(), escape.numpy()

        def one(b: int) -> None:
            cpu.escape_probability(cells[b], grid.shape[1], o[b], d[b], out[b])

        parallel_map(one, range(len(cells)))
        ctx.save_for_backward(grid, origins, directions)
        return escape

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        from reconlab.kernels.voxel_rays import cpu

        grid, origins, directions = ctx.saved_tensors
        result = torch.zeros_like(grid)
        cells, o, d = grid.flatten(1).numpy(), origins.numpy(), directions.numpy()
        upstream, out = grad.contiguous().numpy(), result.flatten(1).numpy()

        def one(b: int) -> None:
            cpu.escape_gradient(cells[b], grid.shape[1], o[b], d[b], upstream[b], out[b])

        parallel_map(one, range(len(cells)))
        return result, None, None
