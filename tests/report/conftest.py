"""Fixtures of the report's tests: a headless browser, and small hand-made runs, datasets and sweeps."""

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
import yaml
from PIL import Image

_spec = importlib.util.spec_from_file_location("reconlab_browser", Path(__file__).parents[1] / "browser.py")
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
browser = _module.browser

HOSTILE = "</script><img src=x onerror=alert(1)>"
PROTOCOLS = {
    "cd": {
        "chamfer": {"name": "chamfer", "formula": "mean d", "factor": 100.0, "higher_is_better": False},
        "chamfer_half": {"name": "chamfer_half", "formula": "half", "factor": 100.0, "higher_is_better": False},
    },
    "iou": {"voxel_iou": {"name": "voxel_iou", "formula": "P ∩ T", "factor": 1.0, "higher_is_better": True}},
}


def _box(size=(1.0, 1.0, 1.0)):
    return trimesh.creation.box(extents=np.array(size) * 0.6)


@pytest.fixture(scope="session")
def make_run():
    """Writes a run directory as ``reconlab test`` does: ``make_run(folder, samples, ...)``.

    Each sample: ``(category, id, chamfer, voxel_iou, failed)``; failed ones get no prediction file.
    """

    def make(folder, samples, root="data", seed=0, cloud=False, history=True, config=(), **info):
        folder = Path(folder)
        (folder / "predictions").mkdir(parents=True)
        names = ("chamfer", "chamfer_half", "chamfer/failed", "voxel_iou", "voxel_iou/failed")
        with (folder / "predictions" / "per_sample_rank0.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["category", "id", "view", *names])
            for category, name, cd, iou, failed in samples:
                table.writerow([category, name, 0, cd, cd / 2, failed, iou, failed])
                target = folder / "predictions" / category / f"{name}.{'ply' if cloud else 'obj'}"
                if not failed and "/" not in name:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shape = _box((1, 0.5, 0.3))
                    (trimesh.PointCloud(shape.sample(300, seed=0)) if cloud else shape).export(target)
        metrics = {}
        for part in ("", *sorted({s[0] for s in samples})):
            own = [s for s in samples if part in ("", s[0])]
            end = f"/{part}" if part else ""
            metrics[f"test/chamfer{end}"] = sum(s[2] for s in own) / max(len(own), 1)
            metrics[f"test/voxel_iou{end}"] = sum(s[3] for s in own) / max(len(own), 1)
            for head in ("chamfer", "voxel_iou"):
                metrics[f"test/{head}{end}/n"] = len(own)
                metrics[f"test/{head}{end}/n_failed"] = sum(s[4] for s in own)
        content = {
            "commit": "0123456789abcdef",
            "machine": {"system": "Linux", "cores": 2},
            "seed": seed,
            "time": "2026-01-01T00:00:00Z",
            "command": "reconlab test",
            "stage": "test",
            "status": "finished",
            "steps": 20,
            "wall_seconds": 42.3,
            "protocols": PROTOCOLS,
            "metrics": metrics,
        }
        (folder / "run.json").write_text(json.dumps({**content, **info}))
        text = yaml.safe_dump({"seed_everything": seed, "data": {"root": str(root)}, **dict(config)})
        (folder / "config.yaml").write_text(text)
        if history:
            lines = [f"0,{step},{1 / (step + 1):.6f},{0.5 / (step + 1):.6f}," for step in range(20)]
            lines += ["0,9,,,0.2", "0,19,,,0.1"]
            (folder / "metrics.csv").write_text(
                "epoch,step,train/loss,train/part,val/chamfer\n" + "\n".join(lines) + "\n"
            )
        return folder

    return make


@pytest.fixture(scope="session")
def make_dataset():
    """Writes a dataset of boxes with one red picture each: ``make_dataset(root, {category: [ids]})``."""

    def make(root, shapes):
        for category, names in shapes.items():
            for name in names:
                folder = Path(root) / category / name
                (folder / "views").mkdir(parents=True)
                mesh = _box()
                np.savez(folder / "mesh.npz", vertices=mesh.vertices.astype(np.float32), faces=mesh.faces)
                Image.new("RGBA", (32, 32), (200, 30, 30, 255)).save(folder / "views" / "000.png")
                rig = {"R": np.eye(3)[None], "t": np.array([[0.0, 0, 2]])}  # the camera's centre is at z = -2
                np.savez(folder / "views" / "cameras.npz", **rig, focal=np.ones((1, 2)), centre=np.zeros((1, 2)))
            (Path(root) / category / "test.lst").write_text("\n".join(names))
        (Path(root) / "metadata.yaml").write_text("reconlab: {format: 1}\n")
        return Path(root)

    return make


SAMPLES = [
    ("chair", "a", 0.05, 0.4, False),
    ("chair", "b", 0.01, 0.9, False),
    ("chair", "c", 0.03, 0.2, False),
    ("lamp", "d", 0.08, 0.3, False),
    ("lamp", "e", 0.02, 0.7, False),
    ("lamp", "f", 3.46, 0.0, True),
    ("lamp", "g", 0.04, 0.6, False),
]


@pytest.fixture(scope="session")
def samples():
    """Seven samples of two categories, one of which failed."""
    return list(SAMPLES)


@pytest.fixture(scope="session")
def boxes(make_dataset, tmp_path_factory):
    """The dataset of these samples; tests must not change it."""
    root = tmp_path_factory.mktemp("boxes") / "data"
    return make_dataset(root, {c: [s[1] for s in SAMPLES if s[0] == c] for c in ("chair", "lamp")})


@pytest.fixture(scope="session")
def make_sweep(make_run):
    """Writes a sweep's folder as ``reconlab sweep`` does: ``make_sweep(folder, {cell: record or None}, root)``."""

    def make(folder, cells, root):
        folder = Path(folder)
        folder.mkdir(parents=True)
        info = {"name": folder.name, "file": "configs/sweeps/x.yaml", "profile": "desk", "cells": list(cells)}
        (folder / "sweep.json").write_text(json.dumps(info))
        for name, record in cells.items():
            if record is None:
                continue
            place = folder / "cells" / name
            if record["state"] == "done":
                shift = record["seed"] / 100
                rows = [(c, i, cd + shift, iou, failed) for c, i, cd, iou, failed in SAMPLES]
                make_run(place / "000", rows, root, record["seed"], config={"name": record["row"]})
                record = {"values": {"chamfer": 0.05 + shift, "chamfer/lamp": 1.0}, "n": 7, "n_failed": 1, **record}
            place.mkdir(parents=True, exist_ok=True)
            full = {"cell": name, "attempts": 1, "reason": None, "run": "000", "group": None, **record}
            (place / "cell.json").write_text(json.dumps(full))
        return folder

    return make


@pytest.fixture(scope="session")
def hostile():
    """A string that runs a script where it is put in unescaped."""
    return HOSTILE
