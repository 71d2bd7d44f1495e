"""DRWR: hand-computed cases of Eqs. 2-6, finite differences, odd input, the class."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.batch import Batch, Views
from reconlab.cameras import Cameras, dpc_cameras
from reconlab.errors import ReconlabError
from reconlab.losses.drwr import AREA_REFERENCE, DRWR, PRESETS, Reading, drwr
from reconlab.losses.drwr_field import sample_bilinear, sample_corners, silhouette_fields
from reconlab.shapes import Mesh, PointCloud

FRONT = dpc_cameras(0.0, 0.0).reshape(1, 1)


def place(xy: torch.Tensor) -> torch.Tensor:
    """Object points in the plane through the origin that FRONT projects to ``xy (..., 2)``."""
    return torch.cat([-xy * 2 / 3.75, torch.zeros_like(xy[..., :1])], -1)


def centre(pixel: list[tuple[float, float]], size: int) -> torch.Tensor:
    """Normalised positions (1, J, 2) of pixel coordinates (x, y), 0 being the first centre."""
    return ((2 * torch.tensor([pixel], dtype=torch.float64) + 1) / size - 1).float()


def square_mask(size: int, low: int, high: int) -> torch.Tensor:
    mask = torch.zeros(1, 1, size, size)
    mask[..., low:high, low:high] = 1
    return mask


def test_unary_by_hand() -> None:
    """Points in the foreground, 4 pixels left of it, and 2 pixels beyond the left border."""
    mask = square_mask(32, 10, 22)
    farthest = math.hypot(10, 10)
    points = place(centre([(15, 15), (6, 15), (-2, 15)], 32))
    terms = drwr(points, mask, FRONT, 32)
    expected = (0 + 4 / farthest + 10 / farthest + 2 / 32) / 3
    assert terms.l1.item() == pytest.approx(expected, rel=1e-4)
    clipped = drwr(points, mask, FRONT, 32, reading=Reading(off_image="clip"))
    assert clipped.l1.item() == pytest.approx((4 + 10) / farthest / 3, rel=1e-4)
    assert terms.inside.item() == pytest.approx(1 / 3)


def test_pairwise_by_hand() -> None:
    """Eqs. 5 and 6: two points deep inside (ω = δ = 1) 4 pixels apart, one outside (ω = 0)."""
    mask = square_mask(32, 4, 28)
    points = place(centre([(14, 15), (18, 15), (1, 1)], 32))
    inside = 2 * math.e * (1 + math.exp(-4))
    terms = drwr(points, mask, FRONT, 32)
    assert terms.l2.item() == pytest.approx(inside / 9, rel=1e-4)
    total = terms.l1.item() + inside / 9
    assert terms.total().item() == pytest.approx(total, rel=1e-4)
    summed = drwr(points, mask, FRONT, 32, reading=Reading(pair_mean=False))
    assert summed.l2.item() == pytest.approx(inside / 3, rel=1e-4)
    no_delta = drwr(points, mask, FRONT, 32, reading=Reading(delta=False))
    assert no_delta.l2.item() == pytest.approx(inside / math.e / 9, rel=1e-4)
    literal = drwr(points, mask, FRONT, 32, reading=PRESETS["paper"])  # distances in image sides
    assert literal.l2.item() == pytest.approx(2 * math.e * (1 + math.exp(-4 / 32)) / 3, rel=1e-4)
    released = drwr(points, mask, FRONT, 32, reading=PRESETS["released"])
    assert released.l2.item() == pytest.approx(math.exp(3.5) * 2 * math.e * (1 + math.exp(-16 / 5)) / 9, rel=1e-4)
    everywhere = drwr(points[:, :2], 1 - mask, FRONT, 32, reading=Reading(omega=False, delta=False))
    assert everywhere.l2.item() == pytest.approx(2 * (1 + math.exp(-4)) / 4, rel=1e-4)


def test_released_kernel_shrinks_with_resolution() -> None:
    """Squared pixel distance over (V / 32) over 5: at V = 64, 8 pixels apart, 64 / 2 / 5."""
    points = place(centre([(28, 31), (36, 31)], 64))
    terms = drwr(points, square_mask(64, 8, 56), FRONT, 64, reading=PRESETS["released"])
    assert terms.l2.item() == pytest.approx(math.exp(4.5) * 2 * (1 + math.exp(-64 / 2 / 5)) / 4, rel=1e-4)


def test_repulsion_does_not_depend_on_resolution() -> None:
    points = place(torch.rand(1, 50, 2) * 0.4 - 0.2)
    mask = square_mask(128, 20, 108)
    values = [drwr(points, mask, FRONT, v).l2.item() for v in (32, 64, 128)]
    assert values == pytest.approx([values[0]] * 3, rel=1e-5)


def test_area_scaling() -> None:
    points = place(torch.rand(1, 50, 2) * 0.4 - 0.2)
    mask = square_mask(32, 8, 24)
    terms = drwr(points, mask, FRONT, 32, reading=Reading(beta=0.5, area_scaled=True))
    assert terms.beta.item() == pytest.approx(0.5 * 0.25 / AREA_REFERENCE)
    assert terms.total().item() == pytest.approx((terms.l1 + terms.beta * terms.l2).item())


def numeric_gradient(points: torch.Tensor, mask: torch.Tensor, cameras: Cameras, reading: Reading) -> None:
    def value(p: torch.Tensor) -> torch.Tensor:
        return drwr(p, mask, cameras, mask.shape[-1], reading=reading).total()

    assert torch.autograd.gradcheck(value, points.double().requires_grad_(), eps=1e-7, atol=1e-5)


def two_views() -> tuple[torch.Tensor, Cameras]:
    mask = torch.zeros(1, 2, 16, 16)
    mask[0, 0, 4:11, 5:13] = 1
    mask[0, 1, 6:14, 3:9] = 1
    return mask, dpc_cameras([20.0, 100.0], [10.0, -5.0]).reshape(1, 2)


@pytest.mark.parametrize(
    "reading",
    [
        Reading(pairwise=False),
        Reading(pairwise=False, off_image="clip"),
        Reading(unary=False, detach_weights=False),
        Reading(unary=False, omega=False, delta=False),
        replace(PRESETS["paper"], beta=0.1),
        PRESETS["released"],
    ],
    ids=["l1", "l1 clipped", "l2", "l2 plain", "paper", "released"],
)
def test_finite_differences(reading: Reading) -> None:
    mask, cameras = two_views()
    g = torch.Generator().manual_seed(0)
    numeric_gradient(1.3 * (torch.rand(1, 6, 3, generator=g) - 0.5), mask, cameras, reading)


def test_weights_are_detached_by_default() -> None:
    """The gradient is that of Eq. 5 with ω and δ frozen; without the stop they add to it."""
    mask, cameras = two_views()
    points = (0.6 * (torch.rand(1, 30, 3, generator=torch.Generator().manual_seed(1)) - 0.5)).requires_grad_()
    only = Reading(unary=False)
    (frozen,) = torch.autograd.grad(drwr(points, mask, cameras, 16, reading=only).total().sum(), points)
    free = replace(only, detach_weights=False)
    (flowing,) = torch.autograd.grad(drwr(points, mask, cameras, 16, reading=free).total().sum(), points)
    assert (frozen - flowing).abs().max() > 1e-3 * flowing.abs().max()
    # By hand: weights from a first evaluation, positions differentiated.
    maps = silhouette_fields(mask[0], 16)
    xy, _ = cameras[0].project(points[0])
    at = maps.pixel(xy.detach()).clamp(0, 15)
    w = sample_bilinear(maps.mask, at) * (xy.detach().abs() <= 1).all(-1)
    delta = sample_corners(maps.corners, at)
    away = 16 * (xy[:, :, None] - xy[:, None])
    distance = (away.square().sum(-1) + torch.eye(30)).sqrt() - torch.eye(30)
    loss = (w[:, :, None] * w[:, None] * torch.exp(-distance + delta[:, :, None])).mean((1, 2)).mean()
    (expected,) = torch.autograd.grad(loss, points)
    torch.testing.assert_close(frozen, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_empty_and_full_silhouettes_are_skipped(value: float) -> None:
    mask, cameras = two_views()
    odd = torch.cat([mask, torch.full((1, 1, 16, 16), value)], 1)
    three = Cameras.cat([cameras.reshape(2), dpc_cameras([0.0], [0.0])]).reshape(1, 3)
    points = (torch.rand(1, 40, 3) - 0.5).requires_grad_()
    for reading in PRESETS.values():
        terms = drwr(points, odd, three, 16, reading=reading)
        assert terms.usable.tolist() == [[True, True, False]]
        assert terms.l1[0, 2] == terms.l2[0, 2] == 0
        torch.testing.assert_close(terms.total(), drwr(points, mask, cameras, 16, reading=reading).total())
        lone = drwr(points, odd[:, 2:], three.reshape(3)[2:].reshape(1, 1), 16, reading=reading).total()
        (grad,) = torch.autograd.grad(lone.sum(), points)
        assert lone.item() == 0
        assert (grad == 0).all()


def test_points_behind_the_camera_and_far_away_stay_finite() -> None:
    mask, cameras = two_views()
    points = (torch.rand(1, 20, 3) - 0.5).double()
    points[0, 0] = cameras[0, 0].position * 3  # behind the first camera
    points[0, 1] = cameras[0, 0].position  # in its centre
    points[0, 2] = torch.tensor([1e6, -1e6, 1e5])
    for reading in PRESETS.values():
        p = points.float().requires_grad_()
        total = drwr(p, mask, cameras, 16, reading=reading).total()
        total.sum().backward()
        assert total.isfinite().all()
        assert p.grad is not None
        assert p.grad.isfinite().all()
    only_behind = points[:, :2].float().requires_grad_()
    first = drwr(only_behind, mask[:, :1], cameras.reshape(2)[:1].reshape(1, 1), 16)
    first.total().sum().backward()
    assert first.l1.item() > 0.5
    assert (only_behind.grad == 0).all()


def test_one_point_alone() -> None:
    """J = 1: only the pair of the point with itself, which has a value (ω² e^δ) and no force."""
    mask = square_mask(16, 4, 12)
    point = place(centre([(7.5, 7.5)], 16)).requires_grad_()
    terms = drwr(point, mask, FRONT, 16, reduction="area")
    (force,) = torch.autograd.grad(terms.total().sum(), point)
    assert terms.l1.item() == 0
    assert 1 < terms.l2.item() <= math.e
    assert (force == 0).all()
    outside = place(centre([(1.0, 7.5)], 16)).requires_grad_()
    terms = drwr(outside, mask, FRONT, 16, reduction="area")
    (force,) = torch.autograd.grad(terms.total().sum(), outside)
    assert terms.l1.item() > 0
    assert terms.l2.item() == 0
    assert force.isfinite().all()
    assert (force != 0).any()


def test_mixed_precision_projects_in_float32() -> None:
    mask, cameras = two_views()
    points = torch.rand(1, 20, 3) - 0.5
    expected = drwr(points, mask, cameras, 16).total()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(drwr(points, mask, cameras, 16).total(), expected)
    half = drwr(points.half(), mask, cameras, 16).total()
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, rtol=1e-2, atol=1e-3)


def test_a_point_that_is_not_finite_shows() -> None:
    mask, cameras = two_views()
    points = torch.rand(2, 20, 3) - 0.5
    points[1, 3, 0] = torch.nan
    both = Cameras.stack([cameras[0], cameras[0]])
    total = drwr(points, mask.expand(2, -1, -1, -1), both, 16).total()
    assert total[0].isfinite()
    assert not total[1].isfinite()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(sorted(PRESETS)), st.integers(2, 5))
def test_blind_to_the_order_of_points_and_views(seed: int, preset: str, views: int) -> None:
    g = torch.Generator().manual_seed(seed)
    points = 0.9 * (torch.rand(2, 40, 3, generator=g) - 0.5)
    masks = torch.zeros(2, views, 16, 16)
    for mask in masks.flatten(0, 1):
        low = torch.randint(0, 9, (2,), generator=g).tolist()
        mask[low[0] : low[0] + 7, low[1] : low[1] + 5] = 1
    angles = torch.rand(2, 2, views, generator=g)
    cameras = dpc_cameras(360 * angles[0], 60 * angles[1] - 20)
    one = drwr(points, masks, cameras, 16, reading=PRESETS[preset])
    order, turn = torch.randperm(40, generator=g), torch.randperm(views, generator=g)
    other = drwr(points[:, order], masks[:, turn], cameras[:, turn], 16, reading=PRESETS[preset])
    for a, b in ((one.l1[:, turn], other.l1), (one.l2[:, turn], other.l2), (one.total(), other.total())):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=1e-6)
    alone = drwr(points[:1], masks[:1], cameras[:1], 16, reading=PRESETS[preset])
    torch.testing.assert_close(alone.l2[0], one.l2[0], rtol=1e-5, atol=1e-7)  # samples do not mix


def batch_with_views(size: int = 64) -> Batch:
    masks = torch.zeros(2, 3, size, size)
    masks[:, :, size // 4 : -size // 4, size // 3 : -size // 3] = 1
    angles = torch.tensor([[0.0, 90, 200], [10, 50, 300]])
    views = Views(dpc_cameras(angles, torch.full_like(angles, 15.0)), masks)
    return Batch(ids=["a", "b"], categories=["chair", "lamp"], views=views)


def test_class_reduces_and_names_its_parts() -> None:
    batch = batch_with_views()
    points = (torch.rand(2, 300, 3) - 0.5).requires_grad_()
    parts = DRWR(beta=0.7)(PointCloud(points), batch)
    assert set(parts) == {"loss", "l1", "l2", "inside"}
    assert parts["loss"].item() == pytest.approx((parts["l1"] + 0.7 * parts["l2"]).item(), rel=1e-5)
    assert 0 < parts["inside"] < 1
    parts["loss"].backward()
    assert points.grad is not None
    assert points.grad.abs().sum() > 0


def test_class_samples_meshes() -> None:
    vertices = torch.tensor([[0.0, 0.4, 0], [0.4, -0.3, 0], [-0.4, -0.3, 0], [0, 0, 0.4]]).requires_grad_()
    faces = torch.tensor([[0, 1, 2], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    DRWR(points=200, resolution=32)(Mesh.from_list([(vertices, faces)] * 2), batch_with_views())["loss"].backward()
    assert vertices.grad is not None
    assert vertices.grad.isfinite().all()
    assert vertices.grad.abs().sum() > 0


def test_presets_and_switches() -> None:
    assert DRWR().reading == Reading()
    assert DRWR(preset="paper").reading.beta == 3
    assert DRWR(preset="paper", beta=0.6, detach_weights=True).reading == replace(
        PRESETS["paper"], beta=0.6, detach_weights=True
    )
    assert "sigma=5.0" in repr(DRWR(preset="released"))
    assert DRWR.needs == {"views"}
    cloud, batch = PointCloud(torch.rand(2, 300, 3) - 0.5), batch_with_views()
    values = {
        name: DRWR(**options)(cloud, batch)["loss"].item()  # type: ignore[arg-type]
        for name, options in {
            "full": {},
            "no l1": {"unary": False},
            "no l2": {"pairwise": False},
            "no omega": {"omega": False},
            "no delta": {"delta": False},
            "pixel": {"field": "binary"},
            "area": {"reduction": "area", "resolution": 32},
            "scaled": {"area_scaled": True},
        }.items()
    }
    assert len({round(v, 6) for v in values.values()}) == len(values)
    assert values["full"] == pytest.approx(values["no l1"] + values["no l2"], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"preset": "best"}, "'best'"),
        ({"points": 0}, "points is 0"),
        ({"beta": -1.0}, "beta is -1"),
        ({"unary": False, "pairwise": False}, "both off"),
        ({"reduction": "max"}, "'max'"),
        ({"field": "blurred"}, "'blurred'"),
        ({"off_image": "wrap"}, "'wrap'"),
        ({"resolution": 48}, "resolution is 48"),
        ({"resolution": 128}, "64 pixels"),
    ],
)
def test_bad_settings_are_named(options: dict[str, object], word: str) -> None:
    with pytest.raises(ReconlabError, match=word):
        DRWR(**options)(PointCloud(torch.rand(2, 10, 3)), batch_with_views())  # type: ignore[arg-type]


def test_unfitting_input_is_named() -> None:
    mask, cameras = two_views()
    with pytest.raises(ReconlabError, match="for 2 clouds"):
        drwr(torch.zeros(2, 5, 3), mask, cameras, 16)
    with pytest.raises(ReconlabError, match="J >= 1"):
        drwr(torch.zeros(1, 0, 3), mask, cameras, 16)
    with pytest.raises(ReconlabError, match="square"):
        drwr(torch.zeros(1, 5, 3), mask[..., :12], cameras, 4)
    with pytest.raises(ReconlabError, match="DRWR needs 'views'"):
        DRWR()(PointCloud(torch.zeros(1, 5, 3)), Batch(ids=["a"], categories=["chair"]))
