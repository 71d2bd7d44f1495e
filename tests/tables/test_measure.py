"""Means, spreads and marks, by hand-computed numbers."""

import math

import pytest

from reconlab.tables import load_table
from reconlab.tables.measure import measure
from reconlab.tables.page import page
from reconlab.tables.sources import read_stored

GROUPED = {
    "groups": {"airplane": {"label": "Plane"}, "car": {"label": "Car"}},
    "columns": [
        {"name": "Plane", "metric": "dpc_cd", "group": "airplane", "factor": 100},
        {"name": "Car", "metric": "dpc_cd", "group": "car", "factor": 100},
        {"name": "Mean", "mean_of": ["Plane", "Car"]},
    ],
    "rows": [{"name": "full", "config": "configs/full.yaml", "paper": {"Plane": 3, "Car": 5, "Mean": 4}}],
    "claims": [],
}


@pytest.fixture
def measured(write, stored):
    def make(records, profile=None, **changes):
        write(**changes)
        stored(records)
        table = load_table("small")
        return measure(table, read_stored(table), profile)

    return make


def test_the_mean_and_sample_deviation_over_seeds(measured, record):
    values = (0.040, 0.050, 0.063)  # mean 5.1, deviations -1.1, -.1, 1.2: variance 2.66 / 2
    found = measured([record("full", s, {"dpc_cd": v}) for s, v in enumerate(values)]).get("full", "CD")
    assert found.mean == pytest.approx(5.1)
    assert found.sd == pytest.approx(math.sqrt(1.33))
    assert (found.n, found.remarks) == (3, [])


def test_one_seed_has_no_spread(measured, record):
    found = measured([record("full", 0, {"dpc_cd": 0.05})]).get("full", "CD")
    assert (found.mean, found.sd, found.n) == (pytest.approx(5.0), None, 1)


def test_rows_are_found_by_name_and_by_config_wherever_the_checkout_lies(measured, record):
    rows = ("full", "configs/full.yaml", "./configs/full.yaml", "/elsewhere/checkout/configs/full.yaml")
    result = measured([record(row, s, {"dpc_cd": 0.05}) for s, row in enumerate(rows)])
    assert result.get("full", "CD").n == 4


def test_cells_of_other_rows_are_named(measured, record):
    result = measured([record("fall", s, {"dpc_cd": 0.05}) for s in (0, 1)] + [record("old", 0, {"dpc_cd": 0.05})])
    assert result.numbers == {}
    assert any("old-seed0" in p and "quoted" in p for p in result.problems)
    assert "Cells of no row of this table are not shown: fall (2)." in result.problems


def test_cells_of_the_table_that_is_shared_are_counted_alone(write, stored, record):
    write(measurements=["shared"])
    stored([record(row, 0, {"dpc_cd": 0.05}) for row in ("full", "other", "third")], name="shared")
    table = load_table("small")
    assert measure(table, read_stored(table)).problems[0] == "2 cells of other tables' rows are not of this one."


def test_the_best_respects_the_direction(measured, record):
    result = measured(
        [record("full", 0, {"dpc_cd": 0.05, "point_iou": 0.5}), record("half", 0, {"dpc_cd": 0.04, "point_iou": 0.6})]
    )
    table = result.table
    assert result.best(table.column("CD")) == pytest.approx(4)
    assert result.best(table.column("IoU")) == pytest.approx(60)
    lines = {line.label: line.squares for line in page(result, []).lines}
    assert [s.best for s in lines["full"]] == [False, False]
    assert [s.best for s in lines["half"]] == [True, True]


def test_differences_are_measured_minus_paper(measured, record):
    result = measured([record("full", 0, {"dpc_cd": 0.05, "point_iou": 0.5})])
    squares = page(result, []).lines[0].squares
    assert [(s.measured, s.paper, s.difference) for s in squares] == [
        ("5.00 (1)", "4.01", "+0.99"),
        ("50.0 (1)", "60.0", "−10.0"),
    ]


def test_groups_are_trained_apart_and_their_mean_is_over_shared_seeds(measured, record):
    records = [record("full", s, {"dpc_cd": v}, group="airplane") for s, v in enumerate((0.03, 0.05, 0.07))]
    records += [record("full", s, {"dpc_cd": v}, group="car") for s, v in enumerate((0.05, 0.09))]
    result = measured(records, **GROUPED)
    assert [round(result.get("full", c).mean, 6) for c in ("Plane", "Car")] == [5.0, 7.0]
    mean = result.get("full", "Mean")  # seeds 0 and 1: (3 + 5) / 2 = 4, (5 + 9) / 2 = 7
    assert {seed: round(v, 6) for seed, v in mean.by_seed.items()} == {0: 4.0, 1: 7.0}
    assert mean.remarks == ["over the 2 seeds that Plane, Car have in common"]


def test_no_mean_without_all_its_parts(measured, record):
    result = measured([record("full", 0, {"dpc_cd": 0.03}, group="airplane")], **GROUPED)
    assert result.get("full", "Mean") is None
    assert "Not measured: full-car." in result.problems


def test_cells_without_the_tables_groups_are_named(measured, record):
    records = [record("full", 0, {"dpc_cd": 0.03}, group=g) for g in (None, "lamp")]
    assert measured(records, **GROUPED).problems[0] == (
        "Cells of no group of this table are not shown: full of all categories at once (1), full of lamp (1)."
    )


def test_a_protocol_that_is_not_the_stated_one_is_marked(measured, record):
    other = record("half", 0, {"dpc_cd": 0.05})
    other["protocols"]["dpc_cd"]["points"] = 2500
    result = measured([record("full", 0, {"dpc_cd": 0.05}), other])
    assert result.get("full", "CD").remarks == []
    assert result.get("half", "CD").remarks == ["other protocol of dpc_cd: points 2500 instead of all"]


def test_a_protocol_that_differs_between_seeds_is_marked_without_a_stated_one(measured, record):
    cells = [record("full", s, {"point_iou": 0.5}) for s in range(3)]
    cells[2]["protocols"]["point_iou"]["scale"] = "unit_ball"
    found = measured(cells).get("full", "IoU")
    assert found.remarks == ["other protocol of point_iou: scale unit_ball, elsewhere object"]


def test_a_protocol_that_was_not_stored_is_marked(measured, record):
    assert measured([record("full", 0, {"dpc_cd": 0.05}, protocols={})]).get("full", "CD").remarks == [
        "its protocol was not stored"
    ]


def test_the_nested_protocols_of_run_json_are_read(measured, record):
    cell = record("full", 0, {"dpc_cd": 0.05})
    cell["protocols"] = {"cd": cell["protocols"]}
    assert measured([cell]).get("full", "CD").remarks == []


def test_what_every_number_of_a_column_shares_is_said_at_its_header(measured, record):
    result = measured([record(row, 0, {"dpc_cd": 0.05, "point_iou": 0.5}, protocols={}) for row in ("full", "half")])
    content = page(result, [])
    assert content.column_marks == [["a"], ["a"]]
    assert all(square.marks == [] for line in content.lines for square in line.squares)
    assert content.footnotes[0] == ("a", "its protocol was not stored")


def test_failed_predictions_are_counted(measured, record):
    cells = [record("full", s, {"dpc_cd": 0.05}, n=29, n_failed=s) for s in range(3)]
    assert measured(cells).get("full", "CD").remarks == ["3 of 87 predictions failed and count with the worst value"]


def test_values_that_are_missing_or_not_finite_are_said(measured, record):
    cells = [
        record("full", 0, {"dpc_cd": 0.05, "point_iou": 0.5}),
        record("full", 1, {"dpc_cd": None, "point_iou": 0.6}),
        record("full", 2, {"dpc_cd": 0.07}),
    ]
    result = measured(cells)
    assert result.get("full", "CD").by_seed == {0: pytest.approx(5), 2: pytest.approx(7)}
    assert result.get("full", "CD").remarks == ["the value of seed 1 is not finite and left out"]
    assert result.get("full", "IoU").remarks == ["measured on 2 of 3 seeds only"]


def test_failed_and_running_cells_are_counted_and_named(measured, record):
    failed = record("half", 0, None, state="failed", reason="Traceback\nReconlabError: the disk is full")
    result = measured([record("full", 0, {"dpc_cd": 0.05}), failed, record("half", 1, None, state="running")])
    assert result.counts == {"done": 1, "failed": 1, "running": 1, "missing": 0}
    assert "failed: half-seed0 (half): ReconlabError: the disk is full" in result.problems
    assert "running, or stopped before their end: half-seed1" in result.problems
    assert "Not measured: half." in result.problems


def test_rows_at_another_profile_are_marked(measured, record):
    cells = [record("full", s, {"dpc_cd": 0.05}) for s in range(3)]
    result = measured([*cells, record("half", 0, {"dpc_cd": 0.04}, profile="paper")])
    assert result.profile == "desk"
    assert result.get("half", "CD").remarks == ["at the profile paper"]


def test_profiles_never_mix_in_one_number(measured, record):
    cells = [record("full", s, {"dpc_cd": 0.05}) for s in range(2)]
    cells += [record("full", s, {"dpc_cd": 0.01}, profile="paper") for s in range(2)]
    cells.append(record("half", 0, {"dpc_cd": 0.04}))
    result = measured(cells)
    assert result.get("full", "CD").mean == pytest.approx(5)
    assert "2 finished cells of the profile paper are not shown (--profile paper does)." in result.problems
    chosen = measured(cells, profile="paper")
    assert chosen.get("full", "CD").mean == pytest.approx(1)
    assert chosen.get("half", "CD") is None


def test_of_two_records_of_a_seed_the_last_counts_and_it_is_said(measured, record):
    result = measured([record("full", 0, {"dpc_cd": 0.05}), record("full", 0, {"dpc_cd": 0.06})])
    assert result.get("full", "CD").by_seed == {0: pytest.approx(6)}
    assert "Measured more than once, the last one read counts: full seed 0." in result.problems


def test_seconds_a_step_times_the_rows_steps(measured, record):
    columns = [{"name": "Hours", "metric": "seconds_per_step", "factor": 1 / 3600, "times": True, "digits": 1}]
    rows = [
        {"name": "full", "config": "configs/full.yaml", "times": 100_000, "paper": {"Hours": 7}},
        {"name": "half", "config": "configs/half.yaml", "paper": {"Hours": "out of memory"}},
    ]
    cells = [record(row, 0, {"seconds_per_step": 0.18}, protocols={}) for row in ("full", "half")]
    result = measured(cells, columns=columns, rows=rows, claims=[])
    assert result.get("full", "Hours").mean == pytest.approx(5.0)
    assert result.get("full", "Hours").remarks == []  # a time has no protocol
    assert result.get("half", "Hours") is None  # how many steps is not known
    assert [line.squares[0].beside for line in page(result, []).lines] == ["paper 7.0, −2.0", "paper out of memory"]


def test_steps_commits_and_machines_are_said(measured, record):
    cells = [record("full", 0, {"dpc_cd": 0.05}), record("half", 0, {"dpc_cd": 0.05}, steps=400, commit=None)]
    remarks = page(measured(cells), []).remarks
    assert "Profile: desk. Steps: 800 (full); 400 (half)." in remarks
    assert "Commits: 0123456789+changes (1); not recorded (1)." in remarks
    assert "Machines: P, 2 cores." in remarks
    assert any(text.endswith("read from results/tables/small.json.") for text in remarks)  # no machine's path


def test_a_row_of_ours_is_shown_where_it_is_measured_and_its_note_with_it(measured, record):
    rows = [{"name": "full", "config": "configs/full.yaml"}, {"name": "extra", "note": "not in the paper"}]
    without = page(measured([record("full", 0, {"dpc_cd": 0.05})], rows=rows, claims=[]), [])
    assert ([line.label for line in without.lines], without.footnotes) == (["full"], [])
    cells = [record(name, 0, {"dpc_cd": 0.05}) for name in ("full", "extra")]
    shown = page(measured(cells, rows=rows, claims=[]), [])
    assert [(line.label, line.marks) for line in shown.lines] == [("full", []), ("extra", ["a"])]
    assert shown.footnotes == [("a", "not in the paper")]


def test_a_mean_over_categories_counts_each_the_same(measured, record):
    columns = [{"name": "CD", "metric": "dpc_cd", "factor": 100, "mean": "categories"}]
    values = {"dpc_cd": 0.09, "dpc_cd/car": 0.02, "dpc_cd/chair": 0.05}  # of nine cars and one chair, say
    changes = {"columns": columns, "claims": [], "rows": [{"name": "full", "config": "configs/full.yaml"}]}
    found = measured([record("full", 0, values)], **changes).get("full", "CD")
    assert found.mean == pytest.approx(3.5)
    assert found.remarks == []


def test_a_mean_over_categories_that_were_not_recorded_says_so(measured, record):
    columns = [{"name": "CD", "metric": "dpc_cd", "factor": 100, "mean": "categories"}]
    changes = {"columns": columns, "claims": [], "rows": [{"name": "full", "config": "configs/full.yaml"}]}
    found = measured([record("full", 0, {"dpc_cd": 0.09})], **changes).get("full", "CD")
    assert found.mean == pytest.approx(9.0)
    assert found.remarks == ["the mean over samples: its categories' values were not recorded"]


def test_a_mean_over_other_categories_is_marked(measured, record):
    whole = {"dpc_cd": 0.05, "dpc_cd/car": 0.04, "dpc_cd/chair": 0.06}
    part = {"dpc_cd": 0.04, "dpc_cd/car": 0.04}
    columns = [{"name": "CD", "metric": "dpc_cd", "factor": 100, "mean": "categories"}]
    cells = [record("full", 0, whole), record("full", 1, whole), record("half", 0, part)]
    rows = [{"name": n, "config": f"configs/{n}.yaml"} for n in ("full", "half")]
    found = measured(cells, columns=columns, rows=rows, claims=[])
    assert found.get("full", "CD").remarks == []
    assert found.get("half", "CD").mean == pytest.approx(4.0)
    assert found.get("half", "CD").remarks == ["the mean over car; elsewhere over car, chair"]
