"""Ray crossings: the kernel against the reference and against a closed shape."""

from __future__ import annotations

import pytest
import torch

from reconlab.errors import ReconlabError
from reconlab.kernels.crossings import count_crossings

ROTATIONS = torch.linalg.qr(torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(0)))[0]


def test_kernel_equals_reference_on_a_soup() -> None:
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(300, 3, 3, generator=generator) - 0.5
    corners[:5, 2] = corners[:5, 1]  # without area
    points = torch.rand(400, 3, generator=generator) * 1.4 - 0.7
    for fast, slow in zip(
        count_crossings(points, corners, ROTATIONS, "cpu"),
        count_crossings(points, corners, ROTATIONS, "reference"),
        strict=True,
    ):
        assert torch.equal(fast, slow)


def test_closed_shape() -> None:
    trimesh = pytest.importorskip("trimesh")
    corners = torch.from_numpy(trimesh.creation.icosphere(3, 0.4).triangles.copy())
    points = torch.rand(2000, 3, generator=torch.Generator().manual_seed(2)) - 0.5
    signed, odd, free = count_crossings(points, corners, ROTATIONS)
    radius = points.norm(dim=1)
    assert (signed[radius < 0.39] == 18).all()
    assert (odd[radius < 0.39] == 18).all()
    assert (free[radius < 0.39] == 0).all()
    assert (signed[radius > 0.4] == 0).all()
    assert (free[radius > 0.4] > 0).all()


def test_nothing_to_cross() -> None:
    signed, odd, free = count_crossings(torch.zeros(2, 3), torch.zeros(0, 3, 3), ROTATIONS)
    assert (signed.tolist(), odd.tolist(), free.tolist()) == ([0, 0], [0, 0], [18, 18])


@pytest.mark.parametrize(
    ("points", "corners", "rotations", "backend"),
    [
        (torch.zeros(3), torch.zeros(1, 3, 3), ROTATIONS, "auto"),
        (torch.zeros(1, 3), torch.zeros(3, 3), ROTATIONS, "auto"),
        (torch.zeros(1, 3), torch.zeros(1, 3, 3), ROTATIONS[0], "auto"),
        (torch.zeros(1, 3), torch.zeros(1, 3, 3), ROTATIONS, "gpu"),
    ],
)
def test_bad_arguments(points, corners, rotations, backend) -> None:
    with pytest.raises(ReconlabError, match="count_crossings"):
        count_crossings(points, corners, rotations, backend)
