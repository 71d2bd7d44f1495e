"""Point clouds to silhouettes through a smoothed occupancy volume (DPC's renderer), with gradients."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.kernels.splat import reference

__all__ = ["splat_silhouettes"]

Backend = Literal["auto", "reference", "cpu"]


def splat_silhouettes(
    position: Tensor,
    resolution: int,
    sigma: float,
    kernel_size: int = 21,
    scale: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> Tensor:
    r"""Silhouettes of points in a volume whose z axis is the viewing direction.

    Points are added into a V³ grid with trilinear weights and clipped to [0, 1]; the grid is blurred by a
    separable Gaussian of unit sum, zeros outside; times ``scale``, clipped to [0, 1] it is the occupancy o. With o
    clipped to [1e-5, 1 - 1e-5] the silhouette is ``1 - Π_z (1 - o)``. Gradients pass a clip where it does nothing.

    Args:
        position: ``(M, J, 3)`` positions (x, y, z) in voxels, 0 at the first centre. Corners of a point's cell
            that lie outside of the grid are dropped, so a point beyond -1 or V takes no part.
        resolution: V, voxels per side.
        sigma: Standard deviation of the blur in voxels, positive.
        kernel_size: Taps of the blur along each axis, odd.
        scale: ``(M,)`` factor of each image's occupancy, 0 or more; None for 1.
        backend: ``auto`` takes the fused kernel for float32 on the CPU, torch otherwise; ``reference`` and ``cpu``
            force one.

    Returns:
        ``(M, V, V)`` in [0, 1] indexed [y, x], differentiable once by positions and scale. An image with a position
        or a scale that is not finite is NaN.

    Raises:
        ReconlabError: Shapes do not fit, or a setting is out of range.

    Example:
        >>> point = torch.tensor([[[4.0, 2.0, 3.0]]])
        >>> image = splat_silhouettes(point, 8, sigma=0.1, kernel_size=3)
        >>> image[0, 2, 4].item() > 0.999, image[0, 4, 2].item() < 0.001
        (True, True)
    """
    if position.dim() != 3 or position.shape[-1] != 3:
        raise ReconlabError(f"splat_silhouettes() takes positions (M, J, 3), not {tuple(position.shape)}.")
    if scale is not None and scale.shape != position.shape[:1]:
        raise ReconlabError(
            f"splat_silhouettes() takes a scale of shape ({len(position)},), one an image, not {tuple(scale.shape)}."
        )
    if resolution < 1 or not sigma > 0 or kernel_size < 1 or kernel_size % 2 == 0:
        raise ReconlabError(
            "splat_silhouettes() takes a positive resolution and sigma and an odd kernel_size, "
            f"not {resolution}, {sigma}, {kernel_size}."
        )
    if backend not in ("auto", "reference", "cpu"):
        raise ReconlabError(f"splat_silhouettes() has the backends auto, cpu and reference, not {backend!r}.")
    kind = torch.promote_types(position.dtype, torch.float32)
    if scale is not None:
        kind = torch.promote_types(kind, scale.dtype)
        scale = scale.to(kind)
    position = position.to(kind)
    with torch.autocast(position.device.type, enabled=False):
        return reference.silhouettes(position, resolution, float(sigma), kernel_size, scale)
