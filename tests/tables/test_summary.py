"""``reconlab table all``: claims counted per table, in three forms."""

import json

import pytest

from reconlab.cli.__main__ import main
from reconlab.tables.summary import Line, render_summary, summarize

CLAIMS = [
    {"text": "full is better", "holds": "full.CD < half.CD"},
    {"text": "full is much better", "holds": "2 * full.CD < half.CD"},
    {"text": "better than the old one", "holds": "full.CD < old.CD"},
    {"text": "better in IoU", "holds": "full.IoU > half.IoU", "ours": True},
]


def of_small(lines):
    """The line of the small table: the checkout's own tables are listed, too."""
    return next(line for line in lines if line.name == "small")


@pytest.fixture
def small(write, stored, record):
    write(claims=CLAIMS)
    values = {("full", 0): 0.04, ("full", 1): 0.05, ("half", 0): 0.06}
    stored([record(row, seed, {"dpc_cd": v, "point_iou": v}) for (row, seed), v in values.items()])


def test_claims_of_the_paper_are_counted_and_ours_are_not(small):
    # 4.5 < 6 holds; 9 < 6 does not; "old" is quoted and was not run
    assert of_small(summarize()) == Line("small", "A table", 1, 1, 1, cells=3, seeds=2, profile="desk")


def test_a_table_without_measurements_is_open(write):
    write()
    line = of_small(summarize())
    assert (line.holds, line.fails, line.open, line.cells) == (0, 0, 1, 0)
    assert "| 0 | 0 | 1 | nothing |" in render_summary([line], "md")


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("text", "small         1                         1       1        3 cells, 2 seeds at most, desk"),
        ("md", "| [A table](results/tables/small.md) | 1 | 1 | 1 | 3 cells, 2 seeds at most, desk |"),
    ],
)
def test_forms(small, capsys, form, expected):
    assert main(["table", "all", "--format", form]) == 0
    assert expected in capsys.readouterr().out.splitlines()


def test_json_to_a_file(small, tmp_path):
    assert main(["table", "all", "--format", "json", "--out", str(tmp_path / "all.json")]) == 0
    found = {line["name"]: line for line in json.loads((tmp_path / "all.json").read_text())}
    assert (found["small"]["holds"], found["small"]["cells"]) == (1, 3)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--format", "latex"], "printed as text, md, json, not latex"),
        (["--profile", "desk"], "takes --format and --out alone"),
    ],
)
def test_what_it_does_not_take(small, capsys, words, sentence):
    assert main(["table", "all", *words]) == 2
    assert sentence in capsys.readouterr().err
