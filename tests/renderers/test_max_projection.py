"""PTN's projection: hand-computed, a float64 program of its own, finite differences, symmetries."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from reconlab.cameras import dpc_cameras
from reconlab.errors import ReconlabError
from reconlab.renderers.max_projection import max_projection


def test_by_hand() -> None:
    """One pixel looks along +z; its samples at z = -.25 and .25 are each the mean of a layer's four cells."""
    values = torch.zeros(1, 2, 2, 2)
    values[0, :, :, 0] = torch.tensor([[0.1, 0.2], [0.3, 0.4]])
    values[0, :, :, 1] = torch.tensor([[0.9, 0.0], [0.3, 0.0]])
    values.requires_grad_()
    image = max_projection(values, dpc_cameras([0.0], [0.0]), 1)
    assert image.item() == pytest.approx(0.3)
    image.sum().backward()
    expected = torch.zeros(1, 2, 2, 2)
    expected[..., 1] = 0.25  # only the layer with the maximum, .3 against .25
    torch.testing.assert_close(values.grad, expected)


def test_agrees_with_a_float64_program() -> None:
    """Positions from the lens formula, trilinear values from SciPy, azimuth and elevation written out."""
    rng = np.random.default_rng(0)
    grid = rng.random((6, 6, 6))
    azimuth, elevation, side, depths = 37.0, 24.0, 7, 9
    a, e = np.deg2rad([azimuth, elevation])
    eye = 2.0 * np.array([np.sin(a) * np.cos(e), np.sin(e), -np.cos(a) * np.cos(e)])
    forward = -eye / 2
    right = np.cross(forward, [0, 1, 0])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    expected = np.zeros((side, side))
    for row in range(side):
        for column in range(side):
            x, y = (2 * column + 1) / side - 1, 1 - (2 * row + 1) / side
            for k in range(depths):
                depth = 2.0 + (k + 0.5) / depths - 0.5
                at = eye + depth * (forward + x / 3.75 * right + y / 3.75 * up)
                index = ((at + 0.5) * 6 - 0.5)[:, None]
                value = map_coordinates(grid, index, order=1, mode="grid-constant")
                expected[row, column] = max(expected[row, column], value[0])
    image = max_projection(torch.from_numpy(grid)[None], dpc_cameras([azimuth], [elevation]), side, depths)
    np.testing.assert_allclose(image[0, 0], expected, atol=2e-6)


def test_finite_differences() -> None:
    g = torch.Generator().manual_seed(0)
    values = torch.rand(1, 3, 3, 3, generator=g, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: max_projection(x, dpc_cameras([25.0], [12.0]), 4), (values,))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 3))
def test_turning_grid_and_camera_together_changes_nothing(seed: int, turns: int) -> None:
    """Azimuth 90 carries the camera from -z to +x, a quarter turn about y."""
    g = torch.Generator().manual_seed(seed)
    values = torch.rand(1, 6, 6, 6, generator=g)
    azimuth, elevation = 360 * torch.rand(1, generator=g), 60 * torch.rand(1, generator=g) - 20
    before = max_projection(values, dpc_cameras(azimuth, elevation), 9)
    turned = max_projection(torch.rot90(values, turns, (1, 3)), dpc_cameras(azimuth + 90 * turns, elevation), 9)
    torch.testing.assert_close(turned, before, rtol=1e-4, atol=1e-4)
    views = dpc_cameras(torch.tensor([[10.0, 80.0]]), torch.tensor([[0.0, 5.0]]))
    pair = max_projection(values, views, 9)
    torch.testing.assert_close(max_projection(values, views[:, [1, 0]], 9), pair[:, [1, 0]])
    # The maximum commutes with what keeps order: scaling, and it is never above the largest cell.
    torch.testing.assert_close(max_projection(0.5 * values, views, 9), 0.5 * pair)
    assert pair.max() <= values.max() + 1e-6


def test_what_is_not_finite_shows_and_mistakes_are_named() -> None:
    cameras = dpc_cameras([[0.0]], [[0.0]])
    assert max_projection(torch.full((1, 4, 4, 4), torch.nan), cameras, 4)[0, 0, 1, 1].isnan()
    for wrong in (torch.zeros(1, 0, 0, 0), torch.zeros(4, 4, 4)):
        with pytest.raises(ReconlabError, match="at least one cell"):
            max_projection(wrong, cameras)
    with pytest.raises(ReconlabError, match="not"):
        max_projection(torch.zeros(1, 4, 4, 3), cameras)
    with pytest.raises(ReconlabError, match="for 2 grids"):
        max_projection(torch.zeros(2, 4, 4, 4), cameras)
    with pytest.raises(ReconlabError, match="positive"):
        max_projection(torch.zeros(1, 4, 4, 4), cameras, 0)
