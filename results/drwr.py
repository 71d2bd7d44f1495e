"""Runs the cells of results/drwr.md: one training each, judged on the validation and the test families.

    python results/drwr.py run --experiment table4 [--lane 0/2]   # resumable: a finished cell is not run again
    python results/drwr.py collect                                # runs/drwr/**/cell.json -> results/drwr.json

A cell is (experiment, category, row, seed); its settings are in :func:`cells`, and nowhere else.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from reconlab.cli.__main__ import main as reconlab
from reconlab.datasets.datamodule import ReconstructionData
from reconlab.lab.predict import load_network
from reconlab.lab.run_directory import provenance
from reconlab.metrics import ChamferDistance, DPCChamfer, PointIoU, precision_and_coverage
from reconlab.networks import Network
from reconlab.report.trained_figures import input_size
from reconlab.shapes import PointCloud, Shape, VoxelGrid

ROOT = "data/real"
RUNS = Path("runs/drwr")
REPOSITORY = Path(__file__).resolve().parents[1]
STEPS = 800
SEEDS = (0, 1, 2)
BETA = {"airplane": 0.6, "car": 1.5, "chair": 1.5}  # chosen on validation families: experiment "beta"
DRWR = "--model.loss.init_args."


@dataclass(frozen=True)
class Cell:
    """One training. ``options`` go to ``reconlab fit`` after the config."""

    experiment: str
    category: str
    row: str
    seed: int
    config: str
    options: tuple[str, ...] = ()
    steps: int = STEPS
    keep: bool = field(default=False, compare=False)  # the checkpoint, for the figures

    @property
    def folder(self) -> Path:
        """Where the run and ``cell.json`` go."""
        return RUNS / self.experiment / self.category / self.row / f"seed{self.seed}"


def cells() -> list[Cell]:
    """Every cell, by experiment."""
    made: list[Cell] = []
    drwr = "dpc_drwr_32.yaml"

    # Which beta? Judged on validation families only.
    for category, betas in (("airplane", (0.3, 0.6, 1.0)), ("car", (0.6, 1.0, 1.5)), ("chair", (0.6, 1.5, 3.0))):
        for beta in betas:
            made.append(Cell("beta", category, f"beta{beta}", 0, drwr, (f"{DRWR}beta={beta}",), 600))

    # Which decay length? Shorter ones spread a free cloud more evenly; beta in proportion to 1 / sigma² and below.
    for category, pairs in (
        ("airplane", ((0.5, 1.2), (0.5, 2.4), (0.25, 4.8))),
        ("chair", ((0.5, 3.0), (0.5, 6.0), (0.25, 12.0))),
    ):
        for sigma, beta in pairs:
            options = (f"{DRWR}sigma={sigma}", f"{DRWR}beta={beta}")
            made.append(Cell("sigma", category, f"sigma{sigma}_beta{beta}", 0, drwr, options, 600))

    # Table 4: airplanes. "equal": the same mean repulsion as the full loss, see docs/drwr.md.
    beta = BETA["airplane"]
    rows: dict[str, tuple[str, ...]] = {
        "full": (),
        "l1": (f"{DRWR}pairwise=false",),
        "l2": (f"{DRWR}unary=false",),
        "pixel_l2": (f"{DRWR}field=binary",),
        "no_omega": (f"{DRWR}omega=false",),
        "no_delta": (f"{DRWR}delta=false",),
        "views2": ("--data.views=2",),
        "views3": ("--data.views=3",),
        "no_omega_equal": (f"{DRWR}omega=false", f"{DRWR}beta={beta * EQUAL['no_omega']:.3f}"),
        "no_delta_equal": (f"{DRWR}delta=false", f"{DRWR}beta={beta * EQUAL['no_delta']:.3f}"),
        "sigma_half": (f"{DRWR}sigma=0.5", f"{DRWR}beta=1.2"),
        "area_scaled": (f"{DRWR}area_scaled=true", f"{DRWR}beta=1.0"),
    }
    for seed in SEEDS:
        for row, options in rows.items():
            given = any("beta=" in o for o in options)
            made.append(
                Cell("table4", "airplane", row, seed, drwr, options + (() if given else (f"{DRWR}beta={beta}",)),
                     keep=seed == 0 and row == "full")
            )  # fmt: skip

    # Fig. 6: neither weight nor bias.
    plain = (f"{DRWR}omega=false", f"{DRWR}delta=false", f"{DRWR}beta={beta}")
    made.append(Cell("fig6", "airplane", "no_structure", 0, drwr, plain))

    # Figs. 7, 9 and 11: more points; and one training of which states are kept.
    weight = f"{DRWR}beta={beta}"
    made.append(Cell("fig9", "airplane", "points8000", 0, "dpc_drwr_64.yaml", (weight,), 600, keep=True))
    made.append(Cell("fig9", "airplane", "points16000", 0, "dpc_drwr_128.yaml", (weight,), 400, keep=True))
    states = ("--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.every_n_train_steps=100")
    states += ("--trainer.callbacks.save_top_k=-1", f"--trainer.callbacks.dirpath={RUNS / 'fig11' / 'states'}")
    made.append(Cell("fig11", "airplane", "full", 0, drwr, (weight, *states), 3000, keep=True))

    # Table 1 at 2000 points: every system with its own network, silhouettes of 32 pixels, equal steps of 4 shapes.
    point = ("--data.batch_size=4", "--data.views=4")
    cap = (*point, "--model.network.init_args.points=2000", f"{DRWR}points=2000", f"{DRWR}resolution=32")
    systems: dict[str, tuple[str, tuple[str, ...]]] = {
        "dpc": ("dpc_dpc_32.yaml", point),
        "cap": ("cap.yaml", cap),
        "dpcv": ("dpcv_32.yaml", point),
        "drc": ("drc.yaml", (*point, "--data.view_size=32")),
    }
    # Cars and chairs end at a tenth of the learning rate: with fifty shapes and a constant one, the last batch before
    # the judgement moved a car's distance by as much as 1 (5.3 after 600 steps, 6.3 after 800, losses alike).
    calm = ("--model.milestones=[0.7]", "--model.decay=0.1")
    for category, weight in BETA.items():
        if category == "airplane":  # DRWR's row there: table4's "full"
            continue
        own = {
            "drwr": (drwr, (f"{DRWR}beta={weight}",)),
            "drwr_area": (drwr, (f"{DRWR}area_scaled=true", f"{DRWR}beta=1.0")),
        }
        for row, (config, options) in {**own, **systems}.items():
            made += [Cell("table1", category, row, seed, config, (*options, *calm)) for seed in SEEDS]
        # DPC's blur narrows to the end of the run, where "calm" leaves it little to learn with: both without it too.
        for row, (config, options) in {"drwr_constant": own["drwr"], "dpc_constant": systems["dpc"]}.items():
            made += [Cell("table1", category, row, seed, config, options) for seed in SEEDS]
    made += [
        Cell("table1", "airplane", row, seed, config, options)
        for row, (config, options) in systems.items()
        for seed in SEEDS
    ]
    # Equal time: DPC's step takes 0.87 of DRWR's here (CPU, the rows above); the others' steps take longer than it.
    made += [Cell("table1", "airplane", "dpc_time", seed, "dpc_dpc_32.yaml", point, 920) for seed in SEEDS]
    half = (f"{DRWR}sigma=0.5", f"{DRWR}beta=6.0", *calm)
    made += [Cell("table1", "chair", "sigma_half", seed, drwr, half) for seed in SEEDS]
    # Table 1 at 64 and 128 pixels: one seed, fewer steps, a tenth of the rate for the last 15 %, and DRWR's weight
    # by area, which needs no choice per category and number of points.
    area, end = (f"{DRWR}area_scaled=true", f"{DRWR}beta=1.0"), ("--model.milestones=[0.85]", "--model.decay=0.1")
    finer: dict[str, tuple[str, int, tuple[str, ...]]] = {
        "drwr_64": ("dpc_drwr_64.yaml", 600, area),
        "dpc_64": ("dpc_dpc_64.yaml", 600, point),
        "drwr_128": ("dpc_drwr_128.yaml", 400, area),
        "dpc_128": ("dpc_dpc_128.yaml", 400, point),
        "epcg_128": ("epcg.yaml", 400, point),
        "dpcv_64": ("dpcv_64.yaml", 400, point),
    }
    for row, (config, steps, options) in finer.items():
        for category in BETA:
            made.append(Cell("table1_finer", category, row, 0, config, (*options, *end), steps))
    # Cars ask for more repulsion than their area gives (table1: 5.5 with the chosen weight, 6.2 by area)
    for row, steps, config in (
        ("drwr_64_chosen", 600, "dpc_drwr_64.yaml"),
        ("drwr_128_chosen", 400, "dpc_drwr_128.yaml"),
    ):
        made.append(Cell("table1_finer", "car", row, 0, config, (f"{DRWR}beta={BETA['car']}", *end), steps))
    # Is it that DPC learns slowly? Twice the steps
    made.append(Cell("table1_finer", "airplane", "dpc_64_long", 0, "dpc_dpc_64.yaml", (*point, *end), 1200))
    # What matters most first, should time run out.
    late = ("drwr_area", "drc", "dpcv")
    made.sort(key=lambda c: (c.experiment == "table1") * (1 + (c.category != "airplane") * (1 + (c.row in late))))
    return made


THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
EQUAL = {"no_omega": 0.52, "no_delta": 1.44}
"""Factor on beta at which the repulsion without ω, or δ, moves points as much as with it: mean gradient per point,
64 training shapes, a network trained for 200 steps."""


def run(cell: Cell) -> None:
    """Train and judge; writes ``cell.json`` last, so that a cell is done or not begun."""
    try:
        cell.folder.mkdir(parents=True)
    except FileExistsError:
        return  # done, or another lane is at it; delete the folder to run it again
    began, cpu = time.monotonic(), time.process_time()
    options = [f"--config={REPOSITORY / 'configs' / cell.config}", f"--data.root={ROOT}", "--data.build=never"]
    options += [f"--data.categories=[{cell.category}]", f"--data.seed={cell.seed}", f"--seed_everything={cell.seed}"]
    options += [f"--trainer.max_steps={cell.steps}", "--trainer.limit_val_batches=0"]
    options += [*cell.options, f"--out={cell.folder.parent}", f"--name={cell.folder.name}"]
    if reconlab(["fit", *options]) != 0:
        raise SystemExit(f"{cell} failed")
    trained = {"wall_seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - cpu}
    checkpoint = cell.folder / "000" / "checkpoints" / "last.ckpt"
    network = load_network(checkpoint)
    values: dict[str, Any] = {}
    if type(network).__name__ in ("DPCVoxels", "DRCNet"):
        from reconlab.lab.threshold import choose_threshold

        data = ReconstructionData(ROOT, [cell.category], batch_size=20, points=10000, eval_view="all")
        best, tried = choose_threshold(network, data, DPCChamfer(2000), THRESHOLDS)
        network.threshold = best
        values |= {"threshold": best, "thresholds": tried}
    values |= {split: judge(network, cell.category, split) for split in ("val", "test")}
    if not cell.keep:
        shutil.rmtree(checkpoint.parent)
    content = {**asdict(cell), **trained, **values, "command": ["reconlab", "fit", *options], **provenance(cell.seed)}
    (cell.folder / "cell.json").write_text(json.dumps(content, indent=1, default=str) + "\n")
    summary = {s: round(values[s]["dpc_cd"] * 100, 3) for s in ("val", "test")}
    print(f"DONE {cell.experiment} {cell.category} {cell.row} seed {cell.seed}: {summary}", flush=True)


def as_cloud(shape: Shape, count: int = 2000) -> PointCloud:
    """The shape as points: a cloud as it is, anything else sampled."""
    if isinstance(shape, PointCloud):
        return shape
    if isinstance(shape, VoxelGrid):
        shape = shape.mesh()
    generator = torch.Generator().manual_seed(0)
    clouds = []
    for i in range(len(shape)):  # one by one: an empty one must not spoil the others
        fine = bool(shape[i].valid())
        clouds.append(shape[i].points(count, generator) if fine else torch.full((1, count, 3), torch.nan))
    return PointCloud(torch.cat(clouds))


def judge(network: Network, category: str, split: str) -> dict[str, float]:
    """DPC's protocol on every view; ``other_image`` is the distance with another shape's image (same view)."""
    size = input_size(network)
    data = ReconstructionData(ROOT, [category], size, batch_size=20, points=10000, eval_view="all")
    metrics = {"cd": DPCChamfer(), "iou": PointIoU(), "nox": ChamferDistance("nox_dpc", points=8000)}
    for name, metric in metrics.items():
        data.require(metric.needs | network.needs, name, ("val", "test"))
    data.setup("test")
    clouds, truths, values = [], [], {}
    with torch.no_grad():
        for batch in data.loader(split):
            shape = as_cloud(network.reconstruct(batch))
            clouds.append(shape.positions)
            truths.append(batch.points)
            for metric in metrics.values():
                metric.update(shape, batch)
        for metric in metrics.values():
            values |= {k: float(v) for k, v in metric.compute().items()}
        others = torch.cat(clouds).roll(data.dataset(split).per_shape(), 0)
        both = [sum(precision_and_coverage(a[None], b[None])) for a, b in zip(others, torch.cat(truths), strict=True)]
    values["other_image"] = float(torch.cat(both).nan_to_num(3.46).mean())  # type: ignore[arg-type]
    return values


def collect(out: Path) -> None:
    """All finished cells, with means and standard deviations over seeds."""
    texts = [p.read_text() for p in sorted(RUNS.glob("**/cell.json"))]
    fresh = [json.loads(re.sub(r"--config=[^\"]*/configs/", "--config=configs/", text)) for text in texts]
    # What an earlier machine ran and this one has not stays in the file
    kept = json.loads(out.read_text())["cells"] if out.exists() else []
    key = ("experiment", "category", "row", "seed")
    found = list({tuple(c[k] for k in key): c for c in (*kept, *fresh)}.values())
    rows: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for cell in found:
        rows.setdefault((cell["experiment"], cell["category"], cell["row"]), []).append(cell)
    table = []
    for (experiment, category, row), group in rows.items():
        entry: dict[str, Any] = {"experiment": experiment, "category": category, "row": row, "seeds": len(group)}
        for split in ("val", "test"):
            for key in ("dpc_cd", "dpc_cd_best_view", "dpc_precision", "dpc_coverage", "other_image"):
                many = [100 * c[split][key] for c in group]
                sd = statistics.stdev(many) if len(many) > 1 else 0.0
                entry[f"{split}/{key}"] = [round(statistics.mean(many), 3), round(sd, 3)]
            for key in ("point_iou", "point_iou_unfilled", "point_iou_truth", "chamfer_nox_dpc"):
                many = [100 * c[split][key] for c in group]
                sd = statistics.stdev(many) if len(many) > 1 else 0.0
                entry[f"{split}/{key}"] = [round(statistics.mean(many), 4), round(sd, 4)]
        entry["cpu_seconds"] = round(statistics.mean(c["cpu_seconds"] for c in group), 1)
        table.append(entry)
    out.write_text(json.dumps({"rows": table, "cells": found}, indent=1) + "\n")
    for entry in table:
        shown = "  ".join(
            f"{k.removeprefix('test/')} {v[0]:.2f}±{v[1]:.2f}" for k, v in entry.items() if "test/" in k
        )
        name = f"{entry['experiment']:8} {entry['category']:9} {entry['row']:16}"
        print(f"{name} n={entry['seeds']} val {entry['val/dpc_cd'][0]:.2f}  {shown}")


def main() -> None:
    """Dispatch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "list", "collect"])
    parser.add_argument("--experiment", action="append", default=[])
    parser.add_argument("--category", action="append", default=[])
    parser.add_argument("--row", action="append", default=[])
    parser.add_argument("--seed", action="append", type=int, default=[])
    parser.add_argument("--lane", default="0/1")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    if options.what == "collect":
        collect(options.out)
        return
    chosen = [
        c
        for c in cells()
        if (not options.experiment or c.experiment in options.experiment)
        and (not options.category or c.category in options.category)
        and (not options.row or c.row in options.row)
        and (not options.seed or c.seed in options.seed)
    ]
    lane, lanes = map(int, options.lane.split("/"))
    for cell in chosen[lane::lanes]:
        if options.what == "list":
            print(cell)
        else:
            run(cell)


if __name__ == "__main__":
    sys.exit(main())
