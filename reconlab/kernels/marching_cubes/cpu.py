"""Marching cubes' topology on the CPU: one sweep over the lattice, two planes of vertex names in memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reconlab.kernels.jit import njit
from reconlab.kernels.marching_cubes.table import EDGES, tables

_CORNER = np.array([[c & 1, c >> 1 & 1, c >> 2] for c, _ in EDGES], np.int64)


@njit("uint8(uint8[:,:,::1], int64, int64, int64)", nogil=True, cache=True, inline="always")
def _case(inside, i, j, k):
    """Case of the cube whose lowest corner is (i, j, k)."""
    return (
        inside[i, j, k]
        | inside[i + 1, j, k] << 1
        | inside[i, j + 1, k] << 2
        | inside[i + 1, j + 1, k] << 3
        | inside[i, j, k + 1] << 4
        | inside[i + 1, j, k + 1] << 5
        | inside[i, j + 1, k + 1] << 6
        | inside[i + 1, j + 1, k + 1] << 7
    )


@njit("UniTuple(int64, 2)(uint8[:,:,::1], int8[::1])", nogil=True, cache=True)
def count(inside, counts):
    """How many vertices and faces there are."""
    a, b, c = inside.shape
    vertices = faces = 0
    for i in range(a):
        for j in range(b):
            for k in range(c):
                here = inside[i, j, k]
                vertices += i + 1 < a and inside[i + 1, j, k] != here
                vertices += j + 1 < b and inside[i, j + 1, k] != here
                vertices += k + 1 < c and inside[i, j, k + 1] != here
                if i + 1 < a and j + 1 < b and k + 1 < c:
                    faces += counts[_case(inside, i, j, k)]
    return vertices, faces


@njit(
    "void(uint8[:,:,::1], int8[:,:,::1], int8[::1], int64[:,::1], int64[:,::1], int64[:,::1])", nogil=True, cache=True
)
def sweep(inside, triangles, counts, corner, ends, faces):
    """Write the vertices' ends and the faces, in the reference's order."""
    a, b, c = inside.shape
    name = np.empty((2, b, c, 3), np.int64)  # of the vertices on the edges that leave a plane's points
    vertex = face = 0
    for i in range(a):
        for j in range(b):
            for k in range(c):
                here, point = inside[i, j, k], (i * b + j) * c + k
                if i + 1 < a and inside[i + 1, j, k] != here:
                    name[i % 2, j, k, 0] = vertex
                    ends[vertex, 0], ends[vertex, 1] = point, point + b * c
                    vertex += 1
                if j + 1 < b and inside[i, j + 1, k] != here:
                    name[i % 2, j, k, 1] = vertex
                    ends[vertex, 0], ends[vertex, 1] = point, point + c
                    vertex += 1
                if k + 1 < c and inside[i, j, k + 1] != here:
                    name[i % 2, j, k, 2] = vertex
                    ends[vertex, 0], ends[vertex, 1] = point, point + 1
                    vertex += 1
        if i == 0:
            continue
        for j in range(b - 1):
            for k in range(c - 1):
                case = _case(inside, i - 1, j, k)
                for t in range(counts[case]):
                    for v in range(3):
                        e = triangles[case, t, v]
                        at = corner[e]
                        faces[face, v] = name[(i - 1 + at[0]) % 2, j + at[1], k + at[2], e // 4]
                    face += 1


def extract(inside: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """As the reference, of a lattice of 0 and 1."""
    triangles, counts = tables()
    vertices, faces = count(inside, counts)
    ends, corners = np.empty((vertices, 2), np.int64), np.empty((faces, 3), np.int64)
    if faces:
        sweep(inside, triangles, counts, _CORNER, ends, corners)
    return ends, corners
