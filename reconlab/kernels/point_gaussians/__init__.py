"""Sums of isotropic Gaussians at points, on a pixel grid, with gradients, in O(points + pixels) memory."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reconlab.errors import ReconlabError
from reconlab.threads import parallel_map

__all__ = ["point_gaussians"]

Backend = Literal["auto", "reference", "cpu"]


def point_gaussians(points: Tensor, size: int, variance: float = 0.5, *, backend: Backend = "auto") -> Tensor:
    r"""``Σ_j exp(-|q - p_j|² / 2σ²)`` at every pixel q of each image.

    The ``cpu`` kernel leaves out pixels more than √72 σ away from a point: its value differs from the reference by
    less than ``J · 2.4e-16``, besides rounding.

    Args:
        points: ``(M, J, 2)`` positions (x, y) in pixels: pixel (row v, column u) is at (u, v).
        size: ``V``, pixels a side.
        variance: σ², in square pixels.
        backend: ``auto`` takes the numba kernel for float32 on the CPU, matrix products in torch otherwise;
            ``reference`` and ``cpu`` force one.

    Returns:
        ``(M, V, V)``, differentiable once by the points. An image with a position that is NaN is
        NaN; an infinite one is too far away to count.

    Raises:
        ReconlabError: A shape or a setting does not fit.

    Example:
        >>> point_gaussians(torch.tensor([[[1.0, 0.0]]]), 2)
        tensor([[[0.3679, 1.0000],
                 [0.1353, 0.3679]]])
    """
    if points.dim() != 3 or points.shape[-1] != 2:
        raise ReconlabError(f"point_gaussians() takes points (M, J, 2), not {tuple(points.shape)}.")
    if size < 1 or not variance > 0:
        raise ReconlabError(
            f"point_gaussians() takes at least one pixel and a positive variance, not {size} and {variance}."
        )
    if backend not in ("auto", "cpu", "reference"):
        raise ReconlabError(f"point_gaussians() has the backends auto, cpu and reference, not {backend!r}.")
    points = points.to(torch.promote_types(points.dtype, torch.float32))
    host = points.device.type == "cpu" and points.dtype == torch.float32
    if backend == "cpu" and not host:
        raise ReconlabError("point_gaussians(backend='cpu') takes float32 tensors on the CPU.")
    value: Tensor = _Splat.apply(points, int(size), float(variance), host and backend != "reference")
    return value


class _Splat(torch.autograd.Function):
    """The backward pass computes the Gaussians anew: only the points are kept."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, size: int, variance: float, fast: bool) -> Tensor:
        ctx.save_for_backward(points)
        ctx.variance, ctx.fast = variance, fast
        if fast:
            return _on_cpu(points, size, variance)
        from reconlab.kernels.point_gaussians.reference import splat

        return splat(points, size, variance)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (points,) = ctx.saved_tensors
        if ctx.fast:
            by_points = _gradient_on_cpu(points, grad, ctx.variance)
        else:
            from reconlab.kernels.point_gaussians.reference import splat_gradient

            by_points = splat_gradient(points, grad, ctx.variance)
        return by_points, None, None, None


def _on_cpu(points: Tensor, size: int, variance: float) -> Tensor:
    from reconlab.kernels.point_gaussians import cpu

    positions = points.detach().contiguous().numpy()
    undefined = torch.isnan(points).flatten(1).any(1).tolist()
    rows, columns = cpu.window(variance)
    image = torch.zeros(points.shape[0], *cpu.padded(size, variance))
    target = image.numpy()

    def one(m: int) -> None:
        if undefined[m]:
            image[m] = torch.nan
        else:
            cpu.splat(positions[m], target[m], size, variance)

    parallel_map(one, range(len(positions)))
    return image[:, rows : rows + size, columns : columns + size].clone()


def _gradient_on_cpu(points: Tensor, grad: Tensor, variance: float) -> Tensor:
    from reconlab.kernels.point_gaussians import cpu

    size = grad.shape[-1]
    rows, columns = cpu.window(variance)
    image = torch.zeros(points.shape[0], *cpu.padded(size, variance))
    image[:, rows : rows + size, columns : columns + size] = grad
    positions, source = points.detach().contiguous().numpy(), image.numpy()
    by_points = torch.empty_like(points, memory_format=torch.contiguous_format)
    out = by_points.numpy()
    parallel_map(lambda m: cpu.splat_gradient(positions[m], source[m], size, variance, out[m]), range(len(out)))
    return by_points
