"""Localised patch matching in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def best_offsets(query: Tensor, key: Tensor, radius: int) -> Tensor:
    """Flat index into ``key``'s grid of the best match of every query patch.

    ``argmin over |dy|, |dx| <= radius of mean_c (query[y, x, c] - key[y + dy, x + dx, c])²``; the window is
    clipped at the border. Among equals the undisplaced patch wins, then the first in row order.

    Args:
        query: ``(M, gh, gw, C)``.
        key: ``(M, gh, gw, C)``.
        radius: In patches.

    Returns:
        ``(M, gh, gw)`` int64 in ``[0, gh * gw)``.
    """
    m, gh, gw, _ = query.shape
    best = (query - key).square().mean(dim=-1)
    rows = torch.arange(gh, device=query.device).view(gh, 1)
    columns = torch.arange(gw, device=query.device).view(1, gw)
    index = (rows * gw + columns).expand(m, gh, gw).clone()
    own = index.clone()
    for dy in range(-min(radius, gh - 1), min(radius, gh - 1) + 1):
        for dx in range(-min(radius, gw - 1), min(radius, gw - 1) + 1):
            if dy == 0 and dx == 0:
                continue
            here = (slice(None), slice(max(0, -dy), gh - max(0, dy)), slice(max(0, -dx), gw - max(0, dx)))
            there = (slice(None), slice(max(0, dy), gh - max(0, -dy)), slice(max(0, dx), gw - max(0, -dx)))
            distance = (query[here] - key[there]).square().mean(dim=-1)
            better = distance < best[here]
            best[here] = torch.where(better, distance, best[here])
            index[here] = torch.where(better, own[there], index[here])
    return index


def gather_distance(query: Tensor, key: Tensor, index: Tensor) -> Tensor:
    """``mean_c (query[y, x, c] - key[index[y, x], c])²``, differentiable in both: ``(M, gh, gw)``."""
    m, gh, gw, c = query.shape
    chosen = key.reshape(m, gh * gw, c).gather(1, index.reshape(m, gh * gw, 1).expand(-1, -1, c))
    return (query - chosen.view(m, gh, gw, c)).square().mean(dim=-1)
