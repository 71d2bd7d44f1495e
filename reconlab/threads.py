"""How many threads this process may use, set in one place, and the pool that drives the nogil kernels.

The numba kernels are serial and release the GIL; a thread pool runs them over views or images. That survives
``fork`` (data-loader workers), DDP ranks and pytest-xdist, where numba's own parallel layers hang or abort.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_pool: tuple[int, int, ThreadPoolExecutor] | None = None  # (pid, threads, executor)
_limit: int | None = None


def num_threads() -> int:
    """Threads that kernels may use in this process.

    ``RECONLAB_THREADS`` wins; then :func:`limit_threads`; then the cores this process may run on. A DDP rank
    gets its share of the cores.
    """
    env = os.environ.get("RECONLAB_THREADS")
    if env:
        return max(1, int(env))
    if _limit is not None:
        return _limit
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, cores // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def limit_threads(count: int) -> None:
    """Limit kernels and torch to ``count`` threads in this process (data-loader workers call it with 1)."""
    global _limit
    _limit = max(1, int(count))
    import torch

    torch.set_num_threads(_limit)


def parallel_map(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """``[function(x) for x in items]`` over the process' thread pool, in order.

    Use it with functions that spend their time in nogil kernels or NumPy. The pool is made anew after a fork.
    """
    work = list(items)
    threads = min(num_threads(), len(work))
    if threads <= 1:
        return [function(x) for x in work]
    global _pool
    if _pool is None or _pool[0] != os.getpid() or _pool[1] != num_threads():
        _pool = (os.getpid(), num_threads(), ThreadPoolExecutor(num_threads(), "reconlab"))
    return list(_pool[2].map(function, work))
