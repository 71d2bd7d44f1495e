"""Inside/outside on meshes that the tests damage: share of wrong points among uniform ones."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from reconlab.datasets.inside import cell_centres, inside, surface_cells, voxelize
from reconlab.datasets.orient import clean, consistent_patches, cut_torn, orient

POINTS = np.random.default_rng(0).random((8000, 3)) - 0.5


def _dense(mesh: trimesh.Trimesh, times: int) -> trimesh.Trimesh:
    for _ in range(times):
        mesh = mesh.subdivide()
    return mesh


def _chair() -> tuple[trimesh.Trimesh, np.ndarray]:
    """Overlapping closed boxes; the truth is counted by hand."""
    boxes = [((0.5, 0.05, 0.5), (0, 0, 0)), ((0.5, 0.5, 0.05), (0, 0.25, 0.22))]
    boxes += [((0.06, 0.46, 0.06), (x, -0.24, z)) for x in (-0.2, 0.2) for z in (-0.2, 0.2)]
    parts, truth = [], np.zeros(len(POINTS), bool)
    for size, centre in boxes:
        part = _dense(trimesh.creation.box(size), 3)
        part.apply_translation(centre)
        parts.append(part)
        truth |= (np.abs(POINTS - centre) < np.array(size) / 2).all(1)
    return trimesh.util.concatenate(parts), truth


def _torus() -> tuple[trimesh.Trimesh, np.ndarray]:
    mesh = trimesh.creation.torus(0.3, 0.12, major_sections=90, minor_sections=45)
    ring = np.hypot(np.hypot(POINTS[:, 0], POINTS[:, 1]) - 0.3, POINTS[:, 2])
    return mesh, ring < 0.12


SHAPES = {"chair": _chair(), "torus": _torus()}


def _damage(faces: np.ndarray, flip: float, hole: float, double: float) -> np.ndarray:
    rng = np.random.default_rng(1)
    faces = faces[rng.random(len(faces)) >= hole].copy()
    turned = rng.random(len(faces)) < flip
    faces[turned] = faces[turned][:, ::-1]
    extra = faces[rng.random(len(faces)) < double]
    return np.concatenate([faces, extra[:, [1, 0, 2]]])


@pytest.mark.parametrize("name", list(SHAPES))
@pytest.mark.parametrize(
    ("flip", "hole", "double"),
    [(0.1, 0, 0), (0.3, 0, 0), (0, 0.03, 0), (0, 0.15, 0), (0.3, 0.15, 0.2)],
)
def test_damaged_meshes(name: str, flip: float, hole: float, double: float) -> None:
    mesh, truth = SHAPES[name]
    found = inside(POINTS, orient(mesh.vertices, _damage(mesh.faces, flip, hole, double)))
    # Measured: at most 0.02 % at 100000 points; the polygonal torus is a little smaller than the true one.
    assert (found != truth).mean() < 0.002
    assert 0.8 * truth.sum() < found.sum() < 1.2 * truth.sum()


def test_agrees_with_libigl_on_a_holed_mesh() -> None:
    igl = pytest.importorskip("igl", reason="libigl (extra eval) is an independent check")
    mesh, _ = SHAPES["torus"]
    faces = _damage(mesh.faces, 0, 0.1, 0)
    theirs = igl.fast_winding_number(np.asarray(mesh.vertices), np.asarray(faces, np.int64), POINTS) > 0.5
    assert (inside(POINTS, orient(mesh.vertices, faces)) != theirs).mean() < 0.001


@pytest.mark.parametrize("inward", [False, True])
def test_inner_shells_are_solid(inward: bool) -> None:
    outer, inner = trimesh.creation.icosphere(4, 0.4), trimesh.creation.icosphere(3, 0.25)
    if inward:
        inner.invert()
    both = trimesh.util.concatenate([outer, inner])
    radius = np.linalg.norm(POINTS, axis=1)
    found = inside(POINTS, orient(both.vertices, both.faces))
    assert found[radius < 0.39].all()
    assert not found[radius > 0.4].any()


def test_every_face_given_twice_both_ways() -> None:
    ball = trimesh.creation.icosphere(3, 0.4)
    found = inside(POINTS, orient(ball.vertices, np.concatenate([ball.faces, ball.faces[:, ::-1]])))
    radius = np.linalg.norm(POINTS, axis=1)
    assert found[radius < 0.38].all()
    assert not found[radius > 0.4].any()


def test_triangles_that_share_no_vertex_are_oriented_by_visibility() -> None:
    ball = trimesh.creation.icosphere(4, 0.4)
    corners = ball.triangles * (1 + 1e-4 * np.random.default_rng(2).random((len(ball.faces), 1, 1)))
    faces = np.arange(corners.size // 3).reshape(-1, 3)
    faces = _damage(faces, 0.4, 0, 0)
    mesh = orient(corners.reshape(-1, 3), faces)
    assert mesh.patch.max() > 1000
    c = mesh.vertices[mesh.faces]
    outward = (np.cross(c[:, 1] - c[:, 0], c[:, 2] - c[:, 0]) * c.mean(1)).sum(1) > 0
    assert outward.all()


def test_open_sheets_have_no_inside() -> None:
    sheet = np.array([[-0.4, 0, -0.4], [0.4, 0, -0.4], [0.4, 0, 0.4], [-0.4, 0, 0.4]])
    mesh = orient(sheet, np.array([[0, 1, 2], [0, 2, 3]]))
    near = np.array([[0.0, 1e-3, 0.0], [0.1, -1e-3, 0.1], [0.0, 0.2, 0.0]])
    assert not mesh.bounding.any()
    assert not inside(near, mesh).any()


def test_a_body_without_floor_is_solid() -> None:
    box = _dense(trimesh.creation.box((0.8, 0.2, 0.35)), 3)
    faces = box.faces[box.triangles_center[:, 1] > -0.0999]
    found = inside(np.array([[0.0, 0.03, 0.0], [0.3, 0.05, 0.1], [0.0, -0.2, 0.0]]), orient(box.vertices, faces))
    assert found.tolist() == [True, True, False]


def test_orient_keeps_track_of_faces() -> None:
    ball = trimesh.creation.icosphere(3, 0.4)
    faces = _damage(ball.faces, 0.3, 0, 0)
    mesh = orient(ball.vertices, faces)
    given, kept = ball.vertices[faces[mesh.source]], mesh.vertices[mesh.faces]
    assert np.allclose(np.sort(given.sum(2), 1), np.sort(kept.sum(2), 1))
    changed = (np.cross(given[:, 1] - given[:, 0], given[:, 2] - given[:, 0]) * given.mean(1)).sum(1) < 0
    assert np.array_equal(mesh.flipped, changed)


def test_clean_drops_what_has_no_area() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [2, 0, 0.0]])
    faces = np.array([[0, 1, 2], [3, 1, 2], [0, 1, 4], [1, 1, 2], [2, 1, 3]])
    points, kept, source = clean(vertices, faces)
    assert len(points) == 3
    assert source.tolist() == [0]
    assert kept.shape == (1, 3)


def test_a_mesh_without_area_has_no_inside() -> None:
    mesh = orient(np.zeros((3, 3)), np.array([[0, 1, 2]]))
    assert len(mesh.faces) == 0
    assert not inside(POINTS[:5], mesh).any()


def test_patches_stop_at_edges_of_three_faces() -> None:
    # A closed box with a fin on one edge: the fin is a patch of its own.
    box = trimesh.creation.box()
    edge = box.edges[0]
    found = consistent_patches(np.vstack([box.faces, [*edge, len(box.vertices)]]))
    assert found.patch[-1] not in found.patch[:-1]
    assert not found.closed.any()
    assert consistent_patches(box.faces).closed.all()


def test_patches_that_see_out_from_opposite_sides_are_cut() -> None:
    """A strip whose two halves are certain of opposite sides: what is between sides with the nearer half."""
    strip = np.array([[i, i + 1, i + 2] for i in range(8)])
    strip[1::2] = strip[1::2][:, ::-1]
    joined = consistent_patches(strip)
    assert joined.patch.max() == 0
    front = np.array([0.5, 0.5, 0.1, 0.1, 0.1, 0.1, 0.0, 0.0])
    patch, closed = cut_torn(joined, np.ones(8), front, front[::-1].copy())
    assert patch.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert not closed.any()
    # A few dissenters are noise: the patch stays whole.
    front = np.full(100, 0.5)
    front[7], back = 0.0, np.zeros(100)
    back[7] = 0.5
    strip = np.array([[i, i + 1, i + 2] for i in range(100)])
    whole = consistent_patches(strip)
    assert cut_torn(whole, np.ones(100), front, back)[0].max() == 0


def test_voxels_follow_the_written_rule() -> None:
    ball = trimesh.creation.icosphere(4, 0.4)
    grid = voxelize(ball.vertices, ball.faces, 16)
    centres = cell_centres(16)
    assert grid.reshape(-1)[np.linalg.norm(centres, axis=1) < 0.395].all()
    assert (grid & surface_cells(ball.vertices, ball.faces, 16)).sum() == surface_cells(
        ball.vertices, ball.faces, 16
    ).sum()
    assert not grid.reshape(-1)[np.linalg.norm(centres, axis=1) > 0.4 + 0.06].any()
    assert centres[1].tolist() == [-0.46875, -0.46875, -0.40625]  # z is fastest


def test_seeded() -> None:
    mesh, _ = SHAPES["torus"]
    faces = _damage(mesh.faces, 0.1, 0.3, 0)
    first, second = (inside(POINTS[:2000], orient(mesh.vertices, faces, seed=5), seed=5) for _ in range(2))
    assert np.array_equal(first, second)
