"""Every format, with hostile strings in every place that has one."""

import html.parser
import json
import re

import pytest

from reconlab.tables import load_table
from reconlab.tables.formats import render
from reconlab.tables.measure import measure
from reconlab.tables.page import letter, page
from reconlab.tables.sources import read_stored

EVIL = '<script>alert("x")</script> & | `code` **b** [l](javascript:x) \\input{/etc/passwd} $x_1^2$ 50% #1 ~{}'
SPECIAL = re.compile(r"(?<!\\)[%#&_$]|(?<!\\)\{\}")


@pytest.fixture
def content(write, stored, record):
    """The page of a table that is hostile wherever it may be."""
    columns = [
        {"name": "CD", "label": EVIL, "metric": "dpc_cd", "factor": 100, "note": EVIL + " column"},
        {"name": "IoU", "metric": "point_iou", "factor": 100, "direction": "higher", "digits": 1},
    ]
    rows = [
        {"name": "full", "label": EVIL + " row", "config": "configs/full.yaml", "paper": {"CD": 4.01, "IoU": EVIL}},
        {"name": "half", "config": "configs/half.yaml", "paper": {"CD": 5.5}},
        {"name": "old", "paper": {"CD": 9.0}, "quoted": EVIL + " quoted"},
    ]
    claims = [{"text": EVIL + " claim", "holds": "full.CD < half.CD", "note": EVIL}]
    paper = {"name": EVIL, "table": 1, "where": EVIL, "data": EVIL, "protocol": EVIL}
    write(title=EVIL + " title", paper=paper, columns=columns, rows=rows, claims=claims, notes=[EVIL + " note"])
    cells = [record("full", s, {"dpc_cd": 0.05 + s / 100}, machine=EVIL, commit=EVIL) for s in range(2)]
    cells.append(record("half", 0, {"dpc_cd": 0.04}, n_failed=1))
    cells.append(record("half", 1, None, state="failed", reason=EVIL))
    stored([*cells, record(EVIL, 0, {"dpc_cd": 1})], note=EVIL + " stored")
    table = load_table("small")
    found = read_stored(table)
    measurement = measure(table, found)
    return page(measurement, found.notes), measurement


class Reader(html.parser.HTMLParser):
    """Collects tags, and the text of table cells."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.cells: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("br", "meta"):
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        self.text += data
        if self.cells and {"td", "th"} & set(self.open):
            self.cells[-1] += data


def test_html_is_one_wellformed_page_that_loads_nothing_and_escapes_everything(content):
    text = render(*content, "html")
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    tags = {tag for tag, _ in reader.tags}
    assert tags <= set(
        [
            "html",
            "head",
            "meta",
            "title",
            "body",
            "section",
            "style",
            "h2",
            "p",
            "br",
            "table",
            "caption",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "sup",
            "strong",
            "span",
            "ul",
            "li",
        ]
    )
    assert not [a for _, attributes in reader.tags for a in attributes if a in ("src", "href") or a.startswith("on")]
    for place in (" row", " column", " quoted", " title", " claim", " note", " stored"):
        assert EVIL + place in reader.text
    assert any(cell.startswith("6.") or "5.50 ± 0.71 (2)" in cell for cell in reader.cells)
    assert "paper 4.01, +1.49" in "".join(reader.cells)
    assert "<strong>4.00 (1)</strong>" in text


def test_markdown_keeps_its_tables_and_lets_no_html_or_link_through(content):
    text = render(*content, "md")
    lines = text.splitlines()
    rows = [line for line in lines if line.startswith("|")]
    first, claims = rows[:5], rows[5:]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in first} == {4}
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in claims} == {5}
    assert "<script" not in text
    assert "](javascript" not in text.replace("\\]", "")
    assert set(re.findall(r"<[a-z/]+>", text)) == {"<sup>", "</sup>", "<br>"}
    assert "**4.00 (1)**<sup>" in text
    assert all("\n" not in line for line in lines)


def test_latex_is_balanced_and_escaped(content):
    text = render(*content, "latex")
    assert "\\input{" not in text
    assert "\\textbackslash{}input\\{/etc/passwd\\}" in text
    for name in ("table", "tabular"):
        assert text.count(f"\\begin{{{name}}}") == text.count(f"\\end{{{name}}}") == 2
    plain = re.sub(r"\$\\?[-a-z]+(12)?\$|\\[a-zA-Z]+\{\}", "", text)  # our own symbols
    body = [line for line in plain.splitlines() if not line.startswith("%")]
    assert not [line for line in body if re.search(r"(?<!\\)[%#$_]", line)]
    grid = [line for line in body if line.endswith((r"\\", r"\\[2pt]"))]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in grid} == {2, 3}  # 3 columns; 4 of the claims
    stripped = text.replace("\\{", "").replace("\\}", "")
    assert stripped.count("{") == stripped.count("}")
    assert "\\textbf{4.00 (1)}" in text


def test_text_shows_strings_as_they_are_and_no_markup_of_rich(content):
    wide = render(*content, "text", width=1200)
    assert EVIL + " row" in wide
    assert EVIL + " claim" in wide
    assert "*4.00 (1)*" in wide
    assert "\x1b" not in wide
    assert max(len(line) for line in render(*content, "text", width=80).splitlines()[:6]) <= 80


def test_json_has_everything_unrounded(content):
    found = json.loads(render(*content, "json"))
    full = found["rows"][0]
    assert full["label"] == EVIL + " row"
    cd = full["numbers"]["CD"]
    assert cd["by_seed"] == {"0": pytest.approx(5.0), "1": pytest.approx(6.0)}
    assert (cd["mean"], cd["paper"], cd["n"], cd["best"]) == (pytest.approx(5.5), 4.01, 2, False)
    assert cd["difference"] == pytest.approx(1.49)
    assert cd["sd"] == pytest.approx(0.5**0.5)
    assert found["rows"][1]["numbers"]["CD"]["remarks"] == [
        "1 of 10 predictions failed and count with the worst value"
    ]
    assert found["columns"][0]["protocols"][0]["points"] == "all"
    assert found["claims"][0]["verdict"] == "does not hold"
    assert found["claims"][0]["in_paper"]["verdict"] == "holds"
    assert found["cells"] == {"done": 3, "failed": 1, "running": 0, "missing": 0}
    assert found["sources"] == ["results/tables/small.json"]


def test_every_footnote_is_marked_somewhere_and_every_mark_explained(content):
    shown, _ = content
    used = {m for marks in shown.column_marks for m in marks}
    used |= {m for line in shown.lines for m in line.marks}
    used |= {m for line in shown.lines for square in line.squares for m in square.marks}
    assert used == {mark for mark, _ in shown.footnotes}
    assert [mark for mark, _ in shown.footnotes] == [letter(i) for i in range(len(shown.footnotes))]


def test_of_the_paper_alone_nothing_measured_is_shown(content):
    _, measurement = content
    shown = page(measurement, ["stored"], paper_only=True)
    assert all(not square.measured and not square.difference for line in shown.lines for square in line.squares)
    assert [v.verdict for v in shown.verdicts] == ["holds"]
    for form in ("text", "md", "html", "latex"):
        text = render(shown, measurement, form)
        assert "Measured:" not in text
        assert "here" not in text.split("claim")[1][:40]
    assert "mean" not in json.loads(render(shown, measurement, "json"))["rows"][0]["numbers"]["CD"]


def test_without_measurements_the_page_says_where_they_would_be(write):
    write()
    table = load_table("small")
    shown = page(measure(table, read_stored(table)), [])
    assert shown.remarks == [
        "Nothing is measured: there is no results/tables/small.json; run the sweep, or name one with --from."
    ]
    assert [v.verdict for v in shown.verdicts] == ["not run"]


@pytest.mark.parametrize("width", [30, 45, 80])
def test_numbers_are_whole_in_narrow_terminals(width, write, stored, record):
    """A number broken in two reads as another one: columns go below one another instead."""
    names = [f"C{i}" for i in range(8)]
    columns = [{"name": name, "metric": "dpc_cd", "factor": 10 ** (i % 4)} for i, name in enumerate(names)]
    rows = [{"name": "full", "config": "configs/full.yaml", "paper": {n: 1234.56 for n in names}}]
    write(columns=columns, rows=rows, claims=[])
    stored([record("full", s, {"dpc_cd": v}) for s, v in enumerate((123.456, 124.456))])
    table = load_table("small")
    found = measure(table, read_stored(table))
    shown = render(page(found, []), found, "text", width)
    grids = shown[: shown.index("Paper, Table 9")]
    assert max(map(len, grids.splitlines())) <= width
    words = grids.replace(",", " ").split()
    for factor in (1, 10, 100, 1000):
        assert words.count(f"{123.956 * factor:.2f}") == 2
    assert words.count("1234.56") == 8
    assert [word for word in words if word in names] == names
