"""Cross-entropy of voxels: the two-class softmax itself, finite differences, extremes, bad inputs."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.batch import Batch
from reconlab.errors import ConversionError, ReconlabError
from reconlab.losses.voxel_cross_entropy import VoxelCrossEntropy, voxel_cross_entropy
from reconlab.shapes import PointCloud, VoxelGrid


def batch_of(voxels: torch.Tensor) -> Batch:
    return Batch(ids=["a"] * len(voxels), categories=["t"] * len(voxels), voxels=voxels)


@given(st.integers(0, 10**6), st.floats(0.1, 30))
@settings(max_examples=20, deadline=None)
def test_is_the_two_class_softmax(seed: int, scale: float):
    g = torch.Generator().manual_seed(seed)
    two = torch.randn(2, 2, 3, 3, 3, generator=g, dtype=torch.float64) * scale
    target = (torch.rand(2, 3, 3, 3, generator=g) < 0.4).double()
    # As published: minus the true class' number, plus the logarithm of the sum of exponentials, mean over cells.
    chosen = torch.where(target > 0, two[:, 1], two[:, 0])
    expected = (two.exp().sum(1).log() - chosen).flatten(1).mean(1)
    torch.testing.assert_close(voxel_cross_entropy(two[:, 1] - two[:, 0], target), expected)


def test_by_hand():
    logits = torch.tensor([0.0, math.log(3), -math.log(3), 0.0, 0.0, 0.0, 0.0, 0.0]).reshape(1, 2, 2, 2)
    target = torch.tensor([1.0, 1, 1, 0, 0, 0, 0, 0]).reshape(1, 2, 2, 2)
    expected = (6 * math.log(2) - math.log(0.75) - math.log(0.25)) / 8
    assert voxel_cross_entropy(logits, target).item() == pytest.approx(expected)


def test_gradient_by_finite_differences_and_at_extremes():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 3, 3, generator=g, dtype=torch.float64, requires_grad=True)
    target = (torch.rand(2, 3, 3, 3, generator=g) < 0.5).double()
    assert torch.autograd.gradcheck(lambda x: voxel_cross_entropy(x, target), logits)
    for value in (0.0, 1.0):  # an empty and a full volume, predicted with certainty the wrong way round
        sure = torch.full((1, 2, 2, 2), 200.0 * (1 - 2 * value), requires_grad=True)
        loss = voxel_cross_entropy(sure, torch.full((1, 2, 2, 2), value))
        loss.sum().backward()
        assert loss.item() == pytest.approx(200)
        assert sure.grad is not None
        torch.testing.assert_close(sure.grad, torch.full((1, 2, 2, 2), (1 - 2 * value) / 8))


def test_the_loss_reads_logits_of_any_grid():
    logits = torch.randn(2, 4, 4, 4)
    target = (torch.rand(2, 4, 4, 4) < 0.5).float()
    parts = VoxelCrossEntropy()(VoxelGrid.from_logits(logits), batch_of(target))
    torch.testing.assert_close(parts["loss"], voxel_cross_entropy(logits, target).mean())


def test_mistakes_are_named():
    target = torch.zeros(2, 4, 4, 4)
    loss = VoxelCrossEntropy()
    with pytest.raises(ReconlabError, match=r"voxels are \(2, 4, 4, 4\), the network's 8 cells wide"):
        loss(VoxelGrid.from_logits(torch.zeros(2, 8, 8, 8)), batch_of(target))
    with pytest.raises(ConversionError, match="VoxelGrid does not give"):
        loss(VoxelGrid(target), batch_of(target))
    with pytest.raises(ConversionError, match="PointCloud"):
        loss(PointCloud(torch.zeros(2, 5, 3)), batch_of(target))
    with pytest.raises(ReconlabError, match=r"logits are \(1, 4, 4, 4\), the true voxels \(2, 4, 4, 4\)"):
        loss(VoxelGrid.from_logits(torch.zeros(1, 4, 4, 4)), batch_of(target))
    with pytest.raises(ReconlabError, match="needs 'voxels'"):
        loss(VoxelGrid.from_logits(target), Batch(ids=["a"], categories=["b"]))
