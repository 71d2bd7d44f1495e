"""Makes the figures and the tables of results/foundation.md from run directories.

    python results/foundation.py --fit NAME=RUN … --test NAME=RUN … --root data/real

``--fit`` runs give the validation curves and the networks of the gallery, ``--test`` runs the table.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch

mpl.use("Agg")
from matplotlib import pyplot as plt

from reconlab.datasets.datamodule import ReconstructionData, collate
from reconlab.datasets.samples import ShapeDataset
from reconlab.lab.pictures import gallery
from reconlab.lab.predict import load_network
from reconlab.metrics import ChamferDistance, chamfer_distance

CURVES = {
    "chamfer_dpc": ("Chamfer distance (dpc) ×100", 100),
    "fscore_what3d": ("F-score at 1 %, ×100", 100),
    "normal_consistency": ("normal consistency", 1),
    "voxel_iou": ("IoU at 32³, ×100", 100),
}
CATEGORIES = ("airplane", "car", "chair", "lamp")


def named(pairs: list[str]) -> dict[str, Path]:
    """``name=path`` arguments."""
    return {name: Path(path) for name, path in (pair.split("=", 1) for pair in pairs)}


def curves(runs: dict[str, Path], out: Path) -> None:
    """Validation metrics against steps."""
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.2))
    for name, run in runs.items():
        with open(run / "metrics.csv", newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row.get("val/chamfer_dpc")]
        steps = [int(row["step"]) + 1 for row in rows]
        for axis, (key, (_, factor)) in zip(axes, CURVES.items(), strict=True):
            axis.plot(steps, [factor * float(row[f"val/{key}"]) for row in rows], label=name, marker=".")
    for axis, (title, _) in zip(axes, CURVES.values(), strict=True):
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(out, dpi=80)


def samples(root: str, split: str, each: int) -> Any:
    """The first ``each`` samples of every category."""
    data = ReconstructionData(root, points=10000)
    data.require({"images", "mesh", "surface"}, "the gallery")
    data.setup("test")
    dataset = data.dataset(split)
    chosen = [i for c in CATEGORIES for i in [k for k, item in enumerate(dataset.items) if item.category == c][:each]]
    shown = ShapeDataset(dataset.items, replace(dataset.loading), 0)
    return collate([shown[i] for i in chosen])


def picture(runs: dict[str, Path], root: str, out: Path) -> None:
    """Two test shapes of every category under every loss."""
    batch = samples(root, "test", 2)
    shapes = {}
    for name, run in runs.items():
        network = load_network(run / "checkpoints" / "last.ckpt")
        with torch.no_grad():
            shapes[name] = network.reconstruct(batch)
    captions = [f"{c}/{i}" for c, i in zip(batch.categories, batch.ids, strict=True)]
    sheet = gallery(batch.images, batch.mesh, shapes, captions, size=128)
    sheet.quantize(64).save(out, optimize=True)


def image_dependence(runs: dict[str, Path], root: str) -> dict[str, tuple[float, float]]:
    """Chamfer distance (dpc, ×100) with the shape's own image and with another's of the same category.

    A network that ignores its image and answers with the mean shape scores alike on both.
    """
    data = ReconstructionData(root, points=2500, batch_size=16)
    data.require({"images", "surface"}, "the image check")
    data.setup("test")
    result = {}
    for name, run in runs.items():
        network = load_network(run / "checkpoints" / "last.ckpt")
        own, other = [], []
        for category in CATEGORIES:
            dataset = data.dataset("test")
            index = [k for k, item in enumerate(dataset.items) if item.category == category]
            batch = collate([dataset[k] for k in index])
            with torch.no_grad():
                points = network.reconstruct(batch).points(2500, torch.Generator().manual_seed(0))
            own += chamfer_distance(points, batch.points).tolist()
            other += chamfer_distance(points.roll(1, 0), batch.points).tolist()
        result[name] = (100 * sum(own) / len(own), 100 * sum(other) / len(other))
    return result


def table(runs: dict[str, Path]) -> str:
    """Test metrics, as Markdown."""
    contents = {name: json.loads((run / "run.json").read_text()) for name, run in runs.items()}
    lines = ["| loss | " + " | ".join(title for title, _ in CURVES.values()) + " | n | failed |"]
    lines.append("|---" * (len(CURVES) + 3) + "|")
    for name, content in contents.items():
        values = content["metrics"]
        cells = [f"{factor * values[f'test/{key}']:.2f}" for key, (_, factor) in CURVES.items()]
        counts = [f"{values[f'test/chamfer_dpc/{key}']:.0f}" for key in ("n", "n_failed")]
        lines.append(f"| {name} | " + " | ".join(cells + counts) + " |")
    lines += ["", "Chamfer distance (dpc, ×100) by category:", ""]
    lines += ["| loss | " + " | ".join(CATEGORIES) + " |", "|---" * (len(CATEGORIES) + 1) + "|"]
    factor = ChamferDistance().protocol.factor
    for name, content in contents.items():
        cells = [f"{factor * content['metrics'][f'test/chamfer_dpc/{c}']:.2f}" for c in CATEGORIES]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Write the figures beside this file and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", nargs="+", default=[])
    parser.add_argument("--test", nargs="+", default=[])
    parser.add_argument("--root", default="data/real")
    options = parser.parse_args()
    folder = Path(__file__).parent
    fits, tests = named(options.fit), named(options.test)
    if fits:
        curves(fits, folder / "foundation_curves.png")
        picture(fits, options.root, folder / "foundation_gallery.png")
        for name, (own, other) in image_dependence(fits, options.root).items():
            print(f"| {name} | {own:.2f} | {other:.2f} |")
    if tests:
        text = table(tests)
        print(text)
        content = {n: json.loads((r / "run.json").read_text()) for n, r in tests.items()}
        (folder / "foundation.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
