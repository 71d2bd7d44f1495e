"""Surface voxelisation: the kernel against the reference and against cases counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.kernels.voxelize import fill_enclosed, triangles_to_cells


def _soup(count: int, seed: int, scale: float = 0.3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, 1, 3, generator=generator) * 1.2 - 0.6
    return centre + scale * (torch.rand(count, 3, 3, generator=generator) - 0.5)


@pytest.mark.parametrize("resolution", [1, 5, 16])
def test_kernel_equals_reference(resolution: int) -> None:
    corners = _soup(200, resolution)
    assert torch.equal(
        triangles_to_cells(corners, resolution, "cpu"), triangles_to_cells(corners, resolution, "reference")
    )


def test_no_sampled_point_is_missed_and_no_cell_is_far() -> None:
    corners, size = _soup(20, 7), 12
    weights = torch.rand(20, 4000, 3, generator=torch.Generator().manual_seed(0)).log().neg()
    points = (weights / weights.sum(-1, keepdim=True)) @ corners * (1 - 1e-6)
    cells = ((points + 0.5) * size).floor().long().reshape(-1, 3)
    cells = cells[((cells >= 0) & (cells < size)).all(1)]
    sampled = torch.zeros(size, size, size, dtype=torch.bool)
    sampled[tuple(cells.unbind(1))] = True
    marked = triangles_to_cells(corners, size)
    assert not (sampled & ~marked).any()
    assert (marked & ~sampled).sum() < 0.1 * marked.sum()  # corners of cells that few samples find


def test_an_axis_aligned_box_is_not_thickened() -> None:
    trimesh = pytest.importorskip("trimesh")
    corners = torch.from_numpy(trimesh.creation.box((0.5, 0.5, 0.5)).triangles.copy())
    assert int(fill_enclosed(triangles_to_cells(corners, 32)).sum()) == 16**3


def test_outside_and_degenerate_triangles() -> None:
    far = torch.full((1, 3, 3), 7.0)
    assert not triangles_to_cells(far, 8).any()
    assert not triangles_to_cells(torch.full((1, 3, 3), 1e30), 8).any()
    point = torch.full((1, 3, 3), 0.1)
    assert int(triangles_to_cells(point, 8).sum()) == 1
    assert not triangles_to_cells(torch.zeros(0, 3, 3), 8).any()


def test_fill_leaves_what_is_open() -> None:
    box = torch.zeros(5, 5, 5, dtype=torch.bool)
    box[1:4, 1:4, 1:4] = True
    box[2, 2, 2] = False
    assert int(fill_enclosed(box).sum()) == 27
    box[2, 2, 1] = False
    assert int(fill_enclosed(box[None, None]).sum()) == 25


@pytest.mark.parametrize(
    ("corners", "resolution", "backend", "message"),
    [
        (torch.zeros(2, 3), 4, "auto", "corners"),
        (torch.zeros(2, 3, 3), 0, "auto", "resolution"),
        (torch.full((1, 3, 3), float("nan")), 4, "auto", "finite"),
        (torch.zeros(1, 3, 3), 4, "gpu", "backends"),
    ],
)
def test_bad_arguments(corners: Tensor, resolution: int, backend: str, message: str) -> None:
    with pytest.raises(ReconlabError, match=message):
        triangles_to_cells(corners, resolution, backend)  # type: ignore[arg-type]
