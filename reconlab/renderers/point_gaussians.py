"""Silhouettes of point clouds by CAPNet's continuous approximation (Navaneet et al., AAAI 2019).

Every projected point spreads a two-dimensional Gaussian of variance 0.5 square pixels; a pixel's value is the
hyperbolic tangent of their sum: ``S(q) = tanh Σ_j exp(-|q - p_j|² / 2σ²)``. Any number of points in a pixel gives
at most 1, and a point draws on pixels around it, so that it feels a silhouette a few pixels away.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.kernels.point_gaussians import Backend, point_gaussians

VARIANCE = 0.5
"""CAPNet's σ², square pixels of its 64-pixel image."""

NEAR = 1e-3
"""Camera depth below which a point is not drawn."""


def render_point_gaussians(
    points: Tensor,
    cameras: Cameras,
    size: int = 64,
    variance: float = VARIANCE,
    *,
    scale: float | None = None,
    shift: float | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Soft silhouettes of clouds in every view. Differentiable by the points.

    Args:
        points: ``(B, J, 3)`` in the object frame; half precision is computed in float32.
        cameras: ``(B, V)``.
        size: Pixels a side.
        variance: Of the Gaussians, in square pixels of this image.
        scale: Pixels per unit of the normalised position: a point at x is at pixel ``scale · x + shift``; None
            is ``size / 2``, pixel centres as everywhere in reconlab.
        shift: Pixel position of the image's centre; None is ``(size - 1) / 2``.
        backend: See :func:`~reconlab.kernels.point_gaussians.point_gaussians`.

    Returns:
        ``(B, V, size, size)`` in [0, 1]. A point at or behind a camera's plane is not drawn in its view and gets
        no gradient from it; a NaN position makes its sample's images NaN.

    Raises:
        ReconlabError: The shapes do not fit, or a setting is out of range.

    Example:
        >>> from reconlab.cameras import dpc_cameras
        >>> image = render_point_gaussians(torch.zeros(1, 1, 3), dpc_cameras(0.0, 0.0).reshape(1, 1), 3)
        >>> image[0, 0, 1]  # tanh of exp(-1), 1, exp(-1)
        tensor([0.3521, 0.7616, 0.3521])
    """
    lead = tuple(cameras.shape)
    if points.dim() != 3 or points.shape[-1] != 3 or len(lead) != 2 or lead[0] != points.shape[0]:
        raise ReconlabError(
            f"render_point_gaussians() takes points (B, J, 3) and cameras (B, V), "
            f"not {tuple(points.shape)} and {lead}."
        )
    points = points.to(torch.promote_types(points.dtype, torch.float32))
    with torch.autocast(points.device.type, enabled=False):  # bfloat16 positions would be off by whole pixels
        xy, depth = cameras.project(points.unsqueeze(1))
        scale = size / 2 if scale is None else scale
        shift = (size - 1) / 2 if shift is None else shift
        pixel = xy * scale + shift
        # Far off the image the Gaussian is 0; a NaN depth compares false and stays NaN.
        pixel = torch.where((depth <= NEAR).unsqueeze(-1), torch.full_like(pixel, -1e4), pixel)
        return point_gaussians(pixel.flatten(0, 1), size, variance, backend=backend).tanh().unflatten(0, lead)
