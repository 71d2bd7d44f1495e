"""RGBA of eight bits -> float on white and coverage, in one pass: what every picture of every sample goes through.

In PyTorch the same takes seven passes over the picture, and its antialiased interpolation is scalar code, so that it
cost more than decoding the file (``benchmarks/data_loading.py``). ``tests/datasets/test_pictures.py`` compares both.
"""

from __future__ import annotations

import numpy as np

from reconlab.kernels.jit import njit

_RGBA = "Array(uint8, 3, 'C', readonly=True)"  # what decoders and mapped files give may not be written to


@njit(f"void({_RGBA}, float32[:,:,::1], float32[:,::1])", nogil=True, cache=True)
def convert(rgba, rgb, alpha):  # type: ignore[no-untyped-def]
    """A picture at its own size: ``(H, W, 4)`` -> ``(3, H, W)`` on white and ``(H, W)``, written."""
    zero, one, full = np.float32(0), np.float32(1), np.float32(255)
    for y in range(rgba.shape[0]):
        for x in range(rgba.shape[1]):
            a = np.float32(rgba[y, x, 3]) / full
            alpha[y, x] = a
            for c in range(3):
                rgb[c, y, x] = min(max(np.float32(rgba[y, x, c]) / full * a + one - a, zero), one)


@njit(
    f"void({_RGBA}, int64[::1], float32[:,::1], int64[::1], float32[:,::1], float32[:,:,::1], float32[:,::1])",
    nogil=True,
    cache=True,
)
def resample(rgba, first_row, row_weights, first_column, column_weights, rgb, alpha):  # type: ignore[no-untyped-def]
    """A picture at another size: ``(H, W, 4)`` -> ``(3, S, T)`` on white and ``(S, T)``, written.

    Row ``s`` of the result is the sum of the rows ``first_row[s] + k``, weighted with ``row_weights[k, s]``; columns
    likewise. Rows are summed first, so that all inner loops run along contiguous RGBA.
    """
    height, width = rgba.shape[0], rgba.shape[1]
    zero, one, full = np.float32(0), np.float32(1), np.float32(255)
    flat = rgba.reshape(height, 4 * width)
    source = np.empty((height, 4 * width), np.float32)
    for y in range(height):
        given, made = flat[y], source[y]
        for x in range(width):
            a = np.float32(given[4 * x + 3]) / full
            made[4 * x] = np.float32(given[4 * x]) / full * a
            made[4 * x + 1] = np.float32(given[4 * x + 1]) / full * a
            made[4 * x + 2] = np.float32(given[4 * x + 2]) / full * a
            made[4 * x + 3] = a
    line = np.empty(4 * width, np.float32)
    wide = np.empty(4 * alpha.shape[1], np.float32)
    for s in range(alpha.shape[0]):
        line[:] = zero
        for k in range(row_weights.shape[0]):
            weight = row_weights[k, s]
            if weight != zero:
                row = source[first_row[s] + k]
                for x in range(4 * width):
                    line[x] += weight * row[x]
        wide[:] = zero
        for k in range(column_weights.shape[0]):
            for t in range(alpha.shape[1]):
                weight, x = column_weights[k, t], 4 * (first_column[t] + k)
                wide[4 * t] += weight * line[x]
                wide[4 * t + 1] += weight * line[x + 1]
                wide[4 * t + 2] += weight * line[x + 2]
                wide[4 * t + 3] += weight * line[x + 3]
        for t in range(alpha.shape[1]):
            a = min(max(wide[4 * t + 3], zero), one)
            alpha[s, t] = a
            for c in range(3):
                rgb[c, s, t] = min(max(min(max(wide[4 * t + c], zero), one) + one - a, zero), one)
