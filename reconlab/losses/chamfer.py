"""Chamfer distance between points of the prediction and of the true surface, as a loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from reconlab.batch import Batch
from reconlab.devices import send
from reconlab.errors import ReconlabError
from reconlab.kernels.nearest import nearest
from reconlab.losses.base import Loss
from reconlab.shapes import PointCloud, Shape

Directions = Literal["sum", "mean"]


def directed_distances(pred: Tensor, target: Tensor, squared: bool = True) -> tuple[Tensor, Tensor]:
    """Mean distance to the nearest neighbour, each way, of each sample.

    Args:
        pred: ``(B, N, 3)``.
        target: ``(B, M, 3)`` in the same frame and unit.
        squared: Whether distances are squared. If not, the gradient is taken as 0 at distance 0.

    Returns:
        ``pred_to_target`` and ``target_to_pred``, ``(B,)`` each, differentiable by both clouds.
    """
    means = []
    for source, other in ((pred, target), (target, pred)):
        square, _ = nearest(source, other)
        if squared:
            means.append(square.mean(1))
        else:
            apart = square > 0
            root = torch.where(apart, square, torch.ones_like(square)).sqrt()
            means.append(torch.where(apart, root, torch.zeros_like(root)).mean(1))
    return means[0], means[1]


def chamfer(pred: Tensor, target: Tensor, squared: bool = True, reduce_directions: Directions = "sum") -> Tensor:
    """Chamfer distance of each sample.

    Papers differ in both choices: AtlasNet trains on the sum of the two mean squared distances, DPC and DRWR
    evaluate the sum of the two mean distances, Occupancy Networks the mean of two mean distances.

    Args:
        pred: ``(B, N, 3)``.
        target: ``(B, M, 3)`` in the same frame and unit.
        squared: Whether the distances are squared.
        reduce_directions: ``sum`` or ``mean`` of the two directed means.

    Returns:
        ``(B,)``, in the clouds' unit (squared with ``squared``), differentiable by both clouds. A point that
        is not finite makes its sample infinite.

    Raises:
        ReconlabError: The shapes do not fit, a cloud is empty, or ``reduce_directions`` is neither word.

    Examples:
        >>> pred, target = torch.zeros(1, 1, 3), torch.tensor([[[3.0, 0, 0], [0, 5, 0]]])
        >>> chamfer(pred, target), chamfer(pred, target, squared=False, reduce_directions="mean")
        (tensor([26.]), tensor([3.5000]))
    """
    _check(reduce_directions)
    if pred.dim() == 3 and pred.shape[1] == 0:
        raise ReconlabError("chamfer() got a prediction without points: leave empty shapes out, count them failed.")
    forward, backward = directed_distances(pred, target, squared)
    total = forward + backward
    return total if reduce_directions == "sum" else 0.5 * total


def _check(directions: str) -> None:
    if directions not in ("sum", "mean"):
        raise ReconlabError(f"Chamfer: directions is {directions!r}; expected 'sum' or 'mean'.")


class Chamfer(Loss):
    """Chamfer distance between sampled points of the shape and of the true surface, mean over the batch.

    Args:
        points: Points sampled on either side per step; None takes all that there are. A smaller cloud is used
            whole.
        squared: Whether distances are squared (AtlasNet's training loss).
        directions: ``sum`` or ``mean`` of the two directions.
    """

    needs = frozenset({"surface"})

    def __init__(self, points: int | None = 2500, squared: bool = True, directions: Directions = "sum") -> None:
        super().__init__()
        _check(directions)
        if points is not None and points < 1:
            raise ReconlabError(f"Chamfer: points is {points}; expected at least 1, or none for all.")
        self.points, self.squared, self.directions = points, squared, directions

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``"loss"`` and the two directed means (in the unit of the loss)."""
        target = batch.require("points", "Chamfer")
        if self.points is not None and target.shape[1] > self.points:
            target = target[:, send(torch.randperm(target.shape[1])[: self.points], target.device)]
        whole = self.points is None or (isinstance(shape, PointCloud) and shape.positions.shape[1] <= self.points)
        pred = shape.points(None if whole else self.points)
        forward, backward = directed_distances(pred, target.to(pred.dtype), self.squared)
        loss = (forward + backward).mean() * (1.0 if self.directions == "sum" else 0.5)
        return {
            "loss": loss,
            "pred_to_target": forward.detach().mean(),
            "target_to_pred": backward.detach().mean(),
        }

    def extra_repr(self) -> str:
        """The settings."""
        return f"points={self.points}, squared={self.squared}, directions={self.directions!r}"
