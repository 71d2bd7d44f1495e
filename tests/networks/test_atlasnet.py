import pytest
import torch
import trimesh

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.losses import Chamfer
from reconlab.networks import AtlasNet, AtlasNetAutoencoder
from reconlab.networks.atlasnet import PatchDecoder, patch_faces
from reconlab.networks.resnet import ResNet18

SMALL = {"patches": 4, "latent": 32, "hidden": 32, "grid": 5}


def small(**extra) -> AtlasNet:
    torch.manual_seed(0)
    return AtlasNet(**SMALL, encoder_width=8, **extra)


def test_parameter_counts_of_the_paper():
    # ResNet-18 without its classifier: 11,176,512 parameters; then a 512 → 1024 layer.
    assert sum(p.numel() for p in ResNet18(1024).parameters()) == 11_176_512 + 512 * 1024 + 1024
    per_patch = (2 * 1024 + 1024) + (1024 * 512 + 512) + 2 * (512 * 512 + 512) + (512 * 3 + 3)
    norms = 2 * (1024 + 3 * 512)
    assert sum(p.numel() for p in PatchDecoder(25).parameters()) == 25 * (per_patch + norms)


def test_regular_mesh_of_the_paper():
    with torch.device("meta"):
        faces = patch_faces(25, 10)
    assert faces.shape == (4050, 3)
    network = small().eval()
    mesh = network(torch.rand(2, 3, 64, 64)).mesh()
    assert mesh.item(1)[0].shape == (4 * 25, 3)
    assert mesh.item(1)[1].shape == (4 * 16 * 2, 3)


def test_patch_faces_tile_the_square():
    faces = patch_faces(2, 4)
    side = torch.linspace(0, 1, 4)
    uv = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    corners = torch.cat([uv, uv + torch.tensor([5.0, 0.0])])[faces]
    edge1, edge2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = (edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]) / 2
    torch.testing.assert_close(area.sum(), torch.tensor(2.0))
    assert bool((area > 0).all()), "all triangles are turned alike"


def test_decoder_equals_a_loop_over_patches():
    torch.manual_seed(1)
    decoder = PatchDecoder(3, 8, 16).eval()
    latent, uv = torch.randn(2, 8), torch.rand(2, 3, 7, 2)
    with torch.no_grad():
        for norm in decoder.norms:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
        got = decoder(latent, uv)
        for b in range(2):
            for p in range(3):
                x = uv[b, p]
                for i, (weight, bias) in enumerate(zip(decoder.weights, decoder.biases, strict=True)):
                    x = x @ weight[p].T + bias[p, :, 0]
                    if i == 0:
                        x = x + latent[b]
                    if i < 4:
                        norm, size = decoder.norms[i], x.shape[-1]
                        part = slice(p * size, (p + 1) * size)
                        scale = (norm.running_var[part] + norm.eps).sqrt()
                        x = torch.relu((x - norm.running_mean[part]) / scale * norm.weight[part] + norm.bias[part])
                torch.testing.assert_close(got[b, p], x, atol=1e-5, rtol=1e-4)


def test_training_points_are_fresh_and_fair_to_patches():
    network = small().train()
    shape = network(torch.rand(2, 3, 64, 64))
    assert shape.points(50).shape == (2, 50, 3)
    assert not torch.equal(shape.points(50), shape.points(50))
    seeded = [shape.points(50, torch.Generator().manual_seed(0)) for _ in range(2)]
    # The running statistics move, the batch's own do not: training points depend on the seed alone.
    torch.testing.assert_close(seeded[0], seeded[1])
    shape.decode = lambda latent, uv: torch.arange(4.0).reshape(1, 4, 1, 1).expand(2, 4, uv.shape[2], 3)
    counts = shape.points(50)[0, :, 0].long().bincount(minlength=4)
    assert int(counts.max() - counts.min()) <= 1


def test_slices_are_parts_of_the_same_surface():
    network = small().train()
    shape = network(torch.rand(3, 3, 64, 64))
    part = shape[1:3]
    torch.testing.assert_close(part.mesh().item(0)[0], shape.mesh().item(1)[0])
    part.points(10).sum().backward()
    assert network.decoder.weights[0].grad is not None


def test_group_normalisation_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    images = torch.rand(4, 3, 64, 64)
    encoder = ResNet18(16, 8, "group").train()
    torch.testing.assert_close(encoder(images)[:2], encoder(images[:2]), atol=1e-5, rtol=1e-4)
    with pytest.raises(ReconlabError, match="norm is 'layer'"):
        ResNet18(16, 8, "layer")


def test_evaluation_points_lie_on_the_mesh():
    network = small().eval()
    shape = network(torch.rand(1, 3, 64, 64))
    points, normals = shape.surface(200, torch.Generator().manual_seed(0))
    mesh = shape.mesh().to_trimesh(0)
    _, distance, _ = trimesh.proximity.closest_point_naive(mesh, points[0].detach().numpy())
    assert float(distance.max()) < 1e-4  # slivers cost trimesh some digits
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(1, 200))
    torch.testing.assert_close(shape[0:1].mesh().vertices, shape.mesh().vertices)


def test_overfits_one_shape():
    # Four small patches onto a box: an untrained surface is about .3 away from it.
    torch.manual_seed(0)
    box = trimesh.creation.box((0.8, 0.4, 0.2))
    points = torch.tensor(trimesh.sample.sample_surface(box, 500, seed=0)[0], dtype=torch.float32)
    image = torch.rand(2, 3, 32, 32)
    batch = Batch(["a", "b"], ["x", "x"], images=image, points=points.expand(2, -1, -1))
    network, loss = small(), Chamfer(points=500)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    values = []
    for _ in range(200):
        optimizer.zero_grad()
        value = loss(network.reconstruct(batch), batch)["loss"]
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.004
    assert values[-1] < 0.05 * values[0]


def test_every_parameter_gets_a_gradient():
    network = small().train()
    network(torch.rand(2, 3, 64, 64)).points(100).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


def checkpoint_of(network: torch.nn.Module, path) -> str:
    state = {f"network.{k}": v for k, v in network.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": {}}, path)
    return str(path)


def test_stages_share_the_decoder(tmp_path):
    torch.manual_seed(0)
    auto = AtlasNetAutoencoder(**SMALL)
    auto.train()
    auto.encode(torch.rand(4, 50, 3))  # moves the running statistics
    path = checkpoint_of(auto, tmp_path / "auto.ckpt")
    network = small(decoder_from=path, freeze_decoder=True)
    for key, value in auto.decoder.state_dict().items():
        torch.testing.assert_close(network.decoder.state_dict()[key], value)
    before = {k: v.clone() for k, v in network.decoder.state_dict().items()}
    network.train()
    shape = network(torch.rand(2, 3, 64, 64))
    shape.training = True
    shape.points(50).sum().backward()
    assert all(p.grad is None for p in network.decoder.parameters())
    assert all(torch.equal(before[k], v) for k, v in network.decoder.state_dict().items()), "statistics are frozen"
    assert any(p.grad is not None for p in network.encoder.parameters())


def test_autoencoder_reads_points_not_images():
    auto = AtlasNetAutoencoder(**SMALL).eval()
    batch = Batch(["a"], ["x"], points=torch.rand(1, 30, 3))
    order = torch.randperm(30)
    shuffled = Batch(["a"], ["x"], points=batch.points[:, order])
    torch.testing.assert_close(auto.reconstruct(batch).mesh().vertices, auto.reconstruct(shuffled).mesh().vertices)
    with pytest.raises(ReconlabError, match="reads surface points"):
        auto(torch.rand(1, 3, 64, 64))
    with pytest.raises(ReconlabError, match="needs 'points'"):
        auto.reconstruct(Batch(["a"], ["x"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patches": 0}, "patches is too small"),
        ({"grid": 1}, "grid"),
        ({"decoder_from": "absent.ckpt"}, "does not exist"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(ReconlabError, match=message):
        AtlasNet(**{**SMALL, "encoder_width": 8, **change})


def test_wrong_decoder_is_refused(tmp_path):
    path = checkpoint_of(AtlasNetAutoencoder(**{**SMALL, "hidden": 16}), tmp_path / "other.ckpt")
    with pytest.raises(ReconlabError, match=r"other\.ckpt does not hold this patch decoder"):
        small(decoder_from=path)
    (tmp_path / "junk.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(ReconlabError, match=r"junk\.ckpt cannot be read"):
        small(decoder_from=str(tmp_path / "junk.ckpt"))
