"""The page in a headless Chromium: offline, inert, sortable, three-dimensional, side by side."""

import csv
import json

import pytest

from reconlab.report.html import make_report, render, write_page
from reconlab.report.html_runs import read_run
from reconlab.report.html_sweeps import choose_cells, read_sweep

KEYS = "return [...document.querySelectorAll('#list > li')].map(li => JSON.parse(li.dataset.key)[1])"
# Pixels of a viewer that the shape covers, and how many shades they have
PAINTED = """
const c = arguments[0], d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, shades = new Set();
let n = 0; for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 200) {
  n++; shades.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]);
}
return [n / (c.width * c.height), shades.size];
"""


def page(path, runs, **options):
    write_page(path, render(make_report(runs, **options)))
    return path


@pytest.fixture(scope="module")
def folders(make_run, samples, boxes, tmp_path_factory):
    """Two runs over the same samples, listed in different orders, and a run of clouds over some."""
    root = tmp_path_factory.mktemp("runs")
    changed = [(c, i, cd * 1.5 if i in "bg" else cd - 0.005, 1 - iou, False) for c, i, cd, iou, _ in samples]
    return (
        make_run(root / "first", samples, boxes, config={"name": "x"}),
        make_run(root / "second", list(reversed(changed)), boxes, config={"name": "y"}),
        make_run(root / "clouds", samples[:4], boxes, cloud=True, config={"name": "z"}),
    )


@pytest.fixture(scope="module")
def one(folders, tmp_path_factory):
    return page(tmp_path_factory.mktemp("one") / "report.html", [read_run(folders[0])])


@pytest.fixture(scope="module")
def several(folders, tmp_path_factory):
    return page(tmp_path_factory.mktemp("several") / "report.html", [read_run(f) for f in folders])


def choose(browser, select, value):
    from selenium.webdriver.support.ui import Select

    Select(browser.find(f"#{select}")).select_by_value(str(value))


def table_of(folder):
    with (folder / "predictions" / "per_sample_rank0.csv").open() as file:
        return {line["id"]: line for line in csv.DictReader(file)}


def test_it_opens_without_a_network_and_without_complaints(browser, one):
    browser.open(one)
    browser.script("document.getElementById('curves').scrollIntoView()")
    browser.until_script("document.querySelectorAll('.plot .main-svg').length > 0")
    browser.script("document.getElementById('list').scrollIntoView()")
    browser.until_script("document.querySelectorAll('canvas[data-drawn]').length > 0")
    assert browser.complaints() == []
    assert browser.requests() == []
    assert "default-src 'none'" in one.read_text()
    assert (
        browser.find_all("script[src], link[rel=stylesheet], iframe, [href^='http'], img:not([src^='data:'])") == []
    )


@pytest.mark.parametrize(
    ("number", "metric", "higher"), [(0, "chamfer", False), (1, "chamfer_half", False), (2, "voxel_iou", True)]
)
def test_sorting_is_worst_first_with_failed_ones_before_all(browser, one, folders, number, metric, higher):
    browser.open(one)
    choose(browser, "per-page", 12)
    choose(browser, "by-metric", number)
    lines = table_of(folders[0])
    whole = [i for i in lines if lines[i]["chamfer/failed"] == "False"]
    worst = sorted(whole, key=lambda i: float(lines[i][metric]), reverse=not higher)
    assert browser.script(KEYS) == ["f", *worst]
    choose(browser, "by-order", "best")
    assert browser.script(KEYS) == [*reversed(worst), "f"]
    assert browser.find("#where").text == f"Samples 1–7 of 7, best first by {metric}"


def test_categories_and_pages(browser, one):
    browser.open(one)
    assert len(browser.script(KEYS)) == 6
    first = browser.script(KEYS)
    browser.find("body").send_keys("n")
    browser.until_script("document.getElementById('where').textContent.startsWith('Samples 7–7')")
    assert not set(first) & set(browser.script(KEYS))
    assert not browser.find("[data-go='1']").is_enabled()
    browser.find("[data-go='-1']").click()
    assert browser.script(KEYS) == first
    choose(browser, "by-category", "=lamp")
    assert sorted(browser.script(KEYS)) == ["d", "e", "f", "g"]


def test_shapes_are_drawn_and_turn_with_the_keyboard(browser, one):
    browser.open(one)
    choose(browser, "per-page", 1)
    choose(browser, "by-order", "best")
    canvas = browser.find("figure[data-run] canvas")
    truth = browser.find("figure[data-truth] canvas")
    browser.script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    browser.until_script("arguments[0].dataset.drawn && arguments[1].dataset.drawn", canvas, truth)
    assert canvas.get_attribute("data-drawn") == "webgl"
    covered, shades = browser.script(PAINTED, canvas)
    assert 0.02 < covered < 0.6
    assert shades >= 2  # two faces of a box are lit differently
    assert browser.script(PAINTED, truth)[0] > covered  # 0.6³ against 0.6 x 0.3 x 0.18
    before = browser.script("return [arguments[0].toDataURL(), arguments[1].toDataURL()]", canvas, truth)
    canvas.send_keys("\ue014", "\ue014", "\ue014")  # the right arrow, thrice
    browser.until_script(
        "arguments[0].toDataURL() !== arguments[2] && arguments[1].toDataURL() !== arguments[3]",
        canvas, truth, *before,
    )  # fmt: skip
    canvas.send_keys("0")
    browser.until_script("arguments[0].toDataURL() === arguments[1]", canvas, before[0])


def test_the_browsers_own_zoom_is_left_to_it(browser, one):
    browser.open(one)
    browser.until_script("document.querySelectorAll('#list canvas').length > 0")
    taken = browser.script(
        "const canvas = document.querySelector('#list canvas'); return ['+', '-', '0'].flatMap((key) => [false, true]"
        ".map((ctrlKey) => !canvas.dispatchEvent(new KeyboardEvent('keydown', { key, ctrlKey, cancelable: true }))));"
    )
    assert taken == [True, False] * 3


def test_unlinked_samples_turn_alone(browser, one):
    browser.open(one)
    browser.find("#linked").click()
    canvases = browser.find_all("figure[data-truth] canvas")[:2]
    browser.script("arguments[0].scrollIntoView({block: 'center'})", canvases[0])
    browser.until_script("arguments[0].dataset.drawn", canvases[0])
    canvases[0].send_keys("\ue014")
    angles = browser.script("return Page.data.samples.map(s => Samples.camera(s).azimuth)")
    assert sorted(set(angles)) == [35, 45]
    assert angles.count(45) == 1


def test_the_inputs_camera_can_be_taken(browser, one):
    browser.open(one)
    choose(browser, "seen-from", "input")
    seen = browser.script("const c = Samples.camera(Page.data.samples[0]); return [c.azimuth, c.elevation]")
    assert seen == [180, 0]


def test_side_by_side_has_the_same_samples_and_sorts_by_difference(browser, several, folders):
    browser.open(several)
    choose(browser, "per-page", 12)
    choose(browser, "by-minus", 1)
    first, second = table_of(folders[0]), table_of(folders[1])
    away = {i: float(first[i]["chamfer"]) - float(second[i]["chamfer"]) for i in first}
    assert browser.script(KEYS) == sorted(away, key=lambda i: -away[i])
    for item in browser.find_all("#list > li"):
        name = json.loads(item.get_attribute("data-key"))[1]
        labels = [c.get_attribute("aria-label") for c in item.find_elements("css selector", "canvas")]
        assert labels
        assert all(f"/ {name}," in label for label in labels)
        shown = [f.get_attribute("data-run") for f in item.find_elements("css selector", "figure")]
        assert [r for r in shown if r is not None] == (
            ["0", "1", "2"] if name in "abcd" else ["0", "1"]
        ) or name in "efg"
    assert browser.complaints() == []


def test_a_cloud_is_drawn_as_dots(browser, several):
    browser.open(several)
    choose(browser, "by-run", 2)
    canvas = browser.find("figure[data-run='2'] canvas")
    browser.script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    browser.until_script("arguments[0].dataset.drawn", canvas)
    covered, shades = browser.script(PAINTED, canvas)
    assert 0.01 < covered < 0.6
    assert shades > 20


def test_without_webgl_vertices_are_drawn(browser, one, tmp_path):
    refuse = """const old = HTMLCanvasElement.prototype.getContext;
    HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
      return kind === "webgl2" ? null : old.call(this, kind, ...rest);
    };
    """
    text = one.read_text()
    assert text.count('"use strict";\nwindow.Viewer') == 1
    path = tmp_path / "page.html"
    path.write_text(text.replace('"use strict";\nwindow.Viewer', f'"use strict";\n{refuse}window.Viewer'))
    browser.open(path)
    canvas = browser.find("figure[data-truth] canvas")
    browser.script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    browser.until_script("arguments[0].dataset.drawn === 'points'", canvas)
    assert browser.script(
        "const c = arguments[0], d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "return d.some((v, i) => i % 4 === 3 && v > 0)",
        canvas,
    )


def test_hostile_strings_are_text(browser, make_run, make_sweep, samples, hostile, tmp_path):
    name = hostile.replace("/", "∕")  # a file name has no slash
    rows = [(name, name, 0.1, 0.2, False), ("chair", hostile, 0.3, 0.4, True)]
    folder = make_run(tmp_path / name, rows, root=hostile, config={hostile: hostile}, command=hostile, status=hostile)
    content = json.loads((folder / "run.json").read_text())
    protocol = content["protocols"]["cd"]["chamfer"]
    content |= {"machine": {"system": hostile}, "protocols": {hostile: {"chamfer": {**protocol, hostile: hostile}}}}
    (folder / "run.json").write_text(json.dumps(content))
    curves = folder / "metrics.csv"
    curves.write_text(curves.read_text().replace("train/part", f"train/{hostile}"))
    failure = {hostile: {"state": "failed", "seed": 0, "row": hostile, "reason": hostile, "run": None}}
    sweep = make_sweep(tmp_path / "sweep", {}, tmp_path)
    (sweep / "sweep.json").write_text(json.dumps({"name": hostile, "cells": [hostile], "profile": hostile}))
    record = read_sweep(sweep)
    record.cells[0].record = failure[hostile]
    path = page(tmp_path / "out.html", [read_run(folder)], sweeps=[record], title=hostile, command=hostile)
    browser.open(path)
    browser.script("document.getElementById('curves').scrollIntoView()")
    browser.until_script("document.querySelector('.plot .main-svg .legendtext')")
    assert browser.alert() is None
    assert browser.find_all("img[src='x']") == []
    assert browser.find_all("[onerror]") == []
    assert browser.complaints() == []  # the page's policy had nothing to refuse
    assert browser.driver.title == hostile
    assert browser.find("h1").text == hostile
    text = browser.script("return document.body.textContent")
    assert text.count(hostile) >= 8
    assert {li.text for li in browser.find_all("#list .name")} == {f"{name} / {name}", f"chair / {hostile}"}
    assert hostile in [e.get_attribute("textContent") for e in browser.find_all(".legendtext")]


def test_a_sweep_shows_cells_failures_and_samples(browser, make_sweep, boxes, tmp_path):
    cells = {
        "full-seed0": {"state": "done", "row": "configs/t/full.yaml", "seed": 0, "wall_seconds": 9.0, "steps": 20},
        "full-seed1": {"state": "done", "row": "configs/t/full.yaml", "seed": 1, "wall_seconds": 700.0, "steps": 20},
        "l1-seed0": {"state": "done", "row": "configs/t/l1.yaml", "seed": 0, "wall_seconds": 80.0, "steps": 20},
        "l2-seed0": {"state": "failed", "row": "configs/t/l2.yaml", "seed": 0, "attempts": 3, "reason": "it ran out"},
        "l2-seed1": None,
    }
    sweep = read_sweep(make_sweep(tmp_path / "table", cells, boxes))
    path = page(tmp_path / "out.html", [], sweeps=[sweep], sampled=choose_cells(sweep, None))
    browser.open(path)
    assert browser.find(".failures").text == "l2-seed0: it ran out (attempts: 3)"
    column = "return [...document.querySelectorAll('#sweep-1 tbody tr')].map(r => r.cells[arguments[0]].textContent)"
    assert browser.script(column, 0) == list(cells)
    assert browser.script(column, 1) == ["done", "done", "done", "failed", "not started"]
    wall = browser.find("#sweep-1 thead th:nth-child(6) button")
    wall.click()
    assert browser.script(column, 5) == ["9 s", "1 min 20 s", "11 min 40 s", "–", "–"]
    wall.click()
    assert browser.script(column, 5) == ["11 min 40 s", "1 min 20 s", "9 s", "–", "–"]
    rows = browser.script(
        "return [...document.querySelectorAll('#side table.sortable tbody tr')]"
        ".map(r => [...r.cells].slice(0, 2).map(c => c.textContent))"
    )
    assert rows == [["full", "0, 1"], ["l1-seed0", "0"]]
    assert browser.script("return Page.data.runs.map(r => r.name)") == ["full-seed0", "l1-seed0"]
    assert browser.complaints() == []


def test_a_narrow_window_does_not_scroll_sideways(browser, several):
    try:
        browser.open(several)
        browser.resize(360, 700)
        browser.until_script("window.innerWidth === 360")
        assert browser.script("return document.documentElement.scrollWidth") <= 360
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_every_control_has_a_name_and_text_stands_out(browser, several):
    for scheme in ("light", "dark"):
        browser.prefer(scheme)
        browser.open(several)
        unnamed = browser.script(
            "return [...document.querySelectorAll('button, select, input, canvas, img, .plot')]"
            ".filter(e => !(e.textContent.trim() || e.ariaLabel || e.alt || e.closest('label')))"
            ".map(e => e.outerHTML)"
        )
        assert unnamed == []
        names = ["ink", "soft", "accent", "good", "bad", "mid", "card", "ground"]
        names += ["good-ground", "bad-ground", "mid-ground"]
        style = "getComputedStyle(document.documentElement)"
        colors = [browser.script(f"return {style}.getPropertyValue('--{name}').trim()") for name in names]
        ink, soft, accent, good, bad, mid, card, ground, good_ground, bad_ground, mid_ground = map(luminance, colors)
        pairs = [(c, g) for c in (ink, soft, accent) for g in (card, ground)]
        for text, behind in [*pairs, (good, good_ground), (bad, bad_ground), (mid, mid_ground)]:
            assert (max(text, behind) + 0.05) / (min(text, behind) + 0.05) >= 4.5  # WCAG 2, level AA
    browser.prefer("light")


def luminance(color):
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
