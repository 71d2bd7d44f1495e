"""Fixtures of the command-line tests."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def copy(data, tmp_path) -> Path:
    """The dataset, for tests that damage it."""
    shutil.copytree(data, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def options(repository, tmp_path):
    """Options of a run of seconds with a loss' config."""

    def make(loss: str, root: Path, *more: str, command: str = "fit") -> list[str]:
        configs = repository / "configs"
        return [
            command,
            *("--config", str(configs / f"atlasnet_{loss}.yaml")),
            *("--config", str(configs / "profiles" / "smoke.yaml")),
            f"--data.root={root}",
            "--data.build=never",
            f"--out={tmp_path / 'runs'}",
            *more,
        ]

    return make


@pytest.fixture
def one_sentence():
    """Reads what went to standard error: one line of ours, no traceback."""

    def read(captured) -> str:
        error = captured.readouterr().err
        lines = [line for line in error.splitlines() if line.startswith("reconlab:")]
        assert len(lines) == 1, error
        assert "Traceback" not in error
        return lines[0]

    return read
