"""Pairwise repulsion of weighted points in the plane (DRWR's second term), with gradients, in O(J) memory."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reconlab.errors import ReconlabError
from reconlab.threads import parallel_map

__all__ = ["pairwise_repulsion"]


def pairwise_repulsion(
    points: Tensor,
    weights: Tensor,
    bias: Tensor | None = None,
    *,
    sigma: float = 1.0,
    squared: bool = False,
    backend: Literal["auto", "reference", "cpu"] = "auto",
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
        backend: ``auto`` takes the fused kernel for float32 on the CPU, blocked torch otherwise; ``reference``
            and ``cpu`` force one. Approximations for many points will be further names here.

    Returns:
        ``(M,)``, differentiable once by points, weights and bias. The work for the gradients of weights and
        bias is only done where they are required. An image with a position that is not finite gives NaN.

    Raises:
        ReconlabError: The shapes do not fit, or ``sigma`` is not positive.

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
    value: Tensor = _Repulsion.apply(points, row, column, float(sigma), bool(squared), backend)
    return value


class _Repulsion(torch.autograd.Function):
    """Gradients are computed with the value: the upstream gradient is one number per image."""

    @staticmethod
    def forward(
        ctx: Any, points: Tensor, row: Tensor, column: Tensor, sigma: float, squared: bool, backend: str
    ) -> Tensor:
        host = points.device.type == "cpu" and points.dtype == torch.float32
        if backend == "cpu" and not host:
            raise ReconlabError("pairwise_repulsion(backend='cpu') takes float32 tensors on the CPU.")
        if backend not in ("auto", "cpu", "reference"):
            raise ReconlabError(f"pairwise_repulsion() has the backends auto, cpu and reference, not {backend!r}.")
        if host and backend != "reference":
            weights_too = bool(ctx.needs_input_grad[1] or ctx.needs_input_grad[2])
            value, *gradients = _on_cpu(points, row, column, sigma, squared, weights_too)
        else:
            from reconlab.kernels.pairwise.reference import repulsion

            value, *gradients = repulsion(points, row, column, sigma, squared)
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
    points: Tensor, row: Tensor, column: Tensor, sigma: float, squared: bool, weights_too: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from reconlab.kernels.pairwise import cpu

    points, row, column = (x.detach().contiguous() for x in (points, row, column))
    value = torch.zeros(points.shape[0])
    by_points, by_row, by_column = (torch.zeros_like(x) for x in (points, row, column))
    p, a, b = points.numpy(), row.numpy(), column.numpy()
    gp, ga, gb = by_points.numpy(), by_row.numpy(), by_column.numpy()
    finite = torch.isfinite(points).all(-1).all(-1).tolist()

    def one(m: int) -> None:
        if not finite[m]:
            value[m] = torch.nan
            gp[m] = torch.nan
            return
        value[m] = cpu.repulsion(p[m], a[m], b[m], sigma, squared, gp[m])
        if weights_too:
            cpu.weight_gradients(p[m], a[m], b[m], sigma, squared, ga[m], gb[m])

    parallel_map(one, range(len(p)))
    return value, by_points, by_row, by_column
