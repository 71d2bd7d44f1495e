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
CERTAIN, UNSEEN = 0.1, 0.35
"""A face is certain of its outer side if that one's rays escape at least so often, and the other's at most this
share as often."""
CONFLICT = 0.03
"""A patch whose certain faces disagree by more than this share of their area is cut where they do."""
ROTATIONS = 4
SAMPLES, SAMPLES_EACH, FACES_MANY = 20000, 3, 30000
"""Points looked from: in all by area, and beyond that on each face (one on each if there are many faces)."""


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


@dataclass(frozen=True)
class Patches:
    """Faces joined across edges.

    Attributes:
        links: ``(L, 2)`` pairs of faces that share an edge which only they have.
        patch: ``(F,)`` patch numbers.
        flipped: ``(F,)`` bool, faces to turn so that the neighbours in a patch agree.
        closed: ``(P,)`` bool, patches without a border.
    """

    links: np.ndarray
    patch: np.ndarray
    flipped: np.ndarray
    closed: np.ndarray


def consistent_patches(faces: np.ndarray) -> Patches:
    """Edge-connected patches of faces ``(F, 3)``; edges that three or more faces share are borders."""
    count = len(faces)
    ends = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    owner, forward = np.repeat(np.arange(count), 3), ends[:, 0] < ends[:, 1]
    _, edge, uses = np.unique(np.sort(ends, 1), axis=0, return_inverse=True, return_counts=True)
    edge = edge.reshape(-1)
    order = np.argsort(edge, kind="stable")
    pair = order[uses[edge[order]] == 2].reshape(-1, 2)
    links = owner[pair]
    clash = forward[pair[:, 0]] == forward[pair[:, 1]]  # agreeing neighbours run along their edge oppositely
    patch, closed = _components(links, count)
    _, roots = np.unique(patch, return_index=True)
    flipped = _spread(links, clash, roots, np.zeros(len(roots), bool), count)
    return Patches(links, patch, flipped, closed)


def _components(links: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Component of each of ``count`` faces, and whether each component has all its edges linked."""
    graph = coo_matrix((np.ones(len(links)), (links[:, 0], links[:, 1])), (count, count))
    number, patch = connected_components(graph, directed=False)
    joined = np.bincount(patch[links.reshape(-1)], minlength=number)
    return patch, joined == 3 * np.bincount(patch, minlength=number)


def _spread(links: np.ndarray, differs: np.ndarray, roots: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Carry boolean values from root faces over links, negated where a link differs; nearest root first.

    Faces that no root reaches get False.
    """
    # All roots hang on one extra node, so that one search visits every patch.
    rows = np.concatenate([links.min(1), roots])
    cols = np.concatenate([links.max(1), np.full(len(roots), count)])
    _, pick = np.unique(rows * (count + 1) + cols, return_index=True)  # two faces may share two edges
    weight = np.concatenate([differs + 1, values + 1])[pick]  # 1: same, 2: negated; zeros would be no edges
    graph = coo_matrix((weight, (rows[pick], cols[pick])), (count + 1, count + 1)).tocsr()
    graph = (graph + graph.T).tocsr()
    visit, parent = breadth_first_order(graph, count, directed=False)
    above = parent[visit[1:]]
    relation = np.asarray(graph[visit[1:], above]).reshape(-1) == 2
    out = np.zeros(count + 1, bool)
    for node, origin, negated in zip(visit[1:].tolist(), above.tolist(), relation.tolist(), strict=True):
        out[node] = out[origin] ^ negated
    return out[:count]


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
    joined = consistent_patches(faces)
    faces = np.where(joined.flipped[:, None], faces[:, [0, 2, 1]], faces)
    area, front, back = _visibility(vertices, faces, np.random.default_rng(seed))
    patch, closed = cut_torn(joined, area, front, back)
    share = np.maximum(np.bincount(patch, area), 1e-300)
    above, below = np.bincount(patch, area * front) / share, np.bincount(patch, area * back) / share
    hidden = above + below < HIDDEN
    turn = np.where(hidden, _volumes(vertices[faces], patch) < 0, below > above)
    sheet = np.minimum(above, below) >= SHEET * np.maximum(above, below)
    bounding = closed | (~hidden & ~sheet)
    faces = np.where(turn[patch][:, None], faces[:, [0, 2, 1]], faces)
    return Oriented(vertices, faces, source, joined.flipped ^ turn[patch], patch, bounding[patch])


def cut_torn(joined: Patches, area: np.ndarray, front: np.ndarray, back: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Patches after cutting those whose faces, though joined edge to edge, see out from opposite sides.

    Doubled walls that are sewn together along windows make such patches. Each face sides with the nearest
    certain one, and links between opposite sides are cut.

    Args:
        joined: The patches.
        area: ``(F,)`` of the faces.
        front: ``(F,)`` share of rays that escape from the front of each face, turned to agree with its patch.
        back: Likewise from the back.

    Returns:
        Patch numbers ``(F,)`` and whether each patch is closed ``(P,)``.
    """
    high, low = np.maximum(front, back), np.minimum(front, back)
    certain = (high >= CERTAIN) & (low <= UNSEEN * high)
    count = len(joined.closed)
    says = np.where(certain, area, 0.0)
    reverse = np.bincount(joined.patch, says * (back > front), count)
    total = np.bincount(joined.patch, says, count)
    torn = np.minimum(reverse, total - reverse) > CONFLICT * total
    if not torn.any():
        return joined.patch, joined.closed
    roots = np.flatnonzero(certain & torn[joined.patch])
    side = _spread(joined.links, np.zeros(len(joined.links), bool), roots, (back > front)[roots], len(area))
    side[roots] = (back > front)[roots]
    return _components(joined.links[side[joined.links[:, 0]] == side[joined.links[:, 1]]], len(area))


def _volumes(corners: np.ndarray, patch: np.ndarray) -> np.ndarray:
    """Signed volume of each patch, ``(P,)``, about its own mean corner (for closed patches the point is free)."""
    count = patch.max() + 1
    weights = np.bincount(patch, minlength=count)[:, None]
    middle = np.stack([np.bincount(patch, corners[:, :, k].mean(1), count) for k in range(3)], 1) / weights
    c = corners - middle[patch][:, None]
    return np.bincount(patch, np.einsum("fi,fi->f", c[:, 0], np.cross(c[:, 1], c[:, 2])) / 6, count)


def _visibility(
    vertices: np.ndarray, faces: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Areas of the faces and the share of rays that escape from their front and their back, three ``(F,)``."""
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1)
    least = SAMPLES_EACH if len(faces) <= FACES_MANY else 1
    each = least + np.round(SAMPLES * area / area.sum()).astype(np.int64)
    face = np.repeat(np.arange(len(faces)), each)
    a, b = np.sqrt(rng.random(len(face)))[:, None], rng.random(len(face))[:, None]
    points = (1 - a) * corners[face, 0] + a * (1 - b) * corners[face, 1] + a * b * corners[face, 2]
    step = OFFSET * np.linalg.norm(np.ptp(vertices, 0)) * cross[face] / area[face, None]
    both = torch.from_numpy(np.concatenate([points + step, points - step]))
    _, _, free = count_crossings(both, torch.from_numpy(corners), random_rotations(ROTATIONS, rng))
    share = free.numpy() / (6 * ROTATIONS)
    front, back = (np.bincount(face, s, len(faces)) / each for s in (share[: len(face)], share[len(face) :]))
    return area, front, back
