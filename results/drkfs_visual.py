"""LFD, MVCNN, Shape Google of every reconstruction that the cells of results/drkfs.py kept, without training again.

    python results/drkfs_visual.py run [--metrics lfd,shape_google]  # resumable, beside each cell: visual.json
    python results/drkfs_visual.py collect                        # -> results/drkfs_visual.json, and the tables

Means are those of results/drkfs.py: over four categories, failed reconstructions at the protocol's worst value. The
stored vertices are in half precision (steps of 1/4096 and less), which moves LFD by less than another view would.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from drkfs_report import COLUMNS, RIVALS, TITLES

from reconlab.batch import Batch
from reconlab.lab.evaluate_metrics import CLASSES, Plan, make_metrics
from reconlab.lab.run_directory import provenance
from reconlab.shapes import Mesh

RUNS = Path("runs/drkfs")
ROOT = Path("data/real")
OUT = Path(__file__).with_suffix(".json")


def judge(cell: Path, metrics: dict[str, Any], split: str) -> dict[str, Any]:
    """Means of every metric over the categories of a split."""
    with np.load(cell / f"{split}.npz") as data:
        names = [str(n) for n in data["names"]]
        packed = Mesh(
            torch.from_numpy(data["vertices"].astype(np.float32)), torch.from_numpy(data["faces"]).long(),
            torch.from_numpy(data["vertex_splits"]), torch.from_numpy(data["face_splits"]),
        )  # fmt: skip
    values: dict[str, list[float]] = {name: [] for name in metrics}
    failed = 0
    for i, name in enumerate(names):
        category, _, sample = name.partition("/")
        with np.load(ROOT / name / "mesh.npz") as stored:
            truth = Mesh(torch.from_numpy(stored["vertices"]).float(), torch.from_numpy(stored["faces"]).long())
        batch = Batch(ids=[sample], categories=[category], mesh=truth)
        for key, metric in metrics.items():
            found = metric.per_sample(packed[i], batch)
            values[key].append(float(found[metric.name][0]))
            failed += bool(found[metric.failed_key][0])
    categories = sorted({n.partition("/")[0] for n in names})
    by = {}
    for c in categories:
        rows = [i for i, n in enumerate(names) if n.startswith(f"{c}/")]
        by[c] = {k: statistics.mean(many[i] for i in rows) for k, many in values.items()}
    mean = {k: statistics.mean(by[c][k] for c in categories) for k in metrics}
    return {"mean": mean, "by_category": by, "failed": failed, "n": len(names)}


def collect() -> None:
    """All judged cells in one file, and per column the mean gain on "original"."""
    cells: dict[str, Any] = {}
    for path in sorted(RUNS.glob("**/visual.json")):
        network, column, seed = path.parts[-4:-1]
        cells[f"{network} {column.replace('_and_', '+')} {seed}"] = json.loads(path.read_text())
    OUT.write_text(json.dumps({"cells": cells} | provenance(0), indent=1, default=str) + "\n")
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for key, cell in cells.items():
        network, column, seed = key.split()
        found.setdefault((network, column), {})[seed] = cell
    keys = sorted({k for cell in cells.values() for split in cell.values() for k in split["mean"]})
    for split in ("val", "test"):
        for network, title in TITLES.items():
            for column, label in COLUMNS.items():
                group = [c[split]["mean"] for c in found.get((network, column), {}).values() if split in c]
                if group:
                    shown = " | ".join(
                        f"{statistics.mean(g[k] for g in group):.4g}" if all(k in g for g in group) else "–"
                        for k in keys
                    )
                    print(f"| {split} | {title} | {label} | {len(group)} | {shown} |")
        for column in RIVALS:
            gains: dict[str, list[float]] = {k: [] for k in keys}
            for network in TITLES:
                ours, base = found.get((network, column), {}), found.get((network, "original"), {})
                seeds = [s for s in ours if s in base and split in ours[s] and split in base[s]]
                both = [c[s][split]["mean"] for c in (ours, base) for s in seeds]
                for k in (k for k in keys if seeds and all(k in m for m in both)):
                    one, other = (statistics.mean(x[s][split]["mean"][k] for s in seeds) for x in (ours, base))
                    gains[k].append(100 * (1 - one / other))
            if any(gains.values()):
                shown = "  ".join(
                    f"{k} {statistics.mean(v):+.1f} % ({sum(x > 0 for x in v)} of {len(v)})"
                    for k, v in gains.items()
                    if v
                )
                print(f"{split} {COLUMNS[column]}: {shown}")


def main() -> None:
    """Dispatch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "collect"])
    parser.add_argument("--metrics", default="lfd,mvcnn")
    parser.add_argument("--column", action="append", default=[], help="every one if not given")
    parser.add_argument("--split", action="append", default=[], help="test if not given")
    given = parser.parse_args()
    if given.what == "collect":
        collect()
        return
    names = given.metrics.split(",")
    metrics = make_metrics(Plan({name: (CLASSES[name], {}) for name in names}))
    for split in given.split or ["test"]:
        for path in sorted(RUNS.glob(f"*/*/*/{split}.npz")):
            if given.column and path.parts[-3] not in given.column:
                continue
            place = path.parent / "visual.json"
            known = json.loads(place.read_text()) if place.exists() else {}
            have = known.get(split, {"mean": {}, "by_category": {}, "failed": 0})
            missing = {n: m for n, m in metrics.items() if n not in have["mean"]}
            if not missing:
                continue
            new = judge(path.parent, missing, split)
            by = {c: have["by_category"].get(c, {}) | v for c, v in new["by_category"].items()}
            failed = {"failed": max(have["failed"], new["failed"])}
            known[split] = {**new, **failed, "mean": have["mean"] | new["mean"], "by_category": by}
            place.write_text(json.dumps(known, indent=1) + "\n")
            print(path.parent, known[split]["mean"], flush=True)


if __name__ == "__main__":
    main()
