"""DPC's layout becomes a dataset; what is wrong with it is named. Its files are written by DPC's own formulas."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy.io import loadmat, savemat

from reconlab.camera_converters import from_dpc
from reconlab.cli.__main__ import main
from reconlab.datasets import format as files
from reconlab.datasets.builder import BuildReport
from reconlab.datasets.check import check, silhouette_share
from reconlab.datasets.content import sample_surface
from reconlab.datasets.datamodule import ReconstructionData
from reconlab.datasets.dpc_files import read_camera
from reconlab.datasets.dpc_layout import build_dpc
from reconlab.datasets.meshes import normalization
from reconlab.datasets.synth import generate
from reconlab.datasets.views import render_views
from reconlab.errors import ReconlabError

MODELS = {
    "02691156": {"train": ["plane_a", "plane_b"], "val": ["plane_c"], "test": ["plane_d"]},
    "03001627": {"train": ["chair_a", "chair_b"], "val": ["chair_c"], "test": ["chair_d"]},
}
WORDS = {"02691156": "airplane", "03001627": "chair"}


def blender_position(azimuth: float, elevation: float, distance: float = 2.0) -> np.ndarray:
    """Where the camera stands in Blender's world, z up."""
    a, e = math.radians(azimuth), math.radians(elevation)
    return distance * np.array([math.cos(a) * math.cos(e), math.sin(a) * math.cos(e), math.sin(e)])


def blender_extrinsic(position: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """``(4, 4)`` from Blender's world to a camera (x right, y down, z forward) that looks at the origin."""
    forward = -position / np.linalg.norm(position)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = math.cos(math.radians(roll)), math.sin(math.radians(roll))
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.stack([right, down, forward])
    matrix[:3, 3] = -matrix[:3, :3] @ position
    return matrix


def write_camera(path: Path, azimuth: float = 0, elevation: float = 0, **changes: object) -> np.ndarray:
    """A ``camera_k.mat``; ``changes`` replace keys, None leaves one out. Returns the position."""
    position = blender_position(azimuth, elevation)
    content: dict[str, object] = {
        "pos": position,
        "extrinsic": blender_extrinsic(position),
        "K": np.array([[420.0, 0, 112], [0, 420, 112], [0, 0, 1]]),  # of a render of 224 pixels
        "quat": np.array([1.0, 0, 0, 0]),  # not read
        **changes,
    }
    savemat(path, {k: v for k, v in content.items() if v is not None})
    return position


def write_model(folder: Path, category: str, number: int, views: int = 3) -> np.ndarray:
    """Renders and cameras of a procedural shape; returns points on it, another number of them for each shape."""
    folder.mkdir(parents=True)
    vertices, faces, colors = generate(category, number).mesh()
    loc, scale = normalization(vertices.astype(np.float64), faces.astype(np.int64))
    vertices, rng = (vertices - loc) / scale, np.random.default_rng(number)
    places = [
        write_camera(folder / f"camera_{k}.mat", float(rng.integers(-180, 180)), float(rng.integers(-20, 40)))
        for k in range(views)
    ]
    cameras = from_dpc(torch.from_numpy(np.stack(places)))
    for k, image in enumerate(render_views(vertices, faces, cameras, 64, colors)):
        (folder / f"render_{k}.png").write_bytes(files.png_bytes(image))
    return sample_surface(vertices, faces.astype(np.int64), 600 + number, rng)[0]


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two synsets of four models, three views: ``renders``, ``gt`` (val and test), ``splits``. Do not change it."""
    root = tmp_path_factory.mktemp("dpc") / "tree"
    (root / "splits").mkdir(parents=True)
    for synset, splits in MODELS.items():
        (root / "gt" / synset).mkdir(parents=True)
        for split, names in splits.items():
            (root / "splits" / f"{synset}_{split}.txt").write_text("".join(f"{n}\n" for n in names))
            for name in names:
                points = write_model(root / "renders" / synset / name, WORDS[synset], ord(name[-1]))
                if split != "train":
                    savemat(root / "gt" / synset / f"{name}.mat", {"points": points})
    return root


@pytest.fixture
def tree(published: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(published, tmp_path / "tree")
    return tmp_path / "tree"


@pytest.fixture(scope="session")
def converted(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset made of it."""
    root = tmp_path_factory.mktemp("dpc") / "data"
    assert _build(published, root).summary().endswith("(train 4, val 2, test 2).")
    return root


def _build(tree: Path, out: Path, **options: object) -> BuildReport:
    settings: dict = {"splits": tree / "splits", "ground_truth": tree / "gt", "progress": False, **options}
    return build_dpc(tree / "renders", out, **settings)


def _bytes(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_a_camera_by_hand(tmp_path: Path) -> None:
    """A camera on Blender's +x axis: it sees the object's -z on its right and +y above."""
    write_camera(tmp_path / "camera_0.mat")
    camera = read_camera(tmp_path / "camera_0.mat")
    xy, depth = camera.project(torch.tensor([[0.0, 0, 0], [0, 0, -0.25], [0, 0.25, 0], [0.5, 0, 0]]))
    assert torch.allclose(xy, torch.tensor([[0, 0], [0.46875, 0], [0, -0.46875], [0, 0]]), atol=1e-5)
    assert torch.allclose(depth, torch.tensor([2, 2, 2, 1.5]), atol=1e-5)


def test_focal_length_and_distance_are_the_files(tmp_path: Path) -> None:
    position = blender_position(30, 10, 2.5)
    K = np.array([[350.0, 0, 112], [0, 336, 112], [0, 0, 1]])
    write_camera(tmp_path / "c.mat", pos=position, extrinsic=blender_extrinsic(position), K=K)
    camera = read_camera(tmp_path / "c.mat")
    assert torch.allclose(camera.focal, torch.tensor([3.125, 3.0]))
    assert camera.position.norm().item() == pytest.approx(2.5, abs=1e-5)
    write_camera(tmp_path / "d.mat", K=None)
    assert read_camera(tmp_path / "d.mat").focal.tolist() == [3.75, 3.75]


def test_true_points_project_into_the_silhouettes(published: Path, converted: Path, tmp_path: Path) -> None:
    """Cameras, pictures and ground truth are in one frame; `data check` says so where they are not."""
    for synset, split in ((c, s) for c in MODELS for s in ("val", "test")):
        assert silhouette_share(converted / synset / MODELS[synset][split][0]) > 0.99
    shutil.copytree(published, tmp_path / "tree")
    for path in (tmp_path / "tree" / "gt" / "03001627").iterdir():
        x, y, z = loadmat(path)["points"].T
        savemat(path, {"points": np.stack([x, z, y], 1)})  # z up, as Blender's world has it
    assert _build(tmp_path / "tree", tmp_path / "out").ok
    problems = check(tmp_path / "out").problems
    assert len(problems) == 2
    for name in ("chair_c", "chair_d"):
        assert any(f"{name}/pointcloud.npz: only" in p and "not in one frame" in p for p in problems)


def test_what_is_loaded(converted: Path, published: Path) -> None:
    data = ReconstructionData(str(converted), image_size=64, batch_size=4, views=3, train_view=0)
    data.require({"images", "cameras", "views"}, "a test")
    data.setup("fit")
    assert [i.id for i in data.items["train"]] == ["plane_a", "plane_b", "chair_a", "chair_b"]
    for item, sample in zip(data.items["train"], data.dataset("train"), strict=False):
        source = published / "renders" / item.category / item.id
        rgba = np.asarray(Image.open(source / "render_0.png")).astype(np.float32) / 255
        white = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
        assert np.allclose(sample["image"].permute(1, 2, 0).numpy(), white, atol=1e-6)
        assert np.allclose(sample["views"][1][0].numpy(), rgba[..., 3])
        assert np.allclose(read_camera(source / "camera_0.mat").R, sample["camera"].R)
    assert not (converted / "03001627" / "chair_a" / files.POINTCLOUD).exists()
    assert check(converted).problems == []
    meta = yaml.safe_load((converted / files.METADATA).read_text())
    assert meta["03001627"] == {"id": "03001627", "name": "chair"}


def test_builds_repeat_resume_and_refuse(tree: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert len(_build(tree, one).built) == 8
    assert len(_build(tree, two).built) == 8
    assert _bytes(one) == _bytes(two)
    assert len(_build(tree, one).reused) == 8
    (one / "03001627" / "chair_b" / files.CAMERAS).unlink()
    savemat(tree / "gt" / "02691156" / "plane_c.mat", {"points": np.zeros((3, 3))})
    assert sorted(_build(tree, one).built) == ["02691156/plane_c", "03001627/chair_b"]
    with pytest.raises(ReconlabError, match=r"other settings \(views None -> 2\)"):
        _build(tree, one, views=2)
    assert len(_build(tree, one, views=2, force=True).built) == 8
    assert len(files.read_npz(one / "03001627" / "chair_a" / files.CAMERAS)["t"]) == 2


@pytest.mark.slow
def test_processes_give_the_same_bytes(published: Path, converted: Path, tmp_path: Path) -> None:
    assert len(_build(published, tmp_path / "out", workers=2).built) == 8
    assert _bytes(tmp_path / "out") == _bytes(converted)


def _array(names: list[str]) -> str:
    return "".join(f"1\n{i}\n2\n{len(n)}\n{n}\n" for i, n in enumerate(names, 1))


def test_names_categories_and_drc_file(tree: Path, tmp_path: Path) -> None:
    lists = enumerate(MODELS["03001627"].items(), 2)
    text = [f"2\n{len(s)}\n{s}\n3\n{i}\n{len(n)}\n" + _array(n) for i, (s, n) in lists]
    (tree / "03001627.file").write_text("3\n1\n3\n" + "".join(text))
    report = _build(tree, tmp_path / "a", splits=tree / "03001627.file", category_names="word")
    assert report.splits == {"train": 2, "val": 1, "test": 1}
    assert any("no split list of 02691156" in n for n in report.notes)
    assert files.list_categories(tmp_path / "a") == ["chair"]
    report = _build(tree, tmp_path / "b", categories=["airplane"])
    assert sorted(report.built) == [f"02691156/plane_{x}" for x in "abcd"]


def test_gaps_between_lists_and_folders_are_notes(tree: Path, tmp_path: Path) -> None:
    with (tree / "splits" / "03001627_train.txt").open("a") as file:
        file.write("gone_1\ngone_2\n")
    shutil.copytree(tree / "renders" / "03001627" / "chair_a", tree / "renders" / "03001627" / "stray")
    (tree / "gt" / "03001627" / "chair_d.mat").unlink()
    report = _build(tree, tmp_path / "a")
    assert report.ok
    text = report.summary()
    assert "note: 2 of 4 models in the train list of 03001627 have no folder in the renders (first gone_1)" in text
    assert "note: 1 folders of 03001627 are in no list (first stray)" in text
    assert "note: 1 of 1 models in the test list of 03001627 have no ground truth (first chair_d)" in text
    assert report.splits == {"train": 4, "val": 2, "test": 1}
    without = _build(tree, tmp_path / "b", ground_truth=None)
    assert without.splits == {"train": 4, "val": 2, "test": 2}
    assert not any("ground truth" in n for n in without.notes)


Damage = Callable[[Path, Path], object]
WHITE = Image.fromarray(np.full((64, 64, 4), 255, np.uint8))


def _camera(**changes: object) -> Damage:
    return lambda folder, _: write_camera(folder / "camera_1.mat", **changes)  # type: ignore[arg-type]


def _picture(image: Image.Image) -> Damage:
    return lambda folder, _: image.save(folder / "render_1.png")


def _points(**content: object) -> Damage:
    return lambda _, cloud: savemat(cloud, content)


def _lose(pattern: str) -> Damage:
    return lambda folder, _: [p.unlink() for p in folder.glob(pattern)]


HDF5 = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" * 64
DAMAGE: list[tuple[Damage, str]] = [
    (
        lambda f, _: (f / "render_1.png").write_bytes((f / "render_1.png").read_bytes()[:200]),
        "render_1.png is not a readable image",
    ),
    (_picture(WHITE.convert("RGB")), "render_1.png has no alpha channel"),
    (_picture(WHITE), "render_1.png has no background"),
    (_picture(Image.new("RGBA", (64, 64))), "render_1.png is empty"),
    (_picture(WHITE.crop((0, 0, 64, 32))), "64 x 32 pixels"),
    (_picture(Image.new("RGBA", (64, 64)).crop((0, 0, 32, 32))), "render_1.png is empty"),
    (lambda f, _: Image.open(f / "render_1.png").resize((32, 32)).save(f / "render_1.png"), "32 pixels a side"),
    (_lose("render_1.png"), "render_1.png is missing"),
    (_lose("render_2.png"), "render_2.png is missing: there is a camera"),
    (_lose("*.png"), "no render_0.png"),
    (_lose("camera_1.mat"), "camera_1.mat is missing"),
    (lambda f, _: (f / "camera_1.mat").write_bytes(b"junk" * 9), "camera_1.mat is not a readable MATLAB file"),
    (_camera(pos=None), "no key 'pos'"),
    (_camera(extrinsic=None), "no key 'extrinsic'"),
    (_camera(pos=np.zeros(2)), "pos has 2 numbers"),
    (_camera(pos=np.zeros(3)), "pos is the origin"),
    (_camera(pos="abc"), "pos holds <U3 rather than numbers"),
    (_camera(pos=np.array([2, np.nan, 0])), "pos has numbers that are not finite"),
    (_camera(extrinsic=np.eye(3)), "extrinsic has shape (3, 3)"),
    (_camera(extrinsic=2 * np.eye(4)), "is not a rotation"),
    (_camera(extrinsic=np.diag([-1.0, 1, 1, 1])), "is not a rotation"),
    (_camera(extrinsic=blender_extrinsic(blender_position(0, 0), roll=5)), "are different cameras"),
    (_camera(pos=blender_position(1, 0)), "are different cameras"),
    (_camera(pos=blender_position(0, 0, 2.1)), "are different cameras"),
    (_camera(K=np.eye(3)), "K is no calibration matrix"),
    (_points(vertices=np.zeros((5, 3))), "no key 'points' (it has vertices)"),
    (_points(points=np.zeros((3, 5))), "shape (3, 5), expected (N, 3)"),
    (_points(points=np.zeros((0, 3))), "expected (N, 3)"),
    (_points(points=np.full((5, 3), np.nan)), "points has numbers that are not finite"),
    (_points(points=np.full((5, 3), 7.0)), "as far out as 7"),
    (lambda _, cloud: cloud.write_bytes(HDF5), "chair_c.mat is a MATLAB 7.3 (HDF5) file"),
]


@pytest.mark.parametrize(("harm", "reason"), DAMAGE)
def test_a_bad_model_is_named_and_the_others_are_built(harm: Damage, reason: str, tree: Path, tmp_path: Path) -> None:
    harm(tree / "renders" / "03001627" / "chair_c", tree / "gt" / "03001627" / "chair_c.mat")
    report = _build(tree, tmp_path / "out", categories=["chair"])
    assert list(report.failed) == ["03001627/chair_c"]
    assert reason in report.failed["03001627/chair_c"]
    assert "chair_c" in report.failed["03001627/chair_c"]
    assert report.splits == {"train": 2, "val": 0, "test": 1}
    result = check(tmp_path / "out")
    assert result.problems == []
    assert result.shapes == 3


def test_settings_that_cannot_be(tree: Path, tmp_path: Path) -> None:
    cases: list[tuple[dict, str]] = [
        ({"splits": tree / "none"}, "do not exist"),
        ({"ground_truth": tree / "none"}, "folder of ground truth .* does not exist"),
        ({"categories": ["boat"]}, "no category 'boat'"),
        ({"category_names": "emoji"}, "category_names"),
        ({"views": 0}, "views is 0"),
        ({"workers": 0}, "workers is 0"),
        ({"splits": tree / "gt"}, "no split list of any folder"),
        ({"views": 4}, r"None of the 8 shapes.*has 3 renders, fewer than the 4"),
    ]
    for options, reason in cases:
        with pytest.raises(ReconlabError, match=reason):
            _build(tree, tmp_path / "out", **options)
    with pytest.raises(ReconlabError, match="folder of renders"):
        build_dpc(tree / "none", tmp_path / "out", splits=tree / "splits")
    for path in (tree / "splits").iterdir():
        path.write_text(f"nobody_{path.stem}\n")
    with pytest.raises(ReconlabError, match=r"No model that .*splits names has a folder"):
        _build(tree, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_command_line(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["data", "build", "--source", "dpc", "--input", str(tree / "renders"), "--out", str(out)]
    lists = ["--splits", str(tree / "splits"), "--ground_truth", str(tree / "gt")]
    assert main([*command, *lists, "--categories", "chair", "--category_names", "word", "--views", "2"]) == 0
    assert main(["data", "check", str(out)]) == 0
    assert "4 shapes checked, 0 problems" in capsys.readouterr().out
    for more, reason in (
        ([], "needs --input RENDERS and --splits"),
        ([*lists, "--points", "5"], "--points does not go with --source dpc"),
        ([*lists, "--split", "1", "0", "0"], "--split does not go"),
        ([*lists, "--groups", "x"], "--groups goes with --source meshes"),
    ):
        assert main([*command, *more]) == 2
        error = capsys.readouterr().err
        assert reason in error
        assert "Traceback" not in error
    assert main(["data", "build", "--source", "synth", "--out", str(out), "--splits", "x"]) == 2
    assert "--splits goes with --source dpc" in capsys.readouterr().err


def test_metrics_ask_for_ground_truth_where_they_judge(converted: Path) -> None:
    data = ReconstructionData(str(converted), batch_size=2, points=2000, views=3)
    data.require({"views"}, "the loss")
    data.require({"surface"}, "the metric", ("val", "test"))
    data.setup("fit")
    assert data.needs_of("train") == {"views"}
    assert "points" not in data.dataset("train")[0]
    batch = next(iter(data.val_dataloader()))
    assert batch.points is not None
    assert batch.points.shape == (2, 2000, 3)
    assert batch.normals is None
    data.require({"surface"}, "the loss Chamfer")
    with pytest.raises(ReconlabError, match=r"the loss Chamfer needs 'surface', but .*plane_a/pointcloud\.npz"):
        data.setup("fit")


def test_normals_are_asked_for_before_training(converted: Path, tiny_root: Path) -> None:
    without, known = (ReconstructionData(str(root)) for root in (converted, tiny_root))
    for data in (without, known):
        data.require({"surface", "normals"}, "the metric NC", ("val", "test"))
    known.setup("fit")
    with pytest.raises(ReconlabError, match=r"the metric NC needs 'normals', but .* lacks normals in .*npz"):
        without.setup("fit")


def _fit(repository: Path, data: Path, out: Path, *more: str) -> int:
    configs = repository / "configs"
    files_ = (configs / "atlasnet_drwr.yaml", configs / "profiles" / "smoke.yaml")
    options = [f"--data.root={data}", "--data.build=never", f"--out={out}", "--trainer.max_steps=2", *more]
    return main(["fit", *(f"--config={file}" for file in files_), *options])


def test_drwr_trains_on_it(repository: Path, converted: Path, tmp_path: Path) -> None:
    overlay = f"--config={repository / 'configs' / 'profiles' / 'dpc_data.yaml'}"
    more = (overlay, f"--data.root={converted}", "--data.views=3", "--trainer.val_check_interval=2")
    assert _fit(repository, converted, tmp_path / "runs", *more) == 0
    with open(tmp_path / "runs" / "atlasnet_drwr" / "000" / "metrics.csv", newline="") as stream:
        values = [float(row["val/dpc_cd"]) for row in csv.DictReader(stream) if row["val/dpc_cd"]]
    assert len(values) == 1
    assert 0 < values[0] < 10


def test_metrics_that_the_data_cannot_answer_are_named(
    repository: Path, converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default metrics want normals and voxels, which DPC's data lack."""
    assert _fit(repository, converted, tmp_path / "runs", "--data.views=3") == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("reconlab:")]
    assert "needs 'normals', but the dataset" in error
