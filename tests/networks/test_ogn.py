"""OGN: counted parameters, overfitting, propagation by truth and by itself, mistakes."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.kernels.octree import MIXED, children, octree_labels, to_morton
from reconlab.losses import DRKFS, OctreeCrossEntropy, SilhouetteIoU
from reconlab.metrics.iou import voxel_iou
from reconlab.networks import OGN
from reconlab.networks.ogn import OctreeLimitWarning
from reconlab.shapes import Mesh, VoxelGrid
from reconlab.shapes.voxels import NoSurfaceWarning


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
    for _ in range(45):
        optimizer.zero_grad()
        loss(network.reconstruct(batch), batch)["loss"].backward()
        optimizer.step()
    shape = network.eval()(batch.images)  # cells divided by itself
    assert voxel_iou(shape.values.detach(), batch.voxels).item() > 0.97
    assert torch.equal(shape.hard().values, (shape.values >= 0.5).float())


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameters_are_counted_by_hand() -> None:
    network = OGN()
    assert count(network.seed) == (512 + 1) * 256 * 64
    assert count(network.dense) == (256 * 128 * 64 + 128) + (128 * 128 * 27 + 128)
    steps = [(128, 64), (64, 32)]
    assert count(network.levels) == sum(8 * i * o + o + 27 * o * o + o for i, o in steps)
    assert count(network.heads) == 128 * 3 + 3 + 64 * 3 + 3 + 32 * 2 + 2
    assert count(network) == 22_604_936
    assert len(tiny(resolution=128).levels) == 5
    assert [h.in_features for h in tiny(resolution=128, channels=64).heads] == [64, 32, 16, 16, 16, 16]


def test_a_start_of_four_has_no_dense_doubling() -> None:
    shape = tiny(resolution=8, start=4).eval()(torch.rand(2, 3, 32, 32))
    assert [v.side for v in shape.levels] == [4, 8]
    assert (shape.values.shape, len(shape.levels[0].keys)) == ((2, 8, 8, 8), 128)


def test_known_propagation_divides_the_true_mixed_cells() -> None:
    grid = torch.cat([table(16), torch.zeros(1, 16, 16, 16)])
    shape = tiny().reconstruct(batch_of(grid))
    labels = octree_labels(grid > 0, 4)
    for level, own in zip(shape.levels[:-1], labels, strict=False):
        assert torch.equal(level.opened, own[level.keys] == MIXED)
    sizes = [128, *(8 * int((own == MIXED).sum()) for own in octree_labels(grid > 0, 4, "ignore")[:-1])]
    assert [len(v.keys) for v in shape.levels] == sizes


def test_predicted_propagation_divides_the_cells_that_look_mixed() -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def inclined(**settings) -> OGN:
        network = tiny(**settings)
        with torch.no_grad():
            for head in network.heads[:-1]:
                head.weight.mul_(5)  # so that some cells look mixed from the start
                head.bias[MIXED] += 0.5
        return network

    shape = inclined().eval()(images)
    for level, below in pairwise(shape.levels):
        assert torch.equal(level.opened, level.logits.argmax(1) == MIXED)
        assert torch.equal(below.keys, children(level.keys[level.opened]))
    shares = [v.opened.float().mean().item() for v in shape.levels[:-1]]
    assert all(0 < share < 1 for share in shares)
    # The same in training, where the batch then needs no truth
    network = inclined(propagation="predicted")
    assert network.needs == {"images"}
    again = network.reconstruct(Batch(["a", "b"], ["c", "c"], images=images))
    assert torch.equal(again.levels[-1].keys, shape.levels[-1].keys)


def test_the_phase_changes_after_known_steps_and_the_count_is_kept() -> None:
    network, batch = tiny(known_steps=2), batch_of(table(16))
    phases = []
    for _ in range(3):
        phases.append(network.knows)
        network.reconstruct(batch)
    assert phases == [True, True, False]
    network.eval().reconstruct(batch)
    with torch.no_grad():
        network.train().reconstruct(batch)
    assert network.steps_taken.item() == 3, "training steps alone are counted"
    other = tiny(known_steps=2)
    other.load_state_dict(network.state_dict())
    assert not other.knows
    other.reconstruct(Batch(["0"], ["table"], images=batch.images))  # needs no truth any more
    assert tiny().knows
    assert not tiny(known_steps=0).knows


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_trainer_that_tells_its_steps_counts_each_once(accumulate: int) -> None:
    network, batch = tiny(known_steps=2), batch_of(table(16))
    mixed = sum(int((own == MIXED).sum()) for own in octree_labels(table(16) > 0, 4))
    by_truth = []
    for step in range(4):
        for _ in range(accumulate):
            network.advance(step, 4)
            opened = sum(int(v.opened.sum()) for v in network.reconstruct(batch).levels)
            by_truth.append(opened == mixed)
    assert by_truth == [step < 2 for step in range(4) for _ in range(accumulate)]
    assert network.steps_taken.item() == 4
    # A resumed run goes on counting
    other = tiny(known_steps=5)
    other.load_state_dict(network.state_dict())
    phases = []
    for step in range(4, 7):
        other.advance(step, 7)
        phases.append(sum(int(v.opened.sum()) for v in other.reconstruct(batch).levels) == mixed)
    assert phases == [True, False, False]


def test_the_phase_may_end_at_a_fraction_of_the_run() -> None:
    network = tiny(known_until=0.6)
    phases = []
    for step in range(5):
        network.advance(step, 5)
        phases.append(network.knows)
    assert phases == [True, True, True, False, False]
    assert tiny(known_until=0.6).knows, "without a trainer the run has not begun"
    assert not tiny(known_until=0.0).knows
    with pytest.raises(ReconlabError, match="known_until is a fraction of the run: set"):
        network.advance(5, 0)


def test_a_network_that_divides_everything_is_held_back() -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def eager(**settings) -> OGN:
        network = tiny(resolution=32, **settings).eval()
        with torch.no_grad():
            for head in network.heads[:-1]:
                head.bias[MIXED] += 20
        return network

    whole = eager()(images)
    assert [len(v.keys) for v in whole.levels] == [2 * side**3 for side in (4, 8, 16, 32)]
    with pytest.warns(OctreeLimitWarning, match="2 samples would divide more than 40 cells"):
        shape = eager(max_cells=320)(images)
    assert [len(v.keys) for v in shape.levels] == [128, 640, 640, 640]
    first = shape.levels[0]
    odds = first.logits[:, MIXED] - first.logits[:, :MIXED].logsumexp(1)
    for sample in (slice(0, 64), slice(64, 128)):
        assert odds[sample][first.opened[sample]].min() >= odds[sample][~first.opened[sample]].max()
    assert bool((shape.levels[1].keys.diff() > 0).all())
    assert shape.values.shape == (2, 32, 32, 32)
    # One sample's cells do not depend on the others of its batch
    with pytest.warns(OctreeLimitWarning, match="1 samples"):
        alone = eager(max_cells=320)(images[1:])
    assert torch.equal(shape[1:].levels[1].keys, alone.levels[1].keys)
    # By the truth there is no limit
    batch = batch_of((torch.arange(32) % 2).float().expand(1, 32, 32, 32))
    assert len(eager(max_cells=320).train().reconstruct(batch).levels[-1].keys) == 32**3


class DenseTwin(torch.nn.Module):
    """The same weights by dense torch layers, every cell present."""

    def __init__(self, network: OGN) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        net = self.network
        x = net.dense(net.seed(net.encoder(images)))
        out = [x]
        for step in net.levels:
            inputs, _, outputs = step.up.shape
            x = F.relu(
                F.conv_transpose3d(
                    x, step.up.reshape(inputs, 2, 2, 2, outputs).movedim(-1, 1), step.up_bias, stride=2
                )
            )
            filters = step.conv.reshape(3, 3, 3, outputs, outputs).permute(4, 3, 0, 1, 2)
            x = F.relu(F.conv3d(x, filters, step.conv_bias, padding=1))
            out.append(x)
        heads = [h(f.movedim(1, -1)).movedim(-1, 1) for h, f in zip(net.heads, out, strict=True)]
        return [torch.stack([to_morton(c) for c in f.unbind(1)], 1) for f in heads]


@pytest.mark.parametrize("context", [False, True])
def test_with_all_cells_divided_it_is_a_dense_network(context: bool) -> None:
    network = tiny(context=context).double()
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    every = [torch.ones(2 * side**3, dtype=torch.bool) for side in network.sides]
    shape = network.decode(network.encoder(images), every)
    for level, dense in zip(shape.levels, DenseTwin(network)(images), strict=True):
        torch.testing.assert_close(level.logits, dense)
        assert not bool(level.context.any())


def test_context_gives_the_tree_what_dense_neighbours_would() -> None:
    images = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    network = tiny(resolution=8, context=True).double()
    network.propagation = "known"
    mixed = torch.zeros(64, dtype=torch.bool)
    mixed[21] = True  # the cell (1, 1, 1) of 4³
    code = network.encoder(images)
    shape = network.decode(code, [mixed, torch.zeros(512, dtype=torch.bool)])
    fine = shape.levels[1]
    assert (int((~fine.context).sum()), len(fine.keys)) == (8, 27 * 8)
    dense = DenseTwin(network)(images)[1]
    kept = fine.keys[~fine.context]
    torch.testing.assert_close(fine.logits[~fine.context], dense[kept])
    network.context = False
    alone = network.decode(code, [mixed, torch.zeros(512, dtype=torch.bool)]).levels[1]
    assert torch.equal(alone.keys, kept)
    assert (alone.logits - dense[kept]).abs().max().item() > 1e-3, "without it, zeros beyond the border"


def test_full_and_empty_volumes_close_at_the_first_level() -> None:
    grid = torch.stack([torch.ones(16, 16, 16), torch.zeros(16, 16, 16)])
    batch, network = batch_of(grid), tiny()
    shape = network.reconstruct(batch)
    assert [len(v.keys) for v in shape.levels] == [128, 0, 0]
    result = OctreeCrossEntropy()(shape, batch)
    assert result["level_8"].item() == result["level_16"].item() == 0
    result["loss"].backward()
    grads = {k: p.grad for k, p in network.named_parameters()}
    assert all(g is not None and bool(g.isfinite().all()) for g in grads.values()), "no parameter is left out"
    assert grads["heads.0.weight"].abs().sum() > 0
    assert grads["levels.0.up"].abs().sum() == 0
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(40):
        optimizer.zero_grad()
        OctreeCrossEntropy()(network.reconstruct(batch), batch)["loss"].backward()
        optimizer.step()
    shape = network.eval()(batch.images)
    assert voxel_iou(shape.values.detach(), grid).tolist() == [1, 1]
    assert shape.valid().tolist() == [True, False]
    assert shape[:1].mesh().valid().tolist() == [True]
    with pytest.warns(NoSurfaceWarning, match="1 of 1 shapes"):
        assert len(shape[1:].mesh().faces) == 0


@pytest.mark.parametrize("propagation", ["known", "predicted"])
def test_image_losses_reach_every_parameter_through_the_surface(propagation: str) -> None:
    vertices, faces = VoxelGrid(table(16)).mesh().item(0)
    batch = replace(batch_of(table(16)), mesh=Mesh(vertices, faces))
    network, loss = tiny(), OctreeCrossEntropy()
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(25):
        optimizer.zero_grad()
        loss(network.reconstruct(batch), batch)["loss"].backward()
        optimizer.step()
    network.propagation = propagation
    for visual in (
        SilhouetteIoU(views_per_step=2, image_size=32, half_fov=11.5),
        DRKFS(views_per_step=1, image_size=64, radius=0, half_fov=11.5),
    ):
        network.zero_grad()
        shape = network.reconstruct(batch)
        visual(shape, batch)["loss"].backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name
            assert parameter.grad.abs().sum() > 0, name


def test_a_finer_octree_takes_its_truth_from_the_mesh() -> None:
    vertices, faces = VoxelGrid(table(16)).mesh().item(0)
    batch = replace(batch_of(table(16)), mesh=Mesh(vertices, faces))
    network = tiny(resolution=64, truth="mesh")
    assert network.needs == {"images", "mesh"}
    shape = network.reconstruct(batch)
    labels = octree_labels(batch.mesh.voxels(64).values > 0, 4)
    assert torch.equal(shape.levels[3].opened, labels[3][shape.levels[3].keys] == MIXED)
    assert OctreeCrossEntropy(truth="mesh")(shape, batch)["loss"].item() > 0
    with pytest.raises(
        ReconlabError, match=r"OGN: the dataset's grids are \(16, 16, 16\), .* 64³; set truth to 'mesh'"
    ):
        tiny(resolution=64).reconstruct(batch)


def test_export_writes_the_composed_surface(tmp_path) -> None:
    from reconlab.lab.export import export_shape

    network = tiny().eval()
    with torch.no_grad():
        network.heads[0].bias[1] += 3  # some cells filled
        shape = network(torch.rand(1, 3, 32, 32))
    (path,) = export_shape(shape, 0, tmp_path / "shape", ("obj",))
    assert path.stat().st_size > 1000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resolution": 24}, r"resolution is 24; expected start · 2\^k with k of at least 1: 8, 16, 32"),
        ({"resolution": 8, "start": 8}, "resolution is 8; expected .* 16, 32, 64"),
        ({"start": 6}, "start is 6; expected a power of two of at least 4"),
        ({"start": 2}, "start is 2"),
        ({"channels": 0}, "channels is 0; expected at least 1"),
        ({"threshold": 1.0}, "threshold is 1.0"),
        ({"known_steps": -1}, "known_steps is -1"),
        ({"known_until": 1.5}, r"known_until is 1.5; expected a fraction of the run in \[0, 1\]"),
        ({"known_until": 0.5, "known_steps": 3}, "known_until is 0.5; expected .*, and no known_steps"),
        ({"max_cells": 4}, "max_cells is 4; expected at least 8"),
        ({"propagation": "both"}, "propagation must be one of known, predicted, not 'both'"),
        ({"truth": "points"}, "truth must be one of voxels, mesh"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ReconlabError, match=f"OGN: {message}"):
        tiny(**settings)


def test_known_propagation_without_truth_is_named() -> None:
    images = torch.rand(1, 3, 32, 32)
    with pytest.raises(ReconlabError, match="OGN needs 'voxels' of the batch"):
        tiny().reconstruct(Batch(["a"], ["c"], images=images))
    with pytest.raises(ReconlabError, match="OGN needs 'mesh' of the batch"):
        tiny(truth="mesh").reconstruct(Batch(["a"], ["c"], images=images, voxels=table(16)))
