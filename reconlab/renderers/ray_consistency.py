"""Ray consistency (Tulsiani et al., CVPR 2017): what may happen to a pixel's ray in a grid of occupancies.

A ray that crosses the cells 1 … n, occupied with probabilities o, either stops in one of them, with probability
``o_i Π_{k<i} (1 - o_k)``, or escapes, with probability ``Π_k (1 - o_k)``. A cost for each event gives an expected
cost, which is differentiable. Where all stops cost the same, as with masks, only the escape is needed, and that
has a fused kernel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.kernels.voxel_rays import Backend, Crossings, escape_probability, gather_cells, traverse

__all__ = ["RayEvents", "escape_image", "event_cost", "pixel_centres", "pixel_rays", "ray_events"]


class RayEvents(NamedTuple):
    """What may happen to each ray; ``stop`` and ``escape`` sum to 1.

    Attributes:
        stop: ``(B, R, n)`` probability of stopping in each crossed cell, from the nearest on; 0 where there is none.
        escape: ``(B, R)`` probability of crossing them all.
        crossings: The cells, and at which distance the ray enters and leaves each.
    """

    stop: Tensor
    escape: Tensor
    crossings: Crossings


def pixel_centres(height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """``(H, W, 2)`` normalised x, y of pixel centres.

    Example:
        >>> pixel_centres(1, 2)
        tensor([[[-0.5000,  0.0000],
                 [ 0.5000,  0.0000]]])
    """
    y, x = ((2 * torch.arange(n, device=device) + 1) / n - 1 for n in (height, width))
    return torch.stack([x.expand(height, -1), y.unsqueeze(-1).expand(-1, width)], -1)


def pixel_rays(cameras: Cameras, xy: Tensor) -> tuple[Tensor, Tensor]:
    """Rays of image positions in the object frame, in float64.

    Args:
        cameras: Shape ``(...)``.
        xy: ``(..., N, 2)`` normalised image positions.

    Returns:
        ``origins`` and unit ``directions``, ``(..., N, 3)`` each.
    """
    cameras, xy = cameras.to(torch.float64), xy.double()
    plane = (xy - cameras.centre.unsqueeze(-2)) / cameras.focal.unsqueeze(-2)
    # Rows times R are its transpose times columns: from the camera to the object frame.
    directions = torch.cat([plane, torch.ones_like(plane[..., :1])], -1) @ cameras.R
    origins = cameras.position.unsqueeze(-2).expand_as(directions)
    return origins, directions / directions.norm(dim=-1, keepdim=True)


def ray_events(grid: Tensor, origins: Tensor, directions: Tensor) -> RayEvents:
    """Every event of every ray. Differentiable by the grid; memory is ``B · R · 3 D``.

    Args:
        grid: ``(B, D, D, D)`` probability of being occupied, indexed [x, y, z] over [-0.5, 0.5]³.
        origins: ``(B, R, 3)``; what lies behind them is not met.
        directions: ``(B, R, 3)`` of any positive length.

    Raises:
        ReconlabError: The shapes do not fit, or the grid has no cell.
    """
    if grid.dim() != 4 or len(set(grid.shape[1:])) != 1 or grid.numel() == 0:
        raise ReconlabError(
            f"ray_events() takes a grid (B, D, D, D) with at least one cell, not {tuple(grid.shape)}."
        )
    if origins.dim() != 3 or origins.shape != directions.shape or origins.shape[::2] != (len(grid), 3):
        raise ReconlabError(
            f"ray_events() takes origins and directions (B, R, 3) for {len(grid)} grids, "
            f"not {tuple(origins.shape)} and {tuple(directions.shape)}."
        )
    directions = directions.double()
    crossings = traverse(origins, directions / directions.norm(dim=-1, keepdim=True), grid.shape[1])
    occupied = gather_cells(grid, crossings.cells)
    through = torch.cumprod(1 - occupied, -1)
    reached = torch.cat([torch.ones_like(through[..., :1]), through[..., :-1]], -1)
    return RayEvents(occupied * reached, through[..., -1], crossings)


def event_cost(events: RayEvents, stop_cost: Tensor, escape_cost: Tensor) -> Tensor:
    """``(B, R)`` expected cost of each ray: ``Σ_i p(i) ψ(i)`` over its events.

    Args:
        events: Of :func:`ray_events`.
        stop_cost: ``(B, R, n)`` cost of stopping in each crossed cell, or anything that broadcasts to it.
        escape_cost: ``(B, R)``.
    """
    return (events.stop * stop_cost).sum(-1) + events.escape * escape_cost


def escape_image(
    grid: Tensor, cameras: Cameras, image_size: int | tuple[int, int], backend: Backend = "auto"
) -> Tensor:
    """Each pixel centre's escape probability: 1 minus the silhouette that the grid casts.

    Args:
        grid: ``(B, D, D, D)`` probability of being occupied.
        cameras: ``(B, V)``, or ``(V,)`` shared.
        image_size: Side, or (H, W).
        backend: See :func:`reconlab.kernels.voxel_rays.escape_probability`.

    Returns:
        ``(B, V, H, W)``, differentiable by the grid.

    Raises:
        ReconlabError: Shapes do not fit.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if len(cameras.shape) == 1:
        cameras = cameras.expand(len(grid), -1)
    if len(cameras.shape) != 2 or cameras.shape[0] != len(grid):
        raise ReconlabError(
            f"escape_image() takes cameras (V,) or ({len(grid)}, V) for these grids, not {tuple(cameras.shape)}."
        )
    if min(height, width) < 1:
        raise ReconlabError(f"escape_image(): image_size is {image_size}; expected positive.")
    origins, directions = pixel_rays(cameras, pixel_centres(height, width, grid.device).flatten(0, 1))
    escape = escape_probability(grid, origins.flatten(1, 2), directions.flatten(1, 2), backend=backend)
    return escape.reshape(*cameras.shape, height, width)
