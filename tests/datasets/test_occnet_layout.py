"""Occupancy Networks' archive: as it is, and converted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from reconlab.camera_converters import from_occnet, to_occnet
from reconlab.cameras import Cameras, look_at
from reconlab.cli.__main__ import main
from reconlab.datasets import format as files
from reconlab.datasets.builder import BuildReport
from reconlab.datasets.check import check, silhouette_share
from reconlab.datasets.datamodule import ReconstructionData
from reconlab.datasets.occnet_layout import build_occnet
from reconlab.datasets.samples import read_cameras, read_cloud, read_queries
from reconlab.datasets.synth import generate
from reconlab.errors import ReconlabError
from reconlab.renderers.hard import render_rgba

CHAIR, PLANE = "03001627", "02691156"
TO_Z = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])


def _build(trees: Any, out: Path, **options: Any) -> BuildReport:
    settings = {"progress": False, "hold_out": 0, **options}
    return build_occnet(settings.pop("archive", trees.occnet), out, **settings)


def _overlaps(rig: Cameras, alphas: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    mesh = torch.from_numpy(vertices.astype(np.float32)), torch.from_numpy(faces)
    seen = render_rgba(*mesh, rig, alphas.shape[1], supersample=4)[..., 3].double().numpy()
    return np.minimum(alphas, seen).sum((1, 2)) / np.maximum(alphas, seen).sum((1, 2))


def _views(folder: Path) -> tuple[Cameras, np.ndarray]:
    rig = read_cameras(folder / files.CAMERAS)
    pictures = sorted((folder / files.VIEWS).glob("*.png"))
    alphas = np.stack([files.read_png(p)[..., 3] for p in pictures]).astype(np.float64)
    return Cameras(*(torch.from_numpy(rig[k]) for k in ("R", "t", "focal", "centre"))), alphas


def test_matrices_by_hand_and_back() -> None:
    """A pixel of the published matrices: [0, 137] from the picture's corner, as fix_K_camera says."""
    camera = look_at(torch.tensor([30.0, 200.0]), torch.tensor([25.0, 30.0]), torch.tensor([1.2, 1.6]), 35 / 16)
    world, matrix = to_occnet(camera)
    assert matrix[0].tolist() == [[149.84375, 0, 68.5], [0, 149.84375, 68.5], [0, 0, 1]]
    point = torch.tensor([0.1, -0.2, 0.3])
    pixel = matrix[0] @ (world[0] @ torch.cat([point, torch.ones(1)]))
    assert torch.allclose(pixel[:2] / pixel[2] * 2 / 137 - 1, camera[0].project(point[None])[0][0], atol=1e-6)
    back = from_occnet(world, matrix)
    for key in ("R", "t", "focal", "centre"):
        assert torch.allclose(getattr(back, key), getattr(camera, key), atol=1e-6)
    with pytest.raises(ReconlabError, match="is not a rotation"):
        from_occnet(2 * world, matrix)
    with pytest.raises(ReconlabError, match="no calibration matrix"):
        from_occnet(world, matrix.transpose(-1, -2))


def test_the_archive_loads_as_it_is(trees: Any) -> None:
    """Points, occupancies and cameras are in one frame, that of the archive's points, without a conversion."""
    data = ReconstructionData(str(trees.occnet), image_size=137, points=5000, queries=4003, train_view=0)
    data.require({"images", "cameras", "surface", "normals", "occupancy", "voxels"}, "a test")
    data.setup("test")
    assert [i.id for i in data.items["test"]] == ["plane_b", "chair_d"]
    for item, sample in zip(data.items["train"], data.dataset("train"), strict=False):
        picture = np.asarray(Image.open(item.folder / "img_choy2016" / "000.jpg")).astype(np.float32) / 255
        assert np.allclose(sample["image"].permute(1, 2, 0).numpy(), picture, atol=1e-6)
        assert np.abs(sample["points"].numpy()).max() == pytest.approx(0.5, abs=0.02)
        assert sample["voxels"].shape == (32, 32, 32)
        column, row = ((sample["camera"].project(sample["points"])[0] + 1) / 2 * 137).floor().long().T
        near = torch.nn.functional.max_pool2d(torch.from_numpy(picture.min(-1) < 0.9)[None].float(), 3, 1, 1)[0]
        assert float(near[row, column].mean()) > 0.99
        kind, number = ("airplane" if item.category == PLANE else "chair"), ord(item.id[-1]) - ord("a")
        frame = files.read_npz(item.folder / files.POINTS, "loc", "scale")
        x, y, z = (sample["query_points"].double().numpy() * frame["scale"] + frame["loc"]).T
        inside = generate(kind, number).occupancy(np.stack([z, y, -x], 1))
        assert np.array_equal(inside, sample["query_occupancies"].numpy() > 0.5)
    assert check(trees.occnet).shapes == 6


def test_what_jpegs_cannot_say_is_named(trees: Any, tmp_path: Path) -> None:
    for need in ("masks", "views"):
        data = ReconstructionData(str(trees.occnet))
        data.require({need}, "the loss DRWR")
        with pytest.raises(ReconlabError, match=rf"DRWR needs '{need}'.* lacks silhouettes .*img_choy2016"):
            data.setup("test")
    shutil.copytree(trees.occnet / CHAIR, tmp_path / CHAIR)
    data = ReconstructionData(str(tmp_path), eval_view="all")
    data.require({"images", "cameras"}, "a test")
    data.setup("test")
    assert len(data.dataset("test")) == 4
    (tmp_path / CHAIR / "chair_d" / "img_choy2016" / "cameras.npz").unlink()
    with pytest.raises(ReconlabError, match=r"needs 'cameras', but .*img_choy2016/cameras\.npz"):
        data.setup("test")


@pytest.mark.parametrize(("front", "renders"), [("+x", False), ("-z", True)])
def test_cameras_put_the_mesh_on_the_pictures(front: str, renders: bool, trees: Any, tmp_path: Path) -> None:
    report = _build(trees, tmp_path / "out", front=front, renders=trees.renders if renders else None, views=2)
    assert report.ok, report.summary()
    assert report.splits == {"train": 4, "val": 0, "test": 2}
    assert check(tmp_path / "out").problems == []
    turn = TO_Z if front == "-z" else np.eye(3)
    for synset, name in ((s, n) for s, names in trees.models.items() for n in names):
        folder = tmp_path / "out" / synset / name
        vertices = trees.vertices[name] @ turn.T
        rig, alphas = _views(folder)
        found = _overlaps(rig, alphas, vertices, trees.faces[name])
        assert found.min() > 0.95, (name, found)
        assert _overlaps(rig, alphas, vertices @ TO_Z.T, trees.faces[name]).mean() < 0.85
        assert silhouette_share(folder) > 0.99


@pytest.mark.parametrize("front", ["+x", "-z"])
def test_points_are_in_the_object_frame(front: str, trees: Any, tmp_path: Path) -> None:
    assert _build(trees, tmp_path / "out", front=front, categories=["chair"], views=1).ok
    turn = TO_Z if front == "-z" else np.eye(3)
    for number, name in enumerate(trees.models[CHAIR]):
        folder = tmp_path / "out" / CHAIR / name
        cloud = read_cloud(folder / files.POINTCLOUD)
        box = np.stack([cloud["points"].min(0), cloud["points"].max(0)]).astype(np.float64)
        assert np.allclose(box.sum(0), 0, atol=1e-6)
        assert np.linalg.norm(box[1] - box[0]) == pytest.approx(1, abs=1e-6)
        truth = trees.vertices[name] @ turn.T
        assert np.allclose(box, [truth.min(0), truth.max(0)], atol=2e-3)
        assert np.allclose(np.linalg.norm(cloud["normals"].astype(np.float64), axis=1), 1, atol=0.01)
        original = np.load(trees.occnet / CHAIR / name / "pointcloud.npz")["normals"].astype(np.float64)
        assert np.allclose(cloud["normals"], original @ turn.T, atol=1e-3)
        asked = read_queries(folder / files.POINTS)
        local = asked["points"].astype(np.float64) @ (TO_Z @ turn.T).T
        assert (generate("chair", number).occupancy(local) == asked["occupancies"]).mean() > 0.995
        assert len(asked["points"]) == 4003


Damage = Callable[[Path], object]


def _npz(name: str, **changes: Any) -> Damage:
    def harm(folder: Path) -> None:
        arrays = dict(np.load(folder / name)) | changes
        np.savez(folder / name, **{k: v for k, v in arrays.items() if v is not None})

    return harm


def _cut(name: str) -> Damage:
    return lambda f: (f / name).write_bytes((f / name).read_bytes()[:150])


CAMERAS = "img_choy2016/cameras.npz"
NAN, WHITE = np.full((3, 4), np.nan), Image.new("RGB", (137, 137), "white")
DAMAGE: list[tuple[Damage, str]] = [
    (lambda f: (f / "pointcloud.npz").unlink(), "pointcloud.npz is missing"),
    (lambda f: (f / "points.npz").unlink(), "points.npz is missing"),
    (lambda f: (f / "model.binvox").unlink(), "model.binvox is missing"),
    (lambda f: shutil.rmtree(f / "img_choy2016"), "img_choy2016 is missing"),
    (_cut("pointcloud.npz"), "pointcloud.npz cannot be read"),
    (_cut("points.npz"), "points.npz cannot be read"),
    (_cut("model.binvox"), "model.binvox is not a readable binvox file"),
    (lambda f: (f / "model.binvox").write_bytes(b"binvox"), "no #binvox line"),
    (_npz("pointcloud.npz", scale=None), "has no array 'scale'"),
    (_npz("pointcloud.npz", scale=0.0), "loc and scale are not three numbers and a positive one"),
    (_npz("points.npz", loc=np.array([0, np.nan, 0])), "loc and scale are not"),
    (_npz("pointcloud.npz", points=np.zeros((9, 3)), normals=None), "all its points coincide"),
    (_npz("pointcloud.npz", points=np.full((9, 3), np.inf)), "numbers that are not finite"),
    (_npz("points.npz", occupancies=np.zeros(7, np.uint8)), "4003 points and 7 occupancies"),
    (lambda f: (f / "img_choy2016" / "000.jpg").unlink(), "000.jpg is missing"),
    (lambda f: (f / "img_choy2016" / "002.jpg").unlink(), "002.jpg is missing"),
    (_cut("img_choy2016/001.jpg"), "001.jpg is not a readable image"),
    (lambda f: WHITE.resize((64, 137)).save(f / "img_choy2016" / "001.jpg"), "64 x 137 pixels"),
    (lambda f: [WHITE.save(p) for p in (f / "img_choy2016").glob("*.jpg")], "its pictures are white"),
    (lambda f: (f / CAMERAS).unlink(), "cameras.npz is missing"),
    (_npz(CAMERAS, camera_mat_2=None), "has no array 'camera_mat_2'"),
    (_npz(CAMERAS, world_mat_1=NAN), "world_mat_1 has values that are not finite"),
    (_npz(CAMERAS, world_mat_1=np.eye(3)), "world_mat_1 has shape (3, 3)"),
    (_npz(CAMERAS, world_mat_1=np.ones((3, 4))), "is not a rotation"),
    (_npz(CAMERAS, camera_mat_1=np.diag([149.8, 149.8, 1])), "belong to pictures of another size than 137"),
    (_npz(CAMERAS, camera_mat_1=np.ones((3, 3))), "is no calibration matrix"),
    (_npz("pointcloud.npz", loc=np.array([0.2, 0.1, 0])), "not in one frame"),
]


@pytest.mark.parametrize(("harm", "reason"), DAMAGE)
def test_a_bad_model_is_named_and_the_others_are_built(harm: Damage, reason: str, trees: Any, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(trees.occnet / CHAIR, archive / CHAIR)
    harm(archive / CHAIR / "chair_c")
    (archive / CHAIR / "train.lst").write_text("chair_a\nchair_c\nnobody\n")
    report = _build(trees, tmp_path / "out", archive=archive)
    assert list(report.failed) == [f"{CHAIR}/chair_c"]
    assert reason in report.failed[f"{CHAIR}/chair_c"]
    assert "chair_c" in report.failed[f"{CHAIR}/chair_c"]
    assert report.splits == {"train": 1, "val": 0, "test": 1}
    assert any("have no folder in archive (first nobody)" in note for note in report.notes)


def test_parts_that_the_archive_does_not_have(trees: Any, tmp_path: Path) -> None:
    """Point clouds alone; pictures alone, whose silhouettes nothing tells; no model at all."""
    archive = tmp_path / "archive"
    shutil.copytree(trees.occnet / PLANE, archive / PLANE)
    for path in archive.rglob("points.npz"):
        path.unlink()
    for path in archive.rglob("model.binvox"):
        path.unlink()
    assert _build(trees, tmp_path / "a", archive=archive).ok
    built = tmp_path / "a" / PLANE / "plane_a"
    assert sorted(p.name for p in built.iterdir()) == ["checksums.json", "pointcloud.npz", "views"]
    for name in ("plane_a", "plane_b"):
        shutil.copy(trees.occnet / PLANE / name / "model.binvox", archive / PLANE / name)
        (archive / PLANE / name / "pointcloud.npz").unlink()
    report = _build(trees, tmp_path / "b", archive=archive)
    assert "The pictures were left out" in report.summary()
    assert not list((tmp_path / "b" / PLANE / "plane_a" / "views").iterdir())
    report = _build(trees, tmp_path / "c", archive=archive, renders=trees.renders, resolution=16)
    assert files.read_binvox(tmp_path / "c" / PLANE / "plane_a" / files.VOXELS).shape == (16, 16, 16)
    rig, alphas = _views(tmp_path / "c" / PLANE / "plane_a")
    assert _overlaps(rig, alphas, trees.vertices["plane_a"], trees.faces["plane_a"]).min() > 0.95
    for name in ("plane_a", "plane_b"):
        shutil.rmtree(archive / PLANE / name)
        (archive / PLANE / name).mkdir()
    with pytest.raises(ReconlabError, match=r"No model of .*archive has pointcloud\.npz, points\.npz"):
        _build(trees, tmp_path / "d", archive=archive)


def test_command_line(trees: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["data", "build", "--source", "occnet", "--out", str(out), "--input", str(trees.occnet)]
    assert main([*command, "--categories", "chair", "--views", "2", "--renders", str(trees.renders)]) == 0
    shown = capsys.readouterr().out
    assert "03001627 has no validation list: the last 1 of 3 training ids validate" in shown
    assert "(train 2, val 1, test 1)" in shown
    for more, reason in (
        (["--points", "5"], "--points does not go with --source occnet"),
        (["--share", "0.5"], "--share goes with --source shapenet or choy, not with occnet"),
        (["--renders", str(tmp_path / "none")], "The folder of renders"),
        (["--views", "0"], "views is 0"),
        (["--resolution", "0"], "resolution is 0"),
    ):
        assert main([*command, *more]) == 2
        assert reason in capsys.readouterr().err
