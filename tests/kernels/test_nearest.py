"""Nearest neighbours: both backends against SciPy, ties, degenerate clouds, gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from reconlab.errors import ReconlabError
from reconlab.kernels.nearest import nearest
from reconlab.kernels.nearest import reference as reference_module

BACKENDS = ["reference", "cpu"]


def cloud(kind: str, batch: int, count: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    if kind == "volume":
        return torch.rand(batch, count, 3, generator=g) - 0.5
    if kind == "sphere":
        return torch.nn.functional.normalize(torch.randn(batch, count, 3, generator=g), dim=-1)
    if kind == "plane":
        return torch.rand(batch, count, 3, generator=g) * torch.tensor([1.0, 0.0, 1.0]) + 3
    if kind == "line":
        return torch.rand(batch, count, 1, generator=g) * torch.tensor([1.0, -2.0, 0.5])
    if kind == "heavy tail":
        return torch.randn(batch, count, 3, generator=g) / torch.rand(batch, count, 1, generator=g).pow(2)
    return torch.randint(0, 4, (batch, count, 3), generator=g).float()  # lattice: many ties and duplicates


KINDS = ["volume", "sphere", "plane", "line", "heavy tail", "lattice"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("source_kind", ["volume", "sphere", "heavy tail", "lattice"])
@pytest.mark.parametrize("target_kind", KINDS)
def test_distances_agree_with_a_tree(backend: str, source_kind: str, target_kind: str) -> None:
    source, target = cloud(source_kind, 2, 157, 0), cloud(target_kind, 2, 411, 1)
    distance, index = nearest(source, target, backend=backend)
    assert index.dtype == torch.int64
    for b in range(2):
        expected, _ = cKDTree(target[b].double().numpy()).query(source[b].double().numpy())
        np.testing.assert_allclose(distance[b].double().sqrt(), expected, rtol=2e-6, atol=1e-7)
        chosen = (source[b].double() - target[b][index[b]].double()).norm(dim=-1)
        np.testing.assert_allclose(chosen, expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_take_the_lowest_index(backend: str) -> None:
    source, target = cloud("lattice", 3, 200, 2) + 0.5, cloud("lattice", 3, 300, 3)  # exact in float32
    _, index = nearest(source, target, backend=backend)
    square = (source[:, :, None] - target[:, None]).square().sum(-1)
    first = (square == square.amin(2, keepdim=True)).int().argmax(2)
    assert torch.equal(index, first)


@pytest.mark.parametrize("backend", BACKENDS)
def test_degenerate_clouds(backend: str) -> None:
    one = torch.tensor([[[1.0, 2, 3]]])
    distance, index = nearest(one, one, backend=backend)
    assert distance.item() == 0
    assert index.item() == 0
    same = one.expand(1, 50, 3)
    distance, index = nearest(one + 1, same, backend=backend)
    assert distance.item() == 3
    assert index.item() == 0
    assert nearest(torch.zeros(2, 0, 3), torch.zeros(2, 4, 3), backend=backend)[0].shape == (2, 0)
    assert nearest(torch.zeros(0, 5, 3), torch.zeros(0, 4, 3), backend=backend)[1].shape == (0, 5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_outlier_and_huge_coordinates(backend: str) -> None:
    target = cloud("volume", 1, 500, 4)
    target[0, 7] = 1e6  # all the others share one cell of the grid
    source = torch.cat([cloud("volume", 1, 20, 5), torch.full((1, 1, 3), 9e5)], 1)
    distance, index = nearest(source, target, backend=backend)
    expected, _ = cKDTree(target[0].numpy()).query(source[0].numpy())
    np.testing.assert_allclose(distance[0].sqrt(), expected, rtol=1e-5)
    assert index[0, -1] == 7
    beyond, at = nearest(torch.full((1, 2, 3), 1e25), target, backend=backend)
    assert beyond.isinf().all()
    assert (at == 0).all()


def test_the_tree_takes_over_from_the_grid() -> None:
    """Clouds on which the grid gives up: small ones seen from afar, one crowded cell, one point many times."""
    away, blob = cloud("sphere", 1, 900, 20), 0.01 * cloud("volume", 1, 900, 21)
    crowded = cloud("lattice", 1, 900, 22)
    crowded[0, 0] = 4000.0
    cases = {
        "collapsed": (away, blob),
        "crowded": (cloud("lattice", 1, 900, 23) + 0.5, crowded),
        "one place": (away, torch.ones(1, 900, 3)),
        "two places": (away, torch.ones(1, 900, 3) * (torch.arange(900) % 2)[:, None]),
    }
    for name, (source, target) in cases.items():
        fast, at = nearest(source, target, backend="cpu")
        slow, expected = nearest(source, target, backend="reference")
        assert torch.equal(at, expected), name  # ties included
        torch.testing.assert_close(fast, slow, rtol=1e-5, atol=0)


def test_radix_sort_of_codes() -> None:
    from reconlab.kernels.nearest.cpu_tree import _sorted_order

    code = np.random.default_rng(0).integers(0, 2**63 - 1, 500)
    code[100:200] = code[:100]
    np.testing.assert_array_equal(_sorted_order(code), np.argsort(code, kind="stable"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_points_that_are_not_finite(backend: str) -> None:
    source, target = cloud("volume", 2, 30, 6), cloud("volume", 2, 40, 7)
    source[0, 3, 1], source[0, 4] = torch.nan, torch.inf
    target[0, ::2] = torch.nan
    target[1] = torch.inf
    distance, index = nearest(source.requires_grad_(), target.requires_grad_(), backend=backend)
    bad = torch.zeros(2, 30, dtype=torch.bool)
    bad[0, 3:5], bad[1] = True, True
    assert distance[bad].isinf().all()
    assert (index[bad] == 0).all()
    assert distance[~bad].isfinite().all()
    assert (index[~bad] % 2 == 1).all()
    distance[~bad].sum().backward()
    assert source.grad is not None
    assert target.grad is not None
    assert source.grad.isfinite().all()
    assert target.grad.isfinite().all()
    assert (source.grad[bad] == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_in_both_clouds(backend: str) -> None:
    source, target = cloud("sphere", 2, 60, 8).requires_grad_(), cloud("sphere", 2, 25, 9).requires_grad_()
    weight = torch.rand(2, 60)
    distance, _ = nearest(source, target, backend=backend)
    grads = torch.autograd.grad((distance * weight).sum(), (source, target))
    brute = (source[:, :, None] - target[:, None]).square().sum(-1).amin(2)
    expected = torch.autograd.grad((brute * weight).sum(), (source, target))
    for grad, other in zip(grads, expected, strict=True):
        torch.testing.assert_close(grad, other, rtol=1e-5, atol=1e-6)


def test_finite_differences_in_float64() -> None:
    source = cloud("volume", 1, 9, 10).double().requires_grad_()
    target = cloud("volume", 1, 7, 11).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda s, t: nearest(s, t)[0], (source, target))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 70), st.integers(1, 70), st.sampled_from(KINDS), st.sampled_from(KINDS))
def test_backends_agree(seed: int, n: int, m: int, source_kind: str, target_kind: str) -> None:
    source, target = cloud(source_kind, 1, n, seed), cloud(target_kind, 1, m, seed + 1)
    fast, at = nearest(source, target, backend="cpu")
    slow, _ = nearest(source, target, backend="reference")
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-9)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    again, index = nearest(source[:, order], target, backend="cpu")
    assert torch.equal(again, fast[:, order])
    assert torch.equal(index, at[:, order])


def test_reference_runs_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = cloud("volume", 2, 33, 12), cloud("volume", 2, 20, 13)
    whole = nearest(source, target, backend="reference")
    monkeypatch.setitem(reference_module.BLOCKS, "cpu", 100)
    blocks = nearest(source, target, backend="reference")
    assert torch.equal(whole[0], blocks[0])
    assert torch.equal(whole[1], blocks[1])


def test_threads_give_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = cloud("sphere", 5, 300, 14), cloud("sphere", 5, 300, 15)
    one = nearest(source, target)
    monkeypatch.setenv("RECONLAB_THREADS", "3")
    three = nearest(source, target)
    assert torch.equal(one[0], three[0])
    assert torch.equal(one[1], three[1])


def test_half_precision_is_computed_in_float32() -> None:
    distance, _ = nearest(cloud("volume", 1, 5, 16).half(), cloud("volume", 1, 6, 17))
    assert distance.dtype == torch.float32


def test_unfitting_input_is_named() -> None:
    good = torch.zeros(2, 4, 3)
    with pytest.raises(ReconlabError, match=r"\(2, 4, 2\)"):
        nearest(good, torch.zeros(2, 4, 2))
    with pytest.raises(ReconlabError, match="2 and 3"):
        nearest(good, torch.zeros(3, 4, 3))
    with pytest.raises(ReconlabError, match="without points"):
        nearest(good, torch.zeros(2, 0, 3))
    with pytest.raises(ReconlabError, match="float32"):
        nearest(good.double(), good.double(), backend="cpu")
    with pytest.raises(ReconlabError, match="grid"):
        nearest(good, good, backend="grid")  # type: ignore[arg-type]
