"""``reconlab report``: one HTML file of runs and sweeps, with curves, tables and samples in 3D; it opens offline."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reconlab.cli.parser import CommandParser
from reconlab.errors import ReconlabError

if TYPE_CHECKING:
    from reconlab.report.html_runs import Run
    from reconlab.report.html_sweeps import Sweep

LARGE = 30_000_000  # bytes from which on a file is called large


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = CommandParser(
        "reconlab report",
        description="Write one HTML file of run directories (of reconlab fit, test or evaluate) and sweep folders: "
        "curves, tables, and samples in 3D, of several runs side by side. It opens without a network.",
        epilog="docs/report.md says what the page shows.",
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="RUN|SWEEP", help="run directories and folders of reconlab sweep")
    add("--out", metavar="FILE", help="default: report.html in the folder, if it is one")
    add("--force", action="store_true", help="replace a report that is there")
    add("--samples", type=int, metavar="N", help="samples in 3D (default: as many as keep the file below 30 MB)")
    add("--faces", type=int, default=8000, help="faces or points of a shape, at most (8000; 0: all)")
    add("--title", help="of the page")
    add("--root", metavar="DATA", help="the dataset with inputs and truths, where the one in config.yaml is not")
    add("--cells", metavar="A,B", help="cells of a sweep whose samples are shown (default: done, first seed, six)")
    return parser


def main(argv: Sequence[str]) -> int:
    """Write a report.

    Raises:
        ReconlabError: A mistake in the command, a damaged run, or a file that cannot be written.
    """
    options = parser().parse_args(argv)
    if options.samples is not None and options.samples < 0:
        raise ReconlabError(f"--samples is {options.samples}; choose 0 or more.")
    if options.faces < 0:
        raise ReconlabError(f"--faces is {options.faces}; choose 0 (all) or more.")
    paths = [Path(p) for p in options.paths]
    for path in paths:
        if not path.is_dir():
            what = "is a file" if path.exists() else "does not exist"
            raise ReconlabError(f"{path} {what}: name a run directory or a sweep's folder.")
    out = _target(options, paths)

    from reconlab.lab.run_directory import command_line
    from reconlab.report.html import make_report, render, write_page
    from reconlab.report.html_runs import read_run
    from reconlab.report.html_sweeps import choose_cells, is_sweep, read_sweep

    runs: list[Run] = []
    sweeps: list[Sweep] = []
    for path in dict.fromkeys(paths):
        if is_sweep(path):
            sweeps.append(read_sweep(path))
        else:
            runs.append(read_run(path))
    sampled = _sampled(options, runs, sweeps, choose_cells)
    bar = _Progress()
    report = make_report(
        runs,
        sweeps,
        sampled,
        options.title,
        Path(options.root) if options.root else None,
        options.samples,
        options.faces,
        command_line(),
        bar.tick,
    )
    text = render(report)
    bar.close()
    write_page(out, text)
    size = out.stat().st_size
    shown = report.shown
    print(f"report: {out} ({size / 1e6:.1f} MB, {shown.with_shapes} of {shown.total} samples in 3D)")
    if size > LARGE:
        print("reconlab: the file is large; --samples N or --faces N makes it smaller.", file=sys.stderr)
    return 0


def _sampled(
    options: argparse.Namespace, runs: list[Run], sweeps: list[Sweep], choose_cells: object
) -> list[Run] | None:
    """Whose samples are shown: all runs, and of sweeps the cells that were named or chosen."""
    if not sweeps:
        if options.cells:
            raise ReconlabError("--cells goes with a sweep's folder; for runs, name those to be shown.")
        return None
    wanted = [name.strip() for name in options.cells.split(",") if name.strip()] if options.cells else None
    if wanted is not None and len(sweeps) > 1:
        raise ReconlabError("--cells goes with one sweep's folder, not several.")
    return [*runs, *(run for sweep in sweeps for run in choose_cells(sweep, wanted))]  # type: ignore[operator]


def _target(options: argparse.Namespace, paths: list[Path]) -> Path:
    """Where the report goes; finds out before the work whether it can.

    Raises:
        ReconlabError: No ``--out`` for several folders, a file in the way, or a folder that cannot be written.
    """
    if options.out is None and len(set(paths)) > 1:
        raise ReconlabError("several folders need --out FILE.html for their report.")
    out = Path(options.out) if options.out else paths[0] / "report.html"
    if out.is_dir():
        raise ReconlabError(f"--out {out} is a folder; name a file.")
    if out.exists() and not options.force:
        raise ReconlabError(f"{out} is there already: name another with --out, or replace it with --force.")
    folder = out.absolute().parent
    if not folder.is_dir():
        raise ReconlabError(f"Cannot write {out}: the folder {out.parent} does not exist.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ReconlabError(f"Cannot write {out}: no permission to write in {out.parent}; name a file with --out.")
    return out


class _Progress:
    """A line of progress on a terminal's standard error."""

    def __init__(self) -> None:
        self._said = False

    def tick(self, done: int, total: int) -> None:
        """Show how many samples are read; their number may end below ``total`` where the file would be too large."""
        if sys.stderr.isatty():
            self._said = True
            print(f"\rreport: {done} samples (of at most {total})", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the line."""
        if self._said:
            print(file=sys.stderr)
