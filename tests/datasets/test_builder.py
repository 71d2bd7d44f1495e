"""Building: determinism, resuming, refusing, bad inputs, Ctrl-C."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh
import yaml

from reconlab.datasets import builder, work
from reconlab.datasets import format as files
from reconlab.datasets.builder import build_meshes, build_synth, ensure_embedded
from reconlab.datasets.check import check
from reconlab.datasets.content import Sizes
from reconlab.datasets.store import locked
from reconlab.errors import ReconlabError

TINY = Sizes(views=2, image_size=32, points=200, queries=500)


def _synth(out: Path, **kwargs: object) -> builder.BuildReport:
    settings: dict = {"categories": ["chair"], "count": 3, "seed": 1, "sizes": TINY, "progress": False}
    return build_synth(out, **{**settings, **kwargs})


def _tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture
def meshes(tmp_path: Path) -> Path:
    """Good meshes in every format and bad ones of every kind."""
    folder = tmp_path / "input"
    for category in ("box", "bad", "nothing"):
        (folder / category).mkdir(parents=True)
    box = trimesh.creation.box((1, 2, 3))
    for suffix in ("obj", "glb", "ply", "stl", "off"):
        box.export(folder / "box" / f"good.{suffix}" if suffix == "glb" else folder / "box" / f"{suffix}box.{suffix}")
    (folder / "bad" / "nan.obj").write_text("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    (folder / "bad" / "noface.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    (folder / "bad" / "flat.obj").write_text("v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n")
    (folder / "bad" / "line.obj").write_text("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n")
    (folder / "bad" / "garbage.glb").write_bytes(b"not a mesh")
    (folder / "bad" / "empty.ply").write_bytes(b"")
    return folder


def test_two_builds_are_byte_identical(tmp_path: Path) -> None:
    _synth(tmp_path / "a")
    _synth(tmp_path / "b")
    assert _tree(tmp_path / "a") == _tree(tmp_path / "b")


def test_processes_give_the_same_bytes(tmp_path: Path) -> None:
    _synth(tmp_path / "a", count=2)
    assert len(_synth(tmp_path / "b", count=2, workers=2).built) == 2
    assert _tree(tmp_path / "a") == _tree(tmp_path / "b")


def test_seed_changes_the_shapes(tmp_path: Path) -> None:
    _synth(tmp_path / "a", count=1)
    _synth(tmp_path / "b", count=1, seed=2)
    one, two = (files.read_npz(tmp_path / x / "chair" / "chair_00000" / "mesh.npz") for x in "ab")
    assert one["vertices"].shape != two["vertices"].shape or not np.allclose(one["vertices"], two["vertices"])


def test_second_build_reuses_and_other_settings_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "a"
    assert _synth(root).reused == []
    again = _synth(root)
    assert (again.built, len(again.reused)) == ([], 3)
    with pytest.raises(ReconlabError, match=r"other settings \(count 3 -> 2, seed 1 -> 2\).*--force"):
        _synth(root, seed=2, count=2)
    assert check(root).ok
    replaced = _synth(root, seed=2, count=2, force=True)
    assert len(replaced.built) == 2
    assert sorted(p.name for p in (root / "chair").iterdir() if p.is_dir()) == ["chair_00000", "chair_00001"]
    assert check(root).ok


def test_a_killed_build_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, calls, real = tmp_path / "a", [], files.write_durable

    def dies(path: Path, data: bytes) -> None:
        calls.append(path)
        if "chair_00001" in str(path) and path.name == "mesh.npz":
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(files, "write_durable", dies)
    with pytest.raises(KeyboardInterrupt):
        _synth(root)
    monkeypatch.undo()
    assert [p.name for p in (root / "chair").iterdir()] == ["chair_00000"]
    assert not (root / "metadata.yaml").exists()
    with pytest.raises(ReconlabError, match="not finished"):
        files.list_categories(root)
    # What a kill -9 would leave aside is swept away, not trusted.
    shutil.copytree(root / "chair" / "chair_00000", root / "chair" / ".chair_00001.99.tmp")
    report = _synth(root)
    assert (len(report.built), len(report.reused)) == (2, 1)
    assert sorted(p.name for p in (root / "chair").iterdir() if p.is_dir()) == [f"chair_0000{i}" for i in range(3)]
    _synth(tmp_path / "b")
    assert _tree(root) == _tree(tmp_path / "b")


def test_a_shape_with_a_lost_file_is_built_again(tmp_path: Path) -> None:
    _synth(tmp_path / "a")
    (tmp_path / "a" / "chair" / "chair_00002" / "mesh.npz").unlink()
    assert _synth(tmp_path / "a").built == ["chair/chair_00002"]


def test_meshes_of_every_format_and_bad_ones_by_name(meshes: Path, tmp_path: Path) -> None:
    report = build_meshes(meshes, tmp_path / "out", sizes=TINY, progress=False)
    assert len(report.built) == 5
    assert sum(report.splits.values()) == 5
    expected = {
        "bad/nan": "not finite",
        "bad/noface": "",
        "bad/flat": "bounding box",
        "bad/line": "no face with an area",
        "bad/garbage": "cannot be read",
        "bad/empty": "",
        "bad": "no shape of this category",
        "nothing": "no mesh of this category",
    }
    assert set(report.failed) == set(expected)
    for name, reason in expected.items():
        assert reason in report.failed[name], name
        assert name in report.summary()
    assert not report.ok
    meta = yaml.safe_load((tmp_path / "out" / "metadata.yaml").read_text())
    assert set(meta["reconlab"]["failed"]) == set(expected)
    assert "box" in meta
    assert "bad" not in meta
    assert str(tmp_path) not in json.dumps(meta["reconlab"]["settings"])
    result = check(tmp_path / "out")
    assert result.ok, result.problems
    for shape in (tmp_path / "out" / "box").iterdir():
        if shape.is_dir():
            vertices = files.read_npz(shape / "mesh.npz")["vertices"]
            assert np.isclose(np.linalg.norm(np.ptp(vertices, 0)), 1, atol=1e-5)
            assert np.allclose(vertices.max(0), -vertices.min(0), atol=1e-6)


def test_loc_and_scale_lead_back_to_the_input(meshes: Path, tmp_path: Path) -> None:
    build_meshes(meshes, tmp_path / "out", sizes=TINY, progress=False)
    mesh = files.read_npz(tmp_path / "out" / "box" / "plybox" / "mesh.npz")
    back = mesh["vertices"] * mesh["scale"] + mesh["loc"]
    assert np.allclose(np.ptp(back, 0), [1, 2, 3], atol=1e-5)


def test_nothing_usable_is_an_error(meshes: Path, tmp_path: Path) -> None:
    shutil.rmtree(meshes / "box")
    with pytest.raises(ReconlabError, match=r"None of the 6 shapes.*bad/empty"):
        build_meshes(meshes, tmp_path / "out", sizes=TINY, progress=False)
    assert not (tmp_path / "out" / "metadata.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"categories": ["boat"]}, "'boat'"),
        ({"count": 0}, "count is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"workers": 0}, "workers is 0"),
        ({"fractions": (1, 2)}, "three fractions"),
    ],
)
def test_impossible_settings(tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ReconlabError, match=message):
        _synth(tmp_path / "a", **arguments)
    assert not (tmp_path / "a").exists()


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(ReconlabError, match="does not exist"):
        build_meshes(tmp_path / "missing", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReconlabError, match="has no meshes"):
        build_meshes(tmp_path / "empty", tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    with pytest.raises(ReconlabError, match="not empty and no dataset"):
        _synth(tmp_path / "mine")
    (tmp_path / "file").write_text("")
    with pytest.raises(ReconlabError, match="cannot be written"):
        _synth(tmp_path / "file")
    with pytest.raises(ReconlabError, match="image_size is 0"):
        Sizes(image_size=0)


def test_an_unexpected_failure_of_one_shape_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builder.make_shape

    def fails(task: builder.Task) -> dict[str, bytes]:
        if task.name == "chair_00001":
            raise ValueError("odd")
        return real(task)

    monkeypatch.setattr(builder, "make_shape", fails)
    report = _synth(tmp_path / "a")
    assert report.failed == {"chair/chair_00001": "unexpected ValueError: odd"}
    assert sum(report.splits.values()) == 2


def test_two_processes_do_not_build_at_once(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl", reason="file locks need a POSIX system")
    root = tmp_path / "a"
    root.mkdir()
    with (root / ".lock").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ReconlabError, match="Another process"), locked(root, wait=False):
            pass
    with locked(root, wait=False), locked(root, wait=True):
        assert (root / ".lock").exists()


def test_embedded_set_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "EMBEDDED_SIZES", TINY)
    built = []
    real = builder.build_synth
    monkeypatch.setattr(builder, "build_synth", lambda *a, **k: built.append(a) or real(*a, **{**k, "sizes": TINY}))
    root = tmp_path / "synth"
    ensure_embedded(root, ["lamp"], 2, progress=False)
    stamp = (root / "metadata.yaml").stat().st_mtime_ns
    ensure_embedded(root, ["lamp"], 2, progress=False)
    assert len(built) == 1
    assert (root / "metadata.yaml").stat().st_mtime_ns == stamp


def test_progress_bar_names_the_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _synth(tmp_path / "a", count=1, progress=True)
    assert "Building" in capsys.readouterr().err
    assert list(work.run_tasks(tmp_path, [], 1, True)) == []
