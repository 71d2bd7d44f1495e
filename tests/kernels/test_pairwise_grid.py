"""The O(J) repulsion against float64 sums over all pairs, on the clouds that training meets and on worse ones."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.kernels import pairwise
from reconlab.kernels.pairwise import pairwise_repulsion

CLOUDS = ("image", "disc", "cross", "clusters", "half_dot", "dot", "tiny_dot", "line", "lattice")


def cloud(kind: str, count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Points on an image of 32 x 32, weights and bias, one image."""
    g = torch.Generator().manual_seed(seed)
    unit, normal = torch.rand(count, 2, generator=g), torch.randn(count, 2, generator=g)
    cross = torch.where(torch.rand(count, 1, generator=g) < 0.5, unit * 20 + 6, unit * 3 + 14)
    cross = torch.stack([cross[:, 0], torch.where(cross[:, 0] > 17, unit[:, 1] * 3 + 14, unit[:, 1] * 16 + 8)], 1)
    if kind == "disc":
        radius, angle = 5 * unit[:, 0].sqrt(), 2 * math.pi * unit[:, 1]
        points = 16 + torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
    elif kind == "clusters":
        centre, spread = 32 * torch.rand(12, 2, generator=g), 10 ** (3.3 * torch.rand(12, 1, generator=g) - 3)
        of = torch.randint(12, (count,), generator=g)
        points = centre[of] + spread[of] * normal
    elif kind == "half_dot":
        points = torch.where(torch.arange(count).unsqueeze(1) < count // 2, 17 + 3e-3 * normal, cross)
    elif kind == "line":
        points = torch.stack([32 * unit[:, 0], torch.full((count,), 7.0)], 1)
    else:
        points = {
            "image": 32 * unit,
            "cross": cross,
            "dot": 16 + 1e-2 * normal,
            "tiny_dot": 16 + 1e-4 * normal,
            "lattice": (12 * unit).floor() + 10,
        }[kind]
    weights = torch.rand(count, generator=g)
    weights[weights < 0.1] = 0
    return points[None], weights[None], torch.rand(1, count, generator=g)


def compare(inputs: tuple[Tensor, Tensor, Tensor], sigma: float = 1.0) -> tuple[float, float, float]:
    """Relative errors: of the value; of the gradient, rms over rms; and largest over largest."""
    points, weights, bias = inputs
    single, double = points.clone().requires_grad_(), points.double().requires_grad_()
    value = pairwise_repulsion(single, weights, bias, sigma=sigma, backend="grid")
    exact = pairwise_repulsion(double, weights.double(), bias.double(), sigma=sigma, backend="reference")
    (got,) = torch.autograd.grad(value.sum(), single)
    (expected,) = torch.autograd.grad(exact.sum(), double)
    error = got.double() - expected
    tiny = 1e-12
    return (
        (value.double() / exact - 1).abs().max().item(),
        (error.square().mean().sqrt() / (expected.square().mean().sqrt() + tiny)).item(),
        (error.abs().max() / (expected.abs().max() + tiny)).item(),
    )


@pytest.mark.parametrize("kind", CLOUDS)
@pytest.mark.parametrize("count", [2, 3, 257, 5000])
def test_within_bounds_of_all_pairs(kind: str, count: int) -> None:
    value, rms, largest = compare(cloud(kind, count))
    assert value < 1e-4
    # On a line forces cancel almost wholly but at its ends, which leaves little to compare the error with.
    assert rms < (2e-2 if kind == "line" else 5e-3)
    assert largest < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["image", "disc", "cross", "clusters", "dot"])
def test_within_bounds_at_16000(kind: str) -> None:
    value, rms, largest = compare(cloud(kind, 16000))
    assert value < 1e-4
    assert rms < 5e-3
    assert largest < 1e-2


@pytest.mark.parametrize("sigma", [0.25, 4.0, 32.0, 1e6])
def test_any_sigma(sigma: float) -> None:
    value, rms, largest = compare(cloud("cross", 3000), sigma)
    assert value < 1e-4
    assert rms < 1e-2
    assert largest < 1e-2


def test_gradient_is_the_slope_of_the_value() -> None:
    """Central differences along a random smooth motion of the whole cloud."""
    points, weights, bias = cloud("disc", 2000)
    motion = torch.stack([(points[..., 1] / 3).sin(), (points[..., 0] / 4).cos()], -1)
    moving = points.clone().requires_grad_()
    (slope,) = torch.autograd.grad(pairwise_repulsion(moving, weights, bias, backend="grid").sum(), moving)
    step = 0.05
    ahead, behind = (pairwise_repulsion(points + s * motion, weights, bias, backend="grid") for s in (step, -step))
    expected = ((ahead - behind) / (2 * step)).item()
    assert (slope * motion).sum().item() == pytest.approx(expected, rel=2e-3)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(CLOUDS), st.integers(1, 900))
def test_order_and_place_do_not_matter(seed: int, kind: str, count: int) -> None:
    points, weights, bias = cloud(kind, count, seed)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    value = pairwise_repulsion(points, weights, bias, backend="grid")
    other = pairwise_repulsion(points[:, order], weights[:, order], bias[:, order], backend="grid")
    torch.testing.assert_close(value, other, rtol=2e-5, atol=1e-6)
    moved = pairwise_repulsion(points - 40, weights, bias, backend="grid")
    torch.testing.assert_close(value, moved, rtol=1e-3, atol=1e-5)


def test_equal_points_have_no_force() -> None:
    points = torch.full((1, 300, 2), 3.25).requires_grad_()
    value = pairwise_repulsion(points, torch.ones(1, 300), backend="grid")
    value.backward()
    assert value.item() == pytest.approx(90_000, rel=1e-6)
    assert points.grad is not None
    assert (points.grad == 0).all()


def test_points_without_weight_feel_and_do_nothing() -> None:
    points, weights, bias = cloud("disc", 1500)
    far = torch.tensor([[[1e20, -1e12], [5e3, 0.0], [-400.0, 16.0]]])
    both = torch.cat([far, points], 1).requires_grad_()
    together = pairwise_repulsion(
        both, torch.cat([torch.zeros(1, 3), weights], 1), torch.cat([torch.zeros(1, 3), bias], 1), backend="grid"
    )
    alone = pairwise_repulsion(points, weights, bias, backend="grid")
    assert torch.equal(together.detach(), alone)
    (gradient,) = torch.autograd.grad(together.sum(), both)
    assert (gradient[:, :3] == 0).all()
    nothing = pairwise_repulsion(points, torch.zeros_like(weights), backend="grid")
    assert nothing.item() == 0


def test_clouds_too_wide_are_summed_exactly() -> None:
    points, weights, bias = cloud("disc", 500)
    points[0, 0], weights[0, 0] = 1e6, 1.0
    grid, exact = (pairwise_repulsion(points, weights, bias, backend=b) for b in ("grid", "cpu"))
    assert torch.equal(grid, exact)


def test_positions_that_are_not_finite_give_nan_in_their_image_only() -> None:
    points, weights, bias = (x.repeat(2, *[1] * (x.dim() - 1)) for x in cloud("disc", 500))
    points[1, 7, 0] = torch.nan
    value = pairwise_repulsion(points, weights, bias, backend="grid")
    assert value[0].isfinite()
    assert value[1].isnan()


def test_gradients_of_weights_and_bias() -> None:
    single = [x.requires_grad_() for x in cloud("cross", 1200)]
    double = [x.detach().double().requires_grad_() for x in single]
    got = torch.autograd.grad(pairwise_repulsion(*single, backend="grid").sum(), single[1:])
    expected = torch.autograd.grad(pairwise_repulsion(*double, backend="reference").sum(), double[1:])
    for g, e in zip(got, expected, strict=True):
        assert (g.double() - e).abs().max() <= 1e-5 * e.abs().max()


def test_auto_counts_the_weighted_points_of_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairwise, "GRID_FROM", 600)
    points, weights, bias = (x.repeat(2, *[1] * (x.dim() - 1)) for x in cloud("disc", 1000))
    weights[1, 500:] = 0
    auto, grid, exact = (pairwise_repulsion(points, weights, bias, backend=b) for b in ("auto", "grid", "cpu"))
    assert auto[0] == grid[0]
    assert grid[0] != exact[0]
    assert auto[1] == exact[1]


def test_unfitting_input_is_named() -> None:
    with pytest.raises(ReconlabError, match="float32"):
        pairwise_repulsion(torch.zeros(1, 4, 2).double(), torch.ones(1, 4), backend="grid")
    with pytest.raises(ReconlabError, match="squared"):
        pairwise_repulsion(torch.zeros(1, 4, 2), torch.ones(1, 4), squared=True, backend="grid")
    with pytest.raises(ReconlabError, match="grid"):
        pairwise_repulsion(torch.zeros(1, 4, 2), torch.ones(1, 4), backend="mesh")  # type: ignore[arg-type]
