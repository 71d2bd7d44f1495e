"""A page as Markdown and as HTML; every string is escaped."""

from __future__ import annotations

import html
import re

from reconlab.tables.page import Page, Square, in_order
from reconlab.tables.verdicts import claim_columns, claim_lines

_STYLE = """
.reconlab-table{font:14px/1.4 system-ui,sans-serif;color:#1b1b1b;background:#fff}
.reconlab-table table{border-collapse:collapse;margin:.6em 0}
.reconlab-table caption{text-align:left;font-weight:600}
.reconlab-table th,.reconlab-table td{border:1px solid #bbb;padding:.25em .5em;text-align:left;vertical-align:top}
.reconlab-table thead th{background:#eee}
.reconlab-table .paper{color:#444;font-size:85%}
.reconlab-table .quoted{color:#444;font-style:italic}
"""


def markdown(page: Page) -> str:
    """GitHub's Markdown."""
    out = [f"## {md(page.title)}", "", *(f"{md(text)}  " for text in page.caption), ""]
    heads = [md(name) + _md_marks(marks) for name, marks in zip(page.columns, page.column_marks, strict=True)]
    out += [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for line in page.lines:
        label = f"*{md(line.label)}*" if line.quoted else md(line.label)
        out.append(f"| {label}{_md_marks(line.marks)} | {' | '.join(_md_square(s) for s in line.squares)} |")
    if page.verdicts:
        names = claim_columns(page)
        out += ["", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
        for parts in claim_lines(page):
            out.append(f"| {' | '.join(md(part) for part in parts)} |")
    out += [""] + [f"- {_md_marks([mark])} {md(text)}" for mark, text in page.footnotes]
    out += [f"- {md(text)}" for text in page.remarks]
    return "\n".join(out).rstrip() + "\n"


def md(text: str) -> str:
    r"""Text that Markdown takes as it is, in a table's cell too.

    Example:
        >>> print(md("a|b *c* <script>"))
        a\|b \*c\* &lt;script&gt;
    """
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_|\[\]~$])", r"\\\1", text)


def _md_marks(marks: list[str]) -> str:
    return f"<sup>{','.join(in_order(marks))}</sup>" if marks else ""


def _md_square(square: Square) -> str:
    strong = "**" if square.best else ""
    first = f"{strong}{md(square.measured)}{strong}{_md_marks(square.marks)}" if square.measured else ""
    return "<br>".join(part for part in (first, md(square.beside)) if part) or "–"


def html_fragment(page: Page) -> str:
    """A ``<section>`` with its own style, for pages that show several tables."""
    esc = html.escape
    out = [f'<section class="reconlab-table"><style>{_STYLE}</style>', f"<h2>{esc(page.title)}</h2>"]
    out += [f"<p>{'<br>'.join(esc(text) for text in page.caption)}</p>", "<table><thead><tr><th></th>"]
    out += [
        f'<th scope="col">{esc(name)}{_html_marks(marks)}</th>'
        for name, marks in zip(page.columns, page.column_marks, strict=True)
    ]
    out.append("</tr></thead><tbody>")
    for line in page.lines:
        kind = ' class="quoted"' if line.quoted else ""
        out.append(f'<tr{kind}><th scope="row">{esc(line.label)}{_html_marks(line.marks)}</th>')
        out += [f"<td>{_html_square(square)}</td>" for square in line.squares]
        out.append("</tr>")
    out.append("</tbody></table>")
    if page.verdicts:
        heads = "".join(f'<th scope="col">{esc(name)}</th>' for name in claim_columns(page))
        out.append(f"<table><caption>Claims</caption><thead><tr>{heads}</tr></thead><tbody>")
        out += [f"<tr>{''.join(f'<td>{esc(part)}</td>' for part in parts)}</tr>" for parts in claim_lines(page)]
        out.append("</tbody></table>")
    notes = [f"{_html_marks([mark])} {esc(text)}" for mark, text in page.footnotes] + [esc(t) for t in page.remarks]
    out.append(f"<ul>{''.join(f'<li>{note}</li>' for note in notes)}</ul></section>")
    return "\n".join(out) + "\n"


def html_page(page: Page) -> str:
    """A whole document that loads nothing."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(page.title)}</title></head><body>\n{html_fragment(page)}</body></html>\n"
    )


def _html_marks(marks: list[str]) -> str:
    return f"<sup>{html.escape(','.join(in_order(marks)))}</sup>" if marks else ""


def _html_square(square: Square) -> str:
    esc = html.escape
    strong = ("<strong>", "</strong>") if square.best else ("", "")
    first = f"{strong[0]}{esc(square.measured)}{strong[1]}{_html_marks(square.marks)}" if square.measured else ""
    second = f'<span class="paper">{esc(square.beside)}</span>' if square.beside else ""
    return "<br>".join(part for part in (first, second) if part) or "–"
