"""Shape Google: spectra with known answers, invariances, bad meshes, the vocabulary's file and program."""

import json
from functools import partial

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.metrics import ShapeGoogle, Vocabulary, shape_google
from reconlab.metrics.heat_kernel import heat_kernel, heat_kernel_signature, surface_spectrum
from reconlab.metrics.shape_google import bags_of_features, signatures, soft_assignment
from reconlab.metrics.train_vocabulary import cluster, main
from reconlab.shapes import Mesh

pytest.importorskip("robust_laplacian")

BALL = trimesh.creation.icosphere(subdivisions=3)
TRIANGLE = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]), np.array([[0, 1, 2]])
SMALL = partial(surface_spectrum, points=400, eigenpairs=40)


def strip(bend: float, length: float = 1.0, width: float = 0.25) -> tuple[np.ndarray, np.ndarray]:
    """A flat strip, rolled along its length into an arc of ``bend`` radians: an isometry."""
    u, v = (a.ravel() for a in np.meshgrid(np.linspace(0, length, 61), np.linspace(0, width, 16), indexing="ij"))
    angle = u * bend / length
    x, y = (np.sin(angle), 1 - np.cos(angle)) if bend else (u, 0 * u)
    radius = length / bend if bend else 1.0
    at = np.arange(60)[:, None] * 16 + np.arange(15)
    a, b, c, d = at.ravel(), at.ravel() + 1, at.ravel() + 16, at.ravel() + 17
    return np.stack([x * radius, y * radius, v], 1), np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])


def as_mesh(vertices: np.ndarray, faces: np.ndarray) -> Mesh:
    return Mesh(torch.tensor(np.asarray(vertices)), torch.tensor(np.asarray(faces)))


@pytest.fixture(scope="module")
def words() -> Vocabulary:
    """Eight words of a ball, a box and a strip."""
    times = np.geomspace(0.05, 0.2, 6)
    box = trimesh.creation.box((1, 0.3, 0.2))
    meshes = [(BALL.vertices, BALL.faces), (box.vertices, box.faces), strip(0)]
    found = np.concatenate([signatures(SMALL(*mesh), times) for mesh in meshes])
    centres, size = cluster(found, 8, 0)
    return Vocabulary(centres, 2 * size, times, 400, 40)


@pytest.mark.parametrize(("surface", "tolerance"), [("points", 0.04), ("mesh", 0.025)])
def test_spectrum_of_the_sphere_and_of_a_triangle(surface, tolerance):
    """l(l+1)·4π, each 2l+1 times; the equilateral triangle's first pair is 16π²/9 over its side squared, 4/√3."""
    values = surface_spectrum(BALL.vertices * 7, BALL.faces, 1000, 30, surface).values
    expected = np.concatenate([np.full(2 * i + 1, 4 * np.pi * i * (i + 1)) for i in range(4)])
    assert values[:16] == pytest.approx(expected, rel=tolerance, abs=1e-3)
    values = surface_spectrum(*TRIANGLE, 1000, 30, surface).values
    assert values[:3] == pytest.approx([0] + [16 * np.pi**2 / 9 * 3**0.5 / 4] * 2, rel=tolerance, abs=1e-3)


def test_heat_kernel_identities():
    """Heat is kept, the signature is the kernel's diagonal, and after a long time it is everywhere alike."""
    spectrum = SMALL(*strip(2.0))
    kernel = heat_kernel(spectrum, 0.05)
    assert kernel @ spectrum.areas == pytest.approx(np.ones(400), abs=1e-6)
    assert heat_kernel_signature(spectrum, np.array([0.05]))[:, 0] == pytest.approx(np.diag(kernel))
    assert heat_kernel_signature(spectrum, np.array([50.0])) == pytest.approx(np.ones((400, 1)), abs=1e-6)
    again = SMALL(*strip(2.0))
    assert np.array_equal(again.functions, spectrum.functions)


def test_bags_against_their_definition(words):
    spectrum = SMALL(BALL.vertices * [1, 0.5, 0.3], BALL.faces)
    found = bags_of_features(spectrum, words)
    share = np.empty((400, 8))
    for i, p in enumerate(signatures(spectrum, words.times)):
        weight = np.array([np.exp(-np.sum((p - v) ** 2) / (2 * words.sigma**2)) for v in words.words])
        share[i] = weight / weight.sum()
    assert found["bag"] == pytest.approx(spectrum.areas @ share)
    area = np.outer(spectrum.areas, spectrum.areas)
    assert found["spatial"] == pytest.approx(share.T @ (area * heat_kernel(spectrum, words.times[0])) @ share)
    assert (found["bag"].sum(), found["spatial"].sum()) == pytest.approx((1, 1))
    assert soft_assignment(np.ones((1, 6)) * 1e3, words.words, words.sigma).sum() == pytest.approx(1)  # far from all


def test_bending_changes_much_less_than_another_shape(words):
    """A strip rolled into three quarters of a ring, against a shorter strip and a ball of the same area."""
    flat, bent = as_mesh(*strip(0)), as_mesh(*strip(4.7))
    others = [as_mesh(*strip(0, width=0.6)), as_mesh(BALL.vertices, BALL.faces)]
    for part in range(2):
        same = shape_google(bent, flat, words)[part].item()
        different = [shape_google(other, flat, words)[part].item() for other in others]
        assert same < 0.1 * min(different), (same, different)


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-3, 1e6))
def test_rotation_scale_shift_and_numbering_do_not_matter(words, seed, scale):
    rng = np.random.default_rng(seed)
    vertices, faces = strip(2.0)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    order = rng.permutation(len(vertices))
    moved = scale * (vertices @ turn + rng.normal(size=3))[order]
    value = shape_google(as_mesh(moved, np.argsort(order)[faces]), as_mesh(vertices, faces), words)
    # Up to the rounding by which another of two equally far points may be taken; a wider strip is at 6.
    assert max(v.item() for v in value) < 0.3


def test_cutting_and_face_order_matter_little(words):
    """The same surface as a soup of four times as many faces in another order; unused vertices are ignored."""
    vertices, faces = strip(1.0)
    fine = trimesh.Trimesh(vertices, faces, process=False).subdivide()
    soup = fine.triangles[np.random.default_rng(0).permutation(len(fine.faces))].reshape(-1, 3)
    soup = np.concatenate([soup, np.full((5, 3), 100.0)])
    remade = as_mesh(soup, np.arange(len(soup) - 5).reshape(-1, 3))
    value = shape_google(remade, as_mesh(vertices, faces), words)
    other = shape_google(as_mesh(*strip(1.0, width=0.6)), as_mesh(vertices, faces), words)
    assert value.bag.item() < 0.25 * other.bag.item()
    assert value.spatial.item() < 0.25 * other.spatial.item()


@pytest.mark.parametrize("surface", ["points", "mesh"])
def test_meshes_as_they_come(words, surface):
    """Thousands of parts, degenerate and repeated faces, a needle, large coordinates, many vertices: all finite."""
    rng = np.random.default_rng(0)
    soup = (rng.uniform(-0.5, 0.5, (3000, 1, 3)) + 0.02 * rng.normal(size=(3000, 3, 3))).reshape(-1, 3)
    extra = np.concatenate([BALL.faces, BALL.faces[:9], [[0, 0, 1], [5, 5, 5]], BALL.faces[:9, ::-1]])
    cases = [
        (soup, np.arange(9000).reshape(-1, 3)),
        (BALL.vertices, extra),
        (np.array([[0, 0, 0], [1, 0, 0], [0.5, 1e-7, 0]]), np.array([[0, 1, 2]])),
        (BALL.vertices * 1e6 + 1e6, BALL.faces),
    ]
    for vertices, faces in cases:
        spectrum = SMALL(vertices, faces, surface=surface)
        found = bags_of_features(spectrum, words)
        assert np.isfinite(found["spatial"]).all()
        assert found["bag"].sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("vertices", "faces", "message"),
    [
        (np.zeros((0, 3)), np.zeros((0, 3), int), "no faces"),
        (np.full((3, 3), np.nan), TRIANGLE[1], "not finite"),
        (np.ones((3, 3)), TRIANGLE[1], "single point"),
        (np.array([[0.0, 0, 0], [1, 0, 0], [3, 0, 0]]), TRIANGLE[1], "no face of the mesh has an area"),
        (TRIANGLE[0] * 1e200, TRIANGLE[1], "too large"),
    ],
)
def test_what_has_no_surface_is_named(vertices, faces, message):
    with pytest.raises(ReconlabError, match=message):
        surface_spectrum(vertices, faces)


def test_settings_out_of_range():
    for wrong, message in (({"surface": "tetra"}, "points or mesh"), ({"points": 3}, "at least 10")):
        with pytest.raises(ReconlabError, match=message):
            surface_spectrum(*TRIANGLE, **wrong)
    with pytest.raises(ReconlabError, match="2 predictions for 1"):
        shape_google(Mesh.cat([as_mesh(*TRIANGLE)] * 2), as_mesh(*TRIANGLE))


def test_vocabulary_files(words, tmp_path):
    path = tmp_path / "words.safetensors"
    words.save(path, {"data": "test"})
    again = Vocabulary.load(str(path))
    assert again.digest() == words.digest()
    assert np.array_equal(again.words, words.words)
    path.with_suffix(".json").write_text(path.with_suffix(".json").read_text().replace('"sha256": "', '"sha256": "0'))
    for wrong, message in ((path, "sha256 is another"), (tmp_path / "none.safetensors", "train_vocabulary --root")):
        with pytest.raises(ReconlabError, match=message):
            Vocabulary.load(str(wrong))
    with pytest.raises(ReconlabError, match="positive sigma"):
        Vocabulary(words.words, 0.0, words.times)


def test_bundled_vocabulary_is_the_papers_size():
    bundled = Vocabulary.load()
    assert bundled.words.shape == (48, 6)
    assert bundled.times / bundled.times[0] * 1024 == pytest.approx([1024, 1351, 1783, 2353, 3104, 4096], abs=1)
    assert np.linalg.norm(bundled.words, axis=1) == pytest.approx(np.ones(48), abs=0.02)


def test_kmeans_by_hand():
    """Three clusters of two points, each point at distance 1, 2 and 3 of its centre: the median size is 2."""
    centres = np.array([0.0, 100, 200])
    found = np.concatenate([centres - np.arange(1, 4), centres + np.arange(1, 4)])[:, None]
    where, size = cluster(found, 3, 0)
    assert where[:, 0] == pytest.approx(centres)
    assert size == pytest.approx(2)
    with pytest.raises(ReconlabError, match="do not make 4 clusters"):
        cluster(np.zeros((9, 2)), 4, 0)


def test_program(tmp_path, caplog):
    """Two shapes of one category, one of which has no surface; a dataset without lists."""
    for name, (vertices, faces) in {"a": strip(1.0), "b": (np.ones((3, 3)), TRIANGLE[1])}.items():
        (tmp_path / "data" / "strip" / name).mkdir(parents=True)
        np.savez(tmp_path / "data" / "strip" / name / "mesh.npz", vertices=vertices, faces=faces)
    (tmp_path / "data" / "strip" / "train.lst").write_text("a\nb\n")
    out = tmp_path / "words.safetensors"
    size = ["--words", "5", "--points", "300", "--eigenpairs", "30"]
    assert main(["--root", str(tmp_path / "data"), "--out", str(out), *size]) == 0
    assert "left out" in caplog.text
    card = json.loads(out.with_suffix(".json").read_text())
    assert card["shapes"] == 2
    assert str(tmp_path) not in card["command"]
    assert Vocabulary.load(str(out)).words.shape == (5, 6)
    assert main(["--root", str(tmp_path / "none"), "--out", str(out)]) == 2
    assert "no <category>/train.lst" in caplog.text


def test_class_counts_failures_and_caches(words, tmp_path):
    words.save(tmp_path / "words.safetensors", {})
    metric = ShapeGoogle(str(tmp_path / "words.safetensors"), cache=str(tmp_path / "cache"))
    flat, ball = as_mesh(*strip(0)), as_mesh(BALL.vertices, BALL.faces)
    pred = Mesh.cat([flat, ball, as_mesh(np.ones((3, 3)), TRIANGLE[1])])
    metric.update(pred, Batch(list("abc"), ["x"] * 3, mesh=Mesh.cat([flat] * 3)))
    result = metric.compute()
    expected = shape_google(ball, flat, words)
    assert result["shape_google"].item() == pytest.approx((0 + expected.bag.item() + 20) / 3)
    assert result["shape_google_spatial"].item() == pytest.approx((0 + expected.spatial.item() + 20) / 3)
    assert (result["shape_google/n"].item(), result["shape_google/n_failed"].item()) == (3, 1)
    assert len(list((tmp_path / "cache").glob("*.npz"))) == 1
    assert 0 < expected.bag.item() <= 20
