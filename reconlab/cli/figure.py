"""``reconlab figure``: a paper's figure, made anew."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from reconlab.errors import ReconlabError

FIGURES = {
    "drwr-fig3": "DRWR, Fig. 3: points under the binary and under the smooth silhouette loss",
    "drwr-fig5": "DRWR, Fig. 5: points under both of its losses",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ReconlabError(f"figure: {message.rstrip('.')} (reconlab figure --help says more).")


def main(argv: Sequence[str]) -> int:
    """Draw one figure into a PNG file."""
    parser = _Parser(
        "reconlab figure",
        description="Make a figure of a paper anew, in one PNG file.",
        epilog="\n".join(f"{name}  {text}" for name, text in FIGURES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("figure", metavar="FIGURE", help="one of those below")
    parser.add_argument("--out", required=True, help="the PNG file to write")
    parser.add_argument("--shape", default="chair", help="procedural shape: airplane, car, chair or lamp")
    parser.add_argument("--mesh", help="a mesh file (obj, glb, ply, stl, off) instead")
    parser.add_argument("--seed", type=int, default=0, help="of the procedural shape and of the first points")
    parser.add_argument("--points", type=int, default=1000, help="points of the cloud")
    parser.add_argument("--steps", type=int, default=300, help="optimisation steps")
    parser.add_argument("--beta", type=float, default=1.0, help="weight of the repulsion (Fig. 5)")
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

    from reconlab.lab.pictures import save_picture
    from reconlab.report.drwr_figures import Setting, draw_figure

    keys = ("shape", "seed", "points", "steps", "beta", "azimuth", "elevation")
    mesh = None if options.mesh is None else Path(options.mesh)
    picture = draw_figure(name, Setting(mesh=mesh, **{k: getattr(options, k) for k in keys}))
    try:
        save_picture(picture, out)
    except OSError as error:
        raise ReconlabError(f"Cannot write --out {out}: {error.strerror or error}.") from error
    print(f"picture: {out}")
    return 0


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
