"""F-score: how much of each cloud lies within a stated Euclidean distance of the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.kernels.nearest import nearest
from reconlab.metrics.base import or_nan
from reconlab.metrics.points import PointMetric, check_clouds
from reconlab.metrics.protocol import SCALES, Protocol, Scale


class FScoreParts(NamedTuple):
    """Per-sample F-score, precision and recall, each ``(B,)`` in [0, 1]."""

    f: Tensor
    precision: Tensor
    recall: Tensor


@dataclass(frozen=True)
class FScoreVariant:
    """A threshold in use.

    Attributes:
        threshold: Euclidean distance, in units of ``scale``.
        scale: The length that is 1.
        source: Who uses it.
    """

    threshold: float
    scale: Scale
    source: str


THRESHOLDS: dict[str, FScoreVariant] = {
    "what3d": FScoreVariant(0.01, "object", "Tatarchenko et al. 2019 (what3d): 1 % of the side of the unit cube"),
    "atlasnet": FScoreVariant(
        math.sqrt(1e-3), "unit_ball", "AtlasNet (2018), DR-KFS (2020): squared distance < 0.001, that is d < 0.0316"
    ),
}


def f_score(pred: Tensor, target: Tensor, threshold: float) -> FScoreParts:
    """F-score of each pair of clouds.

    Precision is the share of the prediction's points closer than ``threshold`` to the target, recall the share
    of the target's points closer than that to the prediction: each over its *own* cloud, so that unequal sizes
    do not matter. F is their harmonic mean, 0 where both are 0 (Tatarchenko et al. 2019, Eq. 1).

    Args:
        pred: ``(B, N, 3)``, any floating dtype; half precision is computed in float32.
        target: ``(B, M, 3)`` in the same unit; N and M may differ.
        threshold: Euclidean distance (not squared) in the clouds' unit; a point at exactly this distance is out.

    Returns:
        ``(f, precision, recall)``, each ``(B,)`` in [0, 1]; NaN for a sample with a coordinate that is not finite.

    Raises:
        ReconlabError: The threshold is not positive, shapes do not fit, or a cloud is empty.

    Example:
        >>> pred = torch.tensor([[[0.0, 0, 0], [5, 0, 0]]])
        >>> target = torch.tensor([[[0.0, 0, 0.1], [0, 0, 0.2], [0, 0, 0.3], [9, 0, 0]]])
        >>> f, precision, recall = f_score(pred, target, 0.35)
        >>> precision, recall, f
        (tensor([0.5000]), tensor([0.7500]), tensor([0.6000]))
    """
    if not threshold > 0:
        raise ReconlabError(f"f_score: threshold is {threshold}; expected a positive Euclidean distance.")
    pred, target, finite = check_clouds(pred, target, "f_score")
    precision = (nearest(pred, target)[0].sqrt() < threshold).to(pred.dtype).mean(1)
    recall = (nearest(target, pred)[0].sqrt() < threshold).to(pred.dtype).mean(1)
    both = precision + recall
    f = torch.where(both > 0, 2 * precision * recall / torch.where(both > 0, both, 1.0), 0.0)
    return FScoreParts(or_nan(f, finite), or_nan(precision, finite), or_nan(recall, finite))


def f_score_curve(pred: Tensor, target: Tensor, thresholds: Sequence[float]) -> FScoreParts:
    """F-score of each pair of clouds at several thresholds, for one search of the nearest points.

    Args:
        pred: ``(B, N, 3)``, any floating dtype.
        target: ``(B, M, 3)`` in the same unit.
        thresholds: ``K`` Euclidean distances in the clouds' unit, in any order; see :func:`f_score`.

    Returns:
        ``(f, precision, recall)``, each ``(B, K)`` in [0, 1]; NaN for a sample with a coordinate that is not finite.

    Raises:
        ReconlabError: No threshold, or one that is not positive; shapes do not fit, or a cloud is empty.

    Example:
        >>> pred, target = torch.zeros(1, 1, 3), torch.tensor([[[0.0, 0, 0.1], [0, 0, 0.3]]])
        >>> f_score_curve(pred, target, [0.05, 0.2, 0.5]).f
        tensor([[0.0000, 0.6667, 1.0000]])
    """
    if not thresholds or not all(t > 0 for t in thresholds):
        raise ReconlabError(
            f"f_score_curve: thresholds are {list(thresholds)}; expected positive Euclidean distances, at least one."
        )
    pred, target, finite = check_clouds(pred, target, "f_score_curve")
    limits = torch.tensor(list(thresholds), dtype=pred.dtype, device=pred.device)
    precision, recall = (
        (nearest(a, b)[0].sqrt()[..., None] < limits).to(pred.dtype).mean(1)
        for a, b in ((pred, target), (target, pred))
    )
    both = precision + recall
    f = torch.where(both > 0, 2 * precision * recall / torch.where(both > 0, both, 1.0), 0.0)
    return FScoreParts(*(or_nan(x, finite[:, None]) for x in (f, precision, recall)))


class FScore(PointMetric):
    """Mean F-score over samples, with precision and recall: ``fscore_*``, ``precision_*``, ``recall_*``.

    Each sample's F is computed first and then averaged; counts are never pooled over samples or clouds.

    Args:
        variant: A name of :data:`THRESHOLDS`: its threshold and its scale.
        threshold: Another Euclidean threshold, in the variant's scale; the keys then end in it.
        points: Points drawn from each side; null for all that there are. With few points even the true surface
            misses itself: 2500 give a perfect car 46 % at ``what3d``, 10 000 give 89 % (docs/metrics.md).
        scale: Unit of the threshold; by default the variant's.
        seed: Changes the points drawn.
        name: What the keys end in; the variant (and threshold) by default.

    Example:
        >>> from reconlab.batch import Batch
        >>> from reconlab.shapes import PointCloud
        >>> metric = FScore("what3d")
        >>> cloud = torch.tensor([[[0.0, 0, 0], [0, 0, 0.3]]])
        >>> metric.update(PointCloud(cloud[:, :1]), Batch(ids=["a"], categories=["chair"], points=cloud))
        >>> {k: round(v.item(), 3) for k, v in metric.compute().items() if "/" not in k}
        {'fscore_what3d': 0.667, 'precision_what3d': 1.0, 'recall_what3d': 0.5}
    """

    higher_is_better = True

    def __init__(
        self,
        variant: Literal["what3d", "atlasnet"] = "what3d",
        threshold: float | None = None,
        points: int | None = 10_000,
        scale: Scale | None = None,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        if variant not in THRESHOLDS:
            raise ReconlabError(f"Unknown F-score variant {variant!r}; choose one of {', '.join(THRESHOLDS)}.")
        settings = THRESHOLDS[variant]
        scale = settings.scale if scale is None else scale
        if scale not in SCALES:
            raise ReconlabError(f"Unknown scale {scale!r}; choose one of {', '.join(SCALES)}.")
        suffix = name or (variant if threshold is None else f"{variant}@{threshold:g}")
        self_threshold = settings.threshold if threshold is None else threshold
        if not self_threshold > 0:
            raise ReconlabError(f"FScore: threshold is {threshold}; expected a positive Euclidean distance.")
        headline = Protocol(
            name=f"fscore_{suffix}",
            formula="2 · precision · recall / (precision + recall), 0 where both are 0, per sample, then averaged",
            unit="share",
            squared=False,
            points="all" if points is None else points,
            alignment="none",
            scale=scale,
            threshold=self_threshold,
            factor=100.0,
            higher_is_better=True,
            worst_value=0.0,
            source=settings.source,
        )
        protocols = [
            headline,
            replace(headline, name=f"precision_{suffix}", formula="share of P with d(p, T) < threshold"),
            replace(headline, name=f"recall_{suffix}", formula="share of T with d(t, P) < threshold"),
        ]
        super().__init__({p.name: p for p in protocols}, points, scale, seed)
        self.variant = variant
        self.threshold = self_threshold

    def _compare(self, pred: list[Tensor], target: list[Tensor]) -> dict[str, Tensor]:
        return dict(zip(self.protocols, f_score(pred[0], target[0], self.threshold), strict=True))


class FScoreCurve(PointMetric):
    """Mean F-score over samples at several thresholds: ``fscore@<threshold>`` for each, the first the headline.

    Args:
        thresholds: Euclidean distances in units of ``scale``; null takes the curve of Tatarchenko et al. 2019, 1 %
            of the cube's side first: 1/100, then 1/200, 1/50, 1/20, 1/10 and 1/5.
        points: Points drawn from each side; null for all that there are.
        scale: Unit of the thresholds.
        seed: Changes the points drawn.
        name: What the keys begin with.

    Example:
        >>> from reconlab.batch import Batch
        >>> from reconlab.shapes import PointCloud
        >>> metric = FScoreCurve([0.2, 0.5])
        >>> cloud = torch.tensor([[[0.0, 0, 0], [0, 0, 0.3]]])
        >>> metric.update(PointCloud(cloud[:, :1]), Batch(ids=["a"], categories=["chair"], points=cloud))
        >>> {k: round(v.item(), 3) for k, v in metric.compute().items() if "/" not in k}
        {'fscore@0.2': 0.667, 'fscore@0.5': 1.0}
    """

    higher_is_better = True

    def __init__(
        self,
        thresholds: list[float] | None = None,
        points: int | None = 10_000,
        scale: Scale = "object",
        seed: int = 0,
        name: str = "fscore",
    ) -> None:
        if scale not in SCALES:
            raise ReconlabError(f"Unknown scale {scale!r}; choose one of {', '.join(SCALES)}.")
        chosen = [0.01, 0.005, 0.02, 0.05, 0.1, 0.2] if thresholds is None else list(thresholds)
        if not chosen or not all(t > 0 for t in chosen) or len({f"{t:g}" for t in chosen}) < len(chosen):
            raise ReconlabError(
                f"FScoreCurve: thresholds are {chosen}; expected different positive Euclidean distances."
            )
        protocols = [
            Protocol(
                name=f"{name}@{threshold:g}",
                formula="2 · precision · recall / (precision + recall), 0 where both are 0, per sample",
                unit="share",
                squared=False,
                points="all" if points is None else points,
                alignment="none",
                scale=scale,
                threshold=threshold,
                factor=100.0,
                higher_is_better=True,
                worst_value=0.0,
                source="Tatarchenko et al. 2019 (what3d): the curve over 1/200 to 1/5 of the cube's side",
            )
            for threshold in chosen
        ]
        super().__init__({p.name: p for p in protocols}, points, scale, seed)
        self.thresholds = chosen

    def _compare(self, pred: list[Tensor], target: list[Tensor]) -> dict[str, Tensor]:
        curve = f_score_curve(pred[0], target[0], self.thresholds).f
        return {name: curve[:, k] for k, name in enumerate(self.protocols)}
