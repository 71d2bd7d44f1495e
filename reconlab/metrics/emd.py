"""Earth mover's distance between clouds: exact, or by the auction whose error is bounded."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from reconlab.errors import ReconlabError, optional_import
from reconlab.kernels.auction import match_clouds
from reconlab.metrics.base import or_nan
from reconlab.metrics.points import PointMetric, check_clouds
from reconlab.metrics.protocol import SCALES, WORST_DISTANCE, Protocol, Scale

Method = Literal["exact", "auction"]


def earth_movers_distance(pred: Tensor, target: Tensor, method: Method = "exact", tolerance: float = 1e-2) -> Tensor:
    """Mean Euclidean distance that the points of one cloud move to become the other, at its least.

    ``min over plans of Σ_ij m_ij |p_i - t_j|`` where every predicted point sends the mass 1/N and every true one
    receives 1/M. With N = M an optimal plan is a bijection, and this is the mean distance of its pairs (Rubner et al.
    2000; Fan et al. 2017, Eq. 1, over N). Not differentiable: :func:`reconlab.losses.emd.emd` is.

    Args:
        pred: ``(B, N, 3)``, any floating dtype; computed in float64.
        target: ``(B, M, 3)`` in the same unit.
        method: ``exact``: the assignment problem by SciPy where N = M, the transport problem by POT where not.
            ``auction``: :func:`reconlab.kernels.auction.match_clouds`, N = M only; what the loss uses.
        tolerance: Of the auction: share by which its value may exceed the exact one. It is never below it.

    Returns:
        ``(B,)`` at least float32, in the clouds' unit, not squared; NaN for a sample with a coordinate that is not
        finite.

    Raises:
        ReconlabError: The shapes do not fit, a cloud is empty, the method is unknown, the auction got clouds of
            unequal sizes, or POT is needed and not installed.

    Example:
        >>> line = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]])
        >>> earth_movers_distance(line, line.flip(1) + torch.tensor([0, 0.25, 0]))
        tensor([0.2500])
    """
    if method not in ("exact", "auction"):
        raise ReconlabError(f"earth_movers_distance: the methods are exact and auction, not {method!r}.")
    pred, target, finite = check_clouds(pred, target, "earth_movers_distance")
    if method == "exact":
        pairs = zip(pred.double().cpu().numpy(), target.double().cpu().numpy(), finite.tolist(), strict=True)
        values = [_exact(p, t) if ok else np.nan for p, t, ok in pairs]
        return torch.tensor(values, dtype=pred.dtype, device=pred.device)
    if pred.shape != target.shape:
        raise ReconlabError(
            f"earth_movers_distance: the auction matches clouds of one size, not {pred.shape[1]} and "
            f"{target.shape[1]} points; use method 'exact'."
        )
    index, _ = match_clouds(pred, target, tolerance)
    paired = target.gather(1, index[..., None].expand(-1, -1, 3))
    return or_nan((pred - paired).double().norm(dim=-1).mean(1).to(pred.dtype), finite)


def _exact(pred: np.ndarray, target: np.ndarray) -> float:
    """The least mean distance of float64 clouds ``(N, 3)`` and ``(M, 3)``."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    cost = cdist(pred, target)
    if len(pred) == len(target):
        return float(cost[linear_sum_assignment(cost)].mean())
    ot = optional_import("ot", "eval", "The exact EMD of clouds of unequal sizes")
    sides = [np.full(n, 1 / n) for n in cost.shape]
    return float(ot.emd2(*sides, cost, numItermax=10_000_000))


class EMD(PointMetric):
    """Mean earth mover's distance over samples, ``emd`` (``emd_auction``).

    Args:
        points: Points drawn from each side; null for all that there are. The exact method's time grows with their
            cube; fewer points give larger values (docs/metrics/emd.md).
        method: ``exact``, or ``auction``, which needs as many predicted as true points.
        tolerance: Of the auction, see :func:`earth_movers_distance`.
        scale: Unit of the values.
        seed: Changes the points drawn.
        name: Key of the value.

    Example:
        >>> from reconlab.batch import Batch
        >>> from reconlab.shapes import PointCloud
        >>> truth = torch.tensor([[[0.0, 0, 0], [0, 0, 0.3]]])
        >>> metric = EMD()
        >>> metric.update(PointCloud(truth[:, :1].expand(1, 2, 3)), Batch(ids=["a"], categories=["x"], points=truth))
        >>> round(metric.compute()["emd"].item(), 4)  # both points are at the first: the other one moves 0.3
        0.15
    """

    higher_is_better = False

    def __init__(
        self,
        points: int | None = 1024,
        method: Method = "exact",
        tolerance: float = 1e-2,
        scale: Scale = "object",
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        if method not in ("exact", "auction"):
            raise ReconlabError(f"EMD: the methods are exact and auction, not {method!r}.")
        if not 0 < tolerance < float("inf"):
            raise ReconlabError(f"EMD: the tolerance is {tolerance}; expected a positive share.")
        if scale not in SCALES:
            raise ReconlabError(f"Unknown scale {scale!r}; choose one of {', '.join(SCALES)}.")
        how = "" if method == "exact" else f", by an auction: at most {tolerance:.2%} too large"
        protocol = Protocol(
            name=name or ("emd" if method == "exact" else "emd_auction"),
            formula=f"min over bijections (equal masses) of mean |p - t|{how}",
            unit=f"{scale} length",
            squared=False,
            points="all" if points is None else points,
            alignment="none",
            scale=scale,
            threshold=None,
            factor=100.0,
            higher_is_better=False,
            worst_value=WORST_DISTANCE[scale],
            source="Rubner et al. 2000; point set generation (Fan et al. 2017) per point",
        )
        super().__init__({protocol.name: protocol}, points, scale, seed)
        self.method: Method = method
        self.tolerance = tolerance

    def _compare(self, pred: list[Tensor], target: list[Tensor]) -> dict[str, Tensor]:
        return {self.name: earth_movers_distance(pred[0], target[0], self.method, self.tolerance)}
