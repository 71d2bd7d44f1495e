"""SoftRas, NMR and DIB-R behind one signature: the same pictures, useful gradients, finite on bad input."""

import pytest
import torch
import trimesh

from reconlab.batch import Batch, Views
from reconlab.cameras import hemisphere_views, orbit_views, softras_cameras
from reconlab.errors import ReconlabError
from reconlab.losses import DRKFS, CrossSilhouetteIoU, PixelMSE, SilhouetteIoU
from reconlab.losses.view_images import RenderSettings, render_views
from reconlab.renderers import render_dibr, render_nmr, soft_rasterize
from reconlab.shapes import Mesh

RENDERERS = {"softras": soft_rasterize, "nmr": render_nmr, "dibr": render_dibr}
NAMES = list(RENDERERS)


def ball(subdivisions=2, radius=0.35, squash=(1.0, 0.7, 0.5)) -> Mesh:
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return Mesh(torch.tensor(mesh.vertices).float() * torch.tensor(squash), torch.tensor(mesh.faces))


@pytest.mark.parametrize("name", ["nmr", "dibr"])
@pytest.mark.parametrize("normals", ["smooth", "flat"])
def test_pictures_are_those_of_the_soft_renderer_when_sharp(name, normals):
    mesh, views = ball(), orbit_views(3)
    sharp = soft_rasterize(mesh, views, 64, sigma=1e-7, gamma=1e-5, normals=normals)
    other = RENDERERS[name](mesh, views, 64, normals=normals)
    assert other.silhouette.shape == other.shaded.shape == (1, 3, 64, 64)
    assert (other.silhouette - sharp.silhouette).abs().mean() < 0.01
    assert (other.shaded - sharp.shaded).abs().mean() < 0.01
    assert (other.shaded - sharp.shaded).abs().median() < 1e-3
    assert RENDERERS[name](mesh, views, 16, shading=False).shaded is None


def test_antialiasing_averages_a_picture_of_twice_the_size():
    mesh, views = ball(), orbit_views(2)
    fine = render_nmr(mesh, views, (40, 64), antialias=False)
    smooth = render_nmr(mesh, views, (20, 32))
    for a, b in zip(fine, smooth, strict=True):
        torch.testing.assert_close(a.reshape(1, 2, 20, 2, 32, 2).mean((3, 5)), b)
    assert ((fine.silhouette == 0) | (fine.silhouette == 1)).all()


@pytest.mark.parametrize("name", NAMES)
def test_ragged_batches_and_their_own_cameras(name):
    nothing = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long))
    meshes = [ball(1), nothing, ball(0)]
    cameras = orbit_views(9).reshape(3, 3)
    batch = RENDERERS[name](Mesh.cat(meshes), cameras, (20, 28))
    assert not batch.silhouette[1].any()
    for b, mesh in enumerate(meshes):
        alone = RENDERERS[name](mesh, cameras[b], (20, 28))
        torch.testing.assert_close(batch.silhouette[b], alone.silhouette[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(batch.shaded[b], alone.shaded[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("batch", "views"), [(2, 0), (0, 3)])
def test_no_views_and_no_meshes(name, batch, views):
    mesh = Mesh.cat([ball(0)] * 2)[:batch] if batch else Mesh(torch.zeros(0, 4, 3), torch.tensor([[0, 1, 2]]))
    out = RENDERERS[name](mesh, orbit_views(3)[:views], 8)
    assert out.silhouette.shape == out.shaded.shape == (batch, views, 8, 8)


@pytest.mark.parametrize("name", NAMES)
def test_silhouettes_fit_a_ball_to_another(name):
    """Scale and shift, by the gradient of every renderer."""
    views = hemisphere_views(half_fov=11.5)[::6]
    truth = ball(squash=(1, 1, 1))
    settings = RenderSettings("silhouette", 32, 1e-3, 1e-3, "smooth", name)
    target = render_views(truth, views, settings)
    scale, shift = torch.tensor(0.7, requires_grad=True), torch.tensor([0.1, -0.05, 0.08], requires_grad=True)
    optimizer = torch.optim.Adam([scale, shift], lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        image = render_views(Mesh(truth.vertices * scale + shift, truth.faces), views, settings)
        (image - target).square().mean().backward()
        optimizer.step()
    assert scale.item() == pytest.approx(1, abs=0.05)
    torch.testing.assert_close(shift.detach(), torch.zeros(3), atol=0.02, rtol=0)


@pytest.mark.parametrize("name", ["softras", "dibr"])
def test_true_gradients_agree_with_finite_differences(name):
    """In float64, through projection, depth and normals. NMR's, made by hand, has none to agree with."""
    g = torch.Generator().manual_seed(0)
    mesh = ball(0)
    vertices = (mesh.vertices + 0.03 * torch.randn(mesh.vertices.shape, generator=g)).double()
    view, weight = softras_cameras(20.0).reshape(1), torch.rand(12, 12, generator=g).double()
    kw = {"sigma": 5e-3, "gamma": 5e-3} if name == "softras" else {"delta": 5e-3}

    def render(v):
        out = RENDERERS[name](Mesh(v, mesh.faces), view, 12, **kw)
        return ((out.shaded + out.silhouette.flip(3)) * weight).sum()

    v = vertices.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(render(v), v)
    direction = torch.randn(v.shape, generator=g).double()
    step = 1e-7
    with torch.no_grad():
        difference = (render(vertices + step * direction) - render(vertices - step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(difference), rel=2e-3)
    single = vertices.float().requires_grad_()
    (fast,) = torch.autograd.grad(render(single).float(), single)
    assert float((fast - gradient).norm() / gradient.norm()) < 2e-3


def bad_meshes() -> dict[str, Mesh]:
    good = ball(1)
    faces = torch.cat([good.faces, torch.tensor([[0, 0, 0], [0, 1, 1], [2, 5, 2]])])
    exploded = good.vertices * torch.logspace(0, 20, len(good.vertices)).unsqueeze(1)
    spoiled = good.vertices.clone()
    spoiled[3], spoiled[7, 1], spoiled[9, 2] = torch.nan, torch.inf, -torch.inf
    return {
        "degenerate faces": Mesh(good.vertices, faces),
        "a point": Mesh(torch.zeros_like(good.vertices), good.faces),
        "a line": Mesh(good.vertices * torch.tensor([1.0, 0, 0]), good.faces),
        "flat": Mesh(good.vertices * torch.tensor([1.0, 0, 1]), good.faces),
        "exploded": Mesh(exploded, good.faces),
        "around the camera": Mesh(good.vertices * 20, good.faces),
        "behind the camera": Mesh(good.vertices + torch.tensor([0, 3.0, -5]), good.faces),
        "outside the picture": Mesh(good.vertices + torch.tensor([50.0, 0, 0]), good.faces),
        "not finite": Mesh(spoiled, good.faces),
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", list(bad_meshes()))
@pytest.mark.parametrize("images", ["silhouette", "shaded"])
def test_bad_meshes_give_finite_values_and_gradients(name, kind, images):
    mesh = bad_meshes()[kind]
    vertices = mesh.vertices.clone().requires_grad_()
    settings = RenderSettings(images, 24, 1e-3, 1e-3, "smooth", name)
    cameras = softras_cameras([0.0, 60.0])
    views = render_views(Mesh(vertices, mesh.faces), cameras, settings)
    assert views.isfinite().all()
    weight = torch.randn(views.shape, generator=torch.Generator().manual_seed(0))
    (views * weight).sum().backward()
    if kind != "not finite":
        assert vertices.grad.isfinite().all()
    else:  # what is not finite spoils nobody else
        rest = torch.ones(len(vertices), dtype=torch.bool)
        rest[mesh.faces[(mesh.faces[..., None] == torch.tensor([3, 7, 9])).any(-1).any(-1)].flatten()] = False
        assert rest.sum() > 10
        assert vertices.grad[rest].isfinite().all()


def samples(mesh: Mesh, empty: bool) -> Batch:
    cameras = softras_cameras(torch.tensor([[0.0, 75.0]]))
    silhouettes = soft_rasterize(mesh, cameras, 32, shading=False).silhouette * (not empty)
    return Batch(["a"], ["ball"], views=Views(cameras, silhouettes), mesh=mesh)


LOSSES = {
    "cross": lambda name: CrossSilhouetteIoU(32, renderer=name),
    "iou": lambda name: SilhouetteIoU(image_size=32, renderer=name),
    "mse": lambda name: PixelMSE("shaded", image_size=32, renderer=name),
    "drkfs": lambda name: DRKFS(views_per_step=1, image_size=64, radius=0, renderer=name),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_render_by_any_of_them(name, loss):
    made = LOSSES[loss](name)
    assert made.render.renderer == name
    vertices = (ball().vertices * 0.8).requires_grad_()
    value = made(Mesh(vertices, ball().faces), samples(ball(), empty=False))["loss"]
    value.backward()
    assert value > 0
    assert vertices.grad.norm() > 0
    assert vertices.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_views_of_nothing_but_background(name):
    vertices = ball().vertices.requires_grad_()
    value = CrossSilhouetteIoU(32, renderer=name)(Mesh(vertices, ball().faces), samples(ball(), empty=True))["loss"]
    value.backward()
    assert value.item() == pytest.approx(1)
    assert vertices.grad.isfinite().all()
    away = (ball().vertices + torch.tensor([50.0, 0, 0])).requires_grad_()
    value = CrossSilhouetteIoU(32, renderer=name)(Mesh(away, ball().faces), samples(ball(), empty=True))["loss"]
    value.backward()
    assert value.item() == 0, "nothing and nothing agree"
    assert not away.grad.any()


def test_an_unknown_renderer_is_named():
    for make in LOSSES.values():
        with pytest.raises(ReconlabError, match="softras, nmr and dibr, not 'opengl'"):
            make("opengl")
    for name in ("nmr", "dibr"):
        with pytest.raises(ReconlabError, match=f"render_{name}: normals is 'round'"):
            RENDERERS[name](ball(0), orbit_views(2), 8, normals="round")
        with pytest.raises(ReconlabError, match=rf"render_{name}: the cameras have shape \(3, 4\)"):
            RENDERERS[name](Mesh.cat([ball(0)] * 2), orbit_views(12).reshape(3, 4), 8)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_networks_get_full_precision_pictures(name):
    mesh = ball(1)
    leaf = mesh.vertices.bfloat16().requires_grad_()
    half = Mesh(leaf, mesh.faces)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        shaded = RENDERERS[name](half, orbit_views(2), 24).shaded
    assert shaded.dtype == torch.float32
    shaded.sum().backward()
    assert leaf.grad.isfinite().all()
    assert leaf.grad.abs().max() > 0
