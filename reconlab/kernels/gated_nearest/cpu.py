"""Nearest gated pixel on the CPU: search in growing squares around each pixel.

A pixel r away costs at least ``(r + 1) · min gate``, so the search ends at the square whose bound passes the best
found. Where the gates are low (a covered silhouette) that is after a square or two.
"""

from __future__ import annotations

import math

import numpy as np

from reconlab.kernels.jit import njit

ONE = np.float32(1.0)


@njit("void(float32[:,::1], boolean[:,::1], int64[:,::1])", nogil=True, cache=True)
def gated_nearest(gate, mask, out):
    """One image; ``out`` is written at the mask's pixels."""
    height, width = gate.shape
    lowest = gate[0, 0]
    for y in range(height):
        for x in range(width):
            lowest = min(lowest, gate[y, x])
    for y in range(height):
        for x in range(width):
            if not mask[y, x]:
                continue
            best, at = gate[y, x], y * width + x
            r = 1
            while r < max(height, width) and np.float32(r + 1) * lowest <= best:
                for v in range(max(y - r, 0), min(y + r, height - 1) + 1):
                    step = 1 if abs(v - y) == r else 2 * r
                    for u in range(x - r, x + r + 1, step):
                        if 0 <= u < width:
                            square = (v - y) * (v - y) + (u - x) * (u - x)
                            cost = (math.sqrt(np.float32(square)) + ONE) * gate[v, u]
                            k = v * width + u
                            if cost < best or (cost == best and k < at):
                                best, at = cost, k
                r += 1
            out[y, x] = at
