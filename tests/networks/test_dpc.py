"""DPC's network: sizes, initialisation, padding, and that it can learn one shape."""

import math

import pytest
import torch
import torch.nn.functional as F

from reconlab.errors import ReconlabError
from reconlab.networks import DPC
from reconlab.networks.dpc import DPCEncoder, SameConv, ScaledPoints


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameters_as_published() -> None:
    encoder = DPCEncoder()
    assert count(encoder.convolutions) == 1_177_216
    assert count(encoder.layers) == 6_294_528


@pytest.mark.parametrize(("points", "millions"), [(2000, 6.15), (8000, 24.6), (16000, 49.2)])
def test_decoder_parameters(points: int, millions: float) -> None:
    with torch.device("meta"):
        network = DPC(points)
    assert count(network.decoder) == 1025 * 3 * points
    assert round(count(network.decoder) / 1e6, 2) == pytest.approx(millions, abs=0.005)
    assert count(network) == count(network.encoder) + count(network.decoder)


def test_same_padding_by_hand() -> None:
    # TensorFlow, stride 2, kernel 3, side 4: windows begin at 0 and 2, and one column of zeros follows at the end.
    layer = SameConv(1, 1, 3, 2)
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    out = layer(image)
    assert out.shape == (1, 1, 2, 2)
    assert out[0, 0, 0, 0] == image[0, 0, :3, :3].sum()
    assert out[0, 0, 1, 1] == image[0, 0, 2:, 2:].sum()
    # Kernel 5, stride 2: one before, two after.
    layer = SameConv(1, 1, 5, 2)
    torch.nn.init.ones_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    assert layer(image)[0, 0, 0, 0] == F.pad(image, (1, 2, 1, 2))[0, 0, :5, :5].sum()
    layer = SameConv(1, 1, 3, 1)
    assert torch.equal(layer(image), F.conv2d(image, layer.weight, layer.bias, padding=1))


def test_initialisation() -> None:
    torch.manual_seed(0)
    network = DPC(500)
    for layer in [*network.encoder.convolutions, *network.encoder.layers]:
        fan_in = layer.weight[0].numel()
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.05)
        assert layer.weight.abs().max() <= 2 * math.sqrt(2 / fan_in) / 0.87962566 + 1e-6
        assert not layer.bias.any()
    assert network.decoder.weight.std().item() == pytest.approx(0.025 * 0.8796, rel=0.02)
    images = torch.rand(4, 3, 128, 128)
    points = network(images).points()
    assert points.shape == (4, 500, 3)
    assert points.abs().max() < 0.5
    assert points.std() > 0.05  # wide: the code keeps the image's second moment, so the cloud fills much of the cube


def test_interpolation_goes_through_the_first_layer() -> None:
    torch.manual_seed(1)
    network = DPC(20)
    images = torch.rand(2, 3, 128, 128)
    latent = network.encoder.latent(images)
    assert latent.shape == (2, 1024)
    assert torch.equal(network.decode(network.encoder.finish(latent)).points(), network(images).points())


def test_learned_scale_is_a_probability_and_survives_slicing() -> None:
    network = DPC(20, image_size=16, occupancy_scale=True)
    assert count(network) == count(DPC(20, image_size=16)) + 1025
    shape = network(torch.rand(3, 3, 16, 16))
    assert isinstance(shape, ScaledPoints)
    assert shape.occupancy_scale.shape == (3,)
    assert ((shape.occupancy_scale > 0) & (shape.occupancy_scale < 1)).all()
    assert torch.equal(shape[1].occupancy_scale, shape.occupancy_scale[1:2])
    assert torch.equal(shape.to("cpu").occupancy_scale, shape.occupancy_scale)


def test_learns_one_shape() -> None:
    torch.manual_seed(0)
    network = DPC(200, image_size=16)
    image, target = torch.rand(1, 3, 16, 16), 0.3 * torch.nn.functional.normalize(torch.randn(1, 200, 3), dim=-1)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    for _ in range(60):
        optimizer.zero_grad()
        loss = (network(image).points() - target).square().sum(-1).mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-3


def test_bad_input() -> None:
    with pytest.raises(ReconlabError, match="power of two"):
        DPC(10, image_size=100)
    with pytest.raises(ReconlabError, match="points is 0"):
        DPC(0)
    with pytest.raises(ReconlabError, match=r"takes images \(B, 3, 16, 16\)"):
        DPC(10, image_size=16)(torch.zeros(1, 3, 32, 32))
