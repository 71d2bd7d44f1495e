"""PTN's loss: hand-computed, finite differences, where pixels lie, mistakes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.batch import Batch, Views
from reconlab.cameras import Cameras, dpc_cameras
from reconlab.errors import ReconlabError
from reconlab.losses.ptn import PTN, ptn
from reconlab.renderers.max_projection import max_projection
from reconlab.shapes import PointCloud, VoxelGrid


def test_by_hand() -> None:
    """A uniform grid of .3 seen from within its silhouette: every pixel is .3, so (.3² + 3 × .7²) / 2 = .78."""
    cameras = dpc_cameras([[0.0]], [[0.0]])
    close = Cameras(cameras.R, cameras.t, 20 * torch.ones(1, 1, 2), cameras.centre)  # a narrow view
    masks = torch.tensor([[[[0.0, 1.0], [1.0, 1.0]]]])
    grid = torch.full((1, 4, 4, 4), 0.3).requires_grad_()
    loss = ptn(grid, masks, close, resolution=2)
    assert loss.shape == (1, 1)
    assert loss.item() == pytest.approx(0.78)
    loss.sum().backward()
    assert grid.grad is not None
    assert grid.grad.sum().item() == pytest.approx(0.3 - 3 * 0.7, rel=1e-5)  # weights of each maximum sum to 1


@pytest.mark.parametrize("reduction", ["area", "subsample"])
def test_projections_lie_where_reduced_pixels_do(reduction: str) -> None:
    """Silhouettes made by the projection itself at 32 pixels: subsampled to 8 they are reproduced exactly."""
    g = torch.Generator().manual_seed(0)
    cameras = dpc_cameras([[20.0, 130.0]], [[15.0, -5.0]])
    grid = torch.rand(1, 6, 6, 6, generator=g)
    image = max_projection(grid, cameras, 32)
    loss = ptn(grid, image, cameras, 8, reduction)  # type: ignore[arg-type]
    if reduction == "subsample":
        torch.testing.assert_close(loss, torch.zeros(1, 2), rtol=0, atol=1e-8)
    else:  # the mean of 16 pixels is not their centre's value, but close to it
        assert 0 < loss.max() < 0.02 * ptn(torch.zeros_like(grid), image, cameras, 8).min()


def test_finite_differences() -> None:
    g = torch.Generator().manual_seed(0)
    grid = torch.rand(1, 3, 3, 3, generator=g, dtype=torch.float64).requires_grad_()
    masks = torch.rand(1, 2, 8, 8, generator=g)
    cameras = dpc_cameras([[20.0, 130.0]], [[15.0, -5.0]])
    assert torch.autograd.gradcheck(lambda x: ptn(x, masks, cameras, 4), (grid,))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_views_and_samples_are_exchangeable(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    grid, masks = torch.rand(3, 5, 5, 5, generator=g), torch.rand(3, 4, 16, 16, generator=g)
    cameras = dpc_cameras(360 * torch.rand(3, 4, generator=g), 60 * torch.rand(3, 4, generator=g) - 20)
    loss = ptn(grid, masks, cameras, 8)
    views, samples = torch.randperm(4, generator=g), torch.randperm(3, generator=g)
    torch.testing.assert_close(ptn(grid, masks[:, views], cameras[:, views], 8), loss[:, views])
    torch.testing.assert_close(ptn(grid[samples], masks[samples], cameras[samples], 8), loss[samples])
    torch.testing.assert_close(ptn(grid[1:2], masks[1:2], cameras[1:2], 8), loss[1:2])


def two_views(side: int = 32) -> Batch:
    """A square in both images."""
    masks = torch.zeros(1, 2, side, side)
    masks[..., side // 3 : side // 2, side // 3 : side // 2] = 1
    return Batch(["a"], ["b"], views=Views(dpc_cameras([[0.0, 90.0]], [[0.0, 0.0]]), masks))


def test_class_means_and_parts() -> None:
    batch, shape = two_views(), VoxelGrid(torch.rand(1, 16, 16, 16))
    assert batch.views is not None
    parts = PTN(resolution=16)(shape, batch)
    expected = ptn(shape.values, batch.views.silhouettes, batch.views.cameras, 16).mean()
    assert parts["loss"] == expected
    assert parts["per_pixel"].item() == pytest.approx(2 * expected.item() / 256)
    deeper = PTN(resolution=16, depths=40, extent=1.7)(shape, batch)["loss"]
    assert deeper != expected
    # A finer grid is averaged to the resolution that the loss works at.
    fine = shape.values.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(PTN(resolution=16)(VoxelGrid(fine), batch)["loss"], expected)


def test_odd_inputs() -> None:
    batch = two_views()
    assert batch.views is not None
    masks, cameras = batch.views.silhouettes, batch.views.cameras
    assert PTN()(VoxelGrid(torch.full((1, 32, 32, 32), torch.nan)), batch)["loss"].isnan()
    with pytest.raises(ReconlabError, match="square silhouettes"):
        ptn(torch.zeros(1, 8, 8, 8), masks[..., :24], cameras, 8)
    with pytest.raises(ReconlabError, match="at least one cell"):
        ptn(torch.zeros(1, 0, 0, 0), masks, cameras, 8)
    with pytest.raises(ReconlabError, match="for 2 grids"):
        ptn(torch.zeros(2, 8, 8, 8), masks, cameras, 8)
    with pytest.raises(ReconlabError, match="divides"):
        PTN(resolution=20)(VoxelGrid(torch.zeros(1, 20, 20, 20)), batch)
    with pytest.raises(ReconlabError, match="3 shapes for a batch of 1"):
        PTN()(VoxelGrid(torch.zeros(3, 32, 32, 32)), batch)
    with pytest.raises(ReconlabError, match="PTN needs 'views'"):
        PTN()(VoxelGrid(torch.zeros(1, 8, 8, 8)), Batch(["a"], ["b"]))
    with pytest.raises(ReconlabError, match="PointCloud does not give"):
        PTN()(PointCloud(torch.zeros(1, 9, 3, requires_grad=True)), batch)
    with torch.no_grad():  # judging needs no gradient
        assert PTN()(PointCloud(torch.zeros(1, 9, 3)), batch)["loss"].isfinite()


@pytest.mark.parametrize("setting", [{"resolution": 1}, {"depths": 0}, {"extent": 0.0}, {"reduction": "max"}])
def test_bad_settings_are_named(setting: dict) -> None:
    with pytest.raises(ReconlabError, match=f"{next(iter(setting))} is "):
        PTN(**setting)
