"""Volumetric IoU: boxes by hand, both methods against each other, broken meshes, refusals."""

import numpy as np
import pytest
import torch
import trimesh

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.metrics import VolumeIoU, volume_iou
from reconlab.shapes import Mesh


def as_mesh(solid: trimesh.Trimesh) -> Mesh:
    return Mesh(torch.tensor(np.asarray(solid.vertices)), torch.tensor(np.asarray(solid.faces)))


def box(low: float, high: float) -> trimesh.Trimesh:
    """A box of unit cross-section from ``low`` to ``high`` along x."""
    return trimesh.creation.box(bounds=[[low, 0, 0], [high, 1, 1]])


CASES = [
    (box(0, 2), box(1, 3), 1 / 3),
    (box(0, 1), box(0, 4), 1 / 4),
    (box(0, 1), box(2, 3), 0),
    (box(0, 1), box(0, 1), 1),
]


@pytest.mark.parametrize(("a", "b", "expected"), CASES)
@pytest.mark.parametrize("method", ["points", "exact"])
def test_boxes_by_hand(a, b, expected, method):
    if method == "exact":
        pytest.importorskip("manifold3d")
    value = volume_iou(as_mesh(a), as_mesh(b), method, points=20_000)
    assert value == pytest.approx(expected, abs=1e-9 if method == "exact" else 0.012)
    assert volume_iou(as_mesh(b), as_mesh(a), method, points=20_000) == pytest.approx(value, abs=0.012)


def test_both_methods_agree_on_curved_solids():
    pytest.importorskip("manifold3d")
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.4)
    ring = trimesh.creation.torus(0.3, 0.12)
    ring.apply_translation([0.1, 0.05, 0])
    exact = volume_iou(as_mesh(ball), as_mesh(ring), "exact")
    sampled = volume_iou(as_mesh(ball), as_mesh(ring), "points", points=50_000)
    assert 0.1 < exact < 0.9
    assert sampled == pytest.approx(exact, abs=0.012)  # three standard errors of some 20 000 points in the union
    big = as_mesh(ball.copy().apply_scale(1e6)), as_mesh(ring.copy().apply_scale(1e6))
    assert volume_iou(*big, "exact") == pytest.approx(exact, abs=1e-5)


def test_spheres_by_formula():
    """The ball of radius 0.3 in that of 0.4: the ratio of the volumes, but for the facets, alike in both."""
    pytest.importorskip("manifold3d")
    small, large = (as_mesh(trimesh.creation.icosphere(subdivisions=3, radius=r)) for r in (0.3, 0.4))
    assert volume_iou(small, large, "exact") == pytest.approx(27 / 64, rel=1e-6)
    assert volume_iou(small, large) == pytest.approx(27 / 64, abs=0.01)


def test_parts_that_overlap_count_once_and_cavities_are_empty():
    pytest.importorskip("manifold3d")
    union = trimesh.util.concatenate([box(0, 2), box(1, 3)])
    for method in ("points", "exact"):
        assert volume_iou(as_mesh(union), as_mesh(box(0, 3)), method) == pytest.approx(1, abs=0.001)
    hole = trimesh.creation.box((1, 1, 1))
    hole.invert()
    shell = trimesh.util.concatenate([trimesh.creation.box((2, 2, 2)), hole])
    assert volume_iou(as_mesh(shell), as_mesh(trimesh.creation.box((2, 2, 2))), "exact") == pytest.approx(7 / 8)


def test_points_take_what_exact_refuses():
    """A box without its lid, faces turned at random and vertices not shared is still (nearly) that box."""
    pytest.importorskip("manifold3d")
    solid = trimesh.creation.box((1, 1, 1)).subdivide().subdivide()
    soup = solid.triangles.reshape(-1, 3)
    faces = np.arange(len(soup)).reshape(-1, 3)
    whole = Mesh(torch.tensor(soup), torch.tensor(faces))
    assert volume_iou(whole, as_mesh(solid), "exact") == pytest.approx(1)  # equal corners are one vertex
    turned = faces.copy()
    turned[::3] = turned[::3, ::-1]
    broken = Mesh(torch.tensor(soup), torch.tensor(turned[1:]))
    assert volume_iou(broken, as_mesh(solid), points=20_000) > 0.97
    for bad in (broken, Mesh(torch.tensor(soup), torch.tensor(faces[:, ::-1].copy()))):
        with pytest.raises(ReconlabError, match="exact method takes"):
            volume_iou(bad, as_mesh(solid), "exact")


def test_bad_input_is_named():
    good = as_mesh(box(0, 1))
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long))
    with pytest.raises(ReconlabError, match="no face of positive area"):
        volume_iou(empty, good)
    with pytest.raises(ReconlabError, match="points and exact, not 'rays'"):
        volume_iou(good, good, "rays")  # type: ignore[arg-type]
    with pytest.raises(ReconlabError, match="expected at least 1"):
        VolumeIoU(points=0)


def test_class_counts_and_caches():
    truth, sheet = as_mesh(box(0, 2)), Mesh(torch.rand(3, 3).double(), torch.tensor([[0, 1, 2]]))
    pred = Mesh.cat(
        [as_mesh(box(1, 3)), sheet, Mesh(torch.full((3, 3), torch.nan).double(), torch.tensor([[0, 1, 2]]))]
    )
    batch = Batch(list("abc"), ["x"] * 3, mesh=Mesh.cat([truth] * 3))
    metric = VolumeIoU(points=20_000)
    values = metric.per_sample(pred, batch)
    assert values["volume_iou"].tolist() == pytest.approx([1 / 3, 0, 0], abs=0.012)
    assert values["volume_iou/failed"].tolist() == [False, False, True]
    assert torch.equal(metric.per_sample(pred, batch)["volume_iou"], values["volume_iou"])
    neither = metric.per_sample(sheet, Batch(["a"], ["x"], mesh=sheet))  # nothing that could overlap
    assert neither["volume_iou/failed"].tolist() == [True]


def test_exact_class_fails_predictions_and_refuses_such_truth():
    pytest.importorskip("manifold3d")
    whole, sheet = as_mesh(box(0, 1)), Mesh(torch.rand(3, 3).double(), torch.tensor([[0, 1, 2]]))
    metric = VolumeIoU("exact")
    metric.update(Mesh.cat([whole, sheet]), Batch(list("ab"), ["x"] * 2, mesh=Mesh.cat([whole, whole])))
    result = metric.compute()
    assert result["volume_iou_exact"].item() == pytest.approx(0.5)
    assert result["volume_iou_exact/n_failed"].item() == 1
    with pytest.raises(ReconlabError, match="ground truth of x/a"):
        metric.update(whole, Batch(["a"], ["x"], mesh=sheet))
