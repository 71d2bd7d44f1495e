"""The pixel that is cheapest by distance times gate, without a table of all pairs of pixels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.threads import parallel_map

__all__ = ["gated_nearest"]


def gated_nearest(gate: Tensor, mask: Tensor, *, backend: Literal["auto", "reference", "cpu"] = "auto") -> Tensor:
    """For every pixel i of the mask, the pixel j that minimises ``(|i - j| + 1) · gate_j``.

    Args:
        gate: ``(M, H, W)`` positive weights.
        mask: ``(M, H, W)`` bool, the pixels asked for.
        backend: ``auto`` takes the numba search for float32 on the CPU, torch in blocks otherwise.

    Returns:
        ``(M, H, W)`` int64 flat indices ``row · W + column``, -1 outside of the mask; of equal costs the lowest
        index. Not differentiable: gather the gates there. Where a gate is NaN the result is some pixel.

    Raises:
        ReconlabError: The shapes do not fit, or the backend does not.

    Example:
        >>> gate = torch.tensor([[[9.0, 9.0, 9.0, 1.0]]])
        >>> gated_nearest(gate, gate > 2)  # 1 · 4, 1 · 3 and 1 · 2 are all below 9
        tensor([[[ 3,  3,  3, -1]]])
    """
    if gate.dim() != 3 or gate.shape != mask.shape or mask.dtype != torch.bool:
        raise ReconlabError(
            f"gated_nearest() takes a gate (M, H, W) and a bool mask of its shape, "
            f"not {tuple(gate.shape)} and {mask.dtype} {tuple(mask.shape)}."
        )
    host = gate.device.type == "cpu" and gate.dtype == torch.float32
    if backend not in ("auto", "cpu", "reference") or (backend == "cpu" and not host):
        raise ReconlabError(
            f"gated_nearest(): backend {backend!r} does not fit; auto and reference take any tensor, "
            f"cpu takes float32 on the CPU."
        )
    if backend == "reference" or not host:
        from reconlab.kernels.gated_nearest.reference import gated_nearest as reference

        return reference(gate.detach(), mask)
    from reconlab.kernels.gated_nearest import cpu

    out = torch.full(gate.shape, -1, dtype=torch.int64)
    g, k, o = gate.detach().contiguous().numpy(), mask.contiguous().numpy(), out.numpy()
    parallel_map(lambda m: cpu.gated_nearest(g[m], k[m], o[m]), range(len(g)))
    return out
