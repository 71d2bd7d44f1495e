"""Choy's renders, voxels and ShapeNet's meshes become datasets whose cameras put the mesh on the pictures."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reconlab.camera_converters import from_choy
from reconlab.cameras import Cameras
from reconlab.cli.__main__ import main
from reconlab.datasets import format as files
from reconlab.datasets.builder import BuildReport
from reconlab.datasets.check import check, silhouette_share
from reconlab.datasets.choy_files import read_views
from reconlab.datasets.choy_layout import build_choy
from reconlab.datasets.content import Sizes, sample_surface
from reconlab.datasets.datamodule import ReconstructionData
from reconlab.datasets.inside import voxelize
from reconlab.datasets.samples import read_cameras, read_mesh_arrays
from reconlab.datasets.shapenet_frame import Frame, check_agreement
from reconlab.errors import ReconlabError
from reconlab.renderers.hard import render_rgba

CHAIR, PLANE = "03001627", "02691156"
TURNS = {"+x": np.eye(3), "-z": np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])}
SIZES = Sizes(points=1000, queries=500)


def _build(trees: Any, out: Path, **options: Any) -> BuildReport:
    settings = {"voxels": trees.voxels, "progress": False, "hold_out": 0, "sizes": SIZES, **options}
    return build_choy(settings.pop("renders", trees.renders), out, **settings)


def _rig(folder: Path) -> Cameras:
    rig = read_cameras(folder / files.CAMERAS)
    return Cameras(*(torch.from_numpy(rig[k]) for k in ("R", "t", "focal", "centre")))


def overlaps(folder: Path, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """IoU (of coverages) of each picture's alpha with the mesh seen by the dataset's camera."""
    pictures = sorted((folder / files.VIEWS).glob("*.png"))
    alphas = np.stack([files.read_png(p)[..., 3] for p in pictures]).astype(np.float64)
    mesh = torch.from_numpy(vertices.astype(np.float32)), torch.from_numpy(faces.astype(np.int64))
    seen = render_rgba(*mesh, _rig(folder), alphas.shape[1], supersample=4)[..., 3].double().numpy()
    return np.minimum(alphas, seen).sum((1, 2)) / np.maximum(alphas, seen).sum((1, 2))


@pytest.fixture(scope="session")
def converted(trees: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Renders, voxels and v1's meshes. Do not change it."""
    root = tmp_path_factory.mktemp("choy") / "out"
    report = _build(trees, root, meshes=trees.v1)
    assert report.ok, report.summary()
    assert report.splits == {"train": 4, "val": 0, "test": 2}
    return root


@pytest.fixture
def renders(trees: Any, tmp_path: Path) -> Path:
    """A copy of the chairs' to damage."""
    shutil.copytree(trees.renders / CHAIR, tmp_path / "renders" / CHAIR)
    return tmp_path / "renders"


def test_a_camera_by_hand() -> None:
    """Azimuth 0 stands at +x and sees -z on its right; 90 stands at +z."""
    camera = from_choy(torch.tensor(0.0), torch.tensor(0.0), torch.tensor(1.0))
    xy, depth = camera.project(torch.tensor([[0.0, 0, -0.16], [0, 0.16, 0], [0.35, 0, 0]]))
    assert torch.allclose(xy, torch.tensor([[0.2, 0], [0, -0.2], [0, 0]]), atol=1e-6)
    assert torch.allclose(depth, torch.tensor([1.75, 1.75, 1.4]))
    side = from_choy(torch.tensor(90.0), torch.tensor(0.0), torch.tensor(0.8))
    assert torch.allclose(side.position, torch.tensor([0, 0, 1.4]), atol=1e-6)


@given(st.floats(0, 360), st.floats(-89, 89), st.floats(-180, 180), st.floats(0.5, 1))
def test_cameras_are_those_of_the_released_renderer(
    trees: Any, azimuth: float, elevation: float, in_plane: float, ratio: float
) -> None:
    numbers = (torch.tensor(v, dtype=torch.float64) for v in (azimuth, elevation, ratio, in_plane))
    a, e, r, p = numbers
    camera = from_choy(a, e, r, in_plane=p)
    expected = trees.blender_matrix(azimuth, elevation, in_plane, ratio)
    assert np.allclose(camera.R, expected[:, :3], atol=2e-5)
    assert np.allclose(camera.t, expected[:, 3], atol=2e-5)
    assert camera.focal.tolist() == [35 / 16, 35 / 16]


@pytest.mark.parametrize(("front", "meshes"), [("+x", "v1"), ("-z", "v2"), ("-z", None)])
def test_cameras_put_the_mesh_on_the_pictures(
    front: str, meshes: str | None, trees: Any, converted: Path, tmp_path: Path
) -> None:
    root = converted
    if front != "+x":
        root = tmp_path / "out"
        assert _build(trees, root, front=front, meshes=meshes and getattr(trees, meshes), categories=["chair"]).ok
    for synset in files.list_categories(root):
        for name in trees.models[synset]:
            folder, vertices = root / synset / name, trees.vertices[name] @ TURNS[front].T
            assert overlaps(folder, vertices, trees.faces[name]).min() > 0.95
            if meshes:
                mesh = read_mesh_arrays(folder / files.MESH)
                assert overlaps(folder, mesh["vertices"], mesh["faces"]).min() > 0.95
                assert silhouette_share(folder) > 0.99
            if name == "chair_a":  # and the test would see a wrong frame
                quarter = vertices @ TURNS["-z"]
                mirrored = vertices * [1, 1, -1] if front == "-z" else vertices * [-1, 1, 1]
                assert overlaps(folder, quarter, trees.faces[name]).mean() < 0.8
                assert overlaps(folder, mirrored, trees.faces[name]).mean() < 0.8


@pytest.mark.parametrize("front", ["+x", "-z"])
def test_voxels_lie_on_the_mesh(front: str, trees: Any, converted: Path, tmp_path: Path) -> None:
    """The grid of the binvox, whose header is true for some and stale for others, against our own of the mesh."""
    root = converted
    if front != "+x":
        root = tmp_path / "out"
        assert _build(trees, root, front=front, meshes=trees.v1, categories=["chair"]).ok
    for synset in files.list_categories(root):
        for name in trees.models[synset]:
            cells = files.read_binvox(root / synset / name / files.VOXELS)
            mine = voxelize(trees.vertices[name] @ TURNS[front].T, trees.faces[name])
            assert cells.shape == (32, 32, 32)
            assert (cells & mine).sum() > 0.6 * (cells | mine).sum()
            spread = mine.copy()
            for axis in range(3):
                spread = spread | np.roll(spread, 1, axis) | np.roll(spread, -1, axis)
            assert (cells & ~spread).sum() == 0


def test_without_meshes_stale_headers_are_still_placed(trees: Any, tmp_path: Path) -> None:
    assert _build(trees, tmp_path / "out").ok
    for synset, names in trees.models.items():
        for name in names:
            cells = files.read_binvox(tmp_path / "out" / synset / name / files.VOXELS)
            mine = voxelize(trees.vertices[name], trees.faces[name])
            assert (cells & mine).sum() > 0.5 * (cells | mine).sum(), name
            assert not (tmp_path / "out" / synset / name / files.POINTCLOUD).exists()
    assert check(tmp_path / "out").problems == []


def test_what_is_loaded(trees: Any, converted: Path) -> None:
    data = ReconstructionData(str(converted), categories=[CHAIR], image_size=137, views=4, train_view=0, points=500)
    data.require(
        {"images", "masks", "cameras", "views", "voxels", "surface", "normals", "occupancy", "mesh"}, "a test"
    )
    data.setup("test")
    assert [i.id for i in data.items["train"]] == ["chair_a", "chair_b", "chair_c"]
    for item, sample in zip(data.items["train"], data.dataset("train"), strict=False):
        rgba = (
            np.asarray(Image.open(trees.renders / CHAIR / item.id / "rendering" / "00.png")).astype(np.float32) / 255
        )
        white = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
        assert np.allclose(sample["image"].permute(1, 2, 0).numpy(), white, atol=1e-6)
        assert np.allclose(sample["masks"][0].numpy(), rgba[..., 3])
        assert sample["voxels"].shape == (32, 32, 32)
        box = np.ptp(sample["mesh"][0].numpy(), axis=0)
        assert np.linalg.norm(box) == pytest.approx(1, abs=1e-5)
    assert check(converted).problems == []


def test_a_coarser_grid_is_that_of_a_coarser_build(trees: Any, tmp_path: Path) -> None:
    """data.resolution: 64 cells read at 32 are the same cells as a build of 32."""
    for size in (32, 64):
        sizes = Sizes(points=100, queries=100, resolution=size)
        assert _build(trees, tmp_path / str(size), voxels=None, meshes=trees.v1, categories=["chair"], sizes=sizes).ok

    def voxels(root: str, resolution: int | None) -> list[torch.Tensor]:
        data = ReconstructionData(str(tmp_path / root), resolution=resolution)
        data.require({"voxels"}, "a test")
        data.setup("test")
        return [sample["voxels"] for sample in data.dataset("test")]

    for fine, coarse in zip(voxels("64", 32), voxels("32", None), strict=True):
        assert torch.equal(fine, coarse)
    assert voxels("64", None)[0].shape == (64, 64, 64)
    with pytest.raises(ReconlabError, match=r"model\.binvox: voxels of 32 x 32 x 32 .* --resolution 64"):
        voxels("32", 64)
    with pytest.raises(ReconlabError, match=r"data\.resolution is 0"):
        ReconstructionData(resolution=0)


def test_frames_move_points_and_cameras_together() -> None:
    rng = np.random.default_rng(0)
    numbers = torch.from_numpy(rng.uniform((0, -30, 0.6), (360, 60, 1), (5, 3)))
    rig = from_choy(*numbers.T)
    frame = Frame(TURNS["-z"], np.array([0.1, -0.2, 0.3]), 1.7)
    points = rng.uniform(-0.4, 0.4, (50, 3))
    before, depth = rig.project(torch.from_numpy(points))
    after, moved = frame.cameras(rig).project(torch.from_numpy(frame.points(points)))
    assert torch.allclose(before, after, atol=1e-5)
    assert torch.allclose(depth, moved * 1.7, atol=1e-5)


def test_agreement_tells_size_and_place_apart(trees: Any) -> None:
    images, rig = read_views(trees.renders / CHAIR / "chair_a" / "rendering")
    alphas = images[..., 3]
    points = sample_surface(trees.vertices["chair_a"], trees.faces["chair_a"], 20000, np.random.default_rng(0))[0]
    check_agreement(points, rig, alphas, "x")
    wrongs = (
        0.8 * points,
        1.3 * points,
        points + np.array([0, 0.1, 0]),
        points @ TURNS["-z"],
        points * [-1, 1, 1],
        points[:3],
    )
    for wrong in wrongs:
        with pytest.raises(ReconlabError, match=r"x: .*% of the shape projects .* not in one frame"):
            check_agreement(wrong, rig, alphas, "x")


def test_builds_repeat_resume_and_refuse(trees: Any, tmp_path: Path) -> None:
    one = tmp_path / "one"
    assert len(_build(trees, one, categories=["chair"], views=2).built) == 4
    assert len(_build(trees, one, categories=["chair"], views=2).reused) == 4
    assert len(files.read_npz(one / CHAIR / "chair_a" / files.CAMERAS)["t"]) == 2
    with pytest.raises(ReconlabError, match=r"other settings \(views 2 -> None\)"):
        _build(trees, one, categories=["chair"])
    assert len(_build(trees, one, categories=["chair"], front="-z", force=True).built) == 4


@pytest.mark.slow
def test_processes_give_the_same_bytes(trees: Any, converted: Path, tmp_path: Path) -> None:
    assert len(_build(trees, tmp_path / "out", meshes=trees.v1, workers=2).built) == 6
    for path in sorted(p for p in converted.rglob("*") if p.is_file() and p.name != ".lock"):
        assert (tmp_path / "out" / path.relative_to(converted)).read_bytes() == path.read_bytes()


Damage = Callable[[Path], object]
ROW = "12.5 27.0 0.0 0.8 25.0"


def _lines(change: Callable[[list[str]], list[str]]) -> Damage:
    def harm(folder: Path) -> None:
        path = folder / "rendering_metadata.txt"
        path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")

    return harm


def _cut(name: str) -> Damage:
    return lambda f: (f / name).write_bytes((f / name).read_bytes()[:300])


DAMAGE: list[tuple[Damage, str]] = [
    (_cut("02.png"), "02.png is not a readable image"),
    (lambda f: Image.new("RGBA", (137, 137)).save(f / "01.png"), "01.png is empty"),
    (lambda f: Image.new("RGB", (137, 137)).save(f / "01.png"), "01.png has no alpha channel"),
    (lambda f: Image.open(f / "01.png").resize((64, 64)).save(f / "01.png"), "01.png has 64 pixels a side"),
    (lambda f: (f / "03.png").unlink(), "03.png is missing"),
    (lambda f: [p.unlink() for p in f.glob("*.png")], "has no 00.png"),
    (lambda f: shutil.rmtree(f), "rendering is missing"),
    (lambda f: (f / "rendering_metadata.txt").unlink(), "rendering_metadata.txt is missing"),
    (lambda f: (f / "rendering_metadata.txt").write_text("\n"), "rendering_metadata.txt has no line"),
    (
        lambda f: (f / "rendering_metadata.txt").write_bytes(b"\xff\xfe\x00\x80"),
        "rendering_metadata.txt cannot be read",
    ),
    (lambda f: (f / "renderings.txt").write_text("00.png\n"), "renderings.txt names 1 pictures, but"),
    (lambda f: (f / "renderings.txt").write_text("../a.png\n" * 4), "a.png is missing"),
    (_lines(lambda rows: rows[:3]), "rendering_metadata.txt has 3 lines for 4 pictures"),
    (_lines(lambda rows: [*rows, ROW]), "renderings.txt names 4 pictures, but rendering_metadata.txt has 5 lines"),
    (_lines(lambda rows: [*rows[:3], "nan 27 0 0.8 25"]), "line 4: it has a number that is not finite"),
    (_lines(lambda rows: [*rows[:3], "12 27 0 0.8"]), "line 4: it has 4 numbers, expected 5"),
    (_lines(lambda rows: [*rows[:3], "12 27 0 far 25"]), "line 4: '12 27 0 far 25' is not five numbers"),
    (_lines(lambda rows: [*rows[:3], "12 27 0 -0.8 25"]), "line 4: distance -0.8 and elevation 27"),
    (_lines(lambda rows: [*rows[:3], "12 97 0 0.8 25"]), "elevation 97 are no place of a camera"),
    (
        _lines(lambda rows: [" ".join([f"{float(r.split()[0]) + 180}", *r.split()[1:]]) for r in rows]),
        "not in one frame",
    ),
]


@pytest.mark.parametrize(("harm", "reason"), DAMAGE)
def test_a_bad_model_is_named_and_the_others_are_built(
    harm: Damage, reason: str, trees: Any, renders: Path, tmp_path: Path
) -> None:
    harm(renders / CHAIR / "chair_c" / "rendering")
    report = _build(trees, tmp_path / "out", renders=renders)
    assert list(report.failed) == [f"{CHAIR}/chair_c"]
    assert reason in report.failed[f"{CHAIR}/chair_c"]
    assert "chair_c" in report.failed[f"{CHAIR}/chair_c"]
    assert report.splits == {"train": 2, "val": 0, "test": 1}
    assert check(tmp_path / "out").shapes == 3


def _turned(path: Path) -> None:
    raw = path.read_bytes()
    header, data = raw.split(b"\ndata\n")
    pairs = np.frombuffer(data, np.uint8).reshape(-1, 2)
    cells = np.repeat(pairs[:, 0], pairs[:, 1]).reshape(32, 32, 32).transpose(1, 0, 2)[::-1].reshape(-1)
    path.write_bytes(header + b"\ndata\n" + b"".join(bytes((v, 1)) for v in cells))


VOXEL_DAMAGE: list[tuple[Damage, str]] = [
    (lambda f: (f / "model.binvox").unlink(), "model.binvox is missing"),
    (lambda f: (f / "model.binvox").write_bytes(b"#voxels 1\ndim 32 32 32\ndata\n"), "no #binvox line"),
    (_cut("model.binvox"), "is not a readable binvox file (its last run is cut off)"),
    (lambda f: (f / "model.binvox").write_bytes(b"#binvox 1\ndim 2 2 2\ndata\n\x00\x08"), "has no occupied cell"),
    (lambda f: _turned(f / "model.binvox"), "not in one frame"),
]


@pytest.mark.parametrize(("harm", "reason"), VOXEL_DAMAGE)
def test_a_bad_grid_is_named_and_the_others_are_built(harm: Damage, reason: str, trees: Any, tmp_path: Path) -> None:
    shutil.copytree(trees.voxels, tmp_path / "voxels")
    harm(tmp_path / "voxels" / PLANE / "plane_b")
    report = _build(trees, tmp_path / "out", voxels=tmp_path / "voxels", categories=["airplane"])
    assert list(report.failed) == [f"{PLANE}/plane_b"]
    assert reason in report.failed[f"{PLANE}/plane_b"]
    assert report.splits == {"train": 1, "val": 0, "test": 0}


def test_a_bad_mesh_is_named_and_the_others_are_built(trees: Any, tmp_path: Path) -> None:
    shutil.copytree(trees.v1, tmp_path / "v1")
    for name, harm in (
        ("chair_a", lambda p: p.unlink()),
        ("chair_b", lambda p: p.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")),
        ("chair_c", lambda p: shutil.copy(trees.v1 / CHAIR / "chair_d" / "model.obj", p)),
    ):
        harm(tmp_path / "v1" / CHAIR / name / "model.obj")
    report = _build(trees, tmp_path / "out", meshes=tmp_path / "v1", categories=["chair"])
    reasons = {name.split("/")[1]: reason for name, reason in report.failed.items()}
    assert sorted(reasons) == ["chair_a", "chair_b", "chair_c"]
    assert "has neither model.obj" in reasons["chair_a"]
    assert "has no faces" in reasons["chair_b"]
    assert "not in one frame" in reasons["chair_c"]
    assert report.splits == {"train": 0, "val": 0, "test": 1}


def test_settings_that_cannot_be(trees: Any, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"renders": tmp_path / "none"}, "folder of renders .* does not exist"),
        ({"voxels": tmp_path / "none"}, "folder of voxels .* does not exist"),
        ({"meshes": tmp_path / "none"}, "folder of meshes .* does not exist"),
        ({"splits": tmp_path / "none"}, "do not exist"),
        ({"categories": ["boat"]}, "no category 'boat'"),
        ({"category_names": "emoji"}, "category_names"),
        ({"views": 0}, "views is 0"),
        ({"workers": 0}, "workers is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"front": "up"}, "front is 'up'"),
        ({"share": 0.0}, "share is 0"),
        ({"hold_out": 1.0}, "hold_out is 1"),
        ({"views": 9}, r"None of the 6 shapes.*has 4 pictures, fewer than the 9"),
    ]
    for options, reason in cases:
        with pytest.raises(ReconlabError, match=reason):
            _build(trees, tmp_path / "out", **options)


def test_command_line(trees: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["data", "build", "--source", "choy", "--input", str(trees.renders), "--out", str(out)]
    command += ["--voxels", str(trees.voxels), "--categories", "chair"]
    options = ["--category_names", "word", "--views", "2", "--front=-z", "--hold_out", "0.3", "--resolution", "64"]
    assert main([*command, *options]) == 0
    assert "(train 2, val 1, test 1)" in capsys.readouterr().out
    assert files.read_binvox(out / "chair" / "chair_a" / files.VOXELS).shape == (64, 64, 64)
    assert main(["data", "check", str(out)]) == 0
    for more, reason in (
        (["--image_size", "64"], "--image_size does not go with --source choy"),
        (["--points", "64"], "--points needs --meshes"),
        (["--groups", "x"], "--groups goes with --source meshes"),
        (["--split", "1", "0", "0"], "--split does not go with"),
        (["--ground_truth", "x"], "--ground_truth goes with --source dpc, not with choy"),
    ):
        assert main([*command, *more]) == 2
        assert reason in capsys.readouterr().err
    assert main(["data", "build", "--source", "choy", "--out", str(out)]) == 2
    assert "--source choy needs --input ShapeNetRendering" in capsys.readouterr().err
    assert main(["data", "build", "--source", "dpc", "--out", str(out), "--voxels", "x"]) == 2
    assert "--voxels goes with --source choy, not with dpc" in capsys.readouterr().err


@pytest.mark.parametrize("experiment", ["atlasnet_chamfer.yaml", "dpc_drwr_32.yaml"])
def test_networks_train_on_it_by_one_overlay(experiment: str, repository: Path, trees: Any, tmp_path: Path) -> None:
    configs, root = repository / "configs", tmp_path / "choy"
    assert _build(trees, root, meshes=trees.v1, hold_out=0.3, categories=["chair"], views=3).splits["val"] == 1
    names = (experiment, "profiles/smoke.yaml", "profiles/choy_data.yaml")
    options = [f"--data.root={root}", f"--out={tmp_path / 'runs'}", "--trainer.max_steps=2", "--data.points=500"]
    options += ["--trainer.val_check_interval=2", "--data.views=3"]
    assert main(["fit", *(f"--config={configs / n}" for n in names), *options]) == 0
    with open(next((tmp_path / "runs").rglob("metrics.csv")), newline="") as stream:
        rows = list(csv.DictReader(stream))
    judged = {k: float(v) for row in rows for k, v in row.items() if k.startswith("val/") and v}
    assert judged
    assert np.isfinite([v for k, v in judged.items() if not k.endswith(PLANE)]).all()
