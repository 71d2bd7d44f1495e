"""The tables and pictures of results/drkfs.md, from results/drkfs.json and the cells' predictions.

python results/drkfs_report.py tables
python results/drkfs_report.py pictures runs/drkfs     # results/drkfs_gallery.png, drkfs_fig5.png
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from reconlab.datasets.datamodule import ReconstructionData, collate
from reconlab.lab.pictures import gallery_cameras, image_tile, render_shape, save_picture
from reconlab.shapes import Mesh, Shape

HERE = Path(__file__).parent
MEASURES = {
    # title: (key, factor, digits, higher is better, kind)
    "CD ×100": ("chamfer_dpc", 100, 2, False, "object"),
    "IoU": ("voxel_iou", 100, 1, True, "object"),
    "F-score": ("fscore_what3d", 100, 1, True, "visual"),
    "NC": ("normal_consistency", 1, 3, True, "visual"),
    "silhouettes": ("unseen_iou", 100, 1, True, "visual"),
    "DR-KFS": ("drkfs", 1, 3, False, "own"),
    "shading ×100": ("unseen_mse", 100, 2, False, "control"),
}
COLUMNS = {
    "settled": "where all begin", "original": "original, continued",
    "drkfs": "DR-KFS instead", "original+drkfs": "original + DR-KFS", "original+wide": "original + DR-KFS, wide",
    "original+mse": "original + shaded MSE", "original+iou": "original + silhouette IoU",
    "mse": "shaded MSE instead", "silhouette_drkfs": "silhouette DR-KFS instead",
}  # fmt: skip
TITLES = {
    "atlasnet": "AtlasNet-25", "matryoshka": "Matryoshka", "pixel2mesh": "Pixel2Mesh", "ogn": "OGN",
    "r2n2": "3D-R2N2", "shape_generator": "Shape Generator (SoftRas)", "imnet": "IM-Net",
}  # fmt: skip
RIVALS = ("drkfs", "original+drkfs", "original+wide", "original+mse", "original+iou")
PAPER_SHARES = "The paper counts 24 of 30 visual comparisons and 4 of 10 object-space ones."


def groups(cells: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Cells by network and column, in the order of the tables."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for network in TITLES:
        for column in COLUMNS:
            many = [c for c in cells if c["network"] == network and c["column"] == column and "test" in c]
            if many:
                found[network, column] = sorted(many, key=lambda c: c["seed"])
    return found


def value(group: list[dict[str, Any]], title: str, split: str = "test") -> str:
    """Mean, and the seeds' half range where there are several."""
    key, factor, digits, *_ = MEASURES[title]
    many = [factor * c[split]["mean"][key] for c in group]
    text = f"{statistics.mean(many):.{digits}f}"
    return text + (f" ± {(max(many) - min(many)) / 2:.{digits}f}" if len(many) > 1 else "")


def tables(cells: list[dict[str, Any]]) -> str:
    """One table per network."""
    found = groups(cells)
    lines = []
    for network, title in TITLES.items():
        rows = [(column, group) for (n, column), group in found.items() if n == network]
        if not rows:
            continue
        plan = rows[-1][1][0]["plan"]
        lines += ["", f"**{title}** ({plan['base']} + {plan['settle']} steps, then {plan['more']})", ""]
        lines.append("| trained by | seeds | " + " | ".join(MEASURES) + " | failed | CPU s |")
        lines.append("|---" * (len(MEASURES) + 4) + "|")
        for column, group in rows:
            values = " | ".join(value(group, m) for m in MEASURES)
            failed = statistics.mean(c["test"]["failed"] for c in group)
            cost = statistics.mean(c["cpu_seconds"] for c in group)
            lines.append(f"| {COLUMNS[column]} | {len(group)} | {values} | {failed:g} | {cost:.0f} |")
    return "\n".join(lines)


def shares(cells: list[dict[str, Any]], split: str = "test") -> str:
    """How many comparisons with "original, continued" each column wins, on the seeds that both have."""
    found = groups(cells)
    measures = {t: m for t, m in MEASURES.items() if split == "test" or m[4] != "own"}  # DR-KFS is dear: test only
    lines = ["| column | networks | " + " | ".join(measures) + " | object-space | visual |"]
    lines.append("|---" * (len(measures) + 4) + "|")
    for column in RIVALS:
        wins = dict.fromkeys(measures, 0)
        seeds = {n: _seeds(found, n, column) & _seeds(found, n, "original") for n in TITLES}
        networks = [n for n in TITLES if seeds[n]]
        for network in networks:
            for title, (key, _, _, higher, _) in measures.items():
                one, other = (
                    statistics.mean(c[split]["mean"][key] for c in found[network, x] if c["seed"] in seeds[network])
                    for x in (column, "original")
                )
                wins[title] += (one > other) if higher else (one < other)
        kinds = {k: [t for t, m in measures.items() if m[4] == k] for k in ("object", "visual")}
        sums = [f"{sum(wins[t] for t in kinds[k])} of {len(networks) * len(kinds[k])}" for k in kinds]
        lines.append(f"| {COLUMNS[column]} | {len(networks)} | " + " | ".join(str(w) for w in wins.values()) + " | "
                     + " | ".join(sums) + " |")  # fmt: skip
    return "\n".join(lines)


def changes(cells: list[dict[str, Any]], split: str) -> str:
    """Relative change against "original, continued" in percent, better counted positive; mean over networks."""
    found = groups(cells)
    measures = {t: m for t, m in MEASURES.items() if split == "test" or m[4] != "own"}
    lines = ["| column | networks | " + " | ".join(measures) + " |", "|---" * (len(measures) + 2) + "|"]
    for column in RIVALS:
        rows: dict[str, list[float]] = {t: [] for t in measures}
        count = 0
        for network in TITLES:
            seeds = _seeds(found, network, column) & _seeds(found, network, "original")
            count += bool(seeds)
            for title, (key, _, _, higher, _) in measures.items():
                pair = [
                    [c[split]["mean"][key] for c in found.get((network, x), []) if c["seed"] in seeds]
                    for x in (column, "original")
                ]
                if seeds:
                    gain = statistics.mean(pair[0]) / statistics.mean(pair[1]) - 1
                    rows[title].append(100 * (gain if higher else -gain))
        if count:
            shown = " | ".join(f"{statistics.mean(v):+.1f}" for v in rows.values())
            lines.append(f"| {COLUMNS[column]} | {count} | {shown} |")
    return "\n".join(lines)


def _seeds(found: dict[tuple[str, str], list[dict[str, Any]]], network: str, column: str) -> set[int]:
    return {c["seed"] for c in found.get((network, column), [])}


def predictions(cell: Path, names: list[str]) -> Mesh:
    """The test meshes of a cell, by name."""
    with np.load(cell / "test.npz") as data:
        order = [list(data["names"]).index(name) for name in names]
        packed = Mesh(
            torch.from_numpy(data["vertices"].astype(np.float32)), torch.from_numpy(data["faces"]).long(),
            torch.from_numpy(data["vertex_splits"]), torch.from_numpy(data["face_splits"]),
        )  # fmt: skip
    return Mesh.from_list([packed.item(i) for i in order])


def sheet(runs: Path, wanted: list[tuple[str, str, str]], picks: dict[str, tuple[int, ...]], out: Path) -> None:
    """Inputs, truth, and for each ``(title, network, column)`` the reconstruction, one shape a row."""
    data = ReconstructionData("data/real", points=100)
    data.require({"images", "mesh"}, "the gallery")
    data.setup("test")
    dataset = data.dataset("test")
    chosen = []
    for category, places in picks.items():
        of = [i for i, item in enumerate(dataset.items) if item.category == category]
        chosen += [of[p] for p in places]
    batch = collate([dataset[i] for i in chosen])
    names = [f"{c}/{i}" for c, i in zip(batch.categories, batch.ids, strict=True)]
    assert batch.images is not None  # noqa: S101
    columns: list[tuple[str, Shape | None]] = [("input", None), ("truth", batch.mesh)]
    for title, network, column in wanted:
        place = runs / network / column.replace("+", "_and_") / "seed0"
        if (place / "test.npz").exists():
            columns.append((title, predictions(place, names)))
    size, head = 112, 34
    picture = Image.new("RGB", (size * len(columns), head + size * len(names)), "white")
    draw = ImageDraw.Draw(picture)
    cameras = gallery_cameras(((30.0, 20.0),))
    for c, (title, shape) in enumerate(columns):
        draw.multiline_text((c * size + 4, 3), title, fill="black")
        for row in range(len(names)):
            tile = (
                image_tile(batch.images[row], size) if shape is None else render_shape(shape, row, cameras, size)[0]
            )
            picture.paste(Image.fromarray(tile), (c * size, head + row * size))
    save_picture(picture, out)


def main() -> None:
    """Dispatch."""
    if sys.argv[1:2] == ["tables"]:
        cells = json.loads((HERE / "drkfs.json").read_text())["cells"]
        print(tables(cells))
        for split in ("val", "test"):
            print(f"\n{split}: comparisons won\n", shares(cells, split), sep="\n")
            print(f"\n{split}: gain in %\n", changes(cells, split), sep="\n")
        print("\n" + PAPER_SHARES)
        return
    runs = Path(sys.argv[2])
    networks = {"atlasnet": "AtlasNet", "matryoshka": "Matryoshka", "pixel2mesh": "P2M", "ogn": "OGN"}
    networks |= {"r2n2": "3D-R2N2", "shape_generator": "SG", "imnet": "IM-Net"}
    columns = {"original": "original", "drkfs": "DR-KFS", "original+drkfs": "both"}
    pairs = [(f"{short}\n{label}", n, column) for n, short in networks.items() for column, label in columns.items()]
    picks = {"airplane": (3, 20), "car": (2,), "chair": (1, 6), "lamp": (4,)}
    sheet(runs, pairs, picks, HERE / "drkfs_gallery.png")
    sg = "shape_generator"
    rows = [("SG + DR-KFS\nsilhouettes", sg, "silhouette_drkfs"), ("SG + MSE\nshaded", sg, "mse")]
    rows.append(("SG + DR-KFS\nshaded", sg, "drkfs"))
    sheet(runs, rows, picks, HERE / "drkfs_fig5.png")


if __name__ == "__main__":
    main()
