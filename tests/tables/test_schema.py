"""Table files: what is read, and one sentence for each mistake."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from reconlab.errors import ReconlabError
from reconlab.tables import find, load_table, names
from reconlab.tables.load import PROTOCOL_FIELDS
from reconlab.tables.values import COST_VALUES, METRIC_VALUES, is_known


def test_a_table_is_read_whole(write, root):
    options = {"desk": ["--trainer.max_steps=4"], "paper": ["--data.batch_size=1"]}
    rows = [
        {
            "name": "full",
            "config": "configs/full.yaml",
            "options": options,
            "paper": {"CD": 4, "IoU": "n/a"},
            "times": 10,
        }
    ]
    write(rows=rows, claims=[], notes=["a note"])
    table = load_table("small")
    row = table.row("full")
    assert (table.name, table.title, table.paper["table"], table.notes) == ("small", "A table", "9", ("a note",))
    assert (row.label, row.config, row.options, row.times) == ("full", "configs/full.yaml", options, 10.0)
    assert row.paper == {"CD": 4.0, "IoU": "n/a"}
    assert table.profiles == {"desk": ["--trainer.max_steps=8"]}
    assert table.column("IoU").direction == "higher"
    assert (table.measurements, table.sweep, table.root) == (("small",), None, root)


def test_tables_are_found_here_first_then_beside_the_package_then_as_paths(write, root, repository, tmp_path):
    file = write()
    assert find("small") == file
    assert find("drwr_table4") == repository / "configs" / "tables" / "drwr_table4.yaml"
    other = tmp_path / "mine.yaml"
    other.write_text(file.read_text())
    assert load_table(other).name == "mine"
    (root / "configs" / "tables" / "drwr_table4.yaml").write_text(file.read_text())
    assert load_table("drwr_table4").title == "A table"
    assert names()["drwr_table4"].is_relative_to(root)


@pytest.mark.parametrize(
    ("name", "part"),
    [("smal", "There is no table 'smal'; did you mean 'small'?"), ("a/b.yaml", "There is no table file a/b.yaml")],
)
def test_a_table_that_is_not_there(name, part, write):
    write()
    with pytest.raises(ReconlabError) as error:
        load_table(name)
    assert part in str(error.value)


def column(**more):
    return {"columns": [{"name": "CD", "metric": "dpc_cd"}, {"name": "IoU", "metric": "point_iou", **more}]}


def row(**more):
    return {"rows": [{"name": "full", "config": "configs/full.yaml"}, {"name": "half", **more}], "claims": []}


def claim(**more):
    return {"claims": [{"text": "t", **more}]}


PAIR = {"pairs": [["full", "half"]], "columns": ["CD"]}


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"colums": []}, "unknown key 'colums'; did you mean 'columns'?"),
        ({"title": None}, "title is missing."),
        ({"paper": {"where": 1, "wher": 2}}, "unknown key 'paper.wher'; did you mean 'where'?"),
        ({"columns": []}, "columns is empty"),
        ({"columns": {"a": 1}}, "columns must be a list, not a mapping."),
        (column(metrik="x"), "unknown key 'columns[1].metrik'; did you mean 'metric'?"),
        (
            column(metric="point_iuo"),
            "columns[1].metric is 'point_iuo', no value of a metric; did you mean 'point_iou'?",
        ),
        (column(name="CD"), "columns[1].name is 'CD', which stands twice"),
        (column(name="F %"), "columns[1].name is 'F %'; write letters"),
        (column(name="32"), "columns[1].name is '32'; begin it with a letter"),
        (column(mean_of=["CD"]), "columns[1].metric and mean_of: a column has one of the two."),
        (column(metric=None, mean_of=["X"]), "columns[1].mean_of names the column 'X', which is not above"),
        (column(group="lamp"), "columns[1].group is 'lamp'; there are none."),
        (column(direction="up"), "columns[1].direction is 'up'; choose one of lower, higher, none."),
        (column(digits=2.5), "columns[1].digits is 2.5"),
        (column(factor="many"), "columns[1].factor must be a number, not 'many'."),
        (column(factor=True), "columns[1].factor must be a number, not True."),
        (column(times="yes"), "columns[1].times must be true or false"),
        (column(protocol={"point": 3}), "unknown key 'columns[1].protocol.point'; did you mean 'points'?"),
        ({"rows": []}, "rows is empty"),
        (row(name="full"), "rows[1].name is 'full', which stands twice"),
        (row(), "rows[1] (half) has neither config nor quoted"),
        (row(config="configs/half.yaml", quoted="q"), "rows[1].quoted and config: a quoted row is never run"),
        (row(config="configs/full.yaml"), "rows[1].config is configs/full.yaml, which the row 'full' has"),
        (row(config="configs/gone.yaml"), "rows.half.config is configs/gone.yaml, which is not there"),
        (row(quoted="q", paper={"CDD": 1}), "rows[1].paper.CDD is of no column; did you mean 'CD'?"),
        (row(quoted="q", paper={"CD": [1]}), "rows[1].paper.CD must be a number"),
        (row(quoted="q", paper={"CD": float("nan")}), "rows[1].paper.CD is nan"),
        (row(quoted="q", options={"dsk": []}), "unknown key 'rows[1].options.dsk'; did you mean 'desk'?"),
        (
            row(quoted="q", options={"desk": ["max_steps=3"]}),
            "rows[1].options.desk holds 'max_steps=3'; write options as",
        ),
        ({"profiles": {"desk": "--a=1"}}, "profiles.desk must be a list of options"),
        (
            {"profiles": {"desk": ["--config=configs/no.yaml"]}},
            "profiles.desk is configs/no.yaml, which is not there",
        ),
        ({"sweep": "configs/sweeps/no.yaml"}, "sweep is configs/sweeps/no.yaml, which is not there"),
        (claim(), "claims[0].holds and wins: a claim has one of the two."),
        (
            claim(holds="full.CD < haf.CD"),
            "claims[0].holds names the row 'haf', which the table lacks; did you mean 'half'?",
        ),
        (claim(holds="full.CD < half.CDs"), "claims[0].holds names the column 'CDs', which the table lacks"),
        (claim(holds="full.CD"), "claims[0].holds is wrong: 'full.CD' has no comparison"),
        (
            claim(wins={**PAIR, "pairs": [["full"]]}),
            "claims[0].wins.pairs holds ['full']; expected [original, other]",
        ),
        (claim(wins={**PAIR, "pairs": [["full", "no"]]}), "claims[0].wins.pairs names the row 'no'"),
        (claim(wins={**PAIR, "columns": ["no"]}), "claims[0].wins.columns names the column 'no'"),
        (claim(wins={**PAIR, "columns": []}), "claims[0].wins.columns is empty"),
        (claim(wins={**PAIR, "needs": "most"}), "claims[0].wins.needs is 'most'; choose one of all, majority, some."),
        (claim(wins=PAIR, of=3), "claims[0].of is 3, but pairs × columns are 1 comparisons."),
    ],
)
def test_each_mistake_is_a_sentence_with_file_and_key(changes, part, write):
    file = write(**changes)
    with pytest.raises(ReconlabError) as error:
        load_table("small")
    sentence = str(error.value)
    assert sentence.startswith(f"{file}: ")
    assert part in sentence
    assert "\n" not in sentence
    assert sentence.endswith((".", "?", ")."))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("title: a\ntitle: b\n", "the key 'title' stands twice"),
        ("rows:\n  - {name: a, paper: {CD: 1, CD: 2}}\n", "the key 'CD' stands twice"),
        ("a: [1,\n", "is not valid YAML"),
        ("- 1\n", "the file must be a mapping"),
        ("", "the file must be a mapping of keys, not empty."),
        ("a: !!python/object/apply:os.system [ls]\n", "is not valid YAML"),
    ],
)
def test_files_that_are_no_tables(text, part, write):
    file = write()
    file.write_text(text)
    with pytest.raises(ReconlabError) as error:
        load_table("small")
    assert str(file) in str(error.value)
    assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_own_values_are_allowed_where_the_table_declares_them(write):
    write(**column(metric="shift_up"), values=["shift_up"])
    assert load_table("small").column("IoU").metric == "shift_up"


def test_a_file_may_be_missing_where_nothing_is_run(write):
    write(**row(config="configs/gone.yaml"))
    assert load_table("small", check_files=False).row("half").config == "configs/gone.yaml"


def test_the_names_of_values_are_those_of_the_metric_classes():
    import reconlab.metrics as m
    from reconlab.metrics.chamfer import VARIANTS

    made = [m.ChamferDistance(v) for v in VARIANTS] + [m.FScore(v) for v in ("what3d", "atlasnet")]
    made += [m.EMD(), m.EMD(method="auction"), m.NormalConsistency(), m.NormalConsistency(signed=True)]
    made += [m.VolumeIoU(), m.VolumeIoU(method="exact"), m.DPCChamfer(), m.Hausdorff(), m.PointIoU(), m.ShapeGoogle()]
    made += [m.VoxelIoU(), m.VoxelMSE(), m.LFD(), m.MVCNN(), m.DRKFSDistance(views=1)]
    keys = {key for metric in made for key in metric.protocols}
    assert keys == set(METRIC_VALUES) - {"fscore", "precision", "recall"}
    assert all(is_known(key) for key in [*m.FScoreCurve().protocols, "fscore_what3d@0.02", "lfd/chair", *COST_VALUES])
    assert not is_known("lfd_chair")


def test_every_metric_class_is_in_that_test():
    from reconlab.cli.listing import subclasses

    text = Path(__file__).read_text()
    assert all(f"m.{name}(" in text for name in subclasses("metrics"))


def test_stated_protocols_have_the_fields_of_protocols():
    from reconlab.metrics import Protocol

    assert {f.name for f in dataclasses.fields(Protocol)} == set(PROTOCOL_FIELDS)


def test_nothing_of_it_imports_torch(write, tmp_path):
    write()
    code = (
        "import sys; from reconlab.cli.__main__ import main; assert main(['table', 'small', '--format=html']) == 0; "
        "assert main(['list', 'tables']) == 0; sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "<h2>A table</h2>" in done.stdout
    assert "small                 A table" in done.stdout


def test_shipped_tables_are_plain_yaml(repository):
    for file in (repository / "configs" / "tables").glob("*.yaml"):
        assert yaml.safe_load(file.read_text())["title"]


@pytest.mark.parametrize("value", ["1e-3", "4.01", "nan"])
def test_a_paper_number_that_yaml_takes_for_text_is_refused(write, value):
    rows = [{"name": "full", "config": "configs/full.yaml", "paper": {"CD": value}}]
    file = write(rows=rows, claims=[])
    with pytest.raises(ReconlabError, match=r"rows\[0\].paper.CD is the text"):
        load_table(file)
