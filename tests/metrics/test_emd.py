"""EMD: by hand, by trying all bijections, against POT, and the auction's error."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.metrics import EMD, earth_movers_distance
from reconlab.shapes import Mesh, PointCloud


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 6), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_equals_the_best_of_all_bijections(seed, n, dtype):
    rng = np.random.default_rng(seed)
    pred, target = (torch.tensor(rng.normal(size=(2, n, 3)), dtype=dtype) for _ in range(2))
    value = earth_movers_distance(pred, target)
    assert value.dtype == dtype
    for i in range(2):
        cost = (pred[i, :, None] - target[i]).double().norm(dim=-1)
        best = min(float(cost[range(n), p].mean()) for p in map(list, permutations(range(n))))
        assert value[i].item() == pytest.approx(best, rel=1e-5)


def test_equal_and_unequal_sizes_against_pot():
    ot = pytest.importorskip("ot")
    rng = np.random.default_rng(0)
    for n, m in ((60, 60), (40, 70)):
        p, t = rng.normal(size=(n, 3)), rng.normal(size=(m, 3))
        expected = ot.emd2(np.full(n, 1 / n), np.full(m, 1 / m), ot.dist(p, t, metric="euclidean"))
        value = earth_movers_distance(torch.tensor(p)[None], torch.tensor(t)[None]).item()
        assert value == pytest.approx(expected, rel=1e-9)


def test_masses_are_shared_when_sizes_differ():
    """One point of mass 1 goes in quarters to four: the mean of the distances 1, 2, 3 and 6."""
    pytest.importorskip("ot")
    target = torch.tensor([[[1.0, 0, 0], [0, -2, 0], [0, 0, 3], [6, 0, 0]]])
    assert earth_movers_distance(torch.zeros(1, 1, 3), target).item() == pytest.approx(3)


def test_crowding_costs_what_chamfer_does_not_see():
    """Two points share one target and leave the other: 0 for the first, the whole way for the second."""
    pred, target = torch.zeros(1, 2, 3), torch.tensor([[[0.0, 0, 0], [0, 3, 4]]])
    assert earth_movers_distance(pred, target).item() == pytest.approx(2.5)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), tolerance=st.sampled_from([0.5, 1e-2, 1e-5]))
def test_the_auction_is_never_below_and_within_its_tolerance(seed, tolerance):
    rng = np.random.default_rng(seed)
    pred, target = (torch.tensor(rng.normal(size=(1, 50, 3)) * [1, 1, 0.1]) for _ in range(2))
    exact = earth_movers_distance(pred, target).item()
    found = earth_movers_distance(pred, target, "auction", tolerance).item()
    assert exact * (1 - 1e-6) <= found <= exact * (1 + tolerance) / (1 - tolerance if tolerance < 0.5 else 0.5)


def test_invariances():
    generator = torch.Generator().manual_seed(0)
    pred, target = torch.rand(2, 1, 40, 3, generator=generator, dtype=torch.float64)
    value = earth_movers_distance(pred, target)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    assert torch.allclose(earth_movers_distance(5 * pred @ turn + 1, 5 * target @ turn + 1), 5 * value)
    assert torch.allclose(earth_movers_distance(target, pred.flip(1)), value)
    shift = torch.tensor([0.3, 0, 0.4])
    assert earth_movers_distance(pred, pred.flip(1) + shift).item() == pytest.approx(0.5)


def test_broken_samples_and_bad_input():
    pred, target = torch.rand(2, 5, 3).half(), torch.rand(2, 5, 3)
    pred[1, 2, 0] = torch.inf
    for method in ("exact", "auction"):
        assert earth_movers_distance(pred, target, method).isnan().tolist() == [False, True]
    with pytest.raises(ReconlabError, match="auction matches clouds of one size, not 5 and 4"):
        earth_movers_distance(pred, target[:, :4], "auction")
    with pytest.raises(ReconlabError, match="exact and auction, not 'sinkhorn'"):
        earth_movers_distance(pred, target, "sinkhorn")  # type: ignore[arg-type]
    with pytest.raises(ReconlabError, match="without points"):
        earth_movers_distance(pred[:, :0], target)
    with pytest.raises(ReconlabError, match="positive share"):
        EMD(tolerance=0)
    with pytest.raises(ReconlabError, match="Unknown scale"):
        EMD(scale="inch")  # type: ignore[arg-type]


def test_class_is_the_mean_and_charges_failures():
    target = torch.rand(3, 30, 3)
    pred = target.flip(1) + torch.tensor([0.0, 0.1, 0])
    pred[1] = torch.nan
    metric = EMD(points=None)
    metric.update(PointCloud(pred), Batch(ids=list("abc"), categories=["x"] * 3, points=target))
    result = metric.compute()
    assert result["emd"].item() == pytest.approx((0.1 + 0.1 + 3**0.5) / 3, rel=1e-5)
    assert result["emd/n_failed"].item() == 1
    assert metric.protocol.worst_value == pytest.approx(3**0.5)


def test_class_on_a_mesh_in_the_unit_ball():
    """A square moved by 0.1 along its normal; its farthest corner is at radius 0.5 · √2, which becomes 1."""
    corners = torch.tensor([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]])
    square = Mesh(corners + torch.tensor([0, 0, 0.1]), torch.tensor([[0, 1, 2], [0, 2, 3]]))
    axis = torch.linspace(-0.5, 0.5, 16)
    grid = torch.stack([*torch.meshgrid(axis, axis, indexing="ij"), torch.zeros(16, 16)], -1).reshape(1, 256, 3)
    batch = Batch(ids=["a"], categories=["x"], points=grid)
    plain = EMD(points=256).per_sample(square, batch)["emd"].item()
    ball = EMD(points=256, scale="unit_ball", method="auction", tolerance=1e-6).per_sample(square, batch)
    assert ball["emd_auction"].item() == pytest.approx(plain * 2**0.5, rel=1e-5)
    assert 0.1 < plain < 0.2
