"""What each metric of ``reconlab evaluate`` costs per sample: CPU seconds of one thread, on pairs of real meshes.

    python benchmarks/metrics.py --root data/real --out results/benchmarks/metrics.json

Each of the chosen test meshes is judged against the next one of its list (another model of the category) after one
pair that warms up. "first" has everything that the true shape needs computed anew, "again" finds it cached, as a
second method judged on the same shapes does.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch

from reconlab.lab.evaluate_files import Truth
from reconlab.lab.evaluate_metrics import CLASSES, Plan, make_metrics
from reconlab.lab.run_directory import provenance
from reconlab.shapes import Mesh
from reconlab.threads import limit_threads


def pairs(root: Path, each: int) -> list[tuple[str, Mesh, Mesh]]:
    """``each`` pairs of every category's test list: (name of the true one, true, other)."""
    found = []
    for path in sorted(root.glob("*/test.lst")):
        names = path.read_text().split()
        for i in range(each):
            place = (2 * i + 1) * len(names) // (2 * each)
            meshes = []
            for name in (names[place], names[(place + 1) % len(names)]):
                with np.load(path.parent / name / "mesh.npz") as data:
                    faces = torch.from_numpy(data["faces"]).long()
                    meshes.append(Mesh(torch.from_numpy(data["vertices"]).float(), faces))
            found.append((f"{path.parent.name}/{names[place]}", meshes[0], meshes[1]))
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("data/real"))
    parser.add_argument("--each", type=int, default=2, help="pairs of each category")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    limit_threads(1)
    chosen = pairs(given.root, given.each)
    spent: dict[str, dict[str, list[float]]] = {name: {"first": [], "again": []} for name in CLASSES}
    metrics = make_metrics(Plan({name: (path, {}) for name, path in CLASSES.items()}))
    for row, (name, true, other) in enumerate([chosen[0], *chosen]):
        category, _, sample = name.partition("/")
        for metric_name, metric in metrics.items():
            truth = Truth(category, f"{sample}-{row}", true, 10_000)
            for which in ("first", "again"):
                began = time.process_time()
                metric.per_sample(other, truth.batch(metric.needs, getattr(metric, "resolution", 32)))
                if row:
                    spent[metric_name][which].append(time.process_time() - began)
    table = {name: {which: float(np.mean(times)) for which, times in both.items()} for name, both in spent.items()}
    faces = [len(true.faces) for _, true, _ in chosen]
    for name, both in table.items():
        print(f"{name:14} first {both['first']:7.3f} s  again {both['again']:7.3f} s")
    if given.out:
        content = {"cpu_seconds": table, "pairs": len(chosen), "true_faces": faces, "machine": platform.processor()}
        content |= {"command": f"python benchmarks/metrics.py --root {given.root} --each {given.each}"}
        given.out.write_text(json.dumps(content | provenance(0), indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
