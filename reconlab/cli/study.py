"""``reconlab study``: which of two reconstructions do people prefer?"""

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
        "reconlab study",
        description="A perceptual study as in DR-KFS, section 4.2: people see a picture and two reconstructions "
        "of it, and choose the one that looks more like it.",
        epilog="docs/study.md has the whole way from two runs to a number.",
    )
    commands = parser.add_subparsers(dest="command", metavar="build|score", required=True)
    build = commands.add_parser("build", help="make the page", description="Make the page of a study, and its key.")
    add = build.add_argument
    add("runs", nargs="+", metavar="RUN", help="run directories with predictions/: A B, or several pairs A1 B1 A2 B2")
    add("--out", required=True, metavar="DIR", help="folder for study.html, hit.html, hit_images/ and study.json")
    add("--questions", type=int, default=50, help="in all, shared out evenly over the pairs (50)")
    add("--checks", type=int, default=4, help="attention checks besides them (4)")
    add("--seed", type=int, default=0, help="of the choice of samples and of the order on the page (0)")
    add(
        "--top", type=float, metavar="SHARE", help="draw from the best share only (PS-2: 0.2), by the metrics of --by"
    )
    add("--by", default="lfd,shape_google,mvcnn", metavar="NAMES", help="metrics that rank samples for --top")
    add(
        "--scores",
        nargs="+",
        default=[],
        metavar="RUN",
        help="where those metrics' values per sample are, a folder per run in the same order, if not in the runs: "
        "reconlab evaluate RUN/predictions DATA --metrics lfd,shape_google,mvcnn --out RUN_visual",
    )
    add("--views", type=int, default=2, help="pictures of each shape: the input's view, and turned by 45 to 60° (2)")
    add("--root", metavar="DATA", help="the dataset, if not where the first run says")
    add("--size", type=int, default=256, help="pixels along a picture (256)")
    add("--title", default="Which shape looks more like the picture?", help="the page's heading")
    add("--consent", metavar="FILE", help="your own text to agree to: plain text, paragraphs between blank lines")
    add("--image-base", metavar="URL", help="where you put hit_images/; then hit.xml is written as well")
    add("--force", action="store_true", help="replace the study that is in --out")

    score = commands.add_parser("score", help="count the votes", description="Count the votes of a study.")
    add = score.add_argument
    add(
        "files", nargs="+", metavar="FILE", help="answers (JSON or CSV), batches of Mechanical Turk (CSV), or folders"
    )
    add("--key", required=True, metavar="FILE", help="the study.json of the study")
    add("--json", metavar="FILE", help="everything as JSON; - for the standard output")
    add("--allow-failed", type=int, default=0, metavar="N", help="failed attention checks that are let pass (0)")
    add("--keep-inattentive", action="store_true", help="count those who failed more as well")
    return parser


def main(argv: Sequence[str]) -> int:
    """Build or score; 1 if a file of answers could not be used."""
    options = parser().parse_args(argv)
    return _build(options) if options.command == "build" else _score(options)


def _build(options: argparse.Namespace) -> int:
    for name, given in (("RUN", options.runs), ("--scores", options.scores)):
        if len(given) % 2:
            raise ReconlabError(
                f"study build: {name} is given {len(given)} times; expected pairs A B, or A1 B1 A2 B2."
            )
    if options.scores and len(options.scores) != len(options.runs):
        raise ReconlabError(
            f"study build: --scores names {len(options.scores)} folders for {len(options.runs)} runs; name one each."
        )
    if options.scores and options.top is None:
        raise ReconlabError("study build: --scores goes with --top.")

    from reconlab.study.build import make_study, pairs_of, write_study
    from reconlab.study.choose import Plan
    from reconlab.study.page import CONSENT

    metrics = tuple(m for m in (part.strip() for part in options.by.split(",")) if m)
    plan = Plan(
        options.questions,
        options.checks,
        options.seed,
        options.top,
        metrics,
        options.views,
        options.size,
        options.title,
    )
    out = Path(options.out)
    _check_out(out, options.force)
    base = options.image_base
    if base is not None and not base.startswith("https://"):
        raise ReconlabError(f"--image-base is {base!r}; Mechanical Turk shows pictures from https:// addresses only.")
    consent = CONSENT if options.consent is None else _paragraphs(Path(options.consent))
    root = None if options.root is None else Path(options.root)

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            print(f"\rstudy: {done} of {total} questions drawn", end="\n" if done == total else "", file=sys.stderr)

    study = make_study(pairs_of(options.runs), plan, root, pairs_of(options.scores), progress)
    for note in study.notes:
        print(f"note: {note}", file=sys.stderr)
    for path in write_study(out, study, plan, consent, base):
        print(path)
    return 0


def _check_out(out: Path, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ReconlabError(f"--out {out} is a file; name a folder.")
    if (out / "study.json").exists() and not force:
        raise ReconlabError(
            f"--out {out} holds a study, whose answers need its study.json: name another folder, or --force."
        )


def _paragraphs(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReconlabError(f"--consent {path} cannot be read ({error}).") from error
    found = [" ".join(p.split()) for p in text.split("\n\n") if p.strip()]
    if not found:
        raise ReconlabError(f"--consent {path} is empty.")
    return found


def _score(options: argparse.Namespace) -> int:
    import json

    from reconlab.lab.run_directory import write_atomic
    from reconlab.study.answers import read_answers, read_key
    from reconlab.study.score import count, score, text

    if options.allow_failed < 0:
        raise ReconlabError(f"--allow-failed is {options.allow_failed}; expected 0 or more.")
    key = read_key(Path(options.key))
    handed = read_answers([Path(f) for f in options.files])
    counted = count(key, handed.sheets, options.allow_failed, options.keep_inattentive)
    for sentence in (*handed.problems, *counted.foreign, *counted.repeated):
        print(f"note: {sentence}", file=sys.stderr)
    result = score(key, counted)
    result["left_out"]["unreadable"] = handed.problems
    content = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    if options.json == "-":
        sys.stdout.write(content)
    else:
        print(text(result))
        if options.json:
            write_atomic(Path(options.json), content)
            print(f"JSON: {options.json}")
    return 1 if handed.problems or counted.foreign else 0
