"""One self-contained HTML file of runs and sweeps: it opens offline, and every string in it is escaped."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from reconlab.errors import ReconlabError
from reconlab.report.html_context import Report, context
from reconlab.report.html_runs import Run, find_training
from reconlab.report.html_samples import collect
from reconlab.report.html_sweeps import Sweep


def make_report(
    runs: Sequence[Run],
    sweeps: Sequence[Sweep] = (),
    sampled: Sequence[Run] | None = None,
    title: str | None = None,
    root: Path | None = None,
    count: int | None = None,
    faces: int = 8000,
    command: str = "reconlab report",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Put a report together.

    Args:
        runs: Run directories; those of the sweeps' cells come on top.
        sweeps: Sweep folders.
        sampled: The runs whose samples are shown, of all these; all that have samples if None.
        title: Of the page; made of the names if None.
        root: The dataset with inputs and truths, instead of what each config names.
        count: Samples with 3D; as many as keep the file below about 30 MB if None.
        faces: Most faces (or points) shown of a shape; 0 for all.
        command: What made the page, for its foot.
        progress: Is told how many samples are done.

    Raises:
        ReconlabError: ``root`` is no dataset, or there is nothing to show.
    """
    every = [*runs, *(cell.run for sweep in sweeps for cell in sweep.cells if cell.run is not None)]
    if not every and not sweeps:
        raise ReconlabError("There is nothing to report: name a run directory or a sweep's folder.")
    rename(every)
    for run in every:
        find_training(run, every)
    if not any(run.metrics or run.history or run.samples or run.info for run in every) and not sweeps:
        raise ReconlabError(
            f"{every[0].path} has nothing to show: no run.json, no metrics.csv and no predictions; "
            "it was moved or half deleted."
        )
    shown = collect(every if sampled is None else sampled, root, count, faces, progress)
    names = [sweep.name for sweep in sweeps] or [run.name for run in every]
    made = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    return Report(title or made, every, list(sweeps), shown, command)


def rename(runs: Sequence[Run]) -> None:
    """Give runs of the same name longer ones, of more of their paths."""
    depth = 3
    while len({run.name for run in runs}) < len(runs) and depth < 12:
        names = [run.name for run in runs]
        for run in runs:
            if names.count(run.name) > 1:
                run.name = "/".join(run.path.absolute().parts[-depth:])
        depth += 1


def render(report: Report) -> str:
    """The page's text."""
    jinja2 = importlib.import_module("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("reconlab.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return str(environment.get_template("report.html.j2").render(context(report)))


def write_page(path: Path, text: str) -> None:
    """Write the file whole or not at all; an older one stays if the disk is full.

    Raises:
        ReconlabError: It cannot be written.
    """
    aside = None
    try:
        handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(aside).chmod(0o666 & ~mask)
        Path(aside).replace(path)
    except OSError as error:
        if aside is not None:
            Path(aside).unlink(missing_ok=True)
        raise ReconlabError(f"Cannot write the report {path}: {error.strerror or error}.") from error
