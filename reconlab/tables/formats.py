"""The formats of ``reconlab table``."""

from __future__ import annotations

from reconlab.tables.measure import Measurement
from reconlab.tables.page import Page

FORMATS = ("text", "md", "html", "latex", "json")


def render(page: Page, measurement: Measurement, form: str, width: int | None = None, styled: bool = False) -> str:
    """The table as text of a format.

    Args:
        page: The page.
        measurement: What it was made of; JSON has its numbers unrounded.
        form: One of :data:`FORMATS`.
        width: Of the terminal, for ``text``.
        styled: Whether ``text`` may have a terminal's bold and colours.
    """
    if form == "json":
        from reconlab.tables.export import to_json

        return to_json(page, measurement)
    if form == "latex":
        from reconlab.tables.latex import latex

        return latex(page)
    if form == "text":
        from reconlab.tables.terminal import text

        return text(page, width, styled)
    from reconlab.tables.markup import html_page, markdown

    return html_page(page) if form == "html" else markdown(page)
