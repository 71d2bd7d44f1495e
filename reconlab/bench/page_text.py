"""How the page writes numbers, times and tables."""

from __future__ import annotations

import math
from collections.abc import Sequence


def number(value: float) -> str:
    """Two or three figures, without a power of ten.

    Example:
        >>> [number(v) for v in (0.0623, 0.999, 3.04, 57.3, 1234.0)]
        ['0.062', '1.0', '3.0', '57', '1234']
    """
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    places = max(0, 1 - math.floor(math.log10(abs(value))))
    rounded = round(value, places)
    places = max(0, 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:.{places}f}"


def duration(seconds: float) -> str:
    """With its unit.

    Example:
        >>> duration(0.0147), duration(2.5), duration(3.2e-5)
        ('15 ms', '2.5 s', '32 µs')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{number(seconds / size)} {unit}"
    return f"{number(seconds / 1e-6)} µs"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table of Markdown, and an empty line."""
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)] + [""]
