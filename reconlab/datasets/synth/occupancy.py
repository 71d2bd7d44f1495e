"""Inside or outside of closed parts: winding number by signed ray crossings, per part, in numba."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from reconlab.datasets.synth.primitives import rotation
from reconlab.kernels.jit import njit

# A generic turn, so that no ray runs along the axis-aligned edges that furniture consists of.
_TURN = rotation([0.3, 0.9, 0.2], 37.0) @ rotation([1.0, 0.1, -0.4], 23.0)


@njit("void(float64[:,::1], float64[:,::1], int64[:,::1], int64[::1], boolean[::1])", nogil=True, cache=True)
def _mark(points, vertices, faces, candidates, out):  # type: ignore[no-untyped-def]
    """Set out[i] where the winding number of the closed mesh about candidate point i is positive."""
    for c in range(candidates.shape[0]):
        i = candidates[c]
        if out[i]:
            continue
        px, py, pz = points[i, 0], points[i, 1], points[i, 2]
        winding = 0
        for f in range(faces.shape[0]):
            sides = 0
            used = True
            for k in range(3):
                a, b = faces[f, k], faces[f, (k + 1) % 3]
                lo, hi = min(a, b), max(a, b)  # both triangles at an edge must compute the same number
                e = (vertices[hi, 0] - vertices[lo, 0]) * (py - vertices[lo, 1]) - (
                    vertices[hi, 1] - vertices[lo, 1]
                ) * (px - vertices[lo, 0])
                left = e >= 0.0
                if a != lo:
                    left = not left
                if left:
                    sides += 1
                if k == 1 and sides == 1:
                    used = False
                    break
            if not used or (sides != 0 and sides != 3):
                continue
            a, b, g = faces[f, 0], faces[f, 1], faces[f, 2]
            ux, uy, uz = (
                vertices[b, 0] - vertices[a, 0],
                vertices[b, 1] - vertices[a, 1],
                vertices[b, 2] - vertices[a, 2],
            )
            wx, wy, wz = (
                vertices[g, 0] - vertices[a, 0],
                vertices[g, 1] - vertices[a, 1],
                vertices[g, 2] - vertices[a, 2],
            )
            nx, ny, nz = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
            # height of the triangle's plane above the point, times nz
            h = nx * (vertices[a, 0] - px) + ny * (vertices[a, 1] - py) + nz * (vertices[a, 2] - pz)
            if nz > 0.0 and h > 0.0:
                winding += 1
            elif nz < 0.0 and h < 0.0:
                winding -= 1
        if winding > 0:
            out[i] = True


def inside_parts(
    parts: Sequence[tuple[NDArray[np.float64], NDArray[np.int64]]], points: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether points lie inside any of several closed meshes.

    Args:
        parts: (vertices (V, 3), faces (F, 3)), each closed and outward-oriented.
        points: (N, 3).

    Returns:
        (N,) bool; points exactly on a surface may fall on either side.
    """
    p = np.ascontiguousarray(points, np.float64)
    turned = np.ascontiguousarray(p @ _TURN.T)
    out = np.zeros(len(p), np.bool_)
    for vertices, faces in parts:
        low, high = vertices.min(0), vertices.max(0)
        near = np.flatnonzero(np.all((p >= low) & (p <= high), axis=1) & ~out)
        if len(near):
            v = np.ascontiguousarray(vertices @ _TURN.T)
            _mark(turned, v, np.ascontiguousarray(faces, np.int64), near.astype(np.int64), out)
    return out
