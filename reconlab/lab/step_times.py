"""Where a training step's time goes: data, network, loss, backward, optimiser, the rest."""

from __future__ import annotations

import statistics
import time
from collections import deque
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from reconlab.lab.reconstruction import Reconstruction
from reconlab.lab.run_directory import write_run_json

PARTS = ("data", "network", "loss", "backward", "optimiser", "other")
"""In the order of a step. ``data``: waiting for the batch and moving it. ``other``: logs, checkpoints, progress."""

KEPT = 1000
"""Steps that are remembered, the newest: a run may have millions."""

WARM_UP = 5
"""Steps that are not timed: they compile kernels, start workers and fill caches."""


class StepTimes(pl.Callback):
    """Times the parts of each step: ``run.json``'s ``step_times``, and one printed line.

    On a GPU the parts are measured on the device's own clock, by events that nobody waits for until the end, so that
    measuring changes nothing: a part's time is from the device's reaching its beginning to its reaching its end, idle
    moments between included. On the CPU it is wall time.

    It must be the first of the callbacks: what the others do counts as ``other``.

    Args:
        directory: The run directory.
        warm_up: Steps at the beginning that are left out; so is the one after each validation.
    """

    def __init__(self, directory: Path, warm_up: int = WARM_UP) -> None:
        self.directory = Path(directory)
        self.warm_up = warm_up
        self.steps: deque[list[tuple[str, float | torch.cuda.Event]]] = deque(maxlen=KEPT)
        self._marks: list[tuple[str, float | torch.cuda.Event]] = []
        self._left_out = warm_up
        self._card = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the module's marks."""
        self._card = pl_module.device.type == "cuda"
        if isinstance(pl_module, Reconstruction):
            pl_module.mark = self.mark  # type: ignore[method-assign]

    def mark(self, part: str) -> None:
        """``part``, one of :data:`PARTS`, ends now; after ``other`` the next step begins."""
        if self._card:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append((part, event))
        else:
            self._marks.append((part, time.perf_counter()))
        if part == "other":
            self._close()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """The optimiser is done; the other callbacks follow, and then the module closes the step."""
        self.mark("optimiser")

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Training stands still; the step after it is not like the others."""
        self._marks, self._left_out = [], max(1, self._left_out)

    def _close(self) -> None:
        whole = [part for part, _ in self._marks] == ["start", *PARTS]
        if whole and self._left_out <= 0:
            self.steps.append(self._marks)
        self._left_out -= 1
        self._marks = [("start", self._marks[-1][1])]

    def seconds(self) -> dict[str, float]:
        """Median seconds of each part; empty if no step was timed."""
        if not self.steps:
            return {}
        if self._card:
            torch.cuda.synchronize()
        return {
            part: statistics.median(_between(step[k], step[k + 1]) for step in self.steps)
            for k, part in enumerate(PARTS)
        }

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write and print what was measured."""
        if isinstance(pl_module, Reconstruction):
            del pl_module.mark
        found = self.seconds()
        if not found or not trainer.is_global_zero:
            return
        total = sum(found.values())
        shares = {part: value / total for part, value in found.items()}
        write_run_json(
            self.directory,
            {
                "step_times": {
                    "clock": "CUDA events" if self._card else "wall",
                    "steps": len(self.steps),
                    "seconds": {k: round(v, 6) for k, v in found.items()},
                    "share": {k: round(v, 4) for k, v in shares.items()},
                }
            },
        )
        text = ", ".join(f"{part} {share:.0%}" for part, share in shares.items())
        print(f"a step takes {1e3 * total:.1f} ms: {text}", flush=True)  # noqa: T201 - asked for


def _between(first: tuple[str, float | torch.cuda.Event], second: tuple[str, float | torch.cuda.Event]) -> float:
    begin, end = first[1], second[1]
    if isinstance(begin, torch.cuda.Event) or isinstance(end, torch.cuda.Event):
        return float(begin.elapsed_time(end)) / 1e3  # type: ignore[union-attr, arg-type]
    return end - begin
