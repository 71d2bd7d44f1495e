"""F-score: hand-counted, against SciPy, and the two thresholds in use."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.metrics import FScore, FScoreCurve, f_score, f_score_curve
from reconlab.shapes import PointCloud


def by_scipy(pred: np.ndarray, target: np.ndarray, threshold: float) -> tuple[float, float, float]:
    precision = float((cKDTree(target).query(pred)[0] < threshold).mean())
    recall = float((cKDTree(pred).query(target)[0] < threshold).mean())
    return (2 * precision * recall / (precision + recall) if precision + recall else 0.0), precision, recall


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 90),
    m=st.integers(1, 90),
    threshold=st.floats(0.01, 2),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_equals_scipy_for_any_sizes(seed, n, m, threshold, dtype):
    rng = np.random.default_rng(seed)
    pred = torch.tensor(rng.uniform(-1, 1, (2, n, 3)), dtype=dtype)
    target = torch.tensor(rng.uniform(-1, 1, (2, m, 3)), dtype=dtype)
    values = torch.stack(f_score(pred, target, threshold), 1).tolist()
    for i in range(2):
        assert values[i] == pytest.approx(by_scipy(pred[i].double().numpy(), target[i].double().numpy(), threshold))


def test_each_share_is_over_its_own_cloud():
    """500 points against 4000: precision 300/500, recall 1500/4000, F 0.4615; pooled counts give other numbers."""
    where = torch.zeros(1, 500, 3)
    where[0, 300:, 0] = 10.0  # 200 predicted points far from everything
    truth = torch.zeros(1, 4000, 3)
    truth[0, 1500:, 1] = -10.0  # 2500 true points that nothing explains
    f, precision, recall = f_score(where, truth, 0.01)
    assert (precision.item(), recall.item()) == pytest.approx((0.6, 0.375))
    assert f.item() == pytest.approx(2 * 0.6 * 0.375 / 0.975)
    assert round(f.item(), 3) == 0.462
    pooled = (300 + 1500) / 4500
    assert abs(f.item() - pooled) > 0.05


def test_threshold_is_euclidean_and_strict():
    pred, target = torch.zeros(1, 1, 3), torch.tensor([[[0.0, 0.0, 0.25]]])
    assert f_score(pred, target, 0.25).f.item() == 0
    assert f_score(pred, target, 0.2500001).f.item() == 1
    assert f_score(pred, target, 0.0625).f.item() == 0  # the squared distance: not what is compared


def test_zero_when_nothing_is_close():
    f, precision, recall = f_score(torch.zeros(2, 3, 3), torch.ones(2, 5, 3), 0.1)
    assert torch.stack([f, precision, recall]).tolist() == [[0.0, 0.0]] * 3


def test_invariances():
    generator = torch.Generator().manual_seed(0)
    pred = torch.rand(1, 60, 3, generator=generator, dtype=torch.float64)
    target = torch.rand(1, 90, 3, generator=generator, dtype=torch.float64)
    f, precision, recall = f_score(pred, target, 0.2)
    assert 0 < f.item() < 1
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    assert torch.allclose(f_score(pred @ rotation.T - 2, target @ rotation.T - 2, 0.2).f, f)
    assert torch.allclose(f_score(pred * 9, target * 9, 1.8).f, f)
    swapped = f_score(target.flip(1), pred, 0.2)
    assert torch.equal(swapped.precision, recall)
    assert torch.equal(swapped.recall, precision)
    assert torch.allclose(swapped.f, f)


def test_half_precision_and_broken_samples():
    pred, target = torch.rand(2, 30, 3).half(), torch.rand(2, 20, 3).half()
    assert f_score(pred, target, 0.1).f.dtype == torch.float32
    assert torch.equal(f_score(pred, target, 0.1).f, f_score(pred.float(), target.float(), 0.1).f)
    pred[1, 0, 0] = torch.nan
    assert torch.stack(f_score(pred, target, 0.1)).isnan().tolist() == [[False, True]] * 3


def test_bad_input_is_named():
    with pytest.raises(ReconlabError, match="positive Euclidean"):
        f_score(torch.rand(1, 2, 3), torch.rand(1, 2, 3), 0.0)
    with pytest.raises(ReconlabError, match="expected"):
        f_score(torch.rand(2, 3), torch.rand(2, 3), 0.1)
    with pytest.raises(ReconlabError, match="choose one of what3d, atlasnet"):
        FScore("tanks")  # type: ignore[arg-type]
    with pytest.raises(ReconlabError, match="positive"):
        FScore(threshold=-1.0)
    with pytest.raises(ReconlabError, match="Unknown scale"):
        FScore(scale="metre")  # type: ignore[arg-type]


def test_class_averages_the_samples_own_f():
    """One sample at F = 1 and one at F = 0 average to 0.5, whatever their sizes and counts."""
    target = torch.rand(2, 50, 3)
    pred = target.clone()
    pred[1] += 5
    metric = FScore("what3d", points=None)
    metric.update(PointCloud(pred), Batch(ids=["a", "b"], categories=["x", "x"], points=target))
    result = metric.compute()
    assert {k: v.item() for k, v in result.items()} == {
        "fscore_what3d": 0.5,
        "precision_what3d": 0.5,
        "recall_what3d": 0.5,
        "fscore_what3d/n": 2,
        "fscore_what3d/n_failed": 0,
    }


def test_atlasnet_threshold_is_in_the_unit_ball():
    """d² < 0.001 where the true shape's radius is 1: in a shape of radius r the reach is 0.0316 r."""
    radius = 0.4
    ring = torch.linspace(0, 2 * math.pi, 401)[:-1]
    target = radius * torch.stack([ring.cos(), ring.sin(), torch.zeros(400)], -1)[None]
    batch = Batch(ids=["a"], categories=["x"], points=target)
    for lift, expected in ((0.0315 * radius, 1.0), (0.0318 * radius, 0.0)):
        pred = target + torch.tensor([0.0, 0, lift])
        value = FScore("atlasnet").per_sample(PointCloud(pred), batch)["fscore_atlasnet"].item()
        assert value == expected
    plain = FScore("atlasnet", scale="object").per_sample(PointCloud(target + 0.018), batch)
    assert plain["fscore_atlasnet"].item() == 1.0
    assert FScore("atlasnet").protocol.threshold == pytest.approx(0.0316, abs=1e-4)
    assert FScore("what3d").protocol.threshold == 0.01


def test_own_threshold_is_in_the_key():
    metric = FScore("what3d", threshold=0.02)
    assert list(metric.protocols) == ["fscore_what3d@0.02", "precision_what3d@0.02", "recall_what3d@0.02"]
    assert metric.protocols["precision_what3d@0.02"].threshold == 0.02


def test_curve_is_the_f_score_at_each_threshold():
    generator = torch.Generator().manual_seed(0)
    pred, target = torch.rand(2, 40, 3, generator=generator), torch.rand(2, 70, 3, generator=generator)
    thresholds = [0.2, 0.05, 0.4]
    curve = f_score_curve(pred, target, thresholds)
    for k, threshold in enumerate(thresholds):
        for found, expected in zip(curve, f_score(pred, target, threshold), strict=True):
            assert torch.equal(found[:, k], expected)
    pred[1, 3] = torch.nan
    assert torch.stack(f_score_curve(pred, target, thresholds)).isnan().any(2).tolist() == [[False, True]] * 3
    metric = FScoreCurve(points=None)
    assert list(metric.protocols) == [f"fscore@{t}" for t in (0.01, 0.005, 0.02, 0.05, 0.1, 0.2)]
    metric.update(PointCloud(pred), Batch(ids=["a", "b"], categories=["x", "x"], points=target))
    expected = f_score(pred[:1], target[:1], 0.2).f.item() / 2  # the second has failed: 0
    assert metric.compute()["fscore@0.2"].item() == pytest.approx(expected)
    for wrong in ([], [0.1, 0.0]):
        with pytest.raises(ReconlabError, match="positive Euclidean"):
            f_score_curve(pred, target, wrong)
        with pytest.raises(ReconlabError, match="positive Euclidean"):
            FScoreCurve(wrong)
    with pytest.raises(ReconlabError, match="different"):
        FScoreCurve([0.1, 0.1])
