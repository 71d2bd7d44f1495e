"""``reconlab data``: build datasets and verify them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from reconlab.errors import ReconlabError


def main(argv: Sequence[str]) -> int:
    """``build`` or ``check``; exit status 2 if anything is wrong with the input."""
    parser = argparse.ArgumentParser("reconlab data", description="Build a dataset, or verify one.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="make a dataset of procedural shapes or of a folder of meshes")
    build.add_argument("--source", choices=("synth", "meshes"), required=True)
    build.add_argument("--out", required=True, help="the dataset's folder")
    build.add_argument("--input", help="meshes: a folder <category>/<name>.{obj,glb,ply,stl,off}")
    build.add_argument("--categories", nargs="+", help="synth: of airplane, car, chair, lamp (default: all)")
    build.add_argument("--count", type=int, help="synth: shapes per category")
    build.add_argument("--seed", type=int, default=0)
    build.add_argument("--views", type=int, help="pictures per shape")
    build.add_argument("--image_size", type=int, help="their side in pixels")
    build.add_argument("--points", type=int, help="surface points per shape")
    build.add_argument("--queries", type=int, help="occupancy points per shape")
    build.add_argument("--resolution", type=int, help="voxels along each axis")
    build.add_argument("--split", type=float, nargs=3, default=(0.7, 0.15, 0.15), metavar=("TRAIN", "VAL", "TEST"))
    build.add_argument(
        "--split_by", choices=("family", "shape"), default="family", help="meshes: keep variants together"
    )
    build.add_argument("--groups", help="meshes: a CSV category/name,family")
    build.add_argument("--workers", type=int, default=1)
    build.add_argument("--force", action="store_true", help="replace a build that has other settings")
    check = commands.add_parser("check", help="verify a dataset: files, checksums, values, lists")
    check.add_argument("root", help="the dataset's folder")
    options = parser.parse_args(argv)
    return _build(options) if options.command == "build" else _check(Path(options.root))


def _build(options: argparse.Namespace) -> int:
    from reconlab.datasets.builder import EMBEDDED_COUNT, EMBEDDED_SIZES, build_meshes, build_synth
    from reconlab.datasets.content import Sizes

    default = EMBEDDED_SIZES if options.source == "synth" else Sizes()
    names = ("views", "image_size", "points", "queries", "resolution")
    chosen = {n: getattr(default, n) if getattr(options, n) is None else getattr(options, n) for n in names}
    common = {"seed": options.seed, "sizes": Sizes(**chosen), "fractions": options.split}
    common |= {"workers": options.workers, "force": options.force}
    if options.source == "synth":
        if options.input:
            raise ReconlabError("--input goes with --source meshes; procedural shapes have no input folder.")
        count = EMBEDDED_COUNT if options.count is None else options.count
        report = build_synth(options.out, options.categories, count, **common)
    else:
        if not options.input:
            raise ReconlabError(
                "--source meshes needs --input DIR, a folder <category>/<name>.{obj,glb,ply,stl,off}."
            )
        if options.categories or options.count is not None:
            raise ReconlabError("--categories and --count go with --source synth.")
        report = build_meshes(options.input, options.out, split_by=options.split_by, groups=options.groups, **common)
    print(report.summary())
    if not report.ok:
        raise ReconlabError(f"{len(report.failed)} inputs could not be used (named above); the rest is complete.")
    return 0


def _check(root: Path) -> int:
    from reconlab.datasets.check import check

    report = check(root)
    print(report.summary())
    if report.problems:
        raise ReconlabError(f"{root} has {len(report.problems)} problems (named above).")
    return 0
