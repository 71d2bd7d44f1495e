"""DPC: the error by hand, schedules, dropout, odd input, and a cloud that learns a shape."""

import math

import pytest
import torch

from reconlab.batch import Batch, Views
from reconlab.cameras import Cameras, dpc_cameras
from reconlab.errors import ReconlabError
from reconlab.losses import DPC
from reconlab.losses.dpc import dpc, drop_points
from reconlab.losses.silhouettes import reduce_silhouettes
from reconlab.renderers import render_point_silhouettes
from reconlab.shapes import Mesh, PointCloud

FRONT = dpc_cameras([[0.0]], [[0.0]])


def views_of(size: int = 32) -> tuple[torch.Tensor, Cameras]:
    masks = torch.zeros(2, 3, size, size)
    masks[:, :, size // 4 : -size // 4, size // 3 : -size // 3] = 1
    angles = torch.tensor([[0.0, 90, 200], [10, 50, 300]])
    return masks, dpc_cameras(angles, torch.full_like(angles, 15.0))


def batch_of(size: int = 32) -> Batch:
    masks, cameras = views_of(size)
    return Batch(ids=["a", "b"], categories=["chair", "lamp"], views=Views(cameras, masks))  # type: ignore[arg-type]


def test_error_by_hand() -> None:
    """One point at scale 0.5 on pixel (4, 4) of 8, a mask of that pixel and one other: (0.5² + 1²) / 2."""
    depth = 2 + 0.5 / 8
    point = torch.tensor([[[-depth / 8 / 3.75, -depth / 8 / 3.75, depth - 2]]])
    mask = torch.zeros(1, 1, 8, 8)
    mask[0, 0, 4, 4] = mask[0, 0, 1, 6] = 1
    terms = dpc(point, mask, FRONT, 8, 1.0, 1, torch.tensor([0.5]))
    assert terms.error.item() == pytest.approx((0.25 + 1) / 2, abs=1e-3)
    assert terms.inside.item() == 1


def test_error_is_half_the_squared_difference_of_images() -> None:
    masks, cameras = views_of()
    points = 0.8 * (torch.rand(2, 60, 3) - 0.5)
    reduced = reduce_silhouettes(masks.flatten(0, 1), 16, "subsample", "test")
    for registration, pixel in (("pixel", (reduced.scale, reduced.shift)), ("dpc", (None, None))):
        image = render_point_silhouettes(
            points,
            cameras,
            16,
            1.3,
            7,
            None,
            registration,
            *pixel,  # type: ignore[arg-type]
        ).silhouette
        expected = ((image - masks[..., ::2, ::2]) ** 2).sum((2, 3)) / 2
        terms = dpc(points, masks, cameras, 16, 1.3, 7, registration=registration)  # type: ignore[arg-type]
        torch.testing.assert_close(terms.error, expected)


def test_gradients_by_finite_differences() -> None:
    masks, cameras = views_of(16)
    points = (0.7 * (torch.rand(2, 4, 3, generator=torch.Generator().manual_seed(0)) - 0.5)).double()
    scale = torch.tensor([0.5, 0.8], dtype=torch.float64, requires_grad=True)

    def value(p: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return dpc(p, masks, cameras, 8, 1.0, 5, s).error  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(value, (points.requires_grad_(), scale), eps=1e-7, atol=1e-5)


def test_schedules_are_linear_over_the_run() -> None:
    loss = DPC()
    assert (loss.sigma, loss.keep) == (3.0, 0.07)
    for step, sigma, keep in ((0, 3.0, 0.07), (250, 2.3, 0.3025), (500, 1.6, 0.535), (1000, 0.2, 1.0)):
        loss.advance(step, 1000)
        assert (loss.sigma, loss.keep) == pytest.approx((sigma, keep))
    loss.advance(2000, 1000)
    assert (loss.sigma, loss.keep) == pytest.approx((0.2, 1.0))
    loss.advance(5, 0)  # a run of unknown length stays at the beginning
    assert (loss.sigma, loss.keep) == (3.0, 0.07)


def test_dropout_draws_subsets_without_replacement() -> None:
    points = torch.arange(2 * 50).reshape(2, 50, 1).float().expand(-1, -1, 3)
    torch.manual_seed(5)
    kept = drop_points(points, 3, 0.3)
    assert kept.shape == (2, 3, 15, 3)
    sets = [[set(kept[b, v, :, 0].tolist()) for v in range(3)] for b in range(2)]
    assert all(len(s) == 15 for row in sets for s in row)  # no point twice
    assert all(s <= set(points[b, :, 0].tolist()) for b, row in enumerate(sets) for s in row)
    assert len({frozenset(s) for s in sets[0]}) == 3  # another subset for every view
    torch.manual_seed(5)
    assert torch.equal(drop_points(points, 3, 0.3), kept)
    assert drop_points(points, 3, 1e-6).shape == (2, 3, 1, 3)
    assert drop_points(points, 3, 1.0).shape == (2, 1, 50, 3)
    counts = torch.zeros(50)
    for _ in range(300):
        counts[drop_points(points[:1], 1, 0.3).flatten().unique().long()] += 1
    assert (counts / 300 - 0.3).abs().max() < 5 * math.sqrt(0.3 * 0.7 / 300)  # each point as often as any


def test_dropout_sends_gradients_to_the_kept_points() -> None:
    masks, cameras = views_of()
    points = (0.5 * (torch.rand(2, 40, 3) - 0.5)).requires_grad_()
    torch.manual_seed(0)
    dpc(points, masks[:, :1], cameras[:, :1], 16, 1.0, 5, keep=0.25).error.sum().backward()
    assert points.grad is not None
    assert (points.grad.abs().sum(-1) > 0).sum(1).tolist() == [10, 10]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_empty_and_full_silhouettes(value: float) -> None:
    """An empty one asks for an empty image: every point in it costs."""
    masks, cameras = views_of()
    masks[:] = value
    points = (0.5 * (torch.rand(2, 40, 3) - 0.5)).requires_grad_()
    error = dpc(points, masks, cameras, 16, 1.0, 5).error  # type: ignore[arg-type]
    error.sum().backward()
    assert error.isfinite().all()
    assert (error > 0.1).all()
    assert points.grad is not None
    assert points.grad.isfinite().all()


def test_one_point_behind_every_camera() -> None:
    masks, cameras = views_of()
    point = (3 * cameras[:, :1].position).requires_grad_()
    terms = dpc(point, masks[:, :1], cameras[:, :1], 16, 1.0, 5)
    terms.error.sum().backward()
    assert (terms.inside == 0).all()
    assert point.grad is not None
    assert (point.grad == 0).all()
    expected = 0.5 * masks[:, :1, ::2, ::2].sum((2, 3))
    torch.testing.assert_close(terms.error, expected, rtol=1e-3, atol=0)


def test_a_point_that_is_not_finite_shows() -> None:
    points = 0.5 * (torch.rand(2, 20, 3) - 0.5)
    points[1, 3, 0] = torch.nan
    masks, cameras = views_of()
    error = dpc(points, masks, cameras, 16).error  # type: ignore[arg-type]
    assert error[0].isfinite().all()
    assert error[1].isnan().all()


def test_class_names_its_parts_and_reads_the_scale() -> None:
    batch = batch_of()
    cloud = PointCloud(0.6 * (torch.rand(2, 80, 3) - 0.5))
    loss = DPC(resolution=16, kernel_size=5, keep=(1.0, 1.0), sigma=(1.0, 1.0))
    plain = loss(cloud, batch)
    assert set(plain) == {"loss", "sigma", "keep", "inside"}
    assert batch.views is not None
    expected = dpc(cloud.positions, batch.views.silhouettes, batch.views.cameras, 16, 1.0, 5).error.mean()
    torch.testing.assert_close(plain["loss"], expected)
    cloud.occupancy_scale = torch.tensor([0.5, 0.6], requires_grad=True)  # type: ignore[attr-defined]
    scaled = loss(cloud, batch)["loss"]
    assert scaled.item() != pytest.approx(plain["loss"].item(), rel=1e-3)
    (g,) = torch.autograd.grad(scaled, cloud.occupancy_scale)  # type: ignore[attr-defined]
    assert (g != 0).all()
    assert DPC.needs == {"views"}
    assert "sigma=(1.0, 1.0)" in repr(loss)


def test_class_samples_meshes_and_takes_clouds_whole() -> None:
    vertices = torch.tensor([[0.0, 0.4, 0], [0.4, -0.3, 0], [-0.4, -0.3, 0], [0, 0, 0.4]]).requires_grad_()
    faces = torch.tensor([[0, 1, 2], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    loss = DPC(points=300, resolution=16)
    loss(Mesh.from_list([(vertices, faces)] * 2), batch_of())["loss"].backward()
    assert vertices.grad is not None
    assert vertices.grad.isfinite().all()
    assert vertices.grad.abs().sum() > 0
    few = (0.5 * (torch.rand(2, 100, 3) - 0.5)).requires_grad_()
    loss.advance(1, 1)
    loss(PointCloud(few), batch_of())["loss"].backward()
    assert few.grad is not None
    assert (few.grad.abs().sum(-1) > 0).float().mean() > 0.9


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"points": 0}, "points is 0"),
        ({"kernel_size": 10}, "kernel_size is 10"),
        ({"sigma": (3.0, 0.0)}, "sigma is"),
        ({"keep": (0.0, 1.0)}, "keep is"),
        ({"keep": (0.5, 1.1)}, "keep is"),
        ({"registration": "corner"}, "'corner'"),
        ({"reduction": "max", "resolution": 16}, "'max'"),
        ({"resolution": 24}, "resolution is 24"),
    ],
)
def test_bad_settings_are_named(options: dict[str, object], word: str) -> None:
    with pytest.raises(ReconlabError, match=word):
        DPC(**options)(PointCloud(torch.zeros(2, 10, 3)), batch_of())  # type: ignore[arg-type]


def test_unfitting_input_is_named() -> None:
    masks, cameras = views_of()
    with pytest.raises(ReconlabError, match="J >= 1"):
        dpc(torch.zeros(2, 0, 3), masks, cameras)  # type: ignore[arg-type]
    with pytest.raises(ReconlabError, match="for 1 clouds"):
        dpc(torch.zeros(1, 5, 3), masks, cameras)  # type: ignore[arg-type]
    with pytest.raises(ReconlabError, match="DPC needs 'views'"):
        DPC()(PointCloud(torch.zeros(1, 5, 3)), Batch(ids=["a"], categories=["chair"]))
    with pytest.raises(ReconlabError, match="to keep is 0"):
        drop_points(torch.zeros(1, 5, 3), 1, 0.0)


def test_a_free_cloud_learns_a_box() -> None:
    """From a random cloud to a box of sides .5, .3, .2 by its silhouettes alone, on DPC's schedules."""
    g = torch.Generator().manual_seed(0)
    half = torch.tensor([0.25, 0.15, 0.1])
    face = torch.randint(3, (4000,), generator=g)
    true = 2 * half * (torch.rand(4000, 3, generator=g) - 0.5)
    side = half[face] * (2 * torch.randint(2, (4000,), generator=g) - 1)
    true.scatter_(1, face[:, None], side[:, None])
    cameras = dpc_cameras([[0.0, 60.0, 130.0, 250.0]], [[20.0, -10.0, 35.0, 10.0]])
    masks = (render_point_silhouettes(true[None], cameras, 64, 1.0, 7).silhouette > 0.5).float()
    batch = Batch(ids=["box"], categories=["box"], views=Views(cameras, masks))
    points = (0.9 * (torch.rand(1, 800, 3, generator=g) - 0.5)).requires_grad_()
    loss, optimizer = DPC(resolution=32), torch.optim.Adam([points], 1e-2)
    torch.manual_seed(0)
    losses = []
    for step in range(200):
        loss.advance(step, 200)
        optimizer.zero_grad()
        parts = loss(PointCloud(points), batch)
        parts["loss"].backward()
        optimizer.step()
        losses.append(parts["loss"].item())
    assert losses[-1] < 0.05 * losses[0]
    seen = parts["inside"].item()
    assert seen > 0.7
    inside = ((points[0].abs() <= half + 0.05).all(-1)).float().mean().item()
    before = (0.9 * (torch.rand(10000, 3, generator=g) - 0.5)).abs().le(half + 0.05).all(-1).float().mean().item()
    assert inside > 3 * before
