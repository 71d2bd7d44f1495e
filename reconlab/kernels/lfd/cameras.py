"""Cameras of the Light Field Descriptor: dodecahedra, their rotations, our ten light fields, others from a CSV."""

from __future__ import annotations

import csv
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from reconlab.errors import ReconlabError

GOLDEN = (1 + 5**0.5) / 2
ADJACENT = 5**0.5 / 3  # cosine between neighbouring vertices
# How our dodecahedron stands, x y z w. Of 1200 random stances it serves turns about the vertical best, in which
# models differ most often: 3.9 degrees to the nearest alignment on average, for objects with the plane of symmetry
# x = 0 or z = 0, as most have. (Such an object looks the same after a half-turn about that axis: a set with the same
# half-turns would waste three quarters of its alignments.)
STANCE = (-0.2665, 0.0879, 0.367, 0.8869)


@dataclass(frozen=True)
class CameraSet:
    """Views of ten light fields, in an order common to all.

    Attributes:
        frames: ``(10, 10, K, 2, 3)`` float64: of each view, K images' unit axes to the right and up. View ``m`` of
            every light field is the same vertex of the same dodecahedron before its rotation.
        equivariant: Whether the set is closed under :func:`rotations` with its images (then ``K`` is 3, and the
            canonical one of a view's images counts), so that a model is placed by its centroid, not its box.
        name: For messages and cache keys.
    """

    frames: np.ndarray
    equivariant: bool
    name: str


@functools.cache
def dodecahedron() -> np.ndarray:
    """(10, 3) unit vectors: one of each pair of opposite vertices."""
    short, long = 1 / GOLDEN, GOLDEN
    corners = [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1)]
    others = [(0, short, long), (0, -short, long), (short, long, 0), (-short, long, 0)]
    vertices = np.array([*corners, *others, (long, 0, short), (long, 0, -short)]) / 3**0.5
    return Rotation.from_quat(STANCE).apply(vertices)


def _pairs(vertices: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The 60 ordered pairs of neighbouring vertices, from ten of the twenty."""
    every = np.concatenate([vertices, -vertices])
    near = np.abs(every @ every.T - ADJACENT) < 1e-3
    return [(every[i], every[j]) for i, j in np.argwhere(near)]


def _frame(pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    first, second = pair
    return np.stack([first, second, np.cross(first, second)], 1)


@functools.cache
def rotations() -> np.ndarray:
    """(60, 3, 3) the rotations of :func:`dodecahedron`, the identity first."""
    pairs = _pairs(dodecahedron())
    inverse = np.linalg.inv(_frame(pairs[0]))
    return np.stack([_frame(pair) @ inverse for pair in pairs])


@functools.cache
def alignments() -> np.ndarray:
    """(60, 10) int64: view ``m`` of one model meets view ``alignments()[k, m]`` of the other."""
    vertices = dodecahedron()
    cosine = np.abs(np.einsum("nc,gdc,md->gmn", vertices, rotations(), vertices))  # |v_n . R^T v_m|
    return cosine.argmax(-1)


@functools.cache
def half_turns() -> np.ndarray:
    """(10, 3, 3) our light fields' rotations: the half-turns about the dodecahedron's ten threefold axes.

    They are one orbit: a rotation of the dodecahedron takes the ten light fields to one another. No two share a
    view, and the relative rotations that they can align lie within 13.9 degrees of every rotation (7.4 on average).
    """
    vertices = dodecahedron()
    return 2 * vertices[:, :, None] * vertices[:, None, :] - np.eye(3)


@functools.cache
def default_cameras() -> CameraSet:
    """Our own set. Each view has three images, up along the three twofold axes perpendicular to it."""
    vertices, group = dodecahedron(), rotations()
    # One view with a twofold axis perpendicular to it; the group takes this pair to all 20 x 3.
    axes = np.array([(a + b) / np.linalg.norm(a + b) for a, b in _pairs(vertices)])
    axis = axes[np.abs(axes @ vertices[0]).argmin()]
    seen, ups = group @ vertices[0], group @ axis
    frames = np.empty((10, 10, 3, 2, 3))
    for m, vertex in enumerate(vertices):
        for k, i in enumerate(np.flatnonzero(seen @ vertex > 1 - 1e-9)):
            frames[:, m, k, 0] = half_turns() @ np.cross(ups[i], vertex)
            frames[:, m, k, 1] = half_turns() @ ups[i]
    return CameraSet(frames, True, "reconlab")


def upright_cameras(vertices: np.ndarray, name: str) -> CameraSet:
    """A set by its vertices, every camera upright (+y), as in the original program.

    Args:
        vertices: ``(10, 10, 3)``: ten light fields of ten views, each half of a rotated dodecahedron's vertices.
        name: Of the set, for messages.

    Raises:
        ReconlabError: A light field is not half a dodecahedron, or a camera looks along y.
    """
    unit = vertices / np.maximum(np.linalg.norm(vertices, axis=-1, keepdims=True), 1e-12)
    ordered = np.empty_like(unit)
    base = _frame(_pairs(dodecahedron())[0])
    known = dodecahedron()
    for i, field in enumerate(unit):
        pairs = _pairs(field)
        fits = False
        if len(pairs) == 60:
            turned = known @ (_frame(pairs[0]) @ np.linalg.inv(base)).T
            cosine = np.abs(turned @ field.T)
            order = cosine.argmax(1)
            fits = len(set(order.tolist())) == 10 and bool((cosine.max(1) > 1 - 1e-5).all())
        if not fits:
            raise ReconlabError(
                f"{name}: the views of light field {i} are not ten vertices of a regular dodecahedron, one of each "
                "pair of opposite ones."
            )
        ordered[i] = field[order]
    right = np.cross([0.0, 1.0, 0.0], ordered)
    length = np.linalg.norm(right, axis=-1, keepdims=True)
    if bool((length < 1e-6).any()):
        raise ReconlabError(f"{name}: a camera looks along the y axis, which is up for all of them; turn the set.")
    right = right / length
    frames = np.stack([right, np.cross(ordered, right)], 2)[:, :, None]
    return CameraSet(np.ascontiguousarray(frames), False, name)


def read_cameras(path: str | Path) -> CameraSet:
    """Read a set from CSV with the columns ``light_field, view, x, y, z`` (0..9 each), all cameras upright.

    Raises:
        ReconlabError: The file cannot be read, has other columns, or lacks a view.
    """
    vertices = np.full((10, 10, 3), np.nan)
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                field, view = int(row["light_field"]), int(row["view"])
                if not (0 <= field < 10 and 0 <= view < 10):
                    raise ReconlabError(f"{path}: light field {field}, view {view}; both go from 0 to 9.")
                vertices[field, view] = [float(row[axis]) for axis in "xyz"]
    except OSError as error:
        raise ReconlabError(f"Cannot read the cameras {path}: {error.strerror}.") from error
    except (KeyError, TypeError, ValueError, UnicodeDecodeError, csv.Error) as error:
        raise ReconlabError(
            f"{path}: expected a CSV with light_field, view, x, y, z in every row ({error})."
        ) from error
    if not np.isfinite(vertices).all():
        field, view = np.argwhere(~np.isfinite(vertices).all(-1))[0]
        raise ReconlabError(f"{path} has no finite camera for light field {field}, view {view}; expected 10 x 10.")
    return upright_cameras(vertices, str(path))
