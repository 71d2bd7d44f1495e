"""What metrics on point clouds share: the points that are compared, and how inputs are checked."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from reconlab.batch import Batch
from reconlab.errors import ConversionError, ReconlabError
from reconlab.metrics.base import Metric, sample_generator
from reconlab.metrics.protocol import Protocol, scale_factor
from reconlab.shapes import ImplicitField, PointCloud, Shape, VoxelGrid


def check_clouds(pred: Tensor, target: Tensor, who: str) -> tuple[Tensor, Tensor, Tensor]:
    """Validate ``(B, N, 3)`` and ``(B, M, 3)``; bring both to one dtype of at least float32.

    Returns:
        The clouds, zeros in the place of samples with a coordinate that is not finite, and ``(B,)`` bool: finite.
    """
    if pred.ndim != 3 or target.ndim != 3 or pred.shape[-1] != 3 or target.shape[-1] != 3:
        raise ReconlabError(
            f"{who}: pred has shape {tuple(pred.shape)} and target {tuple(target.shape)}; "
            "expected (B, N, 3) and (B, M, 3)."
        )
    if pred.shape[0] != target.shape[0]:
        raise ReconlabError(f"{who}: pred holds {pred.shape[0]} clouds and target {target.shape[0]}.")
    if pred.shape[1] == 0 or target.shape[1] == 0:
        raise ReconlabError(f"{who}: a cloud without points ({pred.shape[1]} and {target.shape[1]}).")
    if not (pred.is_floating_point() and target.is_floating_point()):
        raise ReconlabError(f"{who}: dtypes are {pred.dtype} and {target.dtype}; expected floating point.")
    kind = torch.promote_types(torch.promote_types(pred.dtype, target.dtype), torch.float32)
    finite = pred.isfinite().all(-1).all(-1) & target.isfinite().all(-1).all(-1)
    keep = finite.reshape(-1, 1, 1)
    return torch.where(keep, pred.to(kind), 0.0), torch.where(keep, target.to(kind), 0.0), finite


class PointMetric(Metric):
    """A metric on points drawn from both surfaces, the same ones whatever the batch, its order or its rank.

    Args:
        protocols: See :class:`Metric`.
        points: Points drawn on each side; None takes all that a side has (a mesh has no number of its own and
            gives 2500). A side with fewer gives all that it has.
        scale: A key of :data:`~reconlab.metrics.protocol.SCALES`.
        seed: Changes the points drawn.
    """

    needs = frozenset({"surface"})
    with_normals = False

    def __init__(self, protocols: dict[str, Protocol], points: int | None, scale: str, seed: int) -> None:
        if points is not None and points < 1:
            raise ReconlabError(f"{type(self).__name__}: points is {points}; expected at least 1, or null for all.")
        super().__init__(protocols)
        self.points = points
        self.scale = scale
        self.seed = seed

    @abstractmethod
    def _compare(self, pred: list[Tensor], target: list[Tensor]) -> dict[str, Tensor]:
        """``{value: (b,)}`` of clouds ``[points (b, N, 3)]`` or ``[points, normals]`` of each side."""

    def _measure(self, shape: Shape, batch: Batch) -> tuple[list[int], dict[str, Tensor]]:
        if isinstance(shape, VoxelGrid | ImplicitField):
            shape = shape.mesh()  # once for the batch: one sample of a field costs as much as all
        truth = [batch.require("points", type(self).__name__)]
        if self.with_normals:
            truth.append(batch.require("normals", type(self).__name__))
        for field in truth:
            self._check_truth(field, batch)
        rows, preds, targets = [], [], []
        for i in torch.nonzero(shape.valid().cpu()).flatten().tolist():
            category, sample = batch.categories[i], batch.ids[i]
            try:
                pred = self._draw(shape[i], sample_generator(category, sample, "prediction", self.seed))
            except ConversionError:
                raise  # no sample of this kind of shape can be judged: a mistake in the config, not a failure
            except ReconlabError:
                continue  # this one has no surface to draw from
            dtype = torch.promote_types(pred[0].dtype, torch.float32)
            target = [field[i].to(pred[0].device, dtype) for field in truth]
            factor = scale_factor(target[0], self.scale)
            count = target[0].shape[0]
            if self.points is not None and self.points < count:
                generator = sample_generator(category, sample, "truth", self.seed)
                chosen = torch.randperm(count, generator=generator)[: self.points].to(target[0].device)
                target = [field[chosen] for field in target]
            pred[0], target[0] = pred[0].to(dtype) * factor, target[0] * factor
            rows.append(i)
            preds.append(pred)
            targets.append(target)
        if not rows:
            return [], {}
        parts = []
        same = len({p[0].shape for p in preds}) == 1
        for group in [slice(None)] if same else [slice(k, k + 1) for k in range(len(rows))]:
            pred = [torch.stack(field) for field in zip(*preds[group], strict=True)]
            parts.append(self._compare(pred, [torch.stack(field) for field in zip(*targets[group], strict=True)]))
        return rows, {name: torch.cat([part[name] for part in parts]) for name in self.protocols}

    def _draw(self, shape: Shape, generator: torch.Generator) -> list[Tensor]:
        """Points (and normals) of a batch of one, without the batch axis."""
        count = self.points
        if isinstance(shape, PointCloud):  # all that it has, rather than repetitions up to the count
            have = shape.positions.shape[1]
            count = have if count is None else min(count, have)
        if self.with_normals:
            points, normals = shape.surface(2500 if count is None else count, generator)
            return [points[0], normals[0]]
        return [shape.points(count, generator)[0]]

    def _check_truth(self, field: Tensor, batch: Batch) -> None:
        if field.shape[1] == 0:
            raise ReconlabError(f"{type(self).__name__}: the ground truth has no points.")
        finite = field.isfinite().all(-1).all(-1)
        if not bool(finite.all()):
            i = int(torch.nonzero(~finite)[0])
            raise ReconlabError(
                f"{type(self).__name__}: the ground truth of {batch.categories[i]}/{batch.ids[i]} holds values that "
                "are not finite: rebuild that sample (reconlab data check names all such files)."
            )
