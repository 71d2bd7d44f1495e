"""Interleaved timing for the benchmarks: medians of CPU time, ratios to the first entry, JSON with its context."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

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
    """Median seconds of each, taken in turn so that a disturbance of the machine meets all of them.

    CPU time of the process: other processes on the machine then count little; with several threads it is the
    sum over threads.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    repeats: dict[str, int] = {}
    for name, function in contestants.items():
        function()
        start = time.process_time()
        function()
        repeats[name] = 5 if time.process_time() - start < 0.05 else 1
    for _ in range(rounds):
        for name, function in contestants.items():
            if repeats[name] > 1:
                function()  # not timed: the one before may have emptied the caches
            start = time.process_time()
            for _ in range(repeats[name]):
                function()
            times[name].append((time.process_time() - start) / repeats[name])
    return {name: statistics.median(values) for name, values in times.items()}


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
    import numba
    import numpy
    import scipy

    here = Path(__file__).resolve().parent
    git = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or None
    context = {
        "benchmark": Path(sys.argv[0]).name,
        "commit": commit,
        "machine": {"platform": platform.platform(), "processor": _processor(), "threads": options.threads},
        "versions": {
            "python": platform.python_version(),
            **{m.__name__: m.__version__ for m in (torch, numpy, numba, scipy)},
        },
        "clock": "CPU time, median",
        "rounds": options.rounds,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({**context, "results": records}, indent=1) + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
