"""DRWR: a point cloud against silhouettes without rendering (Han et al., ICML 2020).

Each projected point is pulled into the silhouette by a smooth field (Eqs. 2-4) and pushed away from the other
projections inside it (Eqs. 5 and 6). The paper leaves units and sums open, and its literal formula empties the
silhouette; ``docs/drwr.md`` gives the reading that works and why.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from reconlab.batch import Batch
from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.kernels.pairwise import pairwise_repulsion
from reconlab.losses.base import Loss
from reconlab.losses.drwr_field import (
    FieldKind,
    Fields,
    sample_bilinear,
    sample_corners,
    silhouette_fields,
)
from reconlab.losses.silhouettes import Reduction, check_clouds_and_views
from reconlab.shapes import PointCloud, Shape

UNITS_PER_SIDE = 32.0
"""Pair distances are measured in 1/32 of the image side: pixels at the paper's first resolution."""

AREA_REFERENCE = 0.082
"""Foreground fraction at which ``area_scaled`` leaves β as it is."""

NEAR = 1e-3
"""Camera depth below which a point has no projection."""


@dataclass(frozen=True)
class Reading:
    """One reading of Eqs. 2-6; the defaults are this project's.

    Attributes:
        beta: Weight of the repulsion.
        area_scaled: Multiply ``beta`` by each view's foreground fraction over :data:`AREA_REFERENCE`, since a
            mean over j' makes the repulsion grow as one over the foreground's area.
        field: The field of the unary term, see :func:`~reconlab.losses.drwr_field.silhouette_fields`.
        off_image: Outside the outermost pixel centres the field is that of the closest one; ``distance`` adds
            the distance to it, in image sides, so that the slope goes on; ``clip`` adds nothing (no gradient).
        unary: Include l1.
        pairwise: Include l2.
        omega: Weight the repulsion by the mask at both points (else by 1).
        delta: Use the boundary bias (else 0).
        detach_weights: No gradient through ω and δ, which are weights in the text.
        bias: Constant added to δ.
        sigma: Decay, in 1/32 of the image side (squared for ``squared``).
        sigma_shrinks: Divide ``sigma`` by resolution / 32, as the published code does.
        squared: Squared distances between projections.
        pair_mean: Mean over j' (else the sum).
        scales: R, the number of scales of δ.
    """

    beta: float = 1.0
    area_scaled: bool = False
    field: FieldKind = "normalised"
    off_image: Literal["distance", "clip"] = "distance"
    unary: bool = True
    pairwise: bool = True
    omega: bool = True
    delta: bool = True
    detach_weights: bool = True
    bias: float = 0.0
    sigma: float = 1.0
    sigma_shrinks: bool = False
    squared: bool = False
    pair_mean: bool = True
    scales: int = 5


PRESETS: dict[str, Reading] = {
    "reconlab": Reading(),
    # Eqs. 3-6 to the letter: distances over the resolution (so in image sides), a sum over j', beta 3.
    "paper": Reading(beta=3.0, field="literal", detach_weights=False, sigma=UNITS_PER_SIDE, pair_mean=False),
    # The published code: squared pixel distance / (V / 32) / 5, exponent 3.5 + delta, clipped coordinates.
    "released": Reading(
        beta=3.0,
        field="released",
        off_image="clip",
        detach_weights=False,
        bias=3.5,
        sigma=5.0,
        sigma_shrinks=True,
        squared=True,
    ),
}


class DRWRTerms(NamedTuple):
    """The loss of each sample and view, ``(B, V)`` each.

    Attributes:
        l1: Mean over the points of ``|1 - v(p)|`` (and the distance outside the image).
        l2: Mean over j of Eq. 5.
        beta: The weight of ``l2`` in that view.
        inside: Fraction of the points whose projection is in the foreground (no gradient).
        usable: False where the silhouette is empty or full: l1 and l2 are 0 there.
    """

    l1: Tensor
    l2: Tensor
    beta: Tensor
    inside: Tensor
    usable: Tensor

    def total(self) -> Tensor:
        """``(B,)`` Eq. 6: mean over the usable views of ``l1 + β l2`` (0 if there is none)."""
        loss = self.l1 + self.beta * self.l2
        return loss.sum(1) / self.usable.sum(1).clamp_min(1)


def drwr(
    points: Tensor,
    silhouettes: Tensor,
    cameras: Cameras,
    resolution: int = 64,
    reduction: Reduction = "subsample",
    reading: Reading = PRESETS["reconlab"],
) -> DRWRTerms:
    """The two terms of DRWR for each sample and view.

    Args:
        points: ``(B, J, 3)`` in the object frame; half precision is computed in float32.
        silhouettes: ``(B, V, H, H)`` in [0, 1].
        cameras: ``(B, V)``, which need not know the silhouettes' size.
        resolution: Side of the grid on which field, ω and δ live; divides ``H``.
        reduction: How silhouettes are reduced to it.
        reading: The reading of the formula.

    Returns:
        The terms, ``(B, V)``. A point at or behind a camera's plane counts as far outside that view's image,
        without a gradient from it.

    Raises:
        ReconlabError: Shapes do not fit, or a setting is not one of those offered.
    """
    lead = check_clouds_and_views(points, silhouettes, cameras, "drwr()")
    if reading.off_image not in ("distance", "clip"):
        raise ReconlabError(f"DRWR: off_image is {reading.off_image!r}; expected 'distance' or 'clip'.")
    maps = silhouette_fields(silhouettes.flatten(0, 1), resolution, reduction, reading.field, reading.scales)
    points = points.to(torch.promote_types(points.dtype, torch.float32))
    with torch.autocast(points.device.type, enabled=False):  # bfloat16 positions would be off by whole pixels
        xy, depth = cameras.project(points.unsqueeze(1))
    front = (depth > NEAR) & torch.isfinite(depth)
    behind = torch.isfinite(depth) & ~front
    xy = torch.where(behind.unsqueeze(-1), torch.full_like(xy, 2.0), xy).flatten(0, 1)
    usable = maps.usable.to(xy.dtype)
    pixel = maps.pixel(xy)
    nearest = pixel.clamp(0, resolution - 1)
    image = (xy.detach().abs() <= 1).all(-1).to(xy.dtype)

    unary = xy.new_zeros(len(xy))
    if reading.unary:
        error = (1 - sample_bilinear(maps.smooth.to(xy.dtype), nearest)).abs()
        if reading.off_image == "distance":
            error = error + _length(pixel - nearest) / (2 * maps.scale)
        unary = error.mean(1) * usable

    with torch.set_grad_enabled(torch.is_grad_enabled() and not reading.detach_weights):
        at = nearest if not reading.detach_weights else nearest.detach()
        omega = sample_bilinear(maps.mask.to(xy.dtype), at) * image
    pair = xy.new_zeros(len(xy))
    if reading.pairwise:
        pair = _repulsion(xy, at, omega, maps, resolution, reading) * usable
    beta = torch.full_like(pair, reading.beta)
    if reading.area_scaled:
        beta = beta * maps.area.to(beta.dtype) / AREA_REFERENCE
    inside = (omega.detach() > 0.5).to(xy.dtype).mean(1)
    unary, pair, beta, inside = (x.unflatten(0, lead) for x in (unary, pair, beta, inside))
    return DRWRTerms(unary, pair, beta, inside, maps.usable.unflatten(0, lead))


def _repulsion(xy: Tensor, at: Tensor, omega: Tensor, maps: Fields, resolution: int, reading: Reading) -> Tensor:
    """``(M,)`` mean over j of Eq. 5; ``at`` are the clamped pixel positions, detached or not."""
    count = xy.shape[1]
    with torch.set_grad_enabled(torch.is_grad_enabled() and not reading.detach_weights):
        weights = omega if reading.omega else torch.ones_like(omega)
        delta = torch.full_like(omega, reading.bias)
        if reading.delta:
            delta = delta + sample_corners(maps.corners.to(xy.dtype), at)
    # Views that are skipped take no part: weight 0 costs nothing in the kernel.
    weights = weights * maps.usable.to(xy.dtype).unsqueeze(1)
    position = 0.5 * UNITS_PER_SIDE * xy
    sigma = reading.sigma * (32.0 / resolution if reading.sigma_shrinks else 1.0)
    value = pairwise_repulsion(position, weights, delta, sigma=sigma, squared=reading.squared)
    return value / (count * count if reading.pair_mean else count)


def _length(vector: Tensor) -> Tensor:
    """Euclidean length with gradient 0 at 0."""
    square = vector.square().sum(-1)
    apart = square > 0
    root = torch.where(apart, square, torch.ones_like(square)).sqrt()
    return torch.where(apart, root, square)


class DRWR(Loss):
    """DRWR on any shape that yields points.

    Arguments that are None take the preset's value; see :class:`Reading` for what each means.

    Args:
        points: Points taken of the shape (a mesh is sampled; a smaller cloud is used whole).
        resolution: Side of the silhouettes as the loss sees them: 32, 64 or 128 in the paper.
        preset: ``reconlab``, ``paper`` (literal; it does not converge) or ``released`` (the published code's
            constants).
        reduction: ``subsample`` or ``area``.
        beta: Weight of the repulsion; 0.6 was best for airplanes, 1.5 for chairs and cars (results/drwr.md).
        area_scaled: Scale ``beta`` by each view's foreground area.
        field: Field of the unary term.
        off_image: Treatment of projections outside the image.
        unary: Include l1.
        pairwise: Include l2.
        omega: Weight by the mask.
        delta: Use the boundary bias.
        detach_weights: Stop the gradient at ω and δ.
        sigma: Decay length of the repulsion, in 1/32 of the image side.

    Raises:
        ReconlabError: A setting is out of range.
    """

    needs = frozenset({"views"})

    def __init__(
        self,
        points: int = 2000,
        resolution: int = 64,
        preset: Literal["reconlab", "paper", "released"] = "reconlab",
        reduction: Reduction = "subsample",
        beta: float | None = None,
        area_scaled: bool | None = None,
        field: FieldKind | None = None,
        off_image: Literal["distance", "clip"] | None = None,
        unary: bool | None = None,
        pairwise: bool | None = None,
        omega: bool | None = None,
        delta: bool | None = None,
        detach_weights: bool | None = None,
        sigma: float | None = None,
    ) -> None:
        super().__init__()
        if preset not in PRESETS:
            raise ReconlabError(f"DRWR: preset is {preset!r}; expected one of {', '.join(PRESETS)}.")
        if points < 1:
            raise ReconlabError(f"DRWR: points is {points}; expected at least 1.")
        given: dict[str, Any] = {
            "beta": beta,
            "area_scaled": area_scaled,
            "field": field,
            "off_image": off_image,
            "unary": unary,
            "pairwise": pairwise,
            "omega": omega,
            "delta": delta,
            "detach_weights": detach_weights,
            "sigma": sigma,
        }
        self.reading = replace(PRESETS[preset], **{k: v for k, v in given.items() if v is not None})
        if self.reading.beta < 0:
            raise ReconlabError(f"DRWR: beta is {self.reading.beta}; expected 0 or more.")
        if not self.reading.sigma > 0:
            raise ReconlabError(f"DRWR: sigma is {self.reading.sigma}; expected more than 0.")
        if not (self.reading.unary or self.reading.pairwise):
            raise ReconlabError("DRWR: unary and pairwise are both off; leave one on.")
        self.points, self.resolution, self.reduction = points, resolution, reduction

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``"loss"``, the means ``l1`` and ``l2`` (before β) and ``inside``, the fraction of projections inside."""
        views = batch.require("views", "DRWR")
        whole = isinstance(shape, PointCloud) and shape.positions.shape[1] <= self.points
        cloud = shape.points(None if whole else self.points)
        terms = drwr(cloud, views.silhouettes, views.cameras, self.resolution, self.reduction, self.reading)
        return {
            "loss": terms.total().mean(),
            "l1": terms.l1.detach().mean(),
            "l2": terms.l2.detach().mean(),
            "inside": terms.inside.mean(),
        }

    def extra_repr(self) -> str:
        """The settings in force."""
        reading = ", ".join(f"{f.name}={getattr(self.reading, f.name)!r}" for f in fields(self.reading))
        return f"points={self.points}, resolution={self.resolution}, reduction={self.reduction!r}, {reading}"
