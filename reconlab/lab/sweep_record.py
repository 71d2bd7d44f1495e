"""A cell's folder: its lock, its record ``cell.json``, and how far its runs have come, whatever was killed when."""

from __future__ import annotations

import errno
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from reconlab.errors import ReconlabError
from reconlab.lab.run_directory import write_atomic

RECORD = "cell.json"
LOG = "log.txt"


class DiskFullError(ReconlabError):
    """Nothing more can be written."""


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Tell a full disk from all else that may go wrong with a file.

    Raises:
        DiskFullError: There is no space left.
        ReconlabError: The file cannot be written for another reason.
    """
    try:
        yield
    except (OSError, ReconlabError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"The disk of {path} is full: make room and run the sweep again; it goes on."
            ) from error
        if isinstance(error, OSError):
            raise ReconlabError(f"Cannot write {path}: {error.strerror or error}.") from error
        raise


def write_record(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Write ``cell.json`` as a whole.

    Raises:
        DiskFullError: There is no space left.
    """
    with disk(folder / RECORD):
        write_atomic(folder / RECORD, json.dumps(content, indent=1, default=str) + "\n")
    return content


def read_record(folder: Path) -> dict[str, Any] | None:
    """The cell's record; None where there is none.

    Raises:
        ReconlabError: It is damaged.
    """
    path = folder / RECORD
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ReconlabError(f"{path} is damaged ({' '.join(str(error).split())}).") from error
    if not isinstance(content, dict) or content.get("state") not in ("running", "done", "failed"):
        raise ReconlabError(f"{path} is damaged (it has no state).")
    if not isinstance(content.setdefault("attempts", 0), int):
        raise ReconlabError(f"{path} is damaged (its attempts are no number).")
    return content


class CellLock:
    """Who holds it runs the cell. The training's process inherits it, so that it lasts as long as that process.

    Args:
        folder: The cell's.
    """

    def __init__(self, folder: Path) -> None:
        with disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self.handle: IO[str] = (folder / ".lock").open("a")

    def take(self) -> bool:
        """Take it if it is free.

        Raises:
            ReconlabError: The file system has no locks.
        """
        try:
            import fcntl
        except ImportError:  # Windows: cells are not protected from one another there
            return True
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:  # else a cell would wait for ever for nobody
            raise ReconlabError(
                f"{self.handle.name} cannot be locked ({error.strerror or error}): choose an --out on a file system "
                "with locks (docs/scale.md)."
            ) from error
        return True

    def close(self) -> None:
        """Give up this process' part of it."""
        self.handle.close()


def is_held(folder: Path) -> bool:
    """Whether somebody runs the cell now."""
    if not (folder / ".lock").exists():
        return False
    lock = CellLock(folder)
    try:
        return not lock.take()
    finally:
        lock.close()


@dataclass(frozen=True)
class Progress:
    """How far a cell's runs have come.

    Attributes:
        todo: ``nothing``: there are test values; ``test``: it is trained; ``resume``: there is a checkpoint; else
            ``train``.
        run: The run directory that has the test values.
        trained: The run directory that has the whole training.
        checkpoint: To test, or to go on from.
        notes: What is wrong with the folder, one sentence each.
    """

    todo: Literal["nothing", "test", "resume", "train"]
    run: Path | None = None
    trained: Path | None = None
    checkpoint: Path | None = None
    notes: tuple[str, ...] = ()


def look(folder: Path) -> Progress:
    """Find out, from the run directories alone."""
    notes: list[str] = []
    runs = sorted((p for p in folder.iterdir() if p.is_dir() and p.name.isdigit()), key=lambda p: int(p.name))
    reports: dict[Path, dict[str, Any]] = {}
    for run in runs:
        try:
            report = json.loads((run / "run.json").read_text(encoding="utf-8"))
            if not isinstance(report, dict) or not isinstance(report.get("metrics") or {}, dict):
                raise ValueError("no report")
            reports[run] = report
        except FileNotFoundError:
            if any(run.iterdir()):
                notes.append(f"{run} has no run.json: it is left as it is and not used.")
        except (OSError, ValueError):
            notes.append(f"{run / 'run.json'} is damaged: the run is left as it is and not used.")
    usable = [run for run in reversed(runs) if run in reports]
    tested = next((r for r in usable if _tested(reports[r])), None)
    trained = next((r for r in usable if reports[r].get("trained") is True), None)
    if tested is not None:
        return Progress("nothing", tested, trained, notes=tuple(notes))
    if trained is not None:
        last = trained / "checkpoints" / "last.ckpt"
        if is_whole(last):
            return Progress("test", None, trained, last, tuple(notes))
        notes.append(f"{last} is missing or damaged: the training goes on from an older state.")
    states = [p for run in usable for p in (run / "checkpoints").glob("*.ckpt")]
    for path in sorted(states, key=lambda p: p.stat().st_mtime_ns, reverse=True):
        if is_whole(path):
            return Progress("resume", None, None, path, tuple(notes))
        notes.append(f"{path} is damaged: an older state is used.")
    return Progress("train", notes=tuple(notes))


def _tested(report: dict[str, Any]) -> bool:
    values = report.get("metrics") or {}
    return report.get("status") == "finished" and any(k.startswith("test/") for k in values)


def is_whole(path: Path) -> bool:
    """Whether a checkpoint's archive has its end: what a killed process left half-written has not."""
    try:
        with zipfile.ZipFile(path) as archive:
            return bool(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def measured(progress: Progress) -> dict[str, Any]:
    """What a finished cell's runs say: values, protocols, counts, times, provenance.

    Raises:
        ValueError: The cell is not finished.
    """
    if progress.run is None:
        raise ValueError("there are no test values yet")
    report = json.loads((progress.run / "run.json").read_text(encoding="utf-8"))
    trained = progress.trained or progress.run
    source = json.loads((trained / "run.json").read_text(encoding="utf-8"))
    found = {k[5:]: v for k, v in report["metrics"].items() if k.startswith("test/")}
    counts = {
        end: [v for k, v in found.items() if k.count("/") == 1 and k.endswith(f"/{end}")] for end in ("n", "n_failed")
    }
    # A category without a sample (a test cut short by limit_test_batches) has no value, rather than NaN
    empty = {k.split("/")[1] for k, v in found.items() if k.count("/") == 2 and k.endswith("/n") and not v}
    values = {
        k: v for k, v in found.items() if not k.endswith(("/n", "/n_failed")) and k.partition("/")[2] not in empty
    }
    if source.get("train_steps"):
        values["seconds_per_step"] = source["train_seconds"] / source["train_steps"]
    protocols = {name: p for metric in (report.get("protocols") or {}).values() for name, p in metric.items()}
    others = sorted(p for p in progress.run.parent.iterdir() if p.name.isdigit())
    return {
        "run": progress.run.name,
        "trained_run": trained.name,
        "runs": [p.name for p in others],
        "commit": report.get("commit"),
        "machine": report.get("machine"),
        "time": report.get("time"),
        "steps": source.get("steps"),
        "wall_seconds": round(sum(_seconds(p) for p in others), 1),
        "values": values,
        "n": int(max(counts["n"], default=0)),
        "n_failed": int(max(counts["n_failed"], default=0)),
        "protocols": protocols,
    }


def _seconds(run: Path) -> float:
    try:
        return float(json.loads((run / "run.json").read_text(encoding="utf-8")).get("wall_seconds") or 0)
    except (OSError, ValueError):
        return 0.0


def last_words(log: Path, begin: int) -> str:
    """Why a command failed, by its log: our own sentence if there is one, else its last lines.

    Args:
        log: The file.
        begin: Where this attempt's part begins, in bytes.
    """
    try:
        with log.open("rb") as stream:
            stream.seek(max(begin, os.fstat(stream.fileno()).st_size - 20_000))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("reconlab: ")]
    return (ours[-1].removeprefix("reconlab: ") if ours else " | ".join(lines[-3:]))[:600]
