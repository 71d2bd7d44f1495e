"""What happens around training: pictures, tables, progress, predictions."""

from __future__ import annotations

import csv
import io
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import RichProgressBar
from rich.console import Console
from rich.table import Table

from reconlab.batch import Batch
from reconlab.datasets.datamodule import ReconstructionData, collate
from reconlab.datasets.samples import ShapeDataset, missing_files
from reconlab.errors import ReconlabError
from reconlab.lab.export import export_shape
from reconlab.lab.pictures import gallery, save_picture
from reconlab.lab.reconstruction import Reconstruction
from reconlab.lab.run_directory import write_atomic


class Gallery(pl.Callback):
    """Pictures of fixed validation samples: input, truth, reconstruction.

    Written to ``pictures/step_NNNNNN.png`` in the run directory after validations that are at least ``every`` of
    the run apart, and at the end.

    Args:
        directory: The run directory.
        samples: Samples shown, taken evenly from the categories in list order.
        every: Fraction of the run between pictures.
    """

    def __init__(self, directory: Path, samples: int = 8, every: float = 0.25) -> None:
        self.directory = Path(directory)
        self.samples = samples
        self.every = every
        self.last: Path | None = None
        self._shown = -math.inf

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw if it is time."""
        if trainer.sanity_checking or not trainer.is_global_zero or not isinstance(pl_module, Reconstruction):
            return
        total = trainer.estimated_stepping_batches
        progress = trainer.global_step / total if total and total != math.inf else 1.0
        if progress - self._shown < self.every - 1e-6 and progress < 1:
            return
        self._shown = progress
        batch = sample_batch(trainer, self.samples)
        if batch is None or batch.images is None:
            return
        with torch.no_grad():
            shape = pl_module.network.reconstruct(batch.to(pl_module.device))
        captions = [f"{c}/{i}" for c, i in zip(batch.categories, batch.ids, strict=True)]
        picture = gallery(batch.images, batch.mesh, {type(pl_module.network).__name__: shape}, captions)
        self.last = self.directory / "pictures" / f"step_{trainer.global_step:06d}.png"
        save_picture(picture, self.last)


def sample_batch(trainer: pl.Trainer, samples: int) -> Batch | None:
    """A fixed batch of validation samples with images and, where the dataset has them, true meshes.

    Samples are taken in turn from the categories, in list order.
    """
    data: Any = getattr(trainer, "datamodule", None)
    if not isinstance(data, ReconstructionData):
        return None
    dataset = data.dataset("val")
    rank: dict[str, int] = {}
    order = []
    seen = set()
    for index, item in enumerate(dataset.items):
        if item.folder in seen:
            continue  # the same shape from another view
        seen.add(item.folder)
        rank[item.category] = rank.get(item.category, -1) + 1
        order.append((rank[item.category], index))
    needs = data.needs_of("val") | {"images", "mesh"}
    if missing_files(dataset.items, needs) is not None:
        needs = data.needs_of("val") | {"images"}
    shown = ShapeDataset(dataset.items, replace(dataset.loading, needs=needs), 0)
    return collate([shown[index] for _, index in sorted(order)[:samples]])


class MetricsTable(pl.Callback):
    """Prints validation metrics at the end: first, best, last, with each protocol's factor.

    Args:
        directory: The run directory, named in the closing lines.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory
        self.history: dict[str, list[float]] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember the values."""
        if not trainer.sanity_checking:
            self._remember(trainer, "val/")
            if trainer.state.fn == "validate" and trainer.is_global_zero and isinstance(pl_module, Reconstruction):
                wide_console().print(metrics_table(self.history, pl_module, "val"))

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the test values."""
        self._remember(trainer, "test/")
        if trainer.is_global_zero and isinstance(pl_module, Reconstruction):
            wide_console().print(metrics_table(self.history, pl_module, "test"))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the table."""
        if trainer.is_global_zero and isinstance(pl_module, Reconstruction) and self.history:
            wide_console().print(metrics_table(self.history, pl_module, "val"))

    def _remember(self, trainer: pl.Trainer, prefix: str) -> None:
        for key, value in trainer.callback_metrics.items():
            if key.startswith(prefix):
                self.history.setdefault(key, []).append(float(value))


def metrics_table(history: dict[str, list[float]], model: Reconstruction, stage: str) -> Table:
    """A table of overall and per-category values; with a history also the first and the best value."""
    several = max((len(v) for k, v in history.items() if k.startswith(f"{stage}/")), default=0) > 1
    title = "Test metrics" if stage == "test" else "Validation metrics"
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column("metric")
    for name in ("first", "best", "last") if several else ("value",):
        table.add_column(name, justify="right")
    categories = list(next(iter(model.metric_items().values())).categories) if model.metric_items() else []
    for category in categories:
        table.add_column(category, justify="right")
    table.add_column("n", justify="right")
    table.add_column("failed", justify="right")
    for metric in model.metric_items().values():
        for value, protocol in metric.protocols.items():
            key = f"{stage}/{value}"
            if key not in history:
                continue
            series = history[key]
            best = (max if protocol.higher_is_better else min)(series)
            shown = [series[0], best, series[-1]] if several else [series[-1]]
            row = [protocol.header, *(protocol.printed(v) for v in shown)]
            row += [protocol.printed(history.get(f"{key}/{c}", [math.nan])[-1]) for c in categories]
            counts = [history.get(f"{stage}/{metric.name}/{c}", [math.nan])[-1] for c in ("n", "n_failed")]
            table.add_row(*row, *(f"{c:.0f}" for c in counts))
    return table


def wide_console() -> Console:
    """A console whose tables are not folded when the output is a file."""
    return Console() if sys.stdout.isatty() else Console(width=140)


class SaveInterrupted(pl.Callback):
    """After Ctrl-C during training: ``interrupted.ckpt``, to resume from with ``--ckpt_path``.

    Args:
        folder: Of the checkpoints.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save the state; a failure that is not the user's wish leaves the regular checkpoints alone."""
        if isinstance(exception, KeyboardInterrupt) and trainer.state.fn == "fit" and trainer.global_step > 0:
            trainer.save_checkpoint(self.folder / "interrupted.ckpt")


class PlainProgress(pl.Callback):
    """Progress with an estimate of the time left, as plain lines: for logs, where a bar cannot move.

    Args:
        seconds: Least time between two lines.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self.seconds = seconds
        self._began = self._printed = 0.0
        self._first = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._began = self._printed = time.monotonic()
        self._first = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        """Print a line now and then."""
        now, step = time.monotonic(), trainer.global_step
        total = trainer.estimated_stepping_batches
        if not trainer.is_global_zero or (now - self._printed < self.seconds and step != total):
            return
        self._printed = now
        rate = max(step - self._first, 1) / max(now - self._began, 1e-9)
        left = (total - step) / rate if total != math.inf else math.nan
        loss = float(trainer.callback_metrics.get("loss", math.nan))
        eta = "?" if math.isnan(left) else f"{int(left) // 60}:{int(left) % 60:02d}"
        sys.stdout.write(f"step {step}/{total}  loss {loss:.4g}  {rate:.2f} steps/s  ETA {eta}\n")
        sys.stdout.flush()


class ProgressBar(RichProgressBar):
    """A bar that asks for the loss now and then: each look at a value of the GPU waits until it is computed.

    Args:
        seconds: Between two looks.
    """

    def __init__(self, seconds: float = 0.5) -> None:
        super().__init__(leave=True)
        self.seconds = seconds
        self._shown: dict[str, Any] = {}
        self._asked = -math.inf

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """What stands beside the bar."""
        now = time.monotonic()
        if now - self._asked >= self.seconds:
            self._asked, self._shown = now, super().get_metrics(trainer, pl_module)
        return self._shown


class SavePredictions(pl.Callback):
    """At test: each sample's metrics in ``predictions/per_sample_rankN.csv`` and, if asked, its mesh.

    Args:
        directory: The run directory.
        meshes: Also write ``predictions/<category>/<id>.obj`` (metrics can then be computed without the network);
            ``<id>_view<k>.obj`` where every view is judged.
    """

    def __init__(self, directory: Path, meshes: bool = True) -> None:
        self.directory = Path(directory) / "predictions"
        self.meshes = meshes
        self.rows: list[dict[str, Any]] = []

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start anew."""
        self.rows = []

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, *args: Any
    ) -> None:
        """Judge and write the batch; ``outputs`` holds the shapes of :meth:`Reconstruction.test_step`."""
        if not isinstance(pl_module, Reconstruction) or not isinstance(outputs, Mapping):
            return
        shape = outputs["shape"]
        rows: list[dict[str, Any]] = [
            {"category": c, "id": i} for c, i in zip(batch.categories, batch.ids, strict=True)
        ]
        for row, view in zip(rows, batch.input_view, strict=False):
            row["view"] = view
        for metric in pl_module.metric_items().values():
            for key, values in metric.last.items():  # of this batch: test_step has just updated it
                for row, value in zip(rows, values.tolist(), strict=True):
                    row[key] = value
        self.rows += rows
        if self.meshes:
            every = getattr(getattr(trainer, "datamodule", None), "eval_view", 0) == "all"
            for i, row in enumerate(rows):
                name = f"{row['id']}_view{row['view']}" if every and "view" in row else row["id"]
                try:
                    export_shape(shape, i, self.directory / row["category"] / name, ("obj",))
                except ReconlabError:
                    row["exported"] = False  # failed predictions are counted by the metrics

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write this rank's rows."""
        if not self.rows:
            return
        keys = list(dict.fromkeys(k for row in self.rows for k in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, keys)
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomic(self.directory / f"per_sample_rank{trainer.global_rank}.csv", text.getvalue())
