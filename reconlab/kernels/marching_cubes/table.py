"""The 256 cases of a cube, derived here rather than listed: contours are traced face by face.

Corner ``c`` of the cube lies at ``(c & 1, c >> 1 & 1, c >> 2 & 1)``; case ``i`` has corner ``c`` inside if bit ``c``
of ``i`` is set. Edge ``4 k + n`` runs along axis ``k`` from the ``n``-th corner whose bit ``k`` is 0.

On every face, the contour cuts off each run of inside corners by one segment. On the ambiguous face (two inside
corners on a diagonal) that keeps the two inside corners apart. The rule sees only the face's four corners, so the
two cubes that share it draw the same contour: the surface has no hole. Each cut edge begins one segment and ends
another, so segments join into closed loops, which are filled with triangles.
"""

from __future__ import annotations

import functools
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

MOST = 5
"""Triangles of the richest case."""

EDGES: tuple[tuple[int, int], ...] = tuple((c, c | 1 << k) for k in range(3) for c in range(8) if not c >> k & 1)
"""The corners that each edge joins, the lower first."""

_NUMBER = {edge: i for i, edge in enumerate(EDGES)}


def _faces() -> list[list[int]]:
    """The corners of the six faces, each counter-clockwise as seen from outside the cube."""
    rings = []
    for k in range(3):
        u, v = (k + 1) % 3, (k + 2) % 3
        for side in (0, 1):
            ring = [side << k | p << u | q << v for p, q in ((0, 0), (1, 0), (1, 1), (0, 1))]
            rings.append(ring if side else ring[::-1])
    return rings


FACES = _faces()


def _edge(one: int, two: int) -> int:
    return _NUMBER[min(one, two), max(one, two)]


def loops(case: int) -> list[list[int]]:
    """The closed contours of a case as lists of edges, counter-clockwise as seen from outside the surface."""
    follows = {}
    for ring in FACES:
        inside = [case >> c & 1 for c in ring]
        for i in range(4):
            if inside[i] and not inside[i - 1]:  # a run of inside corners begins; its segment leads to its end
                end = i
                while inside[(end + 1) % 4]:
                    end += 1
                follows[_edge(ring[i - 1], ring[i])] = _edge(ring[end % 4], ring[(end + 1) % 4])
    found, seen = [], set()
    for start in sorted(follows):
        loop, edge = [], start
        while edge not in seen:
            seen.add(edge)
            loop.append(edge)
            edge = follows[edge]
        if loop:
            found.append(loop)
    return found


def fill(loop: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Triangles of a loop whose inner edges are as short as can be, taking every vertex to be mid-edge.

    None of them lies in a face of the cube: the neighbour might draw the same one, and four triangles would meet.
    """

    def cost(i: int, j: int) -> int:
        if j - i in (1, len(loop) - 1):
            return 0
        one, two = loop[i], loop[j]
        length = 0
        for k in range(3):
            length += (sum(c >> k & 1 for c in EDGES[one]) - sum(c >> k & 1 for c in EDGES[two])) ** 2
        shared = any({one, two} <= {_edge(a, b) for a, b in pairwise([*ring, ring[0]])} for ring in FACES)
        return length + 1000 * shared

    @functools.cache
    def best(i: int, j: int) -> tuple[int, tuple[tuple[int, int, int], ...]]:
        if j - i < 2:
            return 0, ()
        options = []
        for m in range(i + 1, j):
            (left, some), (right, others) = best(i, m), best(m, j)
            total = left + right + cost(i, m) + cost(m, j)
            options.append((total, (*some, *others, (loop[i], loop[m], loop[j]))))
        return min(options)

    total, triangles = best(0, len(loop) - 1)
    if total >= 1000:
        raise AssertionError(f"the loop {loop} cannot be filled without a triangle's edge in a face")
    return list(triangles)


@functools.cache
def tables() -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Triangles of each case ``(256, MOST, 3)``, edges of the cube (-1 where there are fewer), and counts ``(256,)``.

    Example:
        >>> triangles, counts = tables()
        >>> triangles[1, 0].tolist(), int(counts[1]), int(counts[255])  # corner 0 is cut off by its three edges
        ([0, 4, 8], 1, 0)
    """
    triangles = np.full((256, MOST, 3), -1, np.int8)
    counts = np.zeros(256, np.int8)
    for case in range(256):
        here = [t for loop in loops(case) for t in fill(tuple(loop))]
        counts[case] = len(here)
        if here:
            triangles[case, : len(here)] = here
    return triangles, counts
