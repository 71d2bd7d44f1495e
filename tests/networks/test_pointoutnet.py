"""PointOutNet: parameters counted by hand, its input, its branches, overfitting, export."""

import pytest
import torch
import trimesh

from reconlab.errors import ConversionError, ReconlabError
from reconlab.lab.export import export_shape
from reconlab.losses.chamfer import chamfer
from reconlab.networks import PointOutNet
from reconlab.networks.pointoutnet import DENSE, GREY
from reconlab.shapes import PointCloud


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def conv(inputs: int, outputs: int, kernel: int = 3) -> int:
    return kernel * kernel * inputs * outputs + outputs


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def join(inputs: int, skip: int, outputs: int, kernel: int = 5) -> int:
    return conv(inputs, outputs, kernel) + conv(skip, outputs) + conv(outputs, outputs)


HEAD = linear(2048, 1024) + linear(1024, 768)


def test_parameters_of_the_r2n2_network_are_counted_by_hand() -> None:
    stages = conv(3, 32) + conv(32, 32)
    for i, o in ((32, 64), (64, 128), (128, 256), (256, 512)):
        stages += conv(i, o) + 2 * conv(o, o)
    stages += conv(512, 512)
    dense = linear(16 * 512, 2048) + HEAD
    up = join(512, 512, 256) + join(256, 256, 128) + conv(128, 128) + conv(128, 9)
    assert count(PointOutNet()) == stages + conv(512, 512, 5) + dense + up == 42_892_137


def wide_stages(last: int) -> int:
    stages = conv(4, 16) + conv(16, 16)
    for i, o, k in ((16, 32, 3), (32, 64, 3), (64, 128, 3), (128, 256, last), (256, 512, last)):
        stages += conv(i, o, k) + 2 * conv(o, o)
    return stages + conv(512, 512)


def test_parameters_of_the_wide_networks_are_counted_by_hand() -> None:
    dense = linear(12 * 512, 2048)
    up = join(512, 512, 256) + join(256, 256, 128) + join(128, 128, 64) + conv(64, 64) + conv(64, 3)
    two_branch = wide_stages(3) + conv(512, 512, 5) + dense + HEAD + up
    assert count(PointOutNet("two_branch")) == two_branch == 38_910_019
    first_up = sum(join(i, s, o) for i, s, o in ((512, 512, 256), (256, 256, 128), (128, 128, 64)))
    first_up += join(64, 64, 32) + join(32, 32, 16)
    down = join(16, 32, 32, 3) + join(32, 64, 64, 3) + join(64, 128, 128) + join(128, 256, 256)
    second = join(512, 256, 256) + join(256, 128, 128) + join(128, 64, 64) + conv(64, 64) + conv(64, 3)
    bottoms = conv(512, 512, 5) + conv(256, 512, 5)
    hourglass = wide_stages(5) + bottoms + 2 * dense + linear(2048, 2048) + HEAD + first_up + down + second
    assert count(PointOutNet("hourglass")) == hourglass == 70_154_419


@pytest.mark.parametrize("version", ["r2n2", "two_branch", "hourglass"])
@pytest.mark.parametrize("norm", ["none", "group"])
def test_1024_points_that_depend_on_every_parameter(version, norm) -> None:
    torch.manual_seed(0)
    network = PointOutNet(version, width=4 if norm == "group" else 16, hidden=64, norm=norm)
    images = torch.rand(2, 3, 64, 64)
    cloud = network(images)
    assert isinstance(cloud, PointCloud)
    assert cloud.positions.shape == (2, 1024, 3)
    dense, cells = cloud.positions[:, :DENSE], cloud.positions[:, DENSE:]
    for branch in (dense, cells):
        assert 0.01 < branch.std() < 0.3, "training begins inside the unit cube, and not in one point"
        assert (branch[0] - branch[1]).abs().max() > 0
    (dense.square().sum() + cells.square().sum()).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())


def test_the_wide_networks_see_the_object_on_grey_in_the_middle_of_a_wide_canvas() -> None:
    images = torch.ones(1, 3, 192, 192)
    images[:, :, 50:60, 20:40] = torch.tensor([0.2, 0.4, 1.0]).reshape(3, 1, 1)
    seen = PointOutNet("two_branch", width=2, hidden=4).prepare(images)
    assert seen.shape == (1, 4, 192, 256)
    inside = torch.zeros(192, 256, dtype=torch.bool)
    inside[50:60, 52:72] = True
    assert torch.equal(seen[0, 3] == 0, inside)
    assert torch.equal(seen[0, :3, inside].unique(dim=1).flatten(), torch.tensor([0.2, 0.4, 1.0]))
    assert (seen[0, :3, ~inside] == GREY).all()
    small = torch.rand(2, 3, 32, 32)
    assert torch.equal(PointOutNet(width=2, hidden=4).prepare(small)[..., ::4, ::4], small)


def test_it_overfits_two_shapes() -> None:
    torch.manual_seed(0)
    network = PointOutNet(width=4, hidden=64, norm="group")
    images = torch.stack([torch.full((3, 64, 64), 0.1), torch.full((3, 64, 64), 0.9)])
    images[1, :, 16:48, 16:48] = 0.0
    angle = torch.linspace(0, 6.283, 500)
    ring = torch.stack([0.4 * angle.cos(), 0.4 * angle.sin(), torch.zeros(500)], 1)
    target = torch.stack([ring, ring[:, [2, 0, 1]] * 0.7])
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    first = last = 0.0
    for step in range(60):
        optimizer.zero_grad()
        loss = chamfer(network(images).positions, target).mean()
        loss.backward()
        optimizer.step()
        first, last = (loss.item(), 0.0) if step == 0 else (first, loss.item())
    assert last < 0.04 * first
    assert last < 5e-3


def test_points_are_exported_and_have_no_mesh(tmp_path) -> None:
    cloud = PointOutNet(width=2, hidden=4)(torch.rand(1, 3, 32, 32))
    (written,) = export_shape(cloud, 0, tmp_path / "shape", formats=("ply",))
    assert trimesh.load(written).vertices.shape == (1024, 3)
    with pytest.raises(ConversionError, match="PointCloud has no conversion to a mesh"):
        cloud.mesh()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"version": "v3"}, "version is 'v3'; expected one of r2n2, two_branch, hourglass"),
        ({"norm": "layer"}, "norm is 'layer'"),
        ({"width": 0}, "width is 0"),
        ({"hidden": 1}, "hidden 1"),
    ],
)
def test_bad_settings(settings, message) -> None:
    with pytest.raises(ReconlabError, match=message):
        PointOutNet(**settings)


def test_bad_images() -> None:
    with pytest.raises(ReconlabError, match="PointOutNet takes square images"):
        PointOutNet(width=2, hidden=4)(torch.rand(1, 3, 32, 64))
