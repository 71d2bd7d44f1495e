"""Measuring a case, a growth or a build over processes: one record each, ready for JSON."""

from __future__ import annotations

import os
from typing import Any

from reconlab.bench.case import Case, Growing, Operator, Setting, check
from reconlab.bench.cases_growth import build_dataset
from reconlab.bench.fit import LEAST_SIZES, fit_growth
from reconlab.bench.timing import WALL, Clock, interleave, ratios, spread

BUDGET = 10.0
"""Seconds for the rounds of one measurement; see :func:`reconlab.bench.timing.interleave`."""
WORKER_SHAPES = (24, 72)

Record = dict[str, Any]


def measure_case(operator: Operator, case: Case, setting: Setting, rounds: int, clock: Clock) -> Record:
    """Check that the contestants agree, then time them in turns.

    Returns:
        The names, and per contestant its seconds and its ratio to the first (each median and quartiles), its
        difference from the first and the tolerance of it; ``problems`` of those that were not timed.
    """
    record: Record = {"operator": operator.name, "title": operator.title, "note": operator.note, "case": case.title}
    try:
        contestants = case.build(setting)
    except Exception as error:  # of a library below: one case is lost, not the run
        return {**record, "contestants": [], "problems": {"all": f"{type(error).__name__}: {error}"}}
    checked = check(contestants)
    first = next(iter(contestants))
    record |= {"contestants": [], "problems": checked.problems}
    if first not in checked.fit:
        return record
    times = interleave({n: c.run for n, c in checked.fit.items()}, rounds, clock, BUDGET, warm=True)
    relative = ratios(times)
    record["rounds"] = len(times[first])
    record["contestants"] = [
        {
            "name": name,
            "seconds": spread(times[name]).as_list(),
            "ratio": relative[name].as_list(),
            "difference": checked.differences[name],
            "tolerance": None if name == first else contestant.tolerance,
        }
        for name, contestant in checked.fit.items()
    ]
    return record


def measure_growth(growing: Growing, setting: Setting, rounds: int, clock: Clock) -> Record:
    """Time all sizes in turns and fit the exponent through their medians."""
    sizes = growing.sizes[:LEAST_SIZES] if setting.quick else growing.sizes
    record: Record = {"name": growing.name, "key": growing.key, "title": growing.title, "variable": growing.variable}
    record |= {"expected": growing.expected, "why": growing.why, "sizes": list(sizes), "clock": clock.name}
    try:
        functions = {str(size): growing.build(setting, size) for size in sizes}
        times = interleave(functions, rounds, clock, BUDGET)
        spreads = [spread(t) for t in times.values()]
        fit = fit_growth(sizes, [s.median for s in spreads], growing.expected)
    except Exception as error:
        return {**record, "problem": f"{type(error).__name__}: {error}"}
    record |= {"rounds": len(next(iter(times.values()))), "seconds": [s.as_list() for s in spreads]}
    return record | {"fit": fit.as_dict()}


def measure_workers(setting: Setting, rounds: int) -> Record:
    """Builds of two sizes over one process, two, and so on up to the cores: wall time.

    The difference between the sizes is the time of that many shapes with the workers already started.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counts = [w for w in (1, 2, 4, 8, 16) if w <= max(2, cores)]
    small, large = WORKER_SHAPES
    functions = {f"{w}:{n}": build_dataset(setting, n, w) for w in counts for n in WORKER_SHAPES}
    functions[f"1:{small}"]()  # what has to be compiled is compiled here, and found by the workers
    times = interleave(functions, rounds, WALL, BUDGET, warm=True)
    record: Record = {"key": "workers", "shapes": list(WORKER_SHAPES), "cores": cores, "clock": WALL.name}
    record |= {"rounds": len(times[f"1:{small}"]), "rows": []}
    whole = {w: spread(times[f"{w}:{large}"]).median for w in counts}
    more = {w: whole[w] - spread(times[f"{w}:{small}"]).median for w in counts}
    for w in counts:
        sped = more[1] / more[w] if more[1] > 0 and more[w] > 0 else None
        row = {"workers": w, "seconds": whole[w], "speedup": whole[1] / whole[w]}
        record["rows"].append({**row, "more_seconds": more[w], "more_speedup": sped})
    return record
