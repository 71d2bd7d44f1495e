"""CAP: hand-computed cases, an independent computation, finite differences, odd input, the class, a fit."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.batch import Batch, Views
from reconlab.cameras import Cameras, dpc_cameras
from reconlab.errors import ReconlabError
from reconlab.losses.cap import CAP, cap, silhouette_terms
from reconlab.shapes import PointCloud

FRONT = dpc_cameras(0.0, 0.0).reshape(1, 1)


def published(drawn: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """The three means by the full table of pixel pairs, in float64."""
    side = drawn.shape[0]
    grid = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2)
    table = np.sqrt(((grid[:, None] - grid) ** 2).sum(-1)) + 1
    p, t = drawn.reshape(-1).astype(np.float64), truth.reshape(-1).astype(np.float64)
    entropy = -(t * np.log(p + 1e-8) + (1 - t) * np.log(1 - p + 1e-8)).mean()
    covering = (t[:, None] * table * (p + (1 - p) * 1e6)).min(1).mean()
    straying = (p[:, None] * table * (t + (1 - t) * 1e6)).min(1).mean()
    return entropy, covering, straying


def test_one_pixel_by_hand():
    """Truth: the left pixel of a row of three. Drawn: .2, .9, .4."""
    drawn = torch.tensor([[[0.2, 0.9, 0.4]]], dtype=torch.float64)
    mask = torch.tensor([[[True, False, False]]])
    terms = silhouette_terms(drawn, mask)
    assert terms.cross_entropy.item() == pytest.approx(-(math.log(0.2) + math.log(0.1) + math.log(0.6)) / 3)
    # own pixel .2 + .8e6; one away 2 (.9 + .1e6), the least; two away 3 (.4 + .6e6)
    assert terms.covering.item() == pytest.approx(2 * (0.9 + 0.1e6) / 3)
    assert terms.straying.item() == pytest.approx((0.2 * 1 + 0.9 * 2 + 0.4 * 3) / 3)
    assert terms.overlap.item() == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 0.95), st.floats(0.2, 8.0))
def test_against_the_table_of_all_pairs(seed, share, contrast):
    g = torch.Generator().manual_seed(seed)
    drawn = (contrast * torch.rand(1, 9, 9, generator=g)).tanh()
    mask = torch.rand(1, 9, 9, generator=g) < share
    if not mask.any():
        mask[0, 0, 0] = True
    terms = silhouette_terms(drawn, mask)
    expected = published(drawn[0].numpy(), mask[0].numpy())
    assert [x.item() for x in terms[:3]] == pytest.approx(expected, rel=2e-4)


def test_gradient_of_the_covering_is_at_the_chosen_pixel():
    drawn = torch.tensor([[[0.2, 0.9, 0.4]]], requires_grad=True)
    silhouette_terms(drawn, torch.tensor([[[True, False, False]]])).covering.sum().backward()
    assert drawn.grad.flatten().tolist() == pytest.approx([0, 2 * (1 - 1e6) / 3, 0])


def two_views() -> tuple[torch.Tensor, Cameras]:
    mask = torch.zeros(1, 2, 16, 16)
    mask[0, 0, 4:11, 5:13] = 1
    mask[0, 1, 6:14, 3:9] = 1
    return mask, dpc_cameras([20.0, 100.0], [10.0, -5.0]).reshape(1, 2)


@pytest.mark.parametrize(("term", "weight"), [("cross_entropy", 1.0), ("covering", 1e-6), ("straying", 1.0)])
def test_finite_differences(term, weight):
    mask, cameras = two_views()
    points = (torch.rand(1, 12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5) * 0.7

    def value(p: torch.Tensor) -> torch.Tensor:
        return weight * getattr(cap(p, mask, cameras, 16), term)

    assert torch.autograd.gradcheck(value, points.requires_grad_(), eps=1e-7, atol=1e-5)


def test_subsampled_masks_are_registered_with_the_projection():
    """A point on source pixel 2 i of a 128 mask draws its summit on pixel i of the 64 image."""
    x = torch.tensor([(2 * 40 + 1) / 128 - 1, (2 * 70 + 1) / 128 - 1])
    point = torch.cat([-x * 2 / 3.75, torch.zeros(1)]).reshape(1, 1, 3)
    mask = torch.zeros(1, 1, 128, 128)
    mask[0, 0, 70, 40] = 1
    assert mask[..., ::2, ::2][0, 0, 35, 20] == 1
    terms = cap(point, mask, FRONT)
    neighbours = sum(
        -math.log(1 - math.tanh(math.exp(-(a * a) - b * b)) + 1e-8)
        for a in range(-9, 10)
        for b in range(-9, 10)
        if a or b
    )
    assert terms.cross_entropy.item() == pytest.approx((neighbours - math.log(math.tanh(1))) / 64**2, rel=1e-4)
    assert terms.overlap.item() == 1


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_order_of_points_does_not_matter(seed):
    mask, cameras = two_views()
    g = torch.Generator().manual_seed(seed)
    points = torch.rand(1, 30, 3, generator=g) - 0.5
    order = torch.randperm(30, generator=g)
    for a, b in zip(cap(points, mask, cameras, 16), cap(points[:, order], mask, cameras, 16), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fill", [0.0, 1.0])
@pytest.mark.parametrize("where", ["inside", "behind", "off"])
def test_empty_and_full_silhouettes(fill, where):
    z = {"inside": 0.0, "behind": -3.0, "off": 0.0}[where]
    points = torch.tensor([[[5.0 if where == "off" else 0.0, 0.0, z]]], requires_grad=True)
    terms = cap(points, torch.full((1, 1, 16, 16), fill), FRONT, 16)
    sum(x.sum() for x in terms[:3]).backward()
    assert all(x.isfinite().all() for x in terms)
    assert points.grad.isfinite().all()
    if where != "inside":
        assert terms.cross_entropy.item() == pytest.approx(-math.log(1e-8) * fill, rel=1e-4, abs=1e-6)
        assert points.grad.abs().max() < 1e-6
    if not fill:
        assert terms.covering.item() == terms.straying.item() == 0


def test_saturated_clump_on_the_background_stays_finite():
    """5000 points on one pixel: P rounds to 1 there, the worst pixel costs -log ε."""
    points = torch.zeros(1, 5000, 3, requires_grad=True)
    terms = cap(points, torch.zeros(1, 1, 17, 17), FRONT, 17)
    terms.cross_entropy.sum().backward()
    assert terms.cross_entropy.item() < -math.log(1e-8)
    assert points.grad.isfinite().all()


def test_undefined_points_show():
    mask, cameras = two_views()
    points = torch.zeros(2, 3, 3)
    points[0, 1, 0] = torch.nan
    terms = cap(points, mask.expand(2, -1, -1, -1), cameras.expand(2, 2), 16)
    assert terms.cross_entropy[0].isnan().all()
    assert terms.cross_entropy[1].isfinite().all()


def test_the_class_weighs_and_averages():
    mask, cameras = two_views()
    cloud = PointCloud((torch.rand(1, 40, 3, generator=torch.Generator().manual_seed(2)) - 0.5).requires_grad_())
    batch = Batch(["a"], ["x"], views=Views(cameras, mask))
    terms = cap(cloud.positions, mask, cameras, 16)
    out = CAP(resolution=16, entropy=2.0, affinity=1e-3)(cloud, batch)
    expected = 2 * terms.cross_entropy.mean() + 1e-3 * (terms.covering.mean() + terms.straying.mean())
    torch.testing.assert_close(out["loss"], expected)
    assert set(out) == {"loss", "cross_entropy", "covering", "straying", "iou"}
    plain = CAP(resolution=16, affinity=0.0)(cloud, batch)
    torch.testing.assert_close(plain["loss"], terms.cross_entropy.mean())
    assert "affinity=0.001" in repr(CAP(affinity=1e-3))


def test_mistakes_are_named():
    mask, cameras = two_views()
    with pytest.raises(ReconlabError, match="points is 0"):
        CAP(points=0)
    with pytest.raises(ReconlabError, match="not both 0"):
        CAP(entropy=0.0, affinity=0.0)
    with pytest.raises(ReconlabError, match=r"points \(B, J, 3\)"):
        cap(torch.zeros(1, 0, 3), mask, cameras, 16)
    with pytest.raises(ReconlabError, match=r"silhouettes \(B, V, H, H\)"):
        cap(torch.zeros(2, 5, 3), mask, cameras, 16)
    with pytest.raises(ReconlabError, match="needs 'views'"):
        CAP()(PointCloud(torch.zeros(1, 4, 3)), Batch(["a"], ["x"]))
    with pytest.raises(ReconlabError, match="CAP: resolution is 7"):
        cap(torch.zeros(1, 5, 3), mask, cameras, 7)


def test_fits_free_points_to_two_silhouettes():
    """From a random blob, the drawn silhouettes come to cover the true ones."""
    mask = torch.zeros(1, 2, 32, 32)
    mask[0, 0, 9:24, 11:21] = 1
    mask[0, 1, 9:24, 8:24] = 1
    cameras = dpc_cameras([0.0, 90.0], [0.0, 0.0]).reshape(1, 2)
    points = 0.1 * (torch.rand(1, 400, 3, generator=torch.Generator().manual_seed(0)) - 0.5)
    points.requires_grad_()
    optimizer = torch.optim.Adam([points], 5e-3)
    batch, loss = Batch(["a"], ["x"], views=Views(cameras, mask)), CAP(resolution=32)
    first = loss(PointCloud(points), batch)["iou"].item()
    for _ in range(150):
        optimizer.zero_grad()
        out = loss(PointCloud(points), batch)
        out["loss"].backward()
        optimizer.step()
    assert first < 0.5
    assert out["iou"].item() > 0.95
