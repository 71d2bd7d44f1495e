"""Pixel2Mesh's template: counts, closedness, evenness, robustness of the triangulation; subdivision."""

import math

import pytest
import torch

from reconlab.errors import ReconlabError
from reconlab.shapes import Mesh
from reconlab.shapes.connectivity import connectivity
from reconlab.shapes.ellipsoid import ellipsoid, insert_midpoints, subdivide

UNIT = (1.0, 1.0, 1.0)


def volume(vertices: torch.Tensor, faces: torch.Tensor) -> float:
    a, b, c = vertices.double()[faces].unbind(1)
    return float((torch.linalg.cross(a, b) * c).sum() / 6)


def test_levels_have_the_published_counts():
    vertices, faces = ellipsoid()
    counts = []
    for _ in range(3):
        edges = connectivity(faces, len(vertices)).edges
        counts.append((len(vertices), len(edges), len(faces)))
        faces, ends = subdivide(faces, len(vertices))
        vertices = insert_midpoints(vertices, ends)
    assert counts == [(156, 462, 308), (618, 1848, 1232), (2466, 7392, 4928)]


def test_it_is_a_closed_surface_about_the_origin():
    import trimesh

    vertices, faces = ellipsoid((0.1, 0.2, 0.4))
    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.euler_number == 2
    assert mesh.body_count == 1
    # Outward, and nearly the ellipsoid's volume.
    assert volume(vertices, faces) == pytest.approx(4 / 3 * math.pi * 0.1 * 0.2 * 0.4, rel=0.06)
    torch.testing.assert_close((vertices / torch.tensor([0.1, 0.2, 0.4])).norm(dim=1), torch.ones(156))


def test_triangles_are_even():
    vertices, faces = ellipsoid(UNIT)
    net = connectivity(faces, 156)
    assert net.degree.bincount().tolist() == [0, 0, 0, 0, 0, 12, 144]
    length = (vertices[net.edges[:, 0]] - vertices[net.edges[:, 1]]).norm(dim=1)
    assert length.max() < 1.5 * length.min()


def test_no_diagonal_hangs_on_rounding():
    # The corner across each edge lies clearly below the other face's plane: rounding cannot flip an edge.
    vertices, faces = ellipsoid(UNIT)
    a, b, c, d = vertices.double()[connectivity(faces, 156).wings].unbind(1)
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1)
    assert ((d - a) * normal).sum(1).abs().min() > 1e-4


def test_it_is_made_alike_each_time():
    from reconlab.shapes.ellipsoid import _even_sphere

    vertices, faces = ellipsoid()
    _even_sphere.cache_clear()
    again = ellipsoid()
    assert torch.equal(vertices, again[0])
    assert torch.equal(faces, again[1])
    # Each face begins at its smallest vertex, and they are sorted: the hull program's order does not show.
    assert (faces[:, 0] == faces.min(1).values).all()
    assert faces.tolist() == sorted(faces.tolist())
    faces += 1  # a caller's own copy
    assert torch.equal(ellipsoid()[1], again[1])


def test_subdivision_keeps_the_surface():
    vertices, faces = ellipsoid()
    finer, ends = subdivide(faces, 156)
    points = insert_midpoints(vertices, ends)
    assert torch.equal(points[:156], vertices)
    torch.testing.assert_close(points[156:], vertices[ends].mean(1))
    torch.testing.assert_close(Mesh(points, finer).face_areas().sum(), Mesh(vertices, faces).face_areas().sum())
    assert volume(points, finer) == pytest.approx(volume(vertices, faces), rel=1e-6)
    # The four children of each triangle have its normal.
    old = Mesh(vertices, faces).face_normals()
    torch.testing.assert_close(Mesh(points, finer).face_normals(), old.repeat(4, 1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("count", [4, 6, 12, 42])
def test_other_sizes(count):
    vertices, faces = ellipsoid(UNIT, count)
    assert len(faces) == 2 * count - 4
    assert volume(vertices, faces) > 0


@pytest.mark.parametrize(("radii", "count"), [((1, 0, 1), 156), ((1, -1, 1), 156), ((1, 1, 1), 3), ((1, 1), 156)])
def test_mistakes_are_named(radii, count):
    with pytest.raises(ReconlabError, match="expected at least 4 and three positive radii"):
        ellipsoid(radii, count)
