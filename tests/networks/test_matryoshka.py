"""Matryoshka's network: parameters counted by hand, decoding in training and outside, one shape learned by heart."""

import pytest
import torch

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.losses import DRKFS, Chamfer, Loss, Matryoshka, PixelMSE, SilhouetteIoU
from reconlab.metrics import voxel_iou
from reconlab.networks.matryoshka import MatryoshkaNet, ShapeLayerGrid, _shuffle_colours
from reconlab.shapes import VoxelGrid
from reconlab.shapes.shape_layers import encode, to_depths

SMALL = {"resolution": 16, "inner": 32, "final": 16, "down": 3, "image_side": 32, "norm": "group"}


def parameters(resolution: int, layers: int, initial: int = 8, inner: int = 512, final: int = 128) -> int:
    """From the description in the paper's released code: all convolutions have biases, all norms scale and shift."""
    downs = 5 + {32: 2, 64: 1, 128: 0, 256: 0}[resolution]
    ups = 5 + (resolution == 256)

    def conv(i: int, o: int, k: int) -> int:
        return i * o * k * k + o

    def same(c: int) -> int:
        return 2 * (2 * c + conv(c, c, 3))

    step = (inner - initial) // downs
    c = inner - step * downs
    total = 2 * 3 + conv(3, c, 3) + 2 * c + conv(c, c, 3)
    for _ in range(downs):
        total += 2 * c + conv(c, c + step, 3) + 2 * (c + step) + conv(c + step, c + step, 3) + same(c + step)
        c += step
    total += same(c)
    step = (c - final) // ups
    for _ in range(ups):
        total += 2 * c + conv(c, c - step, 4) + 2 * (c - step) + conv(c - step, c - step, 3) + conv(c, c - step, 1)
        total += same(c - step)
        c -= step
    return total + conv(c, 6 * layers, 3)


@pytest.mark.parametrize(
    ("resolution", "layers", "count"),
    [(32, 1, 52_855_152), (32, 4, 52_876_554), (64, 1, 49_665_456), (128, 1, 46_605_732)],
)
def test_parameters_are_counted(resolution: int, layers: int, count: int):
    with torch.device("meta"):
        network = MatryoshkaNet(resolution, layers)
    assert sum(p.numel() for p in network.parameters()) == count == parameters(resolution, layers)


@pytest.mark.parametrize("resolution", [8, 16, 32, 64])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_sizes_and_decoding(resolution: int, norm: str):
    torch.manual_seed(0)
    network = MatryoshkaNet(**{**SMALL, "resolution": resolution, "norm": norm}, layers=2)
    images = torch.rand(2, 3, 32, 32)
    soft = network(images)
    assert isinstance(soft, VoxelGrid)
    assert soft.shape_layers.shape == (2, 2, 6, resolution, resolution)
    assert soft.logits is not None
    torch.testing.assert_close(soft.values, soft.logits.sigmoid())
    assert soft.values.requires_grad
    network.eval()
    hard = network(images)
    assert hard.logits is None
    assert hard.values.dtype == torch.float32
    assert torch.equal(hard.values > 0.5, hard.cells())
    again = MatryoshkaNet(**{**SMALL, "resolution": resolution, "norm": norm}, layers=2, export="soft").eval()
    assert again(images).logits is not None


def known_grid(boolean: bool) -> tuple[ShapeLayerGrid, torch.Tensor]:
    cells = torch.zeros(2, 8, 8, 8, dtype=torch.bool)
    cells[0, 2:6, 1:5, 3:7] = True
    cells[1, 1:7, 1:7, 1:7] = True
    cells[1, 3:5, 3:5, 3:5] = False
    return ShapeLayerGrid(to_depths(encode(cells, 2)), 0.15, boolean), cells


@pytest.mark.parametrize("boolean", [True, False])
def test_the_grid_is_a_voxel_grid(boolean: bool):
    grid, cells = known_grid(boolean)
    assert (len(grid), grid.resolution, grid.threshold, grid.device.type) == (2, 8, 0.5, "cpu")
    assert torch.equal(grid.cells(), cells)
    assert torch.equal(grid.values >= 0.5, cells)
    assert grid.valid().all()
    assert torch.equal(grid[1].cells(), cells[1:])
    assert torch.equal(grid[-2:].to("cpu").values, grid.values)
    assert grid.voxels(8) is grid
    torch.testing.assert_close(grid.voxels(4).values[0].sum() * 8, grid.values[0].sum())
    assert voxel_iou(grid.voxels(8).values, cells.float()).tolist() == [1, 1]
    vertices, faces = grid.mesh().item(0)
    assert len(faces) > 0
    low, high = torch.tensor([2.0, 1, 3]) / 8 - 0.5, torch.tensor([6.0, 5, 7]) / 8 - 0.5
    # Boolean surfaces lie on the faces of cells, soft ones up to a third of a cell further in.
    assert (vertices.amin(0) - low).abs().max() < 0.35 / 8
    assert (vertices.amax(0) - high).abs().max() < 0.35 / 8


def test_bad_predictions_are_not_valid():
    empty = ShapeLayerGrid(torch.full((1, 1, 6, 8, 8), -1.0), 0.15, True)
    broken = ShapeLayerGrid(torch.full((1, 1, 6, 8, 8), float("nan")), 0.15, False)
    assert not empty.valid().any()
    assert not broken.valid().any()
    assert len(empty.mesh().faces) == 0


def learn(weights: tuple[float, float, float], steps: int, seed: int = 0) -> float:
    """IoU of the boolean decoding after learning one shape by heart."""
    torch.manual_seed(seed)
    _, cells = known_grid(True)
    voxels = cells.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3).float()
    network = MatryoshkaNet(**SMALL, layers=2, shuffle_colours=False)
    images = torch.rand(2, 3, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    batch = Batch(ids=["a", "b"], categories=["t", "t"], images=images, voxels=voxels)
    loss = Matryoshka(*weights)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [steps // 2, steps * 3 // 4], 0.3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(network.reconstruct(batch), batch)["loss"].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        optimizer.step()
        schedule.step()
    return voxel_iou(network.eval().reconstruct(batch).values, voxels).min().item()


def test_learns_shapes_by_heart_from_depths():
    assert learn((1, 0, 0), 200) > 0.85


def test_learns_shapes_by_heart_from_overlap():
    assert learn((0, 1, 1), 120) > 0.9


def box(low: tuple[int, int, int], high: tuple[int, int, int]) -> torch.Tensor:
    cells = torch.zeros(1, 16, 16, 16, dtype=torch.bool)
    cells[0, low[0] : high[0], low[1] : high[1], low[2] : high[2]] = True
    return cells


def image_batch(cells: torch.Tensor) -> Batch:
    return Batch(ids=["a"], categories=["t"], mesh=VoxelGrid(cells.float()).mesh())


def maps_of(cells: torch.Tensor) -> torch.Tensor:
    """True depths, with background at -1, as a trained network predicts it."""
    depths = to_depths(encode(cells))
    return torch.where(depths == 0, -1.0, depths).requires_grad_()


@pytest.mark.parametrize("kind", [DRKFS, SilhouetteIoU, PixelMSE, Chamfer])
def test_losses_on_surfaces_reach_every_map(kind: type[Loss]):
    true, wrong = box((4, 3, 5), (12, 13, 11)), box((3, 4, 4), (11, 11, 12))
    settings = {"points": 500} if kind is Chamfer else {"views_per_step": 2, "image_size": 64, "half_fov": 11.5}
    loss, batch, depths = kind(**settings), image_batch(true), maps_of(wrong)
    torch.manual_seed(0)
    batch.points = batch.mesh.points(500)
    loss(ShapeLayerGrid(depths, 0.15, False), batch)["loss"].backward()
    assert depths.grad is not None
    assert depths.grad.isfinite().all()
    assert (depths.grad[0, 0].flatten(1).abs().amax(1) > 1e-8).all()


def fit_silhouettes(start: torch.Tensor, true: torch.Tensor, lr: float, steps: int) -> tuple[float, float, float]:
    """The loss at the end by that at the start, and the surface's largest x before and after, in cells."""
    loss, batch, depths = (
        SilhouetteIoU(views_per_step=None, image_size=48, half_fov=11.5),
        image_batch(true),
        maps_of(start),
    )
    optimizer = torch.optim.Adam([depths], lr)
    values, ends = [], []
    for step in range(steps + 1):
        shape = ShapeLayerGrid(depths, 0.15, False)
        value = loss(shape, batch)["loss"]
        values.append(value.item())
        ends.append(shape.mesh().vertices[:, 0].max().item() * 16 + 8)
        optimizer.zero_grad()
        value.backward()
        if step < steps:
            optimizer.step()
    return values[-1] / values[0], ends[0], ends[-1]


def test_silhouettes_carve_what_is_too_much_and_fill_what_is_missing():
    true = box((4, 3, 5), (12, 13, 11))
    ratio, before, after = fit_silhouettes(box((4, 3, 5), (15, 13, 11)), true, 0.5, 12)
    assert ratio < 0.4
    assert before == pytest.approx(15, abs=0.3)
    assert after == pytest.approx(12, abs=1)
    # Filling is slower: three maps of the line must leave the background before a cell is in.
    ratio, before, after = fit_silhouettes(box((4, 3, 5), (9, 13, 11)), true, 1.0, 30)
    assert ratio < 0.6
    assert before == pytest.approx(9, abs=0.3)
    assert 10 < after < 13


def test_starts_as_a_cube_that_image_losses_move():
    torch.manual_seed(0)
    network = MatryoshkaNet(**SMALL, layers=2, start=0.5)
    grid = network(torch.rand(2, 3, 32, 32))
    cube = box((4, 4, 4), (12, 12, 12))
    assert voxel_iou(grid.cells().float(), cube.expand(2, -1, -1, -1).float()).min() > 0.6
    batch = image_batch(box((4, 3, 5), (12, 13, 11)))
    SilhouetteIoU(views_per_step=1, image_size=32)(grid[:1], batch)["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())
    assert not MatryoshkaNet(**SMALL)(torch.rand(2, 3, 32, 32)).cells().any()


def test_colours_are_shuffled_in_training_alone():
    torch.manual_seed(0)
    images = torch.arange(3.0).reshape(1, 3, 1, 1).expand(600, 3, 2, 2)
    seen = {tuple(row) for row in _shuffle_colours(images)[:, :, 0, 0].tolist()}
    assert len(seen) == 27, "permutations and, for half of the images, repetitions"
    share = sum(len(set(row)) == 3 for row in _shuffle_colours(images)[:, :, 0, 0].tolist()) / 600
    assert share == pytest.approx(0.5 + 0.5 * 6 / 27, abs=0.08)
    network = MatryoshkaNet(**SMALL)
    images = torch.rand(4, 3, 32, 32)
    first, second = network(images).shape_layers, network(images).shape_layers
    assert not torch.equal(first, second)
    network.eval()
    assert torch.equal(network(images).shape_layers, network(images).shape_layers)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resolution": 48}, "resolution is 48; expected a power of two of at least 2 \\*\\* down = 32"),
        ({"resolution": 16}, "resolution is 16"),
        ({"image_side": 100}, "image_side is 100"),
        ({"layers": 0}, "layers is 0"),
        ({"blocks": -1}, "blocks is -1"),
        ({"temperature": 0.0}, "temperature 0.0"),
        ({"inner": 10}, "inner is 10"),
        ({"inner": 64, "final": 65}, "at least final = 65"),
        ({"start": 1.0}, "start is 1.0"),
        ({"norm": "layer"}, "norm is 'layer'"),
        ({"export": "hard"}, "export is 'hard'"),
    ],
)
def test_mistakes_are_named(settings: dict, message: str):
    with pytest.raises(ReconlabError, match=message):
        MatryoshkaNet(**settings)


def test_images_that_do_not_fit():
    network = MatryoshkaNet(inner=16, final=8)
    with pytest.raises(ReconlabError, match="batch_size to 2"):
        network(torch.rand(1, 3, 128, 128))
    assert network.eval()(torch.rand(1, 3, 64, 64)).shape_layers.isfinite().all()
    with pytest.raises(ReconlabError, match="square images"):
        network(torch.rand(2, 3, 64, 32))
