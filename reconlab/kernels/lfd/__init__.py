"""Light Field Descriptor (Chen et al. 2003): silhouettes of ten light fields, their features, distances. Integers."""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np

from reconlab.errors import ReconlabError
from reconlab.kernels.lfd.cameras import CameraSet, alignments, default_cameras, read_cameras
from reconlab.kernels.lfd.reference import art_table, distance_reference, light_field_reference
from reconlab.threads import parallel_map

__all__ = ["FEATURES", "WEIGHTS", "CameraSet", "default_cameras", "describe", "distances", "read_cameras"]

FEATURES = 47
"""Of a view: 35 region (ART) and 10 Fourier coefficients, circularity, eccentricity; 8 bits each."""
WEIGHTS = np.array([1] * 35 + [2] * 10 + [2, 1], np.int64)
"""Of the features in the cost of two views."""
RADIUS = 0.58
"""Our set: of a model about its centroid. Models whose box has a longest side of 1 have 0.58 on average, so that
silhouettes are about as large as the original's."""

_table = cache(art_table)


def describe(
    points: np.ndarray,
    faces: np.ndarray,
    cameras: CameraSet,
    backend: Literal["cpu", "reference"] = "cpu",
) -> np.ndarray:
    """The descriptor of one model; both sides of a face are seen, and holes and inner faces do not matter.

    Args:
        points: ``(V, 3)`` floats in any unit and place.
        faces: ``(F, 3)`` integers.
        cameras: The set of views.
        backend: "reference" is plain NumPy and slow.

    Returns:
        ``(10, 10, 47)`` uint8: light fields, views, features.

    Raises:
        ReconlabError: There is no face, a vertex is not finite, or no face has an area.
    """
    placed, used = place(points, faces, cameras)
    if backend == "reference":
        raw = np.stack([light_field_reference(placed, used, f, cameras.equivariant) for f in cameras.frames])
    else:
        from reconlab.kernels.lfd.cpu import light_field

        raw = np.empty((10, 10, FEATURES))

        def one(i: int) -> None:
            light_field(placed, used, cameras.frames[i], _table(), cameras.equivariant, raw[i])

        parallel_map(one, range(10))
    raw *= 256.0
    raw[..., 35:45] *= 2
    return np.minimum(raw.astype(np.int64), 255).astype(np.uint8)


def distances(
    query: np.ndarray,
    others: np.ndarray,
    backend: Literal["cpu", "reference"] = "cpu",
) -> np.ndarray:
    """Distances of one descriptor to many of the same camera set.

    The least, over 10 x 10 pairs of light fields and 60 rotations, of the sum over the views of
    ``sum |ART - ART'| + 2 sum |Fourier - Fourier'| + 2 |circularity - ...| + |eccentricity - ...|``.

    Args:
        query: ``(10, 10, 47)`` uint8.
        others: ``(M, 10, 10, 47)`` uint8.
        backend: "reference" is plain NumPy and slow.

    Returns:
        ``(M,)`` int64, 0 to 147 900.

    Raises:
        ReconlabError: Shapes or dtypes are others.
    """
    if (
        query.shape != (10, 10, FEATURES)
        or others.shape[1:] != query.shape
        or {query.dtype, others.dtype} != {np.dtype(np.uint8)}
    ):
        raise ReconlabError(
            f"LFD: descriptors are (10, 10, {FEATURES}) uint8 and (M, 10, 10, {FEATURES}) uint8; got {query.shape} "
            f"{query.dtype} and {others.shape} {others.dtype}."
        )
    if backend == "reference":
        return np.array([distance_reference(query, other, WEIGHTS, alignments()) for other in others], np.int64)
    from reconlab.kernels.lfd.match import match

    result = np.empty(len(others), np.int64)
    parts = np.array_split(np.arange(len(others)), max(1, len(others) // 64))

    def some(part: np.ndarray) -> None:
        if len(part):
            chosen = np.ascontiguousarray(others[part[0] : part[-1] + 1])
            match(np.ascontiguousarray(query), chosen, WEIGHTS, alignments(), result[part[0] : part[-1] + 1])

    parallel_map(some, parts)
    return result


def place(points: np.ndarray, faces: np.ndarray, cameras: CameraSet) -> tuple[np.ndarray, np.ndarray]:
    """Centre and scale a model, in float64, and drop the vertices that no face uses.

    As the original for sets that are read: the centre of the axis-aligned box to 0, its longest side to 1. That box
    changes when a model is turned, so our set takes the centroid of the surface and the farthest vertex from it.

    Returns:
        ``(V', 3)`` float64 and ``(F, 3)`` int64.

    Raises:
        ReconlabError: As :func:`describe`.
    """
    faces = np.ascontiguousarray(faces, dtype=np.int64)
    if faces.ndim != 2 or faces.shape[1] != 3 or len(faces) == 0:
        raise ReconlabError("LFD: the mesh has no faces.")
    used = np.zeros(len(points), bool)
    used[faces.reshape(-1)] = True
    vertices = np.asarray(points[used], dtype=np.float64)
    if not np.isfinite(vertices).all():
        raise ReconlabError("LFD: the mesh has vertices that are not finite.")
    faces = (np.cumsum(used) - 1)[faces]
    low, high = vertices.min(0), vertices.max(0)
    longest = float((high - low).max())
    if longest > 0:
        vertices = (vertices - (low / 2 + high / 2)) / longest
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.sqrt((cross**2).sum(-1))
    total = float(areas.sum())
    if not (longest > 0 and total > 1e-12 and np.isfinite(total)):  # a line's rounding errors make no surface
        raise ReconlabError("LFD: the mesh has no face with an area.")
    if cameras.equivariant:
        vertices = vertices - (areas @ corners.mean(1)) / total
        vertices = vertices * (RADIUS / np.sqrt((vertices**2).sum(-1).max()))
    return np.ascontiguousarray(vertices), faces
