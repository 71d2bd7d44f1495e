"""The losses on voxel grids fitted to a box: its exact silhouettes cost nothing, and carve its visual hull."""

import pytest
import torch

from reconlab.batch import Batch, Views
from reconlab.cameras import Cameras, dpc_cameras
from reconlab.losses import DRC, PTN, Loss
from reconlab.shapes import VoxelGrid


def box_cells(size: int) -> torch.Tensor:
    """``(size, size, size)`` bool: x in [-.25, .375), y in [-.125, .25), z in [-.375, .25); size a multiple of 8."""
    eighth = size // 8
    cells = torch.zeros(size, size, size, dtype=torch.bool)
    cells[2 * eighth : 7 * eighth, 3 * eighth : 6 * eighth, eighth : 6 * eighth] = True
    return cells


def box_silhouettes(cameras: Cameras, side: int) -> torch.Tensor:
    """``(V, side, side)``: rays through the pixel centres against the box."""
    low, high = torch.tensor([-0.25, -0.125, -0.375]), torch.tensor([0.375, 0.25, 0.25])
    at = (2 * torch.arange(side) + 1) / side - 1
    y, x = torch.meshgrid(at, at, indexing="ij")
    masks = []
    for v in range(len(cameras)):
        camera = cameras[v]
        rays = torch.stack([x / camera.focal[0], y / camera.focal[1], torch.ones_like(x)], -1) @ camera.R
        one, two = (low - camera.position) / rays, (high - camera.position) / rays
        masks.append(torch.minimum(one, two).amax(-1) < torch.maximum(one, two).amin(-1))
    return torch.stack(masks).float()


def visual_hull(size: int, cameras: Cameras, masks: torch.Tensor) -> torch.Tensor:
    """``(size, size, size)`` bool: cells whose centres are in the foreground of every view."""
    at = (torch.arange(size) + 0.5) / size - 0.5
    centres = torch.stack(torch.meshgrid(at, at, at, indexing="ij"), -1).reshape(-1, 3)
    xy, _ = cameras.project(centres.expand(len(cameras), -1, -1))
    side = masks.shape[-1]
    column, row = ((xy + 1) / 2 * side).floor().long().unbind(-1)
    image = (column >= 0) & (column < side) & (row >= 0) & (row < side)
    view = torch.arange(len(cameras))[:, None].expand_as(row)
    hit = masks[view, row.clamp(0, side - 1), column.clamp(0, side - 1)] > 0.5
    return (hit & image).all(0).reshape(size, size, size)


def iou(one: torch.Tensor, two: torch.Tensor) -> float:
    """Intersection over union of two bool grids."""
    return ((one & two).sum() / (one | two).sum()).item()


def box_batch(side: int = 64, views: int = 6) -> Batch:
    """One sample: the box from views all around."""
    turn = torch.arange(views)
    cameras = dpc_cameras(360.0 * turn / views + 17.0, 12.0 + 24.0 * (turn % 3 - 1).float())
    masks = box_silhouettes(cameras, side)
    return Batch(ids=["box"], categories=["box"], views=Views(cameras.reshape(1, views), masks[None]))


def test_the_true_grid_costs_nothing_and_the_global_generator_decides() -> None:
    batch, grid = box_batch(), VoxelGrid(box_cells(32)[None].float())
    parts = DRC()(grid, batch)
    assert parts["loss"].item() == parts["per_ray"].item() == 0
    assert (parts["inside"].item(), parts["outside"].item()) == (1, 0)
    other = VoxelGrid(torch.full((1, 32, 32, 32), 0.02))
    values = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append(DRC(rays=500)(other, batch)["loss"].item())
    assert values[0] == values[1] != values[2]


def test_parts_and_weights() -> None:
    batch = box_batch()
    assert batch.views is not None
    empty, full = (VoxelGrid(torch.full((1, 8, 8, 8), v)) for v in (0.0, 1.0))
    area = batch.views.silhouettes.mean().item()
    torch.manual_seed(0)
    parts = DRC(rays=20_000, resolution=8)(empty, batch)
    assert parts["per_ray"].item() == pytest.approx(area, abs=0.02)  # every foreground ray escapes
    assert parts["inside"].item() == parts["outside"].item() == 0
    parts = DRC(rays=20_000, resolution=8)(full, batch)
    assert parts["inside"].item() == 1
    assert 0.2 < parts["outside"].item() < 1
    assert parts["per_ray"].item() == pytest.approx(0.2 * parts["outside"].item() * (1 - area), abs=0.01)
    # A finer grid is averaged to the resolution that the loss works at.
    torch.manual_seed(0)
    fine = DRC(rays=500, resolution=8)(VoxelGrid(box_cells(16)[None].float()), batch)
    torch.manual_seed(0)
    assert fine["loss"] == DRC(rays=500, resolution=8)(VoxelGrid(box_cells(8)[None].float()), batch)["loss"]


def test_ptn_of_the_true_grid_is_small() -> None:
    """Trilinear cells and samples blur the outline: below a twentieth of what the empty grid costs."""
    batch = box_batch()
    assert batch.views is not None
    true, empty = VoxelGrid(box_cells(32)[None].float()), VoxelGrid(torch.zeros(1, 32, 32, 32))
    for reduction in ("area", "subsample"):
        loss = PTN(reduction=reduction)
        assert loss(true, batch)["loss"] < 0.05 * loss(empty, batch)["loss"]


@pytest.mark.parametrize(
    ("loss", "rate", "hull_bound", "box_bound"),
    [(DRC(resolution=16), 0.2, 0.85, 0.93), (PTN(resolution=16), 0.2, 0.85, 0.8)],
    ids=["drc", "ptn"],
)
def test_a_box_is_carved_from_its_silhouettes(loss: Loss, rate: float, hull_bound: float, box_bound: float) -> None:
    """Free logits at 16³ from six views, against the cells whose centres are in the hull, and the box itself.

    DRC empties every cell that a background ray touches, so also those that the hull only half fills.
    """
    batch = box_batch()
    assert batch.views is not None
    torch.manual_seed(0)
    logits = torch.zeros(1, 16, 16, 16, requires_grad=True)
    optimizer = torch.optim.Adam([logits], rate)
    for _ in range(150):
        optimizer.zero_grad()
        loss(VoxelGrid(logits.sigmoid()), batch)["loss"].backward()
        optimizer.step()
    found = logits[0] > 0
    hull = visual_hull(16, batch.views.cameras[0], batch.views.silhouettes[0])
    assert iou(found, hull) > hull_bound
    assert iou(found, box_cells(16)) > box_bound
