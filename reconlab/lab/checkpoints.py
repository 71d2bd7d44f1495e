"""What a training leaves behind to go on from: its newest state, on time, and how long its steps took."""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from reconlab.lab.run_directory import write_run_json

SAVES = 20
"""Checkpoints of a run on its way, where nobody says how often."""


class SaveProgress(pl.Callback):
    """Keeps ``last.ckpt`` fresh, so that a killed run loses little, and makes it the final state at the end.

    Lightning's own callback saves at validations alone: a run without any would have nothing to go on from, and one
    that ends between two of them would keep an older state as its last.

    Args:
        folder: Of the checkpoints.
        every: Steps between two; None saves each twentieth of the run.
    """

    def __init__(self, folder: Path, every: int | None = None) -> None:
        self.path = Path(folder) / "last.ckpt"
        self.every = every
        self._saved = -1
        self._between = False

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Save the state between two steps."""
        step, total = trainer.global_step, trainer.estimated_stepping_batches
        every = self.every or (max(1, int(total) // SAVES) if total != math.inf else 0)
        due = step == total or (every and step % every == 0)
        if due and step > 0 and step != self._saved:
            self._between = True
            self._save(trainer)
            self._between = False

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the final state of a run that ended before its last step (by ``max_time``, say)."""
        if trainer.global_step != self._saved and not trainer.interrupted:
            self._save(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Lightning has not yet counted the batch that was just learned from; who goes on must not see it again."""
        if self._between:
            loop = checkpoint.get("loops", {}).get("fit_loop", {})
            for progress in loop.get("epoch_loop.batch_progress", {}).values():
                if isinstance(progress, dict):
                    progress["completed"] = progress["processed"]

    def _save(self, trainer: pl.Trainer) -> None:
        # Lightning writes into the machine's temporary folder and moves the file: on another file system that is a
        # copy, and a kill in its middle would leave half a state, and no other.
        self._saved = trainer.global_step
        part = self.path.with_name(f"{self.path.name}.part")
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            if part.is_dir():  # of a strategy that shards its states
                shutil.rmtree(self.path, ignore_errors=True)
            part.replace(self.path)


class TrainClock(pl.Callback):
    """Wall seconds of training steps, without validations and the first step: ``run.json``'s ``train_seconds``.

    Beside them ``train_steps``, the steps that were timed (a resumed run has fewer than the whole training), and
    ``trained: true`` once the training has come to its end. The first step is left out where there are others: it
    compiles kernels.

    Args:
        directory: The run directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self._first = self._steps = 0
        self._last = self._spent = 0.0
        self._warm = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._first, self._last = trainer.global_step, time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Add what has passed since the last step, or since the validation that came after it."""
        now, steps = time.monotonic(), trainer.global_step - self._first
        if steps > self._steps == 1 and not self._warm:
            self._warm, self._spent = True, 0.0
            self._first += 1
            steps -= 1
        self._spent, self._last, self._steps = self._spent + now - self._last, now, steps

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The time of a validation is not training's."""
        self._last = time.monotonic()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what was measured; all checkpoints are in place by now."""
        if not trainer.is_global_zero or trainer.interrupted:
            return
        done: dict[str, Any] = {"trained": True, "steps": trainer.global_step}
        if self._steps:  # else a resumed run had nothing left to do
            done |= {"train_steps": self._steps, "train_seconds": round(self._spent, 3)}
        write_run_json(self.directory, done)
