"""The tables of results/drwr.md, from results/drwr.json; and Fig. 6, from the runs' metrics.csv.

python results/drwr_report.py tables
python results/drwr_report.py fig6 runs/drwr
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAPER_4 = {"full": 4.01, "l1": 19.50, "l2": 139.10, "pixel_l2": 24.59, "no_omega": 4.58, "no_delta": 4.41}
PAPER_4 |= {"views2": 4.79, "views3": 4.54}
PAPER_1 = {
    "airplane": {"drc": 8.35, "cap": 6.34, "dpcv": 5.57, "dpc": 4.52, "drwr": 4.01},
    "car": {"drc": 4.35, "cap": 6.03, "dpcv": 3.88, "dpc": 4.22, "drwr": 3.81},
    "chair": {"drc": 8.01, "cap": 6.11, "dpcv": 5.57, "dpc": 5.10, "drwr": 4.66},
}
NAMES = {
    "full": "full (I = 4)", "l1": "l1", "l2": "l2", "pixel_l2": "pixel + l2", "no_omega": "no ω", "no_delta": "no δ",
    "views2": "I = 2", "views3": "I = 3",
    "no_omega_equal": "no ω, equal force", "no_delta_equal": "no δ, equal force",
    "area_scaled": "β by area", "sigma_half": "σ = ½", "no_structure": "no ω, no δ",
    "drwr": "DRWR", "drwr_constant": "DRWR, constant rate", "drwr_area": "DRWR, β by area",
    "dpc": "DPC", "dpc_constant": "DPC, constant rate", "dpc_time": "DPC, DRWR's time",
    "cap": "CAP", "dpcv": "DPC-V (ours)", "drc": "DRC",
}  # fmt: skip
COLUMNS = {
    "dpc_cd": "CD", "dpc_cd_best_view": "best view", "dpc_precision": "pred→gt", "dpc_coverage": "gt→pred",
    "other_image": "CD, another's image", "point_iou": "IoU",
}  # fmt: skip


def rows(cells: list[dict[str, Any]], experiments: tuple[str, ...], category: str) -> dict[str, list[dict[str, Any]]]:
    """Cells by row, of a category."""
    found: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        if cell["experiment"] in experiments and cell["category"] == category:
            found.setdefault(cell["row"], []).append(cell)
    return found


def value(group: list[dict[str, Any]], key: str, split: str = "test") -> str:
    """Mean ± sample deviation over seeds, ×100."""
    many = [100 * c[split][key] for c in group]
    digits = 1 if key == "point_iou" else 2
    mean = f"{statistics.mean(many):.{digits}f}"
    return f"{mean} ± {statistics.stdev(many):.{digits}f}" if len(many) > 1 else mean


def table(found: dict[str, list[dict[str, Any]]], paper: dict[str, float]) -> str:
    """A Markdown table, the paper's number in the last column."""
    lines = ["| row | seeds | " + " | ".join(COLUMNS.values()) + " | paper's CD |", "|---" * (len(COLUMNS) + 3) + "|"]
    for row in [r for r in NAMES if r in found]:
        group = found[row]
        cells = [value(group, key) for key in COLUMNS]
        beside = f"{paper[row]:.2f}" if row in paper else "–"
        lines.append(f"| {NAMES[row]} | {len(group)} | " + " | ".join(cells) + f" | {beside} |")
    return "\n".join(lines)


def tables() -> None:
    """Print them all."""
    cells = json.loads((HERE / "drwr.json").read_text())["cells"]
    print("## beta and sigma, validation families\n")
    for experiment in ("beta", "sigma"):
        for category in ("airplane", "car", "chair"):
            for row, group in rows(cells, (experiment,), category).items():
                print(f"| {category} | {row} | {value(group, 'dpc_cd', 'val')} |")
    print("\n## Table 4\n")
    print(table(rows(cells, ("table4", "fig6"), "airplane"), PAPER_4))
    for category in PAPER_1:
        found = rows(cells, ("table1",), category)
        if category == "airplane":
            found["drwr"] = rows(cells, ("table4",), "airplane").get("full", [])
        print(f"\n## Table 1, {category}\n")
        print(table({r: g for r, g in found.items() if g}, PAPER_1[category]))
        truth = [100 * c["test"]["point_iou_truth"] for g in found.values() for c in g]
        if truth:
            print(f"\nIoU of 2000 true surface points by the same rule: {max(truth):.1f}")
        for row, group in found.items():
            if group:
                seconds = statistics.median(c["cpu_seconds"] / c["steps"] for c in group)
                print(
                    f"{row}: {1000 * seconds:.0f} ms of CPU a step, thresholds {[c.get('threshold') for c in group]}"
                )


def fig6(runs: Path) -> None:
    """Loss against steps with and without the structure-aware weights."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = {"full": "table4", "no_omega": "table4", "no_delta": "table4", "no_structure": "fig6"}
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.3))
    for row, experiment in shown.items():
        path = runs / experiment / "airplane" / row / "seed0" / "000" / "metrics.csv"
        with path.open(newline="") as stream:
            lines = [line for line in csv.DictReader(stream) if line.get("train/loss")]
        steps = [int(line["step"]) + 1 for line in lines]
        for axis, key in zip(axes, ("loss", "l1", "l2"), strict=True):
            smooth, last = [], None
            for line in lines:
                now = float(line[f"train/{key}"])
                last = now if last is None else 0.9 * last + 0.1 * now
                smooth.append(last)
            axis.plot(steps, smooth, label=NAMES[row])
            axis.set(
                title={"loss": "L = l1 + β l2", "l1": "l1", "l2": "l2, before β"}[key], xlabel="step", yscale="log"
            )
            axis.grid(alpha=0.3)
    axes[1].legend()
    figure.tight_layout()
    figure.savefig(HERE / "drwr_fig6.png", dpi=80)


if __name__ == "__main__":
    if sys.argv[1:2] == ["fig6"]:
        fig6(Path(sys.argv[2]))
    else:
        tables()
