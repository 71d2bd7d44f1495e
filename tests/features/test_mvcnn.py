"""The multi-view CNN: its pictures by hand, what it does not notice, its weights, and that it can learn."""

import hashlib
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.datasets.synth import CATEGORIES, generate
from reconlab.errors import ReconlabError
from reconlab.features.mvcnn import LAMP, MultiViewCNN, render_ring, retrieval
from reconlab.features.weights import BUNDLED, MVCNN_FILE, load_mvcnn, save_state
from reconlab.shapes import Mesh


def procedural(category: str, seed: int) -> Mesh:
    vertices, faces, _ = generate(category, seed).mesh()
    return Mesh(torch.from_numpy(vertices), torch.from_numpy(faces))


def turned(mesh: Mesh, degrees: float) -> Mesh:
    """Turned about y so that what a camera at azimuth a saw is seen at a + degrees."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    rotation = torch.tensor([[c, 0, -s], [0, 1, 0], [s, 0, c]], dtype=torch.float32)
    return Mesh(mesh.vertices @ rotation.T, mesh.faces)


@pytest.fixture(scope="module")
def net() -> MultiViewCNN:
    return load_mvcnn()


def test_a_level_plate_is_lit_as_by_hand():
    """30° below the horizon, "up" is (0, -cos 30°, -sin 30°) in every camera's frame (x right, y down)."""
    corners = torch.tensor([[-0.3, 0, -0.3], [0.3, 0, -0.3], [0.3, 0, 0.3], [-0.3, 0, 0.3]])
    up = (0.0, -math.cos(math.pi / 6), -0.5)
    length = math.sqrt(sum(x * x for x in LAMP.direction))
    cosine = sum(a * b for a, b in zip(up, LAMP.direction, strict=True)) / length
    for faces in ([[0, 1, 2], [0, 2, 3]], [[2, 1, 0], [3, 2, 0]]):  # both sides of a face are alike
        pictures = render_ring(Mesh(corners, torch.tensor(faces)), 32)
        assert pictures.shape == (12, 32, 32)
        assert pictures[:, 16, 16].tolist() == pytest.approx([0.3 + 0.7 * cosine] * 12, abs=1e-5)
        assert pictures[:, 0].max() == 0


def test_a_shape_of_diagonal_1_is_seen_whole():
    """The longest that fits into the ball of diameter 1, from corner to corner, touches no border."""
    s = 0.5 / math.sqrt(3)
    line = torch.tensor([[s, s, s], [-s, -s, -s], [s - 0.02, s, s]])
    pictures = render_ring(Mesh(line, torch.tensor([[0, 1, 2]])), 64)
    assert pictures.amax((1, 2)).min() > 0
    border = torch.cat([pictures[:, 0], pictures[:, -1], pictures[:, :, 0], pictures[:, :, -1]], 1)
    assert border.max() == 0


def test_turning_by_a_step_moves_the_pictures_on_by_one(net):
    mesh = procedural("chair", 3)
    before, after = render_ring(mesh), render_ring(turned(mesh, 30))
    assert (after - before.roll(1, 0)).abs().mean() < 1e-3  # a pixel on an edge may fall on its other side
    assert (after - before).abs().mean() > 0.01
    a, b, half = (net.describe_mesh(turned(mesh, d)) for d in (0, 30, 15))
    other = net.describe_mesh(procedural("chair", 4))
    assert (a - b).norm() < 0.02
    assert (a - b).norm() < 0.1 * (a - other).norm()
    assert (a - half).norm() < (a - other).norm()


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(12)), st.integers(0, 1000))
def test_the_order_and_repetition_of_views_have_no_meaning(order, seed):
    torch.manual_seed(seed)
    net = MultiViewCNN(3, (4, 4, 8, 8), 16, size=16).eval()
    views = torch.rand(2, 12, 16, 16)
    with torch.no_grad():
        found = net.describe(views)
        assert torch.allclose(net.describe(views[:, order]), found, atol=1e-5)
        assert torch.allclose(net.describe(torch.cat([views, views[:, order[:3]]], 1)), found, atol=1e-5)
        assert torch.allclose(found.norm(dim=1), torch.ones(2), atol=1e-5)
        assert torch.allclose(net.describe(views[1:]), found[1:], atol=1e-5), "a sample does not see its batch"
        assert net(views).abs().max() <= net.scale + 1e-3


def test_it_learns_to_tell_four_shapes():
    torch.manual_seed(0)
    views = torch.stack([render_ring(procedural(c, 7), 32) for c in CATEGORIES])
    net = MultiViewCNN(4, (8, 8, 16, 16), 16, size=32)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    labels = torch.arange(4)
    first = torch.nn.functional.cross_entropy(net(views), labels).item()
    for _ in range(25):
        loss = torch.nn.functional.cross_entropy(net(views), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert first > 0.5
    assert loss.item() < 0.05
    with torch.no_grad():
        assert net(views).argmax(1).tolist() == [0, 1, 2, 3]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.lists(st.sampled_from("abc"), min_size=1, max_size=9))
def test_retrieval_equals_its_definition(seed, labels):
    count = len(labels)
    distances = torch.rand(count, count, generator=torch.Generator().manual_seed(seed))
    kept = distances.clone()
    tops, precisions = [], []
    for i in range(count):
        ranked = sorted((j for j in range(count) if j != i), key=lambda j: float(distances[i, j]))
        hits = [labels[j] == labels[i] for j in ranked]
        if any(hits):
            tops.append(hits[0])
            at = [k for k, hit in enumerate(hits, 1) if hit]
            precisions.append(sum(n / k for n, k in enumerate(at, 1)) / len(at))
    top, mean = retrieval(distances, labels)
    assert torch.equal(distances, kept), "the argument is not written to"
    if tops:
        assert top == pytest.approx(sum(tops) / len(tops))
        assert mean == pytest.approx(sum(precisions) / len(precisions))
    else:
        assert math.isnan(top)
        assert math.isnan(mean)


def test_bundled_weights_are_those_of_the_card(net):
    path = BUNDLED / MVCNN_FILE
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert path.stat().st_size <= 1_500_000
    assert card["config"] == {"widths": [32, 64, 128, 128], "dimensions": net.dimensions, "size": net.size}
    assert len(card["classes"]) == len(net.classifier.weight) == len(set(card["classes"]))
    assert not net.training


def test_a_changed_bundle_is_noticed(monkeypatch, tmp_path):
    net = MultiViewCNN(2, (4, 4, 4, 4), 8, size=16)
    save_state(tmp_path / MVCNN_FILE, net, {})
    card = tmp_path / "mvcnn.json"
    monkeypatch.setattr("reconlab.features.weights.BUNDLED", tmp_path)
    assert load_mvcnn().size == 16
    card.write_text(card.read_text().replace('"sha256": "', '"sha256": "0'))
    with pytest.raises(ReconlabError, match="is not the file that its card describes"):
        load_mvcnn()


@pytest.mark.parametrize("sizes", [((4, 4, 8, 8), 8, 16), ((4, 6, 8, 10), 12, 48)])
def test_weights_go_through_a_file(sizes, tmp_path):
    torch.manual_seed(1)
    net = MultiViewCNN(3, *sizes).eval()
    save_state(tmp_path / "a.safetensors", net, {})
    loaded = load_mvcnn(str(tmp_path / "a.safetensors"))
    views = torch.rand(1, 3, sizes[2], sizes[2])
    assert torch.allclose(loaded.describe(views), net.describe(views), atol=5e-3)  # stored as float16


def test_bad_weights_are_told_in_one_sentence(tmp_path):
    with pytest.raises(ReconlabError, match=r"were not found at .*none\.safetensors"):
        load_mvcnn(str(tmp_path / "none.safetensors"))
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(ReconlabError, match=r"junk.safetensors could not be read as weights of the multi-view CNN"):
        load_mvcnn(str(tmp_path / "junk.safetensors"))
    with pytest.raises(ReconlabError, match="does not hold a multi-view CNN"):
        load_mvcnn(str(BUNDLED / "hardnet.safetensors"))
    with pytest.raises(ReconlabError, match="no weights of kornia's"):
        load_mvcnn("kornia")


def test_bad_input_is_told_in_one_sentence(net):
    mesh = procedural("lamp", 0)
    with pytest.raises(ReconlabError, match="none of the 12 cameras sees the mesh"):
        net.describe_mesh(Mesh(mesh.vertices + 50, mesh.faces))
    with pytest.raises(ReconlabError, match="draws one mesh, got a batch of 2"):
        net.describe_mesh(Mesh.from_list([mesh.item(0)] * 2))
    with pytest.raises(ReconlabError, match=r"takes views \(B, V, 64, 64\), not \(1, 2, 32, 32\)"):
        net.describe(torch.zeros(1, 2, 32, 32))
    with pytest.raises(ReconlabError, match="size is 40; expected a multiple of 16"):
        MultiViewCNN(4, size=40)
    with pytest.raises(ReconlabError, match="four positive widths"):
        MultiViewCNN(4, (8, 8))
    with pytest.raises(ReconlabError, match="expected at least 1 pixel"):
        render_ring(mesh, 0)
    with pytest.raises(ReconlabError, match=r"distances are \(2, 3\), expected \(2, 2\)"):
        retrieval(torch.zeros(2, 3), ["a", "b"])
