"""Cells that earlier experiments measured, as the records that ``reconlab table`` reads: results/tables/<table>.json.

    python results/tables.py                     # from drwr.json, drkfs.json, drkfs_visual.json and the benchmarks

It then writes results/tables/<table>.md and the summary in README.md by ``reconlab table`` itself. Nothing is trained
or judged here. Rows that were trained by another recipe than the table's sweep are named in each
file's note.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reconlab.cli.__main__ import main
from reconlab.lab.run_directory import write_atomic
from reconlab.metrics import (
    LFD,
    MVCNN,
    ChamferDistance,
    DPCChamfer,
    DRKFSDistance,
    FScore,
    Metric,
    NormalConsistency,
    PointIoU,
    ShapeGoogle,
    VoxelIoU,
)
from reconlab.tables import names
from reconlab.tables.summary import render_summary, summarize

HERE = Path(__file__).resolve().parent
OUT = HERE / "tables"
BEGIN, END = "<!-- reconlab table all --format md -->", "<!-- end of the tables -->"
KEPT = ("command", "commit", "machine", "versions", "time", "steps", "wall_seconds", "cpu_seconds", "seed")
SAMPLES = {"airplane": 29, "car": 9, "chair": 10, "lamp": 9}  # test shapes of data/real (results/drkfs.md)


def protocols(*metrics: Metric) -> dict[str, Any]:
    """By value, as run.json has them."""
    return {name: p.as_dict() for metric in metrics for name, p in metric.protocols.items()}


def write(table: str, note: str, cells: list[dict[str, Any]]) -> None:
    """One file of records."""
    content = {"table": table, "profile": "desk", "note": note, "cells": cells}
    write_atomic(OUT / f"{table}.json", json.dumps(content, indent=1) + "\n")
    print(f"{table}: {len(cells)} cells")


def command(cell: dict[str, Any]) -> str:
    """The command in one line."""
    return " ".join(cell["command"])


DRWR_TABLE1 = {  # row of the table: (experiment, row of results/drwr.py)
    "drc_32": ("table1", "drc"),
    "cap_32": ("table1", "cap"),
    "dpcv_32": ("table1", "dpcv"),
    "dpc_32": ("table1", "dpc"),
    "drwr_32": ("table1", "drwr_area"),
    **{row: ("table1_finer", row) for row in ("dpcv_64", "dpc_64", "drwr_64", "epcg_128", "dpc_128", "drwr_128")},
}
DRWR_TABLE4 = ("full", "l1", "l2", "pixel_l2", "no_omega", "no_delta", "views2", "views3")
DRWR_TABLE4 += ("no_omega_equal", "no_delta_equal", "area_scaled", "sigma_half")


def drwr() -> None:
    """Tables 1 and 4 (2 and 3 read Table 1's cells), and Table 5's seconds per step."""
    found = json.loads((HERE / "drwr.json").read_text())["cells"]
    written = protocols(DPCChamfer(), PointIoU(), ChamferDistance("nox_dpc", points=8000))

    def records(row: str, experiment: str, name: str, grouped: bool) -> list[dict[str, Any]]:
        made = []
        for cell in found:
            if (cell["experiment"], cell["row"]) != (experiment, name):
                continue
            values = {k: v for k, v in cell["test"].items() if "/" not in k}
            record = {"cell": f"{row}-{cell['category']}-seed{cell['seed']}", "row": row, "state": "done"}
            if grouped:
                record["group"] = cell["category"]
            record |= {k: cell[k] for k in KEPT if k in cell} | {"command": command(cell), "values": values}
            counts = {"n": int(cell["test"]["dpc_cd/n"]), "n_failed": int(cell["test"]["dpc_cd/n_failed"])}
            made.append({**record, **counts, "protocols": {k: p for k, p in written.items() if k in values}})
        return made

    cells = [r for row, where in DRWR_TABLE1.items() for r in records(row, *where, True)]
    cells += [r for r in records("drwr_32", "table4", "area_scaled", True) if r["group"] == "airplane"]
    cells += [r for r in records("drwr_32_chosen", "table4", "full", True) if r["group"] == "airplane"]
    cells += records("drwr_32_chosen", "table1", "drwr", True)
    note = (
        "Cells of results/drwr.py on data/real (results/drwr.md): airplanes, cars, chairs of unseen families; 2000 "
        "points 800 steps, 8000 points 600 (DPC-V 400), 16 000 points and EPCG 400; DRWR's weight by area. The "
        "pixels of a row are its silhouettes'; images are 128², CAP's and DRC's 64². EPCG is given depth maps."
    )
    write("drwr_table1", note, cells)
    cells = [r for row in DRWR_TABLE4 for r in records(row, "table4", row, False)]
    note = "Cells of results/drwr.py on data/real, airplanes of unseen families, 800 steps, seeds 0 to 2."
    write("drwr_table4", note, cells)
    timed = json.loads((HERE / "benchmarks" / "loss_step.json").read_text())
    cells = []
    for case in timed["results"]:
        if not case["case"].startswith("training step"):
            continue
        pixels = case["case"].split(" px")[0].split()[-1]
        for name in ("DRWR", "DPC"):
            values = {"seconds_per_step": case["seconds"][name]}
            record = {"cell": f"{name.lower()}_{pixels}", "row": f"{name.lower()}_{pixels}", "state": "done"}
            record |= {k: timed[k] for k in ("commit", "machine", "versions")} | {"seed": 0, "values": values}
            cells.append({**record, "command": "python benchmarks/loss_step.py"})
    timed = json.loads((HERE / "drwr.json").read_text())["cells"]
    for cell in timed:
        if (cell["experiment"], cell["row"], cell["category"]) == ("table1", "drc", "airplane"):
            values = {"seconds_per_step": cell["cpu_seconds"] / cell["steps"]}
            record = {"cell": f"drc_32-seed{cell['seed']}", "row": "drc_32", "state": "done", "values": values}
            cells.append(record | {k: cell[k] for k in KEPT if k in cell} | {"command": command(cell)})
    note = (
        "CPU seconds of a training step of 4 shapes x 4 views, one thread: DRWR and DPC interleaved in one process "
        "(benchmarks/loss_step.py), DRC's from its runs in results/drwr.json, which count loading too."
    )
    write("drwr_table5", note, cells)


DRKFS = ("atlasnet", "matryoshka", "pixel2mesh", "ogn", "r2n2", "shape_generator", "imnet")
DRKFS_TABLE4 = {"silhouette_drkfs": "silhouette_drkfs", "mse": "shaded_mse", "drkfs": "shaded_drkfs"}


def drkfs() -> None:
    """Tables 3 and 4, their visual measures included, and Table 5."""
    found = json.loads((HERE / "drkfs.json").read_text())["cells"]
    visual = json.loads((HERE / "drkfs_visual.json").read_text())["cells"]
    metrics = (ChamferDistance("atlasnet"), ChamferDistance(), FScore("atlasnet"), FScore(), NormalConsistency())
    written = protocols(*metrics, VoxelIoU(), DRKFSDistance(views=5), LFD(), MVCNN(), ShapeGoogle())
    written["drkfs"]["formula"] += (
        "; as results/drkfs.py judges: half field of view 11.5°, sigma 1e-4, half precision"
    )

    def record(cell: dict[str, Any], row: str) -> dict[str, Any]:
        by = {c: dict(v) for c, v in cell["test"]["by_category"].items()}
        name = f"{cell['network']} {cell['column']} seed{cell['seed']}"
        for category, more in visual.get(name, {}).get("test", {}).get("by_category", {}).items():
            by[category] |= more
        keys = [k for k in next(iter(by.values())) if "/" not in k and all(k in v for v in by.values())]
        values = {}
        for key in keys:
            values[key] = sum(SAMPLES[c] * v[key] for c, v in by.items()) / sum(SAMPLES[c] for c in by)
            values |= {f"{key}/{c}": v[key] for c, v in by.items()}
        made = {"cell": name.replace(" ", "-"), "row": row, "state": "done"}
        made |= {k: cell[k] for k in KEPT if k in cell} | {"command": command(cell), "values": values}
        counts = {"n": cell["test"]["n"], "n_failed": cell["test"].get("failed", 0)}
        said = {k: p for k, p in written.items() if k in values}
        if cell["network"] == "r2n2":  # judged at the network's own threshold
            said["voxel_iou"] = {**said["voxel_iou"], "threshold": 0.4}
        return {**made, **counts, "protocols": said}

    cells = [
        record(cell, f"{network}_{row}")
        for network in DRKFS
        for column, row in (("original", "original"), ("drkfs", "drkfs"), ("original+mse", "original_mse"))
        for cell in found
        if (cell["network"], cell["column"]) == (network, column)
    ]
    nmr = [c for c in found if (c["network"], c["column"]) == ("shape_generator_nmr", "original")]
    cells += [record(c, "shape_generator_nmr") for c in nmr]
    note = (
        "Cells of results/drkfs.py on data/real (results/drkfs.md): 57 test shapes of unseen families. Each network "
        "is trained by its own loss to the end of its schedule; 'original' goes on with it, 'drkfs' with DR-KFS "
        "alone (with the geometric regularisers for deformed spheres), 'original + shaded MSE' with the sum, for "
        "equally many steps at a tenth of the rate. DR-KFS as a metric: five of the 25 views. LFD, MVCNN and Shape "
        "Google: of the stored reconstructions (results/drkfs_visual.py)."
    )
    write("drkfs_table3", note, cells)
    rows = [c for c in found if c["network"] == "shape_generator" and c["column"] in DRKFS_TABLE4]
    note = (
        "Cells of results/drkfs.py on data/real: the Shape Generator, three losses from one start (results/drkfs.md)."
    )
    write("drkfs_table4", note, [record(c, DRKFS_TABLE4[c["column"]]) for c in rows])


def print_tables() -> None:
    """Every table as Markdown, and the summary between README's markers."""
    for name in names():
        if main(["table", name, "--format", "md", "--out", str(OUT / f"{name}.md")]):
            raise SystemExit(f"reconlab table {name} failed")
    readme = HERE.parent / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    write_atomic(readme, f"{before}{BEGIN}\n{render_summary(summarize(), 'md')}{END}{after}")


if __name__ == "__main__":
    drwr()
    drkfs()
    main(
        [
            "table",
            "drkfs_table5",
            "--from",
            str(HERE / "drkfs_table5.json"),
            "--collect",
            str(OUT / "drkfs_table5.json"),
        ]
    )
    print_tables()
