"""Heat kernel signatures: how long heat stays where it is, at every point of a surface.

The Laplacian is that of N. Sharp & K. Crane ("A Laplacian for Nonmanifold Triangle Meshes", 2020), built on a tufted
cover, so that triangle soups have one. Signatures are invariant to isometry, hence to rotation and to bending.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from reconlab.errors import ReconlabError, optional_import

Surface = Literal["points", "mesh"]

POINTS = 2000
"""Points of the surface that carry the signatures."""
EIGENPAIRS = 100
CANDIDATES = 4
"""Points drawn for each one kept."""
MERGE = 1e-6
"""Vertices closer than this, relative to the bounding box's diagonal, are one vertex."""


@dataclass(frozen=True)
class Spectrum:
    """The lowest eigenpairs of a surface's Laplacian, the surface scaled to area 1.

    Attributes:
        values: ``(K,)`` float64, ascending from 0.
        functions: ``(N, K)`` float64, orthonormal under ``areas``.
        areas: ``(N,)`` float64, sum 1: the share of the surface that each point stands for.
    """

    values: np.ndarray
    functions: np.ndarray
    areas: np.ndarray


def heat_kernel_signature(spectrum: Spectrum, times: np.ndarray) -> np.ndarray:
    """``K_t(x, x) = Σ_k exp(-λ_k t) φ_k(x)²`` (Sun, Ovsjanikov & Guibas 2009).

    Args:
        spectrum: Of the surface.
        times: ``(T,)``, in units of the surface's area.

    Returns:
        ``(N, T)`` float64, positive; 1 is the mean over the surface after a long time.
    """
    return spectrum.functions**2 @ np.exp(-spectrum.values[:, None] * np.asarray(times, np.float64))


def heat_kernel(spectrum: Spectrum, time: float) -> np.ndarray:
    """``K_t(x, y)``, ``(N, N)`` float64: the density at y of heat that left x; its mean over the surface is 1."""
    return (spectrum.functions * np.exp(-spectrum.values * time)) @ spectrum.functions.T


def surface_spectrum(
    vertices: np.ndarray,
    faces: np.ndarray,
    points: int = POINTS,
    eigenpairs: int = EIGENPAIRS,
    surface: Surface = "points",
) -> Spectrum:
    """The lowest eigenpairs of the robust Laplacian of a mesh of any kind and size.

    ``points`` draws :data:`CANDIDATES` times ``points`` points by area, keeps those that lie farthest from one
    another and takes the Laplacian of that cloud. It does not depend on how the surface is cut into triangles, and
    parts that touch or cross are one surface, as they are to the eye: nearly all models made by people consist of
    parts that share no edge, and on their meshes heat never leaves a part. Sheets nearer to one another than the
    points (about ``sqrt(area / points)``) are taken for one.

    ``mesh`` takes the mesh's own connectivity: equal vertices merged, faces cut into four until there are at least
    ``points / 2`` vertices; where there are more than ``2 · points``, each vertex goes to the nearest of ``points``
    vertices that lie farthest apart.

    Args:
        vertices: ``(V, 3)``, any unit.
        faces: ``(F, 3)``.
        points: Size of the problem.
        eigenpairs: At most; never more than the surface has points.
        surface: ``points`` or ``mesh``.

    Returns:
        The spectrum. Equal input gives equal output.

    Raises:
        ReconlabError: There is no surface, a coordinate is not finite, the spectrum cannot be computed, or
            robust_laplacian is not installed.
    """
    if surface not in ("points", "mesh"):
        raise ReconlabError(f"heat kernel: the surface is taken as points or mesh, not {surface!r}.")
    if points < 10 or eigenpairs < 1:
        raise ReconlabError(f"heat kernel: {points} points and {eigenpairs} eigenpairs; expected at least 10 and 1.")
    robust = optional_import("robust_laplacian", "eval", "The heat kernel")
    corners, triangles = _normalised(vertices, faces)
    if surface == "points":
        laplacian, mass = robust.point_cloud_laplacian(sample_surface(corners, triangles, points))
    else:
        laplacian, mass = robust.mesh_laplacian(*_sized(corners, triangles, points))
    return _eigenpairs(laplacian, mass.diagonal(), eigenpairs)


def sample_surface(vertices: np.ndarray, faces: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Points of the surface, spread evenly: farthest-point sampling of stratified draws by area.

    Args:
        vertices: ``(V, 3)`` float64.
        faces: ``(F, 3)``, some with an area.
        count: Points.
        seed: Of the draws.

    Returns:
        ``(count, 3)``; they move with the vertices, and stay when the vertices are renumbered.
    """
    corners = vertices[faces]
    rng = np.random.default_rng(seed)
    draws = CANDIDATES * count
    area = np.cumsum(_areas(corners))
    at = (np.arange(draws) + rng.random(draws)) / draws * area[-1]
    face = np.minimum(np.searchsorted(area, at, side="right"), len(faces) - 1)
    u, v = rng.random((2, draws))
    root = np.sqrt(u)
    weights = np.stack([1 - root, root * (1 - v), root * v], -1)
    found = (corners[face] * weights[..., None]).sum(1)
    return found[farthest(found, count)]


def farthest(points: np.ndarray, count: int) -> np.ndarray:
    """``(count,)`` indices: the point farthest from the mean, then always the one farthest from all before it."""
    chosen = np.empty(count, np.int64)
    chosen[0] = ((points - points.mean(0)) ** 2).sum(1).argmax()
    distance = np.full(len(points), np.inf)
    for i in range(1, count):
        np.minimum(distance, ((points - points[chosen[i - 1]]) ** 2).sum(1), out=distance)
        chosen[i] = distance.argmax()
    return chosen


def _areas(corners: np.ndarray) -> np.ndarray:
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return np.sqrt((cross**2).sum(1)) / 2


def _normalised(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Used vertices only, about their mean and at area 1, and the faces that have an area."""
    vertices, faces = np.asarray(vertices, np.float64), np.asarray(faces, np.int64)
    if len(faces) == 0:
        raise ReconlabError("heat kernel: the mesh has no faces.")
    used, compact = np.unique(faces, return_inverse=True)
    corners, faces = vertices[used], compact.reshape(-1, 3)
    if not np.isfinite(corners).all():
        raise ReconlabError("heat kernel: the mesh has a coordinate that is not finite.")
    corners = corners - corners.mean(0)
    extent = np.abs(corners).max()
    if not 0 < extent < 1e150:
        raise ReconlabError("heat kernel: the mesh is a single point, or its coordinates are too large to square.")
    corners /= extent
    areas = _areas(corners[faces])
    total = areas.sum()
    if not total > 1e-12:
        raise ReconlabError("heat kernel: no face of the mesh has an area.")
    return corners / np.sqrt(total), faces[areas > 0]


def _sized(vertices: np.ndarray, faces: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    """The mesh with merged vertices, cut finer or made coarser to between half and twice ``points`` vertices."""
    step = np.linalg.norm(np.ptp(vertices, 0)) * MERGE
    _, first, label = np.unique(np.round(vertices / step), axis=0, return_index=True, return_inverse=True)
    vertices, faces = vertices[first], label.reshape(-1)[faces]
    if len(vertices) > 2 * points:
        from scipy.spatial import cKDTree

        kept = farthest(vertices, points)
        label = cKDTree(vertices[kept]).query(vertices)[1]
        vertices, faces = vertices[kept], label[faces]
    faces = faces[(np.diff(np.sort(faces, 1), axis=1) > 0).all(1)]
    if len(faces) == 0:
        raise ReconlabError("heat kernel: all faces of the mesh are smaller than the least distance of its vertices.")
    _, once = np.unique(np.sort(faces, 1), axis=0, return_index=True)
    faces = faces[np.sort(once)]
    while True:
        used, compact = np.unique(faces, return_inverse=True)
        vertices, faces = vertices[used], compact.reshape(-1, 3)
        if len(vertices) >= points / 2:
            return vertices, faces
        edges, middle = np.unique(
            np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]], -1).reshape(-1, 2), axis=0, return_inverse=True
        )
        ab, bc, ca = (middle.reshape(-1, 3) + len(vertices)).T
        a, b, c = faces.T
        vertices = np.concatenate([vertices, vertices[edges].mean(1)])
        faces = np.stack([a, ab, ca, ab, b, bc, ca, bc, c, ab, bc, ca], 1).reshape(-1, 3)


def _eigenpairs(laplacian, mass: np.ndarray, count: int) -> Spectrum:  # type: ignore[no-untyped-def]
    """The lowest ``count`` solutions of ``L φ = λ M φ``, in units of the whole mass."""
    import scipy.linalg
    import scipy.sparse as sparse
    from scipy.sparse.linalg import eigsh

    total = mass.sum()
    if not (np.isfinite(total) and total > 0 and np.isfinite(laplacian.data).all()):
        raise ReconlabError("heat kernel: the surface is too degenerate for a Laplacian.")
    mass = np.maximum(mass, 1e-9 * total / len(mass))  # a point without area would make the problem singular
    mass /= mass.sum()
    symmetric = (laplacian + laplacian.T).tocsc() / 2
    try:
        if len(mass) <= 2 * count:
            values, functions = scipy.linalg.eigh(symmetric.toarray(), np.diag(mass))
            values, functions = values[:count], functions[:, :count]
        else:
            # Below 0, where there is no eigenvalue: the shifted matrix is positive definite.
            start = np.random.default_rng(0).standard_normal(len(mass))
            values, functions = eigsh(symmetric, count, sparse.diags(mass).tocsc(), sigma=-1.0, v0=start)
    except (RuntimeError, ValueError, np.linalg.LinAlgError) as error:
        raise ReconlabError(f"heat kernel: the spectrum of the surface cannot be computed ({error}).") from error
    order = np.argsort(values)
    values, functions = np.maximum(values[order], 0.0), functions[:, order]
    if not (np.isfinite(values).all() and np.isfinite(functions).all()):
        raise ReconlabError("heat kernel: the spectrum of the surface is not finite.")
    return Spectrum(values, functions, mass)
