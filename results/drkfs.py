"""Runs the cells of results/drkfs.md: networks of DR-KFS' Table 3 under their own loss, DR-KFS, and controls.

    python results/drkfs.py run [--network atlasnet]   # resumable: a finished cell is not run again
    python results/drkfs.py collect                    # runs/drkfs/**/cell.json -> results/drkfs.json

A cell is (network, column, seed). ``base`` trains from scratch with the original loss, ``settled`` goes on with it
while the rate falls to a tenth; every other column goes on from ``settled`` for equally many steps at a tenth of the
base's rate. Settings are in :data:`NETWORKS` and :func:`columns`, nowhere else.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from reconlab.cameras import orbit_views
from reconlab.cli.__main__ import main as reconlab
from reconlab.datasets.datamodule import ReconstructionData
from reconlab.lab.predict import load_network
from reconlab.lab.run_directory import provenance
from reconlab.losses import DRKFS
from reconlab.losses.view_images import RenderSettings, render_views
from reconlab.metrics import ChamferDistance, FScore, NormalConsistency, VoxelIoU
from reconlab.networks import Network
from reconlab.report.trained_figures import input_size
from reconlab.shapes import Mesh

ROOT = "data/real"
RUNS = Path("runs/drkfs")
REPOSITORY = Path(__file__).resolve().parents[1]
WIDE = (
    {"until": 0.35, "radius": 0, "pyramid_levels": 3, "sigma": 3e-3},
    {"until": 0.7, "radius": 0, "pyramid_levels": 3},
)
VISUAL = {"image_size": 64, "views_per_step": 2, "radius": 0, "half_fov": 11.5, "sigma": 1e-4, "gamma": 1e-3}


@dataclass(frozen=True)
class Plan:
    """One network's trainings.

    Attributes:
        config: Of its original loss.
        rate: Of learning, at the start; a tenth of it for the columns.
        base: Steps from scratch.
        settle: Steps of the original loss after it, while the rate falls.
        more: Steps of every other column.
        seeds: One row each.
        options: To ``reconlab fit``, for every cell.
        after: To ``reconlab fit``, for the cells that go on from the base.
        loss: Arguments of the original loss that differ from the config's.
    """

    config: str
    rate: float
    base: int
    settle: int
    more: int
    seeds: tuple[int, ...]
    options: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    loss: tuple[tuple[str, Any], ...] = ()


DESK = f"--config={REPOSITORY / 'configs/profiles/desk.yaml'}"
NETWORKS: dict[str, Plan] = {
    "atlasnet": Plan("atlasnet_chamfer.yaml", 1e-3, 1600, 600, 300, (0, 1), (DESK,)),
    # The losses that DR-KFS' Table 1 names (the released depth loss needs four times the steps); judged on the
    # surface that image losses see
    "matryoshka": Plan(
        "matryoshka_original.yaml", 1e-3, 600, 400, 150, (0, 1),
        ("--model.network.init_args.export=soft", "--model.network.init_args.start=0.5"),
        loss=(("depth", 0.0), ("iou", 1.0), ("cosine", 1.0)),
    ),
    # An image loss must judge the trees that the network itself divides, not the truth's; so for every column
    "ogn": Plan(
        "ogn_original.yaml", 1e-3, 500, 600, 120, (0,), after=("--model.network.init_args.propagation=predicted",)
    ),
    "shape_generator": Plan("shape_generator_original.yaml", 3e-4, 1200, 480, 240, (0, 1)),
    # The same network under NMR's gradient (the paper's "Original"); run with --column base, settled, original
    "shape_generator_nmr": Plan("shape_generator_nmr.yaml", 3e-4, 1200, 480, 240, (0, 1)),
    "r2n2": Plan("r2n2_original.yaml", 3e-4, 300, 400, 80, (0,)),
    "pixel2mesh": Plan("pixel2mesh_original.yaml", 5e-4, 300, 500, 80, (0,)),
    # Its schedule of resolutions would begin anew with the columns
    "imnet": Plan("imnet_original.yaml", 1e-3, 600, 300, 60, (0,), loss=(("resolutions", [32]),)),
}  # fmt: skip
ALONE = 5.0
"""Where DR-KFS (or an image loss) stands alone against geometric regularisers: its gradient as a multiple of the
original loss' at the switch (facts: 5 to 25 times a silhouette loss')."""


def columns(original: dict[str, Any], weights: dict[str, float]) -> dict[str, dict[str, Any]]:
    """The losses that go on from the base, as ``model.loss`` of a config.

    ``weights``: of the image losses where they stand alone against regularisers.
    """
    visual = {"class_path": "DRKFS", "init_args": {**VISUAL, "bf16": True}}
    views = {k: VISUAL[k] for k in ("image_size", "views_per_step", "half_fov", "sigma", "gamma")}
    shaded = {"class_path": "PixelMSE", "init_args": {**views, "images": "shaded"}}
    # The widest reach of results/drkfs_reach.py: coarse views of soft outlines first (docs/drkfs.md)
    wide = {"descriptor": "dense", "images": "silhouette", "image_size": 128, "radius": 1, "stages": list(WIDE)}
    outline = {"class_path": "DRKFS", "init_args": {**visual["init_args"], "images": "silhouette"}}  # type: ignore[dict-item]

    def both(other: dict[str, Any]) -> dict[str, Any]:
        arguments = {"terms": {"original": original, "image": other}, "reference": "original"}
        return {"class_path": "Balanced", "init_args": {**arguments, "method": "gradient"}}

    def alone(other: dict[str, Any], weight: float) -> dict[str, Any]:
        terms = {"image": other, "regularizer": {"class_path": "GeometricRegularizer"}}
        arguments = {"terms": terms, "weights": {"image": weight, "regularizer": 1.0}}
        return {"class_path": "WeightedSum", "init_args": arguments}

    return {
        "original": original,
        "original+drkfs": both(visual),
        "original+wide": both({"class_path": "DRKFS", "init_args": {**VISUAL, **wide}}),
        "original+mse": both(shaded),
        "original+iou": both({"class_path": "SilhouetteIoU", "init_args": views}),
        "drkfs": alone(visual, weights["original+drkfs"]),
        # Table 4
        "mse": alone(shaded, weights["original+mse"]),
        "silhouette_drkfs": alone(outline, weights["original+drkfs"]),
    }


COLUMNS = ("base", "settled", "original", "original+drkfs", "drkfs", "original+mse", "original+iou")
EXTRA = ("original+wide",)
TABLE4 = ("mse", "silhouette_drkfs")
WEIGHED = {"drkfs": "original+drkfs", "silhouette_drkfs": "original+drkfs", "mse": "original+mse"}
"""Columns of an image loss alone, and the column whose first weight theirs is a multiple of."""


def first_weight(network: str, column: str, seed: int) -> float:
    """The image loss' weight at the switch, for equal gradients, times :data:`ALONE`; 0 where it is not known yet."""
    if network not in ("shape_generator", "pixel2mesh"):
        return 1.0  # no regularisers: Adam does not see a factor
    log = folder(network, column, seed) / "000" / "metrics.csv"
    if not log.exists():
        return 0.0
    with open(log, newline="") as stream:
        found = [float(r["train/weight/image"]) for r in csv.DictReader(stream) if r.get("train/weight/image")]
    return ALONE * found[0] if found else 0.0


def folder(network: str, column: str, seed: int) -> Path:
    """Where the run, the predictions and ``cell.json`` go."""
    return RUNS / network / column.replace("+", "_and_") / f"seed{seed}"


def run(network: str, column: str, seed: int) -> None:
    """Train and judge; writes ``cell.json`` last, so that a cell is done or not begun."""
    plan, place = NETWORKS[network], folder(network, column, seed)
    before = {"base": None, "settled": "base"}.get(column, "settled")
    if before and not (folder(network, before, seed) / "cell.json").exists():
        print(f"WAIT {network} {column} {seed}: its {before} is not done", flush=True)
        return
    if column in WEIGHED and not first_weight(network, WEIGHED[column], seed) > 0:
        print(f"WAIT {network} {column} {seed}: {WEIGHED[column]} has not measured its weight", flush=True)
        return
    try:
        place.mkdir(parents=True)
    except FileExistsError:
        return  # done, or another lane is at it; delete the folder to run it again
    began, cpu = time.monotonic(), time.process_time()
    config = REPOSITORY / "configs" / plan.config
    steps = {"base": plan.base, "settled": plan.settle}.get(column, plan.more)
    options = [f"--config={config}", *plan.options, f"--data.root={ROOT}", "--data.build=never"]
    options += [f"--data.seed={seed}", f"--seed_everything={seed}", f"--trainer.max_steps={steps}"]
    options += ["--trainer.limit_val_batches=0", "--model.decay=0.3"]
    if before:
        checkpoint = folder(network, before, seed) / "000" / "checkpoints" / "last.ckpt"
        options += [f"--model.init_from={checkpoint}", *plan.after]
    if column in ("base", "settled"):
        options += [f"--model.milestones={[0.8] if column == 'base' else [0.4, 0.7]}", f"--model.lr={plan.rate}"]
        options += [f"--model.loss.init_args.{key}={value}" for key, value in plan.loss]
    else:
        original = yaml.safe_load(config.read_text())["model"]["loss"]
        if plan.loss:
            original["init_args"] |= dict(plan.loss)
        weights = {c: first_weight(network, c, seed) for c in ("original+drkfs", "original+mse")}
        loss = columns(original, weights)[column]
        (place / "loss.yaml").write_text(yaml.safe_dump({"model": {"loss": loss}}))
        options += [
            f"--config={place / 'loss.yaml'}",
            "--model.milestones=[0.5, 0.8]",
            f"--model.lr={plan.rate / 10}",
        ]
    options += [f"--out={place.parent}", f"--name={place.name}"]
    if reconlab(["fit", *options]) != 0:
        raise SystemExit(f"{network} {column} {seed} failed")
    trained = {"wall_seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - cpu}
    model = load_network(place / "000" / "checkpoints" / "last.ckpt")
    # "settled" is where every column starts; recipes are chosen on the validation families
    values = {} if column == "base" else {split: judge(model, split, place) for split in ("val", "test")}
    if column not in ("base", "settled"):
        (place / "000" / "checkpoints" / "last.ckpt").unlink()
    content = {"network": network, "column": column, "seed": seed, "steps": steps, **trained, **values}
    content |= {"plan": asdict(plan), "command": ["reconlab", "fit", *options], **provenance(seed)}
    (place / "cell.json").write_text(json.dumps(content, indent=1, default=str) + "\n")
    shown = brief(values["test"]) if values else ""
    print(f"DONE {network} {column} {seed} {trained['wall_seconds']:.0f}s {shown}", flush=True)


MEASURES = {
    # name: (key, factor, higher is better, kind)
    "CD": ("chamfer_dpc", 100, False, "object"),
    "IoU": ("voxel_iou", 100, True, "object"),
    "FS": ("fscore_what3d", 100, True, "visual"),
    "NC": ("normal_consistency", 1, True, "visual"),
    "silhouettes": ("unseen_iou", 100, True, "visual"),
    "DR-KFS": ("drkfs", 1, False, "own"),
    "shading": ("unseen_mse", 100, False, "control"),
}


def brief(values: dict[str, Any]) -> str:
    """The main values of one split in a line."""
    return "  ".join(f"{name} {f * values['mean'][key]:.3f}" for name, (key, f, *_) in MEASURES.items())


def judge(network: Network, split: str, place: Path) -> dict[str, Any]:
    """Per-category means of every measure; predictions and values per sample go to ``<split>.npz``."""
    metrics = {
        "cd": ChamferDistance(), "cd_atlas": ChamferDistance("atlasnet"), "fscore": FScore(),
        "fscore_atlas": FScore("atlasnet"), "nc": NormalConsistency(),
        "iou": VoxelIoU(threshold=getattr(network, "threshold", 0.5)),  # 3D-R2N2's is 0.4
    }  # fmt: skip
    data = ReconstructionData(ROOT, None, input_size(network), batch_size=8, points=10000, views=2, view_size=64)
    for name, metric in metrics.items():
        data.require(metric.needs | network.needs | {"mesh"}, name, ("val", "test"))
    data.setup("test")
    # As a metric: the paper's window at 128 pixels, five of the 25 views, whatever the network was trained with
    drkfs = DRKFS(image_size=128, radius=1, eval_views=5, half_fov=11.5, sigma=1e-4, bf16=True).eval()
    views = orbit_views(8, elevation=20.0, half_fov=11.5)
    below = orbit_views(4, elevation=-20.0, half_fov=11.5)
    crisp = RenderSettings("shaded", 128, 1e-6, 1e-5, "flat")
    outline = RenderSettings("silhouette", 128, 1e-6, 1e-5, "flat")
    rows: dict[str, list[float]] = {}
    names: list[tuple[str, str]] = []
    meshes: list[Mesh] = []
    with torch.no_grad():
        for batch in data.loader(split):
            shape = network.reconstruct(batch)
            mesh = shape.mesh()
            found: dict[str, torch.Tensor] = {}
            for metric in metrics.values():
                found |= metric.per_sample(shape, batch)
            if split == "test":  # dear
                found["drkfs"] = sum(drkfs.per_view(mesh, batch)).mean(1)  # type: ignore[union-attr]
            a = torch.cat([render_views(mesh, c, outline) for c in (views, below)], 1) > 0.5
            b = torch.cat([render_views(batch.mesh, c, outline) for c in (views, below)], 1) > 0.5
            found["unseen_iou"] = ((a & b).sum((2, 3)) / (a | b).sum((2, 3)).clamp_min(1)).mean(1)
            difference = render_views(mesh, views, crisp) - render_views(batch.mesh, views, crisp)
            found["unseen_mse"] = difference.square().mean((1, 2, 3))
            for key, value in found.items():
                rows.setdefault(key, []).extend(value.double().tolist())
            names += list(zip(batch.categories, batch.ids, strict=True))
            meshes.append(mesh)
    packed = Mesh.cat(meshes)
    categories = sorted({c for c, _ in names})
    np.savez_compressed(
        place / f"{split}.npz", names=np.array([f"{c}/{i}" for c, i in names]),
        vertices=packed.vertices.numpy().astype(np.float16), faces=packed.faces.numpy().astype(np.int32),
        vertex_splits=packed.vertex_splits.numpy(), face_splits=packed.face_splits.numpy(),
        **{f"value/{k}": np.array(v) for k, v in rows.items()},  # type: ignore[arg-type]
    )  # fmt: skip
    by = {c: {k: float(np.mean([x for x, (d, _) in zip(v, names, strict=True) if d == c])) for k, v in rows.items()}
          for c in categories}  # fmt: skip
    # The paper's numbers are means over four categories
    mean = {k: statistics.mean(by[c][k] for c in categories) for k in rows}
    return {"mean": mean, "by_category": by, "n": len(names)}


def collect(out: Path) -> None:
    """All finished cells, with means and standard deviations over seeds, and the fractions that improve."""
    fresh = []
    for path in sorted(RUNS.glob("**/cell.json")):
        cell = json.loads(re.sub(r"=[^\"=]*/(configs/|runs/)", r"=\1", path.read_text()))
        if "test" in cell:
            with np.load(path.parent / "test.npz") as data:
                cell["test"]["failed"] = int(data["value/chamfer_dpc/failed"].sum())
        fresh.append(cell)
    # What an earlier machine ran and this one has not stays in the file
    old = json.loads(out.read_text()) if out.exists() else {}
    kept = old.get("cells", [])
    known = {(c["network"], c["column"], c["seed"]): c for c in (*kept, *fresh)}
    cells = list(known.values())
    rows = []
    for network in NETWORKS:
        for column in (*COLUMNS, *EXTRA, *TABLE4):
            group = [c for c in cells if c["network"] == network and c["column"] == column]
            if not group:
                continue
            row: dict[str, Any] = {"network": network, "column": column, "seeds": len(group)}
            for name, (key, factor, *_) in MEASURES.items():
                many = [factor * c["test"]["mean"][key] for c in group if "test" in c]
                if many:
                    sd = statistics.stdev(many) if len(many) > 1 else 0.0
                    row[f"test/{name}"] = [round(statistics.mean(many), 4), round(sd, 4)]
            row["cpu_seconds"] = round(statistics.mean(c["cpu_seconds"] for c in group), 1)
            rows.append(row)
    out.write_text(json.dumps({**old, "rows": rows, "cells": cells}, indent=1) + "\n")
    for row in rows:
        shown = "  ".join(f"{n} {row[f'test/{n}'][0]:.3f}" for n in MEASURES if f"test/{n}" in row)
        print(f"{row['network']:16} {row['column']:15} n={row['seeds']} {shown}")


def main() -> None:
    """Dispatch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "list", "collect"])
    parser.add_argument("--network", action="append", default=[])
    parser.add_argument("--column", action="append", default=[])
    parser.add_argument("--seed", action="append", type=int, default=[])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    if options.what == "collect":
        collect(options.out)
        return
    for network in options.network or NETWORKS:
        for seed in NETWORKS[network].seeds:
            for column in (*COLUMNS, *EXTRA, *(TABLE4 if network == "shape_generator" else ())):
                # Extra columns run only where they are asked for
                chosen = column in options.column or (not options.column and column not in EXTRA)
                if chosen and (not options.seed or seed in options.seed):
                    if options.what == "list":
                        print(network, column, seed)
                    else:
                        run(network, column, seed)


if __name__ == "__main__":
    main()
