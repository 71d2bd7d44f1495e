"""Voxel grids as a camera sees them: occupancy re-sampled along the rays of every pixel (PTN, DPC-V, DRC)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError

NEAR = 1e-3
"""Camera depth below which a ray has no samples."""


def resample_voxels(
    values: Tensor,
    cameras: Cameras,
    resolution: int,
    depths: int | None = None,
    extent: float = 1.0,
    scale: float | None = None,
    shift: float | None = None,
) -> Tensor:
    """Trilinear values of voxel grids on the rays through every pixel of every camera.

    Sample k of K lies at camera depth ``d₀ + extent ((k + 0.5) / K - 0.5)``, with ``d₀`` the depth of the object
    frame's origin, so that equal depths form a plane (DPC's and PTN's perspective volume). An extent of 1 holds
    every object whose bounding-box diagonal is 1; the cube's own corners need √3.

    Args:
        values: ``(B, D, D, D)`` indexed [x, y, z]; cell ``i`` is centred at ``(i + 0.5) / D - 0.5``, as in
            :class:`reconlab.shapes.VoxelGrid`. Half precision is computed in float32.
        cameras: ``(B, V)``.
        resolution: Pixels per side.
        depths: K, samples per ray; ``resolution`` if None.
        extent: Length of the sampled interval along the viewing axis, object units.
        scale: Pixel positions are ``scale x + shift`` for x in [-1, 1], as in
            :class:`reconlab.losses.silhouettes.Reduced`; ``resolution / 2`` if None.
        shift: See ``scale``; ``(resolution - 1) / 2`` if None, so pixel centres (``align_corners=False``).

    Returns:
        ``(B, V, K, H, W)``, nearest sample first, 0 outside of the grid (values fade over the half cell around
        its faces) and behind the camera. Differentiable by the values, and by the cameras.

    Raises:
        ReconlabError: Shapes do not fit, or a size is not positive.

    Example:
        >>> from reconlab.cameras import dpc_cameras
        >>> resample_voxels(torch.ones(1, 4, 4, 4), dpc_cameras([0.0], [0.0]).reshape(1, 1), 8, 6).shape
        torch.Size([1, 1, 6, 8, 8])
    """
    if values.dim() != 4 or len(set(values.shape[1:])) != 1:
        raise ReconlabError(f"resample_voxels() takes values (B, D, D, D), not {tuple(values.shape)}.")
    if len(cameras.shape) != 2 or cameras.shape[0] != values.shape[0]:
        raise ReconlabError(
            f"resample_voxels() takes cameras (B, V) for {values.shape[0]} grids, not {tuple(cameras.shape)}."
        )
    depths = resolution if depths is None else depths
    if resolution < 1 or depths < 1 or not extent > 0:
        raise ReconlabError(
            f"resample_voxels() takes a positive resolution, depths and extent, not {resolution}, {depths}, {extent}."
        )
    if (scale is None) != (shift is None):
        raise ReconlabError("resample_voxels() takes scale and shift together, or neither.")
    kind = torch.promote_types(values.dtype, torch.float32)
    values = values.to(kind)
    with torch.autocast(values.device.type, enabled=False):
        points, front = _ray_points(cameras.to(values.device, kind), resolution, depths, extent, scale, shift)
        batch, views = cameras.shape
        # grid_sample names a volume's axes from the last to the first, and spans [-1, 1].
        grid = (2 * points.flip(-1)).reshape(batch, views * depths, resolution, resolution, 3)
        sampled = F.grid_sample(values.unsqueeze(1), grid, "bilinear", "zeros", align_corners=False)
    return sampled.reshape(batch, views, depths, resolution, resolution) * front[..., None, None]


def _ray_points(
    cameras: Cameras, resolution: int, depths: int, extent: float, scale: float | None, shift: float | None
) -> tuple[Tensor, Tensor]:
    """Object-frame positions ``(B, V, K, H, W, 3)`` of all samples, and ``(B, V, K)`` whether they are in front."""
    scale = resolution / 2 if scale is None else scale
    shift = (resolution - 1) / 2 if shift is None else shift
    side = (torch.arange(resolution).to(cameras.t) - shift) / scale
    steps = extent * ((torch.arange(depths).to(cameras.t) + 0.5) / depths - 0.5)
    depth = cameras.t[..., 2:] + steps  # (B, V, K)
    x = (side - cameras.centre[..., :1]) / cameras.focal[..., :1]  # (B, V, W)
    y = (side - cameras.centre[..., 1:]) / cameras.focal[..., 1:]  # (B, V, H)
    # R^T (depth (x, y, 1) - t) = depth (x R_0 + y R_1 + R_2) + eye: rows of R are the camera's axes.
    across, down, ahead = cameras.R.unbind(-2)
    direction = (
        x[:, :, None, :, None] * across[:, :, None, None]
        + y[:, :, :, None, None] * down[:, :, None, None]
        + ahead[:, :, None, None]
    )  # (B, V, H, W, 3)
    eye = cameras.position[:, :, None, None, None]
    return depth[..., None, None, None] * direction[:, :, None] + eye, (depth > NEAR).to(depth.dtype)
