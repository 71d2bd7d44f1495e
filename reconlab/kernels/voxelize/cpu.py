"""Surface voxelisation on the CPU: the reference's separating-axis test, one triangle after another."""

from __future__ import annotations

import math

from reconlab.kernels.jit import njit


@njit("boolean(float64[:,::1], float64, float64, float64)", nogil=True, cache=True)
def _overlap(corners, cx, cy, cz):
    """Does the triangle meet the unit cube centred at (cx, cy, cz)? Touching counts."""
    ax, ay, az = corners[0, 0] - cx, corners[0, 1] - cy, corners[0, 2] - cz
    bx, by, bz = corners[1, 0] - cx, corners[1, 1] - cy, corners[1, 2] - cz
    dx, dy, dz = corners[2, 0] - cx, corners[2, 1] - cy, corners[2, 2] - cz
    if min(ax, bx, dx) > 0.5 or max(ax, bx, dx) < -0.5:
        return False
    if min(ay, by, dy) > 0.5 or max(ay, by, dy) < -0.5:
        return False
    if min(az, bz, dz) > 0.5 or max(az, bz, dz) < -0.5:
        return False
    ux, uy, uz = bx - ax, by - ay, bz - az
    vx, vy, vz = dx - bx, dy - by, dz - bz
    nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    if abs(nx * ax + ny * ay + nz * az) > 0.5 * (abs(nx) + abs(ny) + abs(nz)):
        return False
    for k in range(3):
        if k == 0:
            ex, ey, ez = ux, uy, uz
        elif k == 1:
            ex, ey, ez = vx, vy, vz
        else:
            ex, ey, ez = ax - dx, ay - dy, az - dz
        # Cross products of the edge with the x, y and z axes.
        p, q, r = ez * ay - ey * az, ez * by - ey * bz, ez * dy - ey * dz
        radius = 0.5 * (abs(ez) + abs(ey))
        if min(p, q, r) > radius or max(p, q, r) < -radius:
            return False
        p, q, r = ex * az - ez * ax, ex * bz - ez * bx, ex * dz - ez * dx
        radius = 0.5 * (abs(ex) + abs(ez))
        if min(p, q, r) > radius or max(p, q, r) < -radius:
            return False
        p, q, r = ey * ax - ex * ay, ey * bx - ex * by, ey * dx - ex * dy
        radius = 0.5 * (abs(ey) + abs(ex))
        if min(p, q, r) > radius or max(p, q, r) < -radius:
            return False
    return True


@njit("void(float64[:,:,::1], uint8[:,:,::1])", nogil=True, cache=True)
def mark_cells(corners, cells):
    """Set the cells that triangles ``(F, 3, 3)`` in grid units meet."""
    top = cells.shape[0] - 1
    for f in range(corners.shape[0]):
        tri = corners[f]
        # Clamped before the conversion to int, which is undefined for huge values.
        x0 = int(max(0.0, min(float(top + 1), math.ceil(min(tri[0, 0], tri[1, 0], tri[2, 0])) - 1.0)))
        y0 = int(max(0.0, min(float(top + 1), math.ceil(min(tri[0, 1], tri[1, 1], tri[2, 1])) - 1.0)))
        z0 = int(max(0.0, min(float(top + 1), math.ceil(min(tri[0, 2], tri[1, 2], tri[2, 2])) - 1.0)))
        x1 = int(min(float(top), max(-1.0, math.floor(max(tri[0, 0], tri[1, 0], tri[2, 0])))))
        y1 = int(min(float(top), max(-1.0, math.floor(max(tri[0, 1], tri[1, 1], tri[2, 1])))))
        z1 = int(min(float(top), max(-1.0, math.floor(max(tri[0, 2], tri[1, 2], tri[2, 2])))))
        for x in range(x0, x1 + 1):
            for y in range(y0, y1 + 1):
                for z in range(z0, z1 + 1):
                    if cells[x, y, z] == 0 and _overlap(tri, x + 0.5, y + 0.5, z + 0.5):
                        cells[x, y, z] = 1
