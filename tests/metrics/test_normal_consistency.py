"""Normal consistency: against SciPy, by hand, and what it ignores."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from reconlab.batch import Batch
from reconlab.errors import ConversionError, ReconlabError
from reconlab.metrics import NormalConsistency, normal_consistency
from reconlab.shapes import Mesh, PointCloud


def by_scipy(p, pn, t, tn, signed):
    pn, tn = (n / np.linalg.norm(n, axis=-1, keepdims=True) for n in (pn, tn))
    forth = (pn * tn[cKDTree(t).query(p)[1]]).sum(-1)
    back = (tn * pn[cKDTree(p).query(t)[1]]).sum(-1)
    if not signed:
        forth, back = np.abs(forth), np.abs(back)
    return 0.5 * (forth.mean() + back.mean())


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 70),
    m=st.integers(1, 70),
    signed=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_equals_scipy_for_any_sizes(seed, n, m, signed, dtype):
    rng = np.random.default_rng(seed)
    clouds = [torch.tensor(rng.normal(size=(2, k, 3)), dtype=dtype) for k in (n, n, m, m)]
    value = normal_consistency(*clouds, signed=signed)
    expected = [by_scipy(*(c[i].double().numpy() for c in clouds), signed) for i in range(2)]
    assert value.tolist() == pytest.approx(expected, abs=1e-5)


def test_both_directions_count_equally_whatever_the_sizes():
    """One predicted point agrees (1); of three true points one agrees and two are perpendicular: (1 + 1/3) / 2."""
    pred, up = torch.zeros(1, 1, 3), torch.tensor([[[0.0, 1, 0]]])
    target = torch.tensor([[[0.1, 0, 0], [0.2, 0, 0], [0.3, 0, 0]]])
    normals = torch.tensor([[[0.0, 1, 0], [1, 0, 0], [0, 0, 1]]])
    assert normal_consistency(pred, up, target, normals).item() == pytest.approx((1 + 1 / 3) / 2)


def test_invariances_and_signs():
    generator = torch.Generator().manual_seed(0)
    p, pn = torch.randn(2, 1, 40, 3, generator=generator, dtype=torch.float64)
    t, tn = torch.randn(2, 1, 60, 3, generator=generator, dtype=torch.float64)
    value = normal_consistency(p, pn, t, tn)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    moved = [p @ rotation.T * 5, pn @ rotation.T, t @ rotation.T * 5, tn @ rotation.T]
    assert torch.allclose(normal_consistency(*moved), value)
    assert torch.allclose(normal_consistency(p, -pn * 3, t, tn), value)  # turned and not of unit length
    assert torch.allclose(normal_consistency(t, tn, p, pn), value)
    signed = normal_consistency(p, pn, t, tn, signed=True)
    assert torch.allclose(normal_consistency(p, -pn, t, tn, signed=True), -signed)
    assert normal_consistency(p, pn, p, pn).item() == pytest.approx(1)


def test_zero_normals_and_broken_ones():
    p, up = torch.rand(2, 4, 3), torch.tensor([0.0, 0, 1]).expand(2, 4, 3).clone()
    assert normal_consistency(p, torch.zeros_like(up), p, up).tolist() == [0, 0]
    broken = up.clone()
    broken[1, 2, 0] = torch.nan
    value = normal_consistency(p, broken, p, up)
    assert value[0].item() == pytest.approx(1)
    assert value[1].isnan()
    assert normal_consistency(p.half(), up.half(), p.half(), up.half()).dtype == torch.float32


def test_bad_shapes_are_named():
    with pytest.raises(ReconlabError, match="expected those of the points"):
        normal_consistency(torch.rand(1, 4, 3), torch.rand(1, 5, 3), torch.rand(1, 4, 3), torch.rand(1, 4, 3))


def test_class_on_meshes_and_on_clouds_without_normals():
    vertices = torch.tensor([[-0.3, 0, -0.3], [0.3, 0, -0.3], [0.3, 0, 0.3], [-0.3, 0, 0.3]])
    square = Mesh(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]))
    points, normals = square.surface(500)
    batch = Batch(ids=["a"], categories=["x"], points=points, normals=normals)
    metric = NormalConsistency(points=200)
    metric.update(square, batch)
    assert metric.compute()["normal_consistency"].item() == pytest.approx(1, abs=1e-5)
    turned = Mesh(vertices, square.faces.flip(1))
    signed = NormalConsistency(points=200, signed=True)
    assert signed.per_sample(turned, batch)["normal_consistency_signed"].item() == pytest.approx(-1, abs=1e-5)
    assert signed.protocol.worst_value == -1
    with pytest.raises(ConversionError, match="PointCloud has no conversion to surface points with normals"):
        metric.update(PointCloud(points), batch)


def test_class_is_the_mean_of_the_function():
    p, t = torch.rand(2, 3, 30, 3)
    pn, tn = torch.nn.functional.normalize(torch.randn(2, 3, 30, 3), dim=-1)
    metric = NormalConsistency(points=None)
    metric.update(PointCloud(p, pn), Batch(ids=list("abc"), categories=["x"] * 3, points=t, normals=tn))
    expected = normal_consistency(p, pn, t, tn).mean().item()
    assert metric.compute()["normal_consistency"].item() == pytest.approx(expected, rel=1e-6)
