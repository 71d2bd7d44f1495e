"""``reconlab data``: build datasets and verify them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reconlab.errors import ReconlabError

if TYPE_CHECKING:
    from reconlab.datasets.builder import BuildReport

SPLIT = (0.7, 0.15, 0.15)


def main(argv: Sequence[str]) -> int:
    """``build`` or ``check``; exit status 2 if anything is wrong with the input."""
    parser = argparse.ArgumentParser("reconlab data", description="Build a dataset, or verify one.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser(
        "build", help="make a dataset of procedural shapes, of a folder of meshes, or of DPC's renders"
    )
    build.add_argument("--source", choices=("synth", "meshes", "dpc"), required=True)
    build.add_argument("--out", required=True, help="the dataset's folder")
    build.add_argument(
        "--input",
        help="meshes: a folder <category>/<name>.{obj,glb,ply,stl,off}; dpc: one <synset>/<model>/render_k.png",
    )
    build.add_argument("--ground_truth", help="dpc: a folder <synset>/<model>.mat of true points")
    build.add_argument("--splits", help="dpc: a folder of <synset>_{train,val,test}.txt, or a .file of DRC")
    build.add_argument(
        "--categories", nargs="+", help="synth: of airplane, car, chair, lamp; dpc: synsets (default: all)"
    )
    build.add_argument(
        "--category_names", choices=("synset", "word"), default="synset", help="dpc: 02691156, or airplane"
    )
    build.add_argument("--count", type=int, help="synth: shapes per category")
    build.add_argument("--seed", type=int, default=0)
    build.add_argument("--views", type=int, help="pictures per shape (dpc: the first so many)")
    build.add_argument("--image_size", type=int, help="their side in pixels")
    build.add_argument("--points", type=int, help="surface points per shape")
    build.add_argument("--queries", type=int, help="occupancy points per shape")
    build.add_argument("--resolution", type=int, help="voxels along each axis")
    build.add_argument("--split", type=float, nargs=3, default=SPLIT, metavar=("TRAIN", "VAL", "TEST"))
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
    _refuse(options)
    report = _build_dpc(options) if options.source == "dpc" else _build_shapes(options)
    print(report.summary())
    if not report.ok:
        raise ReconlabError(f"{len(report.failed)} inputs could not be used (named above); the rest is complete.")
    return 0


def _refuse(options: argparse.Namespace) -> None:
    """Name an option that the source does not have, rather than passing over it."""
    own = {
        "ground_truth": ("dpc", None),
        "splits": ("dpc", None),
        "category_names": ("dpc", "synset"),
        "groups": ("meshes", None),
        "count": ("synth", None),
    }
    for name, (source, default) in own.items():
        if options.source != source and getattr(options, name) != default:
            raise ReconlabError(f"--{name} goes with --source {source}, not with {options.source}.")
    if options.source == "dpc":
        made: dict[str, object] = {"image_size": None, "points": None, "queries": None, "resolution": None, "seed": 0}
        made |= {"split_by": "family", "split": SPLIT}
        for name, usual in made.items():
            if getattr(options, name) != usual:
                raise ReconlabError(
                    f"--{name} does not go with --source dpc: the files and lists are taken as they are."
                )


def _build_dpc(options: argparse.Namespace) -> BuildReport:
    from reconlab.datasets.dpc_layout import build_dpc

    if not options.input or not options.splits:
        raise ReconlabError("--source dpc needs --input RENDERS and --splits FOLDER (or a .file of DRC).")
    return build_dpc(
        options.input,
        options.out,
        splits=options.splits,
        ground_truth=options.ground_truth,
        categories=options.categories,
        category_names=options.category_names,
        views=options.views,
        workers=options.workers,
        force=options.force,
    )


def _build_shapes(options: argparse.Namespace) -> BuildReport:
    from reconlab.datasets.builder import EMBEDDED_COUNT, EMBEDDED_SIZES, build_meshes, build_synth
    from reconlab.datasets.content import Sizes

    default = EMBEDDED_SIZES if options.source == "synth" else Sizes()
    names = ("views", "image_size", "points", "queries", "resolution")
    chosen = {n: getattr(default, n) if getattr(options, n) is None else getattr(options, n) for n in names}
    common = {"seed": options.seed, "sizes": Sizes(**chosen), "fractions": options.split}
    common |= {"workers": options.workers, "force": options.force}
    if options.source == "synth":
        if options.input:
            raise ReconlabError("--input goes with --source meshes or dpc; procedural shapes have no input folder.")
        count = EMBEDDED_COUNT if options.count is None else options.count
        return build_synth(options.out, options.categories, count, **common)
    if not options.input:
        raise ReconlabError("--source meshes needs --input DIR, a folder <category>/<name>.{obj,glb,ply,stl,off}.")
    if options.categories:
        raise ReconlabError("--categories goes with --source synth or dpc.")
    return build_meshes(options.input, options.out, split_by=options.split_by, groups=options.groups, **common)


def _check(root: Path) -> int:
    from reconlab.datasets.check import check

    report = check(root)
    print(report.summary())
    if report.problems:
        raise ReconlabError(f"{root} has {len(report.problems)} problems (named above).")
    return 0
