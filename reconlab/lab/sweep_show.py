"""How a sweep goes, for the user: a live table on a terminal, a line per event elsewhere."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from reconlab.lab.sweep_record import LOG


class Show:
    """Progress of a sweep's cells.

    Args:
        names: Of the cells.
        steps: Training steps by cell, for the estimate of the time left; cells count alike where they are unknown.
        live: Draw a table that moves; None does so on a terminal.
    """

    def __init__(self, names: Sequence[str], steps: Mapping[str, int | None], live: bool | None = None) -> None:
        self.names, self.steps = list(names), dict(steps)
        self.states: dict[str, tuple[str, str]] = {name: ("waiting", "") for name in names}
        self.live = sys.stdout.isatty() if live is None else live
        self._folders: dict[str, Path] = {}
        self._since: dict[str, float] = {}
        self._work: list[tuple[float, float]] = []  # (weight, seconds) of cells that ended here
        self._began = time.monotonic()
        self._view: Any = None
        self._drawn = 0.0

    def __enter__(self) -> Show:
        """Begin."""
        self._began = time.monotonic()
        earlier = sum(s == "done" for s, _ in self.states.values())
        failed = sum(s == "failed" for s, _ in self.states.values())
        self.say(
            f"{len(self.names)} cells: {earlier} done before, {failed} failed before, "
            f"{len(self.names) - earlier - failed} to run."
        )
        if self.live:
            from rich.live import Live

            self._view = Live(self._table(), refresh_per_second=4, redirect_stdout=True, redirect_stderr=True)
            self._view.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the table as it is."""
        if self._view is not None:
            self._view.update(self._table())
            self._view.stop()
            self._view = None

    def say(self, sentence: str) -> None:
        """A line that stays."""
        sys.stdout.write(f"{sentence}\n")
        sys.stdout.flush()

    def known(self, name: str, state: str, reason: str = "") -> None:
        """A cell that needs nothing now."""
        self.states[name] = (state, reason)

    def began(self, folder: Path, orphan: bool = False) -> None:
        """A cell was handed to the engine, or is run already by a process that outlived its sweep."""
        self.states[folder.name] = ("running", "")
        self._folders[folder.name] = folder
        self._since[folder.name] = time.monotonic()
        if self._view is None:
            what = "is run by an earlier process, which is waited for" if orphan else "begins"
            self.say(f"{self._count()} {folder.name}: {what} (log: {os.path.relpath(folder / LOG)})")

    def ended(self, folder: Path, record: Mapping[str, Any]) -> None:
        """A cell came to an end, whichever."""
        name, state = folder.name, str(record["state"])
        seconds = time.monotonic() - self._since.get(name, time.monotonic())
        state = "stopped" if state == "running" else state
        self.states[name] = (state, str(record.get("reason") or ""))
        if state == "done":
            self._work.append((self._weight(name), seconds))
        if self._view is None:
            text = f"{self._count()} {name}: {state} after {clock(seconds)}"
            text += f" ({record['reason']})" if record.get("reason") else ""
            left = self.eta()
            self.say(text + (f"; about {clock(left)} left" if left else ""))

    def tick(self) -> None:
        """Draw anew, now and then."""
        now = time.monotonic()
        if self._view is not None and now - self._drawn > 0.5:
            self._drawn = now
            self._view.update(self._table())

    def eta(self) -> float | None:
        """Seconds left, by the cells that ended here; None before the first."""
        if not self._work:
            return None
        elapsed = time.monotonic() - self._began
        rate = sum(weight for weight, _ in self._work) / max(elapsed, 1e-9)
        left = sum(self._weight(n) for n, (s, _) in self.states.items() if s in ("waiting", "running"))
        under_way = sum(self._weight(n) * self._fraction(n) for n, (s, _) in self.states.items() if s == "running")
        return max(0.0, left - under_way) / rate

    def _weight(self, name: str) -> float:
        known = [s for s in self.steps.values() if s]
        return float(self.steps.get(name) or (sum(known) / len(known) if known else 1.0))

    def _count(self) -> str:
        over = sum(s in ("done", "failed") for s, _ in self.states.values())
        return f"[{over}/{len(self.names)}]"

    def _fraction(self, name: str) -> float:
        match = self._last_step(name)
        return int(match[1]) / max(int(match[2]), 1) if match else 0.0

    def _last_step(self, name: str) -> re.Match[str] | None:
        """The last ``step 340/800 …`` of a cell's log."""
        folder = self._folders.get(name)
        try:
            with (folder / LOG).open("rb") as stream:  # type: ignore[operator]
                stream.seek(0, 2)
                stream.seek(max(0, stream.tell() - 4000))
                text = stream.read().decode("utf-8", "replace").rsplit(", attempt ", 1)[-1]
        except (OSError, TypeError):
            return None
        found = list(re.finditer(r"^step (\d+)/(\d+).*$", text, re.MULTILINE))
        return found[-1] if found else None

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        shown = Table(title=f"{self._count()} cells", title_justify="left", expand=False)
        for column in ("cell", "state", "since", "where it is"):
            shown.add_column(column, overflow="fold" if column == "where it is" else "ellipsis")
        for name, (state, reason) in self.states.items():
            if state == "running":
                match = self._last_step(name)
                since = clock(time.monotonic() - self._since[name])
                shown.add_row(name, "running", since, Text(match[0] if match else ""))
            elif state in ("failed", "stopped", "left"):
                shown.add_row(name, state, "", Text(reason))  # no markup: it may hold [/a/path]
        waiting = sum(s == "waiting" for s, _ in self.states.values())
        done = sum(s == "done" for s, _ in self.states.values())
        left = self.eta()
        shown.caption = f"{done} done, {waiting} waiting" + (f", about {clock(left)} left" if left else "")
        return shown


def clock(seconds: float) -> str:
    """``h:mm:ss``, or ``m:ss`` below an hour.

    Example:
        >>> clock(62), clock(3725)
        ('1:02', '1:02:05')
    """
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
