"""Optimal bijections: both backends against SciPy's assignment, the proven bound, degenerate clouds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from reconlab.errors import ReconlabError
from reconlab.kernels.auction import match_clouds

BACKENDS = ["reference", "cpu"]
KINDS = ["volume", "sphere", "plane", "clusters", "lattice", "point"]


def cloud(kind: str, count: int, seed: int, batch: int = 1) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(batch, count, 3, generator=g) - 0.5
    if kind == "sphere":
        return 0.5 * torch.nn.functional.normalize(torch.randn(batch, count, 3, generator=g), dim=-1)
    if kind == "plane":
        return x * torch.tensor([1.0, 0.0, 1.0]) + 1
    if kind == "clusters":
        return 0.02 * x + torch.randint(0, 2, (batch, count, 3), generator=g) * 0.4
    if kind == "lattice":
        return torch.randint(0, 4, (batch, count, 3), generator=g).float()  # ties and duplicates
    return x if kind == "volume" else torch.zeros(batch, count, 3) + 0.1


def least(source: torch.Tensor, target: torch.Tensor) -> float:
    """The mean of SciPy's assignment of one sample."""
    apart = torch.cdist(source.double(), target.double(), compute_mode="donot_use_mm_for_euclid_dist").numpy()
    rows, columns = linear_sum_assignment(apart)
    return float(apart[rows, columns].mean())


def mean(source: torch.Tensor, target: torch.Tensor, index: torch.Tensor) -> float:
    return float((source.double() - target[index].double()).norm(dim=-1).mean())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tolerance", [1e-2, 1e-5])
@pytest.mark.parametrize("source_kind", KINDS)
@pytest.mark.parametrize("target_kind", ["volume", "sphere", "lattice", "clusters"])
def test_the_mean_is_the_least_one_within_what_is_proven(backend, tolerance, source_kind, target_kind):
    source, target = cloud(source_kind, 90, 0)[0], cloud(target_kind, 90, 1)[0]
    index, gap = match_clouds(source[None], target[None], tolerance, backend)
    assert sorted(index[0].tolist()) == list(range(90)), "a bijection"
    found, best = mean(source, target, index[0]), least(source, target)
    assert best * (1 - 1e-9) <= found <= best + gap.item() + 1e-9
    assert gap.item() <= tolerance * found * (1 + 1e-6)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
def test_a_thousand_points_of_two_surfaces(tolerance):
    source, target = cloud("sphere", 1000, 0)[0], cloud("volume", 1000, 1)[0]
    index, _ = match_clouds(source[None], target[None], tolerance)
    assert mean(source, target, index[0]) <= least(source, target) * (1 + tolerance / 4), "better than proven"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(0, 10**6), st.sampled_from(KINDS), st.sampled_from(KINDS))
def test_few_points_exactly(count, seed, source_kind, target_kind):
    source, target = cloud(source_kind, count, seed), cloud(target_kind, count, seed + 1)
    best = least(source[0], target[0])
    for backend in BACKENDS:
        index, _ = match_clouds(source, target, 1e-9, backend)
        assert mean(source[0], target[0], index[0]) == pytest.approx(best, rel=1e-6, abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-6, 1e6), st.floats(-5, 5))
def test_neither_order_nor_scale_nor_place_matters(seed, scale, shift):
    source, target = cloud("sphere", 40, seed), cloud("clusters", 40, seed + 1)
    index, _ = match_clouds(source, target, 1e-7)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
    moved = (scale * source.double()).float(), (scale * target.double()).float()
    other, _ = match_clouds(moved[0], moved[1], 1e-7)
    assert mean(source[0], target[0], other[0]) == pytest.approx(mean(source[0], target[0], index[0]), rel=1e-5)
    shuffled, _ = match_clouds(source[:, order] + shift, target + shift, 1e-7)
    assert mean(source[0, order], target[0], shuffled[0]) == pytest.approx(
        mean(source[0], target[0], index[0]), rel=1e-4
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_shuffled_copy_is_found_again(backend):
    source = cloud("volume", 200, 3)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    index, gap = match_clouds(source, source[:, order], 1e-2, backend)
    assert torch.equal(order[index[0]], torch.arange(200))
    assert gap.item() < 1e-6


def test_samples_are_independent_on_several_threads(monkeypatch):
    monkeypatch.setenv("RECONLAB_THREADS", "3")
    source, target = cloud("volume", 64, 0, batch=5), cloud("sphere", 64, 1, batch=5)
    index, gap = match_clouds(source, target, 1e-3)
    for b in range(5):
        alone, bound = match_clouds(source[b : b + 1], target[b : b + 1], 1e-3)
        assert torch.equal(index[b], alone[0])
        assert gap[b] == bound[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_point_that_is_not_finite_leaves_its_sample_out(backend):
    source, target = cloud("volume", 10, 0, batch=3), cloud("sphere", 10, 1, batch=3)
    source[0, 3, 1], target[2, 0, 0] = torch.nan, torch.inf
    index, gap = match_clouds(source, target, 1e-2, backend)
    assert gap.isfinite().tolist() == [False, True, False]
    assert torch.equal(index[0], torch.arange(10))


@pytest.mark.parametrize("backend", BACKENDS)
def test_tiny_and_huge_numbers_end(backend):
    for scale in (0.0, 1e-30, 1e-12, 1e12, 1e30):
        source, target = (scale * cloud(kind, 12, 0).double() for kind in ("volume", "sphere"))
        index, gap = match_clouds(source.float(), target.float(), 1e-3, backend)
        assert sorted(index[0].tolist()) == list(range(12))
        assert np.isfinite(gap.item())


@pytest.mark.parametrize(
    ("source", "target", "settings", "message"),
    [
        ((2, 5, 3), (2, 4, 3), {}, r"of one size with N >= 1, not \(2, 5, 3\) and \(2, 4, 3\)"),
        ((2, 0, 3), (2, 0, 3), {}, "N >= 1"),
        ((5, 3), (5, 3), {}, "two batches"),
        ((1, 5, 3), (1, 5, 3), {"tolerance": 0.0}, "the tolerance is 0.0"),
        ((1, 5, 3), (1, 5, 3), {"backend": "cuda"}, "backends auto, cpu and reference, not 'cuda'"),
    ],
)
def test_bad_input(source, target, settings, message):
    with pytest.raises(ReconlabError, match=message):
        match_clouds(torch.rand(source), torch.rand(target), **settings)
