"""Triangles for flat polygons, convex or not."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]


def ear_clip(polygon: ArrayLike) -> Index:
    """Triangulate a simple polygon, convex or not.

    Args:
        polygon: (K, 2) corners, either turning sense.

    Returns:
        (K - 2, 3) indices, counter-clockwise triangles.

    >>> ear_clip([[0, 0], [2, 0], [2, 2], [1, .5], [0, 2]]).shape
    (3, 3)
    """
    p = np.asarray(polygon, float)
    area = 0.5 * np.sum(p[:, 0] * np.roll(p[:, 1], -1) - p[:, 1] * np.roll(p[:, 0], -1))
    idx = np.arange(len(p)) if area > 0 else np.arange(len(p))[::-1]
    out: list[tuple[int, int, int]] = []
    while len(idx) > 3:
        last, nxt = _turn(idx, -1), _turn(idx, 1)
        a, b, c = p[last], p[idx], p[nxt]
        cross = _cross2(b - a, c - b)
        longest = np.maximum(np.maximum(_sq(b - a), _sq(c - b)), _sq(a - c))
        quality = cross / longest  # 0 for slivers; the best ear first keeps triangles well shaped
        reflex = p[idx[cross <= 1e-14 * longest]]
        best = -1
        for k in np.argsort(-quality):
            if quality[k] <= 1e-12:
                break
            if not _any_inside(a[k], b[k], c[k], reflex):
                best = int(k)
                break
        if best < 0:  # only degenerate ears are left (collinear corners)
            best = int(np.argmax(quality))
        out.append((int(last[best]), int(idx[best]), int(nxt[best])))
        idx = np.delete(idx, best)
    out.append((int(idx[0]), int(idx[1]), int(idx[2])))
    return np.array(out, np.int64)


def _cross2(u: Array, v: Array) -> Array:
    return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]


def _sq(v: Array) -> Array:
    return np.einsum("...i,...i->...", v, v)


def _any_inside(a: Array, b: Array, c: Array, q: Array) -> bool:
    inside = (_cross2(b - a, q - a) >= 0) & (_cross2(c - b, q - b) >= 0) & (_cross2(a - c, q - c) >= 0)
    corner = (_sq(q - a) == 0) | (_sq(q - b) == 0) | (_sq(q - c) == 0)
    return bool(np.any(inside & ~corner))


def cross(u: Array, v: Array) -> Array:
    """Cross product over the last axis; many times faster than NumPy's on the few points of a ring."""
    x, y, z = u[..., 0], u[..., 1], u[..., 2]
    a, b, c = v[..., 0], v[..., 1], v[..., 2]
    return np.stack([y * c - z * b, z * a - x * c, x * b - y * a], -1)


def _turn(points: NDArray[Any], by: int) -> NDArray[Any]:
    return np.concatenate([points[by:], points[:by]])


def cap(ring: Array) -> Index:
    """Triangulate a ring (K, 3) in its own mean plane, counter-clockwise about its Newell normal."""
    k = len(ring)
    d = ring - ring.mean(0)
    n = cross(d, _turn(d, 1)).sum(0)
    n = n / np.sqrt(n @ n)
    axis = np.zeros(3)
    axis[np.argmin(np.abs(n))] = 1.0
    u = cross(n, axis)
    u = u / np.sqrt(u @ u)
    flat = np.stack([d @ u, d @ cross(n, u)], 1)
    e = _turn(flat, 1) - flat
    if np.all(_cross2(e, _turn(e, 1)) > 1e-12 * _sq(e)):  # convex: a zigzag strip
        order = np.empty(k, np.int64)
        order[0::2] = np.arange((k + 1) // 2)
        order[1::2] = k - 1 - np.arange(k // 2)
        tri = np.stack([order[:-2], order[1:-1], order[2:]], 1)
        tri[0::2] = tri[0::2, ::-1]  # the strip turns clockwise and counter-clockwise in turn
        return tri
    return ear_clip(flat)
