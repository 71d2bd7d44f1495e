"""Running the shapes of a build: one after another, in processes, or wherever an executor from above runs them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconlab.errors import ReconlabError

if TYPE_CHECKING:
    from reconlab.datasets.builder import Task

Result = tuple[str, str | None] | tuple[str, tuple[int, str]]
"""Of one shape: ``("shape", None or why not)``, or ``("disk", (errno, message))``, which ends the build."""
Executor = Callable[[Callable[[Any], Any], list[Any]], Iterator[tuple[Any, Any]]]
"""``executor(function, items)`` yields each item with ``function(item)``, as they come; both survive pickling."""
PER_WORKER = 4  # parcels that each worker gets, so that none waits long for the last
_executor: ContextVar[Executor | None] = ContextVar("executor", default=None)


@contextmanager
def run_by(executor: Executor) -> Iterator[None]:
    """Builds within this context give their shapes to an executor, such as a cluster's (``reconlab.lab.engines``).

    The dataset's folder must be on a file system that its workers share; ``workers`` is then how many there are.
    """
    token = _executor.set(executor)
    try:
        yield
    finally:
        _executor.reset(token)


def run_tasks(root: Path, tasks: list[Task], workers: int, progress: bool) -> Iterator[tuple[Task, str | None]]:
    """Build shapes and yield each with None, or with the sentence that says why it could not be made.

    A bad mesh is reported and the rest goes on. ``OSError`` (a full disk, say) and Ctrl-C end the run; shapes
    that are in place stay, the one at hand leaves nothing.
    """
    with progress_bar(progress and bool(tasks)) as bar:
        job = bar.add_task(f"Building {root}", total=len(tasks)) if bar else None
        executor = _executor.get()
        if executor is not None:
            source = _elsewhere(executor, root, tasks, workers)
        elif workers == 1 or len(tasks) < 2:
            source = _serial(root, tasks)
        else:
            source = _parallel(root, tasks, workers)
        for done in source:
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


def _elsewhere(executor: Executor, root: Path, tasks: list[Task], workers: int) -> Iterator[tuple[Task, str | None]]:
    size = max(1, -(-len(tasks) // (workers * PER_WORKER)))
    parcels = [(root.resolve(), i, tasks[i : i + size]) for i in range(0, len(tasks), size)]
    for (_, first, _), results in executor(build_parcel, parcels):
        for number, (kind, what) in enumerate(results, first):
            if kind == "disk":
                raise OSError(*what)
            yield tasks[number], what


def build_parcel(parcel: tuple[Path, int, list[Task]]) -> list[Result]:
    """Build some shapes, on whatever machine; errors of the disk are values, for an executor may not carry them."""
    from reconlab.threads import limit_threads

    root, _, tasks = parcel
    if "RECONLAB_THREADS" not in os.environ:
        limit_threads(1)
    results: list[Result] = []
    for task in tasks:
        try:
            results.append(("shape", _one(root, task)))
        except OSError as error:
            results.append(("disk", (error.errno or 0, f"{error.strerror or error}")))
            break
    return results


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


def progress_bar(show: bool) -> Any:
    """A bar on the terminal's error stream, or a context that gives None."""
    if not show:
        return nullcontext()
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))
