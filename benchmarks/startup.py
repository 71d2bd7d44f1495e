"""How long each command takes to start: what only answers, and a training up to the end of its first step.

Processes are started in turn, against a bare Python and the bare imports of torch and Lightning. CPU time decides;
wall time on a busy machine is more. The trainings are of four steps on a dataset that is built first, with
``configs/profiles/smoke.yaml``: once with an empty cache of kernels, then warm.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from first_step import NOTE
from harness import parse, save, show

from reconlab.datasets.builder import build_synth
from reconlab.datasets.content import Sizes

ROOT = Path(__file__).resolve().parents[1]
BASELINES = {
    "python -c pass": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import pytorch_lightning": ["-c", "import pytorch_lightning"],
}
ANSWERS = (
    "--help",
    "--version",
    "fti",
    "list networks",
    "list tables",
    "table drwr_table4",
    "sweep configs/sweeps/drwr_table4.yaml --dry-run",
    *(f"{c} --help" for c in ("fit", "predict", "evaluate", "data", "figure", "sweep", "table", "report", "study")),
)
TRAININGS = ("atlasnet_chamfer", "atlasnet_drkfs", "dpc_drwr_32")


def start(arguments: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """CPU and wall seconds of a Python process, its children included."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, _, usage = os.wait4(process.pid, 0)
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - began


def first_step(config: str, data: Path, folder: Path, environment: dict[str, str]) -> tuple[float, float]:
    """CPU and wall seconds from the start of ``reconlab fit`` to the end of its first step."""
    note = folder / "note.json"
    note.unlink(missing_ok=True)
    files = [f"--config=configs/{name}.yaml" for name in (config, "profiles/smoke")]
    options = [f"--data.root={data}", "--data.build=never", f"--out={folder}"]
    command = ["-m", "reconlab.cli.__main__", "fit", *files, *options]
    path = os.pathsep.join(p for p in (str(ROOT / "benchmarks"), environment.get("PYTHONPATH")) if p)
    began = time.time()
    done = subprocess.run(
        [sys.executable, *command, "--trainer.callbacks+=first_step.FirstStep"],
        cwd=ROOT,
        env=environment | {NOTE: str(note), "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{config} failed: {done.stderr.strip()[-500:]}")
    noted = json.loads(note.read_text())
    return noted["cpu"], noted["wall"] - began


def record(title: str, times: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Show the medians of CPU and of wall time; the record has both."""
    cpu, wall = ({name: statistics.median(t[k] for t in taken) for name, taken in times.items()} for k in (0, 1))
    result = show(title, cpu)
    print("  wall seconds: " + ", ".join(f"{name} {value:.2f}" for name, value in wall.items()))
    return result | {"wall": wall}


def main() -> None:
    """Run the comparison."""
    options = parse(__doc__)
    environment = os.environ | {"RECONLAB_THREADS": str(options.threads), "OMP_NUM_THREADS": str(options.threads)}
    commands = BASELINES | {f"reconlab {a}": ["-m", "reconlab.cli.__main__", *a.split()] for a in ANSWERS}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for lap in range(options.rounds + 1):
        for name, arguments in commands.items():
            taken = start(arguments, environment)
            if lap:  # the first only fills the caches
                times[name].append(taken)
    records = [record("answers", times)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sizes = Sizes(views=4, image_size=64, points=2000, queries=500, resolution=32)
        build_synth(folder / "data", ["chair"], 8, 0, sizes=sizes, fractions=(0.5, 0.25, 0.25), progress=False)
        environment |= {"NUMBA_CACHE_DIR": str(folder / "numba")}
        work = (folder / "data", folder / "runs", environment)
        (folder / "runs").mkdir()
        cold = {f"fit {c}": [first_step(c, *work)] for c in TRAININGS}
        warm: dict[str, list[tuple[float, float]]] = {name: [] for name in ("import pytorch_lightning", *cold)}
        for _ in range(options.rounds):
            warm["import pytorch_lightning"].append(start(BASELINES["import pytorch_lightning"], environment))
            for config in TRAININGS:
                warm[f"fit {config}"].append(first_step(config, *work))
        records.append(record("fit to its first step, kernels not compiled before (in this order)", cold))
        records.append(record("fit to its first step, warm", warm))
    save(records, options)


if __name__ == "__main__":
    main()
