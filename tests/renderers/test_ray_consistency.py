"""Ray events: hand-computed probabilities, a float64 program of its own, analytic silhouettes, symmetries."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.cameras import Cameras, dpc_cameras
from reconlab.errors import ReconlabError
from reconlab.kernels.voxel_rays import escape_probability
from reconlab.renderers.ray_consistency import (
    escape_image,
    event_cost,
    pixel_centres,
    pixel_rays,
    ray_events,
)


def test_events_by_hand() -> None:
    """Cells .5 then .2: stop .5, then .5 × .2 = .1; escape .4."""
    grid = torch.zeros(1, 2, 2, 2)
    grid[0, 0, 1, 1], grid[0, 1, 1, 1] = 0.5, 0.2
    ray = torch.tensor([[[-2.0, 0.3, 0.3]]]), torch.tensor([[[2.0, 0, 0]]])
    events = ray_events(grid, *ray)
    torch.testing.assert_close(events.stop[0, 0, :2], torch.tensor([0.5, 0.1]))
    assert events.escape.item() == pytest.approx(0.4)
    torch.testing.assert_close(events.crossings.enter[0, 0, :2], torch.tensor([1.5, 2.0], dtype=torch.float64))
    # Depth costs |d - 2| at the cells' entry (.5 and 0), 8 for the escape: .5 × .5 + .4 × 8.
    cost = event_cost(events, (events.crossings.enter - 2).abs().float(), torch.full((1, 1), 8.0))
    assert cost.item() == pytest.approx(3.45)
    # With masks every stop costs the same.
    cost = event_cost(events, torch.tensor(1.0), torch.zeros(1, 1))
    assert cost.item() == pytest.approx(0.6)


def test_agrees_with_a_program_that_marches_in_float64() -> None:
    """Steps of 1e-4 along each ray, the cell looked up at every one: events by the definition."""
    rng = np.random.default_rng(0)
    size = 4
    grid = rng.random((size, size, size))
    origin = rng.normal(size=(30, 3))
    origin /= np.linalg.norm(origin, axis=1, keepdims=True)
    direction = rng.uniform(-0.4, 0.4, (30, 3)) - origin
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    events = ray_events(
        torch.from_numpy(grid)[None], torch.from_numpy(origin)[None], torch.from_numpy(direction)[None]
    )
    t = np.arange(0, 2.5, 1e-4)
    compared = 0
    for r in range(30):
        cell = np.floor((origin[r] + t[:, None] * direction[r] + 0.5) * size).astype(int)
        cell = cell[((cell >= 0) & (cell < size)).all(1)]
        cell = cell[np.r_[True, (np.diff(cell, axis=0) != 0).any(1)]]
        crossings = events.crossings
        if (crossings.leave - crossings.enter)[0, r][crossings.crossed[0, r]].min() < 3e-4:
            continue  # a corner shorter than the march can see
        reached, stops = 1.0, []
        for x, y, z in cell:
            stops.append(reached * grid[x, y, z])
            reached *= 1 - grid[x, y, z]
        np.testing.assert_allclose(events.stop[0, r, : len(stops)], stops, atol=1e-12)
        assert events.stop[0, r, len(stops) :].abs().sum() == 0
        assert events.escape[0, r].item() == pytest.approx(reached, abs=1e-12)
        compared += 1
    assert compared >= 20


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9))
def test_probabilities_sum_to_one_and_agree_with_the_fused_path(seed: int, size: int) -> None:
    g = torch.Generator().manual_seed(seed)
    grid = torch.rand(2, size, size, size, generator=g)
    grid[grid > 0.9] = 1
    cameras = dpc_cameras(360 * torch.rand(2, 3, generator=g), 60 * torch.rand(2, 3, generator=g) - 20)
    origins, directions = (x.flatten(1, 2) for x in pixel_rays(cameras, 2 * torch.rand(2, 3, 20, 2, generator=g) - 1))
    events = ray_events(grid, origins, directions)
    torch.testing.assert_close(events.stop.sum(-1) + events.escape, torch.ones(2, 60))
    image = escape_image(grid, cameras, 6)
    rays = pixel_rays(cameras, pixel_centres(6, 6).flatten(0, 1))
    expected = ray_events(grid, *(x.flatten(1, 2) for x in rays)).escape.reshape(2, 3, 6, 6)
    torch.testing.assert_close(image, expected, rtol=1e-5, atol=1e-7)


def test_pixel_rays_pass_through_their_pixels() -> None:
    g = torch.Generator().manual_seed(0)
    cameras = dpc_cameras([10.0, 100.0, 250.0], [0.0, 35.0, -20.0])
    cameras = Cameras(cameras.R, cameras.t, torch.tensor([[3.0, 4.0]] * 3), torch.tensor([[0.1, -0.2]] * 3))
    xy = 2 * torch.rand(3, 40, 2, generator=g, dtype=torch.float64) - 1
    origins, directions = pixel_rays(cameras, xy)
    for distance in (0.5, 3.0):
        got, depth = cameras.to(torch.float64).project(origins + distance * directions)
        torch.testing.assert_close(got, xy, rtol=0, atol=2e-6)  # R is orthogonal to float32's digits only
        assert (depth > 0).all()
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(3, 40, dtype=torch.float64))


def test_a_box_of_full_cells_casts_its_exact_silhouette() -> None:
    """Against rays and the box itself, at every pixel of three views."""
    grid = torch.zeros(1, 8, 8, 8)
    grid[0, 2:7, 3:5, 1:6] = 1  # x in [-.25, .375], y in [-.125, .125], z in [-.375, .25]
    low, high = torch.tensor([-0.25, -0.125, -0.375]).double(), torch.tensor([0.375, 0.125, 0.25]).double()
    cameras = dpc_cameras([33.0, 140.0, 261.0], [11.0, -17.0, 38.0])
    image = escape_image(grid, cameras, 48)
    origins, directions = pixel_rays(cameras, pixel_centres(48, 48).flatten(0, 1))
    one, two = (low - origins) / directions, (high - origins) / directions
    inside = torch.minimum(one, two).amax(-1) < torch.maximum(one, two).amin(-1)
    assert 0.02 < inside.double().mean() < 0.5
    assert torch.equal(1 - image[0], inside.reshape(3, 48, 48).float())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(3)), st.lists(st.booleans(), min_size=3, max_size=3))
def test_the_cubes_symmetries_change_nothing(seed: int, order: list[int], mirrored: list[bool]) -> None:
    """Grid and rays are permuted and mirrored together, exactly: 8 cells have planes that mirror onto each other."""
    g = torch.Generator().manual_seed(seed)
    grid = 0.3 * torch.rand(1, 8, 8, 8, generator=g)
    cameras = dpc_cameras(360 * torch.rand(1, 1, generator=g), 60 * torch.rand(1, 1, generator=g) - 20)
    origins, directions = (x[:, 0] for x in pixel_rays(cameras, 2 * torch.rand(1, 1, 50, 2, generator=g) - 1))
    signs = torch.tensor([-1.0 if m else 1.0 for m in mirrored]).double()
    moved = grid.permute(0, *(1 + i for i in order)).flip([1 + i for i in range(3) if mirrored[i]])
    before = escape_probability(grid, origins, directions)
    after = escape_probability(moved, signs * origins[..., order], signs * directions[..., order])
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-8)


def test_more_matter_never_lets_more_through() -> None:
    g = torch.Generator().manual_seed(2)
    grid = 0.5 * torch.rand(1, 5, 5, 5, generator=g)
    cameras = dpc_cameras([20.0], [10.0])
    assert (escape_image(grid + 0.1, cameras, 16) <= escape_image(grid, cameras, 16)).all()
    assert escape_image(torch.ones(1, 5, 5, 5), cameras, 16).min() == 0


def test_finite_differences() -> None:
    g = torch.Generator().manual_seed(0)
    grid = torch.rand(1, 2, 2, 2, generator=g, dtype=torch.float64).requires_grad_()
    rays = pixel_rays(dpc_cameras([[25.0]], [[12.0]]), 0.6 * torch.rand(1, 1, 6, 2, generator=g) - 0.3)
    origins, directions = (x[:, 0] for x in rays)
    weights = torch.rand(1, 6, 8, generator=g, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: event_cost(ray_events(x, origins, directions), weights, weights[..., 0]), (grid,)
    )


def test_images_need_not_be_square() -> None:
    image = escape_image(torch.ones(1, 2, 2, 2), dpc_cameras([0.0], [0.0]), (8, 16))
    assert image.shape == (1, 1, 8, 16)
    # The face at depth 1.5 reaches 3.75 / 1.5 × .5 > 1: all pixels see it.
    assert math.isclose(image.sum().item(), 0)


def test_mistakes_are_named() -> None:
    grid, cameras = torch.zeros(2, 4, 4, 4), dpc_cameras([[0.0]], [[0.0]])
    with pytest.raises(ReconlabError, match=r"\(2, V\)"):
        escape_image(grid, cameras, 8)
    with pytest.raises(ReconlabError, match="image_size is 0"):
        escape_image(grid[:1], cameras, 0)
    with pytest.raises(ReconlabError, match="at least one cell"):
        escape_image(torch.zeros(1, 0, 0, 0), cameras, 8)
    rays = torch.zeros(1, 3, 3), torch.ones(1, 3, 3)
    with pytest.raises(ReconlabError, match="at least one cell"):
        ray_events(grid[..., :3], *rays)
    with pytest.raises(ReconlabError, match="for 2 grids"):
        ray_events(grid, *rays)
