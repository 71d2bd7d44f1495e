"""Where and with what was measured, for the record."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib import metadata
from typing import Any

from reconlab.bench import peers

PACKAGES = ("torch", "numpy", "scipy", "scikit-image", "numba", "triton", "trimesh")


def context(seed: int, threads: int, taking_part: Iterable[str] = ()) -> dict[str, Any]:
    """Commit, versions and machine, as :func:`reconlab.lab.run_directory.provenance` says them, and more of each."""
    from reconlab.lab.run_directory import provenance

    record = provenance(seed)
    record["versions"] = {name: version for name in PACKAGES if (version := _version(name))}
    record["versions"] |= {peers.PEERS[p].title: peers.version(p) for p in sorted(taking_part)}
    record["machine"] |= {"platform": platform.platform(), "threads": threads, "load": load()}
    return record


def load() -> float | None:
    """Processes that ran or waited for a processor, mean of the last minute; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
