"""Where cells are read: sweep folders in every state, runs, stored files; nothing is dropped without a word."""

import json
import shutil

import pytest

from reconlab.errors import ReconlabError
from reconlab.tables import load_table
from reconlab.tables.measure import measure
from reconlab.tables.sources import read_source, read_stored


@pytest.fixture
def table(write):
    write()
    return load_table("small")


def test_a_sweeps_cells_are_read_in_every_state(table, sweep, record):
    records = [record("full", 0, {"dpc_cd": 0.05}), record("full", 1, None, state="failed", reason="no memory")]
    records.append(record("half", 0, None, state="running"))
    folder = sweep(records)
    found = read_source(str(folder), table)
    assert [(c.name, c.state) for c in found.cells] == [(r["cell"], r["state"]) for r in records]
    assert found.problems == []
    assert measure(table, found).counts == {"done": 1, "failed": 1, "running": 1, "missing": 0}


def test_cells_that_were_moved_or_half_deleted_are_named_and_counted(table, sweep, record):
    folder = sweep([record("full", s, {"dpc_cd": 0.05}, run="000") for s in range(5)])
    for seed in range(5):
        (folder / "cells" / f"full-seed{seed}" / "000").mkdir()
    shutil.move(folder / "cells" / "full-seed0", folder.parent / "elsewhere")
    (folder / "cells" / "full-seed1" / "cell.json").unlink()
    (folder / "cells" / "full-seed2" / "cell.json").write_text('{"cell": "full-se')
    shutil.rmtree(folder / "cells" / "full-seed3" / "000")
    found = read_source(str(folder), table)
    assert [c.seed for c in found.cells] == [3, 4]  # a record without its run still counts
    assert found.missing == 3
    moved, damaged, homeless = found.problems
    assert "1 of 5 cells have not run or were moved: full-seed0" in moved
    assert "2 cells are damaged: full-seed1 (no cell.json), full-seed2 (cannot be read" in damaged
    assert "the run directories of 1 finished cells are gone (their records are shown): full-seed3" in homeless


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"state": "perhaps"}, "the state is 'perhaps'"),
        ({"row": None}, "'row' is None"),
        ({"values": {}}, "'values' holds no numbers"),
        ({"values": {"dpc_cd": "0.05"}}, "'values' holds no numbers"),
        ({"seed": 1.5}, "'seed' is 1.5"),
        ({"n_failed": "two"}, "'n_failed' is 'two'"),
        ({"steps": float("nan")}, "'steps' is nan"),
    ],
)
def test_a_wrong_record_is_named(change, part, table, sweep, stored, record):
    bad = {**record("full", 0, {"dpc_cd": 0.05}), **change}
    found = read_source(str(sweep([bad])), table)
    assert found.cells == []
    assert f"1 cells are damaged: full-seed0 ({part}" in found.problems[0]
    file = stored([record("half", 0, {"dpc_cd": 0.05}), bad])
    with pytest.raises(ReconlabError, match=r"small.json: cells\[1\]"):
        read_source(str(file), table)


def test_a_sweep_without_its_list_still_shows_its_cells(table, sweep, record):
    folder = sweep([record("full", 0, {"dpc_cd": 0.05})])
    (folder / "sweep.json").unlink()
    found = read_source(str(folder), table)
    assert len(found.cells) == 1
    assert "sweep.json is missing. The cells that are there are shown." in found.problems[0]


@pytest.mark.parametrize("content", ["[]", '{"cells": 3}', "{", '{"table": "x"}', '{"cells": ["a"]}'])
def test_a_file_that_holds_no_cells_is_refused(content, table, root):
    (root / "x.json").write_text(content)
    with pytest.raises(ReconlabError, match=r"x\.json"):
        read_source("x.json", table)


def run_directory(folder, metrics, **more):
    folder.mkdir(parents=True)
    protocol = {"name": "dpc_cd", "squared": False, "points": "all"}
    content = {"seed": 7, "status": "finished", "steps": 40, "commit": "c0ffee", "metrics": metrics, **more}
    (folder / "run.json").write_text(json.dumps({**content, "protocols": {"cd": {"dpc_cd": protocol}}}))


METRICS = {
    "val/dpc_cd": 0.9, "test/dpc_cd": 0.05, "test/dpc_cd/chair": 0.05,
    "test/dpc_cd/n": 12.0, "test/dpc_cd/n_failed": 2.0,
    "test/dpc_cd/chair/n": 12.0, "test/dpc_cd/chair/n_failed": 2.0,
}  # fmt: skip


def test_a_run_is_read_for_the_row_that_it_is_said_to_be(table, root):
    run_directory(root / "runs" / "a" / "000", METRICS)
    (cell,) = read_source("half=runs/a/000", table).cells
    assert (cell.row, cell.seed, cell.n, cell.n_failed, cell.steps) == ("half", 7, 12, 2, 40)
    assert cell.values == {"dpc_cd": 0.05, "dpc_cd/chair": 0.05}
    assert cell.protocols["dpc_cd"]["points"] == "all"


def test_a_run_of_a_table_with_groups_has_its_category(write, root):
    groups = {"chair": {}, "car": {}}
    columns = [{"name": "CD", "metric": "dpc_cd", "group": "chair", "factor": 100}]
    rows = [{"name": "half", "config": "configs/half.yaml"}]
    write(groups=groups, columns=columns, rows=rows, claims=[])
    run_directory(root / "a", METRICS)
    (root / "a" / "config.yaml").write_text("data: {categories: [chair]}\n")
    table = load_table("small")
    assert measure(table, read_source("half=a", table)).get("half", "CD").mean == pytest.approx(5)
    (root / "a" / "config.yaml").write_text("data: {categories: null}\n")
    with pytest.raises(ReconlabError, match="does not say one category"):
        read_source("half=a", table)


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("nowhere", "does not exist"),
        ("ful=runs/a/000", "no row 'ful'; did you mean 'full'"),
        ("full=runs/a", r"Name one of its runs: 000"),
        ("full=runs/none", "run.json is missing"),
        ("full=runs/a/001", "has no test metrics .status: finished.; run reconlab test"),
        ("runs/a/000", "say which row it is: --from ROW=runs/a/000"),
        ("runs", "is no sweep's folder; it holds no sweep.json"),
        ("sweeps", "name one of the sweeps in it: small"),
    ],
)
def test_a_wrong_source_is_one_sentence(source, part, table, root, sweep, record):
    run_directory(root / "runs" / "a" / "000", METRICS)
    run_directory(root / "runs" / "a" / "001", {"val/dpc_cd": 0.5})
    sweep([record("full", 0, {"dpc_cd": 0.05})], "sweeps/small")
    with pytest.raises(ReconlabError, match=part):
        read_source(source, table)


def test_stored_measurements_of_several_tables_are_read(write, stored, record):
    write(measurements=["small", "other", "none"])
    stored([record("full", 0, {"dpc_cd": 0.05})])
    stored([record("configs/half.yaml", 0, {"dpc_cd": 0.06})], name="other", note="from elsewhere")
    found = read_stored(load_table("small"))
    assert [c.row for c in found.cells] == ["full", "configs/half.yaml"]
    assert found.notes == ["from elsewhere"]


def test_the_json_of_drkfs_fig6_is_read(repository, monkeypatch):
    monkeypatch.chdir(repository)
    table = load_table("drkfs_table5")
    file = repository / "results" / "drkfs_table5.json"
    measurement = measure(table, read_source(str(file), table))
    content = json.loads(file.read_text())["table"]
    for family, prefix in (("drawn", ""), ("rendered", "r_")):
        up, down, deletion = content[family]["MSE(PoI)"]["mean"]
        for name, value in ((f"{prefix}up", up), (f"{prefix}down", down), (f"{prefix}deletion", deletion)):
            assert measurement.get("mse_poi", name).mean == value
    assert {row for row, _ in measurement.numbers} == {row.name for row in table.rows}
    assert measurement.get("drkfs", "up").remarks == []  # the table's own values have no protocol


@pytest.mark.parametrize("content", ["[1]", "null", "3"])
def test_a_runs_report_that_is_none_is_refused_in_a_sentence(write, root, content):
    write()
    (root / "run").mkdir()
    (root / "run" / "run.json").write_text(content)
    with pytest.raises(ReconlabError, match="no report of a run"):
        read_source("full=run", load_table("small"))


def test_a_count_that_is_no_number_does_not_end_the_reading(write, root):
    write()
    (root / "run").mkdir()
    (root / "run" / "run.json").write_text('{"metrics": {"test/dpc_cd": 0.05, "test/dpc_cd/n": NaN}}')
    (cell,) = read_source("full=run", load_table("small")).cells
    assert (cell.values, cell.n) == ({"dpc_cd": 0.05}, None)


def test_a_whole_number_beyond_all_floats_is_not_finite(write, stored, record):
    write()
    file = stored([record("full", 0, {"dpc_cd": 10**400}), record("full", 1, {"dpc_cd": 0.05})])
    found = measure(load_table("small"), read_source(str(file), load_table("small"))).get("full", "CD")
    assert found.by_seed == {1: pytest.approx(5.0)}
    assert found.remarks == ["the value of seed 0 is not finite and left out"]
