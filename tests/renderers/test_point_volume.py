"""DPC's rendering of points: where a point lands, the volume's limits, gradients through the camera."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.cameras import Cameras, dpc_cameras
from reconlab.errors import ReconlabError
from reconlab.losses.silhouettes import reduce_silhouettes
from reconlab.renderers import render_point_silhouettes

FRONT = dpc_cameras([[0.0]], [[0.0]])


def place(x: float, y: float, depth: float = 2.0) -> torch.Tensor:
    """The object point that FRONT projects to (x, y) at a depth: right is -x there, down -y, ahead +z."""
    return torch.tensor([[[-x * depth / 3.75, -y * depth / 3.75, depth - 2.0]]])


def bright(image: torch.Tensor) -> list[tuple[int, int]]:
    """(row, column) of pixels that a point without blur touches."""
    return [(int(i), int(j)) for i, j in torch.nonzero(image > 0.05)]


def test_a_point_lands_on_its_pixel() -> None:
    """Pixel (row 3, column 12) of 16 has its centre at ((2 · 12 + 1) / 16 - 1, (2 · 3 + 1) / 16 - 1)."""
    points = place(25 / 16 - 1, 7 / 16 - 1, 2 + 0.5 / 16)
    image = render_point_silhouettes(points, FRONT, 16, 0.1, 3).silhouette[0, 0]
    assert bright(image) == [(3, 12)]
    # DPC's own grid runs from 0 at the left edge to 15 at the right one; its middle lies between 7 and 8.
    corner = render_point_silhouettes(place(1 - 1e-4, -1 + 1e-4), FRONT, 16, 0.1, 1, registration="dpc")
    assert bright(corner.silhouette[0, 0]) == [(0, 15)]
    middle = render_point_silhouettes(place(0.0, 0.0), FRONT, 16, 0.1, 1, registration="dpc").silhouette[0, 0]
    assert bright(middle) == [(7, 7), (7, 8), (8, 7), (8, 8)]


def test_registration_with_a_sub_sampled_mask() -> None:
    """Grid pixel i is source pixel k i: a point on source pixel 20 of 64 lies on pixel 5 of 16."""
    reduced = reduce_silhouettes(torch.zeros(1, 64, 64), 16, "subsample", "test")
    points = place(41 / 64 - 1, 41 / 64 - 1, 2 + 0.5 / 16)
    image = render_point_silhouettes(
        points, FRONT, 16, 0.1, 3, pixel_scale=reduced.scale, pixel_shift=reduced.shift
    ).silhouette[0, 0]
    assert bright(image) == [(5, 5)]
    shifted = render_point_silhouettes(points, FRONT, 16, 0.1, 3).silhouette[0, 0]
    assert len(bright(shifted)) > 1  # between pixels of the averaged grid


def test_points_outside_of_the_volume_are_dropped() -> None:
    inside = place(0.0, 0.0)
    outside = [place(1.01, 0.0), place(0.0, -1.01), place(0.0, 0.0, 2.51), place(0.0, 0.0, 1.49)]
    behind = [place(0.0, 0.0, -1.0), place(0.0, 0.0, 0.0)]
    alone = render_point_silhouettes(inside, FRONT, 8, 1.0, 5).silhouette
    points = torch.cat([inside, *outside, *behind], 1).requires_grad_()
    rendered = render_point_silhouettes(points, FRONT, 8, 1.0, 5)
    torch.testing.assert_close(rendered.silhouette, alone)
    assert rendered.inside.item() == pytest.approx(1 / 7)
    (g,) = torch.autograd.grad(rendered.silhouette.square().sum(), points)
    assert (g[0, 1:] == 0).all()
    assert g[0, 0].isfinite().all()
    for backend in ("reference", "cpu"):
        none = render_point_silhouettes(points[:, 1:], FRONT, 8, 1.0, 5, backend=backend)  # type: ignore[arg-type]
        assert none.silhouette.max().item() == pytest.approx(8e-5, rel=0.01)
        assert none.inside.item() == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_points_that_are_not_finite_show(value: float) -> None:
    points = 0.5 * (torch.rand(2, 10, 3) - 0.5)
    points[1, 4, 2] = value
    rendered = render_point_silhouettes(points, FRONT.expand(2, 1), 8)
    assert rendered.silhouette[0].isfinite().all()
    assert rendered.silhouette[1].isnan().all()


def test_the_scale_multiplies_occupancy() -> None:
    """A lone point on a voxel's centre, no blur: the silhouette there is the scale."""
    points = place(1 / 8, 1 / 8, 2 + 0.5 / 8)
    for value in (0.25, 0.8):
        image = render_point_silhouettes(points, FRONT, 8, 1.0, 1, torch.tensor([value])).silhouette
        assert image.max().item() == pytest.approx(value, abs=1e-3)


def test_a_dense_ball_has_the_silhouette_of_a_ball() -> None:
    """A sphere of radius r around the origin, seen from distance d, has the outline f r / sqrt(d² - r²)."""
    g = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(1, 20000, 3, generator=g), dim=-1)
    radius = 0.3
    image = render_point_silhouettes(radius * direction, dpc_cameras([[70.0]], [[25.0]]), 64, 0.8, 11).silhouette[
        0, 0
    ]
    side = (2 * torch.arange(64) + 1) / 64 - 1
    distance = (side[:, None].square() + side.square()).sqrt()
    outline = 3.75 * radius / math.sqrt(4 - radius**2)
    assert (image[distance < outline - 2 / 32] > 0.9).all()
    assert (image[distance > outline + 3 / 32] < 0.05).all()


def test_finite_differences_through_the_camera() -> None:
    g = torch.Generator().manual_seed(3)
    points = (0.6 * (torch.rand(2, 5, 3, generator=g) - 0.5)).double().requires_grad_()
    scale = torch.tensor([0.5, 0.9], dtype=torch.float64, requires_grad=True)
    cameras = dpc_cameras([[10.0, 200.0], [40.0, 300.0]], [[0.0, 30.0], [-20.0, 10.0]])
    for registration in ("pixel", "dpc"):

        def value(p: torch.Tensor, s: torch.Tensor, how: str = registration) -> torch.Tensor:
            return render_point_silhouettes(p, cameras, 6, 0.9, 5, s, how).silhouette  # type: ignore[arg-type]

        assert torch.autograd.gradcheck(value, (points, scale), eps=1e-7, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 3))
def test_blind_to_the_order_of_points_and_views(seed: int, views: int) -> None:
    g = torch.Generator().manual_seed(seed)
    points = 0.9 * (torch.rand(2, 50, 3, generator=g) - 0.5)
    angles = torch.rand(2, 2, views, generator=g)
    cameras = dpc_cameras(360 * angles[0], 60 * angles[1] - 20)
    one = render_point_silhouettes(points, cameras, 16)
    order, turn = torch.randperm(50, generator=g), torch.randperm(views, generator=g)
    other = render_point_silhouettes(points[:, order], cameras[:, turn], 16)
    torch.testing.assert_close(other.silhouette, one.silhouette[:, turn], rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(other.inside, one.inside[:, turn])
    own = points.unsqueeze(1).expand(-1, views, -1, -1)  # a cloud for each view
    assert torch.equal(render_point_silhouettes(own, cameras, 16).silhouette, one.silhouette)


def test_mixed_precision_projects_in_float32() -> None:
    points = 0.6 * (torch.rand(1, 50, 3) - 0.5)
    expected = render_point_silhouettes(points, FRONT, 16).silhouette
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(render_point_silhouettes(points, FRONT, 16).silhouette, expected)
    assert render_point_silhouettes(points.half(), FRONT, 16).silhouette.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"points": torch.zeros(2, 5, 2)}, r"points \(B, J, 3\)"),
        ({"points": torch.zeros(3, 5, 3)}, r"points \(B, J, 3\)"),
        ({"points": torch.zeros(2, 0, 3)}, "at least one point"),
        ({"points": torch.zeros(2, 4, 5, 3)}, "each of 1 views"),
        ({"scale": torch.ones(1)}, "one a cloud"),
        ({"registration": "corner"}, "'corner'"),
        ({"pixel_shift": 1.0}, "together"),
        ({"sigma": -1.0}, "positive resolution and sigma"),
    ],
)
def test_bad_input_is_named(change: dict[str, object], word: str) -> None:
    arguments: dict[str, object] = {"points": torch.zeros(2, 5, 3), "cameras": FRONT.expand(2, 1), "resolution": 8}
    with pytest.raises(ReconlabError, match=word):
        render_point_silhouettes(**(arguments | change))  # type: ignore[arg-type]


def test_any_principal_point() -> None:
    """Moving the principal point by two pixels moves the image by two pixels."""
    points = 0.3 * (torch.rand(1, 50, 3) - 0.5)
    moved = Cameras(FRONT.R, FRONT.t, FRONT.focal, FRONT.centre + torch.tensor([4 / 16, 0.0]))
    one, other = (render_point_silhouettes(points, c, 16, 0.5, 3).silhouette for c in (FRONT, moved))
    torch.testing.assert_close(other[..., 2:], one[..., :-2], rtol=1e-3, atol=1e-4)
