"""Chamfer distance in the variants that the field's papers print, each named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.kernels.nearest import nearest
from reconlab.metrics.base import or_nan
from reconlab.metrics.points import PointMetric, check_clouds
from reconlab.metrics.protocol import SCALES, WORST_DISTANCE, Protocol, Scale

Variant = Literal["dpc", "atlasnet", "occnet", "nox", "nox_dpc"]


@dataclass(frozen=True)
class ChamferVariant:
    """One definition of the Chamfer distance.

    Attributes:
        squared: Mean of squared distances, else of Euclidean ones.
        combine: How the two directions are put together.
        alignment: ``none``; ``centred``: each cloud's mean is moved to 0; ``centred_unit_diagonal``: then the
            prediction's bounding box is scaled to diagonal 1.
        scale: Unit in which papers state it; :class:`ChamferDistance` brings both shapes to it, the function
            takes the clouds as they are.
        factor: Tables print ``value * factor``.
        formula: The definition; ``d`` is the Euclidean distance to the nearest point of the other cloud.
        source: Who uses it.
    """

    squared: bool
    combine: Literal["sum", "mean"]
    alignment: Literal["none", "centred", "centred_unit_diagonal"]
    scale: Scale
    factor: float
    formula: str
    source: str


VARIANTS: dict[str, ChamferVariant] = {
    "dpc": ChamferVariant(
        False, "sum", "none", "object", 100.0,
        "mean_P d(p, T) + mean_T d(t, P)",
        "DPC (Insafutdinov & Dosovitskiy 2018), DRWR (2020): all points, mean over models and views",
    ),
    "atlasnet": ChamferVariant(
        True, "sum", "none", "unit_ball", 1000.0,
        "mean_P d²(p, T) + mean_T d²(t, P)",
        "AtlasNet (2018), DR-KFS (2020): 2500 points, true surface scaled to the unit ball",
    ),
    "occnet": ChamferVariant(
        False, "mean", "none", "unit_edge", 10.0,
        "(mean_P d(p, T) + mean_T d(t, P)) / 2",
        "Occupancy Networks (2019), Chamfer-L1: 100 000 points, unit = a tenth of the longest box edge",
    ),
    "nox": ChamferVariant(
        True, "sum", "centred", "object", 100.0,
        "mean_P d²(p, T) + mean_T d²(t, P), both clouds centred at their means",
        "X-NOCS (2019): at most 8000 points",
    ),
    "nox_dpc": ChamferVariant(
        True, "sum", "centred_unit_diagonal", "object", 100.0,
        "mean_P d²(p, T) + mean_T d²(t, P), both centred at their means, then P's box scaled to diagonal 1",
        "X-NOCS (2019), its evaluator of DPC's clouds: at most 8000 points",
    ),
}  # fmt: skip


def variant_of(name: str) -> ChamferVariant:
    """The variant of that name.

    Raises:
        ReconlabError: There is none.
    """
    if name not in VARIANTS:
        raise ReconlabError(f"Unknown Chamfer variant {name!r}; choose one of {', '.join(VARIANTS)}.")
    return VARIANTS[name]


def chamfer_distance(pred: Tensor, target: Tensor, variant: str = "dpc") -> Tensor:
    r"""Chamfer distance of each pair of clouds, raw (without the variant's printing factor).

    With ``a = mean over p in P of min over t in T of |p - t|^k`` and ``b`` the other way round, each mean over
    its own cloud: ``a + b`` or ``(a + b) / 2``, ``k`` 1 or 2, by :data:`VARIANTS`.

    Args:
        pred: ``(B, N, 3)``, any floating dtype; half precision is computed in float32.
        target: ``(B, M, 3)`` in the same unit; N and M may differ.
        variant: ``dpc``, ``atlasnet``, ``occnet``, ``nox`` or ``nox_dpc``.

    Returns:
        ``(B,)`` at least float32, in the clouds' unit (squared for ``atlasnet``, ``nox``, ``nox_dpc``);
        differentiable in both clouds. NaN for a sample with a coordinate that is not finite.

    Raises:
        ReconlabError: The variant is unknown, shapes do not fit, or a cloud is empty.

    Example:
        >>> pred = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]])
        >>> target = torch.tensor([[[0.0, 0, 3]]])
        >>> chamfer_distance(pred, target, "atlasnet")  # (9 + 10) / 2 + 9
        tensor([18.5000])
        >>> chamfer_distance(target, target)
        tensor([0.])
    """
    settings = variant_of(variant)
    pred, target, finite = check_clouds(pred, target, "chamfer_distance")
    if settings.alignment != "none":
        pred, target = pred - pred.mean(1, keepdim=True), target - target.mean(1, keepdim=True)
    if settings.alignment == "centred_unit_diagonal":
        diagonal = (pred.amax(1) - pred.amin(1)).norm(dim=-1).reshape(-1, 1, 1)
        pred = pred / torch.where(diagonal > 0, diagonal, 1.0)
    forth, back = nearest(pred, target)[0], nearest(target, pred)[0]
    if not settings.squared:
        forth, back = safe_sqrt(forth), safe_sqrt(back)
    total = forth.mean(1) + back.mean(1)
    return or_nan(total / 2 if settings.combine == "mean" else total, finite)


def safe_sqrt(squared: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0 instead of infinite."""
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1.0).sqrt(), 0.0)


class ChamferDistance(PointMetric):
    """Mean Chamfer distance over samples, ``chamfer_<variant>``.

    Args:
        variant: A name of :data:`VARIANTS`.
        points: Points drawn from each side; null for all that there are. Fewer points give larger values: two
            samplings of the same surface are not at distance 0 (see docs/metrics.md).
        scale: Unit of the values; by default the one in which the variant's papers state it.
        seed: Changes the points drawn.
        name: Key of the value; ``chamfer_<variant>`` by default.

    Example:
        >>> from reconlab.batch import Batch
        >>> from reconlab.shapes import PointCloud
        >>> metric = ChamferDistance("dpc", points=None)
        >>> truth = Batch(ids=["a", "b"], categories=["chair", "lamp"], points=torch.zeros(2, 4, 3))
        >>> metric.update(PointCloud(torch.tensor([[[0.0, 0, 1]], [[0, 0, float("nan")]]])), truth)
        >>> result = metric.compute()  # the second prediction has failed: it is charged 2 * sqrt(3)
        >>> [round(result[key].item(), 3) for key in ("chamfer_dpc", "chamfer_dpc/n", "chamfer_dpc/n_failed")]
        [2.732, 2, 1]
    """

    higher_is_better = False

    def __init__(
        self,
        variant: Variant = "dpc",
        points: int | None = 2500,
        scale: Scale | None = None,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        settings = variant_of(variant)
        scale = settings.scale if scale is None else scale
        if scale not in SCALES:
            raise ReconlabError(f"Unknown scale {scale!r}; choose one of {', '.join(SCALES)}.")
        worst = WORST_DISTANCE[scale] ** (2 if settings.squared else 1)
        protocol = Protocol(
            name=name or f"chamfer_{variant}",
            formula=settings.formula,
            unit=f"{scale} length{' squared' if settings.squared else ''}",
            squared=settings.squared,
            points="all" if points is None else points,
            alignment=settings.alignment,
            scale=scale,
            threshold=None,
            factor=settings.factor,
            higher_is_better=False,
            worst_value=worst * (2 if settings.combine == "sum" else 1),
            source=settings.source,
        )
        super().__init__({protocol.name: protocol}, points, scale, seed)
        self.variant = variant

    def _compare(self, pred: list[Tensor], target: list[Tensor]) -> dict[str, Tensor]:
        return {self.name: chamfer_distance(pred[0], target[0], self.variant)}
