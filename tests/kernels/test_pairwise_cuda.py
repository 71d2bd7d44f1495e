"""Pairwise repulsion by Triton: against float64 and hand-computed cases; in the interpreter without a GPU."""

import math

import pytest
import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.kernels.pairwise import pairwise_repulsion
from tests.kernels.test_pairwise import inputs

pytest.importorskip("triton")

from reconlab.kernels.pairwise import cuda

SIZES = [(2, 1), (2, 2), (1, 32), (3, 37), (1, 130)]


def on(device: torch.device, tensors: tuple[Tensor, ...]) -> list[Tensor]:
    return [t.to(device).requires_grad_() for t in tensors]


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("sigma", [0.3, 40.0])
@pytest.mark.parametrize(("images", "count"), SIZES)
def test_agrees_with_float64(
    triton_device: torch.device, images: int, count: int, sigma: float, squared: bool
) -> None:
    single = on(triton_device, inputs(images, count, count))
    double = [x.detach().double().requires_grad_() for x in single]
    upstream = torch.tensor([1.0, -2.0, 0.5], device=triton_device)[:images]
    fast = pairwise_repulsion(*single, sigma=sigma, squared=squared, backend="cuda")
    slow = pairwise_repulsion(*double, sigma=sigma, squared=squared, backend="reference")
    torch.testing.assert_close(fast.double(), slow, rtol=2e-6, atol=1e-9)
    got = torch.autograd.grad(fast @ upstream, single)
    expected = torch.autograd.grad(slow @ upstream.double(), double)
    for g, e in zip(got, expected, strict=True):
        assert (g.double() - e).abs().max() <= 1e-5 * e.abs().max() + 1e-9


@pytest.mark.parametrize("rows", [16, 32])
def test_blocks_of_both_sizes_agree(triton_device: torch.device, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "PROGRAMS", 1 if rows == cuda.ROWS else 1024)
    points, weights, bias = on(triton_device, inputs(2, 75, 5))
    kernel, used = cuda._repulsion, []

    class Recorder:
        def __getitem__(self, grid: tuple[int, ...]) -> object:
            return lambda *a, **k: (used.append((grid[0], k["ROWS"])), kernel[grid](*a, **k))

    monkeypatch.setattr(cuda, "_repulsion", Recorder())
    value = pairwise_repulsion(points, weights, bias, backend="cuda")
    assert used == [(2 * math.ceil(75 / rows), rows)]
    expected = pairwise_repulsion(points, weights, bias, backend="reference")
    torch.testing.assert_close(value, expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize("squared", [False, True])
def test_force_of_one_pair(triton_device: torch.device, squared: bool) -> None:
    """d/dp of 2 exp(-|p - q| / σ) is -2/σ exp(-5/σ) along (p - q)/|p - q|; squared, -4/σ exp(-25/σ) (p - q)."""
    points = torch.tensor([[[0.0, 0], [3, 4]]], device=triton_device).requires_grad_()
    weights = torch.ones(1, 2, device=triton_device)
    sigma = 12.5 if squared else 2.5
    value = pairwise_repulsion(points, weights, sigma=sigma, squared=squared, backend="cuda")
    value.backward()
    assert value.item() == pytest.approx(2 + 2 * math.exp(-2), rel=1e-6)
    size = 4 / 12.5 * 5 * math.exp(-2) if squared else 2 / 2.5 * math.exp(-2)
    expected = size * torch.tensor([[[0.6, 0.8], [-0.6, -0.8]]], device=triton_device)
    torch.testing.assert_close(points.grad, expected)


@pytest.mark.parametrize("squared", [False, True])
def test_equal_and_close_points(triton_device: torch.device, squared: bool) -> None:
    weights = torch.ones(1, 4, device=triton_device)
    points = torch.full((1, 4, 2), 3.25, device=triton_device).requires_grad_()
    value = pairwise_repulsion(points, weights, squared=squared, backend="cuda")
    value.backward()
    assert value.item() == pytest.approx(16, rel=1e-6)
    assert points.grad is not None
    assert (points.grad == 0).all()
    # One float apart: the force has its full size and direction.
    near = torch.tensor([[[3.25, 3.25], [3.25 + 2**-22, 3.25]]], device=triton_device).requires_grad_()
    (force,) = torch.autograd.grad(pairwise_repulsion(near, weights[:, :2], squared=squared, backend="cuda"), near)
    expected = 4.0 * 2**-22 if squared else 2.0
    torch.testing.assert_close(force.cpu(), torch.tensor([[[expected, 0.0], [-expected, 0.0]]]))


@pytest.mark.parametrize("squared", [False, True])
def test_gradient_is_the_slope_of_the_value(triton_device: torch.device, squared: bool) -> None:
    arguments = on(triton_device, inputs(1, 40, 6, side=4.0))
    slopes = torch.autograd.grad(pairwise_repulsion(*arguments, squared=squared, backend="cuda").sum(), arguments)
    g = torch.Generator().manual_seed(7)
    for which, slope in enumerate(slopes):
        motion = torch.randn(slope.shape, generator=g).to(triton_device)
        ends = []
        for step in (1e-2, -1e-2):
            moved = [a.detach() for a in arguments]
            moved[which] = moved[which] + step * motion
            ends.append(pairwise_repulsion(*moved, squared=squared, backend="cuda").item())
        numeric = (ends[0] - ends[1]) / 2e-2
        assert (slope * motion).sum().item() == pytest.approx(numeric, rel=1e-2, abs=1e-2 * slope.norm().item())


@pytest.mark.parametrize("weights_too", [False, True])
def test_points_without_weight(triton_device: torch.device, weights_too: bool) -> None:
    """They feel and add nothing, blocks of them are passed over, and their weights have gradients all the same."""
    points, weights, bias = inputs(1, 50, 1)
    points = torch.cat([torch.rand(1, 40, 2) * 32, points], 1)
    weights = torch.cat([torch.zeros(1, 40), weights], 1)
    bias = torch.cat([torch.zeros(1, 40), bias], 1)
    points, weights, bias = (x.to(triton_device) for x in (points, weights, bias))
    given = (points.requires_grad_(), weights.requires_grad_(weights_too), bias)
    value = pairwise_repulsion(*given, backend="cuda")
    expected = pairwise_repulsion(*given, backend="reference")
    torch.testing.assert_close(value, expected, rtol=2e-6, atol=0)
    wanted = given[: 1 + weights_too]
    got = torch.autograd.grad(value, wanted)
    for g, e in zip(got, torch.autograd.grad(expected, wanted), strict=True):
        torch.testing.assert_close(g, e, rtol=1e-4, atol=1e-5)
    assert (got[0][:, :40] == 0).all()
    nothing = pairwise_repulsion(points, torch.zeros_like(weights), backend="cuda")
    assert nothing.item() == 0


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, in the interpreter
@pytest.mark.parametrize("squared", [False, True])
def test_far_points_and_points_that_are_not_finite(triton_device: torch.device, squared: bool) -> None:
    points, weights, bias = inputs(4, 40, 2)
    points[0, 3], points[0, 4] = 1e25, -1e12
    weights[0, 3:5] = 1
    points[1, 0, 0], points[2, 0, 1] = torch.nan, torch.inf
    weights[1], weights[2, 0] = 0, 0  # not finite is not finite, with or without weight
    points, weights, bias = on(triton_device, (points, weights, bias))
    value = pairwise_repulsion(points, weights, bias, squared=squared, backend="cuda")
    expected = pairwise_repulsion(points, weights, bias, squared=squared, backend="reference")
    torch.testing.assert_close(value, expected, rtol=2e-6, atol=0, equal_nan=True)
    assert value.isnan().tolist() == [False, True, True, False]
    got = torch.autograd.grad(value.sum(), (points, weights, bias))
    right = torch.autograd.grad(expected.sum(), (points, weights, bias))
    for g, e in zip(got, right, strict=True):
        assert g[[0, 3]].isfinite().all()
        assert g[0].allclose(e[0], rtol=1e-4, atol=1e-4)
    assert got[0][1:3].isnan().all()


def test_no_images_and_no_points(triton_device: torch.device) -> None:
    for shape in ((0, 5), (2, 0)):
        points = torch.zeros(*shape, 2, device=triton_device).requires_grad_()
        weights = torch.ones(shape, device=triton_device).requires_grad_()
        value = pairwise_repulsion(points, weights, backend="cuda")
        assert value.tolist() == [0.0] * shape[0]
        grads = torch.autograd.grad(value.sum(), (points, weights))
        assert [g.shape for g in grads] == [points.shape, weights.shape]


def test_strided_points_and_two_runs_of_the_same_bits(triton_device: torch.device) -> None:
    points, weights, bias = (x.to(triton_device) for x in inputs(3, 45, 8))
    strided = points.permute(2, 1, 0).contiguous().permute(2, 1, 0).requires_grad_()
    points.requires_grad_()
    weights = weights[:1].expand(3, -1)
    runs = []
    for given in (points, points, strided):
        value = pairwise_repulsion(given, weights, bias, backend="cuda")
        runs.append((value, *torch.autograd.grad(value.sum(), given)))
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


def test_unfitting_input_is_named(triton_device: torch.device) -> None:
    points, weights = torch.zeros(1, 4, 2, device=triton_device), torch.ones(1, 4, device=triton_device)
    with pytest.raises(ReconlabError, match="float32"):
        pairwise_repulsion(points.double(), weights, backend="cuda")
    with pytest.raises(ReconlabError, match="cuda and grid"):
        pairwise_repulsion(points, weights, backend="triton")  # type: ignore[arg-type]


def test_work_is_counted_by_hand() -> None:
    """2 images of 5 points: 50 pairs; points, two weights, a value read or written, and gradients by points."""
    assert cuda.work(2, 5) == (2 * 16 * 50, 4 * (2 * 5 * 4 + 2 + 2 * 5 * 2))
    assert cuda.work(2, 5, squared=True, weights_too=True) == (2 * 13 * 50, 4 * (2 * 5 * 4 + 2 + 2 * 5 * 4))
