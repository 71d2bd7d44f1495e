"""DPC: rendered silhouettes of a point cloud against true ones (Insafutdinov & Dosovitskiy, NeurIPS 2018).

The constants are those of the authors' published code. ``docs/dpc.md`` says what was read how.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from reconlab.batch import Batch
from reconlab.cameras import Cameras
from reconlab.devices import send
from reconlab.errors import ReconlabError
from reconlab.losses.base import Loss
from reconlab.losses.silhouettes import Reduction, check_clouds_and_views, reduce_silhouettes
from reconlab.renderers.point_volume import Registration, render_point_silhouettes
from reconlab.shapes import PointCloud, Shape


class DPCTerms(NamedTuple):
    """The loss of each sample and view, ``(B, V)`` each.

    Attributes:
        error: Half the sum over pixels of the squared difference of the silhouettes.
        inside: Fraction of the points in the camera's volume (no gradient).
    """

    error: Tensor
    inside: Tensor


def dpc(
    points: Tensor,
    silhouettes: Tensor,
    cameras: Cameras,
    resolution: int = 64,
    sigma: float = 1.0,
    kernel_size: int = 11,
    scale: Tensor | None = None,
    keep: float = 1.0,
    registration: Registration = "pixel",
    reduction: Reduction = "subsample",
) -> DPCTerms:
    """DPC's silhouette error for each sample and view.

    Args:
        points: ``(B, J, 3)`` in the object frame; half precision is computed in float32.
        silhouettes: ``(B, V, H, H)`` in [0, 1].
        cameras: ``(B, V)``.
        resolution: Side of the volume and of the compared images; divides ``H``.
        sigma: Width of the blur, voxels.
        kernel_size: Its taps along each axis, odd.
        scale: ``(B,)`` factor of the occupancy, or None for 1.
        keep: Fraction of the points that each view sees: its own random subset without replacement, of the same
            size (at least 1) in all, drawn from torch's global generator.
        registration: See :func:`~reconlab.renderers.point_volume.render_point_silhouettes`.
        reduction: How silhouettes are reduced to ``resolution``.

    Returns:
        The terms, ``(B, V)``. A coordinate that is not finite makes its views' errors not finite.

    Raises:
        ReconlabError: Shapes do not fit, or a setting is out of range.
    """
    lead = check_clouds_and_views(points, silhouettes, cameras, "dpc()")
    truth = reduce_silhouettes(silhouettes.flatten(0, 1), resolution, reduction, "DPC")
    rendered = render_point_silhouettes(
        drop_points(points, lead[1], keep),
        cameras,
        resolution,
        sigma,
        kernel_size,
        scale,
        registration,
        truth.scale,
        truth.shift,
    )
    image = rendered.silhouette
    error = 0.5 * (image - truth.alpha.to(image).unflatten(0, lead)).square().sum((2, 3))
    return DPCTerms(error, rendered.inside)


def drop_points(points: Tensor, views: int, keep: float) -> Tensor:
    """Random subsets of ``max(1, ⌊keep J⌋)`` points, one for each sample and view.

    Args:
        points: ``(B, J, 3)``.
        views: V.
        keep: Fraction, in (0, 1].

    Returns:
        ``(B, V, n, 3)``, or ``(B, 1, J, 3)`` if all points are kept.

    Raises:
        ReconlabError: ``keep`` is not in (0, 1].
    """
    if not 0 < keep <= 1:
        raise ReconlabError(f"DPC: the fraction of points to keep is {keep}; expected one in (0, 1].")
    batch, total = points.shape[:2]
    count = max(1, int(keep * total))
    if count == total:
        return points.unsqueeze(1)
    # Drawn on the CPU, so that a seed means the same everywhere; the largest of uniform numbers are a fair subset.
    chosen = torch.rand(batch, views * total).unflatten(1, (views, total)).topk(count, sorted=False).indices
    index = send(chosen, points.device).flatten(1).unsqueeze(-1).expand(-1, -1, 3)
    return points.gather(1, index).unflatten(1, (views, count))


class DPC(Loss):
    """DPC on any shape that yields points, with its schedules over the whole run.

    The loss is the error above over samples and views. The published code adds a weight decay of 0.001 on all
    weights but biases: that is the optimiser's business here (``model.weight_decay``). A shape may carry
    ``occupancy_scale (B,)``, the factor that DPC's network learns; others are rendered with 1.

    Schedules are linear in steps taken over steps of the run, which :meth:`advance` tells; a loss that is never
    told stays at their beginning.

    Args:
        points: Points taken of the shape (a mesh is sampled; a smaller cloud is used whole).
        resolution: Side of the volume: 32, 64 or 128 in the paper (with 2000, 8000 and 16 000 points).
        sigma: Width of the blur in voxels, first and last.
        kernel_size: Taps of the blur along each axis, odd (the published code: 11, in its experiments 21).
        keep: Fraction of the points that each view sees, first and last.
        registration: ``pixel`` places points as the reduced mask's pixels lie; ``dpc`` as the published code,
            up to 2.4 % of the image off.
        reduction: ``subsample`` (the published code) or ``area``.

    Raises:
        ReconlabError: A setting is out of range.

    Example:
        >>> loss = DPC(resolution=32)
        >>> loss.advance(300, 600)
        >>> round(loss.sigma, 3), round(loss.keep, 3)
        (1.6, 0.535)
    """

    needs = frozenset({"views"})

    def __init__(
        self,
        points: int = 8000,
        resolution: int = 64,
        sigma: tuple[float, float] = (3.0, 0.2),
        kernel_size: int = 21,
        keep: tuple[float, float] = (0.07, 1.0),
        registration: Registration = "pixel",
        reduction: Reduction = "subsample",
    ) -> None:
        super().__init__()
        if points < 1:
            raise ReconlabError(f"DPC: points is {points}; expected at least 1.")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ReconlabError(f"DPC: kernel_size is {kernel_size}; expected an odd number.")
        if len(sigma) != 2 or not min(sigma) > 0:
            raise ReconlabError(f"DPC: sigma is {tuple(sigma)}; expected a positive first and last width.")
        if len(keep) != 2 or not (min(keep) > 0 and max(keep) <= 1):
            raise ReconlabError(f"DPC: keep is {tuple(keep)}; expected a first and last fraction in (0, 1].")
        if registration not in ("pixel", "dpc"):
            raise ReconlabError(f"DPC: registration is {registration!r}; expected 'pixel' or 'dpc'.")
        self.points, self.resolution, self.kernel_size = points, resolution, kernel_size
        self.sigmas, self.keeps = tuple(sigma), tuple(keep)
        self.registration, self.reduction = registration, reduction
        self.sigma, self.keep = self.sigmas[0], self.keeps[0]

    def advance(self, step: int, total: int) -> None:
        """Set blur and dropout to their values at this step."""
        progress = min(1.0, step / total) if total > 0 else 0.0
        self.sigma = self.sigmas[0] + progress * (self.sigmas[1] - self.sigmas[0])
        self.keep = self.keeps[0] + progress * (self.keeps[1] - self.keeps[0])

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``"loss"``, the schedules ``sigma`` and ``keep``, and ``inside``, the points in the cameras' volumes."""
        views = batch.require("views", "DPC")
        whole = isinstance(shape, PointCloud) and shape.positions.shape[1] <= self.points
        cloud = shape.points(None if whole else self.points)
        terms = dpc(
            cloud,
            views.silhouettes,
            views.cameras,
            self.resolution,
            self.sigma,
            self.kernel_size,
            getattr(shape, "occupancy_scale", None),
            self.keep,
            self.registration,
            self.reduction,
        )
        loss = terms.error.mean()
        return {
            "loss": loss,
            "sigma": torch.full_like(loss, self.sigma),
            "keep": torch.full_like(loss, self.keep),
            "inside": terms.inside.mean(),
        }

    def extra_repr(self) -> str:
        """The settings."""
        return (
            f"points={self.points}, resolution={self.resolution}, sigma={self.sigmas}, "
            f"kernel_size={self.kernel_size}, keep={self.keeps}, registration={self.registration!r}, "
            f"reduction={self.reduction!r}"
        )
