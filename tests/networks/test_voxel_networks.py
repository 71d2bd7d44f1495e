"""DRC's and PTN's networks: counted parameters, sizes, initialisation, freezing, images of other sizes."""

from pathlib import Path

import pytest
import torch

from reconlab.errors import ReconlabError
from reconlab.networks import DRCNet, PTNNet
from reconlab.networks.resize import to_side
from reconlab.shapes import VoxelGrid


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_drc_parameters_are_counted_by_hand() -> None:
    network = DRCNet()
    pairs = [(3, 8), (8, 16), (16, 32), (32, 64), (64, 128)]
    convolutions = sum(9 * i * o + o + 2 * o for i, o in pairs)
    bottleneck = (512 * 100 + 100 + 200) + (100 * 100 + 100 + 200)
    assert count(network.encoder) == convolutions + bottleneck
    deconvolutions = sum(64 * i * o + o + 2 * o for i, o in [(128, 64), (64, 32), (32, 16), (16, 8)])
    assert count(network.decoder) == (100 * 1024 + 1024 + 2048) + deconvolutions + (27 * 8 + 1)
    assert count(network) == 963_049


def test_ptn_parameters_are_counted_by_hand() -> None:
    network = PTNNet()
    encoder = sum(25 * i * o + o for i, o in [(3, 64), (64, 128), (128, 256)])
    encoder += sum(i * o + o for i, o in [(16384, 1024), (1024, 1024), (1024, 512)])
    decoder = 512 * 13824 + 13824 + 64 * 512 * 256 + 256 + 125 * 256 * 96 + 96 + 216 * 96 + 1
    assert (count(network.encoder), count(network.decoder)) == (encoder, decoder)
    assert count(network) == 37_955_297


def test_drc_grid_is_one_minus_the_empty_probability() -> None:
    torch.manual_seed(0)
    network = DRCNet(threshold=0.3).eval()
    images = torch.rand(2, 3, 64, 64)
    grid = network(images)
    assert isinstance(grid, VoxelGrid)
    assert (grid.values.shape, grid.threshold) == ((2, 32, 32, 32), 0.3)
    empty = (torch.tanh(network.decoder(network.encoder(images))[:, 0]) + 1) / 2
    torch.testing.assert_close(grid.values, 1 - empty)
    assert grid[1:].threshold == 0.3


def test_drc_starts_as_published() -> None:
    torch.manual_seed(0)
    network = DRCNet()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear | torch.nn.ConvTranspose3d | torch.nn.Conv3d):
            assert (module.bias == 0).all()
            if module.weight.numel() > 2000:
                assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
        elif isinstance(module, torch.nn.BatchNorm1d):
            assert module.weight.mean().item() == pytest.approx(1, abs=0.01)


def test_ptn_sees_images_from_minus_one_to_one() -> None:
    torch.manual_seed(0)
    network = PTNNet(threshold=0.4)
    images = torch.rand(1, 3, 64, 64)
    seen = []
    network.encoder[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        grid = network(images)
    torch.testing.assert_close(seen[0], 2 * images - 1)
    assert (grid.values.shape, grid.threshold) == ((1, 32, 32, 32), 0.4)
    assert 0 < grid.values.min() < grid.values.max() < 1


def test_images_of_other_sizes() -> None:
    g = torch.Generator().manual_seed(0)
    large = torch.rand(2, 3, 128, 128, generator=g)
    small = large.reshape(2, 3, 64, 2, 64, 2).mean((3, 5))
    torch.testing.assert_close(to_side(large, 64, "N"), small)
    assert to_side(small, 64, "N") is small
    assert torch.equal(to_side(small, 128, "N")[..., ::2, ::2], small)
    # 3 pixels to 2: each is the mean of the two that it touches.
    row = torch.tensor([1.0, 2, 6]).expand(1, 3, 3, 3)
    torch.testing.assert_close(to_side(row, 2, "N")[0, 0, 0], torch.tensor([1.5, 4.0]))
    torch.manual_seed(0)
    network = DRCNet().eval()
    torch.testing.assert_close(network(large).values, network(small).values)


@pytest.mark.parametrize("kind", [DRCNet, PTNNet])
def test_mistakes_are_named(kind: type) -> None:
    for threshold in (0.0, 1.0, 2.0):
        with pytest.raises(ReconlabError, match="threshold is"):
            kind(threshold=threshold)
    network = kind()
    with pytest.raises(ReconlabError, match=rf"{kind.__name__} takes square images .* \(2, 3, 64, 48\)"):
        network(torch.rand(2, 3, 64, 48))
    with pytest.raises(ReconlabError, match=r"not \(2, 4, 64, 64\)"):
        network(torch.rand(2, 4, 64, 64))


def test_drc_cannot_train_on_one_image() -> None:
    network = DRCNet()
    with pytest.raises(ReconlabError, match="batch_size to 2"):
        network(torch.rand(1, 3, 64, 64))
    assert network.eval()(torch.rand(1, 3, 64, 64)).values.isfinite().all()


def save(network: torch.nn.Module, path: Path) -> str:
    state = {f"network.{k}": v for k, v in network.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": {}}, path)
    return str(path)


def test_ptn_takes_and_freezes_an_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = PTNNet()
    second = PTNNet(encoder_from=save(first, tmp_path / "first.ckpt"), freeze_encoder=True)
    for mine, theirs in zip(second.encoder.parameters(), first.encoder.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert not torch.equal(second.decoder[0].weight, first.decoder[0].weight)
    second(torch.rand(1, 3, 64, 64)).values.mean().backward()
    assert all(p.grad is None for p in second.encoder.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in second.decoder.parameters())


def test_a_checkpoint_of_another_network_is_named(tmp_path: Path) -> None:
    path = save(DRCNet(), tmp_path / "drc.ckpt")
    with pytest.raises(ReconlabError, match=r"drc.ckpt does not hold PTNNet's encoder"):
        PTNNet(encoder_from=path)
    with pytest.raises(ReconlabError, match="does not exist"):
        PTNNet(encoder_from=str(tmp_path / "none.ckpt"))
