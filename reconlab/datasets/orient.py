"""Cleaning triangle soups and turning their faces outward, by consistency along edges and visibility from outside.

CAD models come with faces turned the wrong way, faces given twice, inner parts and sheets without thickness. A
winding number needs faces that point outward, so they are oriented first: faces that share an edge must agree,
and a whole edge-connected patch faces the side from which more rays escape (after K. Takayama et al., "A Simple
Method for Correcting Facet Orientations in Polygon Meshes Based on Ray Casting", JCGT 2014).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components

from reconlab.kernels.crossings import count_crossings

MERGE = 1e-6
"""Vertices closer than this (relative to the diagonal) are one vertex."""
OFFSET = 1e-4
"""How far from a face its two sides are looked from, relative to the diagonal."""
HIDDEN = 0.005
"""A patch from whose sides together less than this share of rays escapes cannot be seen from outside."""
SHEET = 0.75
"""An open patch whose two sides see out about equally well (this ratio or more) is a sheet without an inside."""
ROTATIONS = 4
SAMPLES, SAMPLES_EACH = 20000, 4
"""Points looked from: in all by area, and at least in each patch."""


@dataclass(frozen=True)
class Oriented:
    """A cleaned, outward-turned mesh.

    Attributes:
        vertices: ``(V, 3)`` float64, merged.
        faces: ``(F, 3)`` int64, no duplicates, no zero areas, turned outward.
        source: ``(F,)`` the input face of each face.
        flipped: ``(F,)`` bool, whether it was turned round.
        patch: ``(F,)`` its edge-connected patch.
        bounding: ``(F,)`` bool, whether it takes part in inside/outside: sheets that are seen from both sides
            and open inner parts that are seen from none do not.
    """

    vertices: np.ndarray
    faces: np.ndarray
    source: np.ndarray
    flipped: np.ndarray
    patch: np.ndarray
    bounding: np.ndarray


def random_rotations(count: int, rng: np.random.Generator) -> torch.Tensor:
    """``(count, 3, 3)`` float64 rotations, uniform (orthonormalised Gaussian matrices)."""
    q, r = np.linalg.qr(rng.standard_normal((count, 3, 3)))
    q = q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    return torch.from_numpy(q * np.linalg.det(q)[:, None, None])


def clean(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Merge equal vertices, drop faces without area and faces given twice (whichever way they turn).

    Args:
        vertices: ``(V, 3)`` finite.
        faces: ``(F, 3)`` integers.

    Returns:
        Vertices ``(V', 3)`` float64, faces ``(F', 3)`` int64, and the input index ``(F',)`` of each face.
    """
    vertices, faces = np.asarray(vertices, np.float64), np.asarray(faces, np.int64)
    used = vertices[np.unique(faces)] if len(faces) else vertices
    diagonal = float(np.linalg.norm(np.ptp(used, 0))) if len(used) else 0.0
    key = np.round((vertices - (used.min(0) if len(used) else 0)) / max(diagonal * MERGE, 1e-300))
    _, first, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
    vertices, faces = vertices[first], inverse.reshape(-1)[faces]
    corners = vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    keep = np.flatnonzero(area > (diagonal * MERGE) ** 2)
    _, once = np.unique(np.sort(faces[keep], 1), axis=0, return_index=True)
    keep = keep[np.sort(once)]
    faces = faces[keep]
    alive, faces = np.unique(faces, return_inverse=True)
    return vertices[alive], faces.reshape(-1, 3), keep


def consistent_patches(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edge-connected patches, and which faces to turn so that neighbours in a patch agree.

    Faces are neighbours across edges that exactly two faces have; edges of three or more bound patches.

    Returns:
        Patch numbers ``(F,)``, flips ``(F,)`` bool, and per patch whether it is closed ``(P,)`` bool.
    """
    count = len(faces)
    ends = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    owner, forward = np.repeat(np.arange(count), 3), ends[:, 0] < ends[:, 1]
    _, edge, uses = np.unique(np.sort(ends, 1), axis=0, return_inverse=True, return_counts=True)
    edge = edge.reshape(-1)
    order = np.argsort(edge, kind="stable")
    pair = order[uses[edge[order]] == 2].reshape(-1, 2)
    f, g = owner[pair[:, 0]], owner[pair[:, 1]]
    clash = forward[pair[:, 0]] == forward[pair[:, 1]]  # agreeing neighbours run along their edge oppositely
    graph = coo_matrix((np.ones(len(f)), (f, g)), (count, count))
    patches, patch = connected_components(graph, directed=False)
    # Breadth first over all patches at once, from a node that is joined to one face of each.
    _, first = np.unique(patch, return_index=True)
    rows, cols = np.concatenate([f, np.full(patches, count)]), np.concatenate([g, first])
    # Weight 1: agree, 2: clash. A pair of faces sharing two edges keeps one of them (the sum would be wrong).
    lowest, highest = np.minimum(rows, cols), np.maximum(rows, cols)
    _, pick = np.unique(lowest * (count + 1) + highest, return_index=True)
    weight = np.concatenate([clash + 1, np.ones(patches, np.int64)])[pick]
    graph = coo_matrix((weight, (lowest[pick], highest[pick])), (count + 1, count + 1)).tocsr()
    graph = (graph + graph.T).tocsr()
    visit, parent = breadth_first_order(graph, count, directed=False)
    relation = np.asarray(graph[visit[1:], parent[visit[1:]]]).reshape(-1) == 2
    flip = np.zeros(count + 1, bool)
    for node, above, turned in zip(visit[1:].tolist(), parent[visit[1:]].tolist(), relation.tolist(), strict=True):
        flip[node] = flip[above] ^ turned
    open_edges = np.bincount(patch[owner], weights=uses[edge] == 1, minlength=patches)
    return patch, flip[:count], open_edges == 0


def orient(vertices: np.ndarray, faces: np.ndarray, seed: int = 0) -> Oriented:
    """Clean a mesh and turn its faces outward.

    Args:
        vertices: ``(V, 3)`` finite, any unit.
        faces: ``(F, 3)`` integers into the vertices.
        seed: Of the points and directions that are looked from.

    Returns:
        The oriented mesh; without faces if none has an area.
    """
    vertices, faces, source = clean(vertices, faces)
    if len(faces) == 0:
        none = np.zeros(0, bool)
        return Oriented(vertices, faces, source, none, np.zeros(0, np.int64), none)
    patch, flipped, closed = consistent_patches(faces)
    faces = np.where(flipped[:, None], faces[:, [0, 2, 1]], faces)
    front, back = _visibility(vertices, faces, patch, np.random.default_rng(seed))
    high, low = np.maximum(front, back), np.minimum(front, back)
    hidden = front + back < HIDDEN
    turn = np.where(hidden, _volumes(vertices[faces], patch) < 0, back > front)
    bounding = closed | (~hidden & (low < SHEET * high))
    faces = np.where(turn[patch][:, None], faces[:, [0, 2, 1]], faces)
    return Oriented(vertices, faces, source, flipped ^ turn[patch], patch, bounding[patch])


def _volumes(corners: np.ndarray, patch: np.ndarray) -> np.ndarray:
    """Signed volume of each patch, ``(P,)``, about its own mean corner (for closed patches the point is free)."""
    count = patch.max() + 1
    weights = np.bincount(patch, minlength=count)[:, None]
    middle = np.stack([np.bincount(patch, corners[:, :, k].mean(1), count) for k in range(3)], 1) / weights
    c = corners - middle[patch][:, None]
    return np.bincount(patch, np.einsum("fi,fi->f", c[:, 0], np.cross(c[:, 1], c[:, 2])) / 6, count)


def _visibility(
    vertices: np.ndarray, faces: np.ndarray, patch: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Share of rays that escape from the front and from the back of each patch, two ``(P,)`` in [0, 1]."""
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1)
    count = int(patch.max()) + 1
    by_patch = np.argsort(patch, kind="stable")
    cumulative = np.cumsum(area[by_patch])
    ends = np.cumsum(np.bincount(patch, minlength=count))
    high = cumulative[ends - 1]
    low = np.concatenate([[0.0], high[:-1]])
    each = SAMPLES_EACH + np.round(SAMPLES * (high - low) / high[-1]).astype(np.int64)
    owner = np.repeat(np.arange(count), each)
    u = low[owner] + rng.random(len(owner)) * (high - low)[owner]
    index = np.clip(np.searchsorted(cumulative, u, side="right"), (ends - np.bincount(patch))[owner], ends[owner] - 1)
    face = by_patch[index]
    a, b = np.sqrt(rng.random(len(face)))[:, None], rng.random(len(face))[:, None]
    points = (1 - a) * corners[face, 0] + a * (1 - b) * corners[face, 1] + a * b * corners[face, 2]
    step = OFFSET * np.linalg.norm(np.ptp(vertices, 0)) * cross[face] / area[face, None]
    both = torch.from_numpy(np.concatenate([points + step, points - step]))
    _, _, free = count_crossings(both, torch.from_numpy(corners), random_rotations(ROTATIONS, rng))
    share = free.numpy() / (6 * ROTATIONS)
    front, back = (np.bincount(owner, s, count) / each for s in (share[: len(face)], share[len(face) :]))
    return front, back
