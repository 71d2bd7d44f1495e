import json

import pytest
import torch

from reconlab.errors import ReconlabError
from reconlab.features import DenseDescriptor, HardNet, PatchExtractor, PiecewiseLinearDetector, load_dense
from reconlab.features.train import dense as training
from reconlab.features.weights import save_state


def small():
    torch.manual_seed(0)
    net = DenseDescriptor(widths=(4, 8, 8, 16, 16)).double()
    net.centre()
    return net


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (80, 135), (47, 33)])
def test_whole_maps_equal_patch_by_patch(size):
    """The normalisation of each patch by its mean and deviation drops out, borders and odd sizes included."""
    net = small()
    maps = 0.3 + torch.rand(2, 1, *size, dtype=torch.float64)
    maps[0] *= 0.02  # little contrast, where eps matters
    out = net(maps)
    assert out.shape == (2, (size[0] - 32) // 16 + 1, (size[1] - 32) // 16 + 1, 16)
    torch.testing.assert_close(out, net.reference(maps), rtol=0, atol=1e-12)
    torch.testing.assert_close(out.norm(dim=-1), torch.ones_like(out[..., 0]), rtol=0, atol=1e-12)


def test_brightness_and_contrast_do_not_matter_but_flatness_does():
    net = small()
    patch = torch.rand(1, 1, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(net(patch + 5), net(patch), rtol=0, atol=1e-10)
    torch.testing.assert_close(net(1e6 * patch), net(2e6 * patch), rtol=0, atol=1e-6)
    blank = torch.nn.functional.normalize(net.flat.detach(), dim=0)
    torch.testing.assert_close(net(1e-7 * patch)[0, 0, 0], blank, rtol=0, atol=1e-3)
    assert float((net(patch)[0, 0, 0] - blank).detach().norm()) > 0.1


def test_gradient_of_nearly_flat_patches_is_bounded_as_hardnets_is():
    """Noise of 1e-6 on flat patches: without eps the gradient would be a million times a textured patch's."""
    norms = []
    target = torch.nn.functional.interpolate(torch.rand(8, 1, 5, 5, dtype=torch.float64), 32, mode="bicubic")
    noise = 1e-6 * torch.rand(8, 1, 32, 32, dtype=torch.float64)
    for net in (load_dense().fold().double(), PatchExtractor.load().hardnet.double()):
        patches = noise.clone().requires_grad_()
        distance = (net(patches).flatten(1) - net(target).flatten(1)).square().sum()
        norms.append(float(torch.autograd.grad(distance, patches)[0].flatten(1).norm(dim=1).mean()))
    assert norms[0] < 10 * norms[1]


def test_gradient_by_finite_differences():
    net = small()
    maps = torch.rand(1, 1, 32, 48, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 16, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda m: (net(m)[0, 0] * weight).sum(), maps, fast_mode=True)


def test_size_and_work_of_the_bundled_descriptor():
    """0.36 M parameters; an eighth of HardNet's work per patch even where no patches overlap."""
    counts = [sum(p.numel() for p in net.parameters()) for net in (DenseDescriptor(), HardNet())]
    # 16·32 + 9·32·32 + 9·32·64 + 9·64·128 + 16·128·128 + 128
    assert counts[0] == 364160
    assert counts[1] == 1334560


def extractor():
    torch.manual_seed(1)
    return PatchExtractor(PiecewiseLinearDetector(kernel=9), DenseDescriptor())


def test_extractor_gives_the_grid_and_the_means():
    made = extractor()
    images = torch.rand(3, 64, 80)
    features = made(images)
    assert features.descriptors.shape == (3, 3, 4, 128)
    maps, _, _ = made.poi(images)
    windows = maps[:, 0].unfold(1, 32, 16).unfold(2, 32, 16)
    torch.testing.assert_close(features.weights, windows.mean(dim=(-2, -1)).clamp(min=0), rtol=1e-5, atol=1e-6)
    assert not any(p.requires_grad for p in made.parameters())
    with pytest.raises(ReconlabError, match="32 at a stride of 16, not 32 and 8"):
        PatchExtractor(PiecewiseLinearDetector(kernel=9), DenseDescriptor(), stride=8)


def test_bundled_weights_answer_as_hardnet_on_poi_maps():
    """Patches of shapes that the training did not see: the answers' cosine, and a random network's beside it."""
    exact = PatchExtractor.load()
    generator = torch.Generator().manual_seed(5)
    meshes = training.synthetic_meshes(2, training.HELD_OUT + 500)
    patches = training.poi_patches(meshes, exact, generator, per_mesh=20)
    answers = training.describe(exact.hardnet, patches)
    found = training.likeness(training.describe(load_dense(), patches), answers)
    torch.manual_seed(0)
    untrained = training.likeness(training.describe(DenseDescriptor(), patches), answers)
    assert found["cosine"] > 0.9
    assert found["distances"] > 0.9
    assert untrained["cosine"] < 0.5


def test_training_learns_given_answers():
    torch.manual_seed(0)
    patches = torch.nn.functional.interpolate(torch.rand(16, 1, 6, 6), 32, mode="bilinear")[:, 0]
    answers = torch.nn.functional.normalize(torch.randn(16, 128), dim=1)
    _, curve = training.train_dense(patches, answers, 60, seed=0, batch=16, bf16=False, widths=(4, 8, 8, 32, 128))
    assert curve[-1] < 0.5 * curve[0]


def test_likeness_by_hand():
    answers = torch.eye(4)
    assert training.likeness(answers, answers)["cosine"] == 1.0
    assert training.likeness(-answers, answers)["cosine"] == -1.0
    assert training.likeness(-answers, answers)["patches"] == 4


def test_the_command_makes_a_file_that_loads(tmp_path):
    training.main(f"--shapes 2 --held-out 2 --iterations 2 --batch 8 --no-bf16 --out {tmp_path}".split())
    assert load_dense(str(tmp_path / "dense.safetensors")).widths == (32, 32, 64, 128, 128)
    card = json.loads((tmp_path / "dense.json").read_text())
    assert "--shapes 2" in card["command"]
    assert str(tmp_path) not in card["command"]
    assert card["held_out"]["patches"] > 0


def test_user_errors(tmp_path):
    with pytest.raises(ReconlabError, match=r"\(M, 1, H, W\) of at least 32"):
        small()(torch.zeros(1, 1, 31, 64, dtype=torch.float64))
    with pytest.raises(ReconlabError, match="no weights of kornia"):
        load_dense("kornia")
    with pytest.raises(ReconlabError, match=r"nowhere\.pth"):
        load_dense(str(tmp_path / "nowhere.pth"))
    save_state(tmp_path / "hardnet.safetensors", HardNet(), {})
    with pytest.raises(ReconlabError, match="does not hold a dense descriptor"):
        load_dense(str(tmp_path / "hardnet.safetensors"))
    net = DenseDescriptor()
    del net.flat
    save_state(tmp_path / "no_flat.safetensors", net, {})
    with pytest.raises(ReconlabError, match="lacks 'flat'"):
        load_dense(str(tmp_path / "no_flat.safetensors"))
