"""The run directory: relocatable, complete, never overwritten."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from reconlab.errors import ReconlabError

_VERSIONED = ("torch", "pytorch-lightning", "torchmetrics", "numpy", "numba", "kornia", "trimesh")


def new_run_directory(root: str | Path, name: str) -> Path:
    """Make ``root/name/NNN`` with the first free number.

    Raises:
        ReconlabError: The folder cannot be written.
    """
    parent = Path(root) / name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        taken = [int(p.name) for p in parent.iterdir() if p.name.isdigit()]
        number = max(taken, default=-1) + 1
        while True:
            try:
                (parent / f"{number:03d}").mkdir()
                return parent / f"{number:03d}"
            except FileExistsError:  # another process took it
                number += 1
    except OSError as error:
        raise ReconlabError(f"Cannot write the run directory under {parent}: {error.strerror or error}.") from error


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
        ReconlabError: The folder cannot be written.
    """
    from reconlab.datasets import format as files  # with NumPy, which a sweep's plan does not need

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(path, text.encode("utf-8"))
    except OSError as error:
        raise ReconlabError(f"Cannot write {path}: {error.strerror or error}.") from error


def provenance(seed: int | None = None) -> dict[str, Any]:
    """What is needed to trust a number later: commit, versions, machine, seed."""
    return {
        "reconlab": metadata.version("reconlab"),
        "commit": commit(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _VERSIONED},
        "machine": {
            "system": platform.system(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "accelerator": _accelerator(),
        },
        "seed": seed,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def commit() -> str | None:
    """The commit of the checkout that the package runs from, with ``+changes`` if it was edited; None outside one."""
    here = Path(__file__).resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None  # installed, or a checkout of something else
    head = _git(here.parent, "rev-parse", "HEAD")
    return f"{head}+changes" if head and _git(here.parent, "status", "--porcelain", "-uno") else head


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10)  # noqa: S603, S607
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def write_run_json(directory: Path, content: dict[str, Any]) -> None:
    """Merge ``content`` into ``run.json``."""
    path = directory / "run.json"
    old = json.loads(path.read_text()) if path.is_file() else {}
    write_atomic(path, json.dumps({**old, **content}, indent=2, default=str) + "\n")


def command_line() -> str:
    """The command that runs now, as a user would type it."""
    return " ".join(["reconlab", *sys.argv[1:]])


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _accelerator() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
