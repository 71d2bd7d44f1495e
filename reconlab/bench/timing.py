"""Timing several functions in turns within one process, so that a disturbance of the machine meets all of them alike.

A ratio of two times taken in the same round means more than either time: it is what is reported.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Function = Callable[[], Any]

LONG_ENOUGH = 0.05
"""Seconds; what takes less is called several times within one measurement."""
WARMED = 0.5
"""Seconds; what takes less is called once untimed before each measurement, and what takes more warms itself."""
MOST_CALLS = 50
LEAST_ROUNDS = 2


class Clock(Protocol):
    """Says how long a call takes."""

    @property
    def name(self) -> str:
        """What is measured, for the record."""

    def __call__(self, function: Function, calls: int) -> float:
        """Seconds of one call, the mean of ``calls`` of them."""


@dataclass(frozen=True)
class HostClock:
    """A clock of the processor.

    Attributes:
        name: What it measures.
        now: Seconds since some moment.
    """

    name: str
    now: Callable[[], float]

    def __call__(self, function: Function, calls: int) -> float:
        """Seconds of one call."""
        start = self.now()
        for _ in range(calls):
            function()
        return (self.now() - start) / calls


@dataclass(frozen=True)
class CudaClock:
    """Time between two events on the current stream of a GPU, launches and gaps between kernels included."""

    name: str = "time between CUDA events"

    def __call__(self, function: Function, calls: int) -> float:
        """Seconds of one call."""
        import torch

        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        for _ in range(calls):
            function()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end)) / 1e3 / calls


CPU = HostClock("CPU time of the process", time.process_time)
"""Other processes on the machine count little in it; of several threads it is the sum."""
WALL = HostClock("wall time", time.perf_counter)


def clock_for(device: str, threads: int) -> Clock:
    """CUDA events on a GPU; CPU time of one thread; wall time of several, whose CPU time is no speed."""
    if device.startswith("cuda"):
        return CudaClock()
    return CPU if threads == 1 else WALL


def interleave(
    functions: Mapping[str, Function],
    rounds: int,
    clock: Clock = CPU,
    budget: float = math.inf,
    warm: bool = False,
) -> dict[str, list[float]]:
    """Time every function once a round, in their order, round after round.

    A function is called once untimed (it may have to compile) and once or twice to learn how long it takes; a short
    one is then called several times per measurement, after one call that is not timed: the function before it may
    have emptied the caches, and a long one leaves even more that has to be fetched again.

    Args:
        functions: What to time.
        rounds: Measurements of each.
        clock: Tells the time of a call.
        budget: Seconds for all rounds together; fewer rounds, but two, are taken if they would last longer.
        warm: The functions have been called already.

    Returns:
        Seconds per call of each function, one number per round.
    """
    calls: dict[str, int] = {}
    once: dict[str, float] = {}
    cost = 0.0
    for name, function in functions.items():
        if not warm:
            function()
        once[name] = clock(function, 1)
        if once[name] < WARMED:
            once[name] = min(once[name], clock(function, 1))
        calls[name] = calls_for(once[name])
        cost += once[name] * (calls[name] + (once[name] < WARMED))
    if cost > 0 and math.isfinite(budget):
        rounds = min(rounds, max(LEAST_ROUNDS, int(budget / cost)))
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            if once[name] < WARMED:
                function()
            times[name].append(clock(function, calls[name]))
    return times


def calls_for(seconds: float) -> int:
    """Calls per measurement of a function that takes so long."""
    if seconds <= 0:
        return MOST_CALLS
    return min(MOST_CALLS, max(1, math.ceil(LONG_ENOUGH / seconds)))


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    def as_list(self) -> list[float]:
        """For JSON."""
        return [self.median, self.low, self.high]


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles, between neighbours as NumPy's ``linear``.

    Example:
        >>> spread([1.0, 2.0, 3.0, 4.0])
        Spread(median=2.5, low=1.75, high=3.25)
    """
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(statistics.median(values), low, high)


def ratios(times: Mapping[str, Sequence[float]]) -> dict[str, Spread]:
    """Each function's time over the first one's of the same round.

    Example:
        >>> ratios({"ours": [1.0, 2.0], "theirs": [3.0, 6.0]})["theirs"]
        Spread(median=3.0, low=3.0, high=3.0)
    """
    first = next(iter(times.values()))
    return {name: spread([t / max(f, 1e-12) for t, f in zip(own, first, strict=True)]) for name, own in times.items()}
