"""MSE of voxels: by hand, on soft and hard grids, and what has failed."""

import pytest
import torch

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.metrics import VoxelMSE, voxel_mse
from reconlab.shapes import Mesh, VoxelGrid


def test_binary_grids_differ_by_the_share_of_unlike_cells():
    generator = torch.Generator().manual_seed(0)
    pred, target = torch.rand(2, 3, 5, 5, 5, generator=generator) > 0.5
    expected = [int((p != t).sum()) / 125 for p, t in zip(pred, target, strict=True)]
    assert voxel_mse(pred, target).tolist() == pytest.approx(expected)
    assert voxel_mse(pred.half(), target.double()).tolist() == pytest.approx(expected)


def test_soft_grids_are_not_rounded():
    pred, target = torch.full((1, 2, 2, 2), 0.25), torch.zeros(1, 2, 2, 2)
    target[0, 0, 0, 0] = 1
    assert voxel_mse(pred, target).item() == pytest.approx((7 * 0.25**2 + 0.75**2) / 8)


def test_broken_samples_and_bad_shapes():
    pred, target = torch.zeros(2, 2, 2, 2), torch.zeros(2, 2, 2, 2)
    pred[1, 0, 0, 0] = torch.nan
    assert voxel_mse(pred, target).isnan().tolist() == [False, True]
    for bad in (target[:, :1], torch.zeros(2, 3)):
        with pytest.raises(ReconlabError, match="for both"):
            voxel_mse(pred, bad)
    with pytest.raises(ReconlabError, match="at least 1"):
        VoxelMSE(resolution=0)
    with pytest.raises(ReconlabError, match=r"grids are \(2, 2, 2\)"):
        VoxelMSE(resolution=4).update(VoxelGrid(pred), Batch(list("ab"), ["x"] * 2, voxels=target))


def test_class_counts_an_empty_grid_as_failed():
    """Without that rule an empty prediction would beat most: few cells are occupied."""
    target = torch.zeros(3, 2, 2, 2)
    target[:, 0, 0, 0] = 1
    pred = target.clone()
    pred[1] = 0.4
    pred[2, 1] = 0.5
    metric = VoxelMSE(resolution=2)
    metric.update(VoxelGrid(pred), Batch(list("abc"), ["x"] * 3, voxels=target))
    result = metric.compute()
    assert result["voxel_mse"].item() == pytest.approx((0 + 1 + 4 * 0.25 / 8) / 3)
    assert result["voxel_mse/n_failed"].item() == 1


def test_class_on_meshes():
    """A closed box over an eighth of the cube fills one cell of eight; an empty mesh fails."""
    import trimesh

    box = trimesh.creation.box(bounds=[[-0.45, -0.45, -0.45], [-0.05, -0.05, -0.05]])
    item = torch.tensor(box.vertices).float(), torch.tensor(box.faces)
    meshes = Mesh.from_list([item, (torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long))])
    target = torch.zeros(2, 2, 2, 2)
    target[:, 0, 0] = 1  # two cells, of which the box has one
    batch = Batch(list("ab"), ["x"] * 2, voxels=target)
    values = VoxelMSE(resolution=2).per_sample(meshes, batch)
    assert values["voxel_mse"].tolist() == [0.125, 1.0]
