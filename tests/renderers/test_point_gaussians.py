"""CAPNet's drawing of points against a direct computation; points behind the camera; finite differences."""

import numpy as np
import pytest
import torch

from reconlab.cameras import dpc_cameras
from reconlab.errors import ReconlabError
from reconlab.renderers import render_point_gaussians

CAMERAS = dpc_cameras([20.0, 130.0], [10.0, -5.0]).reshape(1, 2)


def test_against_numpy():
    """Every point, every pixel, in float64, from the camera's definition."""
    points = torch.rand(1, 30, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    images = render_point_gaussians(points, CAMERAS, 32)[0].numpy()
    for v in range(2):
        camera = points[0].double().numpy() @ CAMERAS.R[0, v].double().numpy().T + CAMERAS.t[0, v].double().numpy()
        pixel = ((3.75 * camera[:, :2] / camera[:, 2:] + 1) * 32 - 1) / 2
        total = np.zeros((32, 32))
        for x, y in pixel:
            for row in range(32):
                total[row] += np.exp(-((row - y) ** 2) - (np.arange(32) - x) ** 2)
        np.testing.assert_allclose(images[v], np.tanh(total), atol=1e-4)


def test_finite_differences():
    points = torch.rand(1, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 0.5
    cameras = CAMERAS.to(torch.float64)
    assert torch.autograd.gradcheck(lambda p: render_point_gaussians(p, cameras, 8), points.requires_grad_())


def test_points_behind_the_camera_are_not_drawn():
    front = dpc_cameras(0.0, 0.0).reshape(1, 1)
    points = torch.tensor([[[0.0, 0.0, -2.0], [0.1, 0.0, -5.0], [0.0, 0.0, 0.0]]], requires_grad=True)
    image = render_point_gaussians(points, front, 16)
    torch.testing.assert_close(image, render_point_gaussians(points[:, 2:], front, 16))
    image.square().sum().backward()
    assert (points.grad[0, :2] == 0).all()
    assert render_point_gaussians(points[:, :2], front, 16).max() == 0


def test_a_crowd_saturates_at_one():
    image = render_point_gaussians(torch.zeros(1, 1000, 3), CAMERAS, 17)
    assert image.max() == 1
    assert image.min() >= 0


def test_mistakes_are_named():
    with pytest.raises(ReconlabError, match=r"cameras \(B, V\)"):
        render_point_gaussians(torch.zeros(2, 3, 3), CAMERAS)
