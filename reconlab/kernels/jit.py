"""What the numba kernels share: ``njit``, whose cache is never stale, and which says when it compiles.

numba caches a function by its own file alone: it does not see that a helper in another file has changed, and while a
changed file is compiled anew, a second process may load what is left of the old one. Here every version of a kernel
has a folder of its own, named after its source, the sources that it imports from ``reconlab.kernels``, numba and the
processor. Nothing in it is ever overwritten by something else, so that ranks, workers and machines may share it.

The folders are in ``NUMBA_CACHE_DIR`` if that is set, else in ``reconlab/numba`` of the user's cache
(``XDG_CACHE_HOME``, ``~/.cache``). Where neither can be written, the kernels are compiled in every process.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import sys
import tempfile
import threading
from collections.abc import Callable
from multiprocessing import current_process, parent_process
from pathlib import Path
from typing import Any

import numba
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, event
from numba.extending import intrinsic

_config: Any = numba.config  # its attributes are made when it is loaded
_njit: Any = numba.njit  # signatures and options are passed on as they come
_IMPORT = re.compile(r"^from (reconlab\.kernels\.[\w.]+) import", re.MULTILINE)
_lock = threading.RLock()


def njit(*signature: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit`` with its cache in the folder of this version of the code; always called with parentheses.

    The first compilation of a module in a process says so in one line on stderr; loading from the cache is silent.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        _listen()
        base = _base()
        cached = options | {"cache": bool(options.get("cache")) and base is not None}
        with _lock:
            before = _config.CACHE_DIR
            if base is not None:
                _config.CACHE_DIR = str(base / f"{_label(function.__module__)}-{_version(function.__module__)}")
            try:
                return _njit(*signature, **cached)(function)
            finally:
                _config.CACHE_DIR = before

    return decorate


FLUSH = 0x8040
"""Bits of x86's MXCSR: subnormal results are 0, subnormal operands count as 0."""


@intrinsic
def flush_subnormals(typingctx: Any) -> Any:
    """Within a kernel: numbers below 1e-38 count as 0 from here on in this thread; gives what was set before.

    A product of many factors below 1 ends among them, where x86 takes some hundred cycles for each operation: without
    this, drawing a mesh is two to five times as slow. Ends with :func:`restore_subnormals`. On other processors
    nothing happens.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if platform.machine().lower() not in ("x86_64", "amd64"):
            return ir.Constant(ir.IntType(32), 0)
        place = cgutils.alloca_once(builder, ir.IntType(32))
        _status(builder, "st", place)
        before = builder.load(place)
        builder.store(builder.or_(before, ir.Constant(ir.IntType(32), FLUSH)), place)
        _status(builder, "ld", place)
        return before

    return types.int32(), generate


@intrinsic
def restore_subnormals(typingctx: Any, before: Any) -> Any:
    """Set what :func:`flush_subnormals` gave."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if platform.machine().lower() in ("x86_64", "amd64"):
            place = cgutils.alloca_once(builder, ir.IntType(32))
            builder.store(arguments[0], place)
            _status(builder, "ld", place)
        return context.get_dummy_value()

    return types.void(types.int32), generate


def _status(builder: Any, way: str, place: Any) -> None:
    """Store x86's MXCSR at ``place``, or load it from there."""
    pointer = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.sse.{way}mxcsr")
    builder.call(function, [builder.bitcast(place, pointer)])


@functools.cache
def _base() -> Path | None:
    """The folder of all versions; None where none can be written."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folders = [Path(_config.CACHE_DIR).absolute()] if _config.CACHE_DIR else []
    if os.path.isabs(home):  # else this user has none
        folders.append(Path(home) / "reconlab" / "numba")
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        return folder
    return None


@functools.cache
def _version(module: str) -> str:
    """A digest of what the machine code of a module's functions depends on."""
    sources: dict[str, bytes] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = getattr(sys.modules.get(name), "__file__", None)
        if name not in sources and file is not None:
            sources[name] = Path(file).read_bytes()
            waiting += _IMPORT.findall(sources[name].decode())
    digest = hashlib.sha256(f"{numba.__version__} {sys.version} {binding.get_host_cpu_name()}".encode())
    digest.update(binding.get_host_cpu_features().flatten().encode())
    for name in sorted(sources):
        digest.update(sources[name])
    return digest.hexdigest()[:16]


def _label(module: str) -> str:
    """The operator's name, and the part of it that is compiled on its own.

    Example:
        >>> _label("reconlab.kernels.nearest.cpu"), _label("reconlab.kernels.nearest.cpu_tree")
        ('nearest', 'nearest.tree')
    """
    *_, operator, part = ("", *module.split("."))
    return operator if part == "cpu" else f"{operator}.{part.removeprefix('cpu_')}"


@functools.cache
def _listen() -> None:
    event.register("numba:compile", _Progress())


class _Progress(event.Listener):
    """Says once per module that it is being compiled; numba sends no such event when it loads from its cache."""

    def __init__(self) -> None:
        self._depth = 0  # helpers are compiled while their callers are; numba compiles in one thread at a time
        self._said: set[str] = set()

    def on_start(self, event: Any) -> None:
        self._depth += 1
        module = event.data["dispatcher"].py_func.__module__
        if self._depth > 1 or not module.startswith("reconlab.") or module in self._said:
            return
        self._said.add(module)
        if _speaks() and sys.stderr is not None:
            when = "once, some seconds" if _base() else "no cache folder can be written: set NUMBA_CACHE_DIR"
            sys.stderr.write(f"reconlab: compiling {_label(module)} for this machine ({when})\n")
            sys.stderr.flush()

    def on_end(self, event: Any) -> None:
        self._depth -= 1


def _speaks() -> bool:
    """Whether this process tells the user: the first rank, and of its workers the first."""
    rank = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or "0"
    return rank == "0" and (parent_process() is None or current_process().name.endswith("-1"))
