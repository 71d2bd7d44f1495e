"""Nearest neighbours in plain torch, brute force in blocks of bounded memory: the definition of the kernel."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCKS = {"cpu": 1 << 18, "cuda": 1 << 25}
"""Pairs held at once (a few float tensors of this size): cache-sized on the CPU, enough to fill a GPU."""


def nearest_neighbours(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """For every source point the closest finite target point.

    Args:
        source: ``(B, N, 3)``.
        target: ``(B, M, 3)``, ``M >= 1``.

    Returns:
        Squared distances ``(B, N)``, infinite where nothing finite compares, and indices ``(B, N)`` int64, the
        lowest one on ties and 0 where the distance is infinite.
    """
    batch, count = source.shape[:2]
    rows = max(1, BLOCKS.get(source.device.type, 1 << 20) // max(1, target.shape[1]))
    distance = source.new_empty((batch, count))
    index = torch.empty((batch, count), dtype=torch.int64, device=source.device)
    for b in range(batch):
        t = target[b].T
        for i in range(0, count, rows):
            s = source[b, i : i + rows]
            square = (s[:, 0:1] - t[0]).square_()
            square += (s[:, 1:2] - t[1]).square_()
            square += (s[:, 2:3] - t[2]).square_()
            square = square.nan_to_num_(nan=torch.inf, posinf=torch.inf)
            best = square.argmin(1)
            index[b, i : i + rows] = best
            distance[b, i : i + rows] = square.gather(1, best[:, None])[:, 0]
    return distance, index
