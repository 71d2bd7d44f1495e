"""Hard renderings against ray casting by hand, and what datasets and galleries rely on."""

import math

import numpy as np
import pytest
import torch
import trimesh

from reconlab.cameras import look_at, orbit_views, softras_cameras
from reconlab.errors import ReconlabError
from reconlab.renderers import Light, render_depth, render_rgba
from reconlab.renderers.hard import clip_near

FULL = Light(ambient=1.0, diffuse=0.0)


def sphere(subdivisions=2, radius=0.4):
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return torch.tensor(mesh.vertices).float(), torch.tensor(mesh.faces)


def cast(vertices, faces, camera, size):
    """Depth and face by Möller and Trumbore's test of every pixel's ray with every triangle, in float64."""
    grid = (2 * np.arange(size) + 1) / size - 1
    x, y = np.meshgrid(grid, grid)
    focal = camera.focal.double().numpy()
    rays = np.stack([x / focal[0], y / focal[1], np.ones_like(x)], -1).reshape(-1, 1, 3)
    corners = camera.transform(vertices.double()).numpy()[faces.numpy()]
    a, ab, ac = corners[:, 0], corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    h = np.cross(rays, ac)
    det = (ab * h).sum(-1)
    u = (-a * h).sum(-1) / det
    q = np.cross(-a, ab)
    v = (rays * q).sum(-1) / det
    t = (ac * q).sum(-1) / det
    t[(u < 0) | (v < 0) | (u + v > 1) | (t <= 0)] = np.inf  # the ray's z is 1: t is the depth
    return t.min(1).reshape(size, size), np.where(np.isinf(t.min(1)), -1, t.argmin(1)).reshape(size, size)


@pytest.mark.parametrize("distance", [2.7, 0.5, 0.3])
def test_depth_and_face_are_those_of_ray_casting(distance):
    """From outside, from close by, and from within, where faces cross the near plane."""
    vertices, faces = sphere()
    vertices = vertices * torch.tensor([1.0, 0.8, 0.6])
    cameras = look_at([0.0, 70.0, 200.0], 25.0, distance, 1.5)
    result = render_depth(vertices, faces, cameras, 40)
    for v in range(3):
        depth, face = cast(vertices, faces, cameras[v], 40)
        same = result.face[v].numpy() == face
        assert same.mean() > 0.998  # centres on edges
        np.testing.assert_allclose(result.depth[v].numpy()[same], depth[same], rtol=1e-4)


def test_a_floor_through_the_near_plane_is_clipped():
    """A floor of two huge faces that begins behind the eye: depth is focal × height / y."""
    floor = torch.tensor([[-50.0, -0.3, -50], [50, -0.3, -50], [50, -0.3, 50], [-50, -0.3, 50]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    result = render_depth(floor, faces, look_at([0.0], 0.0, 2.0, 1.0), 32)
    y = (2 * torch.arange(32) + 1) / 32 - 1
    below = y > 0.1
    torch.testing.assert_close(result.depth[0, below, 5], 0.3 / y[below], rtol=1e-3, atol=0)
    assert (result.face[0, below] >= 0).all()
    assert (result.face[0, y < 0] == -1).all()
    assert result.face.unique().tolist() == [-1, 0, 1]


def test_clipping_keeps_area_and_orientation():
    g = torch.Generator().manual_seed(0)
    corners = torch.randn(200, 3, 3, generator=g)
    crossing = ((corners[..., 2] < 0.1).sum(1) % 3) > 0
    corners = corners[crossing]
    kept, source = clip_near(corners, 0.1)
    hidden, hidden_source = clip_near(corners * torch.tensor([1, 1, -1.0]), -0.1)
    assert kept[..., 2].min() >= 0.1

    def area(t, parent):
        normal = torch.linalg.cross(t[:, 1] - t[:, 0], t[:, 2] - t[:, 0]) / 2
        return torch.zeros(len(corners), 3).index_add(0, parent, normal)

    mirrored = area(hidden, hidden_source) * torch.tensor([-1.0, -1, 1]) * -1
    whole = area(corners, torch.arange(len(corners)))
    mirrored[:, :2], mirrored[:, 2] = mirrored[:, :2] * -1, mirrored[:, 2] * -1
    torch.testing.assert_close(area(kept, source).norm(dim=1) + mirrored.norm(dim=1), whole.norm(dim=1))
    assert ((area(kept, source) * whole).sum(1) >= 0).all()


def test_two_views_correspond_by_depth():
    """A point lifted from one view lands in another view where the same face is seen at its depth."""
    vertices, faces = sphere(3)
    cameras = orbit_views(24)[:2]
    result = render_depth(vertices, faces, cameras, 128)
    row, column = (result.face[0] >= 0).nonzero(as_tuple=True)
    depth = result.depth[0, row, column]
    xy = (2 * torch.stack([column, row], -1) + 1) / 128 - 1
    camera = torch.cat([xy / cameras.focal[0] * depth[:, None], depth[:, None]], -1)
    world = (camera - cameras.t[0]) @ cameras.R[0]
    torch.testing.assert_close(world.norm(dim=1), torch.full((len(world),), 0.4), atol=5e-3, rtol=0)
    there, expected = cameras[1].project(world)
    pixel = ((there + 1) * 64 - 0.5).round().long()
    found = result.depth[1, pixel[:, 1], pixel[:, 0]]
    assert ((found - expected).abs() < 0.01).float().mean() > 0.8  # a rim of it has turned away


def test_picture_is_the_shape_and_its_colours():
    square = torch.tensor([[-0.3, -0.3, 0], [0.3, -0.3, 0], [0.3, 0.3, 0], [-0.3, 0.3, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    colours = torch.tensor([[255, 0, 0], [0, 0, 255]], dtype=torch.uint8)
    views = softras_cameras([0.0, 180.0], 0.0)
    pictures = render_rgba(square, faces, views, 64, colours, supersample=4, light=FULL)
    assert pictures.dtype == torch.uint8
    assert pictures.shape == (2, 64, 64, 4)
    side = 0.6 / math.tan(math.radians(15)) / 2.732 / 2 * 64
    assert float(pictures[..., 3].double().sum(dim=(1, 2))[0]) / 255 == pytest.approx(side**2, rel=0.02)
    middle = slice(24, 40)
    for picture, lower in zip(pictures, ([255, 0, 0, 255], [255, 0, 0, 255]), strict=True):
        assert (picture[40, 28:36] == torch.tensor(lower)).all()  # red holds the lower right of the object
        assert (picture[middle, middle, 3] == 255).all()
        assert (picture[0] == 0).all()
    floats = render_rgba(square, faces, views, 64, colours.float() / 255, supersample=4, light=FULL)
    assert torch.equal(floats, pictures)
    assert int(render_rgba(square, faces, views, 16, light=FULL)[0, 8, 8, 0]) == 204


def test_edges_are_antialiased_without_dark_fringes():
    vertices, faces = sphere(3)
    white = torch.ones(len(faces), 3)
    picture = render_rgba(vertices, faces, orbit_views(1), 48, white, supersample=4, light=FULL)[0]
    edge = (picture[..., 3] > 0) & (picture[..., 3] < 255)
    assert int(edge.sum()) > 40
    assert (picture[edge][:, :3] == 255).all()
    hard = render_rgba(vertices, faces, orbit_views(1), 48, white, supersample=1, light=FULL)[0]
    assert hard[..., 3].unique().tolist() == [0, 255]


def test_light_comes_from_above_and_both_sides_are_lit_alike():
    vertices, faces = sphere(3)
    light = Light(direction=(0, 1, 0))
    picture = render_rgba(vertices, faces, softras_cameras([0.0], 0.0), 64, light=light)[0, :, :, 0].int()
    seen = picture[:, 32][picture[:, 32] > 0]
    assert seen[0] > 1.8 * seen[-1]
    inverted = render_rgba(vertices, faces.flip(1), softras_cameras([0.0], 0.0), 64, light=light)[0, :, :, 0].int()
    assert (picture - inverted).abs().max() <= 1


def test_many_views_are_drawn_in_chunks(monkeypatch):
    vertices, faces = sphere(1)
    whole = render_rgba(vertices, faces, orbit_views(5), 24)
    monkeypatch.setattr("reconlab.renderers.hard.PIXELS_AT_ONCE", 2 * 48 * 48)
    assert torch.equal(render_rgba(vertices, faces, orbit_views(5), 24), whole)


def test_nothing_and_nonsense():
    none = render_rgba(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long), orbit_views(2), (8, 12))
    assert none.shape == (2, 8, 12, 4)
    assert not none.any()
    vertices, faces = sphere(1)
    broken = torch.cat([vertices, torch.tensor([[float("nan")] * 3, [1e9, 0, 0]])])
    extra = torch.tensor([[0, 1, len(vertices)], [3, 3, 3], [5, 6, len(vertices) + 1]])
    picture = render_rgba(broken, torch.cat([faces, extra]), orbit_views(2), 16)
    assert int(picture[0, 8, 8, 3]) == 255


def test_wrong_arguments_are_named():
    vertices, faces = sphere(0)
    with pytest.raises(ReconlabError, match=r"vertices \(N,3\)"):
        render_rgba(vertices[None], faces, orbit_views(2), 8)
    with pytest.raises(ReconlabError, match="cameras of shape"):
        render_depth(vertices, faces, orbit_views(4).reshape(2, 2), 8)
    with pytest.raises(ReconlabError, match="face_colors"):
        render_rgba(vertices, faces, orbit_views(2), 8, torch.zeros(3, 3))
    with pytest.raises(ReconlabError, match="supersample"):
        render_rgba(vertices, faces, orbit_views(2), 8, supersample=0)
