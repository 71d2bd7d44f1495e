"""The page in a browser, answered as scripted, up to the score."""

import json
import shutil

import pytest

from reconlab.cli.__main__ import main
from reconlab.study.answers import read_answers, read_key

pytest.importorskip("selenium", reason="needs selenium (pip install 'reconlab[test]')")

SHOWN = "!document.getElementById('question').hidden"
DONE = "!document.getElementById('done').hidden"


@pytest.fixture
def page(browser, study, tmp_path):
    """A copy of the study in a folder of its own: its storage is empty and its downloads lie in ``saved``."""
    shutil.copytree(study, tmp_path / "study")
    saved = tmp_path / "saved"
    saved.mkdir()
    browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(saved)})
    browser.open(tmp_path / "study" / "study.html")
    browser.script("localStorage.clear()")
    browser.open(tmp_path / "study" / "study.html")
    return tmp_path


def begin(browser, name: str) -> None:
    browser.find("#participant").send_keys(name)
    browser.find("#agree").click()
    browser.find("#begin").click()
    browser.until_script(SHOWN)


def shown(browser, key) -> tuple[dict, str]:
    """The question in view, and which side its preferred option (B; the good shape) is on."""
    left = browser.script("return document.getElementById('option-left').dataset.option")
    question = next(q for q in key["questions"] if left in q["options"])
    return question, "left" if question["options"][left] in ("b", "good") else "right"


def other(side: str) -> str:
    return "right" if side == "left" else "left"


def number(browser) -> str:
    return browser.find("#question-heading").text


def score(folder, study, capsys, code: int = 0) -> dict:
    assert main(["study", "score", str(folder), "--key", str(study / "study.json"), "--json", "-"]) == code
    return json.loads(capsys.readouterr().out)


def save(browser, page, button: str, suffix: str):
    before = set((page / "saved").iterdir())
    browser.find(button).click()

    def finished(_):
        new = [p for p in (page / "saved").iterdir() if p not in before and p.suffix == suffix]
        return new[0] if new and new[0].stat().st_size else None

    return browser.until(finished, f"no {suffix} file was saved")


def test_always_b_with_the_mouse_gives_all_votes(browser, page, key, capsys):
    begin(browser, "Ann Ähm, 1")
    for i in range(len(key["questions"])):
        assert number(browser) == f"Question {i + 1} of {len(key['questions'])}"
        _, side = shown(browser, key)
        assert not browser.find("#next").is_enabled()
        browser.find(f"#option-{side}").click()
        assert browser.find(f"#{side}").is_selected()
        browser.find("#next").click()
    browser.until_script(DONE)
    saved = save(browser, page, "#save-json", ".json")
    table = save(browser, page, "#save-csv", ".csv")
    assert json.loads(saved.read_text()) == json.loads(browser.find("#results").get_attribute("value"))
    assert json.loads(saved.read_text())["participant"] == "Ann Ähm, 1"
    (sheet,), (rows,) = (read_answers([p]).sheets for p in (saved, table))
    assert (rows.participant, rows.study, rows.answers) == (sheet.participant, sheet.study, sheet.answers)
    assert {a.question for a in sheet.answers} == {q["id"] for q in key["questions"]}
    assert all(0 <= a.milliseconds < 60_000 for a in sheet.answers)
    result = score(page / "saved", page / "study", capsys)
    assert result["b_over_a"]["share"] == 1
    assert (result["b_over_a"]["votes"], result["participants"]) == (6, 1)
    assert result["checks"]["inattentive"] == {}
    assert browser.requests() == []
    assert browser.complaints() == []


def test_a_reload_in_the_middle_loses_nothing(browser, page, key, capsys):
    begin(browser, "ben")
    order = []
    for i in range(len(key["questions"])):
        question, side = shown(browser, key)
        if i == 3:
            browser.find(f"#option-{side}").click()
            left = browser.script("return document.getElementById('option-left').dataset.option")
            browser.driver.refresh()
            browser.until_script(SHOWN)
            assert number(browser) == f"Question 4 of {len(key['questions'])}"
            assert browser.find(f"#{side}").is_selected()  # the choice of before
            assert browser.script("return document.getElementById('option-left').dataset.option") == left
        order.append(question["id"])
        browser.find(f"#option-{side}").click()
        browser.find("#next").click()
    browser.until_script(DONE)
    content = json.loads(browser.find("#results").get_attribute("value"))
    assert [a["question"] for a in content["answers"]] == order
    browser.driver.refresh()
    browser.until_script(DONE)  # and nothing can be answered again
    save(browser, page, "#save-json", ".json")
    assert score(page / "saved", page / "study", capsys)["b_over_a"]["votes"] == 6


def test_by_keyboard_alone_and_with_a_step_back(browser, page, key, capsys):
    from selenium.webdriver.common.keys import Keys

    browser.press(Keys.TAB, "k", "i", "m", Keys.TAB, Keys.SPACE, Keys.ENTER)
    browser.until_script(SHOWN)
    arrows = {"left": Keys.ARROW_LEFT, "right": Keys.ARROW_RIGHT}
    digits = {"left": "1", "right": "2"}
    browser.press(Keys.ENTER)
    assert number(browser).startswith("Question 1 ")  # nothing chosen yet
    for i in range(len(key["questions"])):
        question, side = shown(browser, key)
        side = side if question["kind"] == "check" else other(side)  # always A, but awake
        if i == 2:  # a slip, noticed after going on
            browser.press(digits[other(side)], Keys.ENTER)
            assert number(browser).startswith("Question 4 ")
            browser.press(Keys.BACKSPACE)
            assert number(browser).startswith("Question 3 ")
            assert browser.find(f"#{other(side)}").is_selected()
        browser.press((arrows if i % 2 else digits)[side])
        assert browser.find(f"#{side}").is_selected()
        browser.press(Keys.ENTER)
    browser.until_script(DONE)
    save(browser, page, "#save-json", ".json")
    result = score(page / "saved", page / "study", capsys)
    assert (result["b_over_a"]["votes"], result["b_over_a"]["of"]) == (0, 6)
    assert result["checks"]["failed"] == {"kim": 0}


def test_two_people_at_one_device_and_one_who_does_not_look(browser, page, key, capsys):
    orders = {}
    for name, looks in (("ann", True), ("eve", False)):
        begin(browser, name)
        orders[name] = []
        for _ in key["questions"]:
            question, side = shown(browser, key)
            orders[name].append((question["id"], side))
            browser.press("12"[["left", "right"].index(side if looks else other(side))])
            browser.find("#next").click()
        browser.until_script(DONE)
        save(browser, page, "#save-json", ".json")
        browser.find("#again").click()
    assert [q for q, _ in orders["ann"]] != [q for q, _ in orders["eve"]]
    assert dict(orders["ann"]) != dict(orders["eve"])
    result = score(page / "saved", page / "study", capsys)
    assert result["checks"]["inattentive"] == {"eve": 2}
    assert (result["b_over_a"]["share"], result["participants"]) == (1, 1)


def test_who_comes_to_anothers_question_can_begin_anew(browser, page, key):
    address = (page / "study" / "study.html").as_uri() + "?participant=P07"
    browser.open(address)
    browser.find("#agree").click()
    browser.find("#begin").click()
    browser.until_script(SHOWN)
    assert browser.find("#who").text == "P07"
    browser.press("1")
    browser.find("#next").click()
    browser.find("#switch").click()
    assert browser.find("#start").is_displayed()
    begin(browser, "ann")  # the name is asked for, though the address has one
    assert (browser.find("#who").text, number(browser)) == ("ann", f"Question 1 of {len(key['questions'])}")
    browser.driver.refresh()  # and a reload goes on as the one who answered last
    browser.until_script(SHOWN)
    assert browser.find("#who").text == "ann"
    browser.find("#switch").click()
    begin(browser, "P07")
    assert number(browser) == f"Question 2 of {len(key['questions'])}"


def test_begin_needs_a_name_and_consent(browser, page):
    browser.find("#begin").click()
    assert browser.script(f"return {SHOWN}") is False
    browser.find("#participant").send_keys("   ")
    browser.find("#agree").click()
    browser.find("#begin").click()
    assert browser.script(f"return {SHOWN}") is False


def test_controls_have_names_and_pictures_tell_nothing(browser, page, key):
    begin(browser, "ann")
    texts = [i.get_attribute("alt") for i in browser.find_all("#question img")]
    assert sorted(texts) == sorted(
        ["The picture of the object"]
        + [f"{s} shape, {n} view" for s in ("Left", "Right") for n in ("first", "second")]
    )
    assert all(i.get_property("naturalWidth") > 0 for i in browser.find_all("#question img"))
    for selector, role, name in (
        ("#left", "radio", "1 Left shape"),
        ("#progress", "progressbar", "Answered questions"),
        ("#next", "button", "Next"),
    ):
        element = browser.find(selector)
        assert element.aria_role == role
        assert element.accessible_name.startswith(name)
    assert browser.script("return document.activeElement.id") == "question-heading"
    browser.press("1")
    assert browser.find("#said").get_attribute("textContent") == "Left shape chosen"
    assert (
        browser.script("return getComputedStyle(document.getElementById('option-left')).outlineStyle") == "solid"
    )  # the focus is seen


def test_narrow_screens_show_both_shapes_without_scrolling_sideways(browser, page):
    begin(browser, "ann")
    browser.resize(340, 700)
    assert browser.script("return document.documentElement.scrollWidth") <= 340
    left, right = (browser.find(f"#option-{s}").rect for s in ("left", "right"))
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] < right["x"]


def test_hit_in_preview_takes_no_answers(browser, page):
    browser.open(f"{(page / 'study' / 'hit.html').as_uri()}?assignmentId=ASSIGNMENT_ID_NOT_AVAILABLE")
    assert browser.find("#preview").is_displayed()
    assert not browser.find("#begin").is_enabled()


@pytest.mark.parametrize(
    ("to", "action"),
    [
        ("https://workersandbox.mturk.com", "https://workersandbox.mturk.com/mturk/externalSubmit"),
        ("https://www.mturk.com.example.org", "https://www.mturk.com/mturk/externalSubmit"),
    ],
)
def test_hit_hands_the_answers_to_mechanical_turk(browser, page, key, capsys, to, action):
    address = (page / "study" / "hit.html").as_uri()
    browser.open(f"{address}?assignmentId=A17&hitId=H1&workerId=W9&turkSubmitTo={to}")
    browser.script("localStorage.clear()")
    browser.driver.refresh()
    browser.find("#agree").click()
    browser.find("#begin").click()
    browser.until_script(SHOWN)
    for _ in key["questions"]:
        browser.press("12"[["left", "right"].index(shown(browser, key)[1])])
        browser.find("#next").click()
    browser.until_script(DONE)
    form = "const f = document.getElementById('hand-in');"
    assert browser.script(f"{form} return [f.method, f.action]") == ["post", action]
    fields = dict(browser.script(f"{form} return [...new FormData(f)]"))
    assert fields["assignmentId"] == "A17"
    batch = page / "saved" / "Batch_results.csv"
    quoted = fields["results"].replace('"', '""')
    batch.write_text(f'WorkerId,AssignmentStatus,Answer.results\nW9,Submitted,"{quoted}"\n')
    result = score(batch, page / "study", capsys)
    assert (result["b_over_a"]["share"], result["participants"]) == (1, 1)
    assert json.loads(fields["results"])["participant"] == "W9"
    assert browser.complaints() == []


def test_a_missing_picture_is_said(browser, page):
    shutil.rmtree(page / "study" / "hit_images")
    browser.open(f"{(page / 'study' / 'hit.html').as_uri()}?assignmentId=A1&workerId=W10")
    browser.find("#agree").click()
    browser.find("#begin").click()
    browser.until(lambda _: "could not be loaded" in browser.find("#trouble").text)


def test_the_key_of_the_page_is_the_scores(study, key):
    assert read_key(study) == key
