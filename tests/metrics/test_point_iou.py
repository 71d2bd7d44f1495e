"""IoU of point clouds by the written rule."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.kernels.voxelize import occupied_cells
from reconlab.metrics import PointIoU
from reconlab.metrics.point_iou import fill_between
from reconlab.shapes import Mesh, PointCloud


def test_cells_by_hand() -> None:
    nan = float("nan")
    points = torch.tensor([[[-0.5, -0.5, -0.5], [0.49, 0.0, -0.01], [0.5, 0, 0], [nan, 0, 0], [0, 0, 0.7]]])
    cells = occupied_cells(points, 2)
    assert cells.nonzero().tolist() == [[0, 0, 0, 0], [0, 1, 1, 0]]


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.6))
@settings(max_examples=20, deadline=None)
def test_filling_against_brute_force(seed: int, share: float) -> None:
    cells = np.random.default_rng(seed).random((2, 5, 5, 5)) < share
    expected = np.zeros_like(cells)
    for b, x, y, z in np.ndindex(cells.shape):
        lines = ((cells[b, :, y, z], x), (cells[b, x, :, z], y), (cells[b, x, y, :], z))
        expected[b, x, y, z] = all(line[: i + 1].any() and line[i:].any() for line, i in lines)
    assert np.array_equal(fill_between(torch.from_numpy(cells)).numpy(), expected)


def test_a_shell_with_gaps_is_filled() -> None:
    cells = torch.zeros(1, 6, 6, 6, dtype=torch.bool)
    cells[:, 1:5, 1:5, 1:5] = True
    solid = cells.clone()
    cells[:, 2:4, 2:4, 2:4] = False
    cells[:, 1, 2, 2] = False  # a hole in the wall: a flood fill would leak, and along x the wall is open here
    filled = fill_between(cells)
    assert filled.sum() == solid.sum() - 3  # the hole, and the two cells behind it whose line it opened


def sphere(n: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return 0.4 * torch.nn.functional.normalize(torch.randn(1, n, 3, generator=g), dim=-1)


def test_a_true_surface_scores_what_the_sanity_row_says() -> None:
    at = (torch.arange(32) + 0.5) / 32 - 0.5
    grid = (torch.stack(torch.meshgrid(at, at, at, indexing="ij")).norm(dim=0) < 0.4).float()[None]
    batch = Batch(ids=["a"], categories=["ball"], points=sphere(20000, 0), voxels=grid)
    metric = PointIoU()
    metric.update(PointCloud(sphere(8000, 1)), batch)
    result = metric.compute()
    assert 0.75 < result["point_iou"] < 0.95  # cells that the surface only touches are counted as well
    assert abs(result["point_iou"] - result["point_iou_truth"]) < 0.01
    assert result["point_iou_unfilled"] < 0.4
    metric.reset()
    metric.update(PointCloud(torch.full((1, 9, 3), 0.7)), batch)  # outside of the cube: failed
    assert metric.compute()["point_iou/n_failed"] == 1
    assert metric.compute()["point_iou"] == 0


def test_a_mesh_is_sampled_and_mistakes_are_said() -> None:
    corner = torch.tensor([[-0.4, -0.4, -0.4], [0.4, -0.4, -0.4], [-0.4, 0.4, -0.4], [-0.4, -0.4, 0.4]])
    mesh = Mesh(corner[None], torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))
    batch = Batch(ids=["a"], categories=["x"], points=sphere(50, 0), voxels=torch.zeros(1, 32, 32, 32))
    metric = PointIoU(points=100)
    metric.update(mesh, batch)
    assert metric.compute()["point_iou"] == 0  # the truth is empty, the prediction is not
    with pytest.raises(ReconlabError, match="set resolution"):
        PointIoU(resolution=16).update(mesh, batch)
    with pytest.raises(ReconlabError, match="points is 0"):
        PointIoU(points=0)
