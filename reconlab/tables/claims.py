"""The orderings that a paper claims: a small language of comparisons, read without running any of it."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from reconlab.errors import ReconlabError

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
NEEDS = ("all", "majority", "some")
_TOKEN = re.compile(
    r"\s*(?:(?P<ref>\w+\.[A-Za-z_]\w*)|(?P<number>\d+(?:\.\d+)?)|(?P<op><=|>=|<|>|\*)|(?P<and>and)\b)"
)


@dataclass(frozen=True)
class Term:
    """``factor * row.column``, or the number ``factor`` alone."""

    factor: float
    row: str | None = None
    column: str | None = None

    def __str__(self) -> str:
        if self.row is None:
            return f"{self.factor:g}"
        name = f"{self.row}.{self.column}"
        return name if self.factor == 1 else f"{self.factor:g} * {name}"


@dataclass(frozen=True)
class Comparison:
    """``left op right``."""

    left: Term
    op: str
    right: Term


@dataclass(frozen=True)
class Wins:
    """How often the second of each pair of rows is better than the first, over columns.

    Attributes:
        pairs: ``(original, other)`` rows.
        columns: Names of the columns.
        needs: What the paper says of the count: ``all``, the ``majority``, or ``some``.
    """

    pairs: tuple[tuple[str, str], ...]
    columns: tuple[str, ...]
    needs: str = "majority"

    @property
    def total(self) -> int:
        """The number of comparisons."""
        return len(self.pairs) * len(self.columns)


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper and how it is checked: by comparisons (all must be true) or by a count.

    Attributes:
        text: The sentence.
        holds: Comparisons.
        wins: A count, in place of comparisons.
        paper: The paper's own count.
        of: The paper's number of comparisons.
        ours: The sentence is this project's, not the paper's.
        note: A remark of the table's author.
    """

    text: str
    holds: tuple[Comparison, ...] = ()
    wins: Wins | None = None
    paper: int | None = None
    of: int | None = None
    ours: bool = False
    note: str = ""


def parse(text: str) -> tuple[Comparison, ...]:
    """Read ``a.X < b.X < c.X and 0.5 * d.Y >= e.Y``.

    Row names are made of letters, digits and underscores; the column after the point begins with a letter.

    Raises:
        ReconlabError: The text is something else; the sentence says where it stops to be understood.

    Example:
        >>> [f"{c.left} {c.op} {c.right}" for c in parse("full.CD < 2 * l1.CD and 0.5 * a.X > b.X > c.X")]
        ['full.CD < 2 * l1.CD', '0.5 * a.X > b.X', 'b.X > c.X']
    """
    tokens = _tokens(text)
    found: list[Comparison] = []
    at = 0
    while True:
        left, at = _term(tokens, at, text)
        first = len(found)
        while at < len(tokens) and tokens[at][0] == "op" and tokens[at][1] in OPERATORS:
            op = tokens[at][1]
            right, at = _term(tokens, at + 1, text)
            found.append(Comparison(left, op, right))
            left = right
        if len(found) == first:
            raise ReconlabError(f"{text!r} has no comparison (<, >, <= or >=) after {left}.")
        if at == len(tokens):
            return tuple(found)
        if tokens[at][0] != "and":
            raise ReconlabError(f"{text!r} cannot be read at {tokens[at][1]!r}; expected 'and', <, >, <= or >=.")
        at += 1


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            raise ReconlabError(
                f"{text!r} cannot be read at {text[at:].strip()[:20]!r}; write row.column, numbers, * < > <= >=, and."
            )
        kind = str(match.lastgroup)
        tokens.append((kind, match[kind]))
        at = match.end()
    return tokens


def _term(tokens: list[tuple[str, str]], at: int, text: str) -> tuple[Term, int]:
    factor, name = 1.0, None
    while True:
        if at == len(tokens) or tokens[at][0] not in ("ref", "number"):
            there = f"at {tokens[at][1]!r}" if at < len(tokens) else "at its end"
            raise ReconlabError(f"{text!r} cannot be read {there}; expected row.column or a number.")
        kind, word = tokens[at]
        if kind == "number":
            factor *= float(word)
        elif name is not None:
            raise ReconlabError(f"{text!r} multiplies {name} and {word}; a product may name one cell.")
        else:
            name = word
        at += 1
        if at == len(tokens) or tokens[at] != ("op", "*"):
            break
        at += 1
    row, column = name.split(".") if name else (None, None)
    return Term(factor, row, column), at
