"""Whose votes count, and what they add up to."""

import csv
import io
import json

import pytest

from reconlab.errors import ReconlabError
from reconlab.study.answers import read_answers, read_key
from reconlab.study.score import count, score


@pytest.fixture
def hand_in(tmp_path):
    """Writes sheets as files; returns the folder."""
    folder = tmp_path / "answers"
    folder.mkdir()

    def write(*sheets: dict):
        for i, content in enumerate(sheets):
            (folder / f"{i}_{content['participant']}.json").write_text(json.dumps(content))
        return folder

    return write


def scored(key, folder, **options):
    return score(key, count(key, read_answers([folder]).sheets, **options))


def as_table(sheet: dict) -> str:
    out = io.StringIO()
    rows = [{k: sheet[k] for k in ("study", "participant", "started", "finished")} | a for a in sheet["answers"]]
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def test_votes_are_counted_by_the_key(key, hand_in, sheet, prefers):
    chairs = sum(q["category"] == "chair" and q["kind"] == "question" for q in key["questions"])

    def mixed(question):  # B for chairs, A for lamps
        return prefers("b" if question["category"] == "chair" else "a")(question)

    folder = hand_in(sheet("ann", prefers("b")), sheet("ben", prefers("b"), "right"), sheet("cem", mixed))
    result = scored(key, folder)
    whole = result["b_over_a"]
    assert (whole["votes"], whole["of"]) == (12 + chairs, 18)
    assert result["per_category"]["chair"]["share"] == 1
    assert result["per_category"]["lamp"]["votes"] == 2 * (6 - chairs)
    assert result["left"]["votes"] == 12  # of 18: Ann's and Cem's
    assert {i["votes_b"] for i in result["items"] if i["category"] == "lamp"} == {2}
    assert result["agreement"]["mean_majority"] == pytest.approx((chairs + (6 - chairs) * 2 / 3) / 6)
    # Agreement per item is 1 for chairs and 1/3 for lamps; the share of B gives what chance would
    p = (12 + chairs) / 18
    observed, chance = (chairs + (6 - chairs) / 3) / 6, p**2 + (1 - p) ** 2
    assert result["agreement"]["fleiss_kappa"] == pytest.approx((observed - chance) / (1 - chance))
    assert result["paper"]["PS-2"]["share"] == 0.86075
    assert next(iter(result["per_pair"].values()))["share"] == whole["share"]


def test_inattentive_people_are_left_out_unless_kept(key, hand_in, sheet, prefers):
    folder = hand_in(sheet("ann", prefers("b")), sheet("eve", prefers("a", looks=False)))
    result = scored(key, folder)
    assert (result["participants"], result["b_over_a"]["share"]) == (1, 1.0)
    assert result["checks"] == {"asked": 2, "failed": {"ann": 0, "eve": 2}, "inattentive": {"eve": 2}}
    assert scored(key, folder, keep_inattentive=True)["b_over_a"]["share"] == 0.5
    assert scored(key, folder, allow=2)["checks"]["inattentive"] == {}


def test_foreign_unfinished_and_repeated_sheets(key, hand_in, sheet, prefers):
    foreign = sheet("fay", prefers("a")) | {"study": "0" * 16}
    strange = sheet("gus", prefers("a"))
    strange["answers"][0]["choice"] = "deadbeef"
    half = sheet("hal", prefers("a"), skip=3, finished=None)
    again = sheet("ann", prefers("a"), finished="2026-01-02T00:00:00Z")
    folder = hand_in(again, sheet("ann", prefers("b")), foreign, strange, half)
    counted = count(key, read_answers([folder]).sheets)
    assert [s.participant for s in counted.sheets] == ["ann"]
    assert score(key, counted)["b_over_a"]["share"] == 1.0  # her first sheet
    assert len(counted.foreign) == 2
    assert "another study" in counted.foreign[0] + counted.foreign[1]
    assert "deadbeef" in counted.foreign[0] + counted.foreign[1]
    assert counted.unfinished == ["hal"]
    assert len(counted.repeated) == 1


def test_who_came_back_and_finished_is_not_unfinished(key, hand_in, sheet, prefers):
    folder = hand_in(sheet("ann", prefers("a"), skip=2, finished=None), sheet("ann ", prefers("b")))
    counted = count(key, read_answers([folder]).sheets)
    assert counted.unfinished == []
    assert len(counted.sheets) == 1


def test_json_and_csv_of_one_person_are_one_sheet(key, hand_in, sheet, prefers):
    content = sheet('o\'brien, "x"', prefers("b"))
    folder = hand_in()
    (folder / "a.json").write_text(json.dumps(content))
    (folder / "a.csv").write_text(as_table(content))
    counted = count(key, read_answers([folder]).sheets)
    assert len(counted.sheets) == 1
    assert counted.repeated == []
    assert set(read_answers([folder / "a.csv"]).sheets[0].answers) == set(counted.sheets[0].answers)


def test_batches_of_mechanical_turk(key, hand_in, sheet, prefers):
    folder = hand_in()
    out = io.StringIO()
    writer = csv.DictWriter(out, ["HITId", "AssignmentId", "WorkerId", "AssignmentStatus", "Answer.results"])
    writer.writeheader()
    for worker, status, who in (("W1", "Approved", "b"), ("W2", "Submitted", "a"), ("W3", "Rejected", "a")):
        results = json.dumps(sheet("somebody", prefers(who)))
        writer.writerow({"WorkerId": worker, "AssignmentStatus": status, "Answer.results": results})
    writer.writerow({"WorkerId": "W4", "AssignmentStatus": "Submitted", "Answer.results": "{}"})
    (folder / "Batch_1_results.csv").write_text(out.getvalue())
    handed = read_answers([folder])
    assert [s.participant for s in handed.sheets] == ["W1", "W2"]
    assert ["line 4" in handed.problems[0], "line 5" in handed.problems[1]] == [True, True]
    assert scored(key, folder)["b_over_a"]["share"] == 0.5


def test_damaged_files_are_said_and_the_others_count(key, hand_in, sheet, prefers):
    folder = hand_in(sheet("ann", prefers("b")))
    (folder / "cut.json").write_text('{"study": "12')
    (folder / "list.json").write_text("[1, 2]")
    (folder / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    (folder / "other.csv").write_text("a,b\n1,2\n")
    side = sheet("bob", prefers("b"), side="left")
    side["answers"][0]["side"] = "middle"
    (folder / "side.json").write_text(json.dumps(side))
    handed = read_answers([folder])
    assert len(handed.sheets) == 1
    assert len(handed.problems) == 5
    for name in ("cut.json", "list.json", "bytes.csv", "other.csv", "side.json"):
        assert sum(name in p for p in handed.problems) == 1
    assert scored(key, folder)["participants"] == 1


def test_endless_numbers_and_brackets_are_said(key, hand_in, sheet, prefers):
    folder = hand_in(sheet("ann", prefers("b")))
    long = sheet("bob", prefers("b"))
    long["answers"][0]["milliseconds"] = float("inf")
    (folder / "endless.json").write_text(json.dumps(long))
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "nobody.json").write_text(json.dumps(sheet("  ", prefers("a"))))
    handed = read_answers([folder])
    assert [s.participant for s in handed.sheets] == ["ann"]
    assert [next(n for n in ("deep", "endless", "nobody") if f"{n}.json" in p) for p in handed.problems] == [
        "deep",
        "endless",
        "nobody",
    ]


def test_a_damaged_line_of_a_batch_does_not_lose_the_others(key, sheet, prefers, tmp_path):
    wrong = sheet("x", prefers("b"))
    wrong["answers"][0]["side"] = "middle"
    with (tmp_path / "batch.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["WorkerId", "AssignmentStatus", "Answer.results"])
        for worker, content in (("W1", wrong), ("W2", sheet("x", prefers("b")))):
            table.writerow([worker, "Submitted", json.dumps(content)])
    handed = read_answers([tmp_path / "batch.csv"])
    assert [s.participant for s in handed.sheets] == ["W2"]
    assert len(handed.problems) == 1
    assert "line 2" in handed.problems[0]


@pytest.mark.parametrize("lost", [("questions", "sample"), ("questions", "view"), ("pairs", "name"), ("pairs", "a")])
def test_a_key_that_lost_a_part_is_none(key, lost, tmp_path):
    damaged = json.loads(json.dumps(key))
    del damaged[lost[0]][0][lost[1]]
    (tmp_path / "study.json").write_text(json.dumps(damaged))
    with pytest.raises(ReconlabError, match=r"study\.json is not a study's key"):
        read_key(tmp_path)


def test_nobody_left_is_said(key, hand_in, sheet, prefers):
    folder = hand_in(sheet("eve", prefers("a", looks=False)))
    with pytest.raises(ReconlabError, match=r"No participant's votes count.*1 failed the attention checks"):
        scored(key, folder)


@pytest.mark.parametrize("text", ["{", "[]", '{"study": 1, "pairs": [], "questions": [{}]}', '{"a": 1}'])
def test_keys_that_are_none(tmp_path, text):
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(ReconlabError, match=r"study\.json"):
        read_key(tmp_path)
