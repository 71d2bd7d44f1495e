"""Where work runs: threads of this process, Slurm through submitit, a Ray cluster. One small interface for all."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from reconlab.errors import ReconlabError, optional_import

ENGINES = ("local", "submitit", "ray")
GENERIC = (
    "name",
    "timeout_min",
    "mem_gb",
    "nodes",
    "cpus_per_task",
    "gpus_per_node",
    "tasks_per_node",
    "stderr_to_stdout",
)
"""submitit's parameters that every cluster has; all others are Slurm's own."""
_here = threading.local()


class Work(Protocol):
    """A function that was submitted."""

    def done(self) -> bool:
        """Whether it has ended, well or not."""

    def result(self) -> Any:
        """What it returned; raises what it raised."""

    def cancel(self) -> None:
        """Ask it to end; it may take its time."""


class Engine(Protocol):
    """Runs functions somewhere."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Work:
        """Start ``function(*arguments)``; both must survive pickling where the engine is not ``local``."""

    def close(self) -> None:
        """Let go of what the engine holds."""


def stop_event() -> threading.Event | None:
    """Set when the work that this thread does is to end; None outside :class:`LocalEngine`'s threads."""
    return getattr(_here, "stop", None)


class LocalWork:
    """A function in a thread of its own, which ends with the process."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._stop = threading.Event()
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(function, arguments), daemon=True)
        self._thread.start()

    def _run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        _here.stop = self._stop
        try:
            self._value = function(*arguments)
        except BaseException as error:
            self._error = error

    def done(self) -> bool:
        """Whether the thread has ended."""
        return not self._thread.is_alive()

    def result(self) -> Any:
        """Wait; return or raise what the function did."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value

    def cancel(self) -> None:
        """Set the event that :func:`stop_event` gives the function."""
        self._stop.set()


class LocalEngine:
    """Threads of this process: for functions that wait for processes of their own."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> LocalWork:
        """Start a thread."""
        return LocalWork(function, arguments)

    def close(self) -> None:
        """Nothing is held."""


class SubmititWork:
    """A job of submitit."""

    def __init__(self, job: Any) -> None:
        self.job = job

    def done(self) -> bool:
        """Whether the job has ended."""
        return bool(self.job.done())

    def result(self) -> Any:
        """Wait for the job.

        Raises:
            ReconlabError: The job failed or was cancelled; its log is named.
        """
        try:
            outcome = self.job.result()
        except Exception as error:
            named = re.findall(r"^[\w.]*(?:Error|Exception|Interrupt)\b.*$", str(error), re.MULTILINE)
            raise ReconlabError(
                f"The job {self.job.job_id} failed ({named[-1] if named else type(error).__name__}); "
                f"its log is {self.job.paths.stderr}."
            ) from error
        return _opened(outcome)

    def cancel(self) -> None:
        """``scancel``, or SIGINT for a local job."""
        self.job.cancel(check=False)


class SubmititEngine:
    """Slurm jobs through submitit; processes of this machine with ``cluster=local``.

    Args:
        folder: For the jobs' scripts, pickles and logs; on a file system that the nodes share.
        options: ``partition``, ``time``, ``cpus_per_task`` …, and ``cluster`` (None: Slurm where there is one).

    Raises:
        ReconlabError: submitit is not installed, or does not know an option.
    """

    def __init__(self, folder: str | Path, options: Mapping[str, Any] | None = None) -> None:
        submitit = optional_import("submitit", "sweep", "The engine submitit")
        given = dict(options or {})
        try:
            self.executor = submitit.AutoExecutor(folder=str(folder), cluster=given.pop("cluster", None))
            given = {key if key in GENERIC else f"slurm_{key}": value for key, value in given.items()}
            self.executor.update_parameters(**{"timeout_min": 24 * 60, "name": "reconlab", **given})
        except (NameError, TypeError, ValueError, RuntimeError, AssertionError) as error:
            raise ReconlabError(f"submitit cannot be set up so: {' '.join(str(error).split())}") from error

    def submit(self, function: Callable[..., Any], *arguments: Any) -> SubmititWork:
        """Submit a job."""
        return SubmititWork(self.executor.submit(_call, function, arguments))

    def close(self) -> None:
        """Jobs go on by themselves."""


class RayWork:
    """A task of a Ray cluster."""

    def __init__(self, ray: Any, reference: Any) -> None:
        self.ray, self.reference = ray, reference

    def done(self) -> bool:
        """Whether the task has ended."""
        return bool(self.ray.wait([self.reference], timeout=0)[0])

    def result(self) -> Any:
        """Wait for the task.

        Raises:
            ReconlabError: The task was cancelled, or its worker is gone.
        """
        try:
            outcome = self.ray.get(self.reference)
        except self.ray.exceptions.TaskCancelledError as error:
            raise ReconlabError("The task of the Ray cluster was cancelled.") from error
        except self.ray.exceptions.RayError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise ReconlabError(f"A task of the Ray cluster ended: {lines[-1] if lines else error}") from error
        return _opened(outcome)

    def cancel(self) -> None:
        """KeyboardInterrupt in the task; one that has not begun is dropped."""
        self.ray.cancel(self.reference, force=False)


class RayEngine:
    """Tasks of a Ray cluster: an existing one by its address, else one of this machine.

    Args:
        address: ``host:port``, ``auto``, or None for a cluster of this machine that ends with the engine.
        options: Of each task: ``num_cpus``, ``num_gpus`` (1 where the cluster has any), ``resources``.

    Raises:
        ReconlabError: Ray is not installed, or there is no cluster at the address.
    """

    def __init__(self, address: str | None = None, options: Mapping[str, Any] | None = None) -> None:
        self.ray = optional_import("ray", "sweep", "The engine ray")
        self._ours = not self.ray.is_initialized()
        if self._ours:
            quiet = {"include_dashboard": False} if address is None else {}
            try:
                self.ray.init(address=address or "local", log_to_driver=False, logging_level="error", **quiet)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise ReconlabError(
                    f"There is no Ray cluster at {address} ({str(error).splitlines()[0].rstrip('.')})."
                ) from error
        given = dict(options or {})
        if "num_gpus" not in given and self.ray.cluster_resources().get("GPU", 0) > 0:
            given["num_gpus"] = 1
        try:
            self._options = {"num_cpus": 1, "max_retries": 0, **given}
            self._remote = self.ray.remote(**self._options)(_call)
        except (TypeError, ValueError) as error:
            raise ReconlabError(f"Ray cannot be set up so: {' '.join(str(error).split())}") from error

    def submit(self, function: Callable[..., Any], *arguments: Any) -> RayWork:
        """Submit a task."""
        return RayWork(self.ray, self._remote.remote(function, arguments))

    def close(self) -> None:
        """Leave the cluster; end it if it was started here."""
        if self._ours:
            self.ray.shutdown()


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, Exception | None]:
    """What a function returned, and what it raised: engines wrap errors each in their own way, values they leave."""
    try:
        return function(*arguments), None
    except (ReconlabError, OSError) as error:
        return None, error


def _opened(outcome: tuple[Any, Exception | None]) -> Any:
    value, error = outcome
    if error is not None:
        raise error
    return value


def make_engine(
    name: str, folder: str | Path, address: str | None = None, options: Mapping[str, Any] | None = None
) -> Engine:
    """An engine by name.

    Args:
        name: One of :data:`ENGINES`.
        folder: For submitit's files.
        address: Of a Ray cluster.
        options: Of the engine's jobs, without the prefix ``slurm.`` or ``ray.``.

    Raises:
        ReconlabError: There is no such engine, its library is not installed, or an option is not its own.
    """
    check_engine(name, address)
    if name == "local" and options:
        raise ReconlabError(f"--{next(iter(options))} does not go with the engine local.")
    if name == "submitit":
        return SubmititEngine(folder, options)
    return RayEngine(address, options) if name == "ray" else LocalEngine()


def check_engine(name: str, address: str | None) -> None:
    """Refuse what no engine can be made of, before anything is begun.

    Raises:
        ReconlabError: There is no such engine, or it has no address.
    """
    if name not in ENGINES:
        raise ReconlabError(f"There is no engine {name!r}: choose from {', '.join(ENGINES)}.")
    if address is not None and name != "ray":
        raise ReconlabError(f"--address goes with --engine ray, not with {name}.")


def engine_options(name: str, words: Sequence[str]) -> dict[str, Any]:
    """``--slurm.partition=gpu`` and ``--ray.num_gpus=1`` as keys and values.

    Raises:
        ReconlabError: Something else is among the words, or an option of another engine.

    Example:
        >>> engine_options("submitit", ["--slurm.partition=gpu", "--slurm.cpus_per_task=4"])
        {'partition': 'gpu', 'cpus_per_task': 4}
    """
    import yaml

    prefixes = {"submitit": "--slurm.", "ray": "--ray."}
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        owner = next((n for n, p in prefixes.items() if key.startswith(p)), None)
        if owner is None or not equals:
            raise ReconlabError(f"unrecognized argument {word}: options of the cells come after a lone --.")
        if owner != name:
            raise ReconlabError(f"{key} goes with --engine {owner}, not with {name}.")
        try:
            found[key[len(prefixes[owner]) :]] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError) as error:
            raise ReconlabError(f"The value of {word} cannot be read: {' '.join(str(error).split())}.") from error
    return found


def unordered(
    engine: Engine, function: Callable[..., Any], items: Sequence[Any], at_once: int, poll: float = 0.05
) -> Iterator[tuple[Any, Any]]:
    """Each item with ``function(item)``, as they come, ``at_once`` of them at work.

    An error ends the rest; a closed generator too.
    """
    waiting, running = list(items), []  # type: ignore[var-annotated]
    try:
        while waiting or running:
            while waiting and len(running) < max(1, at_once):
                item = waiting.pop(0)
                running.append((item, engine.submit(function, item)))
            ended = [pair for pair in running if pair[1].done()]
            if not ended:
                time.sleep(poll)
            for pair in ended:
                running.remove(pair)
                yield pair[0], pair[1].result()
    finally:
        for _, work in running:
            with contextlib.suppress(Exception):
                work.cancel()
