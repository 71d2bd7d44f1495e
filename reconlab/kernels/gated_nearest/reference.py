"""Nearest gated pixel in plain torch, in blocks of pixels: the definition of the kernel."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 1 << 20
"""Pairs of pixels held at once."""


def gated_nearest(gate: Tensor, mask: Tensor) -> Tensor:
    """For every pixel i of the mask ``argmin_j (|i - j| + 1) · gate_j``, -1 elsewhere; the lowest j of equals.

    Args:
        gate: ``(M, H, W)`` positive.
        mask: ``(M, H, W)`` bool.

    Returns:
        ``(M, H, W)`` int64 flat indices.
    """
    images, height, width = gate.shape
    index = torch.arange(height * width, device=gate.device)
    row, column = index // width, index % width
    out = torch.full((images, height * width), -1, dtype=torch.int64, device=gate.device)
    for m in range(images):
        for chosen in mask[m].flatten().nonzero()[:, 0].split(max(1, BLOCK // (height * width))):
            square = (row[chosen, None] - row).square() + (column[chosen, None] - column).square()
            cost = (square.to(gate.dtype).sqrt() + 1) * gate[m].flatten()
            out[m, chosen] = cost.argmin(1)
    return out.reshape(images, height, width)
