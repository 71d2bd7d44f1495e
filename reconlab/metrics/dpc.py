"""DPC's evaluation: Chamfer distance over all views of each shape, its two directions, and the best view."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from reconlab.batch import Batch
from reconlab.kernels.nearest import nearest
from reconlab.metrics.base import or_nan
from reconlab.metrics.chamfer import safe_sqrt, variant_of
from reconlab.metrics.points import PointMetric, check_clouds
from reconlab.metrics.protocol import WORST_DISTANCE, Protocol
from reconlab.shapes import Shape


def precision_and_coverage(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The two directions of DPC's Chamfer distance, Euclidean, not squared.

    Args:
        pred: ``(B, N, 3)``.
        target: ``(B, M, 3)`` in the same unit.

    Returns:
        ``(B,)`` precision, the mean over P of the distance to the nearest point of T, and ``(B,)`` coverage, the
        mean over T of that to P. NaN for a sample with a coordinate that is not finite.

    Raises:
        ReconlabError: Shapes do not fit, or a cloud is empty.

    Example:
        >>> pred, target = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]]), torch.tensor([[[0.0, 0, 3]]])
        >>> [round(x.item(), 3) for x in precision_and_coverage(pred, target)]
        [3.081, 3.0]
    """
    pred, target, finite = check_clouds(pred, target, "precision_and_coverage")
    forth, back = (safe_sqrt(nearest(a, b)[0]).mean(1) for a, b in ((pred, target), (target, pred)))
    return or_nan(forth, finite), or_nan(back, finite)


class DPCChamfer(PointMetric):
    """DPC's Chamfer distance (sum of both directions), ``dpc_cd``, with ``dpc_precision`` and ``dpc_coverage``.

    Judged with ``data.eval_view: all`` the means run over shapes and views, as in DPC. ``dpc_cd_best_view`` is the
    mean over shapes of the smallest value among a shape's views: what DRWR's published evaluation prints. It may
    be compared with no value of the first kind.

    Args:
        points: Points drawn from each side; null for all that there are (DPC's rule; then clouds of different
            size are compared whole).
        seed: Changes the points drawn.

    Example:
        >>> from reconlab.shapes import PointCloud
        >>> metric = DPCChamfer()
        >>> truth = Batch(ids=["a", "a"], categories=["chair", "chair"], points=torch.zeros(2, 4, 3))
        >>> metric.update(PointCloud(torch.tensor([[[0.0, 0, 1]], [[0, 0, 3]]])), truth)  # two views of one shape
        >>> result = metric.compute()
        >>> result["dpc_cd"].item(), result["dpc_cd_best_view"].item()
        (4.0, 2.0)
    """

    higher_is_better = False

    def __init__(self, points: int | None = None, seed: int = 0) -> None:
        settings = variant_of("dpc")
        cd = Protocol(
            name="dpc_cd",
            formula=f"{settings.formula}, mean over shapes and views",
            unit="object length",
            squared=False,
            points="all" if points is None else points,
            alignment="none",
            scale="object",
            threshold=None,
            factor=100.0,
            higher_is_better=False,
            worst_value=2 * WORST_DISTANCE["object"],
            source="DPC (Insafutdinov & Dosovitskiy 2018)",
        )
        half = WORST_DISTANCE["object"]
        parts = (
            replace(cd, name="dpc_precision", formula="mean_P d(p, T), mean over shapes and views", worst_value=half),
            replace(cd, name="dpc_coverage", formula="mean_T d(t, P), mean over shapes and views", worst_value=half),
            replace(
                cd,
                name="dpc_cd_best_view",
                formula=f"{settings.formula}, smallest of a shape's views, mean over shapes",
                source="the published code of DRWR (Han et al. 2020)",
            ),
        )
        super().__init__({p.name: p for p in (cd, *parts)}, points, "object", seed)

    def set_categories(self, categories: Sequence[str]) -> None:
        """As :meth:`Metric.set_categories`."""
        super().set_categories(categories)
        # Flat rows (category, three pieces of the name's hash, value): exact in float32, which is what torchmetrics
        # contributes for a process that has seen no sample.
        self.add_state("views_seen", [], dist_reduce_fx="cat")

    def _compare(self, pred: list[Tensor], target: list[Tensor]) -> dict[str, Tensor]:
        precision, coverage = precision_and_coverage(pred[0], target[0])
        cd = precision + coverage
        return {"dpc_cd": cd, "dpc_precision": precision, "dpc_coverage": coverage, "dpc_cd_best_view": cd}

    def update(self, shape: Shape, batch: Batch) -> None:
        """Add a batch of predictions; shapes are told apart by category and id."""
        super().update(shape, batch)
        column = {category: i for i, category in enumerate(self.categories, start=1)}
        rows = []
        for category, name, value in zip(batch.categories, batch.ids, self.last["dpc_cd"].tolist(), strict=True):
            digest = hashlib.blake2b(repr((category, name)).encode(), digest_size=9).digest()
            pieces = [int.from_bytes(digest[i : i + 3], "big") for i in (0, 3, 6)]
            rows += [float(column.get(category, 0)), *map(float, pieces), value]
        seen: Any = self.views_seen
        seen.append(torch.tensor(rows, dtype=torch.float32, device=self.device))

    def compute(self) -> dict[str, Tensor]:
        """As :meth:`Metric.compute`, with ``dpc_cd_best_view`` a mean over shapes."""
        result = super().compute()
        seen: Any = self.views_seen  # a list of tensors, or after synchronisation one tensor
        best: dict[tuple[float, ...], float] = {}
        for rows in seen if isinstance(seen, list) else [seen]:
            for *key, value in rows.reshape(-1, 5).tolist():
                best[tuple(key)] = min(value, best.get(tuple(key), value))
        for i, suffix in enumerate(["", *(f"/{category}" for category in self.categories)]):
            chosen = [v for k, v in best.items() if i == 0 or k[0] == i]
            mean = sum(chosen) / len(chosen) if chosen else float("nan")
            result[f"dpc_cd_best_view{suffix}"] = torch.tensor(mean, dtype=torch.float64, device=self.device)
        return result
