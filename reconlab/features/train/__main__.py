"""Trains detector and HardNet on the project's procedural shapes and writes weights, cards and a curve.

The committed files come from the command in docs/weights.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reconlab.features.hardnet import HardNet
from reconlab.features.train.detector import detector_windows, measure_range, separation, train_detector
from reconlab.features.train.hardnet import matching, patch_pairs, train_hardnet
from reconlab.features.train.patches import view_pairs
from reconlab.features.weights import DETECTOR_FILE, HARDNET_FILE, load_detector, read_state, save_state
from reconlab.shapes import Mesh
from reconlab.threads import limited

log = logging.getLogger("reconlab.features.train")
HELD_OUT = 1_000_000  # shapes from this seed on are only for measuring


def synthetic_meshes(count: int, first: int) -> Iterator[Mesh]:
    """``count`` procedural shapes, the four categories in turn, seeds from ``first``."""
    # The only import of a higher floor: this is a program, not part of the library.
    from reconlab.datasets.synth import CATEGORIES, generate

    for i in range(count):
        vertices, faces, _ = generate(CATEGORIES[i % len(CATEGORIES)], first + i // len(CATEGORIES)).mesh()
        yield Mesh(torch.from_numpy(vertices), torch.from_numpy(faces))


def measure(describe: Any, patches: Tensor) -> dict[str, dict[str, float]]:
    """:func:`matching` on renders and on PoI maps."""
    return {name: matching(describe, patches[:, i]) for i, name in enumerate(("render", "poi"))}


def draw_curve(curve: Sequence[tuple[int, float]], checks: Sequence[dict[str, float]], path: Path) -> None:
    """Loss and held-out accuracy against the step, as a small PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 2.6), dpi=90, layout="constrained")
    left = figure.add_subplot()
    left.plot([s for s, _ in curve], [v for _, v in curve], color="0.6", lw=0.8)
    left.set(xlabel="step", ylabel="hardest-in-batch loss")
    right = left.twinx()
    for key, colour in (("render", "C0"), ("poi", "C1")):
        right.plot([c["step"] for c in checks], [c[key] for c in checks], "o-", ms=3, color=colour, label=key)
    right.set(ylabel="held-out top-1 of 256", ylim=(0, 1))
    right.legend(loc="center right", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m reconlab.features.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, cards and results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shapes", type=int, default=240, help="training shapes")
    parser.add_argument("--held-out", type=int, default=40, help="shapes for measuring")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of views per shape")
    parser.add_argument("--size", type=int, default=160, help="pixels a side of the renders")
    parser.add_argument("--detector-iterations", type=int, default=1000)
    parser.add_argument("--detector", default=None, help="use this detector file instead of training one")
    parser.add_argument("--iterations", type=int, default=600, help="HardNet's steps")
    parser.add_argument("--batch", type=int, default=256, help="pairs per HardNet step")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--no-bf16", action="store_true", help="train HardNet in float32 throughout")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    with limited(given.threads):
        run(given)


def run(given: argparse.Namespace) -> None:
    """Do it all; see the module."""
    start = time.process_time()
    generator = torch.Generator().manual_seed(given.seed)
    log.info("rendering")
    train = list(view_pairs(synthetic_meshes(given.shapes, 0), given.pairs, given.size, generator))
    apart = torch.Generator().manual_seed(given.seed + 1)
    held = list(view_pairs(synthetic_meshes(given.held_out, HELD_OUT), given.pairs, given.size, apart))
    log.info("%d + %d pairs of views after %.0f s", len(train), len(held), time.process_time() - start)

    card = {
        "command": " ".join(["python -m reconlab.features.train --out DIR", *settings_of(given)]),
        "commit": commit(),
        "seed": given.seed,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {given.threads} thread(s), CPU",
        "licence": "Apache-2.0; trained on this project's own procedural shapes",
    }
    results: dict[str, Any] = dict(card)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.detector:
        detector = load_detector(given.detector)
    else:
        windows = detector_windows(train, 21, generator)
        detector, losses = train_detector(windows, given.detector_iterations, given.seed)
        measure_range(detector, train[:200])
        held_windows = detector_windows(held, 21, apart)
        results["detector"] = {
            "windows": len(windows["first"]),
            "final_loss": sum(losses[-50:]) / 50,
            "held_out_auc": separation(detector, held_windows),
            "cpu_seconds": time.process_time() - start,
        }
        log.info("detector: %s", results["detector"])
        sizes = {"terms": 4, "pieces": 4, "kernel": detector.kernel}
        save_state(given.out / DETECTOR_FILE, detector, {"config": sizes, **results["detector"], **card})

    patches = patch_pairs(train, detector, generator)
    held_patches = patch_pairs(held, detector, apart)
    log.info("%d training and %d held-out points", len(patches), len(held_patches))
    checks: list[dict[str, float]] = []

    def check(net: HardNet, step: int) -> None:
        found = measure(net, held_patches[:512])
        checks.append({"step": float(step), **{k: v["top1"] for k, v in found.items()}})
        log.info("held out at %d: %s", step, found)
        save_state(given.out / HARDNET_FILE, net, {"step": step, **card})

    begin = time.process_time()
    net, curve = train_hardnet(
        patches, given.iterations, given.seed, given.batch, given.rate, check=check, bf16=not given.no_bf16
    )
    config = {"layers": 7, "dimensions": 128, "eps": net.eps}
    save_state(given.out / HARDNET_FILE, net, {"config": config, "iterations": given.iterations, **card})
    stored = HardNet()
    stored.load_state_dict(read_state(given.out / HARDNET_FILE, "HardNet", "out"), strict=False)
    torch.manual_seed(given.seed)
    results["hardnet"] = {
        "points": len(patches),
        "iterations": given.iterations,
        "batch": given.batch,
        "cpu_seconds": time.process_time() - begin,
        "held_out": measure(stored.eval().fold(), held_patches),
        "held_out_random": measure(HardNet().eval().fold(), held_patches),
        "curve": checks,
    }
    (given.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    torch.save(held_patches, given.out / "held_out_patches.pt")
    draw_curve(curve, checks, given.out / "curve.png")
    log.info("done after %.0f CPU-seconds: %s", time.process_time() - start, results["hardnet"]["held_out"])


def settings_of(given: argparse.Namespace) -> list[str]:
    """The settings but for the folder, as words of a command line."""
    words = []
    for name, value in vars(given).items():
        option = "--" + name.replace("_", "-")
        if value is True:
            words.append(option)
        elif name != "out" and value is not None and value is not False:
            words += [option, str(value)]
    return words


def commit() -> str:
    """The commit of the working tree, marked where this code differs from it; 'unknown' outside of one."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True)  # noqa: S603, S607
        return done.stdout.strip()

    here = Path(__file__).parents[1]
    try:
        return git("rev-parse", "--short", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", "train") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


if __name__ == "__main__":
    main()
