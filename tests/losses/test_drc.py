"""DRC: hand-computed costs, its definition by events, the pixels that rays look at."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.batch import Batch, Views
from reconlab.cameras import dpc_cameras
from reconlab.errors import ReconlabError
from reconlab.losses.drc import DRC, Rays, drc, sample_rays
from reconlab.renderers.ray_consistency import event_cost, ray_events
from reconlab.shapes import PointCloud, VoxelGrid


def test_costs_by_hand() -> None:
    """Cells .5 and .2, so T = .4: a foreground ray costs .4, a background ray .2 × .6; the next two miss the grid."""
    grid = torch.zeros(1, 2, 2, 2)
    grid[0, 0, 1, 1], grid[0, 1, 1, 1] = 0.5, 0.2
    origins = torch.tensor([[[-2.0, 0.3, 0.3], [-2, 0.3, 0.3], [-2, 0.7, 0], [-2, 0.7, 0]]]).double()
    rays = Rays(
        origins, torch.tensor([1.0, 0, 0]).double().expand(1, 4, 3), torch.tensor([[True, False, True, False]])
    )
    terms = drc(grid, rays)
    torch.testing.assert_close(terms.cost, torch.tensor([[0.4, 0.12, 1.0, 0.0]]))
    assert terms.total().item() == pytest.approx(1.52)
    torch.testing.assert_close(drc(grid, rays, background=1.0).cost[0, 1], torch.tensor(0.6))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_is_the_expected_cost_of_the_events(seed: int) -> None:
    """ψ(stop) = 1 in the background, ψ(escape) = 1 in the foreground, rays weighted; gradients agree too."""
    g = torch.Generator().manual_seed(seed)
    single = torch.rand(2, 5, 5, 5, generator=g).requires_grad_()
    double = single.detach().double().requires_grad_()
    cameras = dpc_cameras(360 * torch.rand(2, 3, generator=g), 60 * torch.rand(2, 3, generator=g) - 20)
    rays = sample_rays(torch.rand(2, 3, 16, 16, generator=g), cameras, 100, g)
    label = rays.foreground.double()
    cost = event_cost(ray_events(double, rays.origins, rays.directions), 1 - label.unsqueeze(-1), label)
    cost = cost * (label + 0.2 * (1 - label))
    terms = drc(single, rays)
    torch.testing.assert_close(terms.cost.double(), cost, rtol=1e-5, atol=1e-6)
    terms.total().sum().backward()
    cost.sum().backward()
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-4, atol=1e-5)


def test_sampled_rays_look_at_their_pixels() -> None:
    """Each ray projects to a pixel centre of view r mod V whose silhouette is its label."""
    g = torch.Generator().manual_seed(3)
    masks = torch.rand(2, 3, 8, 8, generator=g)
    cameras = dpc_cameras(360 * torch.rand(2, 3, generator=g), 60 * torch.rand(2, 3, generator=g) - 20)
    rays = sample_rays(masks, cameras, 400, g)
    assert rays.origins.shape == rays.directions.shape == (2, 400, 3)
    seen = set()
    for b in range(2):
        for r in range(400):
            camera = cameras[b, r % 3].to(torch.float64)
            torch.testing.assert_close(rays.origins[b, r], camera.position)
            xy, _ = camera.project((rays.origins + 1.5 * rays.directions)[b, r][None])
            position = (xy[0] + 1) * 4 - 0.5
            column, row = position.round().long().tolist()
            assert (position - position.round()).abs().max() < 1e-4
            assert rays.foreground[b, r] == (masks[b, r % 3, row, column] >= 0.5)
            seen.add((b, r % 3, row, column))
    assert len(seen) > 0.8 * 2 * 3 * 64  # 133 draws of 64 pixels leave out an eighth


def two_views() -> Batch:
    """A square in both images."""
    masks = torch.zeros(1, 2, 32, 32)
    masks[..., 10:20, 12:22] = 1
    return Batch(["a"], ["b"], views=Views(dpc_cameras([[0.0, 90.0]], [[0.0, 0.0]]), masks))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_seed_decides_samples_do_not_mix_and_order_of_rays_is_nothing(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    grid = torch.rand(2, 4, 4, 4, generator=g)
    cameras = dpc_cameras(360 * torch.rand(2, 2, generator=g), 60 * torch.rand(2, 2, generator=g) - 20)
    masks = torch.rand(2, 2, 16, 16, generator=g)
    values = []
    for s in (seed, seed, seed + 1):
        torch.manual_seed(s)
        values.append(sample_rays(masks, cameras, 30))
    assert torch.equal(values[0].directions, values[1].directions)
    assert not torch.equal(values[0].directions, values[2].directions)
    terms = drc(grid, values[0])
    alone = drc(grid[1:], Rays(*(x[1:] for x in values[0])))
    torch.testing.assert_close(alone.cost[0], terms.cost[1])
    order = torch.randperm(30, generator=g)
    mixed = drc(grid, Rays(*(x[:, order] for x in values[0])))
    torch.testing.assert_close(mixed.cost, terms.cost[:, order])
    assert ((terms.cost >= 0) & (terms.cost <= 1)).all()


def test_odd_inputs() -> None:
    batch = two_views()
    assert DRC()(VoxelGrid(torch.full((1, 32, 32, 32), torch.nan)), batch)["loss"].isnan()
    masks, cameras = torch.zeros(1, 2, 8, 8), dpc_cameras([[0.0, 90.0]], [[0.0, 0.0]])
    parts = DRC()(VoxelGrid(torch.zeros(1, 8, 8, 8)), Batch(["a"], ["b"], views=Views(cameras, masks)))
    assert parts["loss"].item() == 0
    assert parts["inside"].isnan()  # no foreground ray
    with pytest.raises(ReconlabError, match=r"square silhouettes, not images of \(8, 6\)"):
        sample_rays(masks[..., :6], cameras, 10)
    with pytest.raises(ReconlabError, match="at least one cell"):
        drc(torch.zeros(1, 0, 0, 0), sample_rays(masks, cameras, 10))
    with pytest.raises(ReconlabError, match="not \\(1, 2, 8, 8\\) and \\(2,\\)"):
        sample_rays(masks, cameras[0], 10)
    with pytest.raises(ReconlabError, match="2 shapes for a batch of 1"):
        DRC()(VoxelGrid(torch.zeros(2, 8, 8, 8)), batch)
    with pytest.raises(ReconlabError, match="DRC needs 'views'"):
        DRC()(VoxelGrid(torch.zeros(1, 8, 8, 8)), Batch(["a"], ["b"]))
    with pytest.raises(ReconlabError, match="differentiable"):
        DRC()(PointCloud(torch.zeros(1, 9, 3, requires_grad=True)), batch)


@pytest.mark.parametrize("setting", [{"rays": 0}, {"background": -1.0}, {"resolution": 0}])
def test_bad_settings_are_named(setting: dict) -> None:
    with pytest.raises(ReconlabError, match=f"{next(iter(setting))} is "):
        DRC(**setting)
