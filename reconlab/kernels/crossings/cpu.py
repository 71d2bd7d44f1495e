"""Ray crossings on the CPU: triangles are binned into a grid across the rays, so a point tests only its own bin."""

from __future__ import annotations

import numpy as np

from reconlab.kernels.jit import njit


@njit("boolean(float64[:,::1], float64, float64, float64, float64)", nogil=True, cache=True, inline="always")
def _misses(tri, x0, y0, x1, y1):
    """Does one edge's line have the whole rectangle on its outer side? The boxes are known to overlap."""
    ax, ay, bx, by, cx, cy = tri[0, 0], tri[0, 1], tri[1, 0], tri[1, 1], tri[2, 0], tri[2, 1]
    s = 1.0 if (bx - ax) * (cy - ay) - (by - ay) * (cx - ax) > 0 else -1.0
    for k in range(3):
        if k == 0:
            ux, uy, vx, vy = ax, ay, bx, by
        elif k == 1:
            ux, uy, vx, vy = bx, by, cx, cy
        else:
            ux, uy, vx, vy = cx, cy, ax, ay
        # Left normal of the edge, turned inwards; the rectangle's corner furthest inwards decides.
        nx, ny = -(vy - uy) * s, (vx - ux) * s
        px = x1 if nx > 0 else x0
        py = y1 if ny > 0 else y0
        if nx * (px - ux) + ny * (py - uy) < 0:
            return True
    return False


@njit("void(float64[:,::1], float64[:,:,::1], int64, int32[:,::1])", nogil=True, cache=True)
def axis_crossings(points, corners, size, out):
    """Add signed, odd and free counts of the rays along +z and -z to ``out (N, 3)``; see the reference."""
    n, m = points.shape[0], corners.shape[0]
    if m == 0:
        for i in range(n):
            out[i, 2] += 2
        return
    lx, ly, hx, hy = np.inf, np.inf, -np.inf, -np.inf
    for f in range(m):
        for k in range(3):
            lx, hx = min(lx, corners[f, k, 0]), max(hx, corners[f, k, 0])
            ly, hy = min(ly, corners[f, k, 1]), max(hy, corners[f, k, 1])
    sx, sy = size / max(hx - lx, 1e-30), size / max(hy - ly, 1e-30)
    start = np.zeros(size * size + 1, np.int64)
    items = np.empty(0, np.int32)
    for sweep in range(2):  # count, then fill
        for f in range(m):
            tri = corners[f]
            i0 = min(size - 1, int((min(tri[0, 0], tri[1, 0], tri[2, 0]) - lx) * sx))
            i1 = min(size - 1, int((max(tri[0, 0], tri[1, 0], tri[2, 0]) - lx) * sx))
            j0 = min(size - 1, int((min(tri[0, 1], tri[1, 1], tri[2, 1]) - ly) * sy))
            j1 = min(size - 1, int((max(tri[0, 1], tri[1, 1], tri[2, 1]) - ly) * sy))
            big = i1 > i0 and j1 > j0
            for i in range(i0, i1 + 1):
                for j in range(j0, j1 + 1):
                    # A hair wider than the cell, so that rounding loses no triangle.
                    if big and _misses(
                        tri,
                        lx + (i - 1e-6) / sx,
                        ly + (j - 1e-6) / sy,
                        lx + (i + 1 + 1e-6) / sx,
                        ly + (j + 1 + 1e-6) / sy,
                    ):
                        continue
                    if sweep == 0:
                        start[i * size + j + 1] += 1
                    else:
                        items[start[i * size + j]] = f
                        start[i * size + j] += 1
        if sweep == 0:
            for k in range(size * size):
                start[k + 1] += start[k]
            items = np.empty(start[size * size], np.int32)
        else:  # filling advanced every start to its end
            for k in range(size * size, 0, -1):
                start[k] = start[k - 1]
            start[0] = 0
    for q in range(n):
        x, y, z = points[q, 0], points[q, 1], points[q, 2]
        if not (x >= lx and x <= hx and y >= ly and y <= hy):
            out[q, 2] += 2
            continue
        cell = min(size - 1, int((x - lx) * sx)) * size + min(size - 1, int((y - ly) * sy))
        signed, up, down = 0, 0, 0
        for k in range(start[cell], start[cell + 1]):
            f = items[k]
            ax, ay = corners[f, 0, 0] - x, corners[f, 0, 1] - y
            bx, by = corners[f, 1, 0] - x, corners[f, 1, 1] - y
            cx, cy = corners[f, 2, 0] - x, corners[f, 2, 1] - y
            wa, wb, wc = bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx
            if wa > 0 and wb > 0 and wc > 0:
                s = 1
            elif wa < 0 and wb < 0 and wc < 0:
                s = -1
            else:
                continue
            height = (wa * corners[f, 0, 2] + wb * corners[f, 1, 2] + wc * corners[f, 2, 2]) / (wa + wb + wc)
            if height > z:
                signed += s
                up += 1
            else:
                signed -= s
                down += 1
        out[q, 0] += signed
        out[q, 1] += up % 2 + down % 2
        out[q, 2] += (1 if up == 0 else 0) + (1 if down == 0 else 0)
