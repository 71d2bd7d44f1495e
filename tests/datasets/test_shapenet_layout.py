"""ShapeNetCore's trees, v1 and v2, and their .obj files; categories and split lists of all published layouts."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reconlab.cli.__main__ import main
from reconlab.datasets import format as files
from reconlab.datasets.builder import BuildReport
from reconlab.datasets.check import check
from reconlab.datasets.content import Sizes
from reconlab.datasets.meshes import read_mesh
from reconlab.datasets.samples import read_cloud, read_mesh_arrays, read_queries
from reconlab.datasets.shapenet_frame import V2_TO_V1
from reconlab.datasets.shapenet_layout import build_shapenet, read_model
from reconlab.datasets.shapenet_lists import SYNSETS, choose
from reconlab.datasets.shapenet_obj import read_obj
from reconlab.datasets.synth import generate
from reconlab.errors import ReconlabError

CHAIR = "03001627"
SIZES = Sizes(views=1, image_size=16, points=200, queries=200)


def _build(root: Path, out: Path, **options: Any) -> BuildReport:
    return build_shapenet(root, out, **{"sizes": SIZES, "progress": False, "hold_out": 0, **options})


def test_a_front_points_where_the_readmes_say() -> None:
    """v1: up +y, front +x, symmetry plane x-y. v2: up +y, front -z, symmetry plane y-z."""
    assert (V2_TO_V1 @ [0, 0, -1]).tolist() == [1, 0, 0]
    assert (V2_TO_V1 @ [0, 1, 0]).tolist() == [0, 1, 0]
    assert np.abs(V2_TO_V1 @ [1, 0, 0]).tolist() == [0, 0, 1]
    assert np.linalg.det(V2_TO_V1) == pytest.approx(1)


def test_both_versions_give_the_same_shape(trees: Any, tmp_path: Path) -> None:
    for version in ("v1", "v2"):
        shutil.copytree(getattr(trees, version) / CHAIR / "chair_a", tmp_path / version / CHAIR / "chair_a")
    for out, version, front in (("a", "v1", "+x"), ("b", "v2", "+x"), ("c", "v2", "-z")):
        assert _build(tmp_path / version, tmp_path / out, share=1.0, front=front).splits["train"] == 1
        assert check(tmp_path / out).problems == []
    one, two, three = (tmp_path / out / CHAIR / "chair_a" for out in "abc")
    a, b, c = (read_mesh_arrays(folder / files.MESH) for folder in (one, two, three))
    assert np.allclose(a["vertices"][a["faces"]], b["vertices"][b["faces"]], atol=1e-5)
    assert np.allclose(a["vertices"][a["faces"]], c["vertices"][c["faces"]] @ V2_TO_V1.T, atol=1e-5)
    box = np.stack([a["vertices"].min(0), a["vertices"].max(0)])
    assert np.allclose(box.sum(0), 0, atol=1e-5)
    assert np.linalg.norm(box[1] - box[0]) == pytest.approx(1, abs=1e-5)
    cells = [files.read_binvox(folder / files.VOXELS) for folder in (one, two)]
    assert (cells[0] & cells[1]).sum() > 0.98 * (cells[0] | cells[1]).sum()
    assert len(read_cloud(one / files.POINTCLOUD)["normals"]) == 200
    assert len(read_queries(one / files.POINTS)["points"]) == 200
    made = generate("chair", 0).mesh()[0]  # the procedural shape, which faces -z
    assert np.allclose(c["vertices"].min(0), made.min(0), atol=1e-5)


def test_v2s_origin_is_not_the_middle_of_its_box(trees: Any) -> None:
    mesh = read_model(trees.v2 / CHAIR / "chair_a")
    assert np.abs(mesh.vertices.min(0) + mesh.vertices.max(0)).max() > 0.02
    shift = mesh.vertices - trees.vertices["chair_a"]
    assert np.allclose(shift, shift[0], atol=1e-6)


OBJ = """mtllib missing.mtl
o first
v 0 0 0
v 1 0 0
v 1 1 0
v 0 1 0
vt 0 0
usemtl wood
f -4 -3 -2 -1
g second
v 0 0 1 0.5 0.5 0.5
v 1 0 1
v 1 1 1
v 0 1 1
v 0.5 1.5 1
vn 0 0 1
s off
f 5/1/1 6/1/1 7//1 9/1 8
l 1 2
f -5// -4//1 \\
  -3//
f 1 2
"""


def test_objects_quads_pentagons_and_relative_indices(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(OBJ)
    mesh = read_obj(tmp_path / "a.obj")
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 8], [4, 8, 7], [4, 5, 6]]
    assert mesh.vertices.shape == (9, 3)
    assert mesh.vertices[8].tolist() == [0.5, 1.5, 1]
    corners = mesh.vertices[mesh.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    assert area.tolist() == [0.5, 0.5, 0.5, 0.5, 0.25, 0.5]


def test_mesh_folders_read_relative_indices_as_shapenet_does(tmp_path: Path) -> None:
    (tmp_path / "a.obj").write_text(OBJ)
    ours, theirs = read_mesh(tmp_path / "a.obj"), read_obj(tmp_path / "a.obj")
    assert np.array_equal(ours.faces, theirs.faces)
    assert np.array_equal(ours.vertices, theirs.vertices)


SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
BAD_OBJ: list[tuple[str | bytes | None, str]] = [
    (None, "has neither model.obj"),
    ("", "model.obj has no faces"),
    (SQUARE, "model.obj has no faces"),
    (SQUARE + "f 1 2\n", "model.obj has no faces"),
    (SQUARE + "f 1 2 9\n", "name vertices which it does not have"),
    (SQUARE + "f 0 1 2\n", "line 5: the face names a vertex that is not there"),
    (SQUARE + "f -9 1 2\n", "line 5: the face names a vertex that is not there"),
    (SQUARE + "f 1 2 x\n", "line 5: 'f 1 2 x' is no vertex or face"),
    (SQUARE + "v 1 2\nf 1 2 3\n", "line 5: 'v 1 2' is no vertex or face"),
    (SQUARE.replace("v 1 1 0", "v nan 1 0") + "f 1 2 3\n", "vertices that are not finite"),
    (SQUARE + "f 1 1 1\n", "bounding box of diagonal 0"),
    (b"\x00\xff\xfe\x80", "has no faces"),
]


@pytest.mark.parametrize(("content", "reason"), BAD_OBJ)
def test_a_bad_mesh_is_named_and_the_others_are_built(
    content: str | bytes | None, reason: str, trees: Any, tmp_path: Path
) -> None:
    for name in ("chair_a", "chair_b"):
        shutil.copytree(trees.v1 / CHAIR / name, tmp_path / "in" / CHAIR / name)
    path = tmp_path / "in" / CHAIR / "chair_a" / "model.obj"
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    report = _build(tmp_path / "in", tmp_path / "out")
    assert list(report.failed) == [f"{CHAIR}/chair_a"]
    assert reason in report.failed[f"{CHAIR}/chair_a"]
    assert report.splits == {"train": 0, "val": 0, "test": 1}


@pytest.fixture
def ids(tmp_path: Path) -> Path:
    """A tree of empty models: ten chairs, five lamps."""
    for synset, count in ((CHAIR, 10), ("03636649", 5)):
        for k in range(count):
            (tmp_path / "tree" / synset / f"m{k}").mkdir(parents=True)
    return tmp_path / "tree"


def test_sorted_ids_are_cut_as_atlasnet_does(ids: Path) -> None:
    choice = choose(ids, hold_out=0)
    assert choice.ids[CHAIR] == {"train": [f"m{k}" for k in range(8)], "val": [], "test": ["m8", "m9"]}
    assert choice.ids["03636649"]["test"] == ["m4"]
    assert choice.notes == []
    held = choose(ids, categories=["chair"], hold_out=0.25)
    assert held.ids == {CHAIR: {"train": [f"m{k}" for k in range(6)], "val": ["m6", "m7"], "test": ["m8", "m9"]}}
    assert "03001627 has no validation list: the last 2 of 8 training ids validate" in held.notes[0]
    assert choose(ids, categories=["lamp"], share=0.4).ids["03636649"] == {
        "train": ["m0"],
        "val": ["m1"],
        "test": ["m2", "m3", "m4"],
    }


def test_disns_lists_and_a_prefix(ids: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir()
    for prefix, train in (("disn_", "m1\nm2\n\ngone\n"), ("dpc_", "m3\n")):
        (lists / f"{prefix}{CHAIR}_train.lst").write_text(train)
        (lists / f"{prefix}{CHAIR}_test.lst").write_text("m5\n")
    with pytest.raises(ReconlabError, match="could be the train list"):
        choose(ids, lists)
    choice = choose(ids, lists / "disn", hold_out=0)
    assert choice.ids == {CHAIR: {"train": ["m1", "m2"], "val": [], "test": ["m5"]}}
    text = " ".join(choice.notes)
    assert "1 of 3 models in the train list of 03001627 have no folder in tree (first gone)" in text
    assert "7 folders of 03001627 are in no list (first m0)" in text
    assert "no split list of 03636649: left out" in text
    with pytest.raises(ReconlabError, match="do not exist"):
        choose(ids, lists / "dis")
    with pytest.raises(ReconlabError, match="no split list of 03636649"):
        choose(ids, lists / "disn", ["lamp"])
    (lists / f"dpc_{CHAIR}_train.lst").write_text("gone\n")
    (lists / f"dpc_{CHAIR}_test.lst").write_text("away\n")
    with pytest.raises(ReconlabError, match="no folder <synset>/<model> that a split list names"):
        choose(ids, lists / "dpc")


def test_published_disn_lists(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "splits"
    if not (folder / "disn_02691156_train.lst").exists():
        pytest.skip("the shared folder has no published split lists")
    counts = {"airplane": (3171, 795), "car": (2464, 627), "chair": (5268, 1311), "lamp": (1852, 464)}
    for synset, word in SYNSETS.items():
        if word in counts:
            names = [*files.read_list(folder / f"disn_{synset}_train.lst")[:3], "stray"]
            for name in names:
                (tmp_path / synset / name).mkdir(parents=True)
            choice = choose(tmp_path, folder / "disn", [word], hold_out=0)
            train, test = counts[word]
            assert choice.ids[synset]["train"] == names[:3]
            assert any(f"{train - 3} of {train} models in the train list of {synset}" in n for n in choice.notes)
            assert any(f"{test} of {test} models in the test list" in n for n in choice.notes)


def test_trees_that_cannot_be(ids: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (tmp_path / "none", {}, "does not exist"),
        (tmp_path / "empty", {}, "has no folder: expected <synset>/<model>"),
        (ids, {"categories": ["boat"]}, "no category 'boat'"),
        (ids, {"share": 1.5}, "share is 1.5"),
        (ids, {"hold_out": -0.1}, "hold_out is -0.1"),
        (ids, {"front": "-y"}, "front is '-y': choose"),
        (ids, {"seed": -1}, "seed is -1"),
        (ids, {"category_names": "id"}, "category_names is 'id'"),
        (ids, {}, "None of the 0 shapes .* m0 has neither"),
    ]
    for root, options, reason in cases:
        with pytest.raises(ReconlabError, match=reason.replace(" m0 ", ".*m0 ")):
            _build(root, tmp_path / "out", **options)


def test_command_line(trees: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists: Callable[[str], Path] = lambda name: tmp_path / f"{CHAIR}_{name}.lst"  # noqa: E731
    lists("train").write_text("chair_d\nchair_a\n")
    lists("test").write_text("chair_b\n")
    command = ["data", "build", "--source", "shapenet", "--out", str(tmp_path / "out"), "--splits", str(tmp_path)]
    sizes = ["--views", "1", "--image_size", "16", "--points", "100", "--queries", "100", "--resolution", "16"]
    assert main([*command, *sizes, "--input", str(trees.v2), "--categories", "chair", "--front=-z"]) == 0
    assert "(train 1, val 1, test 1)" in capsys.readouterr().out
    assert files.read_list(tmp_path / "out" / CHAIR / "val.lst") == ["chair_a"]
    assert files.read_binvox(tmp_path / "out" / CHAIR / "chair_a" / files.VOXELS).shape == (16, 16, 16)
    for more, reason in (
        ([], "--source shapenet needs --input ShapeNetCore"),
        (["--input", "x", "--split_by", "shape"], "--split_by does not go with --source shapenet"),
        (["--input", "x", "--renders", "x"], "--renders goes with --source occnet, not with shapenet"),
    ):
        assert main([*command, *more]) == 2
        assert reason in capsys.readouterr().err
