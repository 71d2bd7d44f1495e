"""The Chamfer loss: hand-computed variants, gradients, the class."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.losses.chamfer import Chamfer, chamfer, directed_distances
from reconlab.shapes import PointCloud

PRED = torch.tensor([[[0.0, 0, 0], [1, 0, 0]]])
TARGET = torch.tensor([[[0.0, 3, 0], [0, 0, 4], [1, 0, 0]]])


def batch_of(points: torch.Tensor | None) -> Batch:
    count = 1 if points is None else len(points)
    return Batch(ids=[str(i) for i in range(count)], categories=["chair"] * count, points=points)


@pytest.mark.parametrize(
    ("squared", "directions", "expected"),
    [
        # pred -> target: 1 (to the point at x = 1) and 0; target -> pred: 3, 4, 0
        (True, "sum", 1 / 2 + 25 / 3),
        (True, "mean", (1 / 2 + 25 / 3) / 2),
        (False, "sum", 1 / 2 + 7 / 3),
        (False, "mean", (1 / 2 + 7 / 3) / 2),
    ],
)
def test_hand_computed(squared: bool, directions: str, expected: float) -> None:
    value = chamfer(PRED, TARGET, squared, directions)  # type: ignore[arg-type]
    assert value.shape == (1,)
    assert value.item() == pytest.approx(expected)


@pytest.mark.parametrize("squared", [True, False])
def test_against_a_tree(squared: bool) -> None:
    pred, target = torch.rand(3, 70, 3), torch.rand(3, 90, 3)
    forward, backward = directed_distances(pred, target, squared)
    for b in range(3):
        p, t = pred[b].double().numpy(), target[b].double().numpy()
        power = 2 if squared else 1
        assert forward[b].item() == pytest.approx((cKDTree(t).query(p)[0] ** power).mean(), rel=1e-5)
        assert backward[b].item() == pytest.approx((cKDTree(p).query(t)[0] ** power).mean(), rel=1e-5)


@pytest.mark.parametrize("squared", [True, False])
def test_finite_differences(squared: bool) -> None:
    pred = torch.rand(2, 6, 3, dtype=torch.float64, requires_grad=True)
    target = torch.rand(2, 8, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p, t: chamfer(p, t, squared), (pred, target))


def test_matched_points_have_a_finite_gradient() -> None:
    pred = TARGET.clone().requires_grad_()
    value = chamfer(pred, TARGET, squared=False)
    value.sum().backward()
    assert value.item() == 0
    assert (pred.grad == 0).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 30), st.integers(1, 30), st.booleans())
def test_symmetric_and_blind_to_order(seed: int, n: int, m: int, squared: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    pred, target = torch.rand(2, n, 3, generator=g), torch.rand(2, m, 3, generator=g)
    value = chamfer(pred, target, squared)
    torch.testing.assert_close(value, chamfer(target, pred, squared))
    order = torch.randperm(n, generator=g)
    torch.testing.assert_close(value, chamfer(pred[:, order], target, squared))
    assert (chamfer(pred, pred, squared) == 0).all()


def test_a_point_that_is_not_finite_shows() -> None:
    pred = torch.rand(2, 10, 3)
    pred[1, 4] = torch.nan
    value = chamfer(pred, torch.rand(2, 12, 3))
    assert value[0].isfinite()
    assert value[1].isinf()


def test_class_reduces_and_names_its_parts() -> None:
    loss = Chamfer(points=None)
    pred = torch.cat([PRED, PRED + 1]).requires_grad_()
    parts = loss(PointCloud(pred), batch_of(torch.cat([TARGET, TARGET + 1])))
    assert parts["loss"].item() == pytest.approx(1 / 2 + 25 / 3)
    assert parts["pred_to_target"].item() == pytest.approx(1 / 2)
    assert parts["target_to_pred"].item() == pytest.approx(25 / 3)
    parts["loss"].backward()
    assert pred.grad is not None
    assert pred.grad.abs().sum() > 0
    assert Chamfer(None, False, "mean")(PointCloud(PRED), batch_of(TARGET))["loss"].item() == pytest.approx(17 / 12)


def test_class_samples_both_sides() -> None:
    torch.manual_seed(0)
    pred, target = torch.rand(2, 400, 3), torch.rand(2, 5000, 3)
    loss = Chamfer(points=100)
    first, second = (loss(PointCloud(pred), batch_of(target))["loss"].item() for _ in range(2))
    assert first != second
    torch.manual_seed(0)
    torch.rand(2, 400, 3), torch.rand(2, 5000, 3)
    assert loss(PointCloud(pred), batch_of(target))["loss"].item() == first  # follows the global seed
    # 100 of 400 random points lie farther from the surface samples than all of them do
    assert first > chamfer(pred, target).mean().item()
    # A cloud that is smaller than the number asked for is used whole, not with repetitions.
    small = Chamfer(points=1000, squared=False)(PointCloud(pred), batch_of(target[:, :900]))["loss"].item()
    assert small == pytest.approx(chamfer(pred, target[:, :900], squared=False).mean().item(), rel=1e-5)


def test_bad_settings_and_batches_are_named() -> None:
    with pytest.raises(ReconlabError, match="'avg'"):
        Chamfer(directions="avg")  # type: ignore[arg-type]
    with pytest.raises(ReconlabError, match="'max'"):
        chamfer(PRED, TARGET, reduce_directions="max")  # type: ignore[arg-type]
    with pytest.raises(ReconlabError, match="points is 0"):
        Chamfer(points=0)
    with pytest.raises(ReconlabError, match="Chamfer needs 'points'"):
        Chamfer()(PointCloud(PRED), batch_of(None))
    with pytest.raises(ReconlabError, match="without points"):
        chamfer(torch.zeros(1, 0, 3), TARGET)
    assert Chamfer.needs == {"surface"}
    assert math.isfinite(Chamfer(2)(PointCloud(PRED), batch_of(TARGET))["loss"].item())
