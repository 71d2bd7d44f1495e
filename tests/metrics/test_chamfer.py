"""Chamfer distance: against SciPy, by hand, and the factors between the field's definitions."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.metrics import VARIANTS, ChamferDistance, chamfer_distance
from reconlab.shapes import Mesh, PointCloud


def by_scipy(pred: np.ndarray, target: np.ndarray, variant: str) -> float:
    """The definitions written out a second time, in float64 and with another neighbour search."""
    if variant.startswith("nox"):
        pred, target = pred - pred.mean(0), target - target.mean(0)
    if variant == "nox_dpc":
        pred = pred / np.linalg.norm(pred.max(0) - pred.min(0))
    forth, back = cKDTree(target).query(pred)[0], cKDTree(pred).query(target)[0]
    return {
        "dpc": forth.mean() + back.mean(),
        "occnet": 0.5 * (forth.mean() + back.mean()),
    }.get(variant, (forth**2).mean() + (back**2).mean())


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(2, 80),
    m=st.integers(1, 80),
    size=st.floats(0.01, 10),
    variant=st.sampled_from(sorted(VARIANTS)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_equals_scipy_for_any_sizes(seed, n, m, size, variant, dtype):
    rng = np.random.default_rng(seed)
    pred, target = rng.normal(size=(2, n, 3)) * size, rng.uniform(-1, 1, (2, m, 3)) * size
    pred, target = torch.tensor(pred, dtype=dtype), torch.tensor(target, dtype=dtype)
    value = chamfer_distance(pred, target, variant)
    assert value.dtype == dtype
    expected = [by_scipy(p, t, variant) for p, t in zip(pred.double().numpy(), target.double().numpy(), strict=True)]
    assert value.tolist() == pytest.approx(expected, rel=1e-4 if dtype == torch.float32 else 1e-9, abs=1e-6)


def test_unequal_sizes_counted_by_hand():
    """Three points against one: a = (1 + 2 + 5) / 3, b = 1; pooling the four distances would give 9 / 4."""
    pred = torch.tensor([[[1.0, 0, 0], [0, 2, 0], [0, 3, 4]]])
    target = torch.zeros(1, 1, 3)
    assert chamfer_distance(pred, target, "dpc").item() == pytest.approx(8 / 3 + 1)
    assert chamfer_distance(pred, target, "occnet").item() == pytest.approx((8 / 3 + 1) / 2)
    assert chamfer_distance(pred, target, "atlasnet").item() == pytest.approx(30 / 3 + 1)


def test_five_definitions_of_one_pair():
    """Two planes at distance h: every definition differs by the factor that it says."""
    h = 0.02
    grid = torch.cartesian_prod(torch.linspace(-0.3, 0.3, 7), torch.linspace(-0.3, 0.3, 7), torch.tensor([0.0]))
    pred, target = grid[None], grid[None] + torch.tensor([0.0, 0, h])
    values = {name: chamfer_distance(pred, target, name).item() for name in VARIANTS}
    assert values["dpc"] == pytest.approx(2 * h)
    assert values["occnet"] == pytest.approx(h)
    assert values["atlasnet"] == pytest.approx(2 * h**2)
    assert values["nox"] == pytest.approx(0, abs=1e-12)  # centring removes the shift
    stretched = grid * (1 / (0.6 * math.sqrt(2)))
    assert values["nox_dpc"] == pytest.approx(by_scipy(stretched.numpy(), grid.numpy(), "atlasnet"), rel=1e-4)
    printed = {name: ChamferDistance(name).protocol.printed(values[name]) for name in ("dpc", "occnet", "atlasnet")}
    assert printed == {"dpc": "4.00", "occnet": "0.20", "atlasnet": "0.80"}
    factors = {name: (v.factor, v.squared, v.combine) for name, v in VARIANTS.items()}
    assert factors == {
        "dpc": (100, False, "sum"),
        "atlasnet": (1000, True, "sum"),
        "occnet": (10, False, "mean"),
        "nox": (100, True, "sum"),
        "nox_dpc": (100, True, "sum"),
    }


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_invariances(variant):
    generator = torch.Generator().manual_seed(0)
    pred = torch.randn(1, 50, 3, generator=generator, dtype=torch.float64)
    target = torch.randn(1, 70, 3, generator=generator, dtype=torch.float64)
    value = chamfer_distance(pred, target, variant)
    mixed = chamfer_distance(pred[:, torch.randperm(50)], target[:, torch.randperm(70)], variant)
    assert torch.allclose(mixed, value)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    moved = chamfer_distance(pred @ rotation.T + 3, target @ rotation.T + 3, variant)
    if variant == "nox_dpc":  # its scale is an axis-aligned box: only a shift leaves it alone
        moved = chamfer_distance(pred + 3, target + 3, variant)
    assert torch.allclose(moved, value)
    if variant != "nox_dpc":
        power = 2 if VARIANTS[variant].squared else 1
        assert torch.allclose(chamfer_distance(pred * 7, target * 7, variant), value * 7**power)
        assert torch.allclose(chamfer_distance(target, pred, variant), value)
        assert torch.allclose(chamfer_distance(pred, pred, variant), torch.zeros(1, dtype=torch.float64))


def test_half_precision_is_computed_in_single():
    pred, target = torch.rand(2, 30, 3).half(), torch.rand(2, 20, 3).half()
    value = chamfer_distance(pred, target)
    assert value.dtype == torch.float32
    assert torch.allclose(value, chamfer_distance(pred.float(), target.float()))
    assert chamfer_distance(pred.bfloat16(), target).dtype == torch.float32
    assert chamfer_distance(pred, target.double()).dtype == torch.float64


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_gradients_agree_with_finite_differences(variant):
    generator = torch.Generator().manual_seed(1)
    pred = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p, t: chamfer_distance(p, t, variant), (pred, target))


def test_gradient_is_finite_where_points_coincide():
    cloud = torch.rand(1, 10, 3, requires_grad=True)
    chamfer_distance(cloud, cloud.detach()).sum().backward()
    assert cloud.grad is not None
    assert torch.equal(cloud.grad, torch.zeros_like(cloud))


def test_a_broken_sample_is_nan_and_leaves_the_others_alone():
    pred, target = torch.rand(3, 10, 3), torch.rand(3, 12, 3)
    whole = chamfer_distance(pred, target)
    pred[1, 4, 2] = torch.inf
    target[2, 0, 0] = torch.nan
    value = chamfer_distance(pred, target)
    assert value.isnan().tolist() == [False, True, True]
    assert value[0] == whole[0]


@pytest.mark.parametrize(
    ("pred", "target", "variant", "message"),
    [
        (torch.rand(1, 4, 3), torch.rand(1, 4, 3), "l2", "Unknown Chamfer variant 'l2'; choose one of dpc, atlasnet"),
        (torch.rand(4, 3), torch.rand(4, 3), "dpc", r"expected \(B, N, 3\)"),
        (torch.rand(2, 4, 3), torch.rand(1, 4, 3), "dpc", "2 clouds and target 1"),
        (torch.rand(1, 0, 3), torch.rand(1, 4, 3), "dpc", "without points"),
        (torch.zeros(1, 4, 3, dtype=torch.int64), torch.rand(1, 4, 3), "dpc", "floating point"),
    ],
)
def test_bad_input_is_named(pred, target, variant, message):
    with pytest.raises(ReconlabError, match=message):
        chamfer_distance(pred, target, variant)


def test_class_is_the_mean_of_the_function():
    pred, target = torch.rand(5, 40, 3) - 0.5, torch.rand(5, 60, 3) - 0.5
    for variant in ("dpc", "nox"):
        metric = ChamferDistance(variant, points=None)
        metric.update(PointCloud(pred), Batch(ids=list("abcde"), categories=["chair"] * 5, points=target))
        expected = chamfer_distance(pred, target, variant).double().mean()
        assert metric.compute()[f"chamfer_{variant}"].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("variant", ["atlasnet", "occnet"])
def test_class_scales_to_the_variants_unit(variant):
    """AtlasNet and OccNet state their numbers in other units than the dataset's; the class converts."""
    pred, target = torch.rand(3, 40, 3) - 0.5, torch.rand(3, 60, 3) * torch.tensor([0.2, 0.9, 0.5])
    batch = Batch(ids=list("abc"), categories=["chair"] * 3, points=target)
    extent = {
        "atlasnet": (target - target.mean(1, keepdim=True)).norm(dim=-1).amax(1),
        "occnet": (target.amax(1) - target.amin(1)).amax(1),
    }[variant].reshape(-1, 1, 1)
    metric = ChamferDistance(variant, points=None)
    value = metric.per_sample(PointCloud(pred), batch)[f"chamfer_{variant}"]
    assert value.tolist() == pytest.approx(
        chamfer_distance(pred / extent, target / extent, variant).tolist(), rel=1e-5
    )
    plain = ChamferDistance(variant, points=None, scale="object").per_sample(PointCloud(pred), batch)
    assert plain[f"chamfer_{variant}"].tolist() == pytest.approx(chamfer_distance(pred, target, variant).tolist())


def test_points_of_a_mesh_do_not_depend_on_the_batch():
    box = torch.tensor([[0.0, 0, 0], [0.4, 0, 0], [0, 0.5, 0], [0, 0, 0.3]])
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    meshes = [Mesh(box * s, faces) for s in (1.0, 1.5, 2.0)]
    target = torch.rand(3, 5000, 3)
    batch = Batch(ids=list("abc"), categories=["x"] * 3, points=target)
    metric = pickle.loads(pickle.dumps(ChamferDistance(points=300)))
    together = metric.per_sample(Mesh.cat(meshes), batch)["chamfer_dpc"]
    for i in (2, 0, 1):
        alone = Batch(ids=[batch.ids[i]], categories=["x"], points=target[i : i + 1])
        assert metric.per_sample(meshes[i], alone)["chamfer_dpc"].item() == together[i].item()
    other = ChamferDistance(points=300, seed=1).per_sample(Mesh.cat(meshes), batch)["chamfer_dpc"]
    assert not torch.equal(other, together)
    assert torch.allclose(other, together, rtol=0.2)


def test_a_small_cloud_is_taken_whole():
    """1000 points stay 1000 when 2500 are asked for: repetitions would weigh some of them twice."""
    pred, target = torch.rand(1, 100, 3), torch.rand(1, 80, 3)
    metric = ChamferDistance(points=2500)
    value = metric.per_sample(PointCloud(pred), Batch(ids=["a"], categories=["x"], points=target))["chamfer_dpc"]
    assert value.item() == pytest.approx(chamfer_distance(pred, target).item(), rel=1e-6)


def test_the_training_loss_means_the_same_distance():
    from reconlab.losses.chamfer import chamfer

    pred, target = torch.rand(2, 40, 3), torch.rand(2, 25, 3)
    for variant in ("dpc", "atlasnet", "occnet"):
        settings_ = VARIANTS[variant]
        loss = chamfer(pred, target, squared=settings_.squared, reduce_directions=settings_.combine)
        assert torch.allclose(loss, chamfer_distance(pred, target, variant), rtol=1e-5)
