"""Slow proofs: the shipped configs learn something on shapes that they were not trained on."""

import csv

import pytest

from reconlab.cli.__main__ import main
from reconlab.datasets.builder import ensure_embedded


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """The embedded dataset, as the quick start builds it."""
    return ensure_embedded(tmp_path_factory.mktemp("data") / "synth", progress=False)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "ratio"), [("chamfer", 0.75), ("drwr", 0.75), ("drkfs", 0.75), ("pixelmse", 0.75)])
def test_validation_improves(loss, ratio, embedded, repository, tmp_path):
    # 160 steps against the first validation after 20: a fifth of the quick start.
    options = ["fit", f"--config={repository / 'configs' / f'atlasnet_{loss}.yaml'}", f"--data.root={embedded}"]
    options += ["--trainer.max_steps=160", "--trainer.val_check_interval=20", f"--out={tmp_path}"]
    assert main(options) == 0
    with open(tmp_path / f"atlasnet_{loss}" / "000" / "metrics.csv", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["val/chamfer_dpc"]]
    distance = [float(row["val/chamfer_dpc"]) for row in rows]
    overlap = [float(row["val/voxel_iou"]) for row in rows]
    assert len(distance) == 8
    assert distance[-1] < ratio * distance[0]
    assert overlap[-1] > overlap[0]
    assert all(float(row["val/chamfer_dpc/n_failed"]) == 0 for row in rows)
