"""Reading results: ``bench.json`` of this command, and the JSON of ``benchmarks/gpu_check.py``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconlab.bench.run import SCHEMA
from reconlab.errors import ReconlabError

NAMES = ("gpu", "accelerator", "device", "name")
"""Under which of a machine's keys the GPU may be named."""


@dataclass(frozen=True)
class GpuTable:
    """Operators checked on a GPU by ``benchmarks/gpu_check.py``.

    Attributes:
        machine: Its name.
        commit: Of the code, or None.
        rows: One per operator and case, with times in milliseconds and ratios where they were measured.
    """

    machine: str
    commit: str | None
    rows: list[dict[str, Any]]


def read_bench(path: Path) -> dict[str, Any]:
    """A ``bench.json``.

    Raises:
        ReconlabError: It is missing, damaged or something else.
    """
    content = _read(path)
    if not is_bench(content):
        raise ReconlabError(f"{path} is not a result of reconlab bench (its schema is not {SCHEMA!r}).")
    return content


def read_gpu(path: Path) -> dict[str, Any] | GpuTable:
    """Measurements on a GPU: a ``bench.json``, or what ``benchmarks/gpu_check.py`` wrote.

    Raises:
        ReconlabError: It is missing, damaged, neither of them, or of a CPU.
    """
    content = _read(path)
    if is_bench(content):
        if not str(content.get("device", "cpu")).startswith("cuda"):
            raise ReconlabError(f"{path} was measured on a CPU: --gpu takes measurements on a GPU.")
        return content
    rows = content.get("results")
    if not isinstance(rows, list) or not all(isinstance(r, dict) and "operator" in r for r in rows):
        raise ReconlabError(
            f"{path} holds no measurements on a GPU: --gpu takes the JSON of benchmarks/gpu_check.py or a bench.json."
        )
    machine, commit = content.get("machine"), content.get("commit")
    if isinstance(machine, dict) and not any(machine.get(k) for k in NAMES) and any(k in machine for k in NAMES):
        raise ReconlabError(f"{path} was measured without a GPU: --gpu takes measurements on a GPU.")
    return GpuTable(_machine(machine), None if commit is None else str(commit), rows)


def is_bench(content: dict[str, Any]) -> bool:
    """Whether this is the content of a ``bench.json``."""
    return content.get("schema") == SCHEMA


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ReconlabError(f"{path} does not exist.") from error
    except OSError as error:
        raise ReconlabError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise ReconlabError(f"{path} is damaged: it is not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ReconlabError(f"{path} is damaged: it holds no JSON object.")
    return content


def _machine(given: Any) -> str:
    """The GPU's name, however it was put down."""
    if isinstance(given, dict):
        for key in NAMES:
            if given.get(key):
                return str(given[key])
        return ", ".join(f"{k} {v}" for k, v in given.items()) or "not recorded"
    return str(given) if given else "not recorded"
