"""The files that a study consists of."""

import base64
import json
import re
import xml.etree.ElementTree as ET

import pytest

from reconlab.cli.__main__ import main
from reconlab.errors import ReconlabError
from reconlab.study import page

DATA = re.compile(r'<script type="application/json" id="study-data">(.*?)</script>', re.DOTALL)


def content(html: str) -> dict:
    return json.loads(DATA.search(html).group(1))


def test_the_key_has_questions_of_both_runs_and_checks(key, pair):
    kinds = [q["kind"] for q in key["questions"]]
    assert sorted(kinds) == ["check"] * 2 + ["question"] * 6
    assert key["pairs"] == [
        {"a": str(pair[0]), "b": str(pair[1]), "name": f"{pair[0]} | {pair[1]}", "drawn_from": 12}
    ]
    for question in key["questions"]:
        real = question["kind"] == "question"
        assert set(question["options"].values()) == ({"a", "b"} if real else {"good", "ruined"})
        assert question["turns"][0] == 0
        assert 45 <= abs(question["turns"][1]) <= 60
        assert real or question["check"] in ("noise", "another category")
    asked = [(q["category"], q["sample"]) for q in key["questions"] if q["kind"] == "question"]
    assert len(set(asked)) == 6


def test_the_page_says_nothing_of_runs_checks_or_samples(study, key, pair):
    html = (study / "study.html").read_text()
    data = content(html)
    options = [o for q in key["questions"] for o in q["options"]]
    assert sorted(o for q in data["questions"] for o in q[1:]) == sorted(options)
    assert data["study"] == key["study"]
    without = DATA.sub("", html)
    for told in (
        *map(str, pair),
        pair[0].name,
        pair[1].name,
        "ruined",
        "noise",
        *(q["sample"] for q in key["questions"]),
    ):
        assert told not in without
        assert told not in json.dumps({k: v for k, v in data.items() if k != "pictures"})
    # Neither the order on the page nor that of the options tells runs or checks apart
    assert {next(iter(q["options"].values())) for q in key["questions"] if q["kind"] == "question"} == {"a", "b"}
    assert {q["kind"] for q in key["questions"][-2:]} != {"check"}


def test_the_page_carries_its_pictures_and_nothing_from_elsewhere(study):
    html = (study / "study.html").read_text()
    data = content(html)
    for name, uri in data["pictures"].items():
        kind, _, coded = uri.partition(",")
        assert kind == "data:image/jpeg;base64"
        assert base64.b64decode(coded) == (study / "hit_images" / f"{name}.jpg").read_bytes()
    assert len(data["pictures"]) == 8 * (1 + 2 * 2)
    without = DATA.sub("", html)
    assert not re.search(r"(src|href)=", without)
    assert set(re.findall(r"https?://[^\s\"'`]+", html)) == {page.SUBMIT}  # which this page does not use


def test_titles_are_text(study):
    for name in ("study.html", "hit.html"):
        html = (study / name).read_text()
        assert "<title>A &lt;b&gt;title&lt;/b&gt; &amp; more</title>" in html
        assert "<b>" not in html


def test_the_same_seed_gives_the_same_study_and_another_one_does_not(pair, study, tmp_path):
    def build(name: str, *options: str):
        common = ["--questions", "6", "--checks", "2", "--size", "96", "--title", "A <b>title</b> & more", *options]
        assert main(["study", "build", *map(str, pair), "--out", str(tmp_path / name), *common]) == 0
        return (tmp_path / name / "study.html").read_bytes()

    assert build("again") == (study / "study.html").read_bytes()
    other = content(build("other", "--seed", "1").decode())
    assert other["study"] != content((study / "study.html").read_text())["study"]


def test_hit_is_a_question_of_mechanical_turk(pair, tmp_path):
    options = ["--questions", "3", "--checks", "1", "--size", "64", "--image-base", "https://example.org/x]]>/"]
    assert main(["study", "build", *map(str, pair), "--out", str(tmp_path), *options]) == 0
    text = (tmp_path / "hit.xml").read_text()
    root = ET.fromstring(text)
    assert root.tag == f"{{{page.SCHEMA}}}HTMLQuestion"
    inside = root.find(f"{{{page.SCHEMA}}}HTMLContent").text
    assert content(inside)["base"] == "https://example.org/x]]>/"
    assert content((tmp_path / "hit.html").read_text())["base"] == "hit_images/"
    assert content(inside)["mode"] == "hit"
    assert len(text) < page.LIMIT


def test_fifty_questions_fit_into_a_hit(study, key):
    """The limit is 65 535 characters; ours grow by some forty with each question."""
    html = (study / "hit.html").read_text()
    each = len(json.dumps(content(html)["questions"], separators=(",", ":"))) / len(key["questions"])
    assert len(html) + 46 * each < page.LIMIT / 2


def test_a_hit_that_is_too_long_is_said():
    with pytest.raises(ReconlabError, match=r"hit\.xml would have 70000 characters, Mechanical Turk takes 65535"):
        page.hit_question("x" * 70_000)
