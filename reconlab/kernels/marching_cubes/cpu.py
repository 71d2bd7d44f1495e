"""Marching cubes' topology on the CPU: one sweep over the lattice's cells, two planes of vertex names in memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reconlab.kernels.jit import njit
from reconlab.kernels.marching_cubes.table import EDGES, tables

_CORNER = np.array([[c & 1, c >> 1 & 1, c >> 2] for c, _ in EDGES], np.int64)


@njit("void(uint8[:,:,::1], int64, int64, uint8[::1])", nogil=True, cache=True, inline="always")
def _columns(inside, i, j, out):
    """Bit per corner of the square (i, j) to (i + 1, j + 1) at each k: half of the case of a cell."""
    for k in range(out.shape[0]):
        out[k] = inside[i, j, k] | inside[i + 1, j, k] << 1 | inside[i, j + 1, k] << 2 | inside[i + 1, j + 1, k] << 3


@njit("int64(uint8[:,:,::1])", nogil=True, cache=True)
def busy_cells(inside):
    """How many cells the surface passes."""
    a, b, c = inside.shape
    column = np.empty(c, np.uint8)
    found = 0
    for i in range(a - 1):
        for j in range(b - 1):
            _columns(inside, i, j, column)
            row = 0
            for k in range(c - 1):
                row += not ((column[k] == 0 and column[k + 1] == 0) or (column[k] == 15 and column[k + 1] == 15))
            found += row
    return found


@njit(
    "UniTuple(int64, 2)(uint8[:,:,::1], int8[:,:,::1], int8[::1], int64[:,::1], int64[:,::1], int64[:,::1])",
    nogil=True, cache=True,
)  # fmt: skip
def sweep(inside, triangles, counts, corner, ends, faces):
    """Write the vertices' ends and the faces, in the reference's order; returns how many there are of both."""
    a, b, c = inside.shape
    name = np.empty((2, b, c, 3), np.int64)  # of the vertices on the edges that leave a plane's points
    cells = np.empty((2, (b - 1) * (c - 1)), np.int64)  # the busy ones of a plane: place in it, case
    cases = np.empty((2, (b - 1) * (c - 1)), np.uint8)
    column = np.empty(c, np.uint8)
    vertex = face = before = 0
    for i in range(a):
        now, past = i % 2, (i + 1) % 2
        busy = 0
        for j in range(b - 1 if i + 1 < a else 0):
            _columns(inside, i, j, column)
            for k in range(c - 1):
                case = column[k] | column[k + 1] << 4
                if case == 0 or case == 255:
                    continue
                cells[now, busy], cases[now, busy] = j * c + k, case
                busy += 1
                # The border is outside, so no cut edge leaves the last points of a row, of a plane, of the lattice.
                here, point = case & 1, (i * b + j) * c + k
                if case >> 1 & 1 != here:
                    name[now, j, k, 0] = vertex
                    ends[vertex, 0], ends[vertex, 1] = point, point + b * c
                    vertex += 1
                if case >> 2 & 1 != here:
                    name[now, j, k, 1] = vertex
                    ends[vertex, 0], ends[vertex, 1] = point, point + c
                    vertex += 1
                if case >> 4 & 1 != here:
                    name[now, j, k, 2] = vertex
                    ends[vertex, 0], ends[vertex, 1] = point, point + 1
                    vertex += 1
        for n in range(before):  # the cells of the plane before lie between its points and this one's
            j, k = divmod(cells[past, n], c)
            case = cases[past, n]
            for t in range(counts[case]):
                for v in range(3):
                    e = triangles[case, t, v]
                    plane = past if corner[e, 0] == 0 else now
                    faces[face, v] = name[plane, j + corner[e, 1], k + corner[e, 2], e // 4]
                face += 1
        before = busy
    return vertex, face


def extract(inside: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """As the reference, of a lattice of 0 and 1 whose border is 0."""
    triangles, counts = tables()
    busy = busy_cells(inside)
    ends, faces = np.empty((3 * busy, 2), np.int64), np.empty((int(counts.max()) * busy, 3), np.int64)
    if not busy:
        return ends, faces
    found = sweep(inside, triangles, counts, _CORNER, ends, faces)
    return ends[: found[0]], faces[: found[1]]  # views: what was not written was never memory
