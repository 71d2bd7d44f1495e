"""Pixel2Mesh's template: an ellipsoid of 156 vertices, and subdivision at the edges' midpoints."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.shapes.connectivity import connectivity

VERTICES = 156
"""Of the coarsest level. Any closed surface of genus 0 with 156 vertices has 308 faces and 462 edges."""

RADII = (0.49, 0.35, 0.35)
"""The released template's half axes, along the camera's x, y and z: 0.28, 0.2, 0.2 for shapes 0.57 times ours."""


def ellipsoid(radii: tuple[float, float, float] = RADII, vertices: int = VERTICES) -> tuple[Tensor, Tensor]:
    """A closed triangulation of an ellipsoid about the origin, the same on every machine.

    A Fibonacci spiral on the sphere, evened out by mutual repulsion, its convex hull's triangles, then scaled: ours,
    for the published template is a data file. At 156 vertices the sphere's edges are between 0.27 and 0.40 long;
    12 vertices have 5 neighbours, all others 6.

    Args:
        radii: Half axes.
        vertices: At least 4.

    Returns:
        ``(V, 3)`` float32 vertices and ``(2 V - 4, 3)`` faces, outward by the right-hand rule.

    Raises:
        ReconlabError: There are fewer than 4 vertices, or a radius is not positive.

    Example:
        >>> points, faces = ellipsoid()
        >>> len(points), len(faces)
        (156, 308)
    """
    if vertices < 4 or not all(0 < r < math.inf for r in radii) or len(radii) != 3:
        raise ReconlabError(
            f"ellipsoid: {vertices} vertices of radii {tuple(radii)}; expected at least 4 and three positive radii."
        )
    points, faces = _even_sphere(vertices)
    return torch.from_numpy(points * np.asarray(radii)).float(), torch.from_numpy(faces.copy())


@lru_cache(maxsize=4)
def _even_sphere(count: int) -> tuple[np.ndarray, np.ndarray]:
    from scipy.spatial import ConvexHull

    i = np.arange(count) + 0.5
    height, turn = 1 - 2 * i / count, i * math.pi * (1 + math.sqrt(5))
    flat = np.sqrt(1 - height**2)
    points = np.stack([flat * np.cos(turn), flat * np.sin(turn), height], 1)
    # Coulomb repulsion with steps of a fraction of the spacing: enough for even triangles, far from a symmetric
    # optimum where the choice of a diagonal would hang on rounding.
    spacing = math.sqrt(4 * math.pi / count)
    for _ in range(60):
        apart = points[:, None] - points[None]
        square = (apart**2).sum(-1) + np.eye(count)
        force = (apart / square[..., None] ** 1.5).sum(1)
        force -= (force * points).sum(1, keepdims=True) * points
        points = points + 0.1 * spacing**3 * force
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    faces = ConvexHull(points).simplices.astype(np.int64)
    inward = np.linalg.det(points[faces]) < 0
    faces[inward] = faces[inward][:, ::-1]
    # The hull's order is its program's: start each face at its smallest vertex and sort the faces.
    first = faces.argmin(1)
    faces = np.take_along_axis(faces, (first[:, None] + np.arange(3)) % 3, 1)
    return points, faces[np.lexsort(faces.T[::-1])]


def subdivide(faces: Tensor, vertices: int) -> tuple[Tensor, Tensor]:
    """Each triangle into four, by a new vertex at the middle of each edge.

    Args:
        faces: ``(F, 3)``.
        vertices: ``V``.

    Returns:
        ``(4 F, 3)`` faces of the same orientation, into the ``V`` old vertices followed by the ``E`` new ones, and
        ``(E, 2)``, the ends of the edge that each new vertex halves.

    Example:
        >>> faces, ends = subdivide(torch.tensor([[0, 1, 2]]), 3)
        >>> ends.tolist(), faces.tolist()
        ([[0, 1], [0, 2], [1, 2]], [[0, 3, 4], [1, 5, 3], [2, 4, 5], [3, 5, 4]])
    """
    ends = connectivity(faces, vertices).edges
    keys = ends[:, 0] * vertices + ends[:, 1]
    a, b, c = faces.long().unbind(1)
    ab, bc, ca = (
        vertices + torch.searchsorted(keys, torch.minimum(x, y) * vertices + torch.maximum(x, y))
        for x, y in ((a, b), (b, c), (c, a))
    )
    corners = [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
    return torch.cat([torch.stack(x, 1) for x in corners]), ends


def insert_midpoints(values: Tensor, ends: Tensor) -> Tensor:
    """``(V, ...)`` of the old vertices to ``(V + E, ...)``: a new vertex has the mean of its edge's two ends."""
    return torch.cat([values, 0.5 * (values.index_select(0, ends[:, 0]) + values.index_select(0, ends[:, 1]))])
