"""Convolutions on the cells of an octree's level."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reconlab.errors import ReconlabError

ROWS = 4096
"""Cells whose 27 neighbours are gathered at once: bounds the memory, and keeps them in a cache."""


def octree_deconv(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A transposed convolution of filter 2³ and stride 2: each cell makes its eight children.

    Args:
        features: ``(N, C)``.
        weight: ``(C, 8, C')``, the filter's offset being ``4 dx + 2 dy + dz``.
        bias: ``(C',)``.

    Returns:
        ``(8 N, C')``, in the order of :func:`reconlab.kernels.octree.children`. Differentiable.
    """
    outputs = weight.shape[2]
    return (features @ weight.flatten(1)).reshape(-1, outputs) + bias


def octree_conv(features: Tensor, weight: Tensor, bias: Tensor, table: Tensor) -> Tensor:
    """A 3³ convolution (a correlation, as torch's) of the cells present; absent ones count as zero.

    Memory is O(N C) beside the table, forward and backward.

    Args:
        features: ``(N, C)``.
        weight: ``(27, C, C')``.
        bias: ``(C',)``.
        table: ``(N, 27)`` of :func:`reconlab.kernels.octree.neighbours`.

    Returns:
        ``(N, C')``. Differentiable once.

    Raises:
        ReconlabError: The shapes do not fit.
    """
    if table.shape != (len(features), 27) or weight.dim() != 3 or weight.shape[:2] != (27, features.shape[-1]):
        raise ReconlabError(
            f"octree_conv() takes features (N, C), weight (27, C, C') and table (N, 27), not "
            f"{tuple(features.shape)}, {tuple(weight.shape)} and {tuple(table.shape)}."
        )
    # In the weights' type: autocast reaches the way there of a function of our own, but not its way back.
    with torch.autocast(features.device.type, enabled=False):
        out: Tensor = _Conv.apply(features.to(weight.dtype), weight, table)
        return out + bias


class _Conv(torch.autograd.Function):
    """Gathers in both directions: the table is symmetric, so the adjoint is the mirrored filter's convolution."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(features, weight, table)
        return _gathered(features, weight, table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, table = ctx.saved_tensors
        by_features = by_weight = None
        if ctx.needs_input_grad[0]:
            by_features = _gathered(grad, weight.flip(0).transpose(1, 2), table)
        if ctx.needs_input_grad[1]:
            padded = _with_zero(features)
            flat = torch.zeros_like(weight.flatten(0, 1))
            for rows in table.split(ROWS):
                columns = padded.index_select(0, rows.reshape(-1)).reshape(len(rows), len(flat))
                flat.addmm_(columns.t(), grad[: len(rows)])
                grad = grad[len(rows) :]
            by_weight = flat.reshape(weight.shape)
        return by_features, by_weight, None


def _gathered(features: Tensor, weight: Tensor, table: Tensor) -> Tensor:
    padded, flat = _with_zero(features), weight.flatten(0, 1)
    parts = [
        padded.index_select(0, rows.reshape(-1)).reshape(len(rows), len(flat)) @ flat for rows in table.split(ROWS)
    ]
    return torch.cat(parts) if parts else features.new_zeros(0, weight.shape[2])


def _with_zero(features: Tensor) -> Tensor:
    return torch.cat([features, features.new_zeros(1, features.shape[1])])
