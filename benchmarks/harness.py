"""What the benchmarks here share: options, and ``reconlab.bench``'s timing and record in their own small JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reconlab.bench.machine import context
from reconlab.bench.timing import CPU, interleave, spread
from reconlab.threads import limit_threads


def parse(description: str | None, peers: Sequence[str] = ()) -> argparse.Namespace:
    """The options that all benchmarks share; limits the process to ``--threads``.

    ``options.peers`` are those of ``peers`` (libraries or compilers that need not be there) that were asked for.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, after one to warm up (default 5)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and of the kernels (default 1)")
    if peers:
        parser.add_argument("--peer", dest="peers", action="append", default=[], choices=peers, help="measure it too")
    options = parser.parse_args()
    limit_threads(options.threads)
    return options


def measure(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each, taken in turn so that a disturbance of the machine meets all of them.

    With several threads it is the sum over threads.
    """
    return {name: spread(times).median for name, times in interleave(contestants, rounds, CPU).items()}


def show(title: str, seconds: dict[str, float]) -> dict[str, Any]:
    """Print one comparison, the first entry being 1, and return its record."""
    first = next(iter(seconds.values()))
    print(f"\n{title}")
    for name, value in seconds.items():
        print(f"  {name:<34}{1e3 * value:>10.2f} ms {value / first:>8.2f}x")
    return {"case": title, "seconds": seconds, "ratio": {name: value / first for name, value in seconds.items()}}


def save(records: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Write the records with machine, commit and versions, if ``--out`` was given."""
    if options.out is None:
        return
    where = context(0, options.threads)
    content = {
        "benchmark": Path(sys.argv[0]).name,
        "commit": where["commit"],
        "machine": where["machine"],
        "versions": {"python": where["python"], **where["versions"]},
        "clock": f"{CPU.name}, median",
        "rounds": options.rounds,
        "results": records,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(content, indent=1) + "\n")
