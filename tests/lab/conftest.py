"""Small data, and a sweep of stub cells for the tests of the runner."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from reconlab.cli.__main__ import main
from reconlab.datasets.datamodule import ReconstructionData

STUB = Path(__file__).with_name("sweep_stub.py")


@pytest.fixture
def module(data: Path) -> ReconstructionData:
    """Three samples of 32 pixels and 200 points a step."""
    return ReconstructionData(str(data), image_size=32, batch_size=3, points=200)


class Trial:
    """A sweep of stub cells ``a`` and ``b`` (parameter ``x``) in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.trace, self.out = folder / "trace", folder / "out"
        self.trace.mkdir()
        self.file = folder / "s.yaml"
        self.define(["a", "b"])
        self.folder = self.out / "trial"

    def define(self, cells: list[str]) -> None:
        command = ["${env}", "${interpreter}", str(STUB), "fit", "${args}"]
        content = {"name": "trial", "method": "grid", "command": command, "parameters": {"x": {"values": cells}}}
        self.file.write_text(yaml.safe_dump(content))

    def plan(self, **acts: list[str]) -> None:
        (self.trace / "plan.json").write_text(json.dumps({f"x{k}": v for k, v in acts.items()}))
        for cell, what in acts.items():
            if any(w.startswith("hang") for w in what):
                for end in ("here", "go"):
                    os.mkfifo(self.trace / f"x{cell}.{end}")

    def words(self, *more: str) -> list[str]:
        return ["sweep", str(self.file), f"--out={self.out}", *more]

    def run(self, *more: str) -> int:
        return main(self.words(*more))

    def start(self, *more: str) -> subprocess.Popen:
        code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        code += "from reconlab.cli.__main__ import main; sys.exit(main(sys.argv[1:]))"
        words = [sys.executable, "-c", code, *self.words(*more)]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait_until_hangs(self, cell: str) -> int:
        """The stub's process id, once it is in the middle of its training."""
        return int((self.trace / f"x{cell}.here").read_text())

    def release(self, cell: str) -> None:
        (self.trace / f"x{cell}.go").write_text("go")

    def record(self, cell: str) -> dict:
        return json.loads((self.folder / "cells" / f"x{cell}" / "cell.json").read_text())

    def starts(self) -> list[str]:
        path = self.trace / "starts"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def trial(tmp_path, monkeypatch):
    made = Trial(tmp_path)
    monkeypatch.setenv("STUB_TRACE", str(made.trace))
    return made
