"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # the suite runs under pytest-xdist: one thread a worker
os.environ.setdefault("RECONLAB_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared(repository: Path) -> Path:
    """The folder of real meshes, reference values and others' weights, which is not part of the project."""
    folder = Path(os.environ.get("RECONLAB_SHARED", repository.parent / "shared"))
    if not (folder / "data" / "real").is_dir():
        pytest.skip(f"no shared folder with real data at {folder} (set RECONLAB_SHARED)")
    return folder
