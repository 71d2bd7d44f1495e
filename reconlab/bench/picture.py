"""The page's picture: how cost grows, on logarithmic axes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reconlab.errors import ReconlabError


def draw_growth(growths: Sequence[dict[str, Any]], path: Path) -> None:
    """Times over sizes, both relative to the smallest size's, with lines of exponents 1 and 2.

    Args:
        growths: Records of :func:`reconlab.bench.measure.measure_growth` with a fit.
        path: The PNG; its folder is made.

    Raises:
        ReconlabError: It cannot be written.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 3.6), dpi=110, layout="constrained")
    axes = figure.subplots()
    farthest, highest = 1.0, 1.0
    for place, g in enumerate(growths):
        size = [n / g["sizes"][0] for n in g["sizes"]]
        time = [s[0] / g["seconds"][0][0] for s in g["seconds"]]
        label = f"{g['title']} ({g['fit']['exponent']:.2f})"
        axes.plot(
            size,
            time,
            marker="osD^vP*X<>"[place % 10],
            ms=4,
            lw=1.2,
            color=colormaps["tab10"](place % 10),
            label=label,
        )
        farthest, highest = max(farthest, size[-1]), max(highest, *time)
    for exponent in (1, 2):
        end = min(farthest, highest ** (1 / exponent))
        axes.plot([1, end], [1, end**exponent], color="0.75", lw=2.5, zorder=0, solid_capstyle="butt")
        axes.annotate(f"exponent {exponent}", (end, end**exponent), fontsize=7, color="0.4", ha="right", va="bottom")
    axes.set(xscale="log", yscale="log", xlabel="size / smallest size", ylabel="time / time of the smallest size")
    axes.grid(which="major", color="0.92")
    figure.legend(loc="outside right upper", fontsize=7, frameon=False, title="cost (exponent)", title_fontsize=7)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise ReconlabError(f"Cannot write {path}: {error.strerror or error}.") from error
