"""Earth mover's distance between equally many points of the prediction and of the true surface."""

from __future__ import annotations

import torch
from torch import Tensor

from reconlab.batch import Batch
from reconlab.devices import send
from reconlab.errors import ReconlabError
from reconlab.kernels.auction import match_clouds
from reconlab.losses.base import Loss
from reconlab.shapes import PointCloud, Shape


def emd(pred: Tensor, target: Tensor, tolerance: float = 1e-2, generator: torch.Generator | None = None) -> Tensor:
    """Mean distance of the bijection between two clouds for which it is least (Fan et al., CVPR 2017, Eq. 1, over N).

    Of clouds of different sizes, the prediction is taken whole: a larger target is sampled without replacement, a
    smaller one repeated as often as it fits, and the rest of the places drawn from it.

    Args:
        pred: ``(B, N, 3)``.
        target: ``(B, M, 3)`` in the same frame and unit.
        tolerance: Share of the result by which it may be too large (a proven bound, mostly far from reached).
        generator: Of the sampling; needed only where ``M`` is not ``N``.

    Returns:
        ``(B,)``, in the clouds' unit, not squared. Differentiable by both clouds through the matched pairs, with
        gradient 0 where a pair coincides. Infinite, without gradient, for a sample with a point that is not finite.

    Raises:
        ReconlabError: The shapes do not fit, a cloud is empty, or the tolerance is not positive.

    Example:
        >>> a = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]])
        >>> emd(a, a.flip(1) + torch.tensor([0, 0.5, 0]))
        tensor([0.5000])
    """
    return _emd(pred, target, tolerance, generator)[0]


def _emd(pred: Tensor, target: Tensor, tolerance: float, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """:func:`emd`, and the bound of its error, ``(B,)`` each."""
    if pred.dim() != 3 or target.dim() != 3 or pred.shape[::2] != target.shape[::2] or pred.shape[-1] != 3:
        raise ReconlabError(
            f"emd() takes clouds (B, N, 3) and (B, M, 3), not {tuple(pred.shape)} and {tuple(target.shape)}."
        )
    if pred.shape[1] == 0 or target.shape[1] == 0:
        raise ReconlabError("emd() got a cloud without points: leave empty shapes out, count them failed.")
    kind = torch.promote_types(torch.promote_types(pred.dtype, target.dtype), torch.float32)
    pred = pred.to(kind)
    target = same_size(target.to(kind), pred.shape[1], generator)
    index, gap = match_clouds(pred, target, tolerance)
    pair = pred - target.gather(1, index[..., None].expand(-1, -1, 3))
    # Cut off before the square: 0 times the slope of an infinite number would not be 0.
    square = torch.where(gap.isfinite()[:, None, None], pair, torch.zeros_like(pair)).square().sum(-1)
    apart = square > 0
    distance = torch.where(
        apart, torch.where(apart, square, torch.ones_like(square)).sqrt(), torch.zeros_like(square)
    )
    return torch.where(gap.isfinite(), distance.mean(1), torch.full_like(distance[:, 0], torch.inf)), gap


def same_size(points: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
    """``(B, M, 3)`` as ``(B, n, 3)``: sampled without replacement, or repeated as a whole and then sampled."""
    total = points.shape[1]
    if total == n:
        return points
    where = generator.device if generator is not None else torch.device("cpu")
    drawn = torch.randperm(total, generator=generator, device=where)[: n % total if n > total else n]
    whole = torch.arange(total).repeat(n // total) if n > total else drawn[:0]
    return points[:, send(torch.cat([whole.to(where), drawn]), points.device)]


class EMD(Loss):
    """Earth mover's distance between sampled points of the shape and of the true surface, mean over the batch.

    Unlike Chamfer's, its points cannot crowd: each true point takes one. It costs some 20 to 50 ms per sample of
    1024 points and 70 to 150 ms of 2048 on one CPU thread, depending little on the tolerance (docs/losses.md).

    Args:
        points: Points on either side per step. A smaller cloud is used whole, as is the prediction if None.
        tolerance: Share of the distance by which it may be too large; see :func:`emd`.

    Raises:
        ReconlabError: A setting is not positive.
    """

    needs = frozenset({"surface"})

    def __init__(self, points: int | None = 1024, tolerance: float = 1e-2) -> None:
        super().__init__()
        if points is not None and points < 1:
            raise ReconlabError(f"EMD: points is {points}; expected at least 1, or none for all.")
        if not 0 < tolerance < float("inf"):
            raise ReconlabError(f"EMD: tolerance is {tolerance}; expected a positive number.")
        self.points, self.tolerance = points, tolerance

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``"loss"``, and ``bound``: by how much it may exceed the true distance."""
        target = batch.require("points", "EMD")
        whole = self.points is None or (isinstance(shape, PointCloud) and shape.positions.shape[1] <= self.points)
        pred = shape.points(None if whole else self.points)
        distance, bound = _emd(pred, target, self.tolerance, None)
        return {"loss": distance.mean(), "bound": bound.mean()}

    def extra_repr(self) -> str:
        """The settings."""
        return f"points={self.points}, tolerance={self.tolerance}"
