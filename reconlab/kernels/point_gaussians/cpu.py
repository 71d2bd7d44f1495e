"""Sums of Gaussians at points on the CPU: each point touches only the pixels of its support.

A point's window is whole vectors of 16 pixels wide on an image padded on all sides, so that the inner loops have a
constant count and no test of a border, and LLVM turns them into one vector operation a row. Pixels outside the
window are at least ``REACH`` standard deviations away: a contribution left out is below exp(-36) = 2.4e-16.
"""

from __future__ import annotations

import math

import numpy as np

from reconlab.kernels.jit import njit
from reconlab.kernels.pairwise.cpu import FAST, FLOOR, LOG2_E, _exp2

LANES = 16
REACH = math.sqrt(72.0)


def window(variance: float) -> tuple[int, int]:
    """Rows and columns of a point's window: even, the columns a multiple of the vector's width."""
    rows = 2 * math.ceil(REACH * math.sqrt(variance))
    return rows, LANES * math.ceil(rows / LANES)


def padded(size: int, variance: float) -> tuple[int, int]:
    """Rows and columns of the padded image; the image begins at ``window(variance)``."""
    rows, columns = window(variance)
    return size + 2 * rows, size + 2 * columns


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy", inline="always")
def _fill(weights, offsets, first, position, scale):
    """Gaussians (a power of 2) of the pixels from ``first``, and their differences to the position."""
    start = np.float32(first) - position
    for i in range(weights.shape[0]):
        d = start + np.float32(i)
        offsets[i] = d
        weights[i] = _exp2(max(scale * d * d, FLOOR))


@njit("void(float32[:,::1], float32[:,::1], int64, float64)", nogil=True, cache=True, fastmath=FAST)
def splat(points, image, size, variance):
    """Add one image's points ``(J, 2)`` to its padded ``image``."""
    rows = image.shape[0] - size >> 1
    columns = image.shape[1] - size >> 1
    scale = np.float32(-LOG2_E / (2.0 * variance))
    wx, ox = np.empty(columns, np.float32), np.empty(columns, np.float32)
    wy, oy = np.empty(rows, np.float32), np.empty(rows, np.float32)
    for j in range(points.shape[0]):
        x, y = points[j, 0], points[j, 1]
        if not (-columns / 2 < x < size - 1 + columns / 2 and -rows / 2 < y < size - 1 + rows / 2):
            continue
        left = np.int64(math.floor(x)) - (columns >> 1) + 1
        top = np.int64(math.floor(y)) - (rows >> 1) + 1
        _fill(wx, ox, left, x, scale)
        _fill(wy, oy, top, y, scale)
        for v in range(rows):
            w = wy[v]
            for c in range(0, columns, LANES):
                line = image[top + rows + v, left + columns + c : left + columns + c + LANES]
                across = wx[c : c + LANES]
                for u in range(LANES):
                    line[u] += w * across[u]


@njit("void(float32[:,::1], float32[:,::1], int64, float64, float32[:,::1])", nogil=True, cache=True, fastmath=FAST)
def splat_gradient(points, grad, size, variance, by_points):
    """One image's gradient by the points ``(J, 2)``, from that of its padded image (0 in the padding)."""
    rows = grad.shape[0] - size >> 1
    columns = grad.shape[1] - size >> 1
    scale = np.float32(-LOG2_E / (2.0 * variance))
    back = np.float32(1.0 / variance)
    wx, ox = np.empty(columns, np.float32), np.empty(columns, np.float32)
    wy, oy = np.empty(rows, np.float32), np.empty(rows, np.float32)
    sum_w, sum_d = np.empty(columns, np.float32), np.empty(columns, np.float32)
    for j in range(points.shape[0]):
        x, y = points[j, 0], points[j, 1]
        by_points[j, 0] = by_points[j, 1] = np.float32(0)
        if not (-columns / 2 < x < size - 1 + columns / 2 and -rows / 2 < y < size - 1 + rows / 2):
            continue
        left = np.int64(math.floor(x)) - (columns >> 1) + 1
        top = np.int64(math.floor(y)) - (rows >> 1) + 1
        _fill(wx, ox, left, x, scale)
        _fill(wy, oy, top, y, scale)
        for u in range(columns):
            sum_w[u] = sum_d[u] = np.float32(0)
        for v in range(rows):
            w, d = wy[v], wy[v] * oy[v]
            for c in range(0, columns, LANES):
                line = grad[top + rows + v, left + columns + c : left + columns + c + LANES]
                into_w, into_d = sum_w[c : c + LANES], sum_d[c : c + LANES]
                for u in range(LANES):
                    into_w[u] += w * line[u]
                    into_d[u] += d * line[u]
        gx, gy = np.float32(0), np.float32(0)
        for u in range(columns):
            gx += wx[u] * ox[u] * sum_w[u]
            gy += wx[u] * sum_d[u]
        by_points[j, 0], by_points[j, 1] = back * gx, back * gy
