"""The loss of Perspective Transformer Nets (Yan et al., NeurIPS 2016): squared differences of silhouettes."""

from __future__ import annotations

from torch import Tensor

from reconlab.batch import Batch
from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.losses.base import Loss
from reconlab.losses.occupancy import occupancy
from reconlab.losses.silhouettes import Reduction, reduce_silhouettes
from reconlab.renderers.max_projection import max_projection
from reconlab.shapes import Shape


def ptn(
    grid: Tensor,
    silhouettes: Tensor,
    cameras: Cameras,
    resolution: int = 32,
    reduction: Reduction = "area",
    depths: int | None = None,
    extent: float = 1.0,
) -> Tensor:
    """Half the sum over pixels of the squared difference between projected and true silhouettes.

    Args:
        grid: ``(B, D, D, D)`` occupancy in [0, 1], indexed [x, y, z] over [-0.5, 0.5]³.
        silhouettes: ``(B, V, H, H)`` in [0, 1].
        cameras: ``(B, V)``.
        resolution: Side at which they are compared; divides ``H``.
        reduction: How silhouettes are reduced to it; the projection's pixels lie where the reduced ones do.
        depths: Samples along each ray; the grid's resolution if None.
        extent: Length of the sampled interval, see :func:`reconlab.renderers.max_projection.max_projection`.

    Returns:
        ``(B, V)``.

    Raises:
        ReconlabError: Shapes do not fit.
    """
    lead = tuple(silhouettes.shape[:2])
    if silhouettes.dim() != 4 or lead[0] != len(grid) or tuple(cameras.shape) != lead:
        raise ReconlabError(
            f"ptn() takes silhouettes (B, V, H, H) and cameras (B, V) for {len(grid)} grids, "
            f"not {tuple(silhouettes.shape)} and {tuple(cameras.shape)}."
        )
    true = reduce_silhouettes(silhouettes.flatten(0, 1), resolution, reduction, "PTN")
    ours = max_projection(grid, cameras, resolution, depths, extent, true.scale, true.shift)
    return (ours - true.alpha.unflatten(0, lead)).square().sum((-2, -1)) / 2


class PTN(Loss):
    """PTN's loss on any shape that yields voxels differentiably (grids, implicit fields).

    Departures: the true silhouettes are the data's (there: projections of the true voxels, and 24 of them from
    PTN's own cameras); those of the batch are used, however many.

    Args:
        resolution: Side at which silhouettes are compared, and cells along each axis of the grid.
        reduction: ``area`` (not cut at a threshold) or ``subsample``.
        depths: Samples along each ray; ``resolution`` if None.
        extent: Length of the sampled interval around the object's centre; 1 as in the paper.

    Raises:
        ReconlabError: A setting is out of range.
    """

    needs = frozenset({"views"})

    def __init__(
        self, resolution: int = 32, reduction: Reduction = "area", depths: int | None = None, extent: float = 1.0
    ) -> None:
        super().__init__()
        if resolution < 2:
            raise ReconlabError(f"PTN: resolution is {resolution}; expected at least 2.")
        if depths is not None and depths < 1:
            raise ReconlabError(f"PTN: depths is {depths}; expected at least 1.")
        if not extent > 0:
            raise ReconlabError(f"PTN: extent is {extent}; expected a positive length.")
        if reduction not in ("area", "subsample"):
            raise ReconlabError(f"PTN: reduction is {reduction!r}; expected 'subsample' or 'area'.")
        self.resolution, self.reduction, self.depths, self.extent = resolution, reduction, depths, extent

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``"loss"``, the mean over samples and views, and ``per_pixel``, the mean squared difference of a pixel."""
        views = batch.require("views", "PTN")
        grid = occupancy(shape, self.resolution, len(views.silhouettes), "PTN")
        loss = ptn(
            grid, views.silhouettes, views.cameras, self.resolution, self.reduction, self.depths, self.extent
        ).mean()
        return {"loss": loss, "per_pixel": loss.detach() * 2 / self.resolution**2}

    def extra_repr(self) -> str:
        """The settings."""
        return (
            f"resolution={self.resolution}, reduction={self.reduction!r}, depths={self.depths}, extent={self.extent}"
        )
