import pytest
import torch

from reconlab.errors import ReconlabError
from reconlab.features import HardNet, PatchExtractor, PiecewiseLinearDetector
from reconlab.features.patches import extract_patches, flat_patches, patch_grid


def test_the_papers_count():
    assert [patch_grid(s, s)[0] ** 2 for s in (256, 128, 64, 32)] == [225, 49, 9, 1]
    with pytest.raises(ReconlabError, match="at least 32"):
        patch_grid(31, 64)


def test_patches_are_the_windows():
    maps = torch.arange(2 * 64 * 96, dtype=torch.float32).view(2, 1, 64, 96)
    patches = extract_patches(maps)
    assert patches.shape == (2, 3, 5, 32, 32)
    assert torch.equal(patches[1, 2, 4], maps[1, 0, 32:64, 64:96])


def test_flat_patches():
    patches = torch.zeros(3, 32, 32)
    patches[1] += 1e-4 * torch.randn(32, 32)
    patches[2, :, 16:] = 1.0
    assert flat_patches(patches, 5e-3).tolist() == [True, True, False]


@pytest.fixture(scope="module")
def extractor():
    torch.manual_seed(0)
    return PatchExtractor(PiecewiseLinearDetector(kernel=9), HardNet().eval())


def test_features_of_a_view(extractor):
    images = torch.rand(2, 64, 80)
    features = extractor(images)
    assert features.descriptors.shape == (2, 3, 4, 128)
    assert features.weights.shape == (2, 3, 4)
    maps, low, high = extractor.poi(images)
    assert maps.flatten(1).amin(1).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert maps.flatten(1).amax(1).tolist() == pytest.approx([1, 1], abs=1e-6)
    torch.testing.assert_close(features.weights, extract_patches(maps).mean((-1, -2)))
    assert torch.equal(features.low, low)
    assert torch.equal(features.high, high)


def test_reconstruction_uses_the_truths_range(extractor):
    truth = extractor(torch.rand(1, 64, 64))
    images = 0.5 * torch.rand(1, 64, 64)
    maps, low, high = extractor.poi(images, like=truth)
    assert torch.equal(low, truth.low)
    torch.testing.assert_close(maps, (extractor.detector(images[:, None]) - low) / (high - low))


def test_stays_in_eval_mode_with_frozen_weights(extractor):
    extractor.train()
    assert not any(m.training for m in extractor.modules())
    assert not any(p.requires_grad for p in extractor.parameters())
    images = torch.rand(1, 64, 64, requires_grad=True)
    extractor(images).descriptors[..., :3].sum().backward()
    assert float(images.grad.abs().sum()) > 0


def test_masked_and_plain_description_agree_on_textured_patches(extractor):
    patches = torch.rand(5, 32, 32)
    patches[2] = 0.5
    plain = extractor.hardnet(patches.unsqueeze(1))
    torch.testing.assert_close(extractor.describe(patches), plain, atol=1e-5, rtol=1e-4)


def test_bf16_changes_descriptors_by_little(extractor):
    half = PatchExtractor(extractor.detector, extractor.hardnet, bf16=True)
    images = torch.rand(1, 64, 64, requires_grad=True)
    exact, rough = extractor(images).descriptors, half(images).descriptors
    assert rough.dtype == torch.float32
    assert float((exact * rough).sum(-1).detach().min()) > 0.99
    rough[..., :3].sum().backward()
    assert torch.isfinite(images.grad).all()
