"""``reconlab data``: build datasets and verify them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconlab.cli.parser import CommandParser
from reconlab.errors import ReconlabError

if TYPE_CHECKING:
    from reconlab.datasets.builder import BuildReport
    from reconlab.datasets.content import Sizes

PUBLISHED = ("dpc", "shapenet", "choy", "occnet")
SOURCES = ("synth", "meshes", *PUBLISHED)
SPLIT = (0.7, 0.15, 0.15)


def main(argv: Sequence[str]) -> int:
    """``build``, ``check`` or ``cache``; exit status 2 if anything is wrong with the input."""
    parser = CommandParser("reconlab data", description="Build a dataset, verify one, or make its decoded cache.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser(
        "build", help="make a dataset of procedural shapes, of meshes, or of data as others published them"
    )
    build.add_argument("--source", choices=SOURCES, required=True)
    build.add_argument("--out", required=True, help="the dataset's folder")
    build.add_argument(
        "--input",
        help="meshes: a folder <category>/<name>.{obj,glb,ply,stl,off}; dpc: one <synset>/<model>/render_k.png; "
        "shapenet: ShapeNetCore v1 or v2; choy: ShapeNetRendering; occnet: the archive of Occupancy Networks",
    )
    build.add_argument("--ground_truth", help="dpc: a folder <synset>/<model>.mat of true points")
    build.add_argument("--voxels", help="choy: ShapeNetVox32, or <synset>/<model>/model.binvox of any resolution")
    build.add_argument("--meshes", help="choy: ShapeNetCore v1 or v2, for points, occupancies and meshes")
    build.add_argument("--renders", help="occnet: ShapeNetRendering, for pictures with an alpha channel")
    build.add_argument(
        "--splits",
        help="dpc, shapenet, choy, occnet: a folder of <synset>_{train,val,test}.txt or .lst, that folder and a "
        "prefix (lists/disn), or a .file of DRC",
    )
    build.add_argument(
        "--share", type=float, help="shapenet, choy: part of the sorted ids to train on, without --splits (0.8)"
    )
    build.add_argument(
        "--hold_out",
        type=float,
        help="shapenet, choy, occnet: part of the training ids that validates where the lists have none (0.05)",
    )
    build.add_argument(
        "--front",
        choices=("+x", "-z"),
        help="shapenet, choy, occnet: where shapes face; +x (default) as in ShapeNet v1, -z as procedural shapes",
    )
    build.add_argument(
        "--categories", nargs="+", help="synth: of airplane, car, chair, lamp; else synsets or words (default: all)"
    )
    build.add_argument(
        "--category_names", choices=("synset", "word"), default="synset", help="call it 02691156, or airplane"
    )
    build.add_argument("--count", type=int, help="synth: shapes per category")
    build.add_argument("--seed", type=int, default=0)
    build.add_argument("--views", type=int, help="pictures per shape (dpc, choy, occnet: the first so many)")
    build.add_argument("--image_size", type=int, help="their side in pixels")
    build.add_argument("--points", type=int, help="surface points per shape")
    build.add_argument("--queries", type=int, help="occupancy points per shape")
    build.add_argument("--resolution", type=int, help="voxels along each axis")
    build.add_argument("--split", type=float, nargs=3, default=SPLIT, metavar=("TRAIN", "VAL", "TEST"))
    build.add_argument(
        "--split_by", choices=("family", "shape"), default="family", help="meshes: keep variants together"
    )
    build.add_argument("--groups", help="meshes: a CSV category/name,family")
    build.add_argument("--workers", type=int, default=1, help="processes, or jobs of the engine at once")
    build.add_argument("--engine", default="local", help="local, submitit (Slurm) or ray; --out is on a shared disk")
    build.add_argument("--address", help="of a Ray cluster, host:port or auto; without it one of this machine")
    build.add_argument("--force", action="store_true", help="replace a build that has other settings")
    check = commands.add_parser("check", help="verify a dataset: files, checksums, values, lists")
    check.add_argument("root", help="the dataset's folder")
    cache = commands.add_parser(
        "cache", help="make the decoded cache of a dataset before a run: --data.cache reads it"
    )
    cache.add_argument("root", help="the dataset's folder")
    cache.add_argument("--out", help="as --data.cache is given: a folder, or auto (default) for one in the dataset")
    cache.add_argument(
        "--needs",
        nargs="+",
        help="what runs will read (images views surface)",
    )
    cache.add_argument("--splits", nargs="+", choices=("train", "val", "test"), help="(train val)")
    cache.add_argument("--categories", nargs="+", help="its categories (default: all)")
    cache.add_argument("--resolution", type=int, help="of the voxels, as --data.resolution")
    cache.add_argument(
        "--prune",
        action="store_true",
        help="remove instead what no run of the dataset as it is reads; with --out alone",
    )
    options, unknown = parser.parse_known_args(argv)
    if unknown and (options.command != "build" or not all(w.startswith(("--slurm.", "--ray.")) for w in unknown)):
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if options.command == "check":
        return _check(Path(options.root))
    if options.command == "cache":
        return _cache(options)
    _refuse(options)
    with _engine(options, unknown):
        return _build(options)


@contextmanager
def _engine(options: argparse.Namespace, words: Sequence[str]) -> Iterator[None]:
    """Shapes are built by the chosen engine while this is entered; ``local`` is the builder's own processes."""
    from reconlab.lab.engines import engine_options, make_engine, unordered

    given = engine_options(options.engine, words)
    if options.engine == "local" and options.address is None:
        yield
        return
    from reconlab.datasets.work import run_by

    out = Path(options.out).resolve()
    engine = make_engine(options.engine, out.with_name(f".{out.name}.jobs"), options.address, given)
    try:
        with run_by(lambda function, items: unordered(engine, function, items, options.workers)):
            yield
    finally:
        engine.close()


def _build(options: argparse.Namespace) -> int:
    builders = {"dpc": _build_dpc, "shapenet": _build_shapenet, "choy": _build_choy, "occnet": _build_occnet}
    report = builders.get(options.source, _build_shapes)(options)
    print(report.summary())
    if not report.ok:
        raise ReconlabError(f"{len(report.failed)} inputs could not be used (named above); the rest is complete.")
    return 0


def _refuse(options: argparse.Namespace) -> None:
    """Name an option that the source does not have, rather than passing over it."""
    made = ("synth", "meshes", "shapenet")
    own: dict[str, tuple[tuple[str, ...], object]] = {
        "ground_truth": (("dpc",), None),
        "voxels": (("choy",), None),
        "meshes": (("choy",), None),
        "renders": (("occnet",), None),
        "splits": (PUBLISHED, None),
        "category_names": (PUBLISHED, "synset"),
        "share": (("shapenet", "choy"), None),
        "hold_out": (("shapenet", "choy", "occnet"), None),
        "front": (("shapenet", "choy", "occnet"), None),
        "groups": (("meshes",), None),
        "count": (("synth",), None),
    }
    for name, (sources, default) in own.items():
        if options.source not in sources and getattr(options, name) != default:
            raise ReconlabError(f"--{name} goes with --source {' or '.join(sources)}, not with {options.source}.")
    limits: dict[str, tuple[tuple[str, ...], object]] = {
        "image_size": (made, None),
        "points": ((*made, "choy"), None),
        "queries": ((*made, "choy"), None),
        "resolution": ((*made, "choy", "occnet"), None),
        "seed": ((*made, "choy"), 0),
        "split_by": (("synth", "meshes"), "family"),
        "split": (("synth", "meshes"), SPLIT),
    }
    for name, (sources, usual) in limits.items():
        if options.source not in sources and getattr(options, name) != usual:
            raise ReconlabError(
                f"--{name} does not go with --source {options.source}: the files and lists are taken as they are."
            )
    if options.source == "choy" and options.meshes is None:
        for name in ("points", "queries"):
            if getattr(options, name) is not None:
                raise ReconlabError(f"--{name} needs --meshes: without meshes there is nothing to take them from.")


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


def _common(options: argparse.Namespace) -> dict[str, Any]:
    names = ("splits", "categories", "category_names", "workers", "force")
    given = {n: getattr(options, n) for n in ("front", "share", "hold_out") if getattr(options, n) is not None}
    return {n: getattr(options, n) for n in names} | given


def _sizes(options: argparse.Namespace, default: Sizes) -> Sizes:
    names = ("views", "image_size", "points", "queries", "resolution")
    given = {n: getattr(options, n) for n in names if getattr(options, n) is not None}
    return replace(default, **given)


def _input(options: argparse.Namespace, what: str) -> str:
    if not options.input:
        raise ReconlabError(f"--source {options.source} needs --input {what}.")
    return str(options.input)


def _build_shapenet(options: argparse.Namespace) -> BuildReport:
    from reconlab.datasets.content import Sizes
    from reconlab.datasets.shapenet_layout import build_shapenet

    root = _input(options, "ShapeNetCore.v1 (or v2), a folder <synset>/<model>/model.obj")
    return build_shapenet(root, options.out, seed=options.seed, sizes=_sizes(options, Sizes()), **_common(options))


def _build_choy(options: argparse.Namespace) -> BuildReport:
    from reconlab.datasets.choy_layout import build_choy
    from reconlab.datasets.content import Sizes

    root = _input(options, "ShapeNetRendering, a folder <synset>/<model>/rendering")
    trees = {"voxels": options.voxels, "meshes": options.meshes, "views": options.views}
    return build_choy(
        root, options.out, seed=options.seed, sizes=_sizes(options, Sizes()), **trees, **_common(options)
    )


def _build_occnet(options: argparse.Namespace) -> BuildReport:
    from reconlab.datasets.occnet_layout import build_occnet

    root = _input(options, "the archive, a folder <synset>/<model>/pointcloud.npz")
    given = {"resolution": options.resolution} if options.resolution is not None else {}
    return build_occnet(root, options.out, renders=options.renders, views=options.views, **given, **_common(options))


def _build_shapes(options: argparse.Namespace) -> BuildReport:
    from reconlab.datasets.builder import EMBEDDED_COUNT, EMBEDDED_SIZES, build_meshes, build_synth
    from reconlab.datasets.content import Sizes

    default = EMBEDDED_SIZES if options.source == "synth" else Sizes()
    common = {"seed": options.seed, "sizes": _sizes(options, default), "fractions": options.split}
    common |= {"workers": options.workers, "force": options.force}
    if options.source == "synth":
        if options.input:
            raise ReconlabError("--input goes with the other sources; procedural shapes have no input folder.")
        count = EMBEDDED_COUNT if options.count is None else options.count
        return build_synth(options.out, options.categories, count, **common)
    if not options.input:
        raise ReconlabError("--source meshes needs --input DIR, a folder <category>/<name>.{obj,glb,ply,stl,off}.")
    if options.categories:
        raise ReconlabError("--categories does not go with --source meshes: they are its folders.")
    return build_meshes(options.input, options.out, split_by=options.split_by, groups=options.groups, **common)


def _check(root: Path) -> int:
    from reconlab.datasets.check import check

    report = check(root)
    print(report.summary())
    if report.problems:
        raise ReconlabError(f"{root} has {len(report.problems)} problems (named above).")
    return 0


def _prune(options: argparse.Namespace) -> int:
    from reconlab.datasets.datamodule import ReconstructionData
    from reconlab.datasets.decode import prune

    for name in ("needs", "splits", "categories", "resolution"):
        if getattr(options, name) is not None:
            raise ReconlabError(f"--prune looks at the whole cache: leave --{name} out.")
    data = ReconstructionData(options.root)
    data.setup()
    removed = prune(data.root, data.items, None if options.out in (None, "auto") else Path(options.out))
    for path, size in removed:
        print(f"{path}: removed, {size / 1e6:.1f} MB.")
    print(f"{len(removed)} files removed, {sum(size for _, size in removed) / 1e6:.1f} MB.")
    return 0


def _cache(options: argparse.Namespace) -> int:
    from reconlab.datasets.datamodule import ReconstructionData

    if options.prune:
        return _prune(options)
    splits = options.splits or ["train", "val"]
    data = ReconstructionData(
        options.root,
        categories=options.categories,
        resolution=options.resolution,
        cache="auto" if options.out is None else options.out,
    )
    data.require(options.needs or ["images", "views", "surface"], "reconlab data cache", splits)
    data.setup()
    for split in splits:
        decoded = data.dataset(split).decoded
        if decoded is None:
            raise ReconlabError(f"There is no decoded cache of {options.root} (said above): give --out a folder.")
        size = sum(path.stat().st_size for path, _ in decoded.shards.values())
        print(f"{split}: {len(data.items[split])} shapes, {size / 1e6:.1f} MB decoded.")
    return 0
