import pickle

import pytest
import torch
from kornia.feature import HardNet as KorniaHardNet

from reconlab.errors import ReconlabError
from reconlab.features import HardNet


@pytest.fixture(scope="module")
def pair():
    """Kornia's HardNet and ours with one state dict whose BatchNorm statistics are not trivial."""
    torch.manual_seed(0)
    theirs = KorniaHardNet(pretrained=False).train()
    with torch.no_grad():
        for _ in range(3):
            theirs(torch.rand(16, 1, 32, 32))
    theirs.eval()
    ours = HardNet(eps=1e-6).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def test_equals_kornia_unfolded_and_folded(pair):
    theirs, ours = pair
    patches = torch.rand(8, 1, 32, 32)
    expected = theirs(patches).detach()
    torch.testing.assert_close(ours(patches), expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(ours.fold()(patches), expected, atol=2e-5, rtol=1e-4)


def test_gradient_to_the_patch_equals_kornias(pair):
    theirs, ours = pair
    patches = torch.rand(3, 1, 32, 32)
    direction = torch.randn(3, 128)
    grads = []
    for net in (theirs, ours, ours.fold()):
        x = patches.clone().requires_grad_()
        (net(x) * direction).sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(grads[1], grads[0], atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(grads[2], grads[0], atol=1e-4, rtol=1e-3)


def test_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in HardNet().parameters()) == 1_334_560


def test_folding_freezes_and_leaves_the_original_alone(pair):
    _, ours = pair
    folded = ours.fold()
    assert not any(p.requires_grad for p in folded.parameters())
    assert any(p.requires_grad for p in ours.parameters())
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    assert folded.fold().folded


def test_large_eps_tames_the_gradient_of_a_flat_patch(pair):
    _, ours = pair
    noise = 0.5 + 1e-6 * torch.randn(1, 1, 32, 32)
    direction = torch.randn(1, 128)
    norms = []
    for eps in (1e-6, 1e-2):
        net = HardNet(eps=eps).eval()
        net.load_state_dict(ours.state_dict())
        x = noise.clone().requires_grad_()
        (net(x) * direction).sum().backward()
        norms.append(float(x.grad.norm()))
    assert norms[0] > 100 * norms[1]


def test_no_patches_and_wrong_patches():
    net = HardNet().eval()
    assert net(torch.zeros(0, 1, 32, 32)).shape == (0, 128)
    with pytest.raises(ReconlabError, match=r"\(P, 1, 32, 32\)"):
        net(torch.zeros(2, 1, 16, 16))


def test_blank_patch_is_finite_with_gradient():
    net = HardNet().eval()
    x = torch.zeros(2, 1, 32, 32, requires_grad=True)
    net(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_pickles(pair):
    _, ours = pair
    patches = torch.rand(2, 1, 32, 32)
    again = pickle.loads(pickle.dumps(ours.fold()))
    torch.testing.assert_close(again(patches), ours.fold()(patches))
