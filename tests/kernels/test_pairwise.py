"""Pairwise repulsion: hand-computed values, both backends, finite differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.errors import ReconlabError
from reconlab.kernels.pairwise import pairwise_repulsion
from reconlab.kernels.pairwise import reference as reference_module

BACKENDS = ["reference", "cpu"]


def inputs(images: int, count: int, seed: int, side: float = 32.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    points = side * torch.rand(images, count, 2, generator=g)
    weights = torch.rand(images, count, generator=g)
    weights[weights < 0.2] = 0
    return points, weights, torch.rand(images, count, generator=g)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("squared", [False, True])
def test_hand_computed(backend: str, squared: bool) -> None:
    """Points (0,0), (3,4), (0,4): distances 5, 4, 3."""
    points = torch.tensor([[[0.0, 0], [3, 4], [0, 4]]])
    w, delta, sigma = [0.5, 1.0, 0.25], [0.0, 0.3, 1.0], 10.0
    distance = np.array([[0, 5, 4], [5, 0, 3], [4, 3, 0]], float)
    if squared:
        distance = distance**2
    expected = sum(w[j] * w[k] * math.exp(-distance[j, k] / sigma + delta[j]) for j in range(3) for k in range(3))
    value = pairwise_repulsion(
        points, torch.tensor([w]), torch.tensor([delta]), sigma=sigma, squared=squared, backend=backend
    )
    assert value.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_force_of_one_pair(backend: str) -> None:
    """d/dp of 2 exp(-|p - q| / σ) is -2/σ exp(-5/σ) along (p - q)/|p - q|: descent moves the points apart."""
    points = torch.tensor([[[0.0, 0], [3, 4]]], requires_grad=True)
    pairwise_repulsion(points, torch.ones(1, 2), sigma=2.5, backend=backend).backward()
    size = 2 / 2.5 * math.exp(-2)
    expected = size * torch.tensor([[[0.6, 0.8], [-0.6, -0.8]]])
    torch.testing.assert_close(points.grad, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("squared", [False, True])
def test_equal_points_have_no_force(backend: str, squared: bool) -> None:
    points = torch.full((1, 4, 2), 3.25).requires_grad_()
    value = pairwise_repulsion(points, torch.ones(1, 4), squared=squared, backend=backend)
    value.backward()
    assert value.item() == pytest.approx(16, rel=1e-6)
    assert (points.grad == 0).all()


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 40.0])
@pytest.mark.parametrize("count", [1, 2, 37, 700])
def test_fused_kernel_agrees_with_float64(count: int, sigma: float, squared: bool) -> None:
    single = [x.requires_grad_() for x in inputs(3, count, count)]
    double = [x.detach().double().requires_grad_() for x in single]
    upstream = torch.tensor([1.0, -2.0, 0.5])
    fast = pairwise_repulsion(*single, sigma=sigma, squared=squared, backend="cpu")
    slow = pairwise_repulsion(*double, sigma=sigma, squared=squared, backend="reference")
    torch.testing.assert_close(fast.double(), slow, rtol=2e-6, atol=1e-9)
    got = torch.autograd.grad(fast @ upstream, single)
    expected = torch.autograd.grad(slow @ upstream.double(), double)
    for g, e in zip(got, expected, strict=True):
        assert (g.double() - e).abs().max() <= 1e-5 * e.abs().max() + 1e-9


@pytest.mark.parametrize("squared", [False, True])
def test_finite_differences_in_float64(squared: bool) -> None:
    points, weights, bias = (x.double().requires_grad_() for x in inputs(2, 7, 0, side=4.0))
    assert torch.autograd.gradcheck(
        lambda p, w, b: pairwise_repulsion(p, w, b, sigma=1.5, squared=squared), (points, weights, bias)
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.booleans())
def test_order_of_points_does_not_matter(seed: int, count: int, squared: bool) -> None:
    points, weights, bias = inputs(1, count, seed)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    value = pairwise_repulsion(points, weights, bias, squared=squared)
    other = pairwise_repulsion(points[:, order], weights[:, order], bias[:, order], squared=squared)
    torch.testing.assert_close(value, other, rtol=2e-6, atol=1e-9)
    moved = pairwise_repulsion(points + 5, weights, bias, squared=squared)
    torch.testing.assert_close(value, moved, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("squared", [False, True])
def test_points_without_weight_cost_and_change_nothing(squared: bool) -> None:
    points, weights, bias = inputs(1, 50, 1)
    extra = torch.rand(1, 30, 2) * 32
    alone = pairwise_repulsion(points, weights, bias, squared=squared, backend="cpu")
    together = pairwise_repulsion(
        torch.cat([extra, points], 1).requires_grad_(),
        torch.cat([torch.zeros(1, 30), weights], 1),
        torch.cat([torch.zeros(1, 30), bias], 1),
        squared=squared,
        backend="cpu",
    )
    assert torch.equal(alone, together.detach())


def test_far_points_and_points_that_are_not_finite() -> None:
    points, weights, bias = inputs(2, 40, 2)
    points[0, 3], points[0, 4] = 1e20, -1e12
    weights[0, 3:5] = 1
    points[1, 0, 0] = torch.nan
    for backend in BACKENDS:
        for squared in (False, True):
            p = points.clone().requires_grad_()
            value = pairwise_repulsion(p, weights, bias, squared=squared, backend=backend)  # type: ignore[arg-type]
            assert value[0].isfinite()
            assert value[1].isnan()
            value[0].backward()
            assert p.grad is not None
            assert p.grad[0].isfinite().all()


def test_reference_runs_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    points, weights, bias = (x.double().requires_grad_() for x in inputs(2, 31, 3))
    whole = pairwise_repulsion(points, weights, bias)
    expected = torch.autograd.grad(whole.sum(), (points, weights, bias))
    monkeypatch.setitem(reference_module.BLOCKS, "cpu", 100)
    blocks = pairwise_repulsion(points, weights, bias)
    torch.testing.assert_close(whole, blocks)
    got = torch.autograd.grad(blocks.sum(), (points, weights, bias))
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e)


def test_threads_give_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    points, weights, bias = inputs(5, 200, 4)
    one = pairwise_repulsion(points, weights, bias)
    monkeypatch.setenv("RECONLAB_THREADS", "3")
    assert torch.equal(pairwise_repulsion(points, weights, bias), one)


def test_unfitting_input_is_named() -> None:
    points = torch.zeros(2, 4, 2)
    with pytest.raises(ReconlabError, match=r"\(2, 4, 3\)"):
        pairwise_repulsion(torch.zeros(2, 4, 3), torch.ones(2, 4))
    with pytest.raises(ReconlabError, match="weights"):
        pairwise_repulsion(points, torch.ones(2, 5))
    with pytest.raises(ReconlabError, match="bias"):
        pairwise_repulsion(points, torch.ones(2, 4), torch.ones(2, 1))
    with pytest.raises(ReconlabError, match="sigma"):
        pairwise_repulsion(points, torch.ones(2, 4), sigma=0)
    with pytest.raises(ReconlabError, match="float32"):
        pairwise_repulsion(points.double(), torch.ones(2, 4), backend="cpu")
