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
    for grid in _grids(page, console.width, styled):
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


def _grids(page: Page, width: int, styled: bool) -> list[Any]:
    """The table; where the terminal is too narrow for its numbers, one below the other with some columns each."""
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    labels = [Text(line.label + _text_marks(line.marks), "italic" if line.quoted else "") for line in page.lines]
    columns = [[Text(""), *labels]]
    for i, (name, marks) in enumerate(zip(page.columns, page.column_marks, strict=True)):
        columns.append(
            [Text(name + _text_marks(marks)), *(_text_square(line.squares[i], styled) for line in page.lines)]
        )
    grids: list[Any] = []
    left = columns[1:]
    while left:
        some = len(left)
        while some > 1 and _room(columns[:1] + left[:some], width) < 0:
            some -= 1
        shown, left = columns[:1] + left[:some], left[some:]
        grid = Grid(title=None if grids else Text(page.title, "bold"), box=box.SIMPLE_HEAD, title_justify="left")
        for (head, *_), wide in zip(shown, _widths(shown, width), strict=True):
            grid.add_column(head, overflow="fold", width=wide)
        for row in zip(*(cells for _, *cells in shown), strict=True):
            grid.add_row(*row)
        grids.append(grid)
    return grids


def _longest(column: list[Any], lines: bool) -> int:
    texts = [part for cell in column for part in (cell.plain.split("\n") if lines else cell.plain.split())]
    return max((len(text) for text in texts), default=1)


def _room(columns: list[list[Any]], width: int) -> int:
    """What is left of the width where every word stays whole: a number broken in two reads as another one."""
    return width - sum(_longest(column, lines=False) for column in columns) - 3 * len(columns) - 1


def _widths(columns: list[list[Any]], width: int) -> list[int]:
    """As wide as the longest word, and what is left by turns to those that want more."""
    widths = [_longest(column, lines=False) for column in columns]
    wanted = [_longest(column, lines=True) for column in columns]
    room = _room(columns, width)
    while room > 0 and widths != wanted:
        for i, most in enumerate(wanted):
            if widths[i] < most and room > 0:
                widths[i], room = widths[i] + 1, room - 1
    return widths


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
