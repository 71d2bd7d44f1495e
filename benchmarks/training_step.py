"""Where a training step's time goes, and what bf16, channels_last and torch.compile change.

Question: of whole training steps as ``reconlab fit`` takes them, what share goes to data, network, loss, backward and
optimiser, and how long is the GPU idle? Control: the same config in float32 without options. Measure: medians over
steps of ``--step_times`` (CUDA events on a GPU, wall time on the CPU), five steps of warm-up left out; on a GPU also
the kernels' own time a step by torch's profiler in a second run, so that

    idle = 1 - kernel seconds a step (profiled) / seconds a step (not profiled).

    python benchmarks/training_step.py --out results/benchmarks/training_step.json

It takes data that are there: ``--data DIR`` (default data/synth, which it builds if need be).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from reconlab.bench.machine import context

CONFIGS = Path(__file__).resolve().parents[1] / "configs"

EXPERIMENTS: dict[str, list[str]] = {
    "DPC + DRWR, 2000 points": ["dpc_drwr_32.yaml"],
    "DPC + DRWR, 8000 points": ["dpc_drwr_64.yaml"],
    "DPC + DRWR, 16000 points": ["dpc_drwr_128.yaml"],
    "AtlasNet + DR-KFS": ["atlasnet_drkfs.yaml"],
    "Shape Generator + SoftRas": ["shape_generator_original.yaml"],
}
PROFILES: dict[str, list[str]] = {"AtlasNet + DR-KFS": ["profiles/paper.yaml"]}
"""What ``--paper`` lays over the configs; the others have the papers' sizes by themselves."""

ALWAYS = {"AtlasNet + DR-KFS": ["--model.loss.init_args.start={visual: 0.0}"]}
"""DR-KFS from the first step: the config begins with Chamfer alone."""

VARIANTS: dict[str, list[str]] = {
    "float32": [],
    "bf16": ["--trainer.precision=bf16-mixed"],
    "bf16, channels last": ["--trainer.precision=bf16-mixed", "--model.channels_last=true"],
    "compiled": ["--model.compile=default"],
    "compiled, CUDA graphs": ["--model.compile=reduce-overhead"],
    "bf16, channels last, compiled, CUDA graphs": [
        "--trainer.precision=bf16-mixed",
        "--model.channels_last=true",
        "--model.compile=reduce-overhead",
    ],
}
WITHOUT_COMPILER = ("float32", "bf16", "bf16, channels last")


def fit(name: str, variant: str, options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Train for some steps; returns ``run.json``'s ``step_times``."""
    from reconlab.cli.__main__ import main as reconlab

    files = [*EXPERIMENTS[name], *(PROFILES.get(name, []) if options.paper else [])]
    arguments = [*(f"--config={CONFIGS / f}" for f in files), *ALWAYS.get(name, []), *VARIANTS[variant]]
    arguments += ["--step_times=true", f"--out={out}", "--name=step", f"--data.root={options.data}"]
    arguments += [f"--trainer.max_steps={options.steps}", "--trainer.max_epochs=-1", "--trainer.limit_val_batches=0"]
    arguments += ["--trainer.enable_checkpointing=false", "--trainer.log_every_n_steps=10", "--model.metrics={}"]
    arguments += ["--trainer.check_val_every_n_epoch=null", "--trainer.val_check_interval=1000000"]
    arguments += [f"--trainer.accelerator={'gpu' if options.device == 'cuda' else 'cpu'}", "--trainer.devices=1"]
    arguments += [f"--data.num_workers={options.workers}", *options.more]
    if reconlab(["fit", *arguments]) != 0:
        raise RuntimeError("reconlab fit failed; its sentence stands above")
    newest = max((out / "step").iterdir(), key=lambda p: p.name)
    return dict(json.loads((newest / "run.json").read_text())["step_times"])


def kernel_seconds(name: str, variant: str, options: argparse.Namespace, out: Path) -> float:
    """Seconds of kernels and copies on the GPU, a step."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        fit(name, variant, options, out)
    return sum(e.self_device_time_total for e in seen.key_averages()) / 1e6 / options.steps


def measure(name: str, variant: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row."""
    row: dict[str, Any] = {"experiment": name, "variant": variant}
    with tempfile.TemporaryDirectory() as folder:
        try:
            row |= fit(name, variant, options, Path(folder))
            row["step_seconds"] = sum(row["seconds"].values())
            if options.device == "cuda":
                busy = kernel_seconds(name, variant, options, Path(folder))
                row |= {"kernel_seconds": busy, "idle": max(0.0, 1 - busy / row["step_seconds"])}
        except Exception as problem:  # an option that this machine lacks: the others are still worth a look
            row["problem"] = f"{type(problem).__name__}: {problem}"[:300]
    return row


def line(row: dict[str, Any]) -> str:
    """Experiment, variant, milliseconds, shares, idle."""
    name = f"{row['experiment']}, {row['variant']}"
    if "problem" in row:
        return f"{name:<72}FAILED: {row['problem']}"
    shares = "  ".join(f"{k} {v:.0%}" for k, v in row["share"].items())
    idle = f"  idle {row['idle']:.0%}" if "idle" in row else ""
    return f"{name:<72}{1e3 * row['step_seconds']:>9.2f} ms  {shares}{idle}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the JSON here, after every row")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--data", type=Path, default=Path("data/synth"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--workers", type=int, default=0, help="data-loader processes")
    parser.add_argument("--only", nargs="+", choices=list(EXPERIMENTS), help="some of the experiments")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(WITHOUT_COMPILER))
    parser.add_argument("--paper", action="store_true", help="the papers' sizes where the config is smaller")
    parser.add_argument("more", nargs="*", help="options of reconlab fit, after --")
    options = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    record = {**context(0, torch.get_num_threads()), "device": options.device, "steps": options.steps}
    record |= {"workers": options.workers, "paper": options.paper, "more": options.more, "results": rows}
    for name in options.only or EXPERIMENTS:
        for variant in options.variants:
            rows.append(measure(name, variant, options))
            if options.out is not None:
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps(record, indent=1) + "\n")
    print("\n".join(line(r) for r in rows))
    return 1 if any("problem" in r for r in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
