"""Inside or outside, for meshes as they come: holed, inconsistently turned, doubled, with inner parts.

The rule: faces are turned outward first (:mod:`reconlab.datasets.orient`); a point is inside where the
generalised winding number of the oriented surface (A. Jacobson et al., "Robust Inside-Outside Segmentation using
Generalized Winding Numbers", 2013) exceeds one half. The number is estimated by rays in random directions, each a
vote: the mean of their signed crossings. Points whose vote is not clear are asked again with many more rays.
Hence parts that overlap, and shells within shells, are solid as a whole; a sheet without thickness has no inside.
"""

from __future__ import annotations

import numpy as np
import torch

from reconlab.datasets.orient import Oriented, orient, random_rotations
from reconlab.kernels.crossings import count_crossings
from reconlab.kernels.voxelize import triangles_to_cells

FIRST, SECOND = 4, 16
"""Random frames (6 rays each) for every point, and more for unclear points."""
CLEAR = 0.2
"""A first vote within this of a whole number is clear."""


def winding_number(points: np.ndarray, corners: np.ndarray, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Monte-Carlo generalised winding number.

    Args:
        points: ``(N, 3)``.
        corners: ``(F, 3, 3)`` outward-turned triangles.
        frames: Random frames of 6 rays each.
        rng: Of the frames.

    Returns:
        ``(N,)`` float64: 1 inside, 0 outside of a closed surface; between near holes, with a standard error of
        at most ``0.5 / sqrt(6 frames)``.
    """
    signed, _, _ = count_crossings(
        torch.from_numpy(np.asarray(points, np.float64)), torch.from_numpy(corners), random_rotations(frames, rng)
    )
    return signed.numpy() / (6.0 * frames)


def inside(points: np.ndarray, mesh: Oriented, seed: int = 0) -> np.ndarray:
    """Which points lie inside an oriented mesh.

    Args:
        points: ``(N, 3)``, in the mesh's unit.
        mesh: From :func:`reconlab.datasets.orient.orient`.
        seed: Of the ray directions.

    Returns:
        ``(N,)`` bool.

    Examples:
        >>> import trimesh
        >>> box = trimesh.creation.box()
        >>> inside(np.array([[0.1, 0.2, 0.3], [0.7, 0.0, 0.0]]), orient(box.vertices, box.faces))
        array([ True, False])
    """
    points = np.asarray(points, np.float64)
    corners = mesh.vertices[mesh.faces[mesh.bounding]]
    out = np.zeros(len(points), bool)
    if len(corners) == 0:
        return out
    # From beyond the bounding box the surface fills less than half of the sky: the number is below one half.
    near = np.flatnonzero(((points >= corners.min((0, 1))) & (points <= corners.max((0, 1)))).all(1))
    rng = np.random.default_rng(seed)
    number = winding_number(points[near], corners, FIRST, rng)
    unclear = np.flatnonzero(np.abs(number - np.round(number)) > CLEAR)
    if len(unclear):
        more = winding_number(points[near[unclear]], corners, SECOND, rng)
        number[unclear] = (FIRST * number[unclear] + SECOND * more) / (FIRST + SECOND)
    out[near] = number > 0.5
    return out


def cell_centres(resolution: int) -> np.ndarray:
    """``(D³, 3)`` centres of the grid's cells over [-0.5, 0.5]³, x slowest, z fastest."""
    axis = (np.arange(resolution) + 0.5) / resolution - 0.5
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)


def surface_cells(vertices: np.ndarray, faces: np.ndarray, resolution: int) -> np.ndarray:
    """``(D, D, D)`` bool: cells of [-0.5, 0.5]³ that a face meets (exact triangle/box overlap)."""
    return triangles_to_cells(torch.from_numpy(np.asarray(vertices, np.float64)[faces]), resolution).numpy()


def voxelize(vertices: np.ndarray, faces: np.ndarray, resolution: int = 32, seed: int = 0) -> np.ndarray:
    """Filled voxels: a cell is occupied if its centre is inside **or** a face meets it.

    That is the one rule of every built dataset. ShapeNet's published grids follow it too (surface plus fill);
    by centres alone, parts thinner than a cell (1/32 of the unit cube) would vanish. The same rule for
    predictions is ``Mesh.voxels``, with the fill by enclosure.

    Args:
        vertices: ``(V, 3)``, object frame.
        faces: ``(F, 3)``, as they come.
        resolution: Cells along each axis.
        seed: Of the rays.

    Returns:
        ``(D, D, D)`` bool, indexed [x, y, z].
    """
    mesh = orient(vertices, faces, seed)
    centres = inside(cell_centres(resolution), mesh, seed).reshape((resolution,) * 3)
    return centres | surface_cells(mesh.vertices, mesh.faces, resolution)
