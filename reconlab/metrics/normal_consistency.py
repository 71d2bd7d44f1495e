"""Normal consistency: do the surfaces face the same way where they are closest?"""

from __future__ import annotations

import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.kernels.nearest import nearest
from reconlab.metrics.base import or_nan
from reconlab.metrics.points import PointMetric, check_clouds
from reconlab.metrics.protocol import Protocol


def normal_consistency(
    pred: Tensor, pred_normals: Tensor, target: Tensor, target_normals: Tensor, signed: bool = False
) -> Tensor:
    """Mean ``|n · n'|`` between every point's normal and its nearest neighbour's, both directions averaged.

    Occupancy Networks (Mescheder et al. 2019). Each direction is a mean over its own cloud.

    Args:
        pred: ``(B, N, 3)`` points, any floating dtype.
        pred_normals: ``(B, N, 3)``; normalised here, a zero normal counts 0.
        target: ``(B, M, 3)`` in the same unit; N and M may differ.
        target_normals: ``(B, M, 3)``.
        signed: Keep the sign of ``n · n'``: flipped faces then count against the prediction.

    Returns:
        ``(B,)`` in [0, 1] ([-1, 1] when signed), 1 best; NaN for a sample with a value that is not finite.

    Raises:
        ReconlabError: Shapes do not fit, or a cloud is empty.

    Example:
        >>> point = torch.zeros(1, 1, 3)
        >>> up, tilted = torch.tensor([[[0.0, 0, 2]]]), torch.tensor([[[0.0, -3, -4]]])
        >>> normal_consistency(point, up, point, tilted), normal_consistency(point, up, point, tilted, signed=True)
        (tensor([0.8000]), tensor([-0.8000]))
    """
    if pred_normals.shape != pred.shape or target_normals.shape != target.shape:
        raise ReconlabError(
            f"normal_consistency: normals have shapes {tuple(pred_normals.shape)} and {tuple(target_normals.shape)}; "
            f"expected those of the points, {tuple(pred.shape)} and {tuple(target.shape)}."
        )
    pred, target, finite = check_clouds(pred, target, "normal_consistency")
    pred_normals, target_normals, finite_normals = check_clouds(pred_normals, target_normals, "normal_consistency")
    kind = torch.promote_types(pred.dtype, pred_normals.dtype)
    ours = torch.nn.functional.normalize(pred_normals.to(kind), dim=-1)
    theirs = torch.nn.functional.normalize(target_normals.to(kind), dim=-1)
    forth = _agreement(ours, theirs, nearest(pred, target)[1], signed)
    back = _agreement(theirs, ours, nearest(target, pred)[1], signed)
    return or_nan((forth + back) / 2, finite & finite_normals)


def _agreement(normals: Tensor, others: Tensor, index: Tensor, signed: bool) -> Tensor:
    cosine = (normals * others.gather(1, index.unsqueeze(-1).expand(-1, -1, 3))).sum(-1)
    return (cosine if signed else cosine.abs()).mean(1)


class NormalConsistency(PointMetric):
    """Mean normal consistency over samples, ``normal_consistency`` (``..._signed``).

    Args:
        points: Points drawn from each side; null for all that there are.
        signed: Keep the sign: flipped faces count against the prediction.
        seed: Changes the points drawn.
        name: Key of the value.

    Example:
        >>> from reconlab.batch import Batch
        >>> from reconlab.shapes import PointCloud
        >>> up = torch.tensor([[[0.0, 0, 1]]])
        >>> metric = NormalConsistency()
        >>> metric.update(PointCloud(up, -up), Batch(ids=["a"], categories=["chair"], points=up, normals=up))
        >>> metric.compute()["normal_consistency"].item()
        1.0
    """

    needs = frozenset({"surface", "normals"})
    higher_is_better = True
    with_normals = True

    def __init__(
        self, points: int | None = 2500, signed: bool = False, seed: int = 0, name: str | None = None
    ) -> None:
        protocol = Protocol(
            name=name or ("normal_consistency_signed" if signed else "normal_consistency"),
            formula=(
                "(mean_P n(p)·n(nn(p)) + mean_T n(t)·n(nn(t))) / 2"
                if signed
                else "(mean_P |n(p)·n(nn(p))| + mean_T |n(t)·n(nn(t))|) / 2"
            ),
            unit="cosine",
            squared=None,
            points="all" if points is None else points,
            alignment="none",
            scale="object",
            threshold=None,
            factor=1.0,
            higher_is_better=True,
            worst_value=-1.0 if signed else 0.0,
            source="Occupancy Networks (2019): 100 000 points",
        )
        super().__init__({protocol.name: protocol}, points, "object", seed)
        self.signed = signed

    def _compare(self, pred: list[Tensor], target: list[Tensor]) -> dict[str, Tensor]:
        return {self.name: normal_consistency(pred[0], pred[1], target[0], target[1], signed=self.signed)}
