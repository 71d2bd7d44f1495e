"""Pairwise repulsion of weighted points in the plane (DRWR's second term), with gradients, in O(J) memory."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reconlab.errors import ReconlabError
from reconlab.kernels.gpu import choose_backend
from reconlab.threads import parallel_map

__all__ = ["pairwise_repulsion"]

GRID_FROM = 4000
"""Points with weight from which ``auto`` takes the grid: 2 to 3 times as fast there, about 8 times at 16000."""


def pairwise_repulsion(
    points: Tensor,
    weights: Tensor,
    bias: Tensor | None = None,
    *,
    sigma: float = 1.0,
    squared: bool = False,
    backend: Literal["auto", "reference", "cpu", "cuda", "grid"] = "auto",
) -> Tensor:
    r"""``Σ_j Σ_k w_j w_k exp(-d(p_j, p_k) / σ + δ_j)`` of each image, the sum over j of DRWR's Eq. 5.

    The pairs ``j = k`` are included (they add ``w_j² e^δ_j`` and no force). It is a plain double sum: divide by
    ``J`` or ``J²`` for means. The gradient of the distance is taken as 0 between equal points.

    Args:
        points: ``(M, J, 2)`` positions, in the unit of ``sigma``.
        weights: ``(M, J)`` weights w.
        bias: ``(M, J)`` exponent bias δ of the row point, or None for 0.
        sigma: Decay length (or its square's unit with ``squared``), positive.
        squared: Use squared distances, a Gaussian with ``exp(-|p - p'|² / σ)``.
        backend: ``reference`` is blocked torch, ``cpu`` the fused kernel over all pairs, ``grid`` the kernel of
            O(J) time for distances (not their squares): value within 1e-3 and gradient by the points within
            1e-2 (rms of the error over rms of the gradient; 2e-2 for points on a thin line) of the exact ones,
            mostly 1e-5 and 1e-3; the gradients of weights and bias stay exact, O(J²). ``cuda`` is the fused
            kernel over all pairs on the GPU: O(J) memory, no atomics, so the same bits every time. ``auto`` takes
            ``grid`` for images with many weighted points and ``cpu`` for others, both for float32 on the CPU,
            ``cuda`` for float32 on a GPU, and ``reference`` otherwise.

    Returns:
        ``(M,)``, differentiable once by points, weights and bias. The work for the gradients of weights and
        bias is only done where they are required. An image with a position that is not finite gives NaN.

    Raises:
        ReconlabError: The shapes do not fit, ``sigma`` is not positive, or the backend does not take this input.

    Examples:
        >>> points = torch.tensor([[[0.0, 0.0], [3.0, 4.0]]])
        >>> pairwise_repulsion(points, torch.ones(1, 2), sigma=5.0)  # 2 + 2 exp(-1)
        tensor([2.7358])
    """
    if points.dim() != 3 or points.shape[-1] != 2:
        raise ReconlabError(f"pairwise_repulsion() takes points (M, J, 2), not {tuple(points.shape)}.")
    for name, given in (("weights", weights), ("bias", bias)):
        if given is not None and given.shape != points.shape[:2]:
            raise ReconlabError(
                f"pairwise_repulsion() takes {name} of shape {tuple(points.shape[:2])}, as its points, "
                f"not {tuple(given.shape)}."
            )
    if not sigma > 0:
        raise ReconlabError(f"pairwise_repulsion() takes a positive sigma, not {sigma}.")
    kind = torch.promote_types(torch.promote_types(points.dtype, weights.dtype), torch.float32)
    points, column = points.to(kind), weights.to(kind)
    row = column if bias is None else column * bias.to(kind).exp()
    value: Tensor = _Repulsion.apply(
        points, row, column, float(sigma), bool(squared), _path(backend, squared, points, row, column)
    )
    return value


def _path(backend: str, squared: bool, *tensors: Tensor) -> str:
    """``reference``, ``cuda``, or of the CPU ``cpu``, ``grid`` or ``either``."""
    if backend not in ("auto", "reference", "cpu", "cuda", "grid"):
        raise ReconlabError(
            f"pairwise_repulsion() has the backends auto, reference, cpu, cuda and grid, not {backend!r}."
        )
    if backend == "grid":
        if any(t.device.type != "cpu" or t.dtype != torch.float32 for t in tensors):
            raise ReconlabError("pairwise_repulsion(backend='grid') takes float32 tensors on the CPU.")
        if squared:
            raise ReconlabError("pairwise_repulsion(backend='grid') takes distances; use 'cpu' for squared ones.")
        return "grid"
    path = choose_backend("pairwise_repulsion", backend, *tensors)
    return "either" if backend == "auto" and path == "cpu" else path


class _Repulsion(torch.autograd.Function):
    """Gradients are computed with the value: the upstream gradient is one number per image."""

    @staticmethod
    def forward(
        ctx: Any, points: Tensor, row: Tensor, column: Tensor, sigma: float, squared: bool, path: str
    ) -> Tensor:
        weights_too = bool(ctx.needs_input_grad[1] or ctx.needs_input_grad[2])
        gradients: list[Tensor | None]
        if path == "cuda":
            from reconlab.kernels.pairwise import cuda

            points, row, column = points.contiguous(), row.contiguous(), column.contiguous()
            value, *gradients = cuda.repulsion(points, row, column, sigma, squared, weights_too)
        elif path == "reference":
            from reconlab.kernels.pairwise.reference import repulsion

            value, *gradients = repulsion(points, row, column, sigma, squared)
        else:
            least = {"grid": 0, "either": GRID_FROM}.get(path)
            value, *gradients = _on_cpu(points, row, column, sigma, squared, weights_too, least)
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        by_points, by_row, by_column = ctx.saved_tensors
        need = ctx.needs_input_grad
        return (
            by_points * grad[:, None, None] if need[0] else None,
            by_row * grad[:, None] if need[1] else None,
            by_column * grad[:, None] if need[2] else None,
            None,
            None,
            None,
        )


def _on_cpu(
    points: Tensor, row: Tensor, column: Tensor, sigma: float, squared: bool, weights_too: bool, least: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Value and gradients; images with ``least`` weighted points or more by the grid, where it applies."""
    from reconlab.kernels.pairwise import cpu

    points, row, column = (x.detach().contiguous() for x in (points, row, column))
    value = torch.zeros(points.shape[0])
    by_points, by_row, by_column = (torch.zeros_like(x) for x in (points, row, column))
    p, a, b = points.numpy(), row.numpy(), column.numpy()
    gp, ga, gb = by_points.numpy(), by_row.numpy(), by_column.numpy()
    finite = torch.isfinite(points).all(-1).all(-1).tolist()
    busy = ((row != 0) | (column != 0)).sum(1).tolist()
    coarse = None
    if least is not None and not squared and max(busy, default=-1) >= least:
        from reconlab.kernels.pairwise import grid  # compiled only where it is used

        coarse = grid.repulsion

    def one(m: int) -> None:
        if not finite[m]:
            value[m] = torch.nan
            gp[m] = torch.nan
            return
        done = coarse(p[m], a[m], b[m], sigma, gp[m]) if coarse is not None and busy[m] >= (least or 0) else None
        value[m] = cpu.repulsion(p[m], a[m], b[m], sigma, squared, gp[m]) if done is None else done
        if weights_too:
            cpu.weight_gradients(p[m], a[m], b[m], sigma, squared, ga[m], gb[m])

    parallel_map(one, range(len(p)))
    return value, by_points, by_row, by_column
