"""A page for the terminal."""

from __future__ import annotations

import io
from typing import Any

from reconlab.tables.page import Page, Square, in_order
from reconlab.tables.verdicts import claim_columns, claim_lines


def text(page: Page, width: int | None = None, styled: bool = False) -> str:
    """A table for the terminal.

    Args:
        page: The page.
        width: Columns of the terminal; as wide as needed by default.
        styled: Whether to write colours and bold for a terminal.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(title=Text(page.title, "bold"), box=box.SIMPLE_HEAD, title_justify="left")
    grid.add_column("", overflow="fold")
    for name, marks in zip(page.columns, page.column_marks, strict=True):
        grid.add_column(Text(name + _text_marks(marks)), overflow="fold")
    for line in page.lines:
        label = Text(line.label + _text_marks(line.marks), "italic" if line.quoted else "")
        grid.add_row(label, *(_text_square(square, styled) for square in line.squares))
    claims = Grid(title=Text("Claims", "bold"), box=box.SIMPLE_HEAD, title_justify="left")
    for name in claim_columns(page):
        claims.add_column(name, overflow="fold")
    for parts in claim_lines(page):
        claims.add_row(*(Text(part) for part in parts))
    out = io.StringIO()
    console = Console(
        file=out,
        width=width or 200,
        force_terminal=styled,
        color_system="standard" if styled else None,
        highlight=False,
    )
    console.print(grid)
    for caption in page.caption:
        console.print(Text(caption))
    if page.verdicts:
        console.print(claims)
    for mark, note in page.footnotes:
        console.print(Text(f"[{mark}] {note}"))
    for remark in page.remarks:
        console.print(Text(remark))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def _text_marks(marks: list[str]) -> str:
    return f" [{','.join(in_order(marks))}]" if marks else ""


def _text_square(square: Square, styled: bool) -> Any:
    from rich.text import Text

    cell = Text()
    if square.measured:
        star = "" if styled or not square.best else "*"  # plain text has no bold
        cell.append(star + square.measured + star, "bold" if square.best else "")
        cell.append(_text_marks(square.marks))
    if square.beside:
        cell.append(("\n" if square.measured else "") + square.beside, "dim")
    return cell if cell else Text("–")
