"""Surfaces of grids and fields: where they lie, their gradients, and what happens where there is none."""

import math
import warnings

import pytest
import torch

from reconlab.batch import Batch, Views
from reconlab.cameras import orbit_views
from reconlab.errors import ReconlabError
from reconlab.losses import DRKFS, DRWR, Chamfer, PixelMSE, SilhouetteIoU
from reconlab.shapes import ImplicitField, Mesh, VoxelGrid
from reconlab.shapes.voxels import NoSurfaceWarning

CPU = torch.device("cpu")


def cells(size: int) -> torch.Tensor:
    axis = (torch.arange(size) + 0.5) / size - 0.5
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)


def ball(size: int, radius: float) -> torch.Tensor:
    return (radius - cells(size).norm(dim=-1))[None]


def ellipsoid(axes: torch.Tensor) -> ImplicitField:
    """Not a distance: the slope differs from place to place."""
    return ImplicitField(lambda x: 3 - 3 * (x / axes.to(x)).square().sum(-1), 1, CPU, resolution=32)


def sphere_batch() -> Batch:
    import trimesh

    true = trimesh.creation.icosphere(3, 0.35)
    vertices, faces = torch.tensor(true.vertices).float(), torch.tensor(true.faces)
    cameras = orbit_views(2, elevation=20.0)
    y, x = torch.meshgrid(*[(2 * torch.arange(64) + 1) / 64 - 1] * 2, indexing="ij")
    disc = ((x.square() + y.square()).sqrt() < 0.5).float()
    return Batch(
        ids=["a", "b"],
        categories=["c", "c"],
        points=Mesh(vertices, faces).points(500).expand(2, -1, -1),
        mesh=Mesh(vertices.expand(2, -1, -1), faces),
        views=Views(cameras.reshape(1, 2).expand(2, 2), disc.expand(2, 2, -1, -1)),
    )


LOSSES = {
    "chamfer": lambda: Chamfer(points=300),
    "drwr": lambda: DRWR(points=300, resolution=32),
    "drkfs": lambda: DRKFS(views_per_step=1, image_size=64, radius=0),
    "pixel_mse": lambda: PixelMSE(views_per_step=1, image_size=32),
    "silhouette_iou": lambda: SilhouetteIoU(views_per_step=1, image_size=32),
}


def test_logits_are_interpolated_where_there_are_any() -> None:
    """At 40 logits a cell the probabilities are 0 and 1, and the ball a pile of cubes."""
    logits = 40 * 24 * ball(24, 0.3)
    grid = VoxelGrid.from_logits(logits)
    assert float((grid.mesh().vertices.norm(dim=-1) - 0.3).abs().max()) < 1e-3
    assert float((VoxelGrid(grid.values).mesh().vertices.norm(dim=-1) - 0.3).abs().max()) > 5e-3
    # Another threshold is another level of the logits: sigmoid(-2) lies 2 logits further out.
    grid = VoxelGrid.from_logits(40 * ball(24, 0.3), 1 / (1 + math.exp(2)))
    assert float((grid.mesh().vertices.norm(dim=-1) - 0.35).abs().max()) < 2e-3
    infinite = torch.where(ball(24, 0.3) > 0, torch.inf, -torch.inf)
    vertices = VoxelGrid.from_logits(infinite).mesh().vertices
    assert len(vertices) > 100
    assert bool(vertices.isfinite().all())


@pytest.mark.parametrize("kind", ["logits", "values"])
def test_points_of_a_grid_follow_its_offset(kind: str) -> None:
    offset = torch.zeros(1, requires_grad=True)
    field = 20 * ball(24, 0.3) + offset
    grid = VoxelGrid.from_logits(field) if kind == "logits" else VoxelGrid(field.sigmoid())
    points, normals = grid.surface(2000, torch.Generator().manual_seed(0))
    (slope,) = torch.autograd.grad(points.norm(dim=-1).mean(), offset)
    assert slope.item() == pytest.approx(1 / 20, rel=0.02)
    assert bool(((normals * points).sum(-1) > 0).all())


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_on_grids_without_a_surface(loss: str) -> None:
    """One sample of two, and both: finite losses and gradients; points still pull, images cannot."""
    batch = sphere_batch()
    for empty in ([0], [0, 1]):
        logits = 20 * ball(16, 0.25).repeat(2, 1, 1, 1)
        logits[empty] -= 30.0
        logits.requires_grad_(True)
        with pytest.warns(NoSurfaceWarning, match=f"^{len(empty)} of 2 shapes nowhere reach"):
            value = LOSSES[loss]()(VoxelGrid.from_logits(logits), batch)["loss"]
        value.backward()
        assert value.isfinite()
        assert logits.grad is not None
        assert bool(logits.grad.isfinite().all())
        moved = logits.grad.flatten(1).abs().amax(1) > 0
        assert bool(moved[1 if empty == [0] else 0]) == (empty == [0] or loss in ("chamfer", "drwr"))
        assert bool(moved[0]) == (loss in ("chamfer", "drwr"))


@pytest.mark.parametrize("start", [-3.0, "noise", "blob"])
def test_chamfer_brings_a_lost_grid_back(start: float | str) -> None:
    batch = sphere_batch()
    logits = torch.full((2, 12, 12, 12), -3.0)
    if start == "noise":
        logits += 0.01 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    elif start == "blob":
        logits = 10 * ball(12, -0.1).repeat(2, 1, 1, 1)
    logits.requires_grad_(True)
    optimizer = torch.optim.Adam([logits], 0.3)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoSurfaceWarning)
        for _ in range(60):
            optimizer.zero_grad()
            Chamfer(points=500)(VoxelGrid.from_logits(logits), batch)["loss"].backward()
            optimizer.step()
    grid = VoxelGrid.from_logits(logits.detach())
    assert grid.valid().all()


def test_without_gradients_an_empty_grid_is_an_error() -> None:
    grid = VoxelGrid.from_logits(torch.full((1, 8, 8, 8), -1.0))
    assert grid.mesh().valid().tolist() == [False]
    with pytest.raises(ReconlabError, match="no face"):
        grid.points(10)
    learned = torch.full((1, 8, 8, 8), -1.0, requires_grad=True)
    with torch.no_grad(), pytest.raises(ReconlabError, match="no face"):
        VoxelGrid.from_logits(learned).points(10)
    broken = torch.full((1, 8, 8, 8), torch.nan, requires_grad=True)
    with pytest.raises(ReconlabError, match="no face"):
        VoxelGrid.from_logits(broken).points(10)


def test_thresholds_at_the_ends() -> None:
    grid = VoxelGrid(torch.zeros(1, 6, 6, 6), threshold=0.0)
    assert len(grid.mesh().faces) == 0
    ones = (cells(6).norm(dim=-1) < 0.3).float()[None]
    assert VoxelGrid(ones, threshold=1.0).mesh().valid().all()
    assert VoxelGrid(1e-6 * ones, threshold=0.0).mesh().valid().all()


@pytest.mark.parametrize("resolution", [64, 65, 100, 128])
def test_refining_near_the_surface_gives_the_whole_lattices_surface(resolution: int) -> None:
    seen = []

    def wavy(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape[0] * x.shape[1])
        radius = torch.tensor([0.2, 0.35]).reshape(-1, 1) + 0.05 * torch.sin(14 * x[..., 0]) * torch.cos(
            9 * x[..., 1]
        )
        return radius - x.norm(dim=-1)

    field = ImplicitField(wavy, 2, CPU, resolution)
    coarse = field.lattice()
    queried = sum(seen)
    full = field.lattice(everywhere=True)
    assert torch.equal(coarse >= 0, full >= 0)
    near = (full.abs() < 1.5 / resolution) & (cells(resolution).abs().amax(-1) < 0.49)
    torch.testing.assert_close(coarse[near], full[near], atol=1e-6, rtol=0)
    assert queried < 0.6 * 2 * resolution**3
    one, two = VoxelGrid.from_logits(coarse).mesh(), VoxelGrid.from_logits(full).mesh()
    assert torch.equal(one.faces, two.faces)
    torch.testing.assert_close(one.vertices, two.vertices, atol=1e-6, rtol=0)
    torch.testing.assert_close(field.mesh().vertices, one.vertices, atol=2e-2 / resolution, rtol=0)


def test_implicit_gradient_of_a_sphere_is_its_normal() -> None:
    radius = torch.tensor(0.3, requires_grad=True)
    field = ImplicitField(lambda x: 25 * (radius - x.norm(dim=-1)), 1, CPU, resolution=24, chunk=300)
    vertices = field.mesh().vertices
    along = torch.nn.functional.normalize(vertices.detach(), dim=-1)
    for i in (0, 7, 100):
        rows = [torch.autograd.grad(vertices[i, k], radius, retain_graph=True)[0] for k in range(3)]
        torch.testing.assert_close(torch.stack(rows), along[i], atol=1e-4, rtol=1e-4)


def test_implicit_gradient_of_an_ellipsoid_by_finite_differences() -> None:
    """Of the volume, by each semi-axis: 4/3 π b c, and by differences of two meshes."""

    def volume(axes: torch.Tensor) -> torch.Tensor:
        mesh = ellipsoid(axes).mesh()
        a, b, c = mesh.vertices[mesh.faces].unbind(1)
        return (a * torch.linalg.cross(b, c)).sum() / 6

    axes = torch.tensor([0.45, 0.3, 0.2], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(volume(axes), axes)
    exact = 4 / 3 * math.pi * axes.detach().prod() / axes.detach()
    torch.testing.assert_close(slope.double(), exact, rtol=0.02, atol=0)
    step = 1e-2
    for i in range(3):
        shift = torch.zeros(3, dtype=torch.float64)
        shift[i] = step
        with torch.no_grad():
            difference = (volume(axes + shift) - volume(axes - shift)) / (2 * step)
        assert slope[i].item() == pytest.approx(difference.item(), rel=0.02)


def test_chunks_change_neither_surface_nor_gradient() -> None:
    found = []
    for chunk in (100_000, 333):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Softplus(10), torch.nn.Linear(16, 1))
        field = ImplicitField(
            lambda x, n=network: n(8 * x)[..., 0] + 3 - 12 * x.norm(dim=-1), 2, CPU, resolution=16, chunk=chunk
        )
        points, _ = field.surface(500, torch.Generator().manual_seed(1))
        value = (points.norm(dim=-1) - 0.2).square().sum()
        value.backward()
        found.append([value.detach(), *(p.grad for p in network.parameters())])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
        assert bool((one != 0).any())


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_on_fields_without_a_surface(loss: str) -> None:
    offset = torch.tensor([-1.0, 0.0], requires_grad=True)
    field = ImplicitField(lambda x: offset.reshape(-1, 1) + 0.25 - x.norm(dim=-1), 2, CPU, 16)
    with pytest.warns(NoSurfaceWarning, match="^1 of 2 shapes"):
        value = LOSSES[loss]()(field, sphere_batch())["loss"]
    (slope,) = torch.autograd.grad(value, offset)
    assert value.isfinite()
    assert slope[1] < 0, "the ball of 0.25 is to become one of 0.35"
    assert bool(slope[0] < 0) == (loss in ("chamfer", "drwr"))
    gone = torch.tensor([-1.0, -2.0], requires_grad=True)
    field = ImplicitField(lambda x: gone.reshape(-1, 1) - x.norm(dim=-1), 2, CPU, 16)
    with pytest.warns(NoSurfaceWarning, match="^2 of 2 shapes"):
        value = LOSSES[loss]()(field, sphere_batch())["loss"]
    (slope,) = torch.autograd.grad(value, gone)
    assert value.isfinite()
    assert slope.isfinite().all()


def test_fields_that_are_broken_or_flat() -> None:
    scale = torch.tensor(torch.nan, requires_grad=True)
    field = ImplicitField(lambda x: scale * x.sum(-1), 1, CPU, 16)
    assert field.valid().tolist() == [False]
    assert len(field.mesh().faces) == 0
    with pytest.raises(ReconlabError, match="no face"):
        field.points(10)
    # A plateau at the level: the slope is bounded by the guard of 0.001 logits per cell.
    weight = torch.tensor(1e-7, requires_grad=True)
    flat = ImplicitField(lambda x: weight * (0.3 - x.norm(dim=-1)), 1, CPU, 16)
    (slope,) = torch.autograd.grad(flat.points(100, torch.Generator().manual_seed(0)).sum(), weight)
    assert slope.isfinite()
    with pytest.raises(ReconlabError, match="resolution is 0"):
        flat.voxels(0)
    with pytest.raises(ReconlabError, match="chunk is 0"):
        ImplicitField(lambda x: x.sum(-1), 1, CPU, chunk=0)
