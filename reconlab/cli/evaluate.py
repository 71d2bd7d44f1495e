"""``reconlab evaluate``: anybody's reconstructions, judged by every measure under a written protocol."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconlab.cli.parser import CommandParser
from reconlab.errors import ReconlabError

if TYPE_CHECKING:
    from reconlab.lab.evaluate_judge import Row
    from reconlab.lab.evaluate_metrics import Plan
    from reconlab.lab.evaluate_pairs import Pairs

EVERY = 10.0  # seconds between two lines of progress where a bar cannot move
TRUE_POINTS = 10_000


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = CommandParser(
        "reconlab evaluate",
        description="Compare reconstructions with true shapes: two files, two folders (matched by relative path "
        "without suffix; the first folder is the category), a folder and a built dataset, or a table of pairs.",
        epilog="Exit status: 0; 1 if any sample failed (all others are evaluated and saved); 2 for a mistake in the "
        "command. docs/evaluate.md says what the outputs hold.",
    )
    add = parser.add_argument
    add("pred", nargs="?", metavar="PRED", help="a file or folder of reconstructions (mesh or points)")
    add("gt", nargs="?", metavar="GT", help="a file or folder of true shapes, or a built dataset")
    add("--pairs", metavar="FILE.csv", help="columns pred,gt[,category,id], instead of PRED and GT")
    add("--metrics", help="all, or names with commas: cd,emd,fscore,nc,iou,lfd,shape_google,mvcnn,drkfs,hausdorff,…")
    add("--protocol", default="reconlab", help="reconlab (default), atlasnet, drkfs, occnet, what3d, dpc, drwr, nox")
    add("--set", action="append", default=[], metavar="METRIC.ARG=VALUE", help="lfd.cameras=FILE, cd.points=5000, …")
    add(
        "--normalize",
        choices=("none", "gt-box", "gt-sphere"),
        default="gt-box",
        help="gt-box (default): move and scale both so that the true box has its centre at 0 and diagonal 1; "
        "gt-sphere: its farthest point at 0.5; none: the files are in [-0.5, 0.5]³",
    )
    add("--surface", choices=("all", "outer"), default="all", help="outer: true points without a mesh's insides")
    add("--true_points", type=int, help=f"points drawn of each true surface (at least {TRUE_POINTS})")
    add("--split", choices=("train", "val", "test"), default="test", help="of a built dataset")
    add("--suffix", help="only predictions of this format (obj), where a folder has several of each")
    add("--json", metavar="FILE", help="everything as JSON; - for the standard output")
    add("--csv", metavar="FILE", help="values per sample")
    add("--out", metavar="RUN", help="make a run directory, as reconlab test does")
    add("--cache", metavar="DIR", help="keep the true shapes' descriptors (lfd, shape_google, mvcnn) there")
    add("--workers", type=int, default=1, help="processes of one thread each")
    add("--force", action="store_true", help="start anew where an output holds another evaluation")
    return parser


def main(argv: Sequence[str]) -> int:
    """Evaluate; 1 if any sample failed.

    Raises:
        ReconlabError: A mistake in the command.
        KeyboardInterrupt: After Ctrl-C; what is finished has been saved.
    """
    options = parser().parse_args(argv)
    if options.workers < 1:
        raise ReconlabError(f"--workers is {options.workers}; expected at least 1.")
    if (options.pairs is None) == (options.gt is None) or (options.pairs and options.pred):
        raise ReconlabError("evaluate takes PRED and GT, or --pairs FILE.csv alone.")

    from reconlab.lab.evaluate_metrics import choose_metrics, make_metrics, parse_settings, protocol_record
    from reconlab.lab.evaluate_pairs import find_pairs, is_dataset, read_pairs

    chosen, notes = choose_metrics(options.metrics, options.protocol, parse_settings(options.set))
    if options.pairs:
        found = read_pairs(Path(options.pairs))
    else:
        found = find_pairs(Path(options.pred), Path(options.gt), options.split, options.suffix)
    stored = options.gt is not None and Path(options.gt).is_dir() and is_dataset(Path(options.gt))
    if stored and (options.normalize != "gt-box" or options.surface != "all"):
        raise ReconlabError(
            "--normalize and --surface do not go with a built dataset: its files are taken as stored."
        )
    plan = _plan(options, chosen)
    metrics = make_metrics(plan)
    record = protocol_record(plan, options.protocol, metrics, stored)
    for note in [*notes, *found.notes]:
        print(f"note: {note}", file=sys.stderr)
    return _run(options, plan, metrics, record, found)


def _plan(options: argparse.Namespace, chosen: dict[str, Any]) -> Plan:
    from reconlab.lab.evaluate_metrics import Plan, make_metrics

    plan = Plan(chosen, options.normalize, options.surface)
    wanted = [getattr(metric, "points", None) or 0 for metric in make_metrics(plan).values()]
    points = max(TRUE_POINTS, *(p for p in wanted if isinstance(p, int)), 0)
    if options.true_points is not None:
        if options.true_points < 1:
            raise ReconlabError(f"--true_points is {options.true_points}; expected at least 1.")
        points = options.true_points
    export = Path(options.out) / "predictions" if options.out else None
    return Plan(chosen, options.normalize, options.surface, points, options.cache, export)


def _run(
    options: argparse.Namespace, plan: Plan, metrics: dict[str, Any], record: dict[str, Any], found: Pairs
) -> int:
    from reconlab.lab.evaluate import Store, evaluate
    from reconlab.lab.evaluate_judge import charge_unfit
    from reconlab.lab.evaluate_report import counts, csv_text, document, summary_table, write_run
    from reconlab.lab.run_directory import command_line, provenance, write_atomic, write_run_json

    kept = _samples_file(options)
    _refuse_to_overwrite(options, kept)
    store = Store(kept, record, options.force)
    named = list(metrics) if options.metrics and options.metrics.strip() != "all" else []
    run: dict[str, Any] = {}
    if options.out:
        protocols = {n: {k: p.as_dict() for k, p in m.protocols.items()} for n, m in metrics.items()}
        run = {**provenance(0), "command": command_line(), "stage": "evaluate", "protocols": protocols}
        run |= {"protocol": record}
        write_run_json(Path(options.out), {**run, "status": "started"})
    began = time.monotonic()
    progress = Progress()
    try:
        rows = evaluate(found.pairs, plan, store, options.workers, named, progress.say, progress.tick)
    except KeyboardInterrupt:
        progress.close()
        kept_in = (
            f" are in {kept}: the same command goes on from there" if kept else " are lost (no --json, --csv, --out)"
        )
        print(f"\nreconlab: {progress.done} of {len(found.pairs)} samples{kept_in}.", file=sys.stderr)
        if options.out:
            write_run_json(Path(options.out), {"status": "interrupted"})
        raise
    except ReconlabError as error:
        if options.out:
            write_run_json(Path(options.out), {"status": f"failed: {error}"})
        raise
    finally:
        progress.close()
    for sentence in charge_unfit(rows, metrics):
        print(sentence, file=sys.stderr)
    number = counts(rows)
    content = document(rows, metrics, record)
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    if options.json and options.json != "-":
        write_atomic(Path(options.json), text)
    if options.csv:
        write_atomic(Path(options.csv), csv_text(rows, metrics))
    if options.out:
        seconds = round(time.monotonic() - began, 1)
        settings = {k: v for k, v in vars(options).items() if k not in ("force", "workers")}
        write_run(Path(options.out), rows, metrics, settings, {**run, **number, "wall_seconds": seconds})
        write_run_json(Path(options.out), {"status": "finished"})
    missing = _skipped(rows)
    for sentence in missing.values():
        print(f"note: {sentence}", file=sys.stderr)
    if options.json == "-":
        sys.stdout.write(text)
    else:
        from rich.console import Console

        console = Console() if sys.stdout.isatty() else Console(width=160)
        console.print(summary_table(rows, metrics, f"Protocol {options.protocol}, normalized {options.normalize}"))
        for what, where in (("JSON", options.json), ("CSV", options.csv), ("run directory", options.out)):
            if where:
                print(f"{what}: {where}")
    if number["n_failed"]:
        print(
            f"reconlab: {number['n_failed']} of {number['n']} samples failed (named above), "
            f"{number['n_excluded']} of them for their ground truth.",
            file=sys.stderr,
        )
    if any(name in missing for name in named):
        return 2
    return 1 if number["n_failed"] else 0


def _samples_file(options: argparse.Namespace) -> Path | None:
    if options.out:
        return Path(options.out) / "samples.jsonl"
    beside = options.json if options.json and options.json != "-" else options.csv
    return Path(f"{beside}.samples.jsonl") if beside else None


def _refuse_to_overwrite(options: argparse.Namespace, kept: Path | None) -> None:
    for name, given in (("--json", options.json), ("--csv", options.csv), ("--out", options.out)):
        if not given or (name, given) == ("--json", "-"):
            continue
        path = Path(given)
        if path.exists() and path.is_dir() != (name == "--out"):
            raise ReconlabError(f"{name} {path} is a {'folder; name a file' if path.is_dir() else 'file'}.")
        full = any(path.iterdir()) if path.is_dir() else path.exists()
        if full and not options.force and (kept is None or not kept.exists()):
            raise ReconlabError(
                f"{name} {path} exists and is not of an evaluation that could go on: name another, or --force."
            )


def _skipped(rows: Sequence[Row]) -> dict[str, str]:
    """A sentence for each metric that did not apply to some samples."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        for name in row.skipped:
            found.setdefault(name, []).append(row)
    return {
        name: f"{name} does not apply to {len(those)} of {len(rows)} samples ({those[0].key}: "
        f"{those[0].skipped[name].rstrip('.')})."
        for name, those in found.items()
    }


class Progress:
    """Messages and progress with the time left, on standard error: a bar on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self.done = 0
        self._began = self._printed = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def say(self, sentence: str) -> None:
        """Print one sentence above the bar."""
        if self._bar is not None:
            self._bar.console.print(sentence, markup=False, highlight=False, soft_wrap=True)
        else:
            print(sentence, file=sys.stderr, flush=True)

    def tick(self, done: int, total: int, reused: int) -> None:
        """Show how far it is."""
        self.done = done
        if sys.stderr.isatty() and total > 1:
            self._move(done, total)
            return
        now = time.monotonic()
        if done == reused:
            if reused and total > reused:
                print(f"evaluate: {reused} of {total} samples are there already", file=sys.stderr, flush=True)
            return
        if now - self._printed >= EVERY and done < total:
            self._printed = now
            rate = (done - reused) / max(now - self._began, 1e-9)
            left = int((total - done) / rate)
            line = f"evaluate: {done}/{total}  {rate:.2f} samples/s  ETA {left // 60}:{left % 60:02d}"
            print(line, file=sys.stderr, flush=True)

    def _move(self, done: int, total: int) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*shown, console=Console(stderr=True))
            self._task = self._bar.add_task("Evaluating", total=total)
            self._bar.start()
        self._bar.update(self._task, completed=done)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
