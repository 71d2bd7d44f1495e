"""Rays through a voxel grid on the CPU: cells are visited one by one, nothing is stored but one ray's cells."""

from __future__ import annotations

import math

import numpy as np

from reconlab.kernels.jit import njit
from reconlab.kernels.voxel_rays.reference import SHORTEST

NEVER = math.inf


@njit(nogil=True, cache=True)
def _start(o, d, near, size):
    """One axis: the cell in which the ray is just beyond ``near``, and the index of the plane that it meets next."""
    if d == 0.0:
        return np.int64(min(math.floor((o + 0.5) * size), size - 1)), np.int64(0)
    # The guess may be a cell off by rounding; the planes' distances themselves decide.
    guess = math.floor((o + near * d + 0.5) * size)
    if d > 0.0:
        plane = min(max(np.int64(guess) + 1, 0), size)
        while plane > 0 and (((plane - 1) / size - 0.5) - o) / d > near:
            plane -= 1
        while plane < size and ((plane / size - 0.5) - o) / d <= near:
            plane += 1
        return plane - 1, plane
    plane = min(max(np.int64(guess), 0), size)
    while plane < size and (((plane + 1) / size - 0.5) - o) / d > near:
        plane += 1
    while plane > 0 and ((plane / size - 0.5) - o) / d <= near:
        plane -= 1
    return plane, plane


@njit(nogil=True, cache=True)
def _walk(o, d, size, cells):
    """Write the flat indices of the cells that a ray crosses, in order; their number, or -1 if it is not finite."""
    near, far = 0.0, NEVER
    for axis in range(3):
        if not (math.isfinite(o[axis]) and math.isfinite(d[axis])):
            return -1
    for axis in range(3):
        if d[axis] == 0.0:
            if not (o[axis] >= -0.5 and o[axis] < 0.5):
                return 0
        else:
            one, two = (-0.5 - o[axis]) / d[axis], (0.5 - o[axis]) / d[axis]
            near, far = max(near, min(one, two)), min(far, max(one, two))
    if not far - near > SHORTEST:
        return 0
    x, px = _start(o[0], d[0], near, size)
    y, py = _start(o[1], d[1], near, size)
    z, pz = _start(o[2], d[2], near, size)
    sx, sy, sz = int(np.sign(d[0])), int(np.sign(d[1])), int(np.sign(d[2]))
    tx = ((px / size - 0.5) - o[0]) / d[0] if sx else NEVER
    ty = ((py / size - 0.5) - o[1]) / d[1] if sy else NEVER
    tz = ((pz / size - 0.5) - o[2]) / d[2] if sz else NEVER
    # Distances are added up from here: rounding makes pieces of 1e-15, far below the shortest that counts.
    step_x = 1.0 / (size * abs(d[0])) if sx else NEVER
    step_y = 1.0 / (size * abs(d[1])) if sy else NEVER
    step_z = 1.0 / (size * abs(d[2])) if sz else NEVER
    count, here = 0, near
    while here < far and 0 <= x < size and 0 <= y < size and 0 <= z < size:
        end = min(min(tx, ty), min(tz, far))
        if end - here > SHORTEST:
            cells[count] = (x * size + y) * size + z
            count += 1
        if tx <= ty and tx <= tz:
            x += sx
            tx += step_x
        elif ty <= tz:
            y += sy
            ty += step_y
        else:
            z += sz
            tz += step_z
        here = end
    return count


@njit("void(float32[::1], int64, float64[:,::1], float64[:,::1], float32[::1])", nogil=True, cache=True)
def escape_probability(grid, size, origins, directions, escape):
    """One sample: the product of 1 - occupancy over each ray's cells."""
    cells = np.empty(3 * size + 2, np.int64)
    for r in range(origins.shape[0]):
        count = _walk(origins[r], directions[r], size, cells)
        product = 1.0 if count >= 0 else np.nan
        for i in range(count):
            product *= 1.0 - np.float64(grid[cells[i]])
        escape[r] = product


@njit("void(float32[::1], int64, float64[:,::1], float64[:,::1], float32[::1], float32[::1])", nogil=True, cache=True)
def escape_gradient(grid, size, origins, directions, upstream, gradient):
    """One sample: add every ray's gradient, ``-Π of the other cells``, which is right where cells are full."""
    cells = np.empty(3 * size + 2, np.int64)
    before = np.empty(3 * size + 3, np.float64)
    for r in range(origins.shape[0]):
        if upstream[r] == 0.0:
            continue
        count = _walk(origins[r], directions[r], size, cells)
        before[0] = 1.0
        for i in range(count):
            before[i + 1] = before[i] * (1.0 - np.float64(grid[cells[i]]))
        after = np.float64(upstream[r])
        for i in range(count - 1, -1, -1):
            gradient[cells[i]] -= before[i] * after
            after *= 1.0 - np.float64(grid[cells[i]])
