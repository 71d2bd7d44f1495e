"""OGN's loss against torch's cross-entropy cell by cell; missing keys; the squared error of grids."""

import pytest
import torch
import torch.nn.functional as F

from reconlab.batch import Batch
from reconlab.errors import ConversionError, ReconlabError
from reconlab.kernels.octree import EMPTY, FILLED, MIXED, children, octree_labels
from reconlab.losses import OctreeCrossEntropy, VoxelMSE
from reconlab.losses.octree_cross_entropy import octree_cross_entropy
from reconlab.shapes import Mesh, VoxelGrid
from reconlab.shapes.octree import OctreeGrid, OctreeLevel


def corner(batch: int = 2) -> torch.Tensor:
    """4³ grids with one finest cell in the first octant (all samples) and a full last octant (the first only)."""
    grid = torch.zeros(batch, 4, 4, 4, dtype=torch.bool)
    grid[:, 0, 0, 0] = True
    grid[0, 2:, 2:, 2:] = True
    return grid


def level(side: int, keys: torch.Tensor, classes: int, opened=(), context=()) -> OctreeLevel:
    g = torch.Generator().manual_seed(side)
    logits = torch.randn(len(keys), classes, generator=g, dtype=torch.float64).requires_grad_()
    return OctreeLevel(
        side, keys, logits, torch.isin(keys, torch.tensor(opened)), torch.isin(keys, torch.tensor(context))
    )


def two_levels(opened: list[int], context_parents: tuple[int, ...] = ()) -> list[OctreeLevel]:
    """2³ for two samples, children of the opened cells and of context ones."""
    parents = torch.tensor(sorted({*opened, *context_parents}))
    beside = children(torch.tensor(context_parents, dtype=torch.int64)).tolist()
    return [level(2, torch.arange(16), 3, opened), level(4, children(parents), 2, (), beside)]


def test_it_is_the_mean_of_torchs_cross_entropy_over_each_samples_cells() -> None:
    levels = two_levels([0, 8])
    parts = octree_cross_entropy(levels, octree_labels(corner(), 2), 2)
    first = torch.tensor([[MIXED, *[EMPTY] * 6, FILLED], [MIXED, *[EMPTY] * 7]])
    fine = torch.tensor([[FILLED, *[EMPTY] * 7]] * 2)
    for sample in range(2):
        rows = slice(8 * sample, 8 * sample + 8)
        for i, target in enumerate((first, fine)):
            torch.testing.assert_close(parts[sample, i], F.cross_entropy(levels[i].logits[rows], target[sample]))


@pytest.mark.parametrize("missing", ["leaf", "mixed", "ignore"])
def test_keys_that_the_truth_does_not_have(missing: str) -> None:
    levels = two_levels([0, 7, 8])  # 7 is FILLED: its children are missing
    parts = octree_cross_entropy(levels, octree_labels(corner(), 2, missing), 2)
    fine = levels[1].logits[:16]
    expected = F.cross_entropy(fine[:8], torch.tensor([FILLED, *[EMPTY] * 7]))
    if missing == "leaf":
        expected = F.cross_entropy(fine, torch.tensor([FILLED, *[EMPTY] * 7, *[FILLED] * 8]))
    torch.testing.assert_close(parts[0, 1], expected)


def test_below_the_root_a_missing_key_is_mixed_before_the_finest_level() -> None:
    grid = torch.ones(1, 4, 4, 4, dtype=torch.bool)
    root, middle = level(1, torch.arange(1), 3, [0]), level(2, torch.arange(8), 3)
    none = OctreeLevel(
        4, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2), *[torch.zeros(0, dtype=torch.bool)] * 2
    )
    for missing, label in (("mixed", MIXED), ("leaf", FILLED)):
        parts = octree_cross_entropy([root, middle, none], octree_labels(grid, 1, missing), 1)
        torch.testing.assert_close(parts[0, 1], F.cross_entropy(middle.logits, torch.full((8,), label)))
        assert parts[0, 2].item() == 0


def test_context_cells_do_not_count() -> None:
    levels = two_levels([0, 8], context_parents=(3,))
    parts = octree_cross_entropy(levels, octree_labels(corner(), 2), 2)
    torch.testing.assert_close(
        parts[0, 1], F.cross_entropy(levels[1].logits[:8], torch.tensor([FILLED, *[EMPTY] * 7]))
    )
    (grad,) = torch.autograd.grad(parts.sum(), levels[1].logits)
    assert bool((grad[8:16] == 0).all())
    assert bool((grad[16:] != 0).all())


def test_gradients_by_finite_differences() -> None:
    levels = two_levels([0, 7, 8])
    labels = octree_labels(corner(), 2)

    def parts(*logits: torch.Tensor) -> torch.Tensor:
        made = [OctreeLevel(v.side, v.keys, x, v.opened, v.context) for v, x in zip(levels, logits, strict=True)]
        return octree_cross_entropy(made, labels, 2)

    assert torch.autograd.gradcheck(parts, [v.logits for v in levels])


def test_the_class_sums_levels_and_averages_samples() -> None:
    grid, levels = corner(), two_levels([0, 8])
    batch = Batch(["a", "b"], ["c", "c"], voxels=grid.float())
    result = OctreeCrossEntropy()(OctreeGrid(levels, 2), batch)
    parts = octree_cross_entropy(levels, octree_labels(grid, 2), 2)
    torch.testing.assert_close(result["loss"], parts.sum(1).mean())
    assert set(result) == {"loss", "level_2", "level_4"}
    torch.testing.assert_close(result["level_4"], parts[:, 1].mean())
    assert not result["level_4"].requires_grad


def test_the_mesh_may_tell_the_truth() -> None:
    import trimesh

    made = trimesh.creation.box((0.4, 0.4, 0.4))
    mesh = Mesh(torch.tensor(made.vertices, dtype=torch.float32), torch.tensor(made.faces))
    grid = mesh.voxels(4).values
    tree = OctreeGrid([level(2, torch.arange(8), 3, range(8)), level(4, torch.arange(64), 2)], 1)
    batch = Batch(["a"], ["c"], voxels=grid, mesh=mesh)
    by_mesh, by_voxels = OctreeCrossEntropy("mesh"), OctreeCrossEntropy()
    assert (by_mesh.needs, by_voxels.needs) == ({"mesh"}, {"voxels"})
    assert by_mesh(tree, batch)["loss"].item() == by_voxels(tree, batch)["loss"].item()


def test_mistakes_are_named() -> None:
    tree = OctreeGrid(two_levels([0, 8]), 2)
    batch = Batch(["a", "b"], ["c", "c"], voxels=corner().float())
    with pytest.raises(ConversionError, match="octree levels, which VoxelGrid does not have"):
        OctreeCrossEntropy()(VoxelGrid(torch.zeros(2, 4, 4, 4)), batch)
    with pytest.raises(ReconlabError, match="got 1 shapes for a batch of 2"):
        OctreeCrossEntropy()(tree[:1], batch)
    with pytest.raises(ReconlabError, match=r"grids are \(8, 8, 8\), the octree's finest level is 4³"):
        OctreeCrossEntropy()(tree, Batch(["a", "b"], ["c", "c"], voxels=torch.zeros(2, 8, 8, 8)))
    with pytest.raises(ReconlabError, match="needs 'mesh' of the batch"):
        OctreeCrossEntropy("mesh")(tree, batch)
    with pytest.raises(ReconlabError, match="missing must be one of leaf, mixed, ignore, not 'what'"):
        OctreeCrossEntropy(missing="what")  # type: ignore[arg-type]
    with pytest.raises(ReconlabError, match=r"labels of \[1\] cells for 2 octrees of sides \[2, 4\]"):
        octree_cross_entropy(tree.levels, [torch.zeros(1)], 2)


def test_squared_error_of_a_grid() -> None:
    values = torch.rand(2, 4, 4, 4, requires_grad=True)
    batch = Batch(["a", "b"], ["c", "c"], voxels=corner().float())
    loss = VoxelMSE()(VoxelGrid(values), batch)["loss"]
    torch.testing.assert_close(loss, F.mse_loss(values, corner().float()))
    tree = OctreeGrid(two_levels([0, 8]), 2)
    VoxelMSE()(tree, batch)["loss"].backward()
    assert all(bool((v.logits.grad.abs().sum(1) > 0).all()) for v in tree.levels), "all levels by the finest cells"
    with pytest.raises(ReconlabError, match="got 1 shapes for a batch of 2"):
        VoxelMSE()(VoxelGrid(values[:1]), batch)
