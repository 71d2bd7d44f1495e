"""Gaussians at points: hand-computed values, both backends, finite differences, the border."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.errors import ReconlabError
from reconlab.kernels.point_gaussians import point_gaussians
from reconlab.kernels.point_gaussians import reference as reference_module

BACKENDS = ["reference", "cpu"]


def direct(points: np.ndarray, size: int, variance: float) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    square = (columns - points[:, 0, None, None]) ** 2 + (rows - points[:, 1, None, None]) ** 2
    return np.exp(-square / (2 * variance)).sum(0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_hand_computed(backend):
    """A point on row 1, column 2: e^-1 to the side, e^-2 diagonally."""
    image = point_gaussians(torch.tensor([[[2.0, 1.0]]]), 4, backend=backend)
    expected = [math.exp(-5), math.exp(-2), math.exp(-1), math.exp(-2)]
    assert image[0, 0].tolist() == pytest.approx(expected, rel=1e-6)
    assert image[0, 1].tolist() == pytest.approx([math.exp(-4), math.exp(-1), 1, math.exp(-1)], rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.sampled_from([0.1, 0.5, 0.9, 4.0, 30.0]))
def test_backends_against_numpy(seed, size, variance):
    g = torch.Generator().manual_seed(seed)
    points = torch.rand(2, 20, 2, generator=g) * (size + 12) - 6
    for backend in BACKENDS:
        image = point_gaussians(points, size, variance, backend=backend)
        for m in range(2):
            np.testing.assert_allclose(
                image[m], direct(points[m].double().numpy(), size, variance), rtol=2e-4, atol=1e-6
            )


@pytest.mark.parametrize("variance", [0.1, 0.5, 4.0])
def test_gradients_agree(variance):
    g = torch.Generator().manual_seed(0)
    points, weights = torch.rand(2, 200, 2, generator=g) * 44 - 6, torch.randn(2, 32, 32, generator=g)
    results = []
    for backend in BACKENDS:
        leaf = points.clone().requires_grad_()
        (point_gaussians(leaf, 32, variance, backend=backend) * weights).sum().backward()
        results.append(leaf.grad)
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


def test_finite_differences():
    points = torch.rand(2, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 8 - 1
    weights = torch.randn(2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert torch.autograd.gradcheck(lambda p: (point_gaussians(p, 6) * weights).sum(), points.requires_grad_())


def test_blocks_of_points_add_up(monkeypatch):
    points = torch.rand(1, 10, 2, dtype=torch.float64) * 6
    whole = [torch.autograd.functional.vjp(lambda p: point_gaussians(p, 6), points, torch.ones(1, 6, 6).double())]
    monkeypatch.setattr(reference_module, "BLOCK", 3)
    whole.append(torch.autograd.functional.vjp(lambda p: point_gaussians(p, 6), points, torch.ones(1, 6, 6).double()))
    torch.testing.assert_close(*whole)


def test_what_the_window_leaves_out():
    """Every pixel within the stated reach is drawn, wherever in its pixel the point is."""
    for x in (15.0, 15.25, 15.5, 15.999):
        image = point_gaussians(torch.tensor([[[x, x]]]), 32, backend="cpu")[0, :, 15]
        expected = torch.exp(-(torch.arange(32.0) - x).square()) * math.exp(-((15 - x) ** 2))
        drawn = (torch.arange(32.0) - x).abs() <= math.sqrt(72 * 0.5) - 1e-3
        torch.testing.assert_close(image[drawn], expected[drawn], rtol=1e-3, atol=0)
        assert (image[~drawn] <= 2.4e-16).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_far_and_undefined_points(backend):
    points = torch.tensor([[[1e30, 3.0], [-math.inf, 3.0]], [[math.nan, 3.0], [2.0, 2.0]]], requires_grad=True)
    image = point_gaussians(points, 8, backend=backend)
    assert (image[0] == 0).all()
    assert image[1].isnan().any()
    image[0].sum().backward()
    assert (points.grad[0] == 0).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_order_does_not_matter_and_shifts_carry_over(seed):
    g = torch.Generator().manual_seed(seed)
    points = torch.rand(1, 30, 2, generator=g) * 10 + 10
    image = point_gaussians(points, 32)
    torch.testing.assert_close(point_gaussians(points[:, torch.randperm(30, generator=g)], 32), image)
    moved = point_gaussians(points + torch.tensor([3.0, 1.0]), 32)
    torch.testing.assert_close(moved[:, 1:, 3:], image[:, :-1, :-3], rtol=1e-4, atol=1e-5)


def test_mistakes_are_named():
    with pytest.raises(ReconlabError, match=r"points \(M, J, 2\)"):
        point_gaussians(torch.zeros(3, 2), 8)
    with pytest.raises(ReconlabError, match="positive variance"):
        point_gaussians(torch.zeros(1, 3, 2), 8, 0.0)
    with pytest.raises(ReconlabError, match="float32"):
        point_gaussians(torch.zeros(1, 3, 2).double(), 8, backend="cpu")
    with pytest.raises(ReconlabError, match="backends"):
        point_gaussians(torch.zeros(1, 3, 2), 8, backend="gpu")
