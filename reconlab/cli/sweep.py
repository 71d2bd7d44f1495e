"""``reconlab sweep``: the cells of a table, each an ordinary ``reconlab fit``, resumable at any moment."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reconlab.cli.parser import CommandParser
from reconlab.errors import ReconlabError

if TYPE_CHECKING:
    from reconlab.lab.sweep import Cell, Sweep
    from reconlab.lab.sweep_run import Outcome

EPILOG = """Options of the engine are --slurm.partition=gpu (any of submitit's and Slurm's) and --ray.num_gpus=1.
Options of every cell come after a lone --, and win: reconlab sweep FILE --profile desk -- --data.root=data/real
Exit status: 0 if all cells are done, 1 if any has failed or is left, 2 for a mistake, 130 after Ctrl-C."""


def main(argv: Sequence[str]) -> int:
    """Run a sweep."""
    words = list(argv)
    extra = words[words.index("--") + 1 :] if "--" in words else []
    parser = CommandParser(
        "reconlab sweep",
        description="Run the cells of a W&B sweep file without a server; run it again to go on.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", help="configs/sweeps/<table>.yaml")
    parser.add_argument("--out", default="runs/sweeps", help="the sweep is written to <out>/<its name>")
    parser.add_argument("--profile", help="smoke, desk or paper: the scale, as the table of the same name has it")
    parser.add_argument("--jobs", type=int, help="cells at once (1; all of them on submitit and ray)")
    parser.add_argument("--engine", default="local", help="local, submitit (Slurm) or ray")
    parser.add_argument("--address", help="of a Ray cluster, host:port or auto; without it one of this machine")
    parser.add_argument(
        "--only", action="append", default=[], metavar="KEY=VALUE", help="row=…, seed=…, group=…, cell=…"
    )
    parser.add_argument("--retry-failed", action="store_true", help="run the cells that have failed again")
    parser.add_argument(
        "--keep", choices=("all", "last", "none"), default="last", help="checkpoints of finished cells that stay"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands and run nothing")
    options, unknown = parser.parse_known_args(words[: words.index("--")] if "--" in words else words)
    from reconlab.lab.engines import check_engine, engine_options, make_engine
    from reconlab.lab.sweep import check_options, choose, expand, load_sweep, steps_of

    check_engine(options.engine, options.address)
    engine_words = engine_options(options.engine, unknown)
    if options.jobs is not None and options.jobs < 1:
        raise ReconlabError(f"--jobs is {options.jobs}: choose at least 1.")
    wrong = next((w for w in extra if not w.startswith("--") or "=" not in w), None)
    if wrong is not None:
        raise ReconlabError(f"After -- options are written as --key=value; {wrong!r} is not.")
    sweep = load_sweep(options.file)
    cells = with_options(sweep, expand(sweep), options.profile, extra)
    check_options(sweep, cells)
    chosen = choose(cells, options.only) if options.only else cells
    steps = {c.name: steps_of(c.command) for c in chosen}

    from reconlab.lab.sweep_run import claimed, print_plan, run_sweep

    if options.dry_run:
        print_plan(chosen, steps)
        return 0
    folder = Path(options.out) / sweep.name
    jobs = options.jobs or (1 if options.engine == "local" else len(chosen))
    with claimed(folder, sweep, cells, options.profile, extra):
        engine = make_engine(options.engine, folder.resolve() / "jobs", options.address, engine_words)
        try:
            outcome = run_sweep(
                folder,
                sweep,
                chosen,
                engine,
                profile=options.profile,
                jobs=jobs,
                local=options.engine == "local",
                retry=options.retry_failed,
                keep=options.keep,
                steps=steps,
            )
        finally:
            engine.close()
    return _conclude(folder, outcome)


def with_options(sweep: Sweep, cells: Sequence[Cell], profile: str | None, extra: Sequence[str]) -> list[Cell]:
    """The cells with the profile's options, the row's own, and the user's, in this order.

    Raises:
        ReconlabError: The sweep has no table of its name, or the table no such profile.
    """
    from reconlab.lab.sweep import place_configs

    extra = place_configs(extra, Path.cwd() / "the command line")
    if profile is None:
        return [replace(c, options=tuple(extra)) for c in cells]
    from reconlab.tables import load_table

    beside = sweep.file.resolve().parent.parent / "tables" / sweep.file.name
    if not beside.is_file():
        raise ReconlabError(
            f"--profile {profile} needs a table of the sweep's name, {beside}, which does not exist: give the "
            "options themselves after a lone --."
        )
    table = load_table(beside)
    if profile not in table.profiles:
        raise ReconlabError(
            f"The table {table.file} has no profile {profile!r}: choose from {', '.join(table.profiles)}."
        )
    found = []
    for cell in cells:
        own = next(
            (r.options.get(profile, ()) for r in table.rows if r.config is not None and r.config == cell.row), ()
        )
        words = place_configs([*table.profiles[profile], *own], table.file)
        found.append(replace(cell, options=(*words, *extra)))
    return found


def _conclude(folder: Path, outcome: Outcome) -> int:
    for name, reason in outcome.failed.items():
        sys.stderr.write(f"failed: {name}: {reason}\n")
    counts = f"{len(outcome.done)} done, {len(outcome.failed)} failed, {len(outcome.left)} left"
    sys.stdout.write(f"{folder}: {counts}.\n")
    if outcome.failed:
        sys.stdout.write(f"Logs: {folder}/cells/<cell>/log.txt; --retry-failed runs the failed cells again.\n")
    if outcome.full is not None:
        raise ReconlabError(outcome.full)
    if outcome.stopped:
        raise KeyboardInterrupt
    return 1 if outcome.failed or outcome.left else 0
