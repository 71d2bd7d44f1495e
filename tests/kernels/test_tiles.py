"""How the rasterisers' tiles find their faces: the order of drawing, the parts, the splits' copy."""

import pytest
import torch

from reconlab.kernels.soft_rasterize.reference import MAX_COORDINATE, MIN_AREA2, Settings, usable_faces
from tests.kernels.test_soft_rasterize import scene

pytest.importorskip("triton")

from reconlab.kernels.soft_rasterize import cuda_tiles


@pytest.mark.parametrize("faces", [(1,), (130, 0, 1, 200, 0), (0, 5)])
def test_faces_are_sorted_image_by_image(triton_device, faces):
    xyz, splits, _ = scene(faces)
    xyz[::7, 1, 2] = float("nan")
    xyz[::5, 0, 2] = 0.01
    found = cuda_tiles.sort_faces(xyz.to(triton_device), splits, 0.1, 100.0, MAX_COORDINATE, MIN_AREA2)
    order, image, starts, nearest = (x.cpu() for x in found)
    usable = usable_faces(xyz, Settings(1, 1, 1.0, 1.0, 0.1, 100.0, 0.0, 0.5))
    assert torch.equal(starts.long(), splits)
    expected = torch.repeat_interleave(torch.arange(len(faces)), splits.diff())
    assert torch.equal(image.long(), torch.where(usable, expected, -1))
    for m, (i, j) in enumerate(zip(splits[:-1].tolist(), splits[1:].tolist(), strict=True)):
        mine = order[i:j]
        assert torch.equal(mine.sort().values, torch.arange(i, j))
        drawn = usable[mine]
        assert bool((drawn[:-1] >= drawn[1:]).all())  # the others come last
        assert torch.equal(mine[~drawn], mine[~drawn].sort().values)  # equal keys stay in the input's order
        z = xyz[i:j][usable[i:j]][..., 2]
        assert float(nearest[m]) == (float(z.min()) if len(z) else 100.0)


def test_the_least_area_is_not_rounded_to_float32(triton_device):
    """A face between 1e-10 and the float32 next to it: sort and drawing must agree on whether it counts."""
    a, b = float.fromhex("0x1.4f997cp-17"), float.fromhex("0x1.4f7d36p-17")
    assert MIN_AREA2 < a * b < float(torch.tensor(MIN_AREA2))
    xyz = torch.tensor([[[0.0, 0, 1], [a, 0, 1], [0, b, 1]]])
    found = cuda_tiles.sort_faces(xyz.to(triton_device), torch.tensor([0, 1]), 0.1, 9.0, MAX_COORDINATE, MIN_AREA2)
    assert found.image.tolist() == [0]


def test_neighbours_stay_together_and_large_faces_apart(triton_device):
    """Groups of a shuffled grid of small faces, among them some large ones, have small boxes but the first."""
    y, x = torch.meshgrid(torch.linspace(-0.9, 0.9, 32), torch.linspace(-0.9, 0.9, 32), indexing="ij")
    corner = torch.tensor([[0, 0, 1], [0.02, 0, 1], [0, 0.02, 1]])
    xyz = torch.stack([x, y, torch.ones_like(x)], -1).reshape(-1, 1, 3) + corner - torch.tensor([0, 0, 1.0])
    xyz[5::100] = torch.tensor([[-2.0, -1, 1], [2, -1, 1], [0, 1, 1]])
    xyz = xyz[torch.randperm(1024, generator=torch.Generator().manual_seed(0))]
    splits = torch.tensor([0, 1024])
    order = cuda_tiles.sort_faces(xyz.to(triton_device), splits, 0.1, 9.0, MAX_COORDINATE, MIN_AREA2).order.cpu()
    group = xyz[order][..., :2].view(16, -1, 2)
    size = (group.amax(1) - group.amin(1)).prod(1)
    assert float(size[0]) > 3
    assert float(size[1:].mean()) < 2 * 1.8**2 / 16


def test_splits_on_the_device_are_the_splits(triton_device):
    for splits in ([0], [0, 0], [0, 7], [0, 4, 8, 12], [0, 4, 8, 13], [0, 0, 4], [0, 3, 3]):
        found = cuda_tiles.starts_on(torch.tensor(splits), triton_device)
        assert found.dtype == torch.int32
        assert found.tolist() == splits


def test_parts_fill_the_gpu_and_bound_the_memory():
    parts = cuda_tiles.parts
    assert parts(1, 8, 8, 100) == 1  # too few faces to divide
    assert parts(1, 64, 64, 5120) == 20  # 64 programs want company, 256 faces each
    assert parts(25, 64, 64, 5120) == 3
    assert parts(25, 256, 256, 5120) == 1
    assert parts(25, 256, 256, 20480) == 2  # no program is to draw everything alone
    assert parts(100, 1024, 1024, 10**6) == 1  # but not at any price
    assert parts(0, 8, 8, 0) == 1
    assert cuda_tiles.tiles(9, 16) == 4
