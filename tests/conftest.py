"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest
import torch

from reconlab import threads

torch.set_num_threads(1)  # the suite runs under pytest-xdist: one thread a worker
os.environ.setdefault("RECONLAB_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")


@pytest.fixture(autouse=True)
def unlimited_threads(monkeypatch):
    """A test begins with no limit of the test before it: a worker's set-up, called in this process, sets one."""
    before = torch.get_num_threads()
    monkeypatch.setattr(threads, "_limit", None)
    yield
    torch.set_num_threads(before)


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


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """Twelve procedural shapes of two categories; tests must not change it."""
    from reconlab.datasets.builder import build_synth
    from reconlab.datasets.content import Sizes

    root = tmp_path_factory.mktemp("data") / "synth"
    sizes = Sizes(views=4, image_size=64, points=2000, queries=500, resolution=32)
    build_synth(root, ["chair", "lamp"], 6, 0, sizes=sizes, fractions=(0.5, 0.25, 0.25), progress=False)
    return root


@pytest.fixture(scope="session")
def trained(repository, data, tmp_path_factory) -> Path:
    """The run directory of a finished Chamfer run of four steps."""
    from reconlab.cli.__main__ import main

    out, configs = tmp_path_factory.mktemp("runs"), repository / "configs"
    files = (configs / "atlasnet_chamfer.yaml", configs / "profiles" / "smoke.yaml")
    options = [f"--data.root={data}", "--data.build=never", f"--out={out}"]
    assert main(["fit", *(f"--config={file}" for file in files), *options]) == 0
    return out / "atlasnet_chamfer" / "000"
