"""Nearest neighbours between batches of point clouds, with gradients of the squared distances."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reconlab.errors import ReconlabError
from reconlab.kernels.gpu import Backend, choose_backend
from reconlab.threads import parallel_map

__all__ = ["nearest"]


def nearest(source: Tensor, target: Tensor, backend: Backend = "auto") -> tuple[Tensor, Tensor]:
    """Squared distance to, and index of, the closest target point of every source point.

    Gradients reach both clouds through the matched pairs (the match itself is piecewise constant). A source
    point with a coordinate that is not finite, and every source point of a sample whose targets are all not
    finite, gets distance infinity, index 0 and a zero gradient; target points that are not finite are never
    chosen. Squares that overflow float32 (coordinates beyond 1e19) count as infinite too.

    Args:
        source: ``(B, N, 3)`` points, any unit. Half precision is computed in float32.
        target: ``(B, M, 3)`` points in the same unit, ``M >= 1``.
        backend: ``cpu`` is a grid search; ``cuda`` compares all pairs on the GPU, in O(B N + B M) memory, and in
            deterministic mode sorts the pairs by their targets before it adds up the gradient, which else is
            added by atomics; ``reference`` is blocked torch. ``auto`` takes the one of the tensors' device for
            float32, and ``reference`` otherwise.

    Returns:
        ``(B, N)`` squared distances, differentiable once, and ``(B, N)`` int64 indices into ``target``; of
        equally close points the lowest index.

    Raises:
        ReconlabError: The shapes do not fit, ``target`` has no points, or the backend does not take this input.

    Examples:
        >>> distance, index = nearest(torch.zeros(1, 1, 3), torch.tensor([[[0.0, 2, 0], [0, 0, 1]]]))
        >>> distance, index
        (tensor([[1.]]), tensor([[1]]))
    """
    if source.dim() != 3 or target.dim() != 3 or source.shape[-1] != 3 or target.shape[-1] != 3:
        raise ReconlabError(
            f"nearest() takes clouds (B, N, 3) and (B, M, 3), not {tuple(source.shape)} and {tuple(target.shape)}."
        )
    if source.shape[0] != target.shape[0]:
        raise ReconlabError(
            f"nearest() takes equally many clouds on both sides, not {source.shape[0]} and {target.shape[0]}."
        )
    if target.shape[1] == 0:
        raise ReconlabError("nearest() got a target without points: leave empty shapes out before matching.")
    kind = torch.promote_types(torch.promote_types(source.dtype, target.dtype), torch.float32)
    source, target = source.to(kind), target.to(kind)
    distance, index = _Nearest.apply(source, target, choose_backend("nearest", backend, source, target))
    return distance, index


class _Nearest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, source: Tensor, target: Tensor, path: str) -> tuple[Tensor, Tensor]:
        if path == "cuda":
            from reconlab.kernels.nearest import cuda

            source, target = source.contiguous(), target.contiguous()
            distance, index = cuda.nearest_neighbours(source, target)
        elif path == "cpu":
            distance, index = _on_cpu(source, target)
        else:
            from reconlab.kernels.nearest.reference import nearest_neighbours

            distance, index = nearest_neighbours(source, target)
        ctx.save_for_backward(source, target, index, None if path == "cuda" else torch.isfinite(distance))
        ctx.mark_non_differentiable(index)
        ctx.path = path
        return distance, index

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        source, target, index, matched = ctx.saved_tensors
        if ctx.path == "cuda":
            from reconlab.kernels.nearest import cuda

            return *cuda.gradients(source, target, index, grad.contiguous(), ctx.needs_input_grad[1]), None
        where = index[..., None].expand(-1, -1, 3)
        step = 2.0 * grad[..., None] * (source - target.gather(1, where))
        step = torch.where(matched[..., None], step, torch.zeros((), dtype=step.dtype, device=step.device))
        back = torch.zeros_like(target).scatter_add_(1, where, -step) if ctx.needs_input_grad[1] else None
        return step, back, None


def _on_cpu(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    from reconlab.kernels.nearest import cpu

    distance = torch.empty(source.shape[:2], dtype=torch.float32)
    index = torch.empty(source.shape[:2], dtype=torch.int64)
    s, t = source.detach().contiguous().numpy(), target.detach().contiguous().numpy()
    d, i = distance.numpy(), index.numpy()
    parallel_map(lambda b: cpu.nearest_neighbours(s[b], t[b], d[b], i[b]), range(len(s)))
    return distance, index
