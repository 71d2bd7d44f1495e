"""Reading files to evaluate, the frame of comparison, and the true shape's batch."""

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.datasets.inside import voxelize
from reconlab.errors import ReconlabError
from reconlab.lab.evaluate_files import NotApplicableError, Raw, StoredTruth, Truth, frame, read_raw, to_shape
from reconlab.shapes import Mesh, PointCloud

TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("gone.obj", None, "does not exist"),
        ("empty.obj", b"", r"is empty \(0 bytes\)"),
        ("comment.obj", b"# nothing\n", "has no points and no faces"),
        ("text.stl", b"hello", "(has no points and no faces|cannot be read)"),
        ("nothing.off", b"OFF\n0 0 0\n", "has no points and no faces"),
        ("torn.ply", b"ply\nformat ascii 1.0\nelement vertex 3\njunk", "cannot be read"),
        ("junk.glb", b"\x00\x01junk", "cannot be read"),
        ("torn.obj", b"v 0 0 0\nv 1 0", "cannot be read"),
        ("range.obj", (TRIANGLE + "f 1 2 9\n").encode(), "cannot be read|does not have"),
        ("nan.obj", b"v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "not finite"),
        ("inf.xyz", b"0 0 0\ninf 0 0\n", "not finite"),
        ("flat.obj", b"v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "no face with an area"),
    ],
)
def test_bad_files_are_named_in_one_sentence(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ReconlabError, match=said) as caught:
        read_raw(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parts_of_a_scene_are_in_their_places(tmp_path):
    scene = trimesh.Scene()
    scene.add_geometry(trimesh.creation.box(), transform=np.diag([-1.0, 1, 1, 1]) + np.eye(4, k=3) * 5)
    scene.add_geometry(trimesh.creation.box())
    scene.export(tmp_path / "scene.glb")
    raw = read_raw(tmp_path / "scene.glb")
    assert raw.faces is not None
    np.testing.assert_allclose([raw.vertices.min(0), raw.vertices.max(0)], [[-0.5] * 3, [5.5, 0.5, 0.5]], atol=1e-6)
    assert trimesh.Trimesh(raw.vertices, raw.faces).volume == pytest.approx(2), "the mirrored part is not inside out"


def test_clouds_and_their_normals(tmp_path):
    points = np.random.default_rng(0).random((7, 3))
    trimesh.PointCloud(points).export(tmp_path / "cloud.glb")
    np.testing.assert_allclose(read_raw(tmp_path / "cloud.glb").vertices, points, atol=1e-6)
    (tmp_path / "dots.obj").write_text(TRIANGLE)
    assert read_raw(tmp_path / "dots.obj").faces is None
    names = "".join(f"property float {k}\n" for k in ("x", "y", "z", "nx", "ny", "nz"))
    rows = "0 0 0 0 0 2\n1 0 0 0 3 0\n"
    (tmp_path / "n.ply").write_text(f"ply\nformat ascii 1.0\nelement vertex 2\n{names}end_header\n{rows}")
    shape = to_shape(read_raw(tmp_path / "n.ply"), np.zeros(3), 1.0)
    assert isinstance(shape, PointCloud)
    assert shape.normals is not None
    assert shape.normals.tolist() == [[[0, 0, 1], [0, 1, 0]]]


def test_unused_vertices_do_not_count(tmp_path):
    (tmp_path / "far.obj").write_text(f"v 900 0 0\n{TRIANGLE}v 0 nan 0\nf 2 3 4\n")
    raw = read_raw(tmp_path / "far.obj")
    assert raw.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert frame(raw, "gt-box")[1] == pytest.approx(np.sqrt(2))


def test_frames():
    raw = Raw(np.array([[1.0, 2, 3], [4, 2, 3], [1, 6, 3]]), np.array([[0, 1, 2]]))
    box = to_shape(raw, *frame(raw, "gt-box"))
    np.testing.assert_allclose(box.vertices, [[-0.3, -0.4, 0], [0.3, -0.4, 0], [-0.3, 0.4, 0]], atol=1e-7)
    ball = to_shape(raw, *frame(raw, "gt-sphere"))
    assert ball.vertices.norm(dim=1).max() == pytest.approx(0.5)
    with pytest.raises(ReconlabError, match=r"reaches to 6, but --normalize none.*use --normalize gt-box"):
        frame(raw, "none")
    loc, scale = frame(Raw(raw.vertices / 12, raw.faces), "none")
    assert (loc.tolist(), scale) == ([0, 0, 0], 1)
    with pytest.raises(ReconlabError, match="size is 0"):
        frame(Raw(np.ones((4, 3)), None), "gt-box")
    with pytest.raises(ReconlabError, match="too large"):
        to_shape(Raw(np.full((3, 3), 1e60), None), np.zeros(3), 1.0)


@given(exponent=st.integers(-6, 6), move=st.floats(-3, 3), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_normalising_forgets_scale_and_place(exponent, move, seed):
    rng = np.random.default_rng(seed)
    true, pred = rng.normal(size=(20, 3)), rng.normal(size=(9, 3))
    size = 10.0**exponent

    def both(change):
        loc, scale = frame(Raw(change(true), None), "gt-box")
        return [to_shape(Raw(change(x), None), loc, scale).positions[0] for x in (true, pred)]

    for a, b in zip(both(lambda x: x), both(lambda x: (x + move) * size), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def boxes(*sizes: float) -> Mesh:
    mesh = trimesh.util.concatenate([trimesh.creation.box((s, s, s)) for s in sizes])
    return Mesh(torch.tensor(mesh.vertices, dtype=torch.float32), torch.tensor(mesh.faces))


def test_voxels_follow_the_rule_of_built_datasets():
    truth = Truth("", "a", boxes(0.5), 100)
    vertices, faces = truth.shape.mesh().item(0)
    grid = truth.batch(frozenset({"voxels"}), 16).voxels
    assert grid is not None
    np.testing.assert_array_equal(grid[0].numpy(), voxelize(vertices.numpy(), faces.numpy(), 16))
    batch = truth.batch(frozenset({"occupancy"}))
    expected = (batch.query_points.abs() < 0.25).all(-1).float()
    assert (batch.query_occupancies != expected).float().mean() < 1e-3


def test_surface_points_are_the_same_ones_and_can_leave_out_insides():
    shape = boxes(0.6, 0.2)  # one box inside of another
    batch = Truth("c", "a", shape, 3000).batch(frozenset({"normals"}))
    again = Truth("c", "a", shape, 3000).batch(frozenset({"surface"}))
    assert torch.equal(batch.points, again.points)
    far = batch.points.abs().amax(-1)
    assert ((far - 0.3).abs() < 1e-6).float().mean() == pytest.approx(0.36 / 0.40, abs=0.02), "by area"
    outer = Truth("c", "a", shape, 300, "outer").batch(frozenset({"normals"}))
    assert (outer.points.abs().amax(-1) - 0.3).abs().max() < 1e-6
    assert ((outer.points * outer.normals).sum(-1) > 0).all(), "normals look outward"


@pytest.mark.parametrize("need", ["mesh", "voxels", "occupancy", "normals"])
def test_a_true_cloud_has_points_alone(need):
    truth = Truth("", "a", PointCloud(torch.rand(1, 5, 3)), 100)
    assert truth.batch(frozenset({"surface"})).points.shape == (1, 5, 3)
    with pytest.raises(NotApplicableError, match="point cloud"):
        truth.batch(frozenset({need}))
    with pytest.raises(NotApplicableError, match="mesh, which has no images"):
        Truth("", "a", boxes(0.5), 100).batch(frozenset({"images"}))


def test_a_stored_truth_is_the_datasets(data):
    folder = next(data.glob("chair/chair_*"))
    batch = StoredTruth("chair", folder.name, folder, 2000).batch(frozenset({"surface", "normals", "voxels", "mesh"}))
    with np.load(folder / "pointcloud.npz") as stored:
        ours, theirs = batch.points[0].numpy(), stored["points"]
        np.testing.assert_array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])
    assert batch.voxels.shape == (1, 32, 32, 32)
    with pytest.raises(NotApplicableError, match="no images"):
        Truth("chair", folder.name, batch.mesh, 9).batch(frozenset({"images"}))
