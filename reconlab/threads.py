"""How many threads this process may use, set in one place, and the pool that drives the nogil kernels.

The numba kernels are serial and release the GIL; a thread pool runs them over views or images. That survives
``fork`` (data-loader workers), DDP ranks and pytest-xdist, where numba's own parallel layers hang or abort.
``OMP_NUM_THREADS`` is torch's alone; ``RECONLAB_THREADS`` is for both.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from reconlab.errors import ReconlabError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")
R = TypeVar("R")

VARIABLES = ("RECONLAB_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What a process reads when it starts: the kernels, and the libraries below torch and NumPy."""

_pool: tuple[int, int, ThreadPoolExecutor] | None = None  # (pid, threads, executor)
_limit: int | None = None


def num_threads() -> int:
    """Threads that kernels may use in this process.

    ``RECONLAB_THREADS`` if it is set, else this process' share of the cores (a DDP rank has to share them with the
    machine's other ranks); never more than :func:`limit_threads` allows.

    Raises:
        ReconlabError: ``RECONLAB_THREADS`` is not a number of threads.
    """
    given = os.environ.get("RECONLAB_THREADS")
    if given:
        count = _count(given)
        return count if _limit is None else min(count, _limit)
    if _limit is not None:
        return _limit
    return max(1, cores() // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def _count(given: str) -> int:
    try:
        count = int(given)
    except ValueError:
        count = 0
    if count < 1:
        raise ReconlabError(f"RECONLAB_THREADS is {given!r}: it takes a whole number of threads, 1 or more.")
    return count


def cores() -> int:
    """Cores that this process may use: those it is bound to, or fewer where its container is given less time."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, int(min(bound, _quota())))  # 1.5 cores are one: a second thread would be stopped half of the time


@functools.cache
def _quota(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float:
    """Cores' worth of time that Linux' control groups, versions 1 and 2, allow; infinite without such a limit."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:  # no Linux
        return math.inf
    least = math.inf
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # A limit of any group above counts too. In a container the path may be that of the host: the root is ours.
        top = root if not controllers else root / "cpu"
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(top):
                break
            least = min(least, _limit_of(folder))
    return least


def _limit_of(folder: Path) -> float:
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{what}_us").read_text() for what in ("quota", "period"))
        return float(quota) / float(period) if float(quota) > 0 else math.inf
    except (OSError, ValueError):  # the root has none; "max"
        return math.inf


def use_threads() -> None:
    """Give torch the threads that the kernels have; a command calls it before it computes."""
    import torch

    torch.set_num_threads(num_threads())


def limit_threads(count: int) -> None:
    """Limit kernels and torch to ``count`` threads in this process (data-loader workers call it with 1)."""
    global _limit
    _limit = max(1, int(count))
    use_threads()


def environment(count: int) -> dict[str, str]:
    """What to add to the environment of a process that is to be started with ``count`` threads."""
    return dict.fromkeys(VARIABLES, str(max(1, count)))


@contextmanager
def starting_with(count: int) -> Iterator[None]:
    """Processes started within have ``count`` threads each; those of this process stay as they are."""
    before = {name: os.environ.get(name) for name in VARIABLES}
    os.environ.update(environment(count))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def limited(count: int) -> Iterator[None]:
    """Torch, the kernels and new processes have so many threads within this, whatever the environment says."""
    import torch

    global _limit
    before, torch_before = _limit, torch.get_num_threads()
    with starting_with(count):
        limit_threads(count)
        try:
            yield
        finally:
            _limit = before
            torch.set_num_threads(torch_before)


def parallel_map(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``[function(x) for x in items]`` over the process' thread pool, in order.

    Use it with functions that spend their time in nogil kernels or NumPy. The pool is made anew after a fork.
    """
    work = list(items)
    threads = min(num_threads(), len(work))
    if threads <= 1:
        return [function(x) for x in work]
    from concurrent.futures import ThreadPoolExecutor  # a command that does not compute does without

    global _pool
    if _pool is None or _pool[0] != os.getpid() or _pool[1] != num_threads():
        _pool = (os.getpid(), num_threads(), ThreadPoolExecutor(num_threads(), "reconlab"))
    return list(_pool[2].map(function, work))
