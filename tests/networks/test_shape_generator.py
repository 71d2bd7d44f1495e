"""The Shape Generator: its sphere against trimesh's, its parametrisation by hand, parameters, pairs, overfitting."""

import math

import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.batch import Batch, Views
from reconlab.cameras import softras_cameras
from reconlab.errors import ReconlabError
from reconlab.lab.export import export_shape
from reconlab.losses import CrossSilhouetteIoU
from reconlab.networks import ShapeGenerator
from reconlab.networks.shape_generator import (
    PairedMesh,
    estimate_alpha,
    geodesic_sphere,
    move_sphere,
    premultiply,
)
from reconlab.renderers import soft_rasterize
from reconlab.shapes import Mesh, TemplateMesh


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small(**settings) -> ShapeGenerator:
    torch.manual_seed(0)
    return ShapeGenerator(width=8, hidden=32, norm="group", **settings)


def test_parameters_are_counted_by_hand() -> None:
    network = ShapeGenerator()
    convolutions = sum(25 * i * o + o + 2 * o for i, o in [(4, 64), (64, 128), (128, 256)])
    encoder = sum(i * o + o for i, o in [(256 * 8 * 8, 1024), (1024, 1024), (1024, 512)])
    decoder = sum(i * o + o for i, o in [(512, 1024), (1024, 2048), (2048, 3), (2048, 642 * 3)])
    assert count(network.encoder) == convolutions + encoder
    assert count(network) == convolutions + encoder + decoder == 25_961_417


@pytest.mark.parametrize("frequency", [1, 2, 3, 8])
def test_the_sphere_is_a_geodesic_icosahedron(frequency: int) -> None:
    vertices, faces = geodesic_sphere(frequency)
    mesh = trimesh.Trimesh(vertices.double().numpy(), faces.numpy(), process=False)
    assert (len(vertices), len(faces)) == (10 * frequency**2 + 2, 20 * frequency**2)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.euler_number == 2
    assert mesh.volume > 0, "faces look outwards"
    torch.testing.assert_close(vertices.norm(dim=1), torch.ones(len(vertices)))
    # Twelve corners of five faces, six faces elsewhere
    degree = torch.bincount(faces.flatten())
    assert ((degree == 5).sum(), (degree == 6).sum()) == (12, 10 * frequency**2 - 10)
    centre = vertices.mean(0)
    torch.testing.assert_close(centre, torch.zeros(3), atol=1e-6, rtol=0)


def test_the_sphere_has_the_counts_of_trimesh() -> None:
    vertices, faces = geodesic_sphere(8)
    other = trimesh.creation.icosphere(subdivisions=3)
    assert (len(vertices), len(faces)) == (len(other.vertices), len(other.faces)) == (642, 1280)
    ours = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    assert ours.volume == pytest.approx(other.volume, rel=2e-3)
    # frequency 1 and 2 are its very points
    for frequency, level in ((1, 0), (2, 1)):
        mine = geodesic_sphere(frequency)[0].double()
        theirs = torch.tensor(trimesh.creation.icosphere(subdivisions=level).vertices)
        mine_pairs, their_pairs = torch.pdist(mine).sort().values, torch.pdist(theirs).sort().values
        torch.testing.assert_close(mine_pairs, their_pairs, atol=1e-6, rtol=0)


def test_vertices_by_hand() -> None:
    sphere = torch.tensor([[0.6, -0.8, 0.0]], dtype=torch.float64)
    bias = torch.tensor([[[0.5, 0.25, 3.0]]], dtype=torch.float64)
    centroid = torch.tensor([[0.3, 0.1, -0.2]], dtype=torch.float64)
    x, y, z = move_sphere(sphere, bias, centroid)[0, 0].tolist()

    def sigmoid(t: float) -> float:
        return 1 / (1 + math.exp(-t))

    u = sigmoid(math.log(0.3 / 0.7) + 0.5)
    assert x == pytest.approx((u * (1 - math.tanh(0.3)) + math.tanh(0.3)) / 2)
    u = sigmoid(math.log(0.4 / 0.6) + 0.25)
    assert y == pytest.approx((-u * (1 + math.tanh(0.1)) + math.tanh(0.1)) / 2)
    assert z == pytest.approx(math.tanh(-0.2) / 2), "a vertex on a coordinate plane moves with the centroid alone"


@given(st.integers(0, 2**31), st.floats(0.01, 50))
@settings(max_examples=30, deadline=None)
def test_vertices_stay_in_the_cube_and_in_their_octant(seed: int, spread: float) -> None:
    g = torch.Generator().manual_seed(seed)
    sphere = geodesic_sphere(2)[0]
    bias, centroid = torch.randn(2, 42, 3, generator=g) * spread, torch.randn(2, 3, generator=g) * spread
    bias.requires_grad_()
    vertices = move_sphere(sphere, bias, centroid)
    assert vertices.abs().max() <= 0.5
    side = (vertices - torch.tanh(centroid).unsqueeze(1) / 2) * sphere.sign()
    assert side.min() > -1e-6
    vertices.sum().backward()
    assert bias.grad is not None
    assert bias.grad.isfinite().all()


def test_the_parametrisation_has_the_gradient_of_its_differences() -> None:
    g = torch.Generator().manual_seed(0)
    sphere = geodesic_sphere(1)[0].double()
    bias = torch.randn(1, 12, 3, generator=g, dtype=torch.float64, requires_grad=True)
    centroid = torch.randn(1, 3, generator=g, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda b, c: move_sphere(sphere, b, c), (bias, centroid))


def test_an_untrained_network_gives_the_sphere_of_radius_a_quarter() -> None:
    mesh = small().eval()(torch.rand(2, 3, 64, 64))
    assert isinstance(mesh, TemplateMesh)
    assert mesh.positions.shape == (2, 642, 3)
    assert mesh.positions.norm(dim=-1).mean().item() == pytest.approx(0.25, abs=0.01)
    assert mesh.valid().all()


def test_alpha_is_estimated_from_white() -> None:
    images = torch.ones(1, 3, 5, 6)
    images[0, :, 1:, 1:5] = torch.tensor([1.0, 1.0, 0.6]).view(3, 1, 1)
    images[0, :, 1:, 1] = 0.9  # a quarter covered
    images[0, :, 0, 0] = 0.995  # noise
    alpha = estimate_alpha(images)
    assert alpha.shape == (1, 1, 5, 6)
    expected = [[0, 0, 0, 0, 0, 0]] + [[0, 0.25, 1, 1, 1, 0]] * 4
    torch.testing.assert_close(alpha[0, 0], torch.tensor(expected))
    assert not estimate_alpha(torch.ones(1, 3, 4, 4)).any()
    half = torch.full((1, 1, 4, 4), 0.25)
    colour = torch.tensor([0.8, 0.4, 0.2]).view(1, 3, 1, 1)
    torch.testing.assert_close(premultiply(colour * half + 1 - half, half)[0, :3, 0, 0], colour.flatten() * 0.25)


def test_images_alone_give_what_masks_give_where_the_background_is_white(data) -> None:
    from reconlab.datasets.datamodule import ReconstructionData

    module = ReconstructionData(str(data), image_size=64, batch_size=4)
    module.require({"images", "masks"}, "the test")
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    estimate, mask = estimate_alpha(batch.images), batch.masks
    assert torch.minimum(estimate, mask).sum() / torch.maximum(estimate, mask).sum() > 0.98
    network = small().eval()
    with torch.no_grad():
        given, estimated = network.reconstruct(batch).positions, network(batch.images).positions
    assert (given - estimated).norm() < 0.2 * (given - given.roll(1, 0)).norm()


def pair(seed: int = 0, size: int = 96) -> Batch:
    """Two ellipsoids, each seen from two sides."""
    g = torch.Generator().manual_seed(seed)
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.3)
    squash = torch.rand(2, 1, 3, generator=g) * 0.6 + 0.4
    mesh = Mesh(torch.tensor(ball.vertices).float() * squash, torch.tensor(ball.faces))
    cameras = softras_cameras(torch.tensor([[0.0, 75.0], [30.0, 135.0]]), elevation=30.0)
    views = soft_rasterize(mesh, cameras, size, sigma=1e-5)
    images = (views.shaded + 1 - views.silhouette).unsqueeze(2).expand(-1, -1, 3, -1, -1).contiguous()
    return Batch(
        ids=["a", "b"],
        categories=["ball"] * 2,
        images=images[:, 0],
        masks=views.silhouette[:, :1],
        views=Views(cameras, views.silhouette, images),
        mesh=mesh,
    )


def test_pairs_carry_the_second_view_in_training_alone() -> None:
    batch, network = pair(), small(pairs=True)
    assert network.needs == {"images", "masks", "views"}
    assert small().needs == {"images", "masks"}
    shape = network.reconstruct(batch)
    assert isinstance(shape, PairedMesh)
    assert shape.second is not None
    swapped = Batch(batch.ids, batch.categories, batch.views.images[:, 1], batch.views.silhouettes[:, 1:2])
    torch.testing.assert_close(shape.second.positions, network.eval().reconstruct(swapped).positions)
    assert network.reconstruct(batch).second is None
    one = shape[1:]
    torch.testing.assert_close(one.positions, shape.positions[1:])
    torch.testing.assert_close(one.second.positions, shape.second.positions[1:])
    assert shape.to("cpu").second.positions.shape == (2, 642, 3)
    assert one[0][0].second is not None


def test_both_views_share_the_normalisations_statistics() -> None:
    torch.manual_seed(0)
    network = ShapeGenerator(width=8, hidden=32, pairs=True)
    batch = pair()
    network.reconstruct(batch)
    norm = network.encoder[1]
    assert norm.num_batches_tracked == 1, "one forward pass of both"


def test_mistakes_are_named() -> None:
    for wrong in ({"width": 0}, {"hidden": 0}):
        with pytest.raises(ReconlabError, match="expected at least 1"):
            ShapeGenerator(**wrong)
    with pytest.raises(ReconlabError, match="batch or group"):
        ShapeGenerator(norm="layer")
    with pytest.raises(ReconlabError, match="square images"):
        small()(torch.rand(1, 3, 64, 32))
    network, batch = small(pairs=True), pair()
    batch.views = Views(batch.views.cameras[:, :1], batch.views.silhouettes[:, :1], batch.views.images[:, :1])
    with pytest.raises(ReconlabError, match=r"set data\.views to 2"):
        network.reconstruct(batch)
    batch.views = None
    with pytest.raises(ReconlabError, match="declare 'views'"):
        network.reconstruct(batch)
    batch.masks = None
    with pytest.raises(ReconlabError, match="declare 'masks'"):
        network.reconstruct(batch)
    with pytest.raises(ReconlabError, match="frequency is 0"):
        geodesic_sphere(0)


def test_export_writes_the_mesh(tmp_path) -> None:
    shape = small().eval()(torch.rand(1, 3, 64, 64))
    written = export_shape(shape, 0, tmp_path / "mesh", ("obj",))
    loaded = trimesh.load(written[0], process=False)
    assert (len(loaded.vertices), len(loaded.faces)) == (642, 1280)
    assert loaded.is_watertight


@pytest.mark.parametrize("renderer", ["softras", "nmr", "dibr"])
def test_it_learns_two_shapes(renderer: str) -> None:
    batch, network = pair(), small(pairs=True)
    loss = CrossSilhouetteIoU(image_size=32, sigma=3e-4, renderer=renderer)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    values = []
    for step in range(120):
        optimizer.param_groups[0]["lr"] = 2e-3 if step < 80 else 5e-4  # NMR's gradient jumps: it ends in no point
        loss.advance(step, 120)
        optimizer.zero_grad()
        value = loss(network.reconstruct(batch), batch)["loss"]
        value.backward()
        optimizer.step()
        values.append(value.item())
    with torch.no_grad():
        best = loss(batch.mesh, batch)["loss"].item()  # a soft outline costs something against the hard truth
    # Over six seeds and two kinds of processors NMR ended at 0.005 ± 0.012, the others below 0.015.
    assert values[-1] - best < 0.05 < 0.25 < values[0] - best
    with torch.no_grad():
        assert loss(network.eval().reconstruct(batch), batch)["loss"] - best < 0.05, "view A's mesh in both views"
