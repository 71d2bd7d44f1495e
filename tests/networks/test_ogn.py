"""OGN: counted parameters, overfitting, propagation by truth and by itself, mistakes."""

import torch

from reconlab.batch import Batch
from reconlab.losses import OctreeCrossEntropy
from reconlab.metrics.iou import voxel_iou
from reconlab.networks import OGN


def tiny(**settings) -> OGN:
    torch.manual_seed(0)
    sizes = {"resolution": 16, "start": 4, "channels": 16, "latent": 32, "encoder_width": 8, "encoder_norm": "group"}
    return OGN(**{**sizes, **settings})


def table(side: int = 32, batch: int = 1) -> torch.Tensor:
    """A table top on four legs."""
    grid = torch.zeros(batch, side, side, side)
    a, b = side // 4, 3 * side // 4
    grid[:, a:b, b - side // 16 : b, a:b] = 1
    for x in (a, b - side // 16):
        for z in (a, b - side // 16):
            grid[:, x : x + side // 16, a:b, z : z + side // 16] = 1
    return grid


def batch_of(grid: torch.Tensor, size: int = 32) -> Batch:
    count = len(grid)
    g = torch.Generator().manual_seed(1)
    images = torch.rand(count, 3, size, size, generator=g)
    return Batch([str(i) for i in range(count)], ["table"] * count, images=images, voxels=grid)


def test_one_shape_is_learned_under_its_own_loss() -> None:
    batch = batch_of(table())
    network = tiny(resolution=32, start=8, channels=32)
    loss, optimizer = OctreeCrossEntropy(), torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss(network.reconstruct(batch), batch)["loss"].backward()
        optimizer.step()
    shape = network.eval()(batch.images)  # cells divided by itself
    assert voxel_iou(shape.values.detach(), batch.voxels).item() > 0.97
    assert torch.equal(shape.hard().values, (shape.values >= 0.5).float())
