"""All tables in a few lines each: how many of a paper's claims hold in what was measured."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from reconlab.errors import ReconlabError
from reconlab.tables.judge import FAILS, HOLDS, NOT_RUN, judge
from reconlab.tables.measure import measure
from reconlab.tables.schema import load_table, names
from reconlab.tables.sources import read_stored

FORMS = ("text", "md", "json")
HEADERS = ("table", "the paper's claims: hold", "do not", "not run", "measured")


@dataclass(frozen=True)
class Line:
    """One table.

    Attributes:
        name: Of the table.
        title: Its title.
        holds: Claims of the paper that hold in the measured numbers; claims of ours are not counted.
        fails: Those that do not.
        open: Those that cannot be judged.
        cells: Finished cells that count.
        seeds: The most seeds that a number has.
        profile: That most cells have.
    """

    name: str
    title: str
    holds: int
    fails: int
    open: int
    cells: int
    seeds: int
    profile: str | None


def summarize() -> list[Line]:
    """A line for every table of ``configs/tables``, from its stored measurements.

    Raises:
        ReconlabError: A table or its measurements cannot be read.
    """
    lines = []
    for name in names():
        table = load_table(name)
        found = measure(table, read_stored(table))
        verdicts = Counter(v.verdict for v in judge(found) if not v.claim.ours)
        seeds = max((number.n for number in found.numbers.values()), default=0)
        counts = (verdicts[HOLDS], verdicts[FAILS], verdicts[NOT_RUN])
        lines.append(Line(name, table.title, *counts, len(found.used), seeds, found.profile))
    return lines


def render_summary(lines: Sequence[Line], form: str) -> str:
    """The lines as text, Markdown or JSON.

    Raises:
        ReconlabError: Another form.
    """
    if form == "json":
        return json.dumps([asdict(line) for line in lines], indent=1) + "\n"
    if form == "md":
        rows = [(f"[{s.title}](results/tables/{s.name}.md)", *_counts(s)) for s in lines]
        shown = [HEADERS, ("---",) * len(HEADERS), *rows]
        return "".join(f"| {' | '.join(row)} |\n" for row in shown)
    if form == "text":
        table = [("", *HEADERS[1:]), *((s.name, *_counts(s)) for s in lines)]
        widths = [max(len(row[i]) for row in table) for i in range(len(HEADERS))]
        return "".join(
            "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() + "\n" for row in table
        )
    raise ReconlabError(f"The summary of all tables is printed as {', '.join(FORMS)}, not {form}.")


def _counts(line: Line) -> tuple[str, ...]:
    seeds = f"{line.seeds} seed{'s' if line.seeds != 1 else ''} at most"
    profile = f", {line.profile}" if line.profile else ""
    measured = f"{line.cells} cells, {seeds}{profile}" if line.cells else "nothing"
    return str(line.holds), str(line.fails), str(line.open), measured
