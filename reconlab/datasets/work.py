"""Running the shapes of a build: one after another or in processes, with a progress bar and an orderly Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconlab.errors import ReconlabError

if TYPE_CHECKING:
    from reconlab.datasets.builder import Task


def run_tasks(root: Path, tasks: list[Task], workers: int, progress: bool) -> Iterator[tuple[Task, str | None]]:
    """Build shapes and yield each with None, or with the sentence that says why it could not be made.

    A bad mesh is reported and the rest goes on. ``OSError`` (a full disk, say) and Ctrl-C end the run; shapes
    that are in place stay, the one at hand leaves nothing.
    """
    with _bar(progress and bool(tasks)) as bar:
        job = bar.add_task(f"Building {root}", total=len(tasks)) if bar else None
        for done in _serial(root, tasks) if workers == 1 or len(tasks) < 2 else _parallel(root, tasks, workers):
            if bar:
                bar.advance(job)
            yield done


def _serial(root: Path, tasks: list[Task]) -> Iterator[tuple[Task, str | None]]:
    for task in tasks:
        yield task, _one(root, task)


def _parallel(root: Path, tasks: list[Task], workers: int) -> Iterator[tuple[Task, str | None]]:
    import multiprocessing

    # spawn: a forked child would inherit torch's and numba's thread pools, which may hang there.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), context, _start_worker) as pool:
        futures = {pool.submit(_one, root, task): task for task in tasks}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:  # Ctrl-C and a closed generator too: do not start what waits
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _start_worker() -> None:
    import signal

    from reconlab.threads import limit_threads

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; a worker finishes its shape
    limit_threads(1)


def _one(root: Path, task: Task) -> str | None:
    from reconlab.datasets.builder import make_shape
    from reconlab.datasets.store import place_shape

    try:
        content = make_shape(task)
    except ReconlabError as error:
        return str(error)
    except MemoryError:
        return "there is not enough memory for this mesh."
    except (ValueError, IndexError, ArithmeticError, RuntimeError) as error:
        # A strange mesh must not end a build of thousands; the kind of error is named for a bug report.
        return f"unexpected {type(error).__name__}: {error}"
    place_shape(root, task.category, task.name, task.key, content)
    return None


def _bar(show: bool) -> Any:
    if not show:
        return nullcontext()
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))
