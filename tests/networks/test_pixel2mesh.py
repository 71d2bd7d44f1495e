"""Pixel2Mesh: template, counted parameters, pooling through the camera, frames, one shape learned, export."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.batch import Batch
from reconlab.cameras import Cameras, dpc_cameras
from reconlab.errors import ReconlabError
from reconlab.losses import Pixel2MeshLoss
from reconlab.networks import Pixel2Mesh
from reconlab.networks.pixel2mesh import ImageEncoder, default_camera, pool_at, projected
from reconlab.shapes import TemplateMesh


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small(**changes) -> Pixel2Mesh:
    torch.manual_seed(0)
    return Pixel2Mesh(**{"hidden": 12, "last_hidden": 8, "depth": 1, "encoder_width": 2, **changes})


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
    assert [1 + len(b.first) + len(b.second) + 1 for b in network.blocks] == [14, 14, 14]
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
    for stage, finer in pairwise(stages):
        # A later stage begins where the one before ended: same vertices first, then middles of its edges.
        torch.testing.assert_close(finer.before[:, : stage.positions.shape[1]], stage.positions)
    assert shape.valid().all()


def test_projection_is_the_cameras():
    cameras = dpc_cameras([30.0, -120.0], [20.0, -10.0])
    points = torch.rand(2, 50, 3) - 0.5
    turned = points @ cameras.R.transpose(1, 2)
    torch.testing.assert_close(projected(turned.transpose(0, 1), cameras), cameras.project(points)[0])


@pytest.mark.parametrize("side", [33, 40, 64, 67, 128])
def test_pooling_finds_the_pixel_under_the_vertex(side):
    # Convolutions that pass the centre pixel on: every map then holds the image itself at its stride. The image is a
    # ramp over pixel indices, so that bilinear interpolation is exact; where a map ends, its border holds.
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    image = torch.stack([column, row, 0 * row]).float()[None]
    encoder = ImageEncoder(3)
    for module in encoder.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.zeros_(module.weight)
            middle = module.kernel_size[0] // 2
            for c in range(3):
                module.weight.data[c, c, middle, middle] = 1
    maps = encoder(1 - image)
    pixels = torch.tensor([[3.0, 5.5], [17.25, 2.0], [31.5, 31.5], [-4.0, 1e6]])
    xy = (2 * pixels + 1) / side - 1
    found = pool_at(maps, xy[None], side)
    assert found.shape == (4, 1, 3 * (4 + 8 + 16 + 32))
    start = 0
    for stride, features in zip((4, 8, 16, 32), maps, strict=True):
        expected = pixels.clamp(0, (side - 1) // stride * stride)  # the last pixel of the map
        torch.testing.assert_close(found[:, 0, start : start + 2], expected, atol=1e-3, rtol=0)
        start += features.shape[1]


@given(st.floats(-180, 180), st.floats(-20, 40))
@settings(max_examples=8, deadline=None)
def test_the_result_turns_with_the_camera(azimuth, elevation):
    # The network does not know where the object's front is: seen by another camera, one picture is a turned shape.
    network, images = small().eval(), torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    one, two = dpc_cameras([0.0], [0.0]), dpc_cameras([azimuth], [elevation])
    with torch.no_grad():
        first, second = network(images, one), network(images, two)
    turn = (
        two.R.transpose(1, 2) @ one.R
    )  # object frame of the first, to the camera's, to the object frame of the second
    for a, b in zip([*first.stages, first], [*second.stages, second], strict=True):
        torch.testing.assert_close(b.positions, a.positions @ turn.transpose(1, 2), atol=1e-5, rtol=0)
        torch.testing.assert_close(b.before, a.before @ turn.transpose(1, 2), atol=1e-5, rtol=0)


def test_the_camera_is_used_for_pooling():
    network, images = small().eval(), torch.rand(1, 3, 32, 32)
    near, far = dpc_cameras([0.0], [0.0]), dpc_cameras([0.0], [0.0])
    far = Cameras(far.R, far.t * 3, far.focal, far.centre)
    with torch.no_grad():
        assert (network(images, near).positions - network(images, far).positions).abs().max() > 1e-4


def test_samples_do_not_depend_on_their_batch():
    network, images = small(), torch.rand(3, 3, 32, 32)
    cameras = dpc_cameras([0.0, 50.0, 100.0], [0.0, 10.0, 20.0])
    whole = network(images, cameras)
    alone = network(images[1:2], cameras[1:2])
    torch.testing.assert_close(whole[1].positions, alone.positions, atol=1e-5, rtol=1e-4)


def test_without_a_camera_the_default_one_is_taken():
    network, images = small().eval(), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = network(images, default_camera().expand(2)).positions
        assert torch.equal(network(images).positions, expected)


def test_offsets_start_from_the_ellipsoid():
    network = small(offsets=True)
    for layer in (*(b.leave for b in network.blocks), network.last):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.loop)
    shape = network(torch.rand(1, 3, 32, 32), dpc_cameras([40.0], [10.0]))
    expected = network.template @ dpc_cameras([40.0], [10.0]).R[0]
    torch.testing.assert_close(shape.stages[0].positions[0], expected)
    torch.testing.assert_close(shape.positions, shape.before)
    torch.testing.assert_close(shape.positions[0, :156], expected)


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    network = Pixel2Mesh(hidden=24, last_hidden=16, depth=2, encoder_width=4)
    shape = network(torch.rand(2, 3, 64, 64), dpc_cameras([0.0, 90.0], [10.0, 20.0]))
    shape.positions.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("distance", [0.2, 0.0, -1.0])
def test_vertices_behind_the_camera_are_pooled_somewhere(distance):
    camera = dpc_cameras([0.0], [0.0])
    camera = Cameras(camera.R, torch.tensor([[0.0, 0, distance]]), camera.focal, camera.centre)
    network = small()
    shape = network(torch.rand(1, 3, 32, 32), camera)
    assert shape.positions.isfinite().all()
    shape.positions.sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_an_exploded_stage_is_pooled_at_the_border():
    maps = ImageEncoder(2)(torch.rand(1, 3, 64, 64))
    position = torch.tensor([[[1e6, -1e6, 1e6]], [[1e6, 1e6, -1e6]]], requires_grad=True)
    found = pool_at(maps, projected(position, default_camera()), 64)
    found.sum().backward()
    assert found.isfinite().all()
    assert position.grad.isfinite().all()


def test_mixed_precision_keeps_positions():
    network, images = small().eval(), torch.rand(1, 3, 64, 64)
    cameras = dpc_cameras([10.0], [10.0])
    with torch.no_grad():
        plain = network(images, cameras).positions
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = network(images, cameras).positions
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, plain, atol=0.02 * plain.abs().max().item(), rtol=0.1)


def test_the_template_is_not_part_of_a_checkpoint():
    network = small()
    assert all("template" not in k and "faces" not in k and "ends" not in k for k in network.state_dict())
    other = small(radii=(0.3, 0.3, 0.3))
    other.load_state_dict(network.state_dict())


def test_mistakes_are_named():
    network = small()
    for bad in (torch.rand(1, 3, 31, 31), torch.rand(1, 3, 64, 32), torch.rand(1, 4, 64, 64), torch.rand(3, 64, 64)):
        with pytest.raises(ReconlabError, match="takes square images"):
            network(bad)
    with pytest.raises(ReconlabError, match=r"a camera per image, not \(2,\) for 1 images"):
        network(torch.rand(1, 3, 32, 32), dpc_cameras([0.0, 1.0], [0.0, 0.0]))
    for wrong in ({"hidden": 0}, {"depth": -1}, {"encoder_width": 0}):
        with pytest.raises(ReconlabError, match=f"{next(iter(wrong))} is"):
            small(**wrong)
    with pytest.raises(ReconlabError, match="three positive radii"):
        small(radii=(0.2, 0.2, 0))


def test_export_writes_the_finest_stage(tmp_path: Path):
    import trimesh

    from reconlab.lab.export import export_shape

    shape = small()(torch.rand(2, 3, 32, 32)).to("cpu")
    files = export_shape(shape, 1, tmp_path / "shape", ("obj", "glb"))
    mesh = trimesh.load(files[0], force="mesh", process=False)
    assert (len(mesh.vertices), len(mesh.faces)) == (2466, 4928)
    torch.testing.assert_close(torch.tensor(mesh.vertices).float(), shape.positions[1].detach(), atol=1e-6, rtol=0)


def test_learns_one_shape():
    from trimesh.creation import box

    torch.manual_seed(0)
    network = Pixel2Mesh(hidden=16, last_hidden=12, depth=2, encoder_width=2)
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
    loss = Pixel2MeshLoss(points=500)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    values = []
    for _ in range(90):
        optimizer.zero_grad()
        parts = loss(network.reconstruct(batch), batch)
        parts["loss"].backward()
        optimizer.step()
        values.append(parts["chamfer"].item())
    assert values[-1] < 0.1 * values[0]
    shape = network.reconstruct(batch)
    size = shape.positions[0].amax(0) - shape.positions[0].amin(0)
    torch.testing.assert_close(size, torch.tensor([0.8, 0.3, 0.5]), atol=0.15, rtol=0)
