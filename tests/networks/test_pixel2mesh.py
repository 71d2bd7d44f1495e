"""Pixel2Mesh: template, counted parameters, pooling through the camera, frames, one shape learned, export."""

import pytest
import torch

from reconlab.batch import Batch
from reconlab.cameras import dpc_cameras
from reconlab.losses import Pixel2MeshLoss
from reconlab.networks import Pixel2Mesh
from reconlab.networks.pixel2mesh import ImageEncoder
from reconlab.shapes import TemplateMesh


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small(**settings) -> Pixel2Mesh:
    torch.manual_seed(0)
    return Pixel2Mesh(**{"hidden": 12, "last_hidden": 8, "depth": 1, "encoder_width": 2, **settings})


def encoder_parameters(w: int) -> int:
    c = [3, w, 2 * w, 4 * w, 8 * w, 16 * w, 32 * w]
    total = 0
    for k, more in enumerate((1, 2, 2, 2, 2, 3)):
        taps = 25 if k > 3 else 9
        total += taps * c[k] * c[k + 1] + c[k + 1] + more * (9 * c[k + 1] ** 2 + c[k + 1])
    return total


def graph_parameters(hidden: int, last: int) -> int:
    def layer(inputs: int, outputs: int) -> int:
        return 2 * inputs * outputs + outputs

    inner = 12 * layer(hidden, hidden)
    one = layer(963, hidden) + inner + layer(hidden, 3)
    two = layer(963 + hidden, hidden) + inner + layer(hidden, 3)
    three = layer(963 + hidden, hidden) + inner + layer(hidden, last) + layer(last, 3)
    return one + two + three


@pytest.mark.parametrize(("hidden", "last", "total"), [(256, 128, 19_383_033), (192, 96, 16_802_009)])
def test_parameters_are_counted_by_hand(hidden, last, total):
    network = Pixel2Mesh(hidden, last)
    assert count(network.encoder) == encoder_parameters(16)
    assert count(network.blocks) + count(network.last) == graph_parameters(hidden, last)
    assert count(network) == total
    # 14 convolutions a block, 18 in the encoder.
    assert [1 + 2 * len(b.pairs) + 1 for b in network.blocks] == [14, 14, 14]
    assert sum(isinstance(m, torch.nn.Conv2d) for m in network.encoder.modules()) == 18


def test_the_encoder_has_the_published_maps():
    maps = ImageEncoder()(torch.rand(1, 3, 224, 224))
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7)]
    maps = ImageEncoder(2)(torch.rand(1, 3, 128, 128))
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 32, 32), (16, 16, 16), (32, 8, 8), (64, 4, 4)]


def test_three_stages_of_the_published_sizes():
    shape = small()(torch.rand(2, 3, 64, 64), dpc_cameras([0.0, 90.0], [10.0, 20.0]))
    assert isinstance(shape, TemplateMesh)
    stages = [*shape.stages, shape]
    assert [s.positions.shape for s in stages] == [(2, 156, 3), (2, 618, 3), (2, 2466, 3)]
    assert [len(s.template_faces) for s in stages] == [308, 1232, 4928]
    for stage, finer in zip(stages, stages[1:], strict=False):
        # A later stage begins where the one before ended: same vertices first, then middles of its edges.
        torch.testing.assert_close(finer.before[:, : stage.positions.shape[1]], stage.positions)
    assert shape.valid().all()


def test_learns_one_shape():
    from trimesh.creation import box

    torch.manual_seed(0)
    network = Pixel2Mesh(hidden=24, last_hidden=16, depth=2, encoder_width=2)
    target = box((0.8, 0.3, 0.5))
    points, face = target.sample(2000, return_index=True, seed=0)
    batch = Batch(
        ids=["box"],
        categories=["c"],
        images=torch.rand(1, 3, 32, 32),
        cameras=dpc_cameras([30.0], [20.0]),
        points=torch.tensor(points).float()[None],
        normals=torch.tensor(target.face_normals[face]).float()[None],
    )
    loss = Pixel2MeshLoss(points=1000)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    values = []
    for _ in range(100):
        optimizer.zero_grad()
        parts = loss(network.reconstruct(batch), batch)
        parts["loss"].backward()
        optimizer.step()
        values.append(parts["chamfer"].item())
    assert values[-1] < 0.1 * values[0]
    shape = network.reconstruct(batch)
    size = shape.positions[0].amax(0) - shape.positions[0].amin(0)
    torch.testing.assert_close(size, torch.tensor([0.8, 0.3, 0.5]), atol=0.15, rtol=0)
