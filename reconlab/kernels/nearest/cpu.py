"""Nearest neighbours on the CPU: a uniform grid, cells visited in growing rings until no closer point can exist.

Exact. Target points are counting-sorted into cells that are contiguous along x, so each row of a ring is one
run of memory; rows whose own distance exceeds the best one are skipped. A search that takes too long goes over
to a tree of boxes, so that outliers and collapsed clouds cost little.
"""

from __future__ import annotations

import math

import numpy as np

from reconlab.kernels.jit import njit
from reconlab.kernels.nearest.cpu_tree import build, query

PATIENCE = 400
"""Rows and points that a search may visit in the grid; it then goes over to the tree."""

SLACK = 1e-5
"""Cells count as this much closer (relative to coordinates) than computed: float32 rounding cannot lose a point."""


@njit("void(float32[:,::1], float32[:,::1], float32[::1], int64[::1])", nogil=True, cache=True)
def nearest_neighbours(source, target, distance, index):
    """Write the squared distance and the index of the closest finite target; see the reference."""
    n, m = source.shape[0], target.shape[0]
    low = np.full(3, np.inf, np.float64)
    high = np.full(3, -np.inf, np.float64)
    finite = 0
    for j in range(m):
        if math.isfinite(target[j, 0] + target[j, 1] + target[j, 2]):
            finite += 1
            for a in range(3):
                low[a] = min(low[a], np.float64(target[j, a]))
                high[a] = max(high[a], np.float64(target[j, a]))
    if finite == 0:
        for i in range(n):
            distance[i] = np.inf
            index[i] = 0
        return
    # Cells of equal side; about three points in each occupied cell of a surface, at most four cells per point.
    longest = max(high[0] - low[0], high[1] - low[1], high[2] - low[2])
    side = 1.0
    cells = np.ones(3, np.int64)
    if longest > 0.0:
        area = 0.0
        for a in range(3):
            area += 2.0 * (high[a] - low[a]) * (high[(a + 1) % 3] - low[(a + 1) % 3])
        area = max(area, longest * longest * 1e-2)
        side = max(math.sqrt(area * 2.0 / finite), longest / 512.0)
        while True:
            total = 1.0
            for a in range(3):
                cells[a] = 1 + np.int64((high[a] - low[a]) / side)
                total *= cells[a]
            if total <= 4.0 * finite + 64.0:
                break
            side *= 1.15
    inverse = 1.0 / side
    nx, ny, nz = cells[0], cells[1], cells[2]
    margin = SLACK * max(
        max(abs(low[0]), abs(high[0])), max(abs(low[1]), abs(high[1])), max(abs(low[2]), abs(high[2]))
    )
    # Counting sort, stable: within a cell the indices ascend.
    cell_of = np.empty(m, np.int32)
    start = np.zeros(nx * ny * nz + 1, np.int32)
    for j in range(m):
        if math.isfinite(target[j, 0] + target[j, 1] + target[j, 2]):
            cx = min(nx - 1, np.int64((target[j, 0] - low[0]) * inverse))
            cy = min(ny - 1, np.int64((target[j, 1] - low[1]) * inverse))
            cz = min(nz - 1, np.int64((target[j, 2] - low[2]) * inverse))
            cell = (cz * ny + cy) * nx + cx
            cell_of[j] = cell
            start[cell + 1] += 1
        else:
            cell_of[j] = -1
    for c in range(nx * ny * nz):
        start[c + 1] += start[c]
    fill = start[:-1].copy()
    order = np.empty(finite, np.int32)
    sorted_target = np.empty((finite, 3), np.float32)
    for j in range(m):
        c = cell_of[j]
        if c >= 0:
            at = fill[c]
            fill[c] += 1
            order[at] = j
            for a in range(3):
                sorted_target[at, a] = target[j, a]

    tree_points, tree_labels, boxes, lowest = sorted_target, order, sorted_target, order  # until the tree is needed
    grown = False
    late = 0
    for i in range(n):
        x, y, z = source[i, 0], source[i, 1], source[i, 2]
        if not math.isfinite(x + y + z):
            distance[i] = np.inf
            index[i] = 0
            continue
        if 2 * late > i + 16:  # most searches overran: spare the grid
            distance[i], index[i] = query(
                tree_points, tree_labels, boxes, lowest, x, y, z, np.float32(np.inf), np.int32(0)
            )
            continue
        # Position in cells; far points are clamped before the cast, which would overflow.
        fx = (x - low[0]) * inverse
        fy = (y - low[1]) * inverse
        fz = (z - low[2]) * inverse
        cx = np.int64(min(max(fx, 0.0), nx - 1.0))
        cy = np.int64(min(max(fy, 0.0), ny - 1.0))
        cz = np.int64(min(max(fz, 0.0), nz - 1.0))
        loose = margin + SLACK * max(abs(x), max(abs(y), abs(z)))
        ox = max(0.0, max(low[0] - x, x - high[0]))
        oy = max(0.0, max(low[1] - y, y - high[1]))
        oz = max(0.0, max(low[2] - z, z - high[2]))
        best = np.float32(np.inf)
        found = np.int32(0)
        ring = 0
        work = 0
        while True:
            for kz in range(max(0, cz - ring), min(nz - 1, cz + ring) + 1):
                dz = max(oz, max(low[2] + kz * side - z, z - (low[2] + (kz + 1) * side)) - loose)
                dz2 = dz * dz if dz > 0.0 else 0.0
                work += 1
                if dz2 > best or work > PATIENCE:
                    continue
                edge_z = kz == cz - ring or kz == cz + ring
                for ky in range(max(0, cy - ring), min(ny - 1, cy + ring) + 1):
                    dy = max(oy, max(low[1] + ky * side - y, y - (low[1] + (ky + 1) * side)) - loose)
                    dyz = dz2 + (dy * dy if dy > 0.0 else 0.0)
                    work += 1
                    if dyz > best or work > PATIENCE:
                        continue
                    row = (kz * ny + ky) * nx
                    shell = edge_z or ky == cy - ring or ky == cy + ring
                    # A whole row on the shell's faces, else only its two ends.
                    for part in range(1 if shell else 2):
                        if shell:
                            first, last = max(0, cx - ring), min(nx - 1, cx + ring)
                        elif part == 0:
                            first = last = cx - ring
                        else:
                            first = last = cx + ring
                        if first < 0 or last >= nx:
                            continue
                        work += start[row + last + 1] - start[row + first]
                        if work > PATIENCE:
                            continue
                        for at in range(start[row + first], start[row + last + 1]):
                            ex = x - sorted_target[at, 0]
                            ey = y - sorted_target[at, 1]
                            ez = z - sorted_target[at, 2]
                            d = ex * ex + ey * ey + ez * ez
                            if d < best or (d == best and order[at] < found):
                                best = d
                                found = order[at]
            if work > PATIENCE:
                if not grown:
                    tree_points, tree_labels, boxes, lowest = build(sorted_target, order)
                    grown = True
                late += 1
                best, found = query(tree_points, tree_labels, boxes, lowest, x, y, z, best, found)
                break
            # The closest that an unvisited cell can be: through the nearest open side of the visited box.
            bound = np.inf
            if cx - ring > 0:
                gap = max(0.0, x - (low[0] + (cx - ring) * side) - loose)
                bound = min(bound, gap * gap + oy * oy + oz * oz)
            if cx + ring < nx - 1:
                gap = max(0.0, low[0] + (cx + ring + 1) * side - x - loose)
                bound = min(bound, gap * gap + oy * oy + oz * oz)
            if cy - ring > 0:
                gap = max(0.0, y - (low[1] + (cy - ring) * side) - loose)
                bound = min(bound, gap * gap + ox * ox + oz * oz)
            if cy + ring < ny - 1:
                gap = max(0.0, low[1] + (cy + ring + 1) * side - y - loose)
                bound = min(bound, gap * gap + ox * ox + oz * oz)
            if cz - ring > 0:
                gap = max(0.0, z - (low[2] + (cz - ring) * side) - loose)
                bound = min(bound, gap * gap + ox * ox + oy * oy)
            if cz + ring < nz - 1:
                gap = max(0.0, low[2] + (cz + ring + 1) * side - z - loose)
                bound = min(bound, gap * gap + ox * ox + oy * oy)
            if best < bound or bound == np.inf:
                break
            ring += 1
        distance[i] = best
        index[i] = found
