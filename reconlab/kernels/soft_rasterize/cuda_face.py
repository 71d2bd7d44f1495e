# mypy: allow-untyped-defs, allow-untyped-calls
"""Of one triangle or of many at once: its corners, whether it is drawn, its edges, and the pixels near it."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def corners(xyz, face, valid):
    """The nine coordinates of faces; 0 where not ``valid``."""
    at = xyz + face.to(tl.int64) * 9
    ax = tl.load(at, mask=valid, other=0.0)
    ay = tl.load(at + 1, mask=valid, other=0.0)
    az = tl.load(at + 2, mask=valid, other=0.0)
    bx = tl.load(at + 3, mask=valid, other=0.0)
    by = tl.load(at + 4, mask=valid, other=0.0)
    bz = tl.load(at + 5, mask=valid, other=0.0)
    cx = tl.load(at + 6, mask=valid, other=0.0)
    cy = tl.load(at + 7, mask=valid, other=0.0)
    cz = tl.load(at + 8, mask=valid, other=0.0)
    return ax, ay, az, bx, by, bz, cx, cy, cz


@triton.jit
def twice_area(ok, ax, ay, bx, by, cx, cy):
    """Twice the signed area in float64; 0 where not ``ok``."""
    x = tl.where(ok, ax, 0.0).to(tl.float64)
    y = tl.where(ok, ay, 0.0).to(tl.float64)
    abx = tl.where(ok, bx, 0.0).to(tl.float64) - x
    aby = tl.where(ok, by, 0.0).to(tl.float64) - y
    acx = tl.where(ok, cx, 0.0).to(tl.float64) - x
    acy = tl.where(ok, cy, 0.0).to(tl.float64) - y
    return abx * acy - aby * acx


@triton.jit
def drawn(ax, ay, az, bx, by, bz, cx, cy, cz, near, far, large, least):
    """Whether a face is drawn, and twice its signed area in float64.

    Comparisons are such that NaN fails them. Differences and products of float32 numbers of like size are exact in
    float64, and so lines have no area: callers must forbid fused multiply-adds, which round once where this rounds
    twice and would leave two equal products a difference.
    """
    ok = (az >= near) & (bz >= near) & (cz >= near) & (az <= far) & (bz <= far) & (cz <= far)
    ok &= (tl.abs(ax) < large) & (tl.abs(bx) < large) & (tl.abs(cx) < large)
    ok &= (tl.abs(ay) < large) & (tl.abs(by) < large) & (tl.abs(cy) < large)
    area2 = twice_area(ok, ax, ay, bx, by, cx, cy)
    return ok & (tl.abs(area2) > least), area2


@triton.jit
def anticlockwise(ok, area2, ax, ay, az, bx, by, bz, cx, cy, cz):
    """The corners turned so that distances across edges are positive inside, and the places of the last two.

    Of a face that is not ``ok``, some numbers with which nothing overflows.
    """
    turn = area2 <= 0
    b = tl.where(turn, 2, 1)
    c = tl.where(turn, 1, 2)
    ax, ay, az = tl.where(ok, ax, 0.0), tl.where(ok, ay, 0.0), tl.where(ok, az, 1.0)
    bx, cx = tl.where(ok, tl.where(turn, cx, bx), 1.0), tl.where(ok, tl.where(turn, bx, cx), 0.0)
    by, cy = tl.where(ok, tl.where(turn, cy, by), 0.0), tl.where(ok, tl.where(turn, by, cy), 1.0)
    bz, cz = tl.where(ok, tl.where(turn, cz, bz), 1.0), tl.where(ok, tl.where(turn, bz, cz), 1.0)
    inv_area = 1.0 / tl.where(ok, tl.abs(area2), 1.0).to(tl.float32)
    return ax, ay, az, bx, by, bz, cx, cy, cz, b, c, inv_area


@triton.jit
def first_last(low, high, radius, size):
    """First and last pixel whose centre lies within ``radius`` of [low, high]; last < first if there is none."""
    first = tl.minimum(tl.maximum(tl.ceil((low - radius + 1.0) * (size * 0.5) - 0.5), 0.0), size * 1.0)
    last = tl.maximum(tl.minimum(tl.floor((high + radius + 1.0) * (size * 0.5) - 0.5), size - 1.0), -1.0)
    return first.to(tl.int32), last.to(tl.int32)


@triton.jit
def edge(ax, ay, bx, by):
    """Length and unit vector of the edge from a to b."""
    dx = bx - ax
    dy = by - ay
    length = tl.sqrt(dx * dx + dy * dy)
    return length, dx / length, dy / length


@triton.jit
def beside(u, v, x, y, length):
    """Of a point (u, v) from an edge's beginning: distance across the edge, positive inside, and squared distance."""
    along = u * x + v * y
    across = v * x - u * y
    beyond = tl.maximum(tl.maximum(-along, along - length), 0.0)
    return across, across * across + beyond * beyond


@triton.jit
def clip(x):
    """``x`` clipped to [0, 1]."""
    return tl.minimum(tl.maximum(x, 0.0), 1.0)
