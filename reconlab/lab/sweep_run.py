"""Runs the cells of a sweep on an engine, and can be killed at any moment: what is done is not done again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconlab.errors import ReconlabError
from reconlab.lab.engines import Engine, Work
from reconlab.lab.run_directory import commit, write_atomic
from reconlab.lab.sweep import Cell, Sweep
from reconlab.lab.sweep_cell import Job, kill_all, run_cell, spoken
from reconlab.lab.sweep_record import CellLock, DiskFullError, disk, is_held, read_record
from reconlab.lab.sweep_show import Show
from reconlab.threads import cores, environment

POLL = 0.2


@dataclass
class Outcome:
    """What a run of a sweep came to.

    Attributes:
        done: Cells with values, earlier ones among them.
        failed: Reason by cell.
        left: Cells that are still to run, after an interruption or a full disk.
        stopped: Whether the user stopped it.
        full: What to say of a full disk.
    """

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    stopped: bool = False
    full: str | None = None


@contextmanager
def claimed(
    folder: Path, sweep: Sweep, cells: Sequence[Cell], profile: str | None, extra: Sequence[str]
) -> Iterator[None]:
    """Hold the sweep's folder, which must be new or this sweep's own.

    Raises:
        ReconlabError: Another sweep is there, another process runs this one, or the folder cannot be written.
    """
    lock = CellLock(folder)
    try:
        if not lock.take():
            raise ReconlabError(f"Another process runs the sweep in {folder}: wait for it, or choose another --out.")
        path = folder / "sweep.json"
        shared = {c.name: list(c.options) for c in cells}
        mine = {"name": sweep.name, "profile": profile, "extra": list(extra), "command": list(sweep.command)}
        before: dict[str, Any] = {}
        if path.exists():
            try:
                before = _read_sweep(path)
            except (OSError, ValueError) as error:
                raise ReconlabError(
                    f"{path} is damaged: move it away and run the sweep again with the same options; its cells stay."
                ) from error
            _refuse_other(folder, before, mine, shared)
        content = {
            **mine,
            "file": str(sweep.file),
            "cells": sorted(
                {*before.get("cells", []), *shared},
                key=list({**dict.fromkeys(shared), **dict.fromkeys(before.get("cells", []))}).index,
            ),
            "options": {**before.get("options", {}), **shared},
            "commit": commit(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "first_time": before.get("first_time") or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        with disk(path):
            write_atomic(path, json.dumps(content, indent=1) + "\n")
        yield
    finally:
        lock.close()


def _read_sweep(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise ValueError("it lists no cells")
    if not isinstance(content.get("options", {}), dict):
        raise ValueError("its options are no mapping")
    return content


def _refuse_other(folder: Path, before: dict[str, Any], mine: dict[str, Any], options: dict[str, list[str]]) -> None:
    for key, said in (
        ("name", "the name"),
        ("profile", "the profile"),
        ("extra", "the options"),
        ("command", "the command"),
    ):
        if before.get(key) != mine[key]:
            old, new = (" ".join(map(str, v)) if isinstance(v, list) else v for v in (before.get(key), mine[key]))
            raise ReconlabError(
                f"{folder} holds a sweep with {said} {old or 'none'}, not {new or 'none'}: choose another --out, or "
                "run it as it was."
            )
    for name, words in (before.get("options") or {}).items():
        if name in options and options[name] != words:
            changed = sorted(set(map(str, words)) ^ set(options[name]))
            raise ReconlabError(
                f"{folder} holds the cell {name} with other options ({' '.join(changed)}): choose another --out, or "
                "give the table's profile its old options."
            )


def run_sweep(
    folder: Path,
    sweep: Sweep,
    cells: Sequence[Cell],
    engine: Engine,
    *,
    profile: str | None = None,
    jobs: int = 1,
    local: bool = True,
    retry: bool = False,
    keep: str = "last",
    show: Show | None = None,
    steps: Mapping[str, int | None] | None = None,
) -> Outcome:
    """Run what is not done, ``jobs`` cells at a time; the caller holds the folder (:func:`claimed`).

    Args:
        folder: Of the sweep.
        sweep: The sweep.
        cells: To run, in order.
        engine: Where.
        profile: Recorded beside each cell.
        jobs: Cells at once.
        local: Whether they share this machine: threads and devices are then dealt out.
        retry: Run failed cells again.
        keep: Checkpoints of finished cells that stay: ``all``, ``last`` or ``none``.
        show: Tells the user how it goes.
        steps: Of each cell's training, for the estimate of the time left.

    Raises:
        ReconlabError: A cell's folder cannot be read or written.
    """
    show = show or Show([c.name for c in cells], steps or {})
    outcome = Outcome()
    waiting: list[Job] = []
    _refuse_renamed(folder, cells)
    for cell in cells:
        job = _job(folder, sweep, cell, profile, retry, keep)
        state, reason = _state(job, show)
        if state == "done":
            outcome.done.append(cell.name)
            show.known(cell.name, "done")
        elif state == "failed" and not retry:
            outcome.failed[cell.name] = reason
            show.known(cell.name, "failed", reason)
        else:
            waiting.append(job)
    held = {job.folder for job in waiting if is_held(job.folder)}  # runs already: waited for first
    waiting.sort(key=lambda job: job.folder not in held)
    slots = deal(jobs, [c.command for c in cells]) if local else [{} for _ in range(jobs)]
    running: list[tuple[Job, Work, dict[str, str]]] = []
    stops = 0
    with _signals() as pressed, show:
        while waiting or running:
            try:
                while waiting and slots and not outcome.full and not pressed:
                    job, slot = waiting.pop(0), slots.pop(0)
                    job = Job(**{**vars(job), "environment": slot})
                    show.began(job.folder, orphan=job.folder in held)
                    running.append((job, engine.submit(run_cell, job), slot))
                if not running:
                    break
                for entry in [e for e in running if e[1].done()]:
                    running.remove(entry)
                    slots.append(entry[2])
                    _finish(entry[0], entry[1], outcome, show)
                show.tick()
                if running:
                    time.sleep(POLL)
            except KeyboardInterrupt:
                pressed.append(signal.SIGINT)
            while stops < len(pressed):
                stops += 1
                outcome.stopped = True
                show.say(
                    f"stopping {len(running)} cells, which save their state first; Ctrl-C again kills them."
                    if stops == 1
                    else "killing them."
                )
                if stops > 1:
                    kill_all()
                for _, work, _ in running:
                    with contextlib.suppress(Exception):
                        work.cancel()
    outcome.left += [job.folder.name for job in waiting]
    return outcome


def _job(folder: Path, sweep: Sweep, cell: Cell, profile: str | None, retry: bool, keep: str) -> Job:
    place = (folder / "cells" / cell.name).resolve()
    record = {
        "cell": cell.name,
        "sweep": sweep.name,
        "row": cell.row,
        "group": cell.group,
        "seed": cell.seed,
        "parameters": dict(cell.parameters),
        "profile": profile,
        "command": spoken(cell.command, os.getcwd()),
    }
    attempts = 0
    with contextlib.suppress(ReconlabError):
        attempts = (read_record(place) or {}).get("attempts", 0)
    return Job(place, tuple(cell.command), record, attempts, retry, {}, os.getcwd(), keep)


def _refuse_renamed(folder: Path, cells: Sequence[Cell]) -> None:
    """A sweep file that was edited may call its cells otherwise: they would all be run a second time."""
    wanted = {_text(cell.parameters): cell.name for cell in cells if not (folder / "cells" / cell.name).exists()}
    there = sorted((folder / "cells").iterdir()) if wanted and (folder / "cells").is_dir() else []
    for place in there:
        record = None
        with contextlib.suppress(ReconlabError):
            record = read_record(place)
        name = wanted.get(_text((record or {}).get("parameters") or {}))
        if name is not None:
            raise ReconlabError(
                f"The cell {name} is in {place} already, under its older name: rename that folder to {name}, or "
                "choose another --out."
            )


def _text(parameters: Mapping[str, Any]) -> str:
    return json.dumps(dict(parameters), sort_keys=True, default=str)


def _state(job: Job, show: Show) -> tuple[str, str]:
    """What is recorded of a cell, with a word on what is wrong with it."""
    try:
        record = read_record(job.folder)
    except ReconlabError as error:
        show.say(f"{str(error).rstrip('.')}: the cell's run directories are looked at instead.")
        return "running", ""
    if record is None:
        return "new", ""
    if record.get("parameters") != json.loads(json.dumps(dict(job.record["parameters"]), default=str)):
        raise ReconlabError(
            f"{job.folder} is of other parameters ({record.get('parameters')}): choose another --out, or "
            "move it away."
        )
    if record.get("profile", job.record["profile"]) != job.record["profile"]:  # sweep.json was moved away
        raise ReconlabError(
            f"{job.folder} was run at the profile {record['profile'] or 'none'}, not "
            f"{job.record['profile'] or 'none'}: choose another --out, or move it away."
        )
    if record["state"] == "done" and not (job.folder / str(record.get("run")) / "run.json").is_file():
        show.say(
            f"{job.folder / str(record.get('run'))} is gone or incomplete; its values are still in cell.json. "
            f"To run the cell again, move {job.folder} away."
        )
    return str(record["state"]), str(record.get("reason") or "")


def _finish(job: Job, work: Work, outcome: Outcome, show: Show) -> None:
    name = job.folder.name
    try:
        record = work.result()
    except DiskFullError as error:
        outcome.full = str(error)
        outcome.left.append(name)
        show.ended(job.folder, {"state": "left", "reason": str(error)})
        return
    except KeyboardInterrupt:
        record = {**job.record, "state": "running", "reason": "interrupted"}
    except ReconlabError as error:  # the engine's own: a job cancelled, a worker gone, a folder not writable
        record = {**job.record, "state": "running" if outcome.stopped else "failed", "reason": str(error)}
    except Exception as error:  # a bug, or a worker's error: the other cells go on
        record = {**job.record, "state": "failed", "reason": f"unexpected {type(error).__name__}: {error}"}
    if record["state"] == "done":
        outcome.done.append(name)
    elif record["state"] == "failed":
        outcome.failed[name] = str(record.get("reason"))
    else:
        outcome.left.append(name)
    show.ended(job.folder, record)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """SIGTERM stops as Ctrl-C does; and a sweep in a script's background hears Ctrl-C, as its trainings must.

    Both are noted in the list rather than raised: an exception between the start of a training and its entry among
    the running ones would leave it behind.
    """
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    before = {s: signal.signal(s, lambda number, _: pressed.append(number)) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield pressed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def deal(jobs: int, commands: Sequence[Sequence[str]] = ()) -> list[dict[str, str]]:
    """The environments of ``jobs`` places on this machine: each its threads and, where there are GPUs, its own.

    A place has as many GPUs as the cells' ``trainer.devices`` say, else one: a training that took all it sees would
    change its batch with the machine. Places beyond the GPUs share them.

    Args:
        jobs: Places.
        commands: Of the cells.

    Example:
        >>> sorted(deal(1)[0])[-1:]
        ['RECONLAB_THREADS']
    """
    given = {k: os.environ.get(k) or v for k, v in environment(cores() // jobs).items()}
    gpus = visible_gpus()
    wanted = [w.split("=", 1)[1] for c in commands for w in c if w.startswith("--trainer.devices=")]
    each = max([int(w) for w in wanted if w.isdigit()], default=1)
    places = []
    for i in range(jobs):
        place = dict(given)
        if gpus:
            first = (i * each) % len(gpus)
            place["CUDA_VISIBLE_DEVICES"] = ",".join((gpus * 2)[first : first + min(each, len(gpus))])
        places.append(place)
    return places


def visible_gpus() -> list[str]:
    """Names of this machine's GPUs, as ``CUDA_VISIBLE_DEVICES`` wants them; without importing torch."""
    limited = os.environ.get("CUDA_VISIBLE_DEVICES")
    if limited is not None:
        return [d.strip() for d in limited.split(",") if d.strip() not in ("", "-1")]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = subprocess.run(  # noqa: S603
            [program, "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split() if done.returncode == 0 else []


def print_plan(cells: Sequence[Cell], steps: Mapping[str, int | None]) -> None:
    """The commands of ``--dry-run``, and what they come to."""
    for cell in cells:
        sys.stdout.write(f"{spoken(cell.command, os.getcwd())}\n")
    known = [s for c in cells if (s := steps.get(c.name))]
    total = f"{sum(known)} training steps" + ("" if len(known) == len(cells) else " in those that say how many")
    sys.stdout.write(f"{len(cells)} cells, {total}.\n")
