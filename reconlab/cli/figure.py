"""``reconlab figure``: a paper's figure, made anew."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reconlab.cli.parser import CommandParser
from reconlab.errors import ReconlabError

if TYPE_CHECKING:
    from PIL.Image import Image

FIGURES = {
    "drwr-fig3": "DRWR, Fig. 3: points under the binary and under the smooth silhouette loss",
    "drwr-fig5": "DRWR, Fig. 5: points under both of its losses",
    "drwr-fig9": "DRWR, Figs. 7 and 9: reconstructions of randomly chosen shapes, a row per --checkpoint",
    "drwr-fig11": "DRWR, Fig. 11: one shape along a training, from --checkpoint files of several steps",
    "drwr-fig12": "DRWR, Fig. 12: shapes between two images' latent codes, from one --checkpoint",
    "drkfs-fig2": "DR-KFS, Fig. 2: edits of chairs under distortion and visual measures; prints the numbers",
    "drkfs-fig5": "DR-KFS, Fig. 5: reconstructions of Table 4's trainings, a row per --checkpoint",
    "drkfs-fig6": "DR-KFS, Fig. 6: leg bars shifted and deleted; prints Table 5",
    "drkfs-fig7": "DR-KFS, Figs. 1 and 7: the same shapes under two losses, a row per --checkpoint",
    "metric-meaning": "how metrics rank a missing leg, noise, a wrong category; prints the numbers",
}
GALLERIES = ("drwr-fig9", "drkfs-fig5", "drkfs-fig7")
COUNTS = {"drkfs-fig2": 20, "drkfs-fig6": 56, "metric-meaning": 8}


def main(argv: Sequence[str]) -> int:
    """Draw one figure into a PNG file."""
    parser = CommandParser(
        "reconlab figure",
        description="Make a figure of a paper anew, in one PNG file.",
        epilog="\n".join(f"{name}  {text}" for name, text in FIGURES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("figure", metavar="FIGURE", help="one of those below")
    parser.add_argument("--out", required=True, help="the PNG file to write")
    parser.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        help="[title=]file, may be repeated; for Fig. 11 also a run directory",
    )
    parser.add_argument(
        "--root",
        default="data/synth",
        help="the built dataset whose shapes are shown (Figs. 9, 11, 12) or measured (metric-meaning)",
    )
    parser.add_argument("--category", default="airplane", help="of those shapes")
    parser.add_argument("--split", default="test", choices=["train", "val", "test"], help="of those shapes")
    parser.add_argument(
        "--count",
        type=int,
        help="shapes of a gallery or pairs of shapes (DRWR's Fig. 12), 8 if not given; chairs of DR-KFS' Fig. 2 (20) "
        "and of each kind of Fig. 6 (56)",
    )
    parser.add_argument("--json", help="a file for the numbers of DR-KFS' Figs. 2 and 6")
    parser.add_argument("--shape", default="chair", help="procedural shape: airplane, car, chair or lamp")
    parser.add_argument("--mesh", help="a mesh file (obj, glb, ply, stl, off) instead")
    parser.add_argument("--seed", type=int, default=0, help="of the procedural shape and of the first points")
    parser.add_argument("--points", type=int, default=1000, help="points of the cloud")
    parser.add_argument("--steps", type=int, default=300, help="optimisation steps")
    parser.add_argument("--beta", type=float, default=1.0, help="weight of the repulsion (Fig. 5)")
    parser.add_argument(
        "--sigma", type=float, default=0.5, help="reach of the repulsion in 1/32 of the image (Fig. 5)"
    )
    parser.add_argument("--azimuth", type=float, default=35.0, help="of the camera, in degrees")
    parser.add_argument("--elevation", type=float, default=20.0, help="of the camera, in degrees")
    options = parser.parse_args(argv)
    name = options.figure
    if name not in FIGURES:
        close = difflib.get_close_matches(name, FIGURES, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(FIGURES)}."
        raise ReconlabError(f"there is no figure {name!r}; {hint}")
    out = Path(options.out)
    check_writable(out)
    if options.json and name not in COUNTS:
        raise ReconlabError(f"--json goes with {' and '.join(COUNTS)}: {name} has no numbers.")
    if options.json and (Path(options.json).is_dir() or not Path(options.json).absolute().parent.is_dir()):
        raise ReconlabError(f"--json is {options.json}; name a file in a folder that exists.")
    if options.count is None:
        options.count = COUNTS.get(name, 8)

    from reconlab.lab.pictures import save_picture

    if name in COUNTS:
        picture = measured_figure(name, options)
    elif name in (*GALLERIES, "drwr-fig11", "drwr-fig12"):
        picture = trained_figure(name, options)
    else:
        from reconlab.report.drwr_figures import Setting, draw_figure

        keys = ("shape", "seed", "points", "steps", "beta", "sigma", "azimuth", "elevation")
        mesh = None if options.mesh is None else Path(options.mesh)
        picture = draw_figure(name, Setting(mesh=mesh, **{k: getattr(options, k) for k in keys}))
    try:
        save_picture(picture, out)
    except OSError as error:
        raise ReconlabError(f"Cannot write --out {out}: {error.strerror or error}.") from error
    print(f"picture: {out}")
    return 0


def measured_figure(name: str, options: argparse.Namespace) -> Image:
    """A figure with a table: prints the table, writes ``--json``.

    Raises:
        ReconlabError: ``--count`` is below 1, or ``--json`` cannot be written.
    """
    import io
    import json

    from PIL import Image as Pictures

    from reconlab.lab.run_directory import provenance

    if options.count < 1:
        raise ReconlabError(f"--count is {options.count}; choose at least 1.")
    if name == "drkfs-fig2":
        from reconlab.report import drkfs_edits

        table = drkfs_edits.edit_table(options.count)
        report, figure = drkfs_edits.text(table), drkfs_edits.figure2(table)
    elif name == "metric-meaning":
        from reconlab.report import metric_meaning

        table = metric_meaning.tables(options.count, Path(options.root) if Path(options.root).is_dir() else None)
        report = "\n\n".join(metric_meaning.text(part, title) for title, part in table.items())
        figure = metric_meaning.figure(table)
    else:
        from reconlab.report import drkfs_bars

        table = drkfs_bars.table5(options.count)
        report, figure = drkfs_bars.text(table), drkfs_bars.figure6()
    print(report)
    if options.json:
        command = f"reconlab figure {name} --count {options.count}"
        command += f" --root {options.root}" if name == "metric-meaning" else ""
        text = json.dumps({"table": table, "command": command, **provenance(0)}, indent=1, default=str)
        try:
            Path(options.json).write_text(text + "\n")
        except OSError as error:
            raise ReconlabError(f"Cannot write --json {options.json}: {error.strerror or error}.") from error
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=100)
    return Pictures.open(image)


def trained_figure(name: str, options: argparse.Namespace) -> Image:
    """A figure of trained networks.

    Raises:
        ReconlabError: No checkpoint was given, or the figure takes one only.
    """
    from reconlab.report.trained_figures import (
        Samples,
        checkpoints_in,
        interpolation_figure,
        reconstructions_figure,
        training_figure,
    )

    given = [_titled(c) for c in options.checkpoint]
    if not given:
        raise ReconlabError(f"figure {name} needs --checkpoint FILE: train a network first (reconlab fit).")
    if options.count < 1:
        raise ReconlabError(f"--count is {options.count}; choose at least 1.")
    samples = Samples(options.root, options.category, options.split, options.seed)
    if name in GALLERIES:
        titles = [title for title, _ in given]
        if len(set(titles)) < len(titles):
            raise ReconlabError(f"--checkpoint: two rows are called {titles[-1]!r}; say title=file for each.")
        return reconstructions_figure(dict(given), samples, options.count)
    if name == "drwr-fig11":
        files = [f for _, path in given for f in (checkpoints_in(path) if path.is_dir() else [path])]
        return training_figure(files, samples)
    if len(given) > 1:
        raise ReconlabError(f"figure {name} takes one --checkpoint, not {len(given)}.")
    return interpolation_figure(given[0][1], samples, options.count)


def _titled(argument: str) -> tuple[str, Path]:
    """``title=file``, or a file, whose name is then the title (it may hold a ``=`` itself)."""
    title, equals, path = argument.partition("=")
    if equals and "/" not in title and not Path(argument).exists():
        return title, Path(path)
    return Path(argument).stem, Path(argument)


def check_writable(path: Path) -> None:
    """Find out before the work, not after it.

    Raises:
        ReconlabError: ``path`` is not a PNG file that can be written.
    """
    if path.suffix.lower() != ".png":
        raise ReconlabError(f"--out is {path}; figures are written as .png.")
    if path.is_dir():
        raise ReconlabError(f"--out {path} is a folder; name a file.")
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise ReconlabError(f"Cannot write --out {path}: {folder} is not a folder.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ReconlabError(f"Cannot write --out {path}: no permission to write in {folder}.")
