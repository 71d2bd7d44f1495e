"""What the report reads and computes, checked against numbers made by hand."""

import csv
import json
import shutil

import numpy as np
import pytest
import trimesh

from reconlab.errors import ReconlabError
from reconlab.report import html_curves, html_tables
from reconlab.report.html_configs import differences, experiment
from reconlab.report.html_geometry import decode, encode, simplify
from reconlab.report.html_runs import Value, find_prediction, find_training, read_run
from reconlab.report.html_samples import collect, merge, order
from reconlab.report.html_sweeps import read_sweep
from reconlab.report.html_tables import compared, grouped
from reconlab.report.html_text import as_json
from reconlab.report.html_truth import source_of


def test_a_mesh_comes_back_within_half_a_step():
    rng = np.random.default_rng(0)
    mesh = trimesh.creation.icosphere(subdivisions=2)
    scaled = mesh.vertices * [1, 2, 3] + rng.normal(size=3)
    shape = json.loads(json.dumps(encode(scaled, mesh.faces, 10_000)))
    vertices, faces = decode(shape)
    assert np.abs(vertices - scaled).max() <= 6 / 65535 / 2 + 1e-6
    assert (faces == mesh.faces).all()
    assert (shape["count"], shape["shown"], shape["wide"]) == (320, 320, False)


def test_many_vertices_have_wide_indices():
    mesh = trimesh.creation.icosphere(subdivisions=7)  # 163842 vertices
    shape = encode(mesh.vertices, mesh.faces, 10**9)
    assert shape["wide"]
    assert (decode(shape)[1] == mesh.faces).all()


def test_simplifying_stays_below_the_cap_and_near_the_surface():
    mesh = trimesh.creation.icosphere(subdivisions=6)  # 81920 faces on the unit sphere
    vertices, faces = simplify(mesh.vertices, mesh.faces, 5000)
    assert 2500 < len(faces) <= 5000
    assert np.linalg.norm(vertices, axis=1) == pytest.approx(1, abs=0.02)
    assert len(np.unique(faces)) == len(vertices)
    fewer = trimesh.Trimesh(vertices, faces)
    assert fewer.area == pytest.approx(4 * np.pi, rel=0.03)


def test_a_cloud_above_the_cap_keeps_some_of_its_own_points():
    points = np.random.default_rng(1).uniform(-1, 1, (5000, 3))
    shape = encode(points, None, 700)
    kept, faces = decode(shape)
    assert (shape["count"], shape["shown"], len(kept), faces) == (5000, 700, 700, None)
    nearest = np.linalg.norm(kept[:, None] - points[None], axis=2).min(1)
    assert nearest.max() < 1e-4


def test_a_flat_shape_is_encoded():
    points = np.array([[0.0, 0.5, 0], [1, 0.5, 0], [0, 0.5, 1]])
    assert decode(encode(points, np.array([[0, 1, 2]]), 10))[0] == pytest.approx(points, abs=1e-4)


def test_curves_are_means_of_neighbours_and_skip_counts(make_run, samples, tmp_path):
    run = read_run(make_run(tmp_path / "run", samples))
    (tmp_path / "run" / "metrics.csv").write_text(
        "epoch,step,train/loss,val/chamfer,val/chamfer/n,val/chamfer/chair\n"
        "0,0,4,,,\n0,1,2,,,\n0,2,nan,,,\n0,x,1,,,\n0,3,1,0.5,7,0.4\n0,4,3,,,\n"
    )
    run = read_run(tmp_path / "run")
    assert run.history["train/loss"] == [(0, 4.0), (1, 2.0), (3, 1.0), (4, 3.0)]
    assert "val/chamfer/n" not in run.history
    assert "metrics.csv has 1 damaged line, which the curves leave out." in run.notes
    train, val = html_curves.charts([run])
    assert (train["lines"][0]["y"], train["means"]) == ([4, 2, 1, 3], 1)
    assert val["lines"][0]["y"] == [50.0]  # times the factor
    assert html_curves.thin(run.history["train/loss"], 2) == ([1, 4], [3.0, 2.0], 2)


def test_the_table_has_each_categorys_numbers(make_run, samples, tmp_path):
    table = html_tables.breakdown(read_run(make_run(tmp_path / "run", samples)))
    assert (table.split, table.categories) == ("test", ["chair", "lamp"])
    first = table.lines[0]
    chairs = (0.05 + 0.01 + 0.03) / 3
    assert first.value.header == "chamfer ×100 ↓"
    assert (first.categories[0], first.n, first.failed) == (f"{chairs * 100:.2f}", "7", "1")
    assert [line.value.name for line in table.lines] == ["chamfer", "voxel_iou"]


def test_seeds_of_one_config_are_one_row_with_their_spread(make_run, samples, tmp_path):
    runs = []
    for seed, shift in enumerate((0.0, 0.01, 0.05)):
        rows = [(c, i, cd + shift, iou, f) for c, i, cd, iou, f in samples]
        runs.append(read_run(make_run(tmp_path / str(seed), rows, seed=seed)))
    worse = [(c, i, cd + 0.2, iou, f) for c, i, cd, iou, f in samples]
    runs.append(read_run(make_run(tmp_path / "other", worse, config={"name": "other"})))
    values, rows = html_tables.compared(runs)
    means = [100 * (sum(s[2] for s in samples) / 7 + shift) for shift in (0.0, 0.01, 0.05)]
    spread = np.std(means, ddof=1)
    assert [len(row.runs) for row in rows] == [3, 1]
    assert rows[0].seeds == "0, 1, 2"
    assert rows[0].cells[0] == (f"{np.mean(means):.2f} ± {spread:.2f}", 3, True)
    assert [v.name for v in values] == ["chamfer", "voxel_iou"]
    assert differences(runs)[-1] == ("name", ["–", "–", "–", "other"])


def test_runs_of_one_seed_are_not_called_a_spread(make_run, samples, tmp_path):
    runs = [read_run(make_run(tmp_path / name, samples)) for name in "ab"]
    assert experiment(runs[0]) == experiment(runs[1])
    assert [len(row.runs) for row in html_tables.compared(runs)[1]] == [1, 1]


def test_no_best_where_protocols_differ(make_run, samples, tmp_path):
    runs = [read_run(make_run(tmp_path / name, samples, config={"name": name})) for name in "ab"]
    runs[1].values["chamfer"] = Value("chamfer", 100, False, {"points": 5})
    _, rows = html_tables.compared(runs)
    assert [row.cells[0][2] for row in rows] == [False, False]
    assert html_tables.disagreeing(runs) == ["chamfer"]


@pytest.mark.parametrize("other", ["same", "samples", "data"])
def test_no_best_where_the_samples_differ(make_run, samples, tmp_path, other):
    rows = samples[:3] if other == "samples" else samples
    runs = [
        read_run(make_run(tmp_path / "a", samples, config={"name": "a"})),
        read_run(make_run(tmp_path / "b", rows, "b" if other == "data" else "data", config={"name": "b"})),
    ]
    found = [best for row in compared(runs)[1] for _, _, best in row.cells]
    assert any(found) == (other == "same")


def test_cells_of_other_parameters_profiles_or_sweeps_are_no_seeds_of_one(make_run, samples, tmp_path):
    runs = []
    for seed, weight, profile in ((0, 1, "desk"), (1, 1, "desk"), (2, 9, "desk"), (3, 1, "smoke")):
        run = read_run(make_run(tmp_path / str(seed), samples, seed=seed))
        parameters = {"config": "x.yaml", "seed_everything": seed, "weight": weight}
        run.cell = {"sweep": "s", "row": "x.yaml", "seed": seed, "profile": profile, "parameters": parameters}
        runs.append(run)
    assert [[run.seed for run in group] for group in grouped(runs)] == [[0, 1], [2], [3]]


def test_samples_are_matched_by_category_id_and_view(make_run, samples, tmp_path):
    one = make_run(tmp_path / "one", samples)
    other = make_run(tmp_path / "other", list(reversed(samples[2:])))
    merged = merge([read_run(one), read_run(other)])
    assert list(merged)[:3] == [("chair", "a", None), ("chair", "b", None), ("chair", "c", None)]
    assert [row[1] is None for row in merged.values()] == [True, True, *[False] * 5]
    table = one / "predictions" / "per_sample_rank0.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines, lines[1].replace(",a,0,", ",a,3,")]))
    keys = list(merge([read_run(one), read_run(other)]))
    assert ("chair", "a", 0) in keys
    assert ("chair", "a", 3) in keys


def test_a_sample_that_two_ranks_judged_is_one(make_run, samples, tmp_path):
    ranks, single = make_run(tmp_path / "ranks", samples), make_run(tmp_path / "single", samples)
    lines = (ranks / "predictions" / "per_sample_rank0.csv").read_text().splitlines(keepends=True)
    (ranks / "predictions" / "per_sample_rank0.csv").write_text("".join(lines[:5]))
    (ranks / "predictions" / "per_sample_rank1.csv").write_text("".join([lines[0], *lines[5:], lines[1]]))
    table = single / "predictions" / "per_sample_rank0.csv"
    table.write_text(table.read_text().replace(",0,", ",2,", 1))  # another view of the first sample
    merged = merge([read_run(ranks), read_run(single)])
    assert len(merged) == len(samples)
    assert all(all(row) for row in merged.values())


def test_failed_samples_get_their_3d_first_then_the_worst_by_each_metric(make_run, samples, tmp_path):
    run = read_run(make_run(tmp_path / "run", samples))
    values = [run.values[name] for name in ("chamfer", "voxel_iou")]
    found = [key[1] for key in order(merge([run]), values)]
    # failed f; in the next turns: worst chamfer d, worst overlap c, best b, ...
    assert found[0] == "f"
    assert set(found[1:4]) == {"d", "c", "b"}
    assert sorted(found) == list("abcdefg")


def test_a_report_without_its_data_says_so_and_keeps_the_predictions(make_run, samples, tmp_path):
    run = read_run(make_run(tmp_path / "run", samples, root="gone/data"))
    shown = collect([run])
    assert shown.notes == [f"{run.name}: the data gone/data are not here: say --root DATA to show inputs and truths."]
    assert all(s["truth"] is None for s in shown.samples)
    assert sum(s["runs"][0]["shape"] is not None for s in shown.samples) == 6


def test_truth_image_and_camera_come_from_the_dataset(make_run, samples, boxes, tmp_path):
    run = read_run(make_run(tmp_path / "run", samples, root=boxes))
    one = next(s for s in collect([run]).samples if s["id"] == "a")
    assert decode(one["truth"])[0] == pytest.approx(trimesh.creation.box(extents=[0.6] * 3).vertices, abs=1e-4)
    assert one["camera"] == pytest.approx((180.0, 0.0))  # it looks along +z from z = -2
    assert one["image"]


def test_the_data_are_found_beside_the_run(make_run, samples, boxes, tmp_path):
    (tmp_path / "project" / "data").mkdir(parents=True)
    (tmp_path / "project" / "data" / "set").symlink_to(boxes)
    run = read_run(make_run(tmp_path / "project" / "runs" / "a" / "000", samples, root="data/set"))
    assert source_of(run).root == tmp_path / "project" / "data" / "set"


def test_another_projects_data_of_that_name_are_not_taken(make_run, samples, boxes, tmp_path, monkeypatch):
    for project in ("ours", "theirs"):
        (tmp_path / project / "data").mkdir(parents=True)
        (tmp_path / project / "data" / "set").symlink_to(boxes)
        make_run(tmp_path / project / "runs" / "a" / "000", samples, root="data/set")
    config = {"ckpt_path": "runs/a/000/checkpoints/last.ckpt"}
    run = read_run(make_run(tmp_path / "ours/runs/a/001", samples, "data/set", history=False, config=config))
    monkeypatch.chdir(tmp_path / "theirs")
    assert source_of(run).root == tmp_path / "ours" / "data" / "set"
    find_training(run, [run])
    assert run.trained == tmp_path / "ours" / "runs" / "a" / "000"


def test_truths_of_two_datasets_and_inputs_of_two_views_are_said(make_run, samples, boxes, tmp_path):
    (tmp_path / "copy").mkdir()
    shutil.copytree(boxes, tmp_path / "copy" / "data")
    one = make_run(tmp_path / "one", samples, boxes)
    other = make_run(tmp_path / "other", samples, tmp_path / "copy" / "data")
    table = other / "predictions" / "per_sample_rank0.csv"
    table.write_text(table.read_text().replace("chair,a,0,", "chair,a,3,"))
    shown = collect([read_run(one), read_run(other)])
    assert [n for n in shown.notes if str(boxes) in n and str(tmp_path / "copy" / "data") in n] == shown.notes
    notes = {s["id"]: s["note"] for s in shown.samples}
    assert notes["a"] == "The runs were given different views: 0, 3."
    assert notes["b"] == ""
    assert collect([read_run(one), read_run(other)], root=boxes).notes == []


def test_names_that_lead_out_of_the_folders_are_not_followed(make_run, make_dataset, boxes, tmp_path):
    (tmp_path / "secret.obj").write_text("v 0 0 0\n")
    folder = make_run(tmp_path / "run", [("..", "../secret", 0.1, 0.2, False), ("chair", "a", 0.1, 0.2, False)])
    run = read_run(folder)
    assert find_prediction(folder / "predictions", "..", "../secret", None) is None
    assert run.samples[0].file is None
    with pytest.raises(ReconlabError, match="has no shape"):
        source_of(run, boxes).truth("..", boxes.parent.name)


def test_damaged_predictions_are_named_and_the_others_shown(make_run, samples, boxes, tmp_path):
    folder = make_run(tmp_path / "run", samples, root=boxes)
    (folder / "predictions" / "chair" / "a.obj").write_text("v 0 0\nf 1 2 3\n")
    (folder / "predictions" / "chair" / "b.obj").write_text("")
    (folder / "predictions" / "chair" / "c.obj").unlink()
    slots = {s["id"]: s["runs"][0] for s in collect([read_run(folder)]).samples}
    assert "a.obj" in slots["a"]["note"]
    assert "is empty" in slots["b"]["note"]
    assert slots["c"]["note"] == "No file."
    assert slots["f"]["note"].startswith("No prediction was written")
    assert all(slots[k]["shape"] is not None for k in "deg")


def test_a_test_gets_the_curves_of_its_training(make_run, samples, tmp_path):
    trained = make_run(tmp_path / "000", samples)
    folder = make_run(
        tmp_path / "001", samples, history=False, config={"ckpt_path": str(trained / "checkpoints" / "last.ckpt")}
    )
    run = read_run(folder)
    find_training(run, [run, read_run(trained)])
    assert run.history == {}  # the training is in the report itself
    find_training(run, [run])
    assert run.trained == trained
    assert run.history == read_run(trained).history


def test_a_cell_that_was_resumed_has_one_curve(make_sweep, boxes, tmp_path):
    cells = {"a": {"state": "done", "row": "r", "seed": 0, "run": "001"}}
    folder = make_sweep(tmp_path / "s", cells, boxes) / "cells" / "a"
    (folder / "000").rename(folder / "001")
    (folder / "000").mkdir()
    (folder / "000" / "metrics.csv").write_text("epoch,step,train/loss,val/chamfer\n0,0,9,\n0,1,8,0.7\n0,2,7,\n")
    (folder / "001" / "metrics.csv").write_text("epoch,step,train/loss,val/chamfer\n0,2,6,\n0,3,5,0.3\n")
    run = read_sweep(tmp_path / "s").cells[0].run
    assert run.history == {
        "train/loss": [(0, 9.0), (1, 8.0), (2, 6.0), (3, 5.0)],  # step 2 was made again from the checkpoint
        "val/chamfer": [(1, 0.7), (3, 0.3)],
    }


def test_numbers_without_stored_protocols_are_shown_raw(make_run, samples, tmp_path):
    folder = make_run(tmp_path / "run", samples, protocols={})
    run = read_run(folder)
    assert run.values["chamfer"].header == "chamfer"
    lamps = (0.08 + 0.02 + 3.46 + 0.04) / 4
    assert html_tables.breakdown(run).lines[0].categories == ["0.03", f"{lamps:.2f}"]


def test_evaluate_s_second_metric_of_one_value_name_is_told_apart(make_run, samples, tmp_path):
    folder = make_run(tmp_path / "run", samples)
    content = json.loads((folder / "run.json").read_text())
    content["protocols"]["coarse"] = {"chamfer": {**content["protocols"]["cd"]["chamfer"], "points": 9}}
    content["metrics"] |= {"test/coarse/chamfer": 0.5, "test/coarse/chamfer/chair": 0.25, "test/coarse/chamfer/n": 7}
    (folder / "run.json").write_text(json.dumps(content))
    lines = {line.value.name: line for line in html_tables.breakdown(read_run(folder)).lines}
    assert (lines["coarse/chamfer"].overall, lines["coarse/chamfer"].categories) == ("50.00", ["25.00", "–"])
    assert lines["chamfer"].n == "7"


def test_json_for_the_page_is_inert_and_strict(hostile):
    content = {"a": [hostile, "&", float("nan"), float("inf"), 1.5], "b": {"<": None}}
    text = as_json(content)
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"a": [hostile, "&", None, None, 1.5], "b": {"<": None}}


def test_the_samples_table_is_read_as_it_was_written(make_run, samples, tmp_path):
    folder = make_run(tmp_path / "run", samples)
    with (folder / "predictions" / "per_sample_rank0.csv").open() as file:
        lines = list(csv.DictReader(file))
    run = read_run(folder)
    assert [s.values["chamfer"] for s in run.samples] == [float(line["chamfer"]) for line in lines]
    assert [s.failed for s in run.samples] == [["chamfer", "voxel_iou"] if s[4] else [] for s in samples]
