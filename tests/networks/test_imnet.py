"""IM-Net: sizes by hand, its field, the two stages, and fitting."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.losses import DRKFS, CodeRegression, OccupancyMSE, SilhouetteIoU
from reconlab.metrics import voxel_iou
from reconlab.networks import IMNet, IMNetAutoencoder
from reconlab.networks.imnet_decoder import IMDecoder, IMField, VoxelEncoder, leaky_clip
from reconlab.shapes import Mesh

SMALL = {"code": 16, "decoder_width": 4, "resolution": 16, "coarse": 8, "start": "kaiming"}


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def cells(size: int) -> torch.Tensor:
    axis = (torch.arange(size) + 0.5) / size - 0.5
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)


def table(size: int = 32) -> torch.Tensor:
    """``(size, size, size)``: a slab on four legs."""
    x, y, z = cells(size).unbind(-1)
    slab = (y > 0.1) & (y < 0.22) & (x.abs() < 0.38) & (z.abs() < 0.3)
    legs = (y <= 0.1) & (y > -0.3) & ((x.abs() - 0.3).abs() < 0.07) & ((z.abs() - 0.22).abs() < 0.07)
    return (slab | legs).float()


def test_published_sizes_are_counted_by_hand() -> None:
    sizes = [259, 1024, 1024, 1024, 512, 256, 128, 1]
    decoder = sum(i * o + o for i, o in pairwise(sizes))
    assert count(IMDecoder()) == decoder == 3_054_593
    voxels = 64 * (1 * 32 + 32 * 64 + 64 * 128 + 128 * 256) + 64 * 256 * 256 + 256
    autoencoder = IMNetAutoencoder()
    assert count(autoencoder.encoder) == voxels == 6_949_120
    assert count(autoencoder) == voxels + decoder
    network = IMNet()
    image = 49 * 64 + 128
    for i, o in [(64, 64), (64, 128), (128, 256), (256, 512)]:
        image += 9 * i * o + 9 * o * o + 4 * o + 18 * o * o + 4 * o  # two blocks and their normalisations
        image += (i * o + 2 * o) if i != o else 0
    image += 16 * 512 * 512 + 1024 + 16 * 512 * 256 + 256
    assert count(network.encoder) == image
    assert count(network) == image + decoder == 20_517_569


def test_the_decoder_is_the_plain_network() -> None:
    torch.manual_seed(0)
    decoder, code, points = IMDecoder(6, 3), torch.rand(2, 6), torch.rand(2, 5, 3)
    decoder.requires_grad_(False)
    x = torch.cat([points, code.unsqueeze(1).expand(-1, 5, -1)], -1)
    for layer in (decoder.first, *decoder.others):
        x = layer(x)
        x = torch.where(x > 0, x, 0.02 * x) if layer is not decoder.others[-1] else x
    torch.testing.assert_close(decoder(code, points), x[..., 0])


def test_starts() -> None:
    torch.manual_seed(0)
    published = IMDecoder()
    for layer in (published.first, *published.others):
        assert bool((layer.bias == 0).all())
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.15)
    code, points = torch.rand(4, 256), torch.rand(4, 50, 3) - 0.5
    assert published(code, points).std() < 1e-2
    values = IMDecoder(256, 4, "kaiming")(code, points)
    assert 0.05 < (values - 0.5).square().mean().sqrt() < 1


def test_the_field_has_occupancies_logits_slices_and_codes() -> None:
    torch.manual_seed(0)
    network = IMNet(**SMALL, encoder_width=8, norm="group")
    field = network(torch.rand(3, 3, 64, 64))
    assert isinstance(field, IMField)
    points = torch.rand(3, 40, 3) - 0.5
    value = network.decoder(field.code, points)
    torch.testing.assert_close(field.logits(points), 10 * (value - 0.5))
    torch.testing.assert_close(field.occupancies(points), leaky_clip(value))
    assert 0 < field.code.min() < field.code.max() < 1
    part = field[1:]
    assert (len(part), part.resolution, part.coarse, part.chunk) == (2, 16, 8, 16384)
    torch.testing.assert_close(part.logits(points[1:]), field.logits(points)[1:])
    assert field[0].target_code is None
    field.target_code = torch.rand(3, 16)
    assert torch.equal(field[2].target_code, field.target_code[2:])
    clipped = torch.tensor([-2.0, 0.3, 3.0], requires_grad=True)
    (slope,) = torch.autograd.grad(leaky_clip(clipped).sum(), clipped)
    torch.testing.assert_close(slope, torch.tensor([0.01, 1.0, 0.01]))


def test_voxels_of_other_sizes() -> None:
    torch.manual_seed(0)
    encoder = VoxelEncoder(8, 4, 16)
    grid = torch.rand(2, 16, 16, 16)
    torch.testing.assert_close(encoder(grid.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)),
                               encoder(grid))  # fmt: skip
    coarse = torch.rand(2, 8, 8, 8)
    fine = coarse.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(encoder(coarse), encoder(fine))
    assert encoder(torch.rand(1, 12, 12, 12)).shape == (1, 8)
    with pytest.raises(ReconlabError, match=r"\(2, 8, 8, 4\)"):
        encoder(torch.rand(2, 8, 8, 4))
    for size in (4, 48):
        with pytest.raises(ReconlabError, match=f"size is {size}"):
            VoxelEncoder(size=size)


def test_the_autoencoder_fits_one_shape() -> None:
    torch.manual_seed(0)
    network = IMNetAutoencoder(
        code=32, encoder_width=4, decoder_width=8, voxel_size=32, resolution=32, start="kaiming"
    )
    voxels = table()[None]
    batch = Batch(["table"], ["table"], voxels=voxels)
    loss = OccupancyMSE(points=2048)
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for step in range(150):
        loss.advance(step, 150)
        optimizer.zero_grad()
        loss(network.reconstruct(batch), batch)["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        field = network.reconstruct(batch)
        assert voxel_iou(field.voxels(32).values, voxels).item() > 0.9
        mesh = field.mesh().to_trimesh(0)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(float(voxels.mean()), rel=0.2)  # thin parts lose edges


@pytest.mark.parametrize(
    "loss",
    [
        SilhouetteIoU(views_per_step=3, image_size=48, half_fov=11.5),
        DRKFS(views_per_step=2, image_size=64, radius=0, half_fov=11.5),
    ],
    ids=["silhouettes", "drkfs"],
)
def test_image_losses_improve_a_fitted_field(loss: torch.nn.Module) -> None:
    """A decoder that knows a ball learns, from images of its mesh alone, to give a smaller one elsewhere."""
    torch.manual_seed(0)
    decoder = IMDecoder(4, 8, "kaiming")
    code = torch.rand(1, 4)
    optimizer = torch.optim.Adam(decoder.parameters(), 5e-3)
    for _ in range(120):
        points = torch.rand(1, 1500, 3) - 0.5
        target = (0.5 + 4 * (0.33 - points.norm(dim=-1))).clamp(0, 1)
        optimizer.zero_grad()
        (decoder(code, points) - target).square().mean().backward()
        optimizer.step()

    import trimesh

    true = trimesh.creation.icosphere(3, 0.28)
    goal = torch.tensor([0.03, 0.0, -0.02])
    mesh = Mesh(torch.tensor(true.vertices).float() + goal, torch.tensor(true.faces))
    batch = Batch(["ball"], ["ball"], mesh=mesh)

    def judge() -> tuple[float, float]:
        with torch.no_grad():
            loss.eval()
            field = IMField(decoder, code, 24, 4096, 24)
            miss = (field.mesh().vertices - goal).norm(dim=-1) - 0.28
            value = loss(field, batch)["loss"].item()
            loss.train()
        return value, miss.abs().mean().item()

    before = judge()
    optimizer = torch.optim.Adam(decoder.parameters(), 5e-4)
    for step in range(25):
        loss.advance(step, 25)
        optimizer.zero_grad()
        loss(IMField(decoder, code, 24, 4096, 24), batch)["loss"].backward()
        optimizer.step()
    after = judge()
    assert after[0] < 0.6 * before[0]
    assert after[1] < 0.7 * before[1]


def save(network: torch.nn.Module, path: Path) -> str:
    state = {f"network.{k}": v for k, v in network.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": {}}, path)
    return str(path)


def test_the_image_stage_learns_the_codes_of_the_autoencoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = IMNetAutoencoder(**SMALL, encoder_width=4, voxel_size=16)
    path = save(first, tmp_path / "first.ckpt")
    settings = {**SMALL, "encoder_width": 8, "norm": "group", "voxel_encoder_width": 4, "voxel_size": 16}
    network = IMNet(**settings, decoder_from=path, regress_codes=True, freeze_decoder=True)
    assert network.needs == {"images", "voxels"}
    batch = Batch(
        ["a", "b"], ["c", "c"], images=torch.rand(2, 3, 64, 64), voxels=(torch.rand(2, 16, 16, 16) > 0.5).float()
    )
    field = network.reconstruct(batch)
    torch.testing.assert_close(field.target_code, first.encoder(batch.voxels).detach())
    points = torch.rand(2, 9, 3) - 0.5
    theirs = first.decoder(first.encoder(batch.voxels), points)
    torch.testing.assert_close(network.decoder(field.target_code, points), theirs)
    loss = CodeRegression()
    start = loss(field, batch)["loss"].item()
    frozen = [p.clone() for p in network.decoder.parameters()]
    optimizer = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], 1e-3)
    for _ in range(30):
        optimizer.zero_grad()
        value = loss(network.reconstruct(batch), batch)["loss"]
        value.backward()
        optimizer.step()
    assert value.item() < 0.1 * start
    for mine, theirs in zip(network.decoder.parameters(), frozen, strict=True):
        assert torch.equal(mine, theirs)
    # A checkpoint of this run stands alone, and can be gone on from.
    again = IMNet(**settings, regress_codes=True)
    again.load_state_dict(network.state_dict())
    torch.testing.assert_close(again.reconstruct(batch).target_code, field.target_code)
    third = IMNet(**settings, decoder_from=save(network, tmp_path / "second.ckpt"), regress_codes=True)
    torch.testing.assert_close(third.reconstruct(batch).target_code, field.target_code)
    assert network.eval().reconstruct(batch).target_code is None


def test_mistakes_are_named(tmp_path: Path) -> None:
    path = save(IMNetAutoencoder(**SMALL, encoder_width=4, voxel_size=16), tmp_path / "small.ckpt")
    images = Batch(["a"], ["b"], images=torch.rand(1, 3, 64, 64), voxels=torch.zeros(1, 16, 16, 16))
    small = {**SMALL, "norm": "group", "encoder_width": 8}
    for call, text in [
        (lambda: IMNet(norm="layer"), "norm is 'layer'"),
        (lambda: IMNet(start="zero"), "start is 'zero'"),
        (lambda: IMNetAutoencoder(code=0), "code is 0"),
        (lambda: IMNetAutoencoder(resolution=0), "resolution is 0"),
        (lambda: IMNet(**{**small, "code": 8}, decoder_from=path), "does not hold IMNet's decoder as configured"),
        (lambda: IMNet(**small, decoder_from=path, regress_codes=True), "does not hold IMNet's voxel encoder"),
        (lambda: IMNet(decoder_from=str(tmp_path / "none.ckpt")), "does not exist"),
        (lambda: IMNet(**small, regress_codes=True).reconstruct(images), "set decoder_from"),
        (lambda: IMNetAutoencoder(**SMALL)(torch.rand(1, 3, 64, 64)), "reads voxels, not images"),
        (lambda: IMNetAutoencoder(**SMALL).reconstruct(Batch(["a"], ["b"])), "'voxels' of the batch"),
        (lambda: IMNet(**small)(torch.rand(2, 3, 64, 48)), r"IMNet takes square images .* \(2, 3, 64, 48\)"),
    ]:
        with pytest.raises(ReconlabError, match=text):
            call()


def test_gradients_of_two_losses_are_measured_through_recomputed_chunks() -> None:
    """As Balanced does: by the code, keeping the graph, then once more by everything."""
    torch.manual_seed(0)
    decoder, code = IMDecoder(8, 4, "kaiming"), torch.rand(2, 8, requires_grad=True)
    found = []
    for chunk in (100_000, 64):
        vertices = IMField(decoder, code, 16, chunk, 8).mesh().vertices
        assert len(vertices) > 100
        size, height = vertices.square().sum(), vertices[:, 1].square().sum()
        one = torch.autograd.grad(size, [code], retain_graph=True)
        two = torch.autograd.grad(height, [code], retain_graph=True)
        both = torch.autograd.grad(size + height, [code, *decoder.parameters()])
        torch.testing.assert_close(both[0], one[0] + two[0])
        found.append(both)
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
