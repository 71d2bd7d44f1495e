"""The language of claims, and how they are judged, by hand-computed numbers."""

import math

import pytest

from reconlab.errors import ReconlabError
from reconlab.tables import load_table, parse
from reconlab.tables.judge import Number, judge, judge_paper, pooled_sd
from reconlab.tables.measure import measure
from reconlab.tables.sources import read_stored


def said(text: str) -> list[str]:
    return [f"{c.left} {c.op} {c.right}" for c in parse(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.X<b.X", ["a.X < b.X"]),
        ("a.X < b.X <= c.X", ["a.X < b.X", "b.X <= c.X"]),
        ("a.X > 1 and 0.5 * b.X >= 2 * 3 * c.Y", ["a.X > 1", "0.5 * b.X >= 6 * c.Y"]),
        ("a.X * 2 < 10.5", ["2 * a.X < 10.5"]),
        ("64.X < 128_b.X_2", ["64.X < 128_b.X_2"]),  # a row may begin with a digit
        ("band.X < handy.X and andy.X > band.X", ["band.X < handy.X", "andy.X > band.X"]),
    ],
)
def test_comparisons_are_read(text, expected):
    assert said(text) == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a.X", "no comparison"),
        ("a.X < ", "at its end"),
        ("< a.X", "at '<'"),
        ("a.X < b.X c.X", "cannot be read at 'c.X'"),
        ("a.X < b.X and", "at its end"),
        ("a.X < b.X * c.X", "may name one cell"),
        ("a.X < __import__('os')", "cannot be read at"),
        ("a.X == b.X", "cannot be read at '== b.X'"),
        ("a.X < b.X or a.X > 1", "cannot be read at 'or"),
        ("", "at its end"),
    ],
)
def test_anything_else_is_refused_in_a_sentence(text, part):
    with pytest.raises(ReconlabError, match=part.replace("(", r"\(")):
        parse(text)


def test_the_pooled_deviation_weighs_by_degrees_of_freedom():
    assert pooled_sd(Number(0, 3.0, 2), Number(1, 1.0, 4)) == pytest.approx(math.sqrt((1 * 9 + 3 * 1) / 4))
    assert pooled_sd(Number(0, None, 1), Number(1, 2.0, 3)) == pytest.approx(2.0)
    assert pooled_sd(Number(0), Number(1)) is None


@pytest.fixture
def verdicts(write, stored, record):
    """Judges claims on seeds 4, 6 (mean 5, sd √2) of full and 6, 7, 8 (mean 7, sd 1) of half."""

    def make(*claims, extra=()):
        write(claims=list(claims))
        cells = [record("full", s, {"dpc_cd": v / 100, "point_iou": 0.5}) for s, v in enumerate((4, 6))]
        cells += [record("half", s, {"dpc_cd": v / 100}) for s, v in enumerate((6, 7, 8))]
        stored([*cells, *extra])
        table = load_table("small")
        return judge(measure(table, read_stored(table)))

    return make


def test_a_difference_beyond_the_spread_holds_without_a_remark(verdicts):
    (one,) = verdicts({"text": "t", "holds": "full.CD < half.CD"})  # pooled sd √((2 + 2·1) / 3) = 1.15 < 2
    assert (one.verdict, one.numbers, one.remarks) == ("holds", "full.CD 5.00 < half.CD 7.00", [])


def test_a_difference_within_the_spread_is_remarked_on_either_side(verdicts):
    holds, fails = verdicts(
        {"text": "t", "holds": "1.2 * full.CD < half.CD"},  # 6 < 7; pooled √((1.44·2 + 2) / 3) = 1.28 > 1
        {"text": "t", "holds": "half.CD < 1.2 * full.CD"},
    )
    assert (holds.verdict, fails.verdict) == ("holds", "does not hold")
    assert holds.remarks == ["1.2 * full.CD and half.CD differ within the seeds' spread"]
    assert fails.remarks == ["half.CD and 1.2 * full.CD differ within the seeds' spread"]
    assert fails.numbers == "half.CD 7.00 not < 1.2 * full.CD 6.00"


def test_a_claim_fails_by_any_part_and_is_not_run_by_a_missing_one(verdicts):
    missing, failing, number = verdicts(
        {"text": "t", "holds": "full.CD < half.CD and full.IoU > half.IoU"},
        {"text": "t", "holds": "full.CD > half.CD and full.IoU > half.IoU"},
        {"text": "t", "holds": "full.IoU >= 50"},
    )
    assert (missing.verdict, missing.remarks) == ("not run", ["no number of half.IoU"])
    assert missing.numbers == "full.CD 5.00 < half.CD 7.00"
    assert failing.verdict == "does not hold"
    assert (number.verdict, number.remarks) == ("holds", [])


def test_quoted_rows_decide_nothing(verdicts):
    (one,) = verdicts({"text": "t", "holds": "full.CD < old.CD"})
    assert (one.verdict, one.numbers, one.remarks) == ("not run", "", ["quoted, not re-run: old"])
    assert judge_paper(load_table("small"))[0].verdict == "holds"  # there all rows are by the paper


def wins(needs, *columns, **more):
    return {
        "text": "t",
        "wins": {"pairs": [["full", "half"], ["half", "full"]], "columns": columns, "needs": needs},
        **more,
    }


def test_counts_respect_the_direction_and_what_the_paper_says_of_them(write, stored, record):
    write(claims=[wins("all", "CD"), wins("some", "CD", "IoU"), wins("majority", "CD", "IoU"), wins("some", "IoU")])
    values = {"full": (0.05, 0.4), "half": (0.07, 0.6)}  # half is worse in CD, better in IoU
    stored([record(row, 0, {"dpc_cd": cd, "point_iou": iou}) for row, (cd, iou) in values.items()])
    table = load_table("small")
    found = judge(measure(table, read_stored(table)))
    assert [v.verdict for v in found] == ["does not hold", "holds", "does not hold", "holds"]
    assert [(v.won, v.compared) for v in found] == [(1, 2), (2, 4), (2, 4), (1, 2)]
    assert found[1].numbers == "2 of 4 (50 %): CD 1/2, IoU 1/2"


def test_a_count_with_missing_cells_says_how_many_were_compared(verdicts):
    count, nothing = verdicts(
        wins("some", "CD", "IoU", paper=4, of=4),
        {"text": "t", "wins": {"pairs": [["old", "full"]], "columns": ["CD"]}},
    )
    assert (count.won, count.compared, count.verdict) == (1, 2, "holds")
    assert count.remarks == ["2 of 4 comparisons could be made", "the paper counts 4 of 4"]
    assert (nothing.verdict, nothing.won, nothing.compared) == ("not run", 0, 0)


def test_always_better_is_open_until_all_are_compared_or_one_is_lost(verdicts):
    pairs = [["half", "full"]]  # in CD full is better; IoU has no number of half
    won, lost = verdicts(
        {"text": "t", "wins": {"pairs": pairs, "columns": ["CD", "IoU"], "needs": "all"}},
        {"text": "t", "wins": {"pairs": [["full", "half"]], "columns": ["CD", "IoU"], "needs": "all"}},
    )
    assert (won.verdict, won.won, won.compared) == ("not run", 1, 1)
    assert (lost.verdict, lost.won, lost.compared) == ("does not hold", 0, 1)


def test_in_the_papers_numbers_a_count_must_be_the_papers(write):
    pair = {"pairs": [["half", "full"]], "columns": ["CD"], "needs": "some"}
    write(claims=[{"text": "t", "wins": pair, "paper": count, "of": 1} for count in (1, 0)])
    right, wrong = judge_paper(load_table("small"))
    assert (right.verdict, right.remarks) == ("holds", [])
    assert (wrong.verdict, wrong.remarks) == ("does not hold", ["the paper counts 0 of 1"])


def test_a_verdict_says_where_its_numbers_are_of_two_profiles(write, stored, record):
    counted = {"text": "t", "wins": {"pairs": [["half", "full"]], "columns": ["CD"], "needs": "all"}}
    write(claims=[{"text": "t", "holds": "full.CD < half.CD"}, counted])
    few = [record("half", 0, {"dpc_cd": 0.06}, profile="smoke")]
    many = [record("full", s, {"dpc_cd": 0.05}) for s in (0, 1)]
    stored(many + few)
    table = load_table("small")
    one, count = judge(measure(table, read_stored(table)))
    assert "half.CD: at the profile smoke" in one.remarks
    assert "1 of them between different protocols or profiles" in count.remarks


def test_a_verdict_says_where_its_numbers_are_of_two_protocols(write, stored, record):
    write(claims=[{"text": "t", "holds": "2 * full.CD < half.CD"}])
    squared = {"dpc_cd": {"name": "dpc_cd", "squared": True, "points": "all"}}
    stored([record("full", 0, {"dpc_cd": 0.05}), record("half", 0, {"dpc_cd": 0.06}, protocols=squared)])
    table = load_table("small")
    (verdict,) = judge(measure(table, read_stored(table)))
    assert [r for r in verdict.remarks if r.startswith("half.CD: other protocol of dpc_cd: squared True")]


def test_some_is_open_while_one_may_yet_be_won(verdicts):
    claim = {"text": "t", "wins": {"pairs": [["full", "half"]], "columns": ["CD", "IoU"], "needs": "some"}}
    (verdict,) = verdicts(claim)
    assert (verdict.won, verdict.compared) == (0, 1)
    assert verdict.verdict == "not run"
