"""Orthographic depth: the views, true maps against ray tracing, the pseudo-renderer against a loop over points."""

import math

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.errors import ReconlabError
from reconlab.renderers import render_orthographic_depth, render_pseudo_depth
from reconlab.renderers.pseudo_depth import fixed_views, from_view, random_views, to_view


def test_fixed_views_look_from_the_corners_of_a_cube():
    views = fixed_views()
    torch.testing.assert_close(views @ views.transpose(1, 2), torch.eye(3).expand(8, 3, 3), atol=1e-6, rtol=0)
    eyes = -views[:, 2]  # the camera stands against its viewing direction
    torch.testing.assert_close(eyes.abs(), torch.full((8, 3), 3**-0.5), atol=1e-6, rtol=0)
    assert len({tuple(row) for row in (eyes > 0).tolist()}) == 8
    assert (views[:, 1, 1] < 0).all(), "down in the image is down in the world"


def test_random_views_cover_the_sphere_and_repeat():
    views = random_views(2000, 1)
    assert torch.equal(views, random_views(2000, 1))
    eyes = -views[:, 2]
    assert eyes.mean(0).abs().max() < 0.05
    torch.testing.assert_close(eyes.square().mean(0), torch.full((3,), 1 / 3), atol=0.03, rtol=0)


def test_to_a_view_and_back():
    points = torch.rand(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    seen = to_view(points, fixed_views(), 32)
    torch.testing.assert_close(from_view(seen, fixed_views(), 32), points[:, None].expand(2, 8, 5, 3))
    centre = to_view(torch.zeros(1, 1, 3), fixed_views(), 32)[0, :, 0]
    torch.testing.assert_close(centre, torch.tensor([15.5, 15.5, 1.0]).expand(8, 3))


def test_true_depth_against_ray_tracing():
    """Slabs of a box, a ray a pixel, in float64."""
    half, size = np.array([0.3, 0.15, 0.2]), 24
    box = trimesh.creation.box(2 * half)
    views = torch.cat([fixed_views()[:2], random_views(2, 3)])
    depth = render_orthographic_depth(torch.tensor(box.vertices), torch.tensor(box.faces), views, size)
    axis = (np.arange(size) + 0.5) / size - 0.5
    for view, image in zip(views.double().numpy(), depth.numpy(), strict=True):
        right, down, forward = view
        start = axis[None, :, None] * right + axis[:, None, None] * down - forward
        enter, leave = (-half - start) / forward, (half - start) / forward
        near = np.minimum(enter, leave).max(-1)
        hit = near < np.maximum(enter, leave).min(-1)
        assert (np.isfinite(image) == hit).mean() > 0.995  # the outline may fall either way
        both = hit & np.isfinite(image)
        assert both.sum() > 40
        np.testing.assert_allclose(image[both], near[both], atol=2e-5)


def slow(points: np.ndarray, logits: np.ndarray, view: np.ndarray, size: int, upscale: int):
    """Depth, logit and sharing by a loop over points and pixels."""
    fine = size * upscale
    cells: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for point, logit in zip(points, logits, strict=True):
        x, y, z = view @ point
        column, row = round((x + 0.5) * fine - 0.5), round((y + 0.5) * fine - 0.5)
        if 0 <= column < fine and 0 <= row < fine:
            cells.setdefault((row, column), []).append((1 / (z + 11), logit))
    depth, mask, sharing = np.full((size, size), np.inf), np.full((size, size), -1.0), np.zeros((size, size))
    for r in range(size):
        for c in range(size):
            own = [cells.get((r * upscale + i, c * upscale + j), []) for i in range(upscale) for j in range(upscale)]
            seen = [[p for p in cell if p[1] > 0] for cell in own]
            hidden = sum(p[1] for cell in own for p in cell if p[1] <= 0) / upscale**2
            sharing[r, c] = max(len(cell) for cell in seen)
            if sharing[r, c]:
                depth[r, c] = 1 / max(sum(p[0] for p in cell) for cell in seen) - 10
                mask[r, c] = max(sum(p[1] for p in cell) for cell in seen)
            elif hidden < 0:
                mask[r, c] = hidden
    return depth, mask, sharing


@pytest.mark.parametrize("upscale", [1, 3])
def test_points_against_a_loop(upscale):
    g = torch.Generator().manual_seed(0)
    points = torch.rand(2, 60, 3, generator=g, dtype=torch.float64) * 1.2 - 0.6
    logits = torch.randn(2, 60, generator=g, dtype=torch.float64)
    views = random_views(2, 0)
    drawn = render_pseudo_depth(points, logits, views, 8, upscale)
    for b in range(2):
        for v in range(2):
            expected = slow(points[b].numpy(), logits[b].numpy(), views[v].double().numpy(), 8, upscale)
            for image, truth in zip(drawn, expected, strict=True):
                np.testing.assert_allclose(image[b, v].numpy(), truth, atol=1e-9)
    assert drawn.sharing.max() >= (2 if upscale == 1 else 1)


def test_the_nearest_visible_point_wins_and_alone_gets_the_gradient():
    view = torch.eye(3)[None]
    points = torch.tensor([[[0.01, 0.01, 0.2], [0.03, 0.03, -0.1], [0.02, 0.05, -0.4]]], requires_grad=True)
    logits = torch.tensor([[1.0, 2.0, -3.0]], requires_grad=True)
    drawn = render_pseudo_depth(points, logits, view, 2, 20)
    assert drawn.sharing[0, 0, 1, 1] == 1
    assert drawn.depth[0, 0, 1, 1].item() == pytest.approx(0.9, abs=1e-5)
    assert drawn.logit[0, 0].tolist() == [[-1, -1], [-1, 2]]
    drawn.depth[0, 0, 1, 1].backward()
    torch.testing.assert_close(points.grad, torch.tensor([[[0.0, 0, 0], [0, 0, 1], [0, 0, 0]]]), atol=1e-5, rtol=0)


def test_finite_differences():
    g = torch.Generator().manual_seed(4)
    points = (torch.rand(1, 12, 3, generator=g, dtype=torch.float64) - 0.5).requires_grad_()
    logits = torch.randn(1, 12, generator=g, dtype=torch.float64).requires_grad_()

    def value(p, m):
        drawn = render_pseudo_depth(p, m, random_views(2, 5), 6, 5)
        return torch.where(drawn.sharing == 1, drawn.depth, 0.0), drawn.logit

    assert torch.autograd.gradcheck(value, (points, logits), eps=1e-7, atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_order_of_points_does_not_matter(seed):
    g = torch.Generator().manual_seed(seed)
    points, logits = torch.rand(1, 50, 3, generator=g) - 0.5, torch.randn(1, 50, generator=g)
    order = torch.randperm(50, generator=g)
    one = render_pseudo_depth(points, logits, fixed_views(), 8)
    other = render_pseudo_depth(points[:, order], logits[:, order], fixed_views(), 8)
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b)


def test_odd_points_are_not_drawn():
    """NaN, infinite, far off the image, far behind the camera; and nothing at all."""
    bad = [[math.nan, 0, 0], [0, 0, math.inf], [9.0, 0, 0], [0, 0, -9.5], [0, math.nan, 0]]
    points = torch.tensor([bad], requires_grad=True)
    drawn = render_pseudo_depth(points, torch.ones(1, 5), torch.eye(3)[None], 4)
    assert (drawn.sharing == 0).all()
    assert (drawn.depth == math.inf).all()
    assert (drawn.logit == -1).all()
    empty = render_pseudo_depth(torch.zeros(1, 0, 3), torch.zeros(1, 0), torch.eye(3)[None], 4)
    assert (empty.logit == -1).all()


def test_mistakes_are_named():
    with pytest.raises(ReconlabError, match=r"points \(B, N, 3\)"):
        render_pseudo_depth(torch.zeros(1, 4, 3), torch.zeros(1, 5), fixed_views(), 8)
    with pytest.raises(ReconlabError, match="one mesh"):
        render_orthographic_depth(torch.zeros(1, 4, 3), torch.zeros(1, 3), fixed_views(), 8)
