"""The benchmark page: Markdown made of the JSON alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reconlab.bench.page_growth import growth_section, growth_table
from reconlab.bench.page_text import duration, number, table
from reconlab.bench.peers import PEERS
from reconlab.bench.results import GpuTable
from reconlab.errors import ReconlabError

PICTURE = "images/growth.png"
"""Relative to the page."""
NO_GPU = (
    "No GPU was at hand where this page was made: figures on a GPU are missing. On a machine with one, "
    "`python benchmarks/gpu_check.py --out gpu.json` or `reconlab bench --device cuda --out DIR` measures them, and "
    "`--gpu FILE` puts either into this page."
)

Gpu = dict[str, Any] | GpuTable


def page(bench: dict[str, Any], gpus: Sequence[Gpu] = (), picture: bool = True) -> str:
    """The page.

    Args:
        bench: Content of a ``bench.json``.
        gpus: Measurements on GPUs.
        picture: Whether :data:`PICTURE` is there, if anything has grown.

    Raises:
        ReconlabError: Something that must be in the JSON is not, or is of another kind.
    """
    try:
        lines = [*_intro(bench), *_machine(bench)]
        if bench["cases"]:
            lines += ["## Ratios", "", *_how_to_read(bench), *_operators(bench["cases"], "###")]
        if bench["growth"] or bench["workers"]:
            lines += growth_section(bench, PICTURE if picture else None)
        lines += _on_gpus(bench, gpus)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ReconlabError(
            f"The benchmark's JSON is damaged ({type(error).__name__}: {error}): measure again with --fresh."
        ) from error
    return "\n".join(lines).rstrip("\n") + "\n"


def write_page(bench: dict[str, Any], gpus: Sequence[Gpu], path: Path) -> None:
    """Write the page and its picture beside it.

    Raises:
        ReconlabError: The folder cannot be written, or the JSON is damaged.
    """
    from reconlab.bench.picture import draw_growth
    from reconlab.lab.run_directory import write_atomic

    grown = [g for g in bench.get("growth") or () if isinstance(g, dict) and "fit" in g]
    text = page(bench, gpus, picture=bool(grown))
    if grown:
        draw_growth(grown, path.parent / PICTURE)
    write_atomic(path, text)


def _intro(bench: dict[str, Any]) -> list[str]:
    seconds = bench["wall_seconds"]
    return [
        "# Benchmarks",
        "",
        "<!-- Made by `reconlab bench`; edits are lost. -->",
        "",
        f"Made by {_commands(bench)} in {_minutes(seconds)}. `reconlab bench --list` "
        "names what is measured, `--only NAMES` measures some of it, `--from bench.json --page FILE` makes the page "
        "anew. A peer takes part with `--peer NAME` where it is installed "
        f"({_peers(bench)}). The scripts in `benchmarks/` ask one question each more deeply; the pages that cite "
        "their figures name them.",
        "",
    ]


def _records(bench: dict[str, Any]) -> list[dict[str, Any]]:
    return [*bench["cases"], *bench["growth"], *filter(None, [bench["workers"]])]


def _commands(bench: dict[str, Any]) -> str:
    """The command of the most measurements first: a part may have been measured again by another."""
    last = bench["command"] or "reconlab bench --out DIR"
    count = Counter(record.get("command") or last for record in _records(bench))
    return ", and parts by ".join(f"`{command}`" for command, _ in count.most_common()) or f"`{last}`"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _peers(bench: dict[str, Any]) -> str:
    there = [peer.title for name, peer in PEERS.items() if name in bench["peers"]]
    away = [peer.title for name, peer in PEERS.items() if name not in bench["peers"]]
    found = [f"here: {', '.join(there) or 'none'}"] + ([f"not here: {', '.join(away)}"] if away else [])
    return "; ".join(found)


def _machine(bench: dict[str, Any]) -> list[str]:
    machine = bench["machine"]
    commits = {record.get("commit") for record in _records(bench)}
    others = sorted({_commit(c) for c in commits - {bench["commit"]}})
    commit = _commit(bench["commit"]) + (f"; parts at {', '.join(others)}" if others else "")
    load = " to ".join(f"{x:.1f}" for x in (machine.get("load"), machine.get("load_after")) if x is not None)
    rows = [
        ["processor", f"{machine['processor']}, {machine['cores']} cores"],
        ["GPU", machine["accelerator"] or "none"],
        ["platform", machine["platform"]],
        ["measured on", f"{bench['device']}, {machine['threads']} thread{'s' * (machine['threads'] != 1)}"],
        ["clock", f"{bench['clock']}; at most {bench['rounds']} rounds"],
        ["load of the machine", f"{load} processes" if load else "not known"],
        ["commit", commit],
        ["versions", ", ".join(f"{k} {v}" for k, v in {"Python": bench["python"], **bench["versions"]}.items())],
        ["seed, time", f"{bench['seed']}, {bench['time']}"],
    ]
    return ["## Machine", "", *table(["", ""], rows)]


def _commit(commit: str | None) -> str:
    """Twelve digits, and whether files had been edited."""
    if not commit:
        return "not of a checkout"
    return commit[:12] + ("+changes" if commit.endswith("+changes") else "")


def _how_to_read(bench: dict[str, Any]) -> list[str]:
    return [
        "Ratios of time, the first column being 1: more is slower than it. All contestants of a row run in turns in "
        "one process, and a ratio is taken of each round: the median, in brackets the quartiles. Before anything is "
        "timed their answers are compared; the last column is the largest difference (root mean square over that of "
        "the answer) of the row, and whose it is where it exceeds a thousandth. Ratios "
        "carry over to other machines better than the times do.",
        "",
    ]


def _operators(cases: Sequence[dict[str, Any]], level: str) -> list[str]:
    lines: list[str] = []
    for title in dict.fromkeys(case["title"] for case in cases):
        own = [case for case in cases if case["title"] == title]
        names = list(dict.fromkeys(c["name"] for case in own for c in case["contestants"]))
        rows = [[case["case"], *_cells(case, names), _apart(case)] for case in own]
        lines += [f"{level} {title}", "", own[0]["note"], "", *table(["", *names, "answers differ by"], rows)]
        failed = [f"{case['case']}: {n}: {text}." for case in own for n, text in case["problems"].items()]
        lines += [f"Not timed: {sentence}\n" for sentence in failed]
    return lines


def _cells(case: dict[str, Any], names: Sequence[str]) -> list[str]:
    found = {c["name"]: c for c in case["contestants"]}
    cells = []
    for name in names:
        if name not in found:
            cells.append("–")
        elif name == case["contestants"][0]["name"]:
            cells.append(f"1 ({duration(found[name]['seconds'][0])})")
        else:
            middle, low, high = (number(v) for v in found[name]["ratio"])
            cells.append(middle if low == high else f"{middle} ({low}–{high})")
    return cells


def _apart(case: dict[str, Any]) -> str:
    apart = [(c["difference"], c["name"]) for c in case["contestants"] if c["difference"] is not None]
    if not apart:
        return "–"
    most, whose = max(apart)
    return "0" if most == 0 else f"{most:.0e}" + (f" ({whose})" if most > 1e-3 and len(apart) > 1 else "")


def _on_gpus(bench: dict[str, Any], gpus: Sequence[Gpu]) -> list[str]:
    lines = ["## On a GPU", ""]
    if not gpus:
        here = str(bench["device"]).startswith("cuda")
        return [*lines, f"All figures above are of {bench['machine']['accelerator']}." if here else NO_GPU]
    for gpu in gpus:
        if isinstance(gpu, GpuTable):
            lines += _gpu_check(gpu)
        else:
            name = gpu["machine"]["accelerator"]
            lines += [f"### {name}: reconlab bench", "", f"Commit {_commit(gpu['commit'])}; {gpu['clock']}.", ""]
            lines += _operators(gpu["cases"], "####")
            fitted = [g for g in gpu["growth"] if "fit" in g]
            if fitted:
                lines += ["#### How cost grows", "", *growth_table(fitted)]
    return lines


def _gpu_check(gpu: GpuTable) -> list[str]:
    rows, failed = [], []
    for row in gpu.rows:
        ours, error = row.get("ours_ms"), row.get("error")
        cells = [str(row["operator"]), str(row.get("case", ""))]
        cells.append("–" if ours is None else f"1 ({duration(ours / 1e3)})")
        cells += [_ratio(row, key) for key in ("reference", "compiled", "roofline")]
        rows.append([*cells, "–" if error is None else f"{error:.0e}"])
        name = ", ".join(cells[:2])
        if row.get("problem"):
            failed.append(f"Not timed: {name}: {' '.join(str(row['problem']).split())}.\n")
        elif row.get("right") is False:
            failed.append(f"Wrong: {name}: more than {row.get('tolerance', 'allowed')} off.\n")
    head = ["operator", "case", "reconlab", "torch reference", "torch.compile", "roofline", "error"]
    commit = f" at commit {_commit(gpu.commit)}" if gpu.commit else ""
    return [
        f"### {gpu.machine}: each operator",
        "",
        f"By `python benchmarks/gpu_check.py`{commit}: time over ours; the roofline is the least time that the "
        "operator's bytes and operations take on that GPU, so that 0.5 is half of what is possible; the error is "
        "against the reference in float64.",
        "",
        *table(head, rows),
        *failed,
    ]


def _ratio(row: dict[str, Any], key: str) -> str:
    value = row.get(f"ratio_{key}")
    if value is None and row.get(f"{key}_ms") is not None and row.get("ours_ms"):
        value = row[f"{key}_ms"] / row["ours_ms"]
    return "–" if value is None else number(value)
