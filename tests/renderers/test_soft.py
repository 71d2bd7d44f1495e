"""The soft renderer: what is seen, from where, and that the vertices get the right gradient."""

import math

import pytest
import torch
import trimesh

from reconlab.cameras import Cameras, hemisphere_views, orbit_views, softras_cameras
from reconlab.errors import ReconlabError
from reconlab.renderers import Light, SoftImages, soft_rasterize
from reconlab.shapes import Mesh


def ball(subdivisions=3, radius=0.4, squash=(1.0, 0.7, 0.5)) -> Mesh:
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return Mesh(torch.tensor(mesh.vertices).float() * torch.tensor(squash), torch.tensor(mesh.faces))


def box(low, high) -> Mesh:
    low, high = torch.tensor(low), torch.tensor(high)
    mesh = trimesh.creation.box(extents=(high - low).tolist())
    return Mesh(torch.tensor(mesh.vertices).float() + (low + high) / 2, torch.tensor(mesh.faces))


def centroid(image):
    """Row and column of an image's centre of mass, in [-1,1]."""
    h, w = image.shape
    rows, columns = (2 * torch.arange(h) + 1) / h - 1, (2 * torch.arange(w) + 1) / w - 1
    return float((image.sum(1) * rows).sum() / image.sum()), float((image.sum(0) * columns).sum() / image.sum())


def test_up_is_up_and_the_front_faces_azimuth_zero():
    cameras = softras_cameras([0.0, 90.0, 180.0, 270.0], elevation=0.0)
    head = box((-0.05, 0.3, -0.05), (0.05, 0.4, 0.05))
    row, column = centroid(soft_rasterize(head, cameras, 64).silhouette[0, 0])
    assert row < -0.3
    assert abs(column) < 0.02
    right_hand = box((0.3, -0.05, -0.05), (0.4, 0.05, 0.05))  # +x: left in the picture of someone facing -z
    columns = [centroid(v)[1] for v in soft_rasterize(right_hand, cameras, 64).silhouette[0]]
    assert columns[0] < -0.3
    assert columns[2] > 0.3
    assert abs(columns[1]) < 0.02
    nose = box((-0.05, -0.05, -0.45), (0.05, 0.05, -0.35))  # the front: nearest, hence largest, at azimuth 0
    areas = soft_rasterize(nose, cameras, 64).silhouette[0].sum((1, 2))
    assert areas[0] > areas[2] * 1.3
    assert centroid(soft_rasterize(nose, cameras, 64).silhouette[0, 1])[1] > 0.3  # seen from +x it points right


def test_the_front_hides_the_back():
    wall = torch.tensor([[-0.3, -0.3, -0.3], [0.3, -0.3, -0.3], [0.3, 0.3, -0.3], [-0.3, 0.3, -0.3]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    tilted = wall * torch.tensor([1, 1, -1.0]) + torch.tensor([0, 0, 0.2]) * wall[:, 1:2].sign()
    light = Light(direction=(0, 0, -1), ambient=0.0, diffuse=1.0)
    mesh = Mesh.from_list([(torch.cat([wall, tilted]), torch.cat([faces, faces + 4]))])
    front, back = soft_rasterize(mesh, softras_cameras([0.0, 180.0], 0.0), 32, gamma=1e-5, light=light).shaded[0]
    assert float(front[14, 20]) == pytest.approx(1.0, abs=0.01)
    assert float(back[14, 20]) == pytest.approx(0.0, abs=0.01)  # turned to the viewer, away from the light


def test_shaded_is_dark_outside_and_bounded_inside():
    out = soft_rasterize(ball(), hemisphere_views(), 48)
    assert isinstance(out, SoftImages)
    assert out.silhouette.shape == out.shaded.shape == (1, 25, 48, 48)
    assert (out.shaded <= out.silhouette + 1e-6).all()
    assert out.shaded[:, :, 0].abs().max() == 0
    inside = out.silhouette > 0.999
    assert out.shaded[inside].min() > 0.39
    assert out.shaded[inside].max() > 0.9
    assert soft_rasterize(ball(), hemisphere_views(), 16, shading=False).shaded is None


@pytest.mark.parametrize("normals", ["smooth", "flat"])
def test_turned_faces_look_the_same(normals):
    mesh = ball(2)
    inverted = Mesh(mesh.vertices, mesh.faces.flip(1))
    a, b = (soft_rasterize(m, orbit_views(4), 32, normals=normals).shaded for m in (mesh, inverted))
    torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def test_smooth_normals_are_smoother():
    coarse, fine = ball(1, squash=(1, 1, 1)), ball(4, squash=(1, 1, 1))
    view = orbit_views(1)
    truth = soft_rasterize(fine, view, 48, gamma=1e-4).shaded
    error = {
        n: float((soft_rasterize(coarse, view, 48, normals=n, gamma=1e-4).shaded - truth)[..., 16:32, 16:32].std())
        for n in ("smooth", "flat")
    }
    assert error["smooth"] < 0.6 * error["flat"]


def test_ragged_batch_equals_its_items():
    nothing = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long))
    meshes = [ball(1), nothing, box((-0.2, -0.3, -0.1), (0.1, 0.3, 0.2))]
    cameras = orbit_views(9).reshape(3, 3)
    batch = soft_rasterize(Mesh.cat(meshes), cameras, (20, 28))
    assert batch.shaded.shape == (3, 3, 20, 28)
    assert batch.silhouette[1].abs().max() == 0
    for b, mesh in enumerate(meshes):
        alone = soft_rasterize(mesh, cameras[b], (20, 28))
        torch.testing.assert_close(batch.silhouette[b], alone.silhouette[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(batch.shaded[b], alone.shaded[0], atol=1e-5, rtol=0)


def test_order_of_faces_does_not_matter():
    mesh = ball(2)
    order = torch.randperm(len(mesh.faces), generator=torch.Generator().manual_seed(0))
    a, b = (soft_rasterize(Mesh(mesh.vertices, f), orbit_views(2), 32) for f in (mesh.faces, mesh.faces[order]))
    torch.testing.assert_close(a.shaded, b.shaded, atol=2e-5, rtol=0)


def slope(render, at=1.0, step=5e-3):
    """Derivative of a sum by the object's scale: by autograd, and by central differences."""
    scale = torch.tensor(at, requires_grad=True)
    (gradient,) = torch.autograd.grad(render(scale), scale)
    with torch.no_grad():
        difference = (render(torch.tensor(at + step)) - render(torch.tensor(at - step))) / (2 * step)
    return float(gradient), float(difference)


@pytest.mark.parametrize("normals", ["smooth", "flat"])
@pytest.mark.parametrize("image", ["silhouette", "shaded"])
def test_gradient_of_growth_is_that_of_finite_differences(image, normals):
    mesh = ball()
    views = hemisphere_views()[::6]

    def render(scale):
        grown = Mesh(mesh.vertices * scale, mesh.faces)
        return getattr(soft_rasterize(grown, views, 64, normals=normals, sigma=3e-4), image).double().sum()

    gradient, difference = slope(render)
    assert difference > 1000
    assert gradient == pytest.approx(difference, rel=0.05)


def test_softmax_colour_alone_has_no_silhouette_gradient():
    """Why the shaded image is colour times alpha: the colour's own outline is hard."""
    mesh, views = ball(), orbit_views(2)

    def render(scale):
        out = soft_rasterize(Mesh(mesh.vertices * scale, mesh.faces), views, 64)
        return (out.shaded / out.silhouette.clamp(min=1e-6)).double().sum()

    gradient, difference = slope(render)
    assert abs(gradient) < 0.2 * difference


def test_each_vertex_gradient_in_double_precision():
    """All paths (projection, depth, normals) at once, by the float64 reference and finite differences."""
    mesh = ball(0)
    g = torch.Generator().manual_seed(0)
    vertices = (mesh.vertices + 0.03 * torch.randn(mesh.vertices.shape, generator=g)).double()
    view = softras_cameras(20.0).reshape(1)

    def render(v):
        return soft_rasterize(Mesh(v, mesh.faces), view, 12, sigma=5e-3, gamma=5e-3).shaded

    weight = torch.rand(12, 12, generator=g).double()
    v = vertices.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((render(v) * weight).sum(), v)
    direction = torch.randn(v.shape, generator=g).double()
    step = 1e-6
    with torch.no_grad():
        difference = ((render(vertices + step * direction) - render(vertices - step * direction)) * weight).sum()
    assert float((gradient * direction).sum()) == pytest.approx(float(difference / (2 * step)), rel=1e-3)
    single = vertices.float().requires_grad_()
    (fast,) = torch.autograd.grad((render(single) * weight.float()).sum(), single)
    assert float((fast - gradient).norm() / gradient.norm()) < 1e-3


def test_gradient_is_finite_with_degenerate_faces_and_behind_the_camera():
    mesh = ball(1)
    extra = torch.tensor([[0, 0, 0], [0, 1, 1], [2, 5, 2]])
    vertices = mesh.vertices.clone().requires_grad_()
    inside = softras_cameras([0.0, 30.0], distance=0.2)  # the eye within the mesh
    for cameras in (orbit_views(2), inside):
        out = soft_rasterize(Mesh(vertices, torch.cat([mesh.faces, extra])), cameras, 32)
        (gradient,) = torch.autograd.grad((out.shaded + out.silhouette).sum(), vertices)
        assert gradient.isfinite().all()


def test_wrong_arguments_are_named():
    two = Mesh.cat([ball(0), ball(0)])
    with pytest.raises(ReconlabError, match=r"cameras have shape \(3, 4\) and there are 2"):
        soft_rasterize(two, orbit_views(12).reshape(3, 4))
    with pytest.raises(ReconlabError, match="'smooth' or 'flat'"):
        soft_rasterize(two, orbit_views(2), normals="round")
    with pytest.raises(ReconlabError, match="sigma"):
        soft_rasterize(two, orbit_views(2), 8, sigma=-1.0)


def test_other_cameras_and_devices_of_the_batch():
    cameras = Cameras.stack([orbit_views(2), orbit_views(2, elevation=-20.0)])
    out = soft_rasterize(Mesh.cat([ball(1), ball(1)]), cameras, 24)
    assert not torch.allclose(out.silhouette[0], out.silhouette[1])
    area = float(out.silhouette[0, 0].mean()) * 4
    focal = 1 / math.tan(math.radians(15))
    assert 0.3 < area / (math.pi * 0.4 * 0.35 * (focal / 2.732) ** 2) < 1.5


def test_half_precision_networks_get_full_precision_pictures():
    mesh = ball(2)
    expected = soft_rasterize(mesh, orbit_views(2), 32).shaded
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(soft_rasterize(mesh, orbit_views(2), 32).shaded, expected)
    leaf = mesh.vertices.bfloat16().requires_grad_()
    half = Mesh(leaf, mesh.faces)
    shaded = soft_rasterize(half, orbit_views(2), 32).shaded
    assert shaded.dtype == torch.float32
    shaded.sum().backward()
    assert leaf.grad.isfinite().all()
    assert leaf.grad.abs().max() > 0


@pytest.mark.parametrize(("batch", "views"), [(2, 0), (0, 3)])
def test_no_views_and_no_meshes(batch, views):
    mesh = Mesh.cat([ball(0)] * 2)[:batch] if batch else Mesh(torch.zeros(0, 4, 3), torch.tensor([[0, 1, 2]]))
    out = soft_rasterize(mesh, orbit_views(3)[:views], 8)
    assert out.silhouette.shape == out.shaded.shape == (batch, views, 8, 8)
