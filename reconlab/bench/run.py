"""A whole benchmark: every measurement's record on disk as it is finished, and all of them in ``bench.json``."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from reconlab.bench.case import Setting
from reconlab.bench.catalogue import GROWTHS, OPERATORS, WORKERS, Choice
from reconlab.bench.machine import context, load
from reconlab.bench.measure import measure_case, measure_growth, measure_workers
from reconlab.bench.timing import WALL, Clock, clock_for
from reconlab.errors import ReconlabError
from reconlab.lab.run_directory import write_atomic
from reconlab.threads import limited

SCHEMA = "reconlab.bench/1"
PARTS = "cases"
"""Folder of the finished records within ``--out``."""


def run(
    out: Path,
    choice: Choice,
    setting: Setting,
    rounds: int,
    thread_count: int,
    fresh: bool = False,
    command: str = "",
    say: Callable[[str], None] = lambda sentence: None,
) -> dict[str, Any]:
    """Measure what is chosen and not there yet; write ``bench.json`` of all that is there, chosen now or before.

    A record belongs to the machine, the libraries and the settings that it was measured with; those of others are
    measured again when chosen, and left out when not. One of another commit or command is kept, and says so.

    Args:
        out: The folder.
        choice: What to measure.
        setting: Device, peers, seed and size.
        rounds: Of each measurement, at most.
        thread_count: Of torch and the kernels.
        fresh: Measure everything that is chosen again.
        command: As a user typed it, for the record.
        say: Told every measurement.

    Returns:
        The content of ``bench.json``.

    Raises:
        ReconlabError: The folder cannot be written, or holds a damaged file.
        KeyboardInterrupt: After Ctrl-C; the records finished so far are in ``bench.json``.
    """
    whole = context(setting.seed, thread_count, setting.peers)
    clock = clock_for(setting.device, thread_count)
    machine = whole["machine"]
    settings: dict[str, Any] = {"device": setting.device, "threads": thread_count, "rounds": rounds}
    settings |= {"quick": setting.quick, "seed": setting.seed, "peers": sorted(setting.peers)}
    settings |= {"processor": machine["processor"], "accelerator": machine["accelerator"]}
    settings |= {"versions": whole["versions"]}
    head = {"schema": SCHEMA, "command": command, **whole, "clock": clock.name, **settings}
    parts = _Parts(out / PARTS, settings, {"commit": whole["commit"], "command": command})
    jobs = list(_jobs(choice, setting, rounds, clock))
    keys = [key for key, _, _ in jobs]
    ready = {} if fresh else parts.read(keys)
    if ready:
        other = sum(record.get("commit") != whole["commit"] for record in ready.values())
        aside = f" ({other} of another commit; --fresh measures them anew)" if other else ""
        say(f"{len(ready)} of {len(jobs)} measurements are there already{aside}.")
    try:
        with tempfile.TemporaryDirectory(prefix="reconlab-bench-") as scratch, limited(thread_count):
            here = replace(setting, scratch=Path(scratch))
            for number, (key, title, work) in enumerate(jobs, 1):
                if key in ready:
                    continue
                start = time.monotonic()
                record = work(here)
                record["wall_seconds"] = round(time.monotonic() - start, 2)
                parts.write(key, record)
                say(f"[{number}/{len(jobs)}] {title}: {sentence(record)} ({record['wall_seconds']:.1f} s)")
    finally:
        records = parts.read([key for key, _, _ in _jobs(_everything(), setting, rounds, clock)])
        head["wall_seconds"] = round(sum(record["wall_seconds"] for record in records.values()), 1)
        head["machine"] = {**machine, "load_after": load()}
        content = {**head, **_sorted(records)}
        write_atomic(out / "bench.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    return content


def problems(content: dict[str, Any]) -> list[str]:
    """A sentence for each contestant that could not be timed."""
    found = [
        f"{case['title']}, {case['case']}: {name}: {text}."
        for case in content["cases"]
        for name, text in case["problems"].items()
    ]
    return found + [f"{g['title']}: {g['problem']}." for g in content["growth"] if "problem" in g]


def sentence(record: dict[str, Any]) -> str:
    """A record in some words."""
    if "rows" in record:
        return ", ".join(f"{r['workers']} workers {r['speedup']:.2f}×" for r in record["rows"])
    if "sizes" in record:
        if "problem" in record:
            return str(record["problem"])
        return f"exponent {record['fit']['exponent']:.2f}, expected {record['expected']:g}"
    found = [f"{c['name']} {c['ratio'][0]:.2f}" for c in record["contestants"][1:]]
    if record["contestants"]:
        first = record["contestants"][0]
        found.insert(0, f"{first['name']} 1 = {1e3 * first['seconds'][0]:.2f} ms")
    return ", ".join([*found, *(f"{name}: {text}" for name, text in record["problems"].items())])


Job = tuple[str, str, Callable[[Setting], dict[str, Any]]]


def _jobs(choice: Choice, setting: Setting, rounds: int, clock: Clock) -> Iterator[Job]:
    """Key, title and work of every measurement."""
    for operator, case in choice.cases:
        work = partial(measure_case, operator, case, rounds=rounds, clock=clock)
        yield f"{operator.name}-{case.key}", f"{operator.title}, {case.title}", work
    for growing in choice.growths:
        yield f"growth-{growing.key}", growing.title, partial(measure_growth, growing, rounds=rounds, clock=clock)
    if choice.workers:
        yield f"growth-{WORKERS}", f"Builds over processes, {WALL.name}", partial(measure_workers, rounds=rounds)


def _everything() -> Choice:
    return Choice(tuple((o, c) for o in OPERATORS for c in o.cases), GROWTHS, True)


def _sorted(records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Records by kind, in the catalogue's order."""
    content: dict[str, Any] = {"cases": [], "growth": [], "workers": None}
    for key, record in records.items():
        if key == f"growth-{WORKERS}":
            content["workers"] = record
        else:
            content["growth" if key.startswith("growth-") else "cases"].append(record)
    return content


class _Parts:
    """Finished records, a file each, with the settings that they belong to."""

    def __init__(self, folder: Path, settings: dict[str, Any], origin: dict[str, str | None]) -> None:
        self.folder, self.settings, self.origin = folder, json.loads(json.dumps(settings)), origin
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ReconlabError(f"--out {folder.parent} cannot be written: {error.strerror or error}.") from error

    def path(self, key: str) -> Path:
        return self.folder / f"{re.sub(r'[^A-Za-z0-9.-]', '_', key)}.json"

    def read(self, keys: list[str]) -> dict[str, dict[str, Any]]:
        """The records of these keys that belong to the settings."""
        found = {}
        for key in keys:
            path = self.path(key)
            if not path.is_file():
                continue
            try:
                stored = json.loads(path.read_text(encoding="utf-8"))
                settings, record = stored["settings"], dict(stored["record"])
                record["wall_seconds"] = float(record["wall_seconds"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise ReconlabError(f"{path} is damaged: remove it, and it is measured again.") from error
            if settings == self.settings:
                found[key] = record
        return found

    def write(self, key: str, record: dict[str, Any]) -> None:
        content = {"settings": self.settings, "record": {**record, **self.origin}}
        write_atomic(self.path(key), json.dumps(content, indent=1, allow_nan=False) + "\n")
