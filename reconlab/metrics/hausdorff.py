"""Hausdorff distance: how far the worst point of one surface is from the other."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.kernels.nearest import nearest
from reconlab.metrics.base import or_nan
from reconlab.metrics.points import PointMetric, check_clouds
from reconlab.metrics.protocol import SCALES, WORST_DISTANCE, Protocol, Scale


class HausdorffParts(NamedTuple):
    """Per-sample distance, the larger of its two directed ones, each ``(B,)``."""

    distance: Tensor
    pred: Tensor
    truth: Tensor


def hausdorff_distance(pred: Tensor, target: Tensor) -> HausdorffParts:
    """Hausdorff distance of each pair of clouds, and both directions.

    Args:
        pred: ``(B, N, 3)``, any floating dtype; half precision is computed in float32.
        target: ``(B, M, 3)`` in the same unit; N and M may differ.

    Returns:
        ``(distance, pred, truth)``, each ``(B,)`` in the clouds' unit, not squared: ``pred`` is
        ``max over p of min over t of |p - t|`` (what is there and should not be), ``truth`` the other way round (what
        is missing), ``distance`` the larger. NaN for a sample with a coordinate that is not finite.

    Raises:
        ReconlabError: Shapes do not fit, or a cloud is empty.

    Example:
        >>> pred = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]])
        >>> target = torch.tensor([[[0.0, 0, 3]]])
        >>> distance, extra, missing = hausdorff_distance(pred, target)
        >>> [round(x.item(), 4) for x in (distance, extra, missing)]
        [3.1623, 3.1623, 3.0]
    """
    pred, target, finite = check_clouds(pred, target, "hausdorff_distance")
    forth = nearest(pred, target)[0].amax(1).sqrt()
    back = nearest(target, pred)[0].amax(1).sqrt()
    return HausdorffParts(*(or_nan(x, finite) for x in (torch.maximum(forth, back), forth, back)))


class Hausdorff(PointMetric):
    """Mean Hausdorff distance over samples: ``hausdorff``, ``hausdorff_pred``, ``hausdorff_truth``.

    Args:
        points: Points drawn from each side; null for all that there are. Two drawings of one surface are not at
            distance 0 (docs/metrics/hausdorff.md).
        scale: Unit of the values.
        seed: Changes the points drawn.
        name: What the keys begin with.

    Example:
        >>> from reconlab.batch import Batch
        >>> from reconlab.shapes import PointCloud
        >>> truth = torch.tensor([[[0.0, 0, 0], [0, 0, 0.3]]])
        >>> metric = Hausdorff()
        >>> metric.update(PointCloud(truth[:, :1]), Batch(ids=["a"], categories=["x"], points=truth))
        >>> {k: round(v.item(), 3) for k, v in metric.compute().items() if "/" not in k}
        {'hausdorff': 0.3, 'hausdorff_pred': 0.0, 'hausdorff_truth': 0.3}
    """

    higher_is_better = False

    def __init__(
        self, points: int | None = 10_000, scale: Scale = "object", seed: int = 0, name: str = "hausdorff"
    ) -> None:
        if scale not in SCALES:
            raise ReconlabError(f"Unknown scale {scale!r}; choose one of {', '.join(SCALES)}.")
        both = Protocol(
            name=name,
            formula="max(max_P d(p, T), max_T d(t, P))",
            unit=f"{scale} length",
            squared=False,
            points="all" if points is None else points,
            alignment="none",
            scale=scale,
            threshold=None,
            factor=100.0,
            higher_is_better=False,
            worst_value=WORST_DISTANCE[scale],
            source="Cignoni et al. 1998 (Metro), between points drawn from both surfaces",
        )
        directed = [
            replace(both, name=f"{name}_pred", formula="max_P d(p, T)"),
            replace(both, name=f"{name}_truth", formula="max_T d(t, P)"),
        ]
        super().__init__({p.name: p for p in (both, *directed)}, points, scale, seed)

    def _compare(self, pred: list[Tensor], target: list[Tensor]) -> dict[str, Tensor]:
        return dict(zip(self.protocols, hausdorff_distance(pred[0], target[0]), strict=True))
