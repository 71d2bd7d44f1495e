"""Octrees as grids: composed by brute force, hard decoding, slices, the true grids and their store."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.errors import ReconlabError
from reconlab.kernels.octree import MIXED, children, decode, level_sides, octree_labels
from reconlab.shapes import Mesh, VoxelGrid
from reconlab.shapes.octree import OctreeGrid, OctreeLevel, TrueGrids, true_grid


def some_tree(seed: int, batch: int = 2, sides: tuple[int, int] = (2, 8), share: float = 0.4, scale: float = 2.0):
    """Octrees whose cells are divided at random, not by their logits, with context cells beside them."""
    g = torch.Generator().manual_seed(seed)
    levels, keys = [], torch.arange(batch * sides[0] ** 3)
    context = torch.zeros(len(keys), dtype=torch.bool)
    for side in level_sides(sides[1], sides[0]):
        last = side == sides[1]
        logits = scale * torch.randn(len(keys), 2 if last else 3, generator=g, dtype=torch.float64)
        opened = (torch.rand(len(keys), generator=g) < share) & ~context & (not last)
        levels.append(OctreeLevel(side, keys, logits, opened, context))
        spread = opened | (torch.rand(len(keys), generator=g) < 0.2)
        context = (~opened)[spread].repeat_interleave(8)
        keys = children(keys[spread])
    return levels


def occupancy_of(levels: list[OctreeLevel], depth: int, key: int) -> float:
    """The definition, cell by cell: p_F + p_M q."""
    level = levels[depth]
    row = level.keys.tolist().index(key)
    p = torch.softmax(level.logits[row], 0).tolist()
    if len(p) == 2:
        return p[1]
    return -1.0 if level.opened[row] else p[1] + 0.5 * p[2]


def composed_by_hand(levels: list[OctreeLevel], key: int) -> float:
    """Of a finest cell: down from the coarsest level along its ancestors."""
    total, mixed = 0.0, 1.0
    for depth in range(len(levels)):
        own = key >> 3 * (len(levels) - 1 - depth)
        closed = occupancy_of(levels, depth, own)
        if closed >= 0:
            return total + mixed * closed
        p = torch.softmax(levels[depth].logits[levels[depth].keys.tolist().index(own)], 0).tolist()
        total, mixed = total + mixed * p[1], mixed * p[2]
    raise AssertionError


@given(st.integers(0, 10**6))
@settings(max_examples=8, deadline=None)
def test_the_composition_is_the_recursion(seed: int) -> None:
    levels = some_tree(seed, batch=2, sides=(2, 8))
    grid = OctreeGrid(levels, 2)
    keys = torch.randperm(2 * 512, generator=torch.Generator().manual_seed(seed))[:60]
    cells, sample = decode(keys, 3)
    got = grid.values[sample, cells[:, 0], cells[:, 1], cells[:, 2]]
    expected = torch.tensor([composed_by_hand(levels, k) for k in keys.tolist()], dtype=torch.float64)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(grid.logits, torch.logit(grid.values))


def test_composition_gradients_by_finite_differences() -> None:
    levels = some_tree(2, batch=1, sides=(2, 4), share=0.5)
    logits = [v.logits.clone().requires_grad_() for v in levels]

    def compose(*values: torch.Tensor) -> torch.Tensor:
        made = [OctreeLevel(v.side, v.keys, x, v.opened, v.context) for v, x in zip(levels, values, strict=True)]
        return OctreeGrid(made, 1).logits

    assert torch.autograd.gradcheck(compose, logits)
    context = [v.context for v in levels]
    grads = torch.autograd.grad(compose(*logits).square().sum(), logits)
    assert any(bool(c.any()) for c in context)
    for grad, beside in zip(grads, context, strict=True):
        assert bool((grad[beside] == 0).all()), "context cells are no part of the tree"
        assert bool((grad[~beside].abs().sum(1) > 0).all()), "all others are"


def test_certain_cells_keep_finite_odds_and_gradients() -> None:
    levels = some_tree(3, scale=300.0)
    levels = [OctreeLevel(v.side, v.keys, v.logits.float().requires_grad_(), v.opened, v.context) for v in levels]
    grid = OctreeGrid(levels, 2)
    assert bool(grid.logits.isfinite().all())
    assert grid.logits.detach().abs().max().item() > 100, "beyond what the sigmoid of a float can say"
    grid.logits.sum().backward()
    assert all(bool(v.logits.grad.isfinite().all()) for v in levels)


def exact_tree(grid: torch.Tensor, start: int, sure: float = 30.0) -> OctreeGrid:
    """The octree of a grid, every class certain."""
    levels, keys = [], torch.arange(len(grid) * start**3)
    labels = octree_labels(grid, start)
    for i, side in enumerate(level_sides(grid.shape[1], start)):
        own = labels[i][keys].long()
        last = i == len(labels) - 1
        logits = sure * torch.nn.functional.one_hot(own, 2 if last else 3).float()
        opened = (own == MIXED) & (not last)
        levels.append(OctreeLevel(side, keys, logits, opened, torch.zeros_like(opened)))
        keys = children(keys[opened])
    return OctreeGrid(levels, len(grid))


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_a_certain_octree_is_its_grid_soft_and_hard(share: float) -> None:
    truth = torch.rand(3, 8, 8, 8, generator=torch.Generator().manual_seed(0)) < share
    grid = exact_tree(truth, 2)
    assert torch.equal(grid.hard().values > 0.5, truth)
    torch.testing.assert_close(grid.values, truth.float())
    assert torch.equal(grid[1:].values, grid.values[1:])
    assert torch.equal(grid[2].values, grid.values[2:])
    assert torch.equal(grid[::2].hard().values, grid.hard().values[::2])
    assert torch.equal(grid.to("cpu").values, grid.values)
    assert (len(grid), len(grid[:0]), grid.resolution, grid[::2].levels[0].keys.tolist()) == (3, 0, 8, [*range(16)])


def test_soft_and_hard_differ_where_no_class_has_half() -> None:
    no = torch.zeros(1, dtype=torch.bool)
    key = torch.zeros(1, dtype=torch.int64)
    p = torch.tensor([[0.35, 0.25, 0.40]])  # divided; its children are filled with 0.9
    fine = OctreeLevel(2, torch.arange(8), torch.tensor([[0.1, 0.9]]).log().expand(8, 2), no.expand(8), no.expand(8))
    tree = OctreeGrid([OctreeLevel(1, key, p.log(), ~no, no), fine], 1)
    assert tree.values.flatten().tolist() == pytest.approx([0.25 + 0.4 * 0.9] * 8)
    p = torch.tensor([[0.36, 0.24, 0.40]])  # not divided: 0.24 + 0.2 says empty, and so do the odds 24 : 36
    tree = OctreeGrid([OctreeLevel(1, key, p.log(), no, no), _closed()], 1)
    assert tree.values.flatten().tolist() == pytest.approx([0.44] * 8)
    assert tree.hard().values.sum().item() == 0
    # divided, children filled with 0.55: the path of classes says filled, the probability 0.24 + 0.22 does not
    fine = OctreeLevel(
        2, torch.arange(8), torch.tensor([[0.45, 0.55]]).log().expand(8, 2), no.expand(8), no.expand(8)
    )
    tree = OctreeGrid([OctreeLevel(1, key, p.log(), ~no, no), fine], 1)
    assert tree.hard().values.mean().item() == 1
    assert tree.values.max().item() == pytest.approx(0.46)


def _closed() -> OctreeLevel:
    no = torch.zeros(0, dtype=torch.bool)
    return OctreeLevel(2, torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2), no, no)


def test_children_that_the_truth_opened_do_not_count_in_hard_decoding() -> None:
    no = torch.zeros(1, dtype=torch.bool)
    sure = torch.tensor([[-9.0, 9.0]]).expand(8, 2)
    fine = OctreeLevel(2, torch.arange(8), sure, no.expand(8), no.expand(8))
    root = OctreeLevel(1, torch.zeros(1, dtype=torch.int64), torch.tensor([[5.0, 0.0, 1.0]]), ~no, no)
    assert OctreeGrid([root, fine], 1).hard().values.sum().item() == 0


def test_it_is_a_voxel_grid_with_a_differentiable_surface() -> None:
    truth = torch.zeros(1, 8, 8, 8, dtype=torch.bool)
    truth[:, 1:6, 1:6, 1:6] = True
    tree = exact_tree(truth, 2, sure=3.0)
    for level in tree.levels:
        level.logits.requires_grad_()
    assert isinstance(tree, VoxelGrid)
    mesh = tree.mesh()
    assert bool(mesh.valid()[0])
    mesh.vertices.square().sum().backward()
    assert all(level.logits.grad.abs().sum() > 0 for level in tree.levels)
    assert tree.voxels(4).values.shape == (1, 4, 4, 4)
    assert bool(tree.valid()[0])


def test_a_coarser_grid_is_the_one_that_a_coarser_dataset_has() -> None:
    mesh = Mesh.from_list([box(0.3)])
    tree = exact_tree(mesh.voxels(32).values > 0, 4)
    assert torch.equal(tree.voxels(8).values > 0.5, mesh.voxels(8).values > 0)
    assert torch.equal(tree.voxels(8).logits.sigmoid(), tree.voxels(8).values)
    assert tree.voxels(32) is tree
    assert tree.voxels(5).values.shape == (1, 5, 5, 5)
    with pytest.raises(ReconlabError, match="resolution is 0"):
        tree.voxels(0)
    levels = [OctreeLevel(v.side, v.keys, v.logits.requires_grad_(), v.opened, v.context) for v in tree.levels]
    OctreeGrid(levels, 1).voxels(8).values.sum().backward()
    assert levels[-1].logits.grad is not None


def test_levels_that_do_not_fit_are_named() -> None:
    levels = some_tree(0)
    with pytest.raises(ReconlabError, match=r"sides are \[2, 8\]; expected them to double"):
        OctreeGrid([levels[0], levels[2]], 2)
    with pytest.raises(ReconlabError, match=r"first level has 16 cells; expected all 3 · 2³"):
        OctreeGrid(levels, 3)


def box(x: float) -> tuple[torch.Tensor, torch.Tensor]:
    import trimesh

    made = trimesh.creation.box((x, 0.5, 0.4))
    return torch.tensor(made.vertices, dtype=torch.float32), torch.tensor(made.faces)


def test_true_grids_are_voxelised_once_and_bounded() -> None:
    mesh = Mesh.from_list([box(0.25), box(0.5)])
    store = TrueGrids(limit=3 * 16**3 // 8)
    grids = store.of(mesh, 16)
    assert torch.equal(grids, mesh.voxels(16).values > 0)
    assert len(store) == 2
    kept = list(store._items.values())
    assert torch.equal(store.of(mesh[1], 16), grids[1:])
    assert all(a is b for a, b in zip(kept, store._items.values(), strict=False)), "the same tensors"
    store.of(Mesh.from_list([box(0.3), box(0.6)]), 16)
    assert len(store) == 3
    assert len(TrueGrids(limit=10)._items) == 0
    assert TrueGrids(limit=10).of(mesh, 16).equal(grids)
    odd = mesh.voxels(5).values > 0
    assert torch.equal(TrueGrids().of(mesh, 5), odd)


def test_true_grid_takes_the_datasets_or_the_meshes() -> None:
    mesh = Mesh.from_list([box(0.25)])
    voxels = mesh.voxels(16).values
    assert torch.equal(true_grid(voxels, None, 16, "X"), true_grid(None, mesh, 16, "X"))
    assert true_grid(None, mesh, 8, "X").shape == (1, 8, 8, 8)
    with pytest.raises(
        ReconlabError, match=r"X: the dataset's grids are \(16, 16, 16\), .* 32³; set truth to 'mesh'"
    ):
        true_grid(voxels, None, 32, "X")
    with pytest.raises(ReconlabError, match="neither voxels nor a mesh"):
        true_grid(None, None, 32, "X")


def test_half_of_the_rest_is_the_odds_of_a_closed_cell() -> None:
    no = torch.zeros(1, dtype=torch.bool)
    tree = OctreeGrid([OctreeLevel(1, torch.zeros(1, dtype=torch.int64), torch.zeros(1, 3), no, no), _closed()], 1)
    assert tree.logits.abs().max().item() < 1e-6
    assert math.isclose(tree.values.mean().item(), 0.5, abs_tol=1e-6)
