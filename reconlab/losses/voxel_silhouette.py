"""DPC-V: silhouettes of occupancy grids by ray termination (the voxel baseline of Insafutdinov & Dosovitskiy 2018).

The authors' published code does not contain it; this is our reading, with the point loss' volume, ray product and
squared error on a grid that each camera re-samples. See ``docs/dpc.md``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reconlab.batch import Batch
from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.losses.base import Loss
from reconlab.losses.silhouettes import Reduction, reduce_silhouettes
from reconlab.renderers.ray_termination import ray_silhouettes
from reconlab.renderers.voxel_rays import resample_voxels
from reconlab.shapes import Shape


def voxel_silhouette(
    values: Tensor,
    silhouettes: Tensor,
    cameras: Cameras,
    resolution: int = 32,
    depths: int | None = None,
    reduction: Reduction = "subsample",
) -> Tensor:
    """Half the sum over pixels of the squared difference between rendered and true silhouettes.

    A pixel's silhouette is ``1 - Π_k (1 - o_k)`` over the occupancies that its ray meets at K equal steps of depth,
    over a length of 1 around the object's origin (:func:`~reconlab.renderers.voxel_rays.resample_voxels`).

    Args:
        values: ``(B, D, D, D)`` occupancy in [0, 1], indexed [x, y, z].
        silhouettes: ``(B, V, H, H)`` in [0, 1].
        cameras: ``(B, V)``.
        resolution: Side of the compared images; divides ``H``.
        depths: K; ``resolution`` if None. The silhouette of a half-empty grid depends on it.
        reduction: How silhouettes are reduced to ``resolution``.

    Returns:
        ``(B, V)``, differentiable by the values.

    Raises:
        ReconlabError: Shapes do not fit, or a setting is out of range.
    """
    lead = tuple(silhouettes.shape[:2])
    if values.dim() != 4 or silhouettes.dim() != 4 or lead[0] != values.shape[0] or tuple(cameras.shape) != lead:
        raise ReconlabError(
            f"voxel_silhouette() takes grids (B, D, D, D), silhouettes (B, V, H, H) and cameras (B, V), "
            f"not {tuple(values.shape)}, {tuple(silhouettes.shape)} and {tuple(cameras.shape)}."
        )
    truth = reduce_silhouettes(silhouettes.flatten(0, 1), resolution, reduction, "VoxelSilhouette")
    seen = resample_voxels(values, cameras, resolution, depths, scale=truth.scale, shift=truth.shift)
    image = ray_silhouettes(seen, dim=2)
    return 0.5 * (image - truth.alpha.to(image).unflatten(0, lead)).square().sum((2, 3))


class VoxelSilhouette(Loss):
    """DPC-V's loss on any shape whose voxels are differentiable: the mean error over samples and views.

    Args:
        resolution: Side of the compared images.
        grid: D, cells per side asked of the shape; ``resolution`` if None.
        depths: Samples along a ray; ``resolution`` if None.
        reduction: ``subsample`` (as the published point loss) or ``area``.

    Raises:
        ReconlabError: A setting is out of range, or (in training) the shape's voxels have no gradient.
    """

    needs = frozenset({"views"})

    def __init__(
        self,
        resolution: int = 32,
        grid: int | None = None,
        depths: int | None = None,
        reduction: Reduction = "subsample",
    ) -> None:
        super().__init__()
        self.grid = resolution if grid is None else grid
        self.depths = resolution if depths is None else depths
        for name, value in (("resolution", resolution), ("grid", self.grid), ("depths", self.depths)):
            if value < 1:
                raise ReconlabError(f"VoxelSilhouette: {name} is {value}; expected at least 1.")
        self.resolution, self.reduction = resolution, reduction

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``"loss"`` and ``occupancy``, the grids' mean value."""
        views = batch.require("views", "VoxelSilhouette")
        values = shape.voxels(self.grid).values
        if self.training and torch.is_grad_enabled() and not values.requires_grad:
            raise ReconlabError(
                f"VoxelSilhouette: the voxels of {type(shape).__name__} have no gradient; train a network that "
                "returns a VoxelGrid, or put the loss into evaluation mode."
            )
        error = voxel_silhouette(
            values, views.silhouettes, views.cameras, self.resolution, self.depths, self.reduction
        )
        return {"loss": error.mean(), "occupancy": values.detach().mean()}

    def extra_repr(self) -> str:
        """The settings."""
        return f"resolution={self.resolution}, grid={self.grid}, depths={self.depths}, reduction={self.reduction!r}"
