"""CAP: silhouettes of a point cloud by Gaussians, cross-entropy and affinity (CAPNet, Navaneet et al., AAAI 2019).

With P the predicted and T the true silhouette of a view (``V × V`` pixels, distances in pixels):

- cross-entropy: mean over pixels of ``-T log(P + ε) - (1 - T) log(1 - P + ε)``, ε = 1e-8;
- affinity: ``T → P``: mean over pixels i of ``T_i min_j (|i - j| + 1) g(P_j)`` and ``P → T``: mean over i of
  ``P_i min_j (|i - j| + 1) g(T_j)``, with the gate ``g(a) = a + (1 - a) 1e6``, each weighted by 1e-4.

What carries gradient. ``P → T``: T is binary, so its minimum is one plus the distance to the nearest true
pixel (0 inside), a constant: the term is a distance-weighted sum of the prediction, linear in P. ``T → P``: the
gate is not a threshold but linear, and 1e6 (1 - P_j) outweighs any distance unless P_j is within some 1e-4 of 1.
The minimum therefore chooses a well-covered pixel near i, and the gradient is that of P at the chosen pixel alone:
it is pulled up with the force 100 (|i - j| + 1). It vanishes as P_j saturates; then the value is the distance, which
cannot be differentiated (a distance transform: no gradient by position). So the affinity terms fill in and
sharpen what is drawn; points are moved by the cross-entropy, over 4 pixels.

The published code (github.com/val-iisc/capnet) is followed but for: it adds 1 to its table of distances anew at each
view (so ``+ 1`` to ``+ 4``); its cross-entropy uses ``log|1 - P - ε|``, which has a pole at ``P = 1 - ε``; its
image centre is pixel 32, not 31.5; its four views are always the first four. All four are not followed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from reconlab.batch import Batch
from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.kernels.gated_nearest import gated_nearest
from reconlab.losses.base import Loss
from reconlab.losses.silhouettes import Reduction, check_clouds_and_views, reduce_silhouettes
from reconlab.renderers.point_gaussians import VARIANCE, render_point_gaussians
from reconlab.shapes import PointCloud, Shape
from reconlab.threads import parallel_map

EPSILON = 1e-8
GATE = 1e6


class CAPTerms(NamedTuple):
    """The terms of each sample and view, ``(B, V)`` each.

    Attributes:
        cross_entropy: Mean over pixels, at most 18.4.
        covering: ``T → P``, in pixels (up to the gate), mean over all pixels.
        straying: ``P → T``, likewise.
        overlap: Intersection over union of ``P > 0.5`` and T, no gradient; 1 where both are empty.
    """

    cross_entropy: Tensor
    covering: Tensor
    straying: Tensor
    overlap: Tensor


def cap(
    points: Tensor,
    silhouettes: Tensor,
    cameras: Cameras,
    resolution: int = 64,
    reduction: Reduction = "subsample",
    variance: float = VARIANCE,
) -> CAPTerms:
    """CAPNet's terms for each sample and view.

    Args:
        points: ``(B, J, 3)`` in the object frame.
        silhouettes: ``(B, V, H, H)`` in [0, 1]; reduced, then cut at 0.5 as in the published code.
        cameras: ``(B, V)``.
        resolution: Pixels a side of the images compared; divides ``H``.
        reduction: How silhouettes are reduced to it.
        variance: Of the Gaussians, square pixels of this resolution.

    Returns:
        The terms. Where the true silhouette is empty, both affinities are 0 (there is no pixel to be near to) and
        the cross-entropy drives the points out; where it is full, ``P → T`` is the mean of P. Points behind a camera
        are not drawn there; a NaN position makes its sample's terms NaN.

    Raises:
        ReconlabError: Shapes do not fit, or a setting is not one of those offered.
    """
    lead = check_clouds_and_views(points, silhouettes, cameras, "cap()")
    truth = reduce_silhouettes(silhouettes.flatten(0, 1), resolution, reduction, "CAP")
    drawn = render_point_gaussians(
        points, cameras, resolution, variance, scale=truth.scale, shift=truth.shift
    ).flatten(0, 1)
    terms = silhouette_terms(drawn, truth.alpha > 0.5)
    return CAPTerms(*(x.unflatten(0, lead) for x in terms))


def silhouette_terms(drawn: Tensor, mask: Tensor) -> CAPTerms:
    """The terms ``(M,)`` of images ``drawn (M, V, V)`` in [0, 1] against a bool ``mask`` of their shape."""
    true = mask.to(drawn.dtype)
    entropy = -torch.where(mask, drawn + EPSILON, 1 - drawn + EPSILON).log()
    usable = mask.flatten(1).any(1)
    gate = drawn + (1 - drawn) * GATE
    chosen = gated_nearest(gate.detach(), mask)
    index = chosen.clamp_min(0).flatten(1)
    covering = (_distance(chosen) + 1) * gate.flatten(1).gather(1, index).view_as(gate)
    straying = drawn * (_distance_to(mask).to(drawn.dtype) + 1) * usable[:, None, None]
    found = drawn.detach() > 0.5
    union = (found | mask).sum((1, 2))
    overlap = torch.where(union > 0, (found & mask).sum((1, 2)) / union.clamp_min(1), 1.0)
    return CAPTerms(
        entropy.mean((1, 2)),
        torch.where(mask, covering, torch.zeros_like(covering)).mean((1, 2)),
        straying.mean((1, 2)),
        overlap.to(true.dtype),
    )


def _distance(chosen: Tensor) -> Tensor:
    """Pixels from each pixel to the one with the given flat index (anything where that is -1)."""
    height, width = chosen.shape[1:]
    row = torch.arange(height, device=chosen.device)[:, None] - chosen // width
    column = torch.arange(width, device=chosen.device) - chosen % width
    return (row.square() + column.square()).float().sqrt()


def _distance_to(mask: Tensor) -> Tensor:
    """``(M, V, V)`` float32 distance in pixels to the nearest true pixel; 0 for an empty mask."""
    from scipy.ndimage import distance_transform_edt

    def one(image: np.ndarray) -> np.ndarray:
        return distance_transform_edt(~image) if image.any() else np.zeros(image.shape)

    maps = parallel_map(one, mask.cpu().numpy())
    return torch.from_numpy(np.stack(maps).astype(np.float32)).to(mask.device)


class CAP(Loss):
    """CAPNet's loss on any shape that yields points.

    Args:
        points: Points taken of the shape (a mesh is sampled; a smaller cloud is used whole).
        resolution: Side of the images compared, 64 in the paper; the Gaussians keep 0.5 square pixels of it.
        reduction: ``subsample`` or ``area``, of the true silhouettes.
        entropy: Weight of the cross-entropy.
        affinity: Weight of each affinity; 0 leaves both out.

    Raises:
        ReconlabError: A setting is out of range.
    """

    needs = frozenset({"views"})

    def __init__(
        self,
        points: int = 1024,
        resolution: int = 64,
        reduction: Reduction = "subsample",
        entropy: float = 1.0,
        affinity: float = 1e-4,
    ) -> None:
        super().__init__()
        if points < 1:
            raise ReconlabError(f"CAP: points is {points}; expected at least 1.")
        if not (entropy >= 0 and affinity >= 0 and entropy + affinity > 0):
            raise ReconlabError(
                f"CAP: entropy and affinity are {entropy} and {affinity}; expected weights of 0 or more, not both 0."
            )
        self.points, self.resolution, self.reduction = points, resolution, reduction
        self.entropy, self.affinity = entropy, affinity

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``"loss"``, the means of the three terms (before their weights) and ``iou`` of the silhouettes."""
        views = batch.require("views", "CAP")
        whole = isinstance(shape, PointCloud) and shape.positions.shape[1] <= self.points
        cloud = shape.points(None if whole else self.points)
        terms = cap(cloud, views.silhouettes, views.cameras, self.resolution, self.reduction)
        entropy, covering, straying, overlap = (x.mean() for x in terms)
        return {
            "loss": self.entropy * entropy + self.affinity * (covering + straying),
            "cross_entropy": entropy.detach(),
            "covering": covering.detach(),
            "straying": straying.detach(),
            "iou": overlap,
        }

    def extra_repr(self) -> str:
        """The settings in force."""
        return (
            f"points={self.points}, resolution={self.resolution}, reduction={self.reduction!r}, "
            f"entropy={self.entropy}, affinity={self.affinity}"
        )
