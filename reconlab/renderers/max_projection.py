"""The projection of Perspective Transformer Nets (Yan et al., NeurIPS 2016): the largest occupancy along each ray."""

from __future__ import annotations

from torch import Tensor

from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.renderers.voxel_rays import resample_voxels


def max_projection(
    values: Tensor,
    cameras: Cameras,
    resolution: int = 32,
    depths: int | None = None,
    extent: float = 1.0,
    scale: float | None = None,
    shift: float | None = None,
) -> Tensor:
    """Silhouettes of voxel grids: the maximum of trilinear samples along each ray.

    The gradient reaches only the (up to eight) cells around a ray's largest sample; equal largest samples share it.

    Args:
        values: ``(B, D, D, D)`` occupancy in [0, 1], indexed [x, y, z] over [-0.5, 0.5]³.
        cameras: ``(B, V)``, or ``(V,)`` shared.
        resolution: Pixels per side.
        depths: Samples per ray; the grid's own resolution if None, as in the paper.
        extent: Length of the sampled interval along the viewing axis, around the depth of the frame's origin.
        scale: Pixel positions are ``scale x + shift``, see :func:`~reconlab.renderers.voxel_rays.resample_voxels`.
        shift: See ``scale``.

    Returns:
        ``(B, V, resolution, resolution)``, differentiable by the values.

    Raises:
        ReconlabError: Shapes do not fit, the grid has no cell, or a size is not positive.

    Example:
        >>> import torch
        >>> from reconlab.cameras import dpc_cameras
        >>> max_projection(torch.full((1, 8, 8, 8), 0.3), dpc_cameras([0.0], [0.0]), 4)[0, 0, 1:3, 1:3]
        tensor([[0.3000, 0.3000],
                [0.3000, 0.3000]])
    """
    if values.dim() != 4 or values.numel() == 0:
        raise ReconlabError(
            f"max_projection() takes values (B, D, D, D) with at least one cell, not {tuple(values.shape)}."
        )
    if len(cameras.shape) == 1:
        cameras = cameras.expand(len(values), -1)
    depths = values.shape[-1] if depths is None else depths
    return resample_voxels(values, cameras, resolution, depths, extent, scale, shift).amax(2)
