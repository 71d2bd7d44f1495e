"""The Shape Generator's loss (SoftRas, Liu et al., ICCV 2019): two views' meshes, each against both silhouettes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from reconlab.batch import Batch, Views
from reconlab.errors import ReconlabError
from reconlab.losses.silhouette_iou import silhouette_iou
from reconlab.losses.view_images import Renderer
from reconlab.losses.view_loss import ViewLoss
from reconlab.shapes import Mesh, Shape

VIEWS = 2


class CrossSilhouetteIoU(ViewLoss):
    """Mean of the silhouette losses A→A, A→B, B→A and B→B of the dataset's first two views A and B.

    ``X→Y`` is one minus the soft intersection over union of the mesh made of view X, rendered by the camera of view
    Y, and the dataset's silhouette of view Y. The mesh of view B travels as the shape's attribute ``second``
    (:class:`reconlab.networks.shape_generator.PairedMesh`); of a shape without it (any mesh network) only A→A and
    A→B count. The released code sums the same four terms and divides by 4.

    Args:
        image_size: Pixels a side of the renderings; the dataset's silhouettes are resampled (area).
        sigma: Softness of the rasteriser's outline.
        sigma_milestones: Fractions of the run at which sigma is multiplied by ``sigma_decay``; the paper's
            is 150 000 of 250 000 steps, where its learning rate falls likewise.
        sigma_decay: See there.
        views_per_chunk: Views rendered at once, the rest recomputed in the backward pass; None: all.
        renderer: ``softras`` (the released code), ``nmr`` or ``dibr``; sigma is DIB-R's δ, and NMR has none.

    Raises:
        ReconlabError: A setting out of range.
    """

    def __init__(
        self,
        image_size: int = 64,
        sigma: float = 1e-4,
        sigma_milestones: Sequence[float] = (0.6,),
        sigma_decay: float = 0.3,
        views_per_chunk: int | None = None,
        renderer: Renderer = "softras",
    ) -> None:
        super().__init__(
            "silhouette",
            "views",
            None,
            image_size,
            sigma,
            views_per_chunk=views_per_chunk,
            cache_bytes=0,
            renderer=renderer,
        )
        if any(not 0 <= m <= 1 for m in sigma_milestones) or sigma_decay <= 0 or sigma <= 0:
            raise ReconlabError(
                "CrossSilhouetteIoU needs sigma and sigma_decay above 0 and sigma_milestones in [0, 1], not "
                f"{sigma}, {sigma_decay} and {list(sigma_milestones)}."
            )
        self.sigma, self.sigma_decay = sigma, sigma_decay
        self.sigma_milestones = tuple(sigma_milestones)

    def advance(self, step: int, total: int) -> None:
        """Move sigma's schedule; a run without an end (``total`` 0) keeps the first value."""
        super().advance(step, total)
        passed = sum(step >= m * total for m in self.sigma_milestones) if total > 0 else 0
        self.render = replace(self.render, sigma=self.sigma * self.sigma_decay**passed)

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``loss``; and ``first``, ``second`` (detached): the means over the terms of each mesh."""
        views: Views = batch.require("views", type(self).__name__)
        pair = Views(views.cameras[:, :VIEWS], views.silhouettes[:, :VIEWS])
        second: Mesh | None = getattr(shape, "second", None)
        if second is not None and pair.cameras.shape[1] < VIEWS:
            raise ReconlabError("CrossSilhouetteIoU compares two views of each object: set data.views to 2 or more.")
        batch = replace(batch, views=pair)
        first = self.per_view(shape.mesh(), batch).mean()
        if second is None:
            return {"loss": first}
        other = self.per_view(second.mesh(), batch).mean()
        return {"loss": (first + other) / 2, "first": first.detach(), "second": other.detach()}

    def compare(self, images: Tensor, target: Tensor) -> Tensor:
        """:func:`reconlab.losses.silhouette_iou.silhouette_iou`."""
        return silhouette_iou(images, target)
