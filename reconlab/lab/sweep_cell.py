"""Runs one cell: an ordinary ``reconlab fit`` in a process of its own, resumed or only tested where it can be."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconlab.errors import ReconlabError
from reconlab.lab.engines import stop_event
from reconlab.lab.sweep_record import (
    LOG,
    CellLock,
    DiskFullError,
    Progress,
    disk,
    is_whole,
    last_words,
    look,
    measured,
    read_record,
    write_record,
)

POLL = 0.1  # seconds between two looks at a process or a lock
_alive: set[int] = set()  # process groups of this process' trainings


@dataclass(frozen=True)
class Job:
    """A cell to run, with all that another machine needs.

    Attributes:
        folder: The cell's, absolute.
        command: ``reconlab fit`` and its options, but for the run directory's place.
        record: What ``cell.json`` says of the cell whatever happens.
        attempts: As recorded when the job was made: who finds more later knows that another has run it.
        retry: Run it again although it has failed.
        environment: On top of the process' own.
        folder_of_work: Where to start the command; relative paths in it are meant from there.
        keep: Which checkpoints stay once the cell is done: ``all``, ``last`` (the final state) or ``none``.
    """

    folder: Path
    command: tuple[str, ...]
    record: Mapping[str, Any]
    attempts: int = 0
    retry: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    folder_of_work: str = "."
    keep: str = "last"


def run_cell(job: Job) -> dict[str, Any]:
    """Bring a cell to its end, unless it is there, and record it.

    Waits where another process runs the cell now: one that outlived its sweep, say.

    Returns:
        The record; its state is ``running`` where the work was told to stop.

    Raises:
        DiskFullError: There is no space left; what is recorded stays true.
        KeyboardInterrupt: On an engine that cancels so, once the training has saved its state.
    """
    stop = stop_event() or threading.Event()
    lock = CellLock(job.folder)
    try:
        while not lock.take():
            if stop.wait(POLL):
                return {**job.record, "state": "running", "reason": "another process runs it"}
        try:
            before = read_record(job.folder)
        except ReconlabError:  # the driver has named it; the run directories know better
            before = None
        if before and before["state"] == "done":
            return before
        if before and before["state"] == "failed" and (before["attempts"] > job.attempts or not job.retry):
            return before
        record = _run(job, before or {}, lock, stop)
        if record["state"] == "done":
            tidy(job.folder, job.keep)
        return record
    finally:
        lock.close()


def _run(job: Job, before: dict[str, Any], lock: CellLock, stop: threading.Event) -> dict[str, Any]:
    progress = look(job.folder)
    record = {**job.record, "state": "running", "attempts": before.get("attempts", 0), "reason": None}
    if progress.todo == "nothing":
        return write_record(job.folder, _done(record, progress))
    record["attempts"] += 1
    if progress.todo == "resume" and before.get("state") == "failed":
        stuck = before.get("resumed_from")
        if stuck and progress.checkpoint == job.folder / stuck:  # going on from there has failed before: begin anew
            progress = Progress("train", notes=progress.notes)
    for _ in range(2):  # a training, and a test where the training did not make one
        command = _command(job, progress)
        record["command"] = spoken(command, job.folder_of_work)
        from_where = progress.checkpoint if progress.todo == "resume" else None
        record["resumed_from"] = str(from_where.relative_to(job.folder)) if from_where else None
        write_record(job.folder, record)
        status, begin = _spawn(job, command, lock, stop, record["attempts"], progress.notes)
        before_todo, progress = progress.todo, look(job.folder)
        if status == 0 and progress.todo == "nothing":
            return write_record(job.folder, _done(record, progress))
        if stop.is_set():
            return write_record(job.folder, {**record, "reason": "interrupted"})
        if status != 0 or progress.todo != "test" or before_todo == "test":
            break
    reason = _reason(status, last_words(job.folder / LOG, begin))
    if any(os.strerror(full) in reason for full in (errno.ENOSPC, errno.EDQUOT)):
        write_record(job.folder, {**record, "reason": reason})
        raise DiskFullError(f"The disk of {job.folder} is full: make room and run the sweep again; it goes on.")
    return write_record(job.folder, {**record, "state": "failed", "reason": reason})


def spoken(command: Sequence[str], here: str) -> str:
    """A command as a user would type it: ``reconlab``, paths from here, configs from the folder that has them.

    Example:
        >>> spoken(["/x/python", "-m", "reconlab.cli", "fit", "--config=/y/configs/a.yaml", "--out=/z/runs"], "/z")
        'reconlab fit --config=configs/a.yaml --out=runs'
    """
    words = ["reconlab", *command[3:]] if list(command[1:3]) == ["-m", "reconlab.cli"] else list(command)
    shown = []
    for word in words:
        key, equals, value = word.rpartition("=")
        if value.startswith("/"):
            if value.startswith(f"{here}/"):
                value = os.path.relpath(value, here)
            elif "/configs/" in value and key == "--config":
                value = value[value.rindex("/configs/") + 1 :]
        shown.append(f"{key}{equals}{value}")
    return shlex.join(shown)


def _done(record: dict[str, Any], progress: Progress) -> dict[str, Any]:
    return {**record, "state": "done", **measured(progress)}


def tidy(folder: Path, keep: str) -> None:
    """Remove the checkpoints that a finished cell needs no more: states on the way, and those of older attempts."""
    if keep == "all":
        return
    progress = look(folder)
    last = progress.trained / "checkpoints" / "last.ckpt" if progress.trained and keep == "last" else None
    if progress.todo != "nothing" or (keep == "last" and (last is None or not is_whole(last))):
        return
    for path in folder.glob("[0-9]*/checkpoints/*.ckpt"):
        if path != last:
            with contextlib.suppress(OSError):  # the cell is done all the same
                path.unlink()


def _command(job: Job, progress: Progress) -> list[str]:
    place = [f"--out={job.folder.parent}", f"--name={job.folder.name}"]
    command = list(job.command)
    if progress.todo == "test" and "fit" in command and progress.trained is not None:
        program = command[: command.index("fit")]
        config = progress.trained / "config.yaml"
        return [*program, "test", f"--config={config}", *place, f"--ckpt_path={progress.checkpoint}"]
    # What is trained but cannot be tested apart (another program than reconlab's) is gone on with, too
    resume = [f"--ckpt_path={progress.checkpoint}"] if progress.checkpoint is not None else []
    return [*command, *place, *resume]


def _reason(status: int, words: str) -> str:
    if status < 0:
        name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"killed by {name}{hint}" + (f": {words}" if words else "")
    if status == 0:
        return "it ended without test values: does its command have --test_after_fit=true? " + words
    return words or f"exit status {status}"


def _spawn(
    job: Job, command: list[str], lock: CellLock, stop: threading.Event, attempt: int, notes: tuple[str, ...]
) -> tuple[int, int]:
    """Run a command to its end, its output appended to the log.

    Returns:
        Exit status (negative: the signal that killed it), and where in the log its output begins.
    """
    log = job.folder / LOG
    with disk(log), log.open("a", encoding="utf-8") as stream:
        begin = stream.tell()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        stream.write(f"# {stamp}, attempt {attempt}: {shlex.join(command)}\n" + "".join(f"# {n}\n" for n in notes))
        stream.flush()
        try:
            process = subprocess.Popen(  # noqa: S603 - the sweep file's own command
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=job.folder_of_work,
                env={**_own_environment(), **job.environment},
                pass_fds=(lock.handle.fileno(),),  # held by the training itself: it may outlive us
                start_new_session=True,  # Ctrl-C reaches it through us alone, once
            )
        except OSError as error:
            raise ReconlabError(f"Cannot start {command[0]}: {error.strerror or error}.") from error
    _alive.add(process.pid)
    try:
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL)
            if stop.is_set():
                return _end(process), begin
    except BaseException:  # an engine that cancels by an exception
        _end(process)
        raise
    finally:
        _alive.discard(process.pid)
    return process.returncode, begin


def kill_all() -> None:
    """End this process' trainings at once; they go on from their newest checkpoint another time."""
    for group in list(_alive):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> int:
    """Let a training save its state and end; its data loaders and ranks are of its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    return process.wait()


def _own_environment() -> dict[str, str]:
    # A training inside a Slurm job must not take the sweep's own job for its ranks' launcher
    return {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SUBMITIT_")) or k == "SLURM_TMPDIR"}
