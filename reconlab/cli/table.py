"""``reconlab table``: a paper's table, measured beside printed, and its claims."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reconlab.cli.parser import CommandParser
from reconlab.errors import ReconlabError


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = CommandParser(
        "reconlab table",
        description="Print a table of a paper: what was measured beside what the paper prints, and whether its "
        "claims hold. Without --from it reads results/tables/NAME.json beside configs/.",
        epilog="reconlab list tables names the tables; docs/tables.md says what the marks mean. Exit status: 0 "
        "whether claims hold or not; 2 for a mistake in the command or a file.",
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="a table of configs/tables, or a table file; all: a line for each of them")
    add(
        "--from",
        dest="sources",
        action="append",
        default=[],
        metavar="SOURCE",
        help="a sweep's folder, a stored JSON file, or ROW=RUN for a run directory; may be repeated, the last "
        "one counts where two measured the same",
    )
    add("--profile", help="show cells of this profile alone (smoke, desk, paper)")
    add("--format", dest="form", default="text", choices=("text", "md", "html", "latex", "json"))
    add(
        "--paper-only",
        "--paper_only",
        action="store_true",
        help="judge the claims in the paper's own numbers",
    )
    add("--out", metavar="FILE", help="write there instead of to the standard output")
    add("--collect", metavar="FILE", help="store the cells that were read in such a JSON file, too")
    add("--note", default="", help="a sentence about the measurements, stored by --collect and shown below the table")
    return parser


def main(argv: Sequence[str]) -> int:
    """Print a table.

    Raises:
        ReconlabError: A mistake in the command, the table or a file of cells.
    """
    options = parser().parse_args(argv)
    if options.paper_only and (options.sources or options.collect or options.profile):
        raise ReconlabError("--paper-only reads no measurements: leave --from, --profile and --collect out.")
    if options.note and not options.collect:
        raise ReconlabError("--note is stored by --collect FILE; name that file.")
    for name, given in (("--out", options.out), ("--collect", options.collect)):
        if given and Path(given).is_dir():
            raise ReconlabError(f"{name} {given} is a folder; name a file.")

    if options.name == "all":
        return _all(options)

    from reconlab.tables.formats import render
    from reconlab.tables.measure import measure
    from reconlab.tables.page import page
    from reconlab.tables.schema import load_table
    from reconlab.tables.sources import Cells, read_source, read_stored

    table = load_table(options.name)
    cells = Cells()
    if options.sources:
        for source in options.sources:
            cells += read_source(source, table)
    elif not options.paper_only:
        cells = read_stored(table)
    measurement = measure(table, cells, options.profile)
    if options.profile and cells.cells and not measurement.used:
        there = sorted({cell.profile or "not recorded" for cell in cells.cells})
        raise ReconlabError(f"No finished cell is of the profile {options.profile}; there are {', '.join(there)}.")
    notes = [*cells.notes, options.note] if options.note else cells.notes
    content = page(measurement, notes, options.paper_only)
    terminal = sys.stdout.isatty() and not options.out
    text = render(content, measurement, options.form, _width() if terminal else None, terminal)
    if options.collect:
        from reconlab.lab.run_directory import write_atomic
        from reconlab.tables.export import stored_text

        note = " ".join(dict.fromkeys(notes))
        write_atomic(Path(options.collect), stored_text(table, cells, measurement.profile, note))
        print(f"cells: {options.collect} ({len(cells.cells)})", file=sys.stderr)
    _write(text, options.out)
    return 0


def _all(options: argparse.Namespace) -> int:
    """Print how many claims of each table hold in its stored measurements."""
    if options.sources or options.collect or options.profile or options.paper_only:
        raise ReconlabError("reconlab table all reads the stored measurements: it takes --format and --out alone.")
    from reconlab.tables.summary import render_summary, summarize

    _write(render_summary(summarize(), options.form), options.out)
    return 0


def _write(text: str, out: str | None) -> None:
    if out is None:
        sys.stdout.write(text)
        return
    from reconlab.lab.run_directory import write_atomic

    write_atomic(Path(out), text)
    print(f"table: {out}", file=sys.stderr)


def _width() -> int:
    import shutil

    return shutil.get_terminal_size((120, 24)).columns
