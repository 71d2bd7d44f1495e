"""Octree kernels: keys, neighbours and labels against brute force, convolutions against dense torch in float64."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.errors import ReconlabError
from reconlab.kernels.octree import (
    EMPTY,
    FILLED,
    IGNORE,
    MIXED,
    child_neighbours,
    children,
    decode,
    encode,
    from_morton,
    level_sides,
    neighbours,
    octree_conv,
    octree_deconv,
    octree_labels,
    side_bits,
    to_morton,
)


def some_keys(seed: int, bits: int, batch: int, share: float) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return (torch.rand(batch * 8**bits, generator=g) < share).nonzero().squeeze(1)


def dense_mask(keys: torch.Tensor, bits: int, batch: int) -> torch.Tensor:
    mask = torch.zeros(batch, *[2**bits] * 3, dtype=torch.bool)
    cells, sample = decode(keys, bits)
    mask[sample, cells[:, 0], cells[:, 1], cells[:, 2]] = True
    return mask


@given(bits=st.integers(1, 20), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_keys_round_trip_and_interleave_the_coordinates(bits: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    cells = torch.randint(1 << bits, (20, 3), generator=g)
    batch = torch.randint(8, (20,), generator=g)
    keys = encode(cells, batch, bits)
    back, sample = decode(keys, bits)
    assert torch.equal(back, cells) and torch.equal(sample, batch)  # noqa: PT018
    x, y, z = cells[0].tolist()
    digits = "".join(f"{x >> i & 1}{y >> i & 1}{z >> i & 1}" for i in reversed(range(bits)))
    assert keys[0].item() == (batch[0].item() << (3 * bits)) + int(digits, 2)


def test_children_halve_the_cell_and_stay_sorted() -> None:
    keys = some_keys(0, 2, 3, 0.3)
    cells, batch = decode(keys, 2)
    fine, sample = decode(children(keys), 3)
    assert torch.equal(sample, batch.repeat_interleave(8))
    offsets = torch.tensor(list(product((0, 1), repeat=3)))
    assert torch.equal(fine.reshape(-1, 8, 3), 2 * cells.unsqueeze(1) + offsets)
    assert bool((children(keys).diff() > 0).all())


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
def test_neighbours_against_brute_force(share: float) -> None:
    bits, batch = 2, 2
    keys = some_keys(1, bits, batch, share)
    cells, sample = decode(keys, bits)
    where = {(b, *c): i for i, (b, c) in enumerate(zip(sample.tolist(), cells.tolist(), strict=True))}
    expected = [
        [where.get((b, c[0] + dx, c[1] + dy, c[2] + dz), len(keys)) for dx, dy, dz in product((-1, 0, 1), repeat=3)]
        for b, c in zip(sample.tolist(), cells.tolist(), strict=True)
    ]
    assert neighbours(keys, bits).tolist() == expected


def test_the_neighbours_of_children_follow_from_their_parents() -> None:
    parents = some_keys(2, 3, 2, 0.3)
    assert torch.equal(child_neighbours(neighbours(parents, 3)), neighbours(children(parents), 4))


def test_no_cell_at_all() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert neighbours(none, 3).shape == child_neighbours(neighbours(none, 3)).shape == (0, 27)
    weight = torch.randn(27, 4, 5, requires_grad=True)
    features = torch.zeros(0, 4, requires_grad=True)
    out = octree_conv(features, weight, torch.zeros(5), neighbours(none, 3))
    out.sum().backward()
    assert out.shape == (0, 5)
    assert bool((weight.grad == 0).all())
    assert features.grad.shape == (0, 4)


def test_morton_order_and_back() -> None:
    grid = torch.arange(2 * 4**3).reshape(2, 4, 4, 4)
    flat = to_morton(grid)
    cells, sample = decode(torch.arange(len(flat)), 2)
    assert torch.equal(flat, grid[sample, cells[:, 0], cells[:, 1], cells[:, 2]])
    assert torch.equal(from_morton(flat, 2, 4), grid)


@given(
    seed=st.integers(0, 10**6), share=st.sampled_from([0.0, 0.02, 0.3, 0.98, 1.0]), start=st.sampled_from([1, 2, 4])
)
@settings(max_examples=40, deadline=None)
def test_the_octree_recomposes_into_its_grid(seed: int, share: float, start: int) -> None:
    g = torch.Generator().manual_seed(seed)
    grid = torch.rand(2, 8, 8, 8, generator=g) < share
    grid[:, :4] &= grid[:, :1, :1, :1]  # half of the grid uniform
    labels = octree_labels(grid, start, below="ignore")
    again = torch.full((2, 8, 8, 8), IGNORE, dtype=torch.uint8)
    leaves = 0
    for side, own in zip(level_sides(8, start), labels, strict=True):
        dense = from_morton(own, 2, side)
        fine = dense.repeat_interleave(8 // side, 1).repeat_interleave(8 // side, 2).repeat_interleave(8 // side, 3)
        leaf = (fine == EMPTY) | (fine == FILLED)
        assert bool((again[leaf] == IGNORE).all()), "each cell is in one leaf"
        again[leaf] = fine[leaf]
        leaves += int(leaf.sum())
    assert leaves == again.numel()
    assert torch.equal(again == FILLED, grid)


def test_labels_by_hand() -> None:
    grid = torch.zeros(1, 4, 4, 4, dtype=torch.bool)
    grid[:, 2:, 2:, 2:] = True  # the last octant
    grid[:, 0, 0, 1] = True  # one cell of the first
    top, octants, cells = octree_labels(grid, 1)
    assert top.tolist() == [MIXED]
    assert octants.tolist() == [MIXED, *[EMPTY] * 6, FILLED]
    assert cells.tolist() == [0, 1, *[0] * 54, *[1] * 8]
    _, _, mixed = octree_labels(grid, 1, "mixed")
    assert mixed.tolist() == [0, 1, *[0] * 6, *[IGNORE] * 56]
    grid[:] = True
    assert [t.unique().tolist() for t in octree_labels(grid, 1, "mixed")] == [[FILLED], [MIXED], [IGNORE]]
    assert [t.unique().tolist() for t in octree_labels(grid, 1, "ignore")] == [[FILLED], [IGNORE], [IGNORE]]
    assert [t.unique().tolist() for t in octree_labels(grid, 1)] == [[FILLED]] * 3


@pytest.mark.parametrize("share", [0.1, 0.7])
def test_deconvolution_against_dense_torch(share: float) -> None:
    bits, batch, inputs, outputs = 2, 2, 3, 4
    torch.manual_seed(0)
    keys = some_keys(3, bits, batch, share)
    features = torch.randn(len(keys), inputs, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(inputs, 8, outputs, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(outputs, dtype=torch.float64, requires_grad=True)
    sparse = octree_deconv(features, weight, bias)
    cells, sample = decode(keys, bits)
    dense = torch.zeros(batch, 4, 4, 4, inputs, dtype=torch.float64)
    dense = dense.index_put((sample, *cells.unbind(1)), features).movedim(-1, 1)
    filters = weight.reshape(inputs, 2, 2, 2, outputs).movedim(-1, 1)
    out = F.conv_transpose3d(dense, filters, bias, stride=2)
    fine, sample = decode(children(keys), bits + 1)
    expected = out.movedim(1, -1)[(sample, *fine.unbind(1))]
    torch.testing.assert_close(sparse, expected)
    g = torch.randn_like(sparse)
    pairs = zip(
        torch.autograd.grad(sparse, (features, weight, bias), g),
        torch.autograd.grad(expected, (features, weight, bias), g),
        strict=True,
    )
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("share", [0.1, 0.7, 1.0])
def test_convolution_against_dense_torch(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from reconlab.kernels.octree import conv

    monkeypatch.setattr(conv, "ROWS", 7)  # several pieces
    bits, batch, inputs, outputs = 2, 2, 3, 4
    torch.manual_seed(0)
    keys = some_keys(4, bits, batch, share)
    features = torch.randn(len(keys), inputs, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(27, inputs, outputs, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(outputs, dtype=torch.float64, requires_grad=True)
    sparse = octree_conv(features, weight, bias, neighbours(keys, bits))
    cells, sample = decode(keys, bits)
    dense = torch.zeros(batch, 4, 4, 4, inputs, dtype=torch.float64)
    dense = dense.index_put((sample, *cells.unbind(1)), features).movedim(-1, 1)
    filters = weight.reshape(3, 3, 3, inputs, outputs).permute(4, 3, 0, 1, 2)
    expected = F.conv3d(dense, filters, bias, padding=1).movedim(1, -1)[(sample, *cells.unbind(1))]
    torch.testing.assert_close(sparse, expected)
    g = torch.randn_like(sparse)
    pairs = zip(
        torch.autograd.grad(sparse, (features, weight, bias), g),
        torch.autograd.grad(expected, (features, weight, bias), g),
        strict=True,
    )
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs)


def test_convolution_gradients_by_finite_differences() -> None:
    keys = some_keys(5, 1, 1, 0.7)
    table = neighbours(keys, 1)
    features = torch.randn(len(keys), 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(27, 2, 2, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f, w: octree_conv(f, w, bias, table), (features, weight))


def test_mistakes_are_named() -> None:
    for side in (0, 3, 12, 1 << 21):
        with pytest.raises(ReconlabError, match=f"power of two .* not {side}"):
            side_bits(side)
    with pytest.raises(ReconlabError, match="side 4 cannot start at 8"):
        level_sides(4, 8)
    with pytest.raises(ReconlabError, match=r"grids \(B, D, D, D\), not \(1, 4, 4, 2\)"):
        octree_labels(torch.zeros(1, 4, 4, 2, dtype=torch.bool), 1)
    with pytest.raises(ReconlabError, match=r"boolean grids, not torch\.float32"):
        octree_labels(torch.zeros(1, 4, 4, 4), 1)
    with pytest.raises(ReconlabError, match="not 7"):
        octree_labels(torch.zeros(1, 7, 7, 7, dtype=torch.bool), 1)
    with pytest.raises(ReconlabError, match=r"keys \(N,\) of int64, not \(2,\) of torch.int32"):
        neighbours(torch.zeros(2, dtype=torch.int32), 1)
    with pytest.raises(ReconlabError, match=r"not \(2, 3\), \(27, 4, 5\) and \(2, 27\)"):
        octree_conv(torch.zeros(2, 3), torch.zeros(27, 4, 5), torch.zeros(5), torch.zeros(2, 27, dtype=torch.int32))


def test_morton_order_passes_gradients_twice() -> None:
    grid = torch.randn(2, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(to_morton, grid)
    assert torch.autograd.gradgradcheck(lambda g: to_morton(g).square(), grid)
    assert torch.autograd.gradcheck(lambda g: from_morton(to_morton(g).cumsum(0), 2, 2), grid)
