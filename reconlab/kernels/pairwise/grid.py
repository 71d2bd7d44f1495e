"""Weighted pairwise repulsion in O(J): exact between close points, interpolated between cells that lie apart.

A quadtree in which every cell carries a 5 x 5 grid of Chebyshev nodes (a "black-box" fast multipole method, Fong
and Darve 2009): weights are spread from the points to the nodes of their cell, from cell to cell by a table of
kernel values, and the potential is read back, with its slope, at the points. Cells that touch are summed pair by
pair. The cusp of ``exp(-r)`` at 0 lies in that exact part at every scale, which is what a single mesh (of the
image, or of the cloud) cannot offer: it blurs a cluster that is smaller than its spacing.

Positions are in units of sigma from the cloud's corner; the sides of cells are powers of 2, so that cell centres
are exact in float32.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from reconlab.kernels.jit import njit
from reconlab.kernels.pairwise.cpu import FAR, FAST, FLOOR, LOG2_E, ONE, _exp2, _pairs_distance
from reconlab.kernels.pairwise.grid_tree import (
    COARSEST,
    D3,
    F1,
    F2,
    F3,
    F5,
    FEWEST,
    FINEST,
    HALVES,
    I1,
    I2,
    NODE,
    NODES,
    RANK,
    REACH,
    ROOM,
    WIDEST,
    P,
    build,
    node_slopes,
    node_weights,
    tables,
)


@njit(f"void({I2}, {F1}, {F1}, {F1}, {F1}, {F3})", nogil=True, cache=True, fastmath=FAST)
def gather(cells, x, y, a, b, source):
    """Weights of the nodes of every cell: ``(C, 2, 16)``, of the rows and of the columns."""
    part = np.empty((P, P), np.float32)
    for n in range(cells.shape[0] - 1, -1, -1):
        c = cells[n]
        into = source[n]
        if c[5] < 0:
            inverse = np.float32(2.0 ** (1 - c[0]))
            cx, cy = np.float32(2 * c[1] + 1), np.float32(2 * c[2] + 1)
            for j in range(c[3], c[4]):
                wx = node_weights(inverse * x[j] - cx)
                wy = node_weights(inverse * y[j] - cy)
                for p in range(P):
                    aw, bw = a[j] * wx[p], b[j] * wx[p]
                    for q in range(P):
                        into[0, P * p + q] += aw * wy[q]
                        into[1, P * p + q] += bw * wy[q]
            continue
        for k in range(c[5], c[6]):
            hx, hy = HALVES[cells[k, 1] & 1], HALVES[cells[k, 2] & 1]
            for w in range(2):
                part[:] = 0
                for m in range(P):
                    for p in range(P):
                        for q in range(P):
                            part[p, q] += hx[m, p] * source[k, w, P * m + q]
                for p in range(P):
                    for m in range(P):
                        for q in range(P):
                            into[w, P * p + q] += part[p, m] * hy[m, q]


@njit(f"void({I2}, {D3})", nogil=True, cache=True, fastmath=FAST)
def descend(cells, target):
    """Potentials of the nodes of every cell are handed down to its children."""
    part = np.empty((P, P))
    for n in range(cells.shape[0]):
        for k in range(cells[n, 5], cells[n, 6]):
            hx, hy = HALVES[cells[k, 1] & 1], HALVES[cells[k, 2] & 1]
            for w in range(2):
                part[:] = 0
                for m in range(P):
                    for p in range(P):
                        for q in range(P):
                            part[m, q] += hx[m, p] * target[n, w, P * p + q]
                for m in range(P):
                    for p in range(P):
                        for q in range(P):
                            target[k, w, P * m + p] += part[m, q] * hy[p, q]


@njit(f"float64({I2}, {F1}, {F1}, {F1}, {F1}, {D3}, {F1}, {F1})", nogil=True, cache=True, fastmath=FAST)
def read(cells, x, y, a, b, target, gx, gy):
    """The value of the interpolated part; its slopes, per sigma, are written to gx and gy."""
    ta, tb = np.empty(NODES, np.float32), np.empty(NODES, np.float32)
    total = 0.0
    for n in range(cells.shape[0]):
        c = cells[n]
        if c[5] >= 0:
            continue
        inverse = np.float32(2.0 ** (1 - c[0]))
        cx, cy = np.float32(2 * c[1] + 1), np.float32(2 * c[2] + 1)
        level = target[n, 1, NODES // 2]  # polynomials reproduce constants: what is left is small
        for i in range(NODES):
            ta[i] = target[n, 0, i] - target[n, 0, NODES // 2]
            tb[i] = target[n, 1, i] - level
        s = 0.0
        for j in range(c[3], c[4]):
            u, v = inverse * x[j] - cx, inverse * y[j] - cy
            wx, wy = node_weights(u), node_weights(v)
            sx, sy = node_slopes(u), node_slopes(v)
            aj, bj = a[j], b[j]
            value, dx, dy = np.float32(0), np.float32(0), np.float32(0)
            for p in range(P):
                own, both, slope = np.float32(0), np.float32(0), np.float32(0)
                for q in range(P):
                    mixed = aj * tb[P * p + q] + bj * ta[P * p + q]
                    own += wy[q] * tb[P * p + q]
                    both += wy[q] * mixed
                    slope += sy[q] * mixed
                value += wx[p] * own
                dx += sx[p] * both
                dy += wx[p] * slope
            s += aj * (level + value)
            gx[j] = inverse * dx
            gy[j] = inverse * dy
        total += s
    return total


@njit(f"void({F2}, {F2}, {F2})", nogil=True, cache=True, fastmath=FAST)
def _translate(table, source, target):
    """Potential in one cell of the weights in another, both by their patterns."""
    for i in range(0, RANK, 4):
        a0, a1, a2, a3 = source[0, i], source[0, i + 1], source[0, i + 2], source[0, i + 3]
        b0, b1, b2, b3 = source[1, i], source[1, i + 1], source[1, i + 2], source[1, i + 3]
        for n in range(RANK):
            t0, t1, t2, t3 = table[i, n], table[i + 1, n], table[i + 2, n], table[i + 3, n]
            target[0, n] += a0 * t0 + a1 * t1 + (a2 * t2 + a3 * t3)
            target[1, n] += b0 * t0 + b1 * t1 + (b2 * t2 + b3 * t3)


POINT = f"Tuple((float32, float32, float32))({F1}, {F1}, {F2}, {F2}, float32, float32, float32, float32, float32)"


@njit(POINT, nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _point_and_nodes(x, y, source, target, xj, yj, aj, bj, scale):
    """A point and the nodes of a smaller cell: its share of the value and of the slope; potential at the nodes."""
    s, gx, gy = np.float32(0), np.float32(0), np.float32(0)
    for k in range(ROOM):
        dx = x[k] - xj
        dy = y[k] - yj
        d = math.sqrt(dx * dx + dy * dy)
        e = _exp2(max(-scale * d, FLOOR))
        target[0, k] += aj * e
        target[1, k] += bj * e
        s += source[1, k] * e
        q = (source[0, k] * bj + source[1, k] * aj) * e * (ONE / d)
        gx += q * dx
        gy += q * dy
    return aj * s, gx, gy


@njit(
    f"Tuple((float64, {I1}, {I2}))({I2}, {F3}, {F5}, {F1}, {F1}, {F1}, {F1}, {F3}, {D3}, {F1}, {F1})",
    nogil=True,
    cache=True,
    fastmath=FAST,
)
def interact(cells, patterns, table, x, y, a, b, source, target, gx, gy):
    """Pairs of cells that lie apart act on each other through their nodes; those that touch are listed.

    Returns:
        The value of pairs of a point and a cell's nodes, and the touching leaves: the entry of each cell's last
        partner (-1: none), and entries ``(partner, entry before)``.
    """
    count = cells.shape[0]
    last = np.full(count, -1, np.int32)
    pairs = np.empty((16 * count + 64, 2), np.int32)
    listed = 0
    stack = np.empty((1024, 2), np.int32)
    nx, ny = np.full(ROOM, FAR, np.float32), np.full(ROOM, FAR, np.float32)
    nodes, felt = np.zeros((2, ROOM), np.float32), np.zeros((2, ROOM), np.float32)
    brief, heard = np.zeros((count, 2, RANK), np.float32), np.zeros((count, 2, RANK), np.float32)
    for c in range(count):
        at = cells[c, 0] - FINEST
        for w in range(2):
            for i in range(NODES):
                for r in range(RANK):
                    brief[c, w, r] += source[c, w, i] * patterns[at, i, r]
    total = 0.0
    roots = 0
    while roots < count and cells[roots, 0] == cells[0, 0]:
        roots += 1
    for i in range(roots):
        for k in range(i, roots):
            if max(abs(cells[i, 1] - cells[k, 1]), abs(cells[i, 2] - cells[k, 2])) > REACH:
                continue
            stack[0, 0], stack[0, 1] = i, k
            depth = 1
            while depth > 0:
                depth -= 1
                m, n = stack[depth]
                if cells[m, 0] < cells[n, 0]:
                    m, n = n, m  # m is the coarser
                if m == n and cells[m, 5] >= 0:
                    for p in range(cells[m, 5], cells[m, 6]):
                        for q in range(p, cells[m, 6]):
                            stack[depth, 0], stack[depth, 1] = p, q
                            depth += 1
                    continue
                down = cells[m, 0] - cells[n, 0]
                ox = cells[m, 1] << down
                oy = cells[m, 2] << down
                far = (1 << down) + 1
                ox, oy = cells[n, 1] - ox, cells[n, 2] - oy
                if -1 <= ox < far and -1 <= oy < far:
                    if cells[m, 5] < 0 and cells[n, 5] < 0:
                        if listed == pairs.shape[0]:
                            more = np.empty((2 * listed, 2), np.int32)
                            more[:listed] = pairs
                            pairs = more
                        if m != n:
                            pairs[listed, 0], pairs[listed, 1] = n, last[m]
                            last[m] = listed
                            listed += 1
                    elif cells[n, 5] < 0:
                        for p in range(cells[m, 5], cells[m, 6]):
                            stack[depth, 0], stack[depth, 1] = p, n
                            depth += 1
                    elif cells[m, 5] < 0:
                        for p in range(cells[n, 5], cells[n, 6]):
                            stack[depth, 0], stack[depth, 1] = m, p
                            depth += 1
                    else:
                        for p in range(cells[m, 5], cells[m, 6]):
                            for q in range(cells[n, 5], cells[n, 6]):
                                stack[depth, 0], stack[depth, 1] = p, q
                                depth += 1
                elif down == 0:
                    at = cells[m, 0] - FINEST
                    _translate(table[at, ox + REACH, oy + REACH], brief[n], heard[m])
                    _translate(table[at, REACH - ox, REACH - oy], brief[m], heard[n])
                else:
                    half = np.float32(2.0 ** (cells[n, 0] - 1))
                    for p in range(P):
                        for q in range(P):
                            nx[P * p + q] = half * (np.float32(2 * cells[n, 1] + 1) + NODE[p])
                            ny[P * p + q] = half * (np.float32(2 * cells[n, 2] + 1) + NODE[q])
                    nodes[:, :NODES] = source[n]
                    felt[:] = 0
                    for j in range(cells[m, 3], cells[m, 4]):
                        s, ux, uy = _point_and_nodes(nx, ny, nodes, felt, x[j], y[j], a[j], b[j], np.float32(LOG2_E))
                        total += s
                        gx[j] += ux
                        gy[j] += uy
                    target[n] += felt[:, :NODES]
    for c in range(count):
        at = cells[c, 0] - FINEST
        for w in range(2):
            for i in range(NODES):
                s = np.float32(0)
                for r in range(RANK):
                    s += heard[c, w, r] * patterns[at, i, r]
                target[c, w, i] += s
    return total, last, pairs


@njit(f"float64({I2}, {I1}, {I2}, {F1}, {F1}, {F1}, {F1}, float64, {F1}, {F1})", nogil=True, cache=True)
def near(cells, last, pairs, x, y, a, b, sigma, gx, gy):
    """Points of touching leaves, pair by pair, each leaf against all its partners at once."""
    scale = np.float32(LOG2_E / sigma)
    room = x.shape[0] + 16
    bx, by = np.empty(room, np.float32), np.empty(room, np.float32)
    ba, bb = np.empty(room, np.float32), np.empty(room, np.float32)
    ux, uy = np.empty(room, np.float32), np.empty(room, np.float32)
    total = 0.0
    for m in range(cells.shape[0]):
        if cells[m, 5] >= 0:
            continue
        count = 0
        n, e = m, last[m]
        while True:
            for j in range(cells[n, 3], cells[n, 4]):
                bx[count], by[count], ba[count], bb[count] = x[j], y[j], a[j], b[j]
                count += 1
            if e < 0:
                break
            n, e = pairs[e]
        while count % 16:  # no remainder for the vectorised loop
            bx[count], by[count], ba[count], bb[count] = bx[0], by[0], 0.0, 0.0
            count += 1
        ux[:count] = 0
        uy[:count] = 0
        for j in range(cells[m, 4] - cells[m, 3]):
            aj, bj = ba[j], bb[j]
            total += np.float64(aj) * bj
            ba[j], bb[j] = 0.0, 0.0  # has met all: done with
            k = j & -16
            s, hx, hy = _pairs_distance(
                bx[k:count],
                by[k:count],
                ba[k:count],
                bb[k:count],
                ux[k:count],
                uy[k:count],
                bx[j],
                by[j],
                aj,
                bj,
                scale,
            )
            total += s
            ux[j] += hx
            uy[j] += hy
        count = 0
        n, e = m, last[m]
        while True:
            for j in range(cells[n, 3], cells[n, 4]):
                gx[j] += ux[count]
                gy[j] += uy[count]
                count += 1
            if e < 0:
                break
            n, e = pairs[e]
    return total


def repulsion(
    points: NDArray[np.float32],
    row: NDArray[np.float32],
    column: NDArray[np.float32],
    sigma: float,
    by_points: NDArray[np.float32],
) -> float | None:
    """One image's value; its gradient by the points is written. None if the cloud is too wide or too small for it."""
    keep = np.flatnonzero((row != 0) | (column != 0))
    if len(keep) < FEWEST:
        return None
    ox, oy = points[keep, 0], points[keep, 1]
    x0, y0 = float(ox.min()), float(oy.min())
    extent = (float(ox.max()) - x0) / sigma, (float(oy.max()) - y0) / sigma
    if max(extent) > WIDEST * 2.0**COARSEST:
        return None
    by_points[:] = 0
    top = min(max(math.ceil(math.log2(max(*extent, 2.0**FINEST))), FINEST), COARSEST)
    wide, high = (max(1, math.ceil(e / 2.0**top)) for e in extent)
    x = ((ox.astype(np.float64) - x0) / sigma).astype(np.float32)
    y = ((oy.astype(np.float64) - y0) / sigma).astype(np.float32)
    cells, order = build(x, y, top, wide, high)
    keep, ox, oy = keep[order], ox[order], oy[order]
    a, b = row[keep], column[keep]
    source = np.zeros((len(cells), 2, NODES), np.float32)
    target = np.zeros(source.shape)
    gx, gy = np.zeros_like(x), np.zeros_like(x)
    fx, fy = np.zeros_like(x), np.zeros_like(x)
    gather(cells, x, y, a, b, source)
    total, last, pairs = interact(cells, *tables(), x, y, a, b, source, target, gx, gy)
    descend(cells, target)
    total += read(cells, x, y, a, b, target, fx, fy)
    total += near(cells, last, pairs, ox, oy, a, b, sigma, gx, gy)
    by_points[keep, 0], by_points[keep, 1] = (gx + fx) / sigma, (gy + fy) / sigma
    return total
