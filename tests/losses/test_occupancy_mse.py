"""IM-Net's losses: values by hand, where points are drawn, the schedule, gradients and mistakes."""

import pytest
import torch

from reconlab.batch import Batch
from reconlab.errors import ConversionError, ReconlabError
from reconlab.losses import CodeRegression, OccupancyMSE
from reconlab.losses.occupancy_mse import code_regression, near_surface, occupancies, occupancy_mse, sample_cells
from reconlab.shapes import ImplicitField, PointCloud, VoxelGrid

CPU = torch.device("cpu")


def ball(size: int, radius: float = 0.35) -> torch.Tensor:
    axis = (torch.arange(size) + 0.5) / size - 0.5
    centres = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    return (centres.norm(dim=-1) < radius).float()[None]


def batch_of(voxels: torch.Tensor) -> Batch:
    return Batch([str(i) for i in range(len(voxels))], ["c"] * len(voxels), voxels=voxels)


def test_values_by_hand_and_gradients() -> None:
    pred = torch.tensor([[0.25, 1.0], [0.0, 0.5]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(occupancy_mse(pred, target).detach(), torch.tensor([0.03125, 0.625]).double())
    torch.testing.assert_close(code_regression(pred, target), occupancy_mse(pred, target))
    assert torch.autograd.gradcheck(lambda p: occupancy_mse(p, target), (pred,))


def test_points_are_drawn_near_the_surface_and_everywhere() -> None:
    torch.manual_seed(0)
    voxels = torch.cat([ball(16), torch.zeros(1, 16, 16, 16), torch.ones(1, 16, 16, 16)])
    near = near_surface(voxels)
    count = near.flatten(1).sum(1).tolist()
    assert count[1:] == [0, 16**3 - 14**3]
    points, occupied = sample_cells(voxels, 20_000, 0.5)
    index = ((points + 0.5) * 16).floor().long()
    assert bool(((points + 0.5) * 16 - index == 0.5).all()), "cell centres"
    sample = torch.arange(3)[:, None].expand(-1, 20_000)
    assert torch.equal(voxels[(sample, *index.unbind(-1))], occupied)
    share = near[(sample, *index.unbind(-1))].float().mean(1)
    for s, c in zip(share.tolist(), count, strict=True):
        assert s == pytest.approx((0.5 + 0.5 * c / 16**3) if c else 0.0, abs=0.02)
    points, _ = sample_cells(voxels[:1], 500, 1.0)
    assert bool((points.norm(dim=-1) - 0.35).abs().max() < 0.12)


def test_the_true_field_costs_nothing_and_its_inverse_all() -> None:
    voxels = ball(32)
    loss = OccupancyMSE(points=1000)
    true = ImplicitField(lambda x: 1e4 * (0.35 - x.norm(dim=-1)), 1, CPU)
    parts = loss(true, batch_of(voxels))
    assert parts["loss"].item() < 1e-6
    assert parts["agree"].item() == 1
    wrong = ImplicitField(lambda x: -1e4 * (0.35 - x.norm(dim=-1)), 1, CPU)
    assert loss(wrong, batch_of(voxels))["loss"].item() > 1 - 1e-5
    assert loss(VoxelGrid(voxels), batch_of(voxels))["loss"].item() < 1e-6


def test_grids_are_interpolated_at_x_y_z() -> None:
    torch.manual_seed(0)
    grid = VoxelGrid(torch.rand(2, 5, 5, 5))
    points, _ = sample_cells(torch.zeros(2, 5, 5, 5), 30, 0.0)
    index = ((points + 0.5) * 5).floor().long()
    sample = torch.arange(2)[:, None].expand(-1, 30)
    torch.testing.assert_close(occupancies(grid, points), grid.values[(sample, *index.unbind(-1))])


def test_the_schedule_is_the_published_one() -> None:
    loss = OccupancyMSE(resolutions=(16, 32, 64))
    seen = []
    for step in (0, 199, 200, 399, 400, 799, 800):
        loss.advance(step, 800)
        seen.append(loss.resolution)
    assert seen == [16, 16, 32, 32, 64, 64, 64]
    loss = OccupancyMSE(resolutions=(8, 32))
    loss.advance(10, 100)
    torch.manual_seed(0)
    points, _ = loss._truth(batch_of(ball(32)))
    assert bool(((points + 0.5) * 8 % 1 == 0.5).all())
    loss = OccupancyMSE(resolutions=(32,))
    loss.advance(0, 100)
    assert loss.resolution == 32


def test_the_datasets_own_queries() -> None:
    torch.manual_seed(0)
    points = torch.rand(1, 50, 3) - 0.5
    batch = Batch(["a"], ["b"], query_points=points, query_occupancies=(points.norm(dim=-1) < 0.4).float())
    loss = OccupancyMSE(points=20, source="queries")
    assert loss.needs == {"occupancy"}
    seen = []

    def field(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return 1e4 * (0.4 - x.norm(dim=-1))

    assert loss(ImplicitField(field, 1, CPU), batch)["loss"].item() < 1e-6
    assert seen[0].shape == (1, 20, 3)
    assert OccupancyMSE(points=100, source="queries")(ImplicitField(field, 1, CPU), batch)["agree"] == 1


def test_mistakes_are_named() -> None:
    voxels = ball(16)
    field = ImplicitField(lambda x: x.sum(-1), 1, CPU)
    for call, text in [
        (lambda: OccupancyMSE(points=0), "points is 0"),
        (lambda: OccupancyMSE(source="mesh"), "source is 'mesh'"),
        (lambda: OccupancyMSE(near=1.5), "near is 1.5"),
        (lambda: OccupancyMSE(resolutions=(32, 16)), r"resolutions are \[32, 16\]"),
        (lambda: OccupancyMSE(resolutions=()), "resolutions are"),
        (lambda: OccupancyMSE()(field, batch_of(voxels)), "reach 32 but the data's voxels are 16³"),
        (lambda: OccupancyMSE()(field, batch_of(voxels.expand(2, -1, -1, -1))), "1 shapes for a batch of 2"),
        (lambda: OccupancyMSE()(field, Batch(["a"], ["b"])), "'voxels' of the batch"),
        (lambda: OccupancyMSE(source="queries")(field, Batch(["a"], ["b"])), "declare 'occupancy'"),
        (lambda: occupancy_mse(torch.zeros(2, 3), torch.zeros(2, 4)), r"\(2, 3\) with \(2, 4\)"),
        (lambda: code_regression(torch.zeros(2, 3), torch.zeros(1, 3)), r"\(2, 3\) with \(1, 3\)"),
    ]:
        with pytest.raises(ReconlabError, match=text):
            call()
    cloud = PointCloud(torch.rand(1, 10, 3))
    with pytest.raises(ConversionError, match="PointCloud has no occupancies"):
        OccupancyMSE(resolutions=(16,))(cloud, batch_of(voxels))
    with pytest.raises(ConversionError, match="IMNet with regress_codes"):
        CodeRegression()(cloud, batch_of(voxels))
