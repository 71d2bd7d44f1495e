"""Two gloo processes with uneven, and with empty, shards give what one process gives.

Run as a script, this file is one rank.
"""

import json
import sys
from pathlib import Path

import pytest
import torch
import trimesh

from reconlab.batch import Batch
from reconlab.metrics import (
    EMD,
    LFD,
    MVCNN,
    ChamferDistance,
    DPCChamfer,
    FScore,
    FScoreCurve,
    Hausdorff,
    Metric,
    NormalConsistency,
    PointIoU,
    VoxelIoU,
    VoxelMSE,
)
from reconlab.shapes import Mesh, PointCloud
from tests.ranks import one_rank, run_ranks

CATEGORIES = ["chair", "lamp", "chair", "boat", "lamp", "chair", "chair"]
# Which of the seven samples each rank sees, as batches: uneven, one rank empty, interleaved.
SHARDS = [
    [[[0, 1, 2], [3]], [[4, 5], [6]]],
    [[[0, 1, 2, 3], [4, 5, 6]], []],
    [[[6, 4], [2], [0]], [[5, 3, 1]]],
]


def metrics() -> list[Metric]:
    made: list[Metric] = [ChamferDistance("dpc", 40), ChamferDistance("atlasnet", 40), FScore("what3d", 0.1, 40)]
    made += [NormalConsistency(40), VoxelIoU(resolution=4), DPCChamfer(), PointIoU(resolution=4)]
    made += [EMD(40), EMD(40, "auction"), Hausdorff(40), FScoreCurve([0.1, 0.3], 40), VoxelMSE(resolution=4)]
    made += [LFD(), MVCNN()]
    for metric in made:
        metric.set_categories(["chair", "lamp"])
    return made


def samples(rows: list[int]) -> tuple[PointCloud, Batch]:
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(4, 7, 50, 3, generator=generator)
    normals, true_normals = torch.nn.functional.normalize(draw[:2], dim=-1)
    points, true_points = 0.4 * normals + 0.01 * draw[2], 0.4 * true_normals
    points[3] = torch.nan
    points[5, 0, 0] = torch.inf
    grids = (torch.rand(7, 4, 4, 4, generator=generator) > 0.5).float()
    batch = Batch(
        ids=[f"s{i % 4}" for i in rows],  # some appear twice: views of one shape, on different ranks
        categories=[CATEGORIES[i] for i in rows],
        points=true_points[rows],
        normals=true_normals[rows],
        voxels=grids[rows],
    )
    return PointCloud(points[rows], normals[rows]), batch


def mesh_samples(rows: list[int]) -> tuple[Mesh, Batch]:
    """Boxes of seven sizes for boxes of others; one is not finite, one empty."""
    box = trimesh.creation.box()
    corners, faces = torch.tensor(box.vertices).float(), torch.tensor(box.faces)
    sides = 0.2 + 0.5 * torch.rand(2, 7, 1, 3, generator=torch.Generator().manual_seed(1))
    preds, truths = ([(corners * s, faces) for s in many] for many in sides)
    preds[3] = (corners * torch.nan, faces)
    preds[5] = (corners[:0], faces[:0])
    batch = Batch(ids=[f"s{i}" for i in rows], categories=[CATEGORIES[i] for i in rows])
    batch.mesh = Mesh.from_list([truths[i] for i in rows])
    return Mesh.from_list([preds[i] for i in rows]), batch


def measure(batches: list[list[int]]) -> dict[str, float]:
    result = {}
    for metric in metrics():
        for rows in batches:
            metric.update(*(mesh_samples if "mesh" in metric.needs else samples)(rows))
        result |= {key: value.item() for key, value in metric.compute().items()}
        # The sum over processes must not leak into the local state: a second compute says the same.
        metric._computed = None
        assert all(abs(v.item() - result[k]) < 1e-12 for k, v in metric.compute().items())
    return result


def rank_main(folder: Path, rank: int) -> None:
    with one_rank(folder, rank):
        results = [measure(shards[rank]) for shards in SHARDS]
        (folder / f"rank{rank}.json").write_text(json.dumps(results))


def test_two_processes_are_exact(tmp_path: Path):
    run_ranks(__file__, tmp_path)
    expected = measure([[0, 1, 2, 3, 4, 5, 6]])
    assert expected["chamfer_dpc/n"] == 7
    assert expected["chamfer_dpc/n_failed"] == 2
    assert expected["voxel_iou/chair/n"] == 4
    assert expected["lfd/n_failed"] == expected["mvcnn/n_failed"] == 2
    for rank in range(2):
        for result in json.loads((tmp_path / f"rank{rank}.json").read_text()):
            assert result == pytest.approx(expected, rel=1e-6, abs=1e-9)


if __name__ == "__main__":
    rank_main(Path(sys.argv[1]), int(sys.argv[2]))
