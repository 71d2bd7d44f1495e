"""The quadtree of the O(J) repulsion: how points are put into cells, and the Chebyshev basis that cells carry."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from reconlab.kernels.jit import njit

LEAF = 64
"""A cell with more points is divided."""

COARSEST, FINEST = 2, -12
"""Base-2 logarithm of the largest and the smallest side of a cell, in sigma. Wider cells would not be smooth."""

REACH = 5
"""Largest offset of cells in the table; coarsest cells farther apart (16 sigma, a factor of 1e-7) are left out."""

WIDEST = 32
"""Coarsest cells along a side: wider clouds are left to the exact kernel."""

FEWEST = 256
"""Fewer points are left to the exact kernel too."""

P = 5
NODES = P * P
ROOM = 32  # nodes, filled up to whole vectors
RANK = 16
SPAN = 2 * REACH + 1

_T = np.cos((2 * np.arange(P) + 1) * np.pi / (2 * P))
# Lagrange polynomials of the nodes, by their coefficients: (node, power).
_BASIS = np.linalg.inv(np.vander(_T, P, increasing=True)).T
# Basis of a cell at the nodes of its lower and its upper half: (half, node of the half, node of the cell).
_HALVES = np.stack([np.vander(0.5 * _T + shift, P, increasing=True) @ _BASIS.T for shift in (-0.5, 0.5)])
HALVES = _HALVES.astype(np.float32)
NODE = _T.astype(np.float32)
BASIS = tuple(tuple(np.float32(c) for c in polynomial) for polynomial in _BASIS)
SLOPE = tuple(tuple(np.float32(m * polynomial[m]) for m in range(1, P)) for polynomial in _BASIS)


@functools.cache
def tables() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The kernel ``exp(-distance)`` between two cells, on the few patterns of nodal values that it can tell apart.

    A 5 x 5 grid is as good as its 16 leading patterns for cells that do not touch, so cells exchange those.

    Returns:
        Patterns ``(level, node, 16)``, and kernel ``(level, x offset, y offset, source, target)``.
    """
    x, y = (axis.ravel() for axis in np.meshgrid(_T / 2, _T / 2, indexing="ij"))
    offset = np.arange(-REACH, REACH + 1)
    dx = offset[:, None, None, None] + x[:, None] - x  # source minus target, in sides
    dy = offset[None, :, None, None] + y[:, None] - y
    distance = np.hypot(dx, dy)
    away = np.maximum(abs(offset[:, None]), abs(offset))
    apart, close = away > 1, (away > 1) & (away <= 3)
    weight = np.outer(*(2 * [(1 - _T**2) ** 0.25])).ravel()
    levels = COARSEST - FINEST + 1
    patterns = np.zeros((levels, NODES, RANK), np.float32)
    kernel = np.zeros((levels, SPAN, SPAN, RANK, RANK), np.float32)
    for level in range(levels):
        full = np.exp(-distance * 2.0 ** (level + FINEST)) * weight[:, None] * weight
        square = np.einsum("oij,okj->ik", full[close], full[close])
        leading = np.linalg.eigh(square)[1][:, ::-1][:, :RANK]
        patterns[level] = leading / weight[:, None]
        kernel[level][apart] = leading.T @ full[apart] @ leading
    return patterns, kernel


@njit(nogil=True, cache=True, inline="always")
def _cubic(c, t):
    return ((c[3] * t + c[2]) * t + c[1]) * t + c[0]


@njit(nogil=True, cache=True, inline="always")
def _quartic(c, t):
    return (((c[4] * t + c[3]) * t + c[2]) * t + c[1]) * t + c[0]


@njit(nogil=True, cache=True, inline="always")
def node_weights(t):
    """Lagrange polynomials at t."""
    c = BASIS
    return _quartic(c[0], t), _quartic(c[1], t), _quartic(c[2], t), _quartic(c[3], t), _quartic(c[4], t)


@njit(nogil=True, cache=True, inline="always")
def node_slopes(t):
    """Their derivatives."""
    c = SLOPE
    return _cubic(c[0], t), _cubic(c[1], t), _cubic(c[2], t), _cubic(c[3], t), _cubic(c[4], t)


F1, F2, F3, F5 = "float32[::1]", "float32[:,::1]", "float32[:,:,::1]", "float32[:,:,:,:,::1]"
I1, I2 = "int32[::1]", "int32[:,::1]"
D3 = "float64[:,:,::1]"  # potentials: slopes in small cells are small differences of them


@njit(f"Tuple(({I2}, {I1}))({F1}, {F1}, int64, int64, int64)", nogil=True, cache=True)
def build(x, y, top, wide, high):
    """The quadtree of points in [0, wide] x [0, high] cells of side ``2^top``; x and y are reordered.

    Returns:
        Cells ``(C, 7)``: level, x and y index at that level, first point, end, first child (-1: a leaf), end;
        children follow their parents. And the order of the points.
    """
    count = x.shape[0]
    roots = wide * high
    order = np.empty(count, np.int32)
    cells = np.empty((4 * roots + 64 + count // 4, 7), np.int32)
    tx, ty, to = np.empty(count, np.float32), np.empty(count, np.float32), np.empty(count, np.int32)
    key = np.empty(count, np.int32)
    fill = np.zeros(roots + 1, np.int32)
    side = 2.0**top
    for j in range(count):
        key[j] = min(int(x[j] / side), wide - 1) * high + min(int(y[j] / side), high - 1)
        fill[key[j] + 1] += 1
    used = 0
    for r in range(roots):
        fill[r + 1] += fill[r]
        if fill[r + 1] > fill[r]:
            c = cells[used]
            c[0], c[1], c[2], c[3], c[4], c[5], c[6] = top, r // high, r % high, fill[r], fill[r + 1], -1, -1
            used += 1
    for j in range(count):
        to[fill[key[j]]] = j
        fill[key[j]] += 1
    tx[:], ty[:] = x, y
    for j in range(count):
        x[j], y[j], order[j] = tx[to[j]], ty[to[j]], to[j]
    at = 0
    start = np.zeros(5, np.int32)
    while at < used:
        level, first, end = cells[at, 0], cells[at, 3], cells[at, 4]
        if end - first > LEAF and level > FINEST:
            if used + 4 > cells.shape[0]:
                more = np.empty((2 * cells.shape[0], 7), np.int32)
                more[:used] = cells[:used]
                cells = more
            half = 2.0 ** (level - 1)
            cx = np.float32((2 * cells[at, 1] + 1) * half)
            cy = np.float32((2 * cells[at, 2] + 1) * half)
            start[:] = 0
            for j in range(first, end):
                key[j] = 2 * (x[j] >= cx) + (y[j] >= cy)
                start[key[j] + 1] += 1
                tx[j], ty[j], to[j] = x[j], y[j], order[j]
            cells[at, 5] = used
            for q in range(4):
                start[q + 1] += start[q]
                if start[q + 1] > start[q]:
                    c = cells[used]
                    c[0], c[1], c[2] = level - 1, 2 * cells[at, 1] + q // 2, 2 * cells[at, 2] + q % 2
                    c[3], c[4], c[5], c[6] = first + start[q], first + start[q + 1], -1, -1
                    used += 1
            cells[at, 6] = used
            for j in range(first, end):
                to_place = first + start[key[j]]
                start[key[j]] += 1
                x[to_place], y[to_place], order[to_place] = tx[j], ty[j], to[j]
        at += 1
    return cells[:used].copy(), order
