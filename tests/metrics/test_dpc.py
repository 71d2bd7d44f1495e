"""DPC's Chamfer distance: the mean over views, the best view, and the two directions."""

import pytest
import torch
from scipy.spatial import cKDTree

from reconlab.batch import Batch
from reconlab.metrics import DPCChamfer, chamfer_distance, precision_and_coverage
from reconlab.shapes import PointCloud


def test_directions_against_scipy() -> None:
    torch.manual_seed(0)
    pred, target = torch.rand(2, 70, 3), torch.rand(2, 110, 3)
    precision, coverage = precision_and_coverage(pred, target)
    for i in range(2):
        p, t = pred[i].numpy(), target[i].numpy()
        assert precision[i].item() == pytest.approx(cKDTree(t).query(p)[0].mean(), rel=1e-5)
        assert coverage[i].item() == pytest.approx(cKDTree(p).query(t)[0].mean(), rel=1e-5)
    assert torch.allclose(precision + coverage, chamfer_distance(pred, target, "dpc"))


def test_views_by_hand() -> None:
    # The truth is one point; every prediction is one point at distance d: the sum of both directions is 2 d.
    distance = torch.tensor([1.0, 2.0, 3.0, 0.5, 0.25, 4.0])
    ids, categories = ["a", "a", "b", "b", "a", "c"], ["chair", "chair", "chair", "chair", "car", "chair"]
    points = torch.zeros(6, 1, 3)
    points[:, 0, 2] = distance
    metric = DPCChamfer()
    metric.set_categories(["car", "chair"])
    batch = Batch(ids=ids, categories=categories, points=torch.zeros(6, 1, 3))
    for part in (slice(0, 1), slice(1, 4), slice(4, 6)):  # views of one shape in different batches
        one = Batch(ids=ids[part], categories=categories[part], points=batch.points[part])
        metric.update(PointCloud(points[part]), one)
    result = {k: v.item() for k, v in metric.compute().items()}
    assert result["dpc_cd"] == pytest.approx(2 * distance.mean().item())
    assert result["dpc_precision"] == pytest.approx(distance.mean().item())
    # chair/a: 1, chair/b: 0.5, car/a: 0.25 (another shape of that name), chair/c: 4
    assert result["dpc_cd_best_view"] == pytest.approx(2 * (1 + 0.5 + 0.25 + 4) / 4)
    assert result["dpc_cd_best_view/chair"] == pytest.approx(2 * (1 + 0.5 + 4) / 3)
    assert result["dpc_cd_best_view/car"] == pytest.approx(0.5)
    metric.reset()
    metric.update(PointCloud(points[:1]), Batch(ids=["a"], categories=["chair"], points=torch.zeros(1, 1, 3)))
    assert metric.compute()["dpc_cd_best_view"].item() == pytest.approx(2.0)


def test_a_failed_view_is_charged_and_does_not_hide_a_good_one() -> None:
    points = torch.tensor([[[0.0, 0, 1]], [[0, 0, float("nan")]]])
    metric = DPCChamfer()
    metric.update(PointCloud(points), Batch(ids=["a", "a"], categories=["x", "x"], points=torch.zeros(2, 1, 3)))
    result = metric.compute()
    assert result["dpc_cd/n_failed"] == 1
    assert result["dpc_cd_best_view"].item() == pytest.approx(2.0)
    assert result["dpc_cd"].item() == pytest.approx((2 + 2 * 3**0.5) / 2)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_without_samples() -> None:
    assert torch.isnan(DPCChamfer().compute()["dpc_cd_best_view"])
