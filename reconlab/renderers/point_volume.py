"""Silhouettes of point clouds as DPC renders them (Insafutdinov & Dosovitskiy, NeurIPS 2018)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.kernels.splat import Backend, splat_silhouettes

Registration = Literal["pixel", "dpc"]

NEAR = 1e-3
"""Camera depth below which a point has no projection."""


class PointSilhouettes(NamedTuple):
    """What :func:`render_point_silhouettes` gives.

    Attributes:
        silhouette: ``(B, V, H, W)`` in [0, 1].
        inside: ``(B, V)`` fraction of the points that lie in the volume (the others are dropped); no gradient.
    """

    silhouette: Tensor
    inside: Tensor


def render_point_silhouettes(
    points: Tensor,
    cameras: Cameras,
    resolution: int = 64,
    sigma: float = 1.0,
    kernel_size: int = 11,
    scale: Tensor | None = None,
    registration: Registration = "pixel",
    pixel_scale: float | None = None,
    pixel_shift: float | None = None,
    backend: Backend = "auto",
) -> PointSilhouettes:
    """Differentiable silhouettes of point clouds: splat, blur, ray termination.

    The volume is DPC's: a cube whose x and y are the image's sides and whose z is the depth, of length 1 around the
    object's origin. Points outside of it are dropped, without a gradient.

    Args:
        points: ``(B, J, 3)`` in the object frame, or ``(B, V, J, 3)``, a cloud for each view. Half precision is
            computed in float32.
        cameras: ``(B, V)``.
        resolution: Voxels per side, and pixels.
        sigma: Standard deviation of the Gaussian, in voxels.
        kernel_size: Its taps along each axis, odd (DPC: 11, in its experiments 21).
        scale: ``(B,)`` factor of the blurred occupancy (DPC learns one in [0, 1]); None for 1.
        registration: ``pixel`` puts x in [-1, 1] at ``pixel_scale x + pixel_shift`` and the depth at cell centres;
            ``dpc`` at ``(x + 1) / 2 (resolution - 1)``, and the depth likewise, as DPC does: up to 2.4 % of the
            image off a sub-sampled mask.
        pixel_scale: Pixels per unit of x, as :class:`reconlab.losses.silhouettes.Reduced` gives for a reduced mask;
            ``resolution / 2`` if None.
        pixel_shift: Position of x = 0; ``(resolution - 1) / 2`` if None, so pixel centres.
        backend: As in :func:`reconlab.kernels.splat.splat_silhouettes`.

    Returns:
        The silhouettes, differentiable by the points and the scale, and the fraction of points in the volume.

    Raises:
        ReconlabError: Shapes do not fit, or a setting is out of range.

    Example:
        >>> from reconlab.cameras import dpc_cameras
        >>> cloud = 0.4 * (torch.rand(2, 500, 3) - 0.5)
        >>> images = render_point_silhouettes(cloud, dpc_cameras([[0.0, 90], [20, 40]], 10.0), 32)
        >>> images.silhouette.shape, images.inside.min().item()
        (torch.Size([2, 2, 32, 32]), 1.0)
    """
    if points.dim() == 3:
        points = points.unsqueeze(1)
    lead = tuple(cameras.shape)
    if points.dim() != 4 or points.shape[-1] != 3 or len(lead) != 2 or points.shape[0] != lead[0]:
        raise ReconlabError(
            "render_point_silhouettes() takes points (B, J, 3) or (B, V, J, 3) and cameras (B, V), "
            f"not {tuple(points.shape)} and {lead}."
        )
    if points.shape[1] not in (1, lead[1]) or points.shape[2] == 0:
        raise ReconlabError(
            f"render_point_silhouettes() takes a cloud of at least one point for each of {lead[1]} views, "
            f"not {tuple(points.shape[1:3])}."
        )
    if scale is not None and tuple(scale.shape) != lead[:1]:
        raise ReconlabError(
            f"render_point_silhouettes() takes a scale ({lead[0]},), one a cloud, not {tuple(scale.shape)}."
        )
    points = points.to(torch.promote_types(points.dtype, torch.float32))
    with torch.autocast(points.device.type, enabled=False):  # bfloat16 positions would be off by whole pixels
        position, inside = _voxel_position(points, cameras, resolution, registration, pixel_scale, pixel_shift)
        flat = None if scale is None else scale.unsqueeze(1).expand(lead).flatten()
        image = splat_silhouettes(position.flatten(0, 1), resolution, sigma, kernel_size, flat, backend=backend)
    return PointSilhouettes(image.unflatten(0, lead), inside)


def _voxel_position(
    points: Tensor,
    cameras: Cameras,
    resolution: int,
    registration: Registration,
    pixel_scale: float | None,
    pixel_shift: float | None,
) -> tuple[Tensor, Tensor]:
    """``(B, V, J, 3)`` positions in voxels, -2 for dropped points, and ``(B, V)`` the fraction that is not."""
    if (pixel_scale is None) != (pixel_shift is None):
        raise ReconlabError("render_point_silhouettes() takes pixel_scale and pixel_shift together, or neither.")
    if registration == "dpc":
        across, at, deep, start = (resolution - 1) / 2, (resolution - 1) / 2, resolution - 1.0, (resolution - 1) / 2
    elif registration == "pixel":
        across = resolution / 2 if pixel_scale is None else pixel_scale
        at = (resolution - 1) / 2 if pixel_shift is None else pixel_shift
        deep, start = float(resolution), (resolution - 1) / 2
    else:
        raise ReconlabError(f"DPC: registration is {registration!r}; expected 'pixel' or 'dpc'.")
    xy, depth = cameras.project(points)
    z = depth - cameras.t[..., 2:].to(depth.dtype)
    position = torch.cat([across * xy + at, (deep * z + start).unsqueeze(-1)], -1)
    with torch.no_grad():
        # Comparisons so that a coordinate that is not a number is kept: the image must show it.
        outside = (xy.abs() > 1).any(-1) | (z.abs() > 0.5) | (depth < NEAR)
        outside &= points.isfinite().all(-1)
        inside = (~outside).to(depth.dtype).mean(-1)
    return torch.where(outside.unsqueeze(-1), torch.full_like(position, -2.0), position), inside
