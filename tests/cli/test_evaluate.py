"""``reconlab evaluate`` as it is typed."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
import yaml

from reconlab.batch import Batch
from reconlab.cli.__main__ import main
from reconlab.datasets import format as files
from reconlab.datasets.inside import voxelize
from reconlab.lab.evaluate_judge import Judge
from reconlab.metrics import ChamferDistance, FScore, VoxelIoU
from reconlab.metrics.base import sample_generator
from reconlab.shapes import Mesh

LIGHT = ["--metrics", "cd,fscore", "--set", "cd.points=100", "--set", "fscore.points=100"]
WORST = 2 * math.sqrt(3)


def box(path: Path, *extents: float, move=(0, 0, 0)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    trimesh.creation.box(extents).apply_translation(move).export(path)
    return path


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """Five true boxes of two categories, and predictions that are a little longer."""
    for category, count in (("chair", 3), ("lamp", 2)):
        for i in range(count):
            box(tmp_path / "gt" / category / f"{i}.obj", 1, 2, 2 + i)
            box(tmp_path / "pred" / category / f"{i}.ply", 1.1, 2, 2 + i)
    return tmp_path / "pred", tmp_path / "gt"


def run(*arguments: object, code: int = 0) -> None:
    assert main(["evaluate", *map(str, arguments)]) == code


def evaluate(capsys, *arguments: object, code: int = 0) -> dict:
    run(*arguments, "--json", "-", code=code)
    return json.loads(capsys.readouterr().out)


def test_one_pair_agrees_with_the_classes(tmp_path, capsys):
    pred = box(tmp_path / "a.obj", 1.1, 2, 3, move=(50, 0, 0))
    truth = box(tmp_path / "b.obj", 1, 2, 3, move=(50, 0, 0))
    content = evaluate(capsys, pred, truth, "--metrics", "cd,fscore,iou")
    diagonal = math.sqrt(14)

    def placed(path: Path) -> Mesh:
        mesh = trimesh.load(path, process=False)
        return Mesh(torch.tensor((mesh.vertices - [50, 0, 0]) / diagonal).float(), torch.tensor(mesh.faces))

    shape, true = placed(pred), placed(truth)
    points, normals = true.surface(10_000, sample_generator("", "b", "true surface"))
    grid = voxelize(true.vertices.numpy(), true.faces.numpy(), 32)
    batch = Batch(["b"], [""], points=points, normals=normals, voxels=torch.from_numpy(grid).float()[None])
    sample = content["samples"][0]
    for name, metric in (("cd", ChamferDistance()), ("fscore", FScore()), ("iou", VoxelIoU())):
        values = metric.per_sample(shape, batch)
        assert sample[name] == pytest.approx(values[metric.name].item(), rel=1e-5), name
        assert content["mean"][name] == sample[name]
    assert sample["fscore/recall_what3d"] == pytest.approx(values_of(FScore(), shape, batch)["recall_what3d"])
    assert (sample["id"], sample["category"], content["n"], content["n_failed"]) == ("b", "", 1, 0)


def values_of(metric, shape, batch) -> dict:
    return {name: value.item() for name, value in metric.per_sample(shape, batch).items()}


def test_the_protocol_stands_beside_every_value(tmp_path, capsys):
    pred, truth = box(tmp_path / "a.obj", 1, 1, 1), box(tmp_path / "b.obj", 1, 1, 1)
    protocol = evaluate(capsys, pred, truth, "--protocol", "atlasnet", "--normalize", "gt-sphere")["protocol"]
    assert (protocol["name"], protocol["normalize"], protocol["true_points"]) == ("atlasnet", "gt-sphere", 10_000)
    assert protocol["cd"]["squared"] is True
    assert protocol["cd"]["scale"] == protocol["fscore"]["scale"] == "unit_ball"
    assert protocol["cd"]["points"] == 2500
    assert protocol["fscore"]["threshold"] == pytest.approx(math.sqrt(1e-3))
    assert protocol["fscore/precision_atlasnet"]["class"] == "FScore"
    assert "worst_value" in protocol["failed"]


def test_all_files_of_a_test_run_have_the_values_of_that_run(trained, data, tmp_path, capsys):
    assert main(["test", f"--ckpt_path={trained}/checkpoints/last.ckpt", f"--out={tmp_path}/runs"]) == 0
    capsys.readouterr()
    tested = next((tmp_path / "runs").glob("*/*/predictions"))
    config = yaml.safe_load((tested.parent / "config.yaml").read_text())
    points = config["data"]["points"]
    assert config["trainer"]["limit_test_batches"] == 2
    with (tested / "per_sample_rank0.csv").open() as stream:
        expected = {(row["category"], row["id"]): row for row in csv.DictReader(stream)}
    out = tmp_path / "again"
    run(tested, data, "--true_points", points, "--out", out)
    with (out / "predictions" / "per_sample_rank0.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["category"], row["id"]) for row in rows} == expected.keys()
    for row in rows:
        for name in ("chamfer_dpc", "fscore_what3d", "precision_what3d", "normal_consistency", "voxel_iou"):
            # the .obj rounds coordinates, which may put a point across the F-score's threshold
            assert float(row[name]) == pytest.approx(float(expected[row["category"], row["id"]][name]), abs=2e-3), (
                name
            )
        assert row["chamfer_dpc/failed"] == "False"
    assert {"config.yaml", "run.json", "metrics.csv", "predictions", "samples.jsonl"} == {
        p.name for p in out.iterdir()
    }


def test_an_evaluated_folder_becomes_a_run_directory(folders, tmp_path, capsys):
    out = tmp_path / "outside" / "000"
    run(*folders, *LIGHT, "--out", out, "--csv", tmp_path / "values.csv")
    printed = capsys.readouterr().out
    assert "chair" in printed
    assert f"run directory: {out}" in printed
    record = json.loads((out / "run.json").read_text())
    assert (record["stage"], record["status"], record["n"], record["n_failed"]) == ("evaluate", "finished", 5, 0)
    assert record["protocols"]["cd"]["chamfer_dpc"]["points"] == 100
    assert {"commit", "versions", "machine", "wall_seconds", "command"} <= record.keys()
    with (tmp_path / "values.csv").open() as stream:
        values = list(csv.DictReader(stream))
    chairs = [float(row["cd"]) for row in values if row["category"] == "chair"]
    assert record["metrics"]["test/chamfer_dpc/chair"] == pytest.approx(sum(chairs) / 3)
    assert record["metrics"]["test/chamfer_dpc/chair/n"] == 3
    with (out / "metrics.csv").open() as stream:
        line = next(csv.DictReader(stream))
    assert float(line["test/chamfer_dpc"]) == pytest.approx(sum(float(row["cd"]) for row in values) / 5)
    assert yaml.safe_load((out / "config.yaml").read_text())["evaluate"]["normalize"] == "gt-box"
    placed = trimesh.load(out / "predictions" / "chair" / "2.obj", process=False)
    np.testing.assert_allclose(placed.extents, np.array([1.1, 2, 4]) / math.sqrt(21), atol=1e-6)


def test_bad_predictions_are_counted_and_the_rest_is_evaluated(folders, capsys, tmp_path):
    pred, gt = folders
    good = evaluate(capsys, pred, gt, *LIGHT)
    damage = {
        "empty": b"",
        "pointless": b"# no vertices\n",
        "nan": b"v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
        "flat": b"v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n",
        "triangle": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
        "missing": None,
        "doubled": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
        "huge": b"v 0 0 0\nv 1e300 0 0\nv 0 1e300 0\nf 1 2 3\n",
    }
    for name, content in damage.items():
        box(gt / "bad" / f"{name}.obj", 1, 1, 1)
        (pred / "bad").mkdir(exist_ok=True)
        if content is not None:
            (pred / "bad" / f"{name}.obj").write_bytes(content)
    box(pred / "bad" / "doubled.ply", 1, 1, 1)
    (gt / "bad" / "corrupt.obj").write_bytes((gt / "bad" / "nan.obj").read_bytes())
    (pred / "bad" / "corrupt.ply").write_bytes(b"ply\nformat ascii 1.0\nelement vertex 3\njunk")
    box(pred / "bad" / "extra.obj", 1, 1, 1)
    run(pred, gt, *LIGHT, "--json", tmp_path / "x.json", code=1)
    said = capsys.readouterr()
    content = json.loads((tmp_path / "x.json").read_text())
    bad = {s["id"]: s for s in content["samples"] if s["category"] == "bad"}
    failed = {"empty", "pointless", "nan", "flat", "missing", "doubled", "huge", "corrupt"}
    assert {name for name, s in bad.items() if s.get("failed")} == failed
    for name in failed:
        assert bad[name]["cd"] == pytest.approx(WORST)
        assert bad[name]["fscore"] == 0
        assert bad[name]["failed"] == ["cd", "fscore"]
        assert sum(f"bad/{name}: the prediction has failed" in line for line in said.err.splitlines()) == 1
    assert 0 < bad["triangle"]["cd"] < WORST, "a single triangle is a surface"
    assert (content["n"], content["n_failed"], content["n_excluded"]) == (14, 8, 0)
    assert content["categories"]["bad"]["n_failed"] == 8
    assert content["categories"]["chair"] == good["categories"]["chair"], "the others are as before"
    assert content["mean"]["cd"] == pytest.approx(sum(s["cd"] for s in content["samples"]) / 14)
    assert "1 predictions have no ground truth and are left aside: bad/extra" in said.err
    assert "Traceback" not in said.err
    assert "reconlab: 8 of 14 samples failed (named above), 0 of them for their ground truth." in said.err


def test_bad_ground_truth_is_named_and_enters_no_mean(folders, capsys, tmp_path):
    pred, gt = folders
    good = evaluate(capsys, pred, gt, *LIGHT)
    (gt / "lamp" / "0.obj").write_text("")
    (gt / "chair" / "1.obj").rename(gt / "chair" / "1.off")  # an OBJ by another name: unreadable
    box(gt / "chair" / "2.ply", 1, 2, 4)  # and two of one name
    content = evaluate(capsys, pred, gt, *LIGHT, code=1)
    samples = {f"{s['category']}/{s['id']}": s for s in content["samples"]}
    for name in ("lamp/0", "chair/1", "chair/2"):
        assert samples[name]["excluded"]
        assert samples[name]["cd"] is None
        assert "the ground truth cannot be used" in samples[name]["messages"][0]
    assert (content["n"], content["n_failed"], content["n_excluded"]) == (5, 3, 3)
    kept = [s["cd"] for s in good["samples"] if f"{s['category']}/{s['id']}" in ("chair/0", "lamp/1")]
    assert content["mean"]["cd"] == pytest.approx(sum(kept) / 2)


def test_size_and_place_do_not_matter_when_both_change(tmp_path, capsys):
    values = []
    for name, size in (("one", 1.0), ("million", 1e6)):
        pair = [box(tmp_path / name / side / "x.off", *(size * e for e in extents), move=(3 * size, 0, 0))
                for side, extents in (("pred", (1.1, 2, 3)), ("gt", (1, 2, 3)))]  # fmt: skip
        values.append(evaluate(capsys, *pair, "--metrics", "cd,iou")["mean"])
    assert values[0]["cd"] == pytest.approx(values[1]["cd"], rel=1e-4)
    assert values[0]["iou"] == values[1]["iou"]
    content = evaluate(capsys, *pair, *LIGHT, "--normalize", "none", code=1)
    assert "use --normalize gt-box" in content["samples"][0]["messages"][0]


def test_a_mesh_of_thousands_of_parts_and_one_of_half_a_million_faces(tmp_path, capsys):
    rng = np.random.default_rng(0)
    cube = trimesh.creation.box((0.05, 0.05, 0.05))
    corners = rng.random((3000, 1, 3))
    faces = (cube.faces[None] + 8 * np.arange(3000)[:, None, None]).reshape(-1, 3)
    trimesh.Trimesh((corners + cube.vertices).reshape(-1, 3), faces, process=False).export(tmp_path / "many.ply")
    axis = np.linspace(0, 1, 501)
    x, z = np.meshgrid(axis, axis, indexing="ij")
    sheet = np.stack([x, 0.1 * np.sin(9 * x * z), z], -1).reshape(-1, 3)
    a = (np.arange(500)[:, None] * 501 + np.arange(500)).reshape(-1, 1)
    quads = np.concatenate([a + np.array(corner) for corner in ([0, 1, 501], [1, 502, 501])])
    assert len(quads) == 500_000
    trimesh.Trimesh(sheet, quads, process=False).export(tmp_path / "fine.ply")
    content = evaluate(capsys, tmp_path / "fine.ply", tmp_path / "many.ply", *LIGHT)
    assert 0 < content["mean"]["cd"] < 1
    content = evaluate(capsys, tmp_path / "many.ply", tmp_path / "many.ply", "--metrics", "iou")
    assert content["mean"]["iou"] > 0.9


def test_an_interrupted_run_goes_on(folders, tmp_path, capsys, monkeypatch):
    whole = evaluate(capsys, *folders, *LIGHT)
    original = Judge.__call__
    judged: list[str] = []

    def interrupted(self, pair):
        if len(judged) == 3:
            raise KeyboardInterrupt
        judged.append(pair.key)
        return original(self, pair)

    monkeypatch.setattr(Judge, "__call__", interrupted)
    command = (*folders, *LIGHT, "--out", tmp_path / "run", "--json", tmp_path / "x.json")
    run(*command, code=130)
    said = capsys.readouterr().err
    assert f"3 of 5 samples are in {tmp_path}/run/samples.jsonl: the same command goes on from there" in said
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"
    assert not (tmp_path / "x.json").exists()
    monkeypatch.setattr(Judge, "__call__", lambda self, pair: judged.append(pair.key) or original(self, pair))
    run(*command)
    assert sorted(judged) == ["chair/0", "chair/1", "chair/2", "lamp/0", "lamp/1"], "each once"
    assert json.loads((tmp_path / "x.json").read_text()) == whole
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "finished"


def test_nothing_is_overwritten_silently(folders, tmp_path, capsys, one_sentence):
    run(*folders, *LIGHT, "--json", tmp_path / "x.json")
    run(*folders, *LIGHT, "--json", tmp_path / "x.json")
    run(*folders, *LIGHT, "--json", tmp_path / "x.json", "--normalize", "gt-sphere", code=2)
    run(*folders, *LIGHT, "--json", tmp_path / "x.json", "--normalize", "gt-sphere", "--force")
    assert json.loads((tmp_path / "x.json").read_text())["protocol"]["normalize"] == "gt-sphere"
    capsys.readouterr()
    (tmp_path / "mine.csv").write_text("precious\n")
    run(*folders, *LIGHT, "--csv", tmp_path / "mine.csv", code=2)
    assert "exists and is not of an evaluation" in one_sentence(capsys)
    run(*folders, *LIGHT, "--out", folders[0], code=2)
    assert (tmp_path / "mine.csv").read_text() == "precious\n"
    assert not (folders[0] / "run.json").exists()


def test_clouds(tmp_path, capsys, one_sentence):
    truth = box(tmp_path / "gt.obj", 1, 1, 1)
    points = trimesh.load(truth).sample(500, seed=0)
    np.savetxt(tmp_path / "cloud.xyz", points)
    content = evaluate(capsys, tmp_path / "cloud.xyz", truth)
    assert content["n_failed"] == 0
    assert 0 < content["mean"]["cd"] < 0.2
    assert content["mean"]["nc"] is None
    assert "no conversion to surface points with normals" in content["samples"][0]["not_applicable"]["nc"]
    run(tmp_path / "cloud.xyz", truth, "--metrics", "cd,nc", code=2)
    assert "nc does not apply to gt: PointCloud has no conversion" in one_sentence(capsys)
    content = evaluate(capsys, truth, tmp_path / "cloud.xyz")
    assert content["mean"]["iou"] is None
    assert content["mean"]["cd"] > 0


def test_a_table_of_pairs_and_several_variants_of_one_metric(folders, tmp_path, capsys):
    lines = ["pred,gt,category,id"] + [f"pred/lamp/{i}.ply,gt/lamp/{i}.obj,light,no{i}" for i in range(2)]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    variants = ("--metrics", "cd,cd_l1=ChamferDistance", "--set", "cd_l1.variant=occnet")
    content = evaluate(capsys, "--pairs", tmp_path / "pairs.csv", *variants)
    assert [(s["category"], s["id"]) for s in content["samples"]] == [("light", "no0"), ("light", "no1")]
    assert content["protocol"]["cd_l1"]["name"] == "chamfer_occnet"
    assert content["mean"]["cd_l1"] < content["mean"]["cd"]


def test_processes_give_the_values_of_one(folders, tmp_path, capsys):
    (folders[0] / "lamp" / "1.ply").write_text("")
    content = evaluate(capsys, *folders, *LIGHT, code=1)
    assert evaluate(capsys, *folders, *LIGHT, "--workers", 2, code=1) == content


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "takes PRED and GT, or --pairs"),
        (["a.obj"], "takes PRED and GT"),
        (["a.obj", "b.obj", "--pairs", "x.csv"], "takes PRED and GT"),
        (["nowhere.obj", "b.obj"], "prediction nowhere.obj does not exist"),
        (["a.obj", "b.obj", "--metrics", "cdd"], "did you mean 'cd'"),
        (["a.obj", "b.obj", "--protocol", "occent"], "did you mean 'occnet'"),
        (["a.obj", "b.obj", "--normalize", "box"], "invalid choice: 'box'"),
        (["a.obj", "b.obj", "--workers", "0"], "--workers is 0"),
        (["a.obj", "b.obj", "--true_points", "0"], "--true_points is 0"),
        (["a.obj", "b.obj", "--json", "."], "is a folder; name a file"),
        (["a.obj", "b.obj", "--out", "a.obj"], "is a file"),
        (["a.obj", "b.obj", "--json", "a.obj/x.json"], "Cannot write"),
        (["a.obj", "b.obj", "--wrokers", "2"], "unrecognized arguments: --wrokers"),
    ],
)
def test_mistakes_are_one_sentence(arguments, said, tmp_path, capsys, monkeypatch, one_sentence):
    monkeypatch.chdir(tmp_path)
    box(Path("a.obj"), 1, 1, 1)
    box(Path("b.obj"), 1, 1, 1)
    run(*arguments, code=2)
    assert said in one_sentence(capsys)
    assert {p.name for p in tmp_path.iterdir()} == {"a.obj", "b.obj"}


def test_a_built_dataset_is_taken_as_stored(data, tmp_path, capsys, one_sentence):
    names = {c: files.read_list(data / c / "val.lst") for c in files.list_categories(data)}
    for category, ids in names.items():
        for name in ids:
            mesh = files.read_npz(data / category / name / "mesh.npz")
            (tmp_path / category).mkdir(exist_ok=True)
            trimesh.Trimesh(mesh["vertices"], mesh["faces"], process=False).export(
                tmp_path / category / f"{name}.ply"
            )
    content = evaluate(capsys, tmp_path, data, "--split", "val", "--metrics", "iou")
    assert {(s["category"], s["id"]) for s in content["samples"]} == {(c, n) for c in names for n in names[c]}
    assert content["mean"]["iou"] > 0.95, "a shape's own mesh, by the rule of the stored grids"
    assert content["protocol"]["frame"].startswith("as stored in the built dataset")
    run(tmp_path, data, "--split", "val", "--normalize", "gt-sphere", code=2)
    assert "--normalize and --surface do not go with a built dataset" in one_sentence(capsys)


def test_points_among_meshes_have_failed_where_a_surface_is_needed(capsys, tmp_path):
    gt, pred = tmp_path / "gt", tmp_path / "pred"
    for folder in (gt, pred):
        folder.mkdir()
    for name in ("a", "b", "c"):
        trimesh.creation.box((0.5, 0.4, 0.3)).export(gt / f"{name}.obj")
        trimesh.creation.box((0.5, 0.4, 0.3)).export(pred / f"{name}.obj")
    (pred / "a.obj").write_text("v 0 0 0\nv 0.1 0 0\nv 0 0.1 0\n")  # the first one must not end the run
    code = main(["evaluate", str(pred), str(gt), "--metrics", "nc,cd", "--json", str(tmp_path / "out.json")])
    assert code == 1
    assert "a: the prediction has failed under nc: it has no surface" in capsys.readouterr().err
    content = json.loads((tmp_path / "out.json").read_text())
    assert [s["nc"] for s in content["samples"]] == [0.0, pytest.approx(1, abs=0.05), pytest.approx(1, abs=0.05)]
    assert content["mean"]["nc"] == pytest.approx(2 / 3, abs=0.04)
    assert content["per_metric"]["nc"] == {"n": 3, "n_failed": 1}
    assert content["n_failed"] == 1
