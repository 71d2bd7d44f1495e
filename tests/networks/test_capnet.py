"""CAPNet: sizes, ranges, resizing, and learning one shape from its silhouettes."""

import pytest
import torch

from reconlab.batch import Batch, Views
from reconlab.cameras import dpc_cameras
from reconlab.errors import ReconlabError
from reconlab.losses import CAP
from reconlab.networks import CAPNet


def test_parameters():
    network = CAPNet()
    convolutions = 896 + 9248 + 18496 + 2 * 36928 + 73856 + 2 * 147584 + 295168 + 2 * 590080 + 3277312
    layers = (8192 + 1) * 128 + 129 * 256 + 257 * 256
    assert sum(p.numel() for p in network.parameters()) == convolutions + layers + 257 * 3 * 1024
    assert sum(p.numel() for p in CAPNet(points=10).head.parameters()) == 257 * 30


def test_points_and_their_range():
    torch.manual_seed(0)
    network = CAPNet(points=50, extent=0.5)
    with torch.no_grad():
        network.head.weight *= 1e4
    points = network(torch.rand(2, 3, 64, 64)).points()
    assert points.shape == (2, 50, 3)
    assert 0.49 < points.abs().max() <= 0.5


def test_other_sizes_are_averaged():
    torch.manual_seed(0)
    network = CAPNet(points=5).eval()
    image = torch.rand(1, 3, 64, 64)
    larger = image.repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(network(larger).points(), network(image).points())
    with pytest.raises(ReconlabError, match="square images"):  # it would be distorted
        network(torch.rand(1, 3, 100, 80))


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    network = CAPNet(points=20)
    network(torch.rand(2, 3, 64, 64)).points().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_mistakes_are_named():
    with pytest.raises(ReconlabError, match="points is 0"):
        CAPNet(points=0)
    with pytest.raises(ReconlabError, match=r"images \(B, 3, S, S\)"):
        CAPNet(points=5)(torch.rand(1, 1, 64, 64))


def test_overfits_one_shape():
    """A box 30 × 60 pixels wide and deep by 60 high, from four sides: the drawing comes to cover it."""
    torch.manual_seed(1)
    network, loss = CAPNet(), CAP()
    mask = torch.zeros(1, 4, 128, 128)
    mask[0, ::2, 34:94, 48:80] = 1
    mask[0, 1::2, 34:94, 44:84] = 1
    image = torch.ones(1, 3, 128, 128)
    image[:, :, 34:94, 48:80] = torch.rand(3, 60, 32)
    cameras = dpc_cameras([0.0, 90.0, 180.0, 270.0], [0.0] * 4).reshape(1, 4)
    batch = Batch(["a"], ["x"], images=image, views=Views(cameras, mask))
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)  # at 3e-4 points can leave all images for good
    for _ in range(40):
        optimizer.zero_grad()
        out = loss(network.reconstruct(batch), batch)
        out["loss"].backward()
        optimizer.step()
    assert out["iou"].item() > 0.85
