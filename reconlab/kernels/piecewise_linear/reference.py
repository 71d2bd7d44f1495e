"""The piecewise-linear score in plain torch with autograd: the definition of the kernel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def best_pieces(images: Tensor, weight: Tensor, bias: Tensor, terms: int) -> tuple[Tensor, Tensor]:
    """The largest response of each term's pieces, and which it is.

    Args:
        images: ``(M, 1, H, W)``.
        weight: ``(N P, 1, K, K)``, the P pieces of a term one after the other.
        bias: ``(N P,)``.
        terms: N.

    Returns:
        Both ``(M, N, H - K + 1, W - K + 1)``; of equal pieces the first.
    """
    response = F.conv2d(images, weight, bias)
    m, channels, h, w = response.shape
    return response.view(m, terms, channels // terms, h, w).max(dim=2)


def signed_sum(best: Tensor, signs: Tensor) -> Tensor:
    """``(M, 1, H', W')`` sum over the terms of ``(M, N, H', W')``, each times its sign."""
    return (best * signs.view(1, -1, 1, 1)).sum(dim=1, keepdim=True)


def scores(images: Tensor, weight: Tensor, bias: Tensor, signs: Tensor) -> Tensor:
    """``Σ_n δ_n max_p (W_np * I + b_np)`` with ``*`` the correlation without padding; see :func:`best_pieces`."""
    best, _ = best_pieces(images, weight, bias, len(signs))
    return signed_sum(best, signs)
