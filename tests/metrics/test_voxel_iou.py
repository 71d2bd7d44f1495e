"""Voxel IoU: against sets counted in Python, the rule for empty grids, and every kind of shape."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.metrics import VoxelIoU, voxel_iou
from reconlab.shapes import ImplicitField, PointCloud, VoxelGrid


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(1, 6),
    fill=st.floats(0, 1),
    threshold=st.floats(0.05, 0.95),
    dtype=st.sampled_from([torch.float16, torch.float32, torch.float64]),
)
def test_equals_counted_sets(seed, size, fill, threshold, dtype):
    rng = np.random.default_rng(seed)
    pred = torch.tensor(rng.uniform(size=(2, size, size, size)), dtype=dtype)
    target = torch.tensor(rng.uniform(size=(2, size, size, size)) < fill)
    value = voxel_iou(pred, target.to(dtype), threshold)
    for i in range(2):
        ours = {tuple(c) for c in np.argwhere((pred[i] >= threshold).numpy())}
        theirs = {tuple(c) for c in np.argwhere(target[i].numpy())}
        expected = len(ours & theirs) / len(ours | theirs) if ours | theirs else 1.0
        assert value[i].item() == pytest.approx(expected)


def test_empty_grids():
    empty, full = torch.zeros(1, 4, 4, 4), torch.ones(1, 4, 4, 4)
    assert voxel_iou(empty, empty).item() == 1
    assert voxel_iou(empty, full).item() == 0
    assert voxel_iou(full, empty).item() == 0
    assert voxel_iou(full > 0, full > 0).item() == 1


def test_threshold_binarises_the_prediction_only():
    pred = torch.full((1, 2, 2, 2), 0.4)
    target = torch.ones(1, 2, 2, 2)
    assert voxel_iou(pred, target, 0.4).item() == 1  # at the threshold is in
    assert voxel_iou(pred, target, 0.41).item() == 0
    assert voxel_iou(target, target, 0.9).item() == 1


def test_turned_and_swapped_grids():
    pred, target = torch.rand(1, 5, 5, 5), (torch.rand(1, 5, 5, 5) > 0.6).float()
    value = voxel_iou(pred, target)
    assert torch.equal(voxel_iou(pred.permute(0, 3, 1, 2).flip(2), target.permute(0, 3, 1, 2).flip(2)), value)
    assert torch.equal(voxel_iou(target, (pred >= 0.5).float()), value)


def test_broken_and_misshapen_grids():
    pred, target = torch.rand(2, 3, 3, 3), torch.ones(2, 3, 3, 3)
    pred[1, 0, 0, 0] = torch.nan
    assert voxel_iou(pred, target).isnan().tolist() == [False, True]
    with pytest.raises(ReconlabError, match=r"\(B, D, D, D\) for both"):
        voxel_iou(pred, target[:, :2])


def test_class_judges_every_kind_of_shape():
    """A ball of radius 0.3 as a field, as a grid and as points of its volume."""
    axis = (torch.arange(32) + 0.5) / 32 - 0.5
    cells = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    truth = (cells.norm(dim=-1) < 0.3).float()[None]
    batch = Batch(ids=["a"], categories=["x"], voxels=truth)
    field = ImplicitField(lambda x: 40 * (0.3 - x.norm(dim=-1)), 1, torch.device("cpu"))
    inside = cells.reshape(-1, 3)[truth.reshape(-1) > 0]
    for shape in (field, VoxelGrid(truth), PointCloud(inside[None])):
        value = VoxelIoU().per_sample(shape, batch)["voxel_iou"].item()
        assert value == pytest.approx(1), type(shape).__name__
    # A mesh occupies the cells that its surface crosses too: half a cell all around, unless the truth does as well.
    mesh = field.mesh()
    by_centres = VoxelIoU().per_sample(mesh, batch)["voxel_iou"].item()
    assert 0.7 < by_centres < 0.9
    same_rule = Batch(ids=["a"], categories=["x"], voxels=mesh.voxels(32).values)
    assert VoxelIoU().per_sample(mesh, same_rule)["voxel_iou"].item() == 1


def test_failures_are_counted():
    truth = torch.ones(4, 4, 4, 4)
    pred = truth.clone()
    pred[1] = 0
    pred[2, 0, 0, 0] = torch.nan
    pred[3, :2] = 0
    metric = VoxelIoU(resolution=4)
    batch = Batch(ids=list("abcd"), categories=["x"] * 4, voxels=truth)
    values = metric.per_sample(VoxelGrid(pred), batch)
    assert values["voxel_iou"].tolist() == [1, 0, 0, 0.5]
    assert values["voxel_iou/failed"].tolist() == [False, True, True, False]
    metric.update(VoxelGrid(pred), batch)
    result = {key: value.item() for key, value in metric.compute().items()}
    assert result == {"voxel_iou": 0.375, "voxel_iou/n": 4, "voxel_iou/n_failed": 2}
