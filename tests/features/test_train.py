import json

import pytest
import torch

from reconlab.cameras import Cameras, softras_cameras
from reconlab.features import load_detector, load_hardnet
from reconlab.features.train.__main__ import main, synthetic_meshes
from reconlab.features.train.detector import hinge, soft_maximum
from reconlab.features.train.hardnet import augment, hardest_in_batch, matching, train_hardnet
from reconlab.features.train.patches import ViewPair, corners, cut, spread, transfer, view_pairs


@pytest.fixture(scope="module")
def pairs():
    generator = torch.Generator().manual_seed(0)
    return list(view_pairs(synthetic_meshes(4, 0), 1, 96, generator))


def test_corners_of_a_square():
    image = torch.zeros(80, 80)
    image[30:50, 25:60] = 1.0
    found = corners(image, 10).float()
    expected = torch.tensor([[30, 25], [30, 59], [49, 25], [49, 59]]).float()
    assert len(found) == 4
    assert float(torch.cdist(expected, found).amin(1).max()) <= 2


def test_transfer_between_equal_views_is_the_identity(pairs):
    pair = pairs[0]
    same = ViewPair(pair.grey[:1].expand(2, -1, -1), pair.depth[:1].expand(2, -1, -1), pair.cameras[[0, 0]])
    points = torch.isfinite(pair.depth[0]).nonzero()[::37]
    at, seen = transfer(same, points)
    assert seen.float().mean() > 0.9
    # pixels on the outline take the nearer neighbour's depth, hence the half pixel
    torch.testing.assert_close(at[seen], points[seen].float(), atol=0.5, rtol=0)


def test_transfer_follows_the_surface_and_sees_what_hides_it():
    """A plane at depth 2 before a camera, and one moved right by 0.1: the image moves left by f·0.1/2 of a
    half-width; a screen at depth 1 in the second view hides all."""
    one = softras_cameras(0.0, 0.0, 2.0).reshape(1)
    two = Cameras(one.R, one.t + torch.tensor([-0.1, 0.0, 0.0]), one.focal, one.centre)
    depth = torch.full((2, 64, 64), 2.0)
    pair = ViewPair(torch.zeros(2, 64, 64), depth, Cameras.cat([one, two]))
    at, seen = transfer(pair, torch.tensor([[30, 40]]))
    assert seen.all()
    assert at[0].tolist() == pytest.approx([30, 40 - float(one.focal[0, 0]) * 0.05 * 32], abs=1e-3)
    hidden = ViewPair(pair.grey, torch.stack([depth[0], depth[1] - 1]), pair.cameras)
    assert not transfer(hidden, torch.tensor([[30, 40]]))[1].any()


def test_cut_at_half_pixels_is_the_window():
    image = torch.rand(64, 64)
    patch = cut(image, torch.tensor([[31.5, 20.5]]), 32)[0]
    torch.testing.assert_close(patch, image[16:48, 5:37], atol=1e-5, rtol=1e-5)


def test_spread_keeps_points_apart():
    points = torch.tensor([[0, 0], [0, 5], [0, 12], [30, 30]])
    assert spread(points, 10.0, 5).tolist() == [0, 2, 3]
    assert spread(points, 10.0, 2).tolist() == [0, 2]


def test_hardest_in_batch_by_hand():
    anchor = torch.eye(3)
    positive = torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0], [0, 0, 1]])
    # distances² 2-2a·p: pairs 0, .4, 0; the nearest wrong: of 0: .8 (a0,p1); of 1: .8 (a0,p1); of 2: 2
    own = torch.tensor([1e-6, 0.4, 1e-6]).sqrt()
    wrong = torch.tensor([0.8, 0.8, 2.0]).sqrt()
    expected = torch.relu(1 + own - wrong).mean()
    assert float(hardest_in_batch(anchor, positive)) == pytest.approx(float(expected), abs=1e-4)


def test_hinge_and_pooled_score():
    assert float(hinge(torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([-1.0]))) == 0.0
    assert float(hinge(torch.tensor([0.0]), torch.tensor([1.0]), torch.tensor([1.0]))) == pytest.approx(0.25 + 2.0)
    assert float(soft_maximum(torch.tensor([[[[0.0, 3.0]]]]))) == pytest.approx(3.0, abs=1e-3)


def test_augment_turns_both_views_alike():
    patch = torch.rand(32, 32)
    out = augment(patch.expand(2, 2, 32, 32), torch.Generator().manual_seed(3))
    assert torch.equal(out[0, 0], out[1, 1])
    assert not torch.equal(out[0, 0], patch)


def test_matching_counts_hits_and_false_positives():
    patches = torch.zeros(4, 2, 32, 32)
    patches[..., 0, 0] = torch.tensor([[0.0, 0.1], [5.0, 5.1], [9.0, 9.1], [20.0, 8.0]])
    out = matching(lambda p: p[:, 0, :1, 0], patches, among=4)
    assert out["top1"] == 0.75
    assert out["queries"] == 4
    assert 0 < out["fpr95"] <= 1


def test_training_lowers_the_loss():
    """Sixteen fixed pairs are learnt by heart."""
    torch.manual_seed(0)
    first = torch.nn.functional.interpolate(torch.rand(16, 1, 6, 6), 32, mode="bilinear")[:, 0]
    patches = torch.stack([first, first.roll(2, -1)], 1)[:, None].expand(-1, 2, -1, -1, -1)
    _, curve = train_hardnet(patches, 15, seed=0, batch=16, bf16=False)
    assert curve[-1][1] < curve[0][1] - 0.1


def test_the_command_makes_files_that_load(tmp_path):
    main(
        "--shapes 4 --held-out 4 --pairs 1 --size 96 --detector-iterations 5 --iterations 2 --batch 8 "
        f"--no-bf16 --out {tmp_path}".split()
    )
    load_detector(str(tmp_path / "detector.safetensors"))
    load_hardnet(str(tmp_path / "hardnet.safetensors"))
    card = json.loads((tmp_path / "hardnet.json").read_text())
    assert "--shapes 4" in card["command"]
    assert str(tmp_path) not in card["command"]
    assert (tmp_path / "curve.png").stat().st_size > 1000
