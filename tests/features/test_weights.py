import hashlib
import json

import pytest
import torch
from kornia.feature import HardNet as KorniaHardNet
from kornia.feature import TFeat

from reconlab.errors import ReconlabError
from reconlab.features import HardNet, PatchExtractor, PiecewiseLinearDetector, load_detector, load_hardnet
from reconlab.features import weights as module
from reconlab.features.weights import BUNDLED, DENSE_FILE, DETECTOR_FILE, HARDNET_FILE, save_state


@pytest.mark.parametrize("name", [DENSE_FILE, DETECTOR_FILE, HARDNET_FILE])
def test_bundled_files_are_what_their_cards_say(name):
    path = BUNDLED / name
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["file"] == name
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card["command"].startswith("python -m reconlab.features.train")
    assert card["commit"] != "unknown"


def test_bundled_networks_load_in_eval_mode():
    net, detector = load_hardnet(), load_detector()
    assert not net.training
    assert (detector.terms, detector.pieces) == (4, 4)
    assert float(detector.reference_range[1]) > float(detector.reference_range[0])
    assert net(torch.rand(2, 1, 32, 32)).norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-3)


def test_bundled_hardnet_beats_a_random_one_at_matching():
    """Textures of blobs, and the same moved, turned a little and relit: more right matches than untrained."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(128, 1, 12, 12, generator=generator)
    image = torch.nn.functional.interpolate((noise > 0.6).float(), 48, mode="bilinear")
    turn = torch.tensor([[1.05, 0.12, 0.06], [-0.1, 0.96, -0.05]]).expand(128, 2, 3)
    grid = torch.nn.functional.affine_grid(turn, [128, 1, 48, 48], align_corners=False)
    other = 0.7 * torch.nn.functional.grid_sample(image, grid, align_corners=False) ** 1.3 + 0.1
    a, b = image[..., 8:40, 8:40], other[..., 8:40, 8:40]
    torch.manual_seed(0)
    accuracy = []
    for net in (load_hardnet().fold(), HardNet().eval().fold()):
        accuracy.append(float((torch.cdist(net(a), net(b)).argmin(1) == torch.arange(128)).float().mean()))
    assert accuracy[0] > accuracy[1]
    assert accuracy[0] > 0.9


def test_a_path_gives_the_same_network(tmp_path):
    net = HardNet().eval()
    patches = torch.rand(2, 1, 32, 32)
    save_state(tmp_path / "a.safetensors", net, {})
    torch.save({"state_dict": net.state_dict()}, tmp_path / "b.pth")
    torch.testing.assert_close(load_hardnet(str(tmp_path / "b.pth"))(patches), net(patches))
    torch.testing.assert_close(
        load_hardnet(str(tmp_path / "a.safetensors"))(patches), net(patches), atol=5e-3, rtol=0
    )
    detector = PiecewiseLinearDetector(pieces=3, kernel=7)
    save_state(tmp_path / "d.safetensors", detector, {})
    assert load_detector(str(tmp_path / "d.safetensors")).pieces == 3


def test_kornias_state_dict_loads(tmp_path):
    theirs = KorniaHardNet(pretrained=False).eval()
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "k.pth")
    patches = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(
        load_hardnet(str(tmp_path / "k.pth"), eps=1e-6)(patches), theirs(patches), atol=1e-5, rtol=1e-4
    )


def test_kornia_offline_is_one_clear_error(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("kornia.feature.hardnet.load_state_dict_from_url", fail)
    with pytest.raises(ReconlabError, match=r"kornia to download.*no route to host.*bundled"):
        load_hardnet("kornia")


def test_kornia_online_uses_its_weights(monkeypatch):
    theirs = KorniaHardNet(pretrained=False).eval()
    monkeypatch.setattr(
        "kornia.feature.hardnet.load_state_dict_from_url", lambda *a, **k: {"state_dict": theirs.state_dict()}
    )
    patches = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(load_hardnet("kornia", eps=1e-6)(patches), theirs(patches), atol=1e-5, rtol=1e-4)


def test_never_a_silent_fallback(tmp_path, monkeypatch):
    with pytest.raises(ReconlabError, match=r"nowhere\.pth"):
        load_hardnet(str(tmp_path / "nowhere.pth"))
    monkeypatch.setattr(module, "BUNDLED", tmp_path)
    with pytest.raises(ReconlabError, match=r"reconlab\.features\.train"):
        load_hardnet()
    with pytest.raises(ReconlabError, match=r"reconlab\.features\.train"):
        PatchExtractor.load()


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_damaged_files(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"this is no weight file")
    with pytest.raises(ReconlabError, match=r"x\.(pth|safetensors) could not be read"):
        load_hardnet(str(path))


def test_other_networks(tmp_path):
    path = tmp_path / "tfeat.pth"
    torch.save(TFeat(pretrained=False).state_dict(), path)
    with pytest.raises(ReconlabError, match=r"tfeat\.pth is not a state dict of HardNet.*lacks"):
        load_hardnet(str(path))
    with pytest.raises(ReconlabError, match="piecewise-linear"):
        load_detector(str(path))
    state = HardNet().state_dict()
    state["features.18.weight" if "features.18.weight" in state else "features.19.weight"] = torch.zeros(
        64, 128, 8, 8
    )
    torch.save(state, path)
    with pytest.raises(ReconlabError, match="another shape"):
        load_hardnet(str(path))
    torch.save([1, 2], path)
    with pytest.raises(ReconlabError, match="does not hold a state dict"):
        load_hardnet(str(path))


def test_pickled_code_is_refused(tmp_path):
    path = tmp_path / "code.pth"
    torch.save(HardNet(), path)
    with pytest.raises(ReconlabError, match="could not be read"):
        load_hardnet(str(path))


def test_others_descriptors_do_not_pass_for_hardnet(shared):
    path = shared / "weights" / "HardTFeat.pth"
    with pytest.raises(ReconlabError, match="HardNet"):
        load_hardnet(str(path))
