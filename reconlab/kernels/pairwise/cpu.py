"""Weighted pairwise repulsion on the CPU: value and gradient in one pass over the pairs, O(J) memory.

Every pair is visited once and acts on both its points. The inner loops are written so that LLVM vectorises
them (16 floats at a time with AVX-512): no branch, a polynomial exponential (numba finds no vector library),
float32 throughout, NumPy's rules for division. Check the speed after any change, not only the value.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from reconlab.kernels.jit import njit

# 2^f on [-1/2, 1/2]: least-squares fit of relative error at Chebyshev nodes, at most 8e-8 off.
C0 = np.float32(1.00000007)
C1 = np.float32(0.69314695)
C2 = np.float32(0.24022122)
C3 = np.float32(0.05550743)
C4 = np.float32(0.00967546)
C5 = np.float32(0.00132670)
HALF = np.float32(0.5)
ONE = np.float32(1.0)
FLOOR = np.float32(-100.0)  # exponents of 2 below this are as good as 0 and stay clear of denormals
TINY = np.float32(1e-24)  # keeps 1/d finite between equal points, whose difference vector is 0
FAR = np.float32(1e15)  # positions beyond it would overflow when squared; they feel no force anyway
LOG2_E = math.log2(math.e)
FAST = {"reassoc", "contract", "arcp", "nsz"}


@intrinsic
def _as_float(_typing: Any, _bits: Any) -> Any:
    """Reinterpret the bits of an int32 as a float32."""

    def code(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), code


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy", inline="always")
def _exp2(y):
    """2^y for y in [-100, 0]."""
    n = np.int32(y - HALF)
    f = y - np.float32(n)
    e = ((((C5 * f + C4) * f + C3) * f + C2) * f + C1) * f + C0
    return e * _as_float(np.int32((n + np.int32(127)) << np.int32(23)))


@njit(nogil=True, cache=True, inline="always")
def _bounded(value):
    return min(max(value, -FAR), FAR)


ROW = (
    "Tuple((float32, float32, float32))(float32[::1], float32[::1], float32[::1], float32[::1], float32[::1], "
    "float32[::1], float32, float32, float32, float32, float32)"
)


@njit(ROW, nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _pairs_distance(x, y, a, b, ux, uy, xj, yj, aj, bj, scale):
    """Pairs of one point with those that follow it: their sum, the force on it, the reactions into ux, uy.

    Distances are scaled after the subtraction, which is exact for close points: their direction matters.
    """
    s, gx, gy = np.float32(0), np.float32(0), np.float32(0)
    for k in range(x.shape[0]):
        dx = x[k] - xj
        dy = y[k] - yj
        d = math.sqrt(dx * dx + dy * dy + TINY)
        c = (a[k] * bj + aj * b[k]) * _exp2(max(-scale * d, FLOOR))
        s += c
        q = c * (ONE / d)
        tx = q * dx
        ty = q * dy
        gx += tx
        gy += ty
        ux[k] -= tx
        uy[k] -= ty
    return s, gx, gy


@njit(ROW, nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _pairs_square(x, y, a, b, ux, uy, xj, yj, aj, bj, scale):
    """As above with squared distances."""
    s, gx, gy = np.float32(0), np.float32(0), np.float32(0)
    for k in range(x.shape[0]):
        dx = x[k] - xj
        dy = y[k] - yj
        c = (a[k] * bj + aj * b[k]) * _exp2(max(-scale * (dx * dx + dy * dy), FLOOR))
        s += c
        tx = c * dx
        ty = c * dy
        gx += tx
        gy += ty
        ux[k] -= tx
        uy[k] -= ty
    return s, gx, gy


@njit("float64(float32[:,::1], float32[::1], float32[::1], float64, boolean, float32[:,::1])", nogil=True, cache=True)
def repulsion(points, row, column, sigma, squared, by_points):
    """One image's value; its gradient by the points is written. Points without weight take no part."""
    count = 0
    for j in range(points.shape[0]):
        count += row[j] != 0.0 or column[j] != 0.0
    scale = np.float32(LOG2_E / sigma)
    back = np.float32(2.0 / sigma if squared else 1.0 / sigma)
    x, y = np.empty(count, np.float32), np.empty(count, np.float32)
    a, b = np.empty(count, np.float32), np.empty(count, np.float32)
    ux, uy = np.zeros(count, np.float32), np.zeros(count, np.float32)
    at = 0
    for j in range(points.shape[0]):
        if row[j] != 0.0 or column[j] != 0.0:
            x[at], y[at] = _bounded(points[j, 0]), _bounded(points[j, 1])
            a[at], b[at] = row[j], column[j]
            at += 1
    total = 0.0
    for j in range(count):
        n = j + 1
        if squared:
            s, gx, gy = _pairs_square(x[n:], y[n:], a[n:], b[n:], ux[n:], uy[n:], x[j], y[j], a[j], b[j], scale)
        else:
            s, gx, gy = _pairs_distance(x[n:], y[n:], a[n:], b[n:], ux[n:], uy[n:], x[j], y[j], a[j], b[j], scale)
        total += s + np.float64(a[j]) * b[j]
        ux[j] += gx
        uy[j] += gy
    at = 0
    for j in range(points.shape[0]):
        if row[j] != 0.0 or column[j] != 0.0:
            by_points[j, 0], by_points[j, 1] = back * ux[at], back * uy[at]
            at += 1
        else:
            by_points[j, 0], by_points[j, 1] = 0.0, 0.0
    return total


SUMS = "Tuple((float32, float32))(float32[::1], float32[::1], float32[::1], float32[::1], float32, float32, float32)"


@njit(SUMS, nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _sums_distance(x, y, a, b, xj, yj, scale):
    sa, sb = np.float32(0), np.float32(0)
    for k in range(x.shape[0]):
        dx = x[k] - xj
        dy = y[k] - yj
        e = _exp2(max(-scale * math.sqrt(dx * dx + dy * dy), FLOOR))
        sa += a[k] * e
        sb += b[k] * e
    return sa, sb


@njit(SUMS, nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _sums_square(x, y, a, b, xj, yj, scale):
    sa, sb = np.float32(0), np.float32(0)
    for k in range(x.shape[0]):
        dx = x[k] - xj
        dy = y[k] - yj
        e = _exp2(max(-scale * (dx * dx + dy * dy), FLOOR))
        sa += a[k] * e
        sb += b[k] * e
    return sa, sb


@njit(
    "void(float32[:,::1], float32[::1], float32[::1], float64, boolean, float32[::1], float32[::1])",
    nogil=True,
    cache=True,
)
def weight_gradients(points, row, column, sigma, squared, by_row, by_column):
    """One image's gradients by the two weights (only needed when gradients flow through them)."""
    scale = np.float32(LOG2_E / sigma)
    x, y = np.empty(points.shape[0], np.float32), np.empty(points.shape[0], np.float32)
    for j in range(points.shape[0]):
        x[j], y[j] = _bounded(points[j, 0]), _bounded(points[j, 1])
    for j in range(points.shape[0]):
        if squared:
            by_column[j], by_row[j] = _sums_square(x, y, row, column, x[j], y[j], scale)
        else:
            by_column[j], by_row[j] = _sums_distance(x, y, row, column, x[j], y[j], scale)
