"""DPC-V's loss: closed forms, finite differences, odd input, and a grid that learns a shape."""

import pytest
import torch

from reconlab.batch import Batch, Views
from reconlab.cameras import Cameras, dpc_cameras
from reconlab.errors import ReconlabError
from reconlab.losses import VoxelSilhouette
from reconlab.losses.voxel_silhouette import voxel_silhouette
from reconlab.shapes import PointCloud, VoxelGrid


def views_of(size: int = 16) -> tuple[torch.Tensor, Cameras]:
    masks = torch.zeros(2, 2, size, size)
    masks[:, :, size // 4 : -size // 4, size // 3 : -size // 3] = 1
    return masks, dpc_cameras([[0.0, 90.0], [10.0, 50.0]], 15.0)


def batch_of() -> Batch:
    masks, cameras = views_of()
    return Batch(ids=["a", "b"], categories=["chair", "lamp"], views=Views(cameras, masks))


def test_uniform_fog_by_hand() -> None:
    """Occupancy q in all K cells of the middle rays: silhouette 1 - (1 - q)^K there, 1e-5 K outside of the cube."""
    q, steps = 0.1, 6
    cameras = dpc_cameras([[0.0]], [[0.0]])
    masks = torch.zeros(1, 1, 8, 8)
    error = voxel_silhouette(torch.full((1, 4, 4, 4), q), masks, cameras, 8, steps)
    # The farthest samples meet the half cell in which the grid fades: seen from the front, the outermost ones.
    weight = [1.0] * steps
    depth = [(k + 0.5) / steps - 0.5 for k in range(steps)]
    fade = [min(1.0, 4 * (0.5 - abs(z)) + 0.5) for z in depth]
    centre = 1.0
    for w, f in zip(weight, fade, strict=True):
        centre *= 1 - q * w * f
    assert error.shape == (1, 1)
    by_pixel = 0.5 * (1 - centre) ** 2
    assert 16 * by_pixel < error.item() <= 64 * by_pixel  # the 4 x 4 middle pixels see the cube alone
    empty = voxel_silhouette(torch.zeros(1, 4, 4, 4), masks, cameras, 8, steps)
    assert empty.item() == pytest.approx(64 * 0.5 * (1 - (1 - 1e-5) ** steps) ** 2, rel=1e-2)


def test_half_the_squared_sum() -> None:
    """An empty grid against a mask of n pixels: n / 2."""
    masks, cameras = views_of()
    error = voxel_silhouette(torch.zeros(2, 8, 8, 8), masks, cameras, 8)
    torch.testing.assert_close(error, 0.5 * masks[..., ::2, ::2].sum((2, 3)), rtol=1e-3, atol=1e-4)


def test_gradients_by_finite_differences() -> None:
    masks, cameras = views_of(8)
    values = torch.rand(2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: voxel_silhouette(v, masks, cameras, 4), values)


def test_class_asks_for_its_grid() -> None:
    values = torch.rand(2, 16, 16, 16, requires_grad=True)
    loss = VoxelSilhouette(resolution=8, grid=16, depths=12)
    parts = loss(VoxelGrid(values), batch_of())
    assert set(parts) == {"loss", "occupancy"}
    assert parts["occupancy"].item() == pytest.approx(values.mean().item())
    masks, cameras = views_of()
    torch.testing.assert_close(parts["loss"], voxel_silhouette(values, masks, cameras, 8, 12).mean())
    coarse = VoxelSilhouette(resolution=8)(VoxelGrid(values), batch_of())["loss"]
    pooled = torch.nn.functional.avg_pool3d(values[:, None], 2)[:, 0]
    torch.testing.assert_close(coarse, voxel_silhouette(pooled, masks, cameras, 8).mean())
    assert "grid=16" in repr(loss)
    assert VoxelSilhouette.needs == {"views"}


def test_a_grid_that_is_not_finite_shows() -> None:
    values = torch.rand(2, 8, 8, 8)
    values[1, 4, 4, 4] = torch.nan
    masks, cameras = views_of()
    error = voxel_silhouette(values, masks, cameras, 8)
    assert error[0].isfinite().all()
    assert error[1].isnan().all()


def test_mistakes_are_named() -> None:
    masks, cameras = views_of()
    with pytest.raises(ReconlabError, match=r"grids \(B, D, D, D\)"):
        voxel_silhouette(torch.zeros(1, 8, 8, 8), masks, cameras, 8)
    with pytest.raises(ReconlabError, match="depths is 0"):
        VoxelSilhouette(depths=0)
    with pytest.raises(ReconlabError, match="resolution is 7"):
        voxel_silhouette(torch.zeros(2, 8, 8, 8), masks, cameras, 7)
    cloud = PointCloud(torch.rand(2, 10, 3, requires_grad=True))
    with pytest.raises(ReconlabError, match="voxels of PointCloud have no gradient"):
        VoxelSilhouette(resolution=8)(cloud, batch_of())
    with torch.no_grad():
        assert VoxelSilhouette(resolution=8)(cloud, batch_of())["loss"].isfinite()


def test_a_free_grid_learns_a_box() -> None:
    """From uniform fog to a box by four silhouettes: occupied inside, empty outside."""
    size = 16
    side = (torch.arange(size) + 0.5) / size - 0.5
    x, y, z = torch.meshgrid(side, side, side, indexing="ij")
    box = ((x.abs() < 0.25) & (y.abs() < 0.2) & (z.abs() < 0.15)).float()[None]
    cameras = dpc_cameras([[0.0, 60.0, 130.0, 250.0]], [[20.0, -10.0, 35.0, 10.0]])
    from reconlab.renderers import ray_silhouettes, resample_voxels

    masks = (ray_silhouettes(resample_voxels(box, cameras, 32), dim=2) > 0.5).float()
    batch = Batch(ids=["box"], categories=["box"], views=Views(cameras, masks))
    logits = torch.full((1, size, size, size), -2.7, requires_grad=True)
    loss, optimizer = VoxelSilhouette(resolution=16), torch.optim.Adam([logits], 0.1)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        parts = loss(VoxelGrid(logits.sigmoid()), batch)
        parts["loss"].backward()
        optimizer.step()
        losses.append(parts["loss"].item())
    assert losses[-1] < 0.1 * losses[0]
    values = logits.detach().sigmoid()
    assert values[box > 0].mean() > 2 * values[box == 0].mean()
