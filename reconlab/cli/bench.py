"""``reconlab bench``: what everything costs here, as ratios and exponents, and the page of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reconlab.cli.parser import CommandParser
from reconlab.errors import ReconlabError

ROUNDS, QUICK_ROUNDS = 5, 3


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = CommandParser(
        "reconlab bench",
        description="Time the operators against their references and peers, in turns in one process, and how their "
        "cost grows with size. Writes DIR/bench.json and the page DIR/benchmarks.md; a second call measures only "
        "what is missing. A full run takes about ten minutes of one thread, --quick less than one.",
        epilog="Exit status: 0; 1 if a contestant failed or gave another answer (the page says which); 2 for a "
        "mistake in the command.",
    )
    add = parser.add_argument
    add("--out", metavar="DIR", help="folder of the results")
    add("--only", metavar="NAMES", help="with commas, of --list: nearest,rasterizer,…")
    add("--rounds", type=int, help=f"timed rounds at most (default {ROUNDS}, with --quick {QUICK_ROUNDS})")
    add("--threads", type=int, default=1, help="of torch and the kernels (default 1; with more, wall time counts)")
    add("--device", default="cpu", help="cpu (default) or cuda")
    add("--peer", action="append", default=[], metavar="NAME", help="pytorch3d, open3d, pot or embreex, if installed")
    add("--quick", action="store_true", help="small sizes of some cases")
    add("--seed", type=int, default=0, help="of the inputs (default 0)")
    add("--fresh", action="store_true", help="measure again what is there already")
    add("--page", metavar="FILE", help="write the page there, too (its picture goes to images/ beside it)")
    add("--from", dest="source", metavar="FILE", help="a bench.json: make its page, measure nothing")
    add(
        "--gpu",
        action="append",
        default=[],
        metavar="FILE",
        help="JSON of a GPU for the page: benchmarks/gpu_check.py's, or a bench.json",
    )
    add("--list", action="store_true", help="name what can be measured")
    return parser


def main(argv: Sequence[str]) -> int:
    """Measure, and write the page.

    Raises:
        ReconlabError: A mistake in the command.
        KeyboardInterrupt: After Ctrl-C; what is finished has been saved.
    """
    options = parser().parse_args(argv)
    if options.list:
        from reconlab.bench.catalogue import names

        for name, text in names().items():
            print(f"{name:<15}{text}")
        return 0
    if (options.source is None) == (options.out is None):
        raise ReconlabError("bench takes --out DIR to measure, or --from bench.json with --page FILE to make a page.")
    if options.page and Path(options.page).is_dir():
        raise ReconlabError(f"--page {options.page} is a folder; name a file.")
    if options.source is not None and options.page is None:
        raise ReconlabError("bench --from makes a page: name it with --page FILE.")

    from reconlab.bench.page import write_page
    from reconlab.bench.results import read_bench, read_gpu

    gpus = [read_gpu(Path(file)) for file in options.gpu]
    if options.source is not None:
        write_page(read_bench(Path(options.source)), gpus, Path(options.page))
        print(f"page: {options.page}")
        return 0
    return _measure(options, gpus)


def _measure(options: argparse.Namespace, gpus: list) -> int:
    from reconlab.bench.case import Setting
    from reconlab.bench.catalogue import choose
    from reconlab.bench.page import write_page
    from reconlab.bench.peers import choose_peers
    from reconlab.bench.run import problems, run
    from reconlab.lab.predict import pick_device
    from reconlab.lab.run_directory import command_line

    rounds = options.rounds if options.rounds is not None else QUICK_ROUNDS if options.quick else ROUNDS
    for name, value in (("--rounds", rounds), ("--threads", options.threads)):
        if value < 1:
            raise ReconlabError(f"{name} is {value}; expected at least 1.")
    if options.seed < 0:
        raise ReconlabError(f"--seed is {options.seed}; expected 0 or more.")
    device = pick_device(options.device)
    if device.type not in ("cpu", "cuda"):
        raise ReconlabError(f"--device is {options.device!r}; bench measures on cpu or cuda.")
    only = [n.strip() for n in options.only.split(",") if n.strip()] if options.only is not None else None
    if only == []:
        raise ReconlabError("--only is empty; reconlab bench --list names what can be measured.")
    choice = choose(only, options.quick, device.type != "cpu")
    out = Path(options.out)
    if out.exists() and not out.is_dir():
        raise ReconlabError(f"--out {out} is a file; name a folder.")
    setting = Setting(str(device), choose_peers(options.peer), options.quick, options.seed)
    try:
        content = run(out, choice, setting, rounds, options.threads, options.fresh, command_line(), _say)
    except KeyboardInterrupt:
        print(f"\nreconlab: what is finished is in {out}: the same command goes on from there.", file=sys.stderr)
        raise
    pages = [out / "benchmarks.md", *([Path(options.page)] if options.page else [])]
    for path in pages:
        write_page(content, gpus, path)
    print(f"results: {out / 'bench.json'}\npage: {', '.join(map(str, pages))}")
    failed = problems(content)
    for sentence in failed:
        print(f"reconlab: {sentence}", file=sys.stderr)
    return 1 if failed else 0


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
