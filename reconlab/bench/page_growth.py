"""The page's part on growth: exponents with how far to trust them, and builds over processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconlab.bench.page_text import duration, table


def growth_section(bench: dict[str, Any], picture: str | None) -> list[str]:
    """The fitted exponents, their picture if there is one, and builds over processes."""
    lines = ["## How cost grows", ""]
    fitted = [g for g in bench["growth"] if "fit" in g]
    if fitted:
        lines += [
            "The exponent b of a·sizeᵇ by least squares of the logarithms of the median times, with its standard "
            "error; beside it the exponent between the two largest sizes alone, and the one that the algorithm "
            "should have for large sizes. Every call also costs something that does not grow. Where that offset (of "
            "the best offset + c·size^expected) is more than half of the time, the last column says up to which "
            "size: the fitted exponent is then too low, and the last two sizes say more. Where those exceed what is "
            "expected, something else grows, too: data that outgrow the caches, say.",
            "",
        ]
        lines += growth_table(fitted)
    lines += [f"Not measured: {g['title']}: {g['problem']}.\n" for g in bench["growth"] if "problem" in g]
    if fitted and picture:
        lines += [f"![Time over size, both relative to the smallest size, on logarithmic axes]({picture})", ""]
    return lines + (_workers(bench["workers"]) if bench["workers"] else [])


def growth_table(fitted: Sequence[dict[str, Any]]) -> list[str]:
    """A row per cost."""
    head = ["", "in", "sizes", "time", "exponent", "last two", "expected", "R², farthest", "offset dominates"]
    return table(head, [_growth_row(g) for g in fitted])


def _growth_row(g: dict[str, Any]) -> list[str]:
    fit, seconds = g["fit"], [s[0] for s in g["seconds"]]
    until = fit["offset_until"]
    dominated = "nowhere" if until is None else f"up to {until:g} ({duration(fit['offset'])})"
    return [
        g["title"],
        g["variable"],
        f"{g['sizes'][0]}–{g['sizes'][-1]}",
        f"{duration(seconds[0])} – {duration(seconds[-1])}",
        f"{fit['exponent']:.2f} ± {fit['error']:.2f}",
        f"{fit['local']:.2f}",
        f"{g['expected']:g}: {g['why']}",
        f"{fit['r2']:.3f}, ×{fit['residual']:.2f}",
        dominated,
    ]


def _workers(record: dict[str, Any]) -> list[str]:
    small, large = record["shapes"]
    more = large - small
    rows = []
    for r in record["rows"]:
        sped = r["more_speedup"]
        rows.append(
            [
                str(r["workers"]),
                duration(r["seconds"]),
                f"{r['speedup']:.2f}, {r['speedup'] / r['workers']:.0%}",
                duration(r["more_seconds"]) if r["more_seconds"] > 0 else "–",
                "–" if sped is None else f"{sped:.2f}, {sped / r['workers']:.0%}",
            ]
        )
    head = ["workers", f"{large} shapes", "speed-up, efficiency", f"{more} more shapes", "speed-up, efficiency"]
    return [
        "### Dataset builds over processes",
        "",
        f"Wall time on {record['cores']} cores, so whatever else runs on the machine counts. The first two columns "
        f"are a whole build, start of the workers included; the last two what {more} further shapes cost once they "
        "have started, which is what a large build sees.",
        "",
        *table(head, rows),
    ]
