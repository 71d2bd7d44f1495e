"""Hausdorff distance: against SciPy, by hand, and which direction says what."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import directed_hausdorff

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.metrics import Hausdorff, hausdorff_distance
from reconlab.shapes import PointCloud


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 80),
    m=st.integers(1, 80),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_equals_scipy(seed, n, m, dtype):
    rng = np.random.default_rng(seed)
    pred, target = (torch.tensor(rng.normal(size=(2, k, 3)), dtype=dtype) for k in (n, m))
    both, forth, back = hausdorff_distance(pred, target)
    for i in range(2):
        p, t = pred[i].double().numpy(), target[i].double().numpy()
        expected = directed_hausdorff(p, t)[0], directed_hausdorff(t, p)[0]
        assert (forth[i].item(), back[i].item()) == pytest.approx(expected, rel=1e-5)
        assert both[i].item() == pytest.approx(max(expected), rel=1e-5)


def test_a_missing_and_a_superfluous_part():
    """A part that is missing shows from the truth alone, one that should not be there from the prediction."""
    body = torch.tensor([[0.0, 0, 0], [1, 0, 0]])
    leg = torch.tensor([[1.0, 0, 2]])
    whole = torch.cat([body, leg])[None]
    assert [x.item() for x in hausdorff_distance(body[None], whole)] == [2, 0, 2]
    assert [x.item() for x in hausdorff_distance(whole, body[None])] == [2, 2, 0]


def test_invariances_and_broken_samples():
    generator = torch.Generator().manual_seed(0)
    pred = torch.rand(2, 30, 3, generator=generator, dtype=torch.float64)
    target = torch.rand(2, 50, 3, generator=generator, dtype=torch.float64)
    value = hausdorff_distance(pred, target).distance
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    assert torch.allclose(hausdorff_distance(3 * pred @ turn - 1, 3 * target @ turn - 1).distance, 3 * value)
    assert torch.allclose(hausdorff_distance(target.flip(1), pred).distance, value)
    pred[0, 3, 1] = torch.nan
    assert torch.stack(hausdorff_distance(pred, target)).isnan().tolist() == [[True, False]] * 3
    with pytest.raises(ReconlabError, match="without points"):
        hausdorff_distance(pred[:, :0], target)


def test_class_averages_each_value_and_charges_failures():
    target = torch.tensor([[[0.0, 0, 0], [0.4, 0, 0]]]).repeat(3, 1, 1)
    pred = torch.stack([target[0], torch.tensor([[0.0, 0, 0], [0.4, 0.3, 0]]), target[0] * torch.nan])
    metric = Hausdorff()
    metric.update(PointCloud(pred), Batch(ids=list("abc"), categories=["x"] * 3, points=target))
    result = metric.compute()
    assert result["hausdorff"].item() == pytest.approx((0 + 0.3 + 3**0.5) / 3, rel=1e-6)
    assert set(metric.protocols) == {"hausdorff", "hausdorff_pred", "hausdorff_truth"}
    assert (result["hausdorff/n"].item(), result["hausdorff/n_failed"].item()) == (3, 1)
    ball = Hausdorff(scale="unit_ball").per_sample(
        PointCloud(pred[:2]), Batch(list("ab"), ["x"] * 2, points=target[:2])
    )
    assert ball["hausdorff"].tolist() == pytest.approx([0, 1.5])  # the truth's radius is 0.2
    with pytest.raises(ReconlabError, match="Unknown scale"):
        Hausdorff(scale="inch")  # type: ignore[arg-type]
