"""Shape layers: hand-made cases, exact round trips, nested sets, soft decoding against its own formula."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.errors import ReconlabError
from reconlab.shapes.shape_layers import (
    decode,
    decode_layer,
    encode,
    encode_layer,
    from_depths,
    soft_log_odds,
    surface_logits,
    to_depths,
)


def random_grids(seed: int, side: int, share: float, count: int = 4) -> torch.Tensor:
    return torch.rand(count, side, side, side, generator=torch.Generator().manual_seed(seed)) < share


def hull(grid: torch.Tensor) -> torch.Tensor:
    """Cells with an occupied one, or themselves, on both sides along every axis: by looping, for one grid."""
    out = torch.zeros_like(grid)
    side = grid.shape[0]
    for cell in itertools.product(range(side), repeat=3):
        between = True
        for axis in range(3):
            line = [slice(c, c + 1) for c in cell]
            line[axis] = slice(None)
            along = grid[tuple(line)].flatten()
            between &= bool(along[: cell[axis] + 1].any()) and bool(along[cell[axis] :].any())
        out[cell] = between
    return out


def test_one_cell_by_hand():
    grid = torch.zeros(1, 3, 3, 3, dtype=torch.bool)
    grid[0, 0, 1, 2] = True
    layer = encode_layer(grid)[0]
    assert layer.dtype == torch.int16
    for axis, (row, column), place in ((0, (1, 2), 1), (1, (0, 2), 2), (2, (0, 1), 3)):
        near, far = layer[2 * axis].clone(), layer[2 * axis + 1].clone()
        assert (near[row, column], far[row, column]) == (place, place)
        near[row, column], far[row, column] = 5, 0
        assert (near == 5).all(), "an empty line is nearer than nothing: S + 2"
        assert (far == 0).all()


def test_a_sphere_and_a_cavity():
    at = torch.arange(16) - 7.5
    x, y, z = torch.meshgrid(at, at, at, indexing="ij")
    radius = (x**2 + y**2 + z**2).sqrt()
    ball, shell, onion = radius < 7, (radius < 7) & (radius > 4), (radius < 7) & ((radius > 4) | (radius < 2))
    wrong = [[int((decode(encode(g[None], n))[0] != g).sum()) for n in (1, 2, 3)] for g in (ball, shell, onion)]
    inner, core = int((radius <= 4).sum()), int((radius < 2).sum())
    assert wrong == [[0, 0, 0], [inner, 0, 0], [inner - core, core, 0]]


@given(st.integers(0, 10**6), st.integers(1, 6), st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_a_layer_is_the_hull_and_represents_it_exactly(seed: int, side: int, share: float):
    grid = random_grids(seed, side, share, 1)
    around = decode_layer(encode_layer(grid))
    assert torch.equal(around[0], hull(grid[0]))
    assert torch.equal(decode(encode(around)), around)


@given(st.integers(0, 10**6), st.integers(1, 12), st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_nested_layers_close_in_on_the_shape(seed: int, side: int, share: float):
    grid = random_grids(seed, side, share)
    layers = encode(grid, 6)
    outside = torch.ones_like(grid)
    inside = torch.zeros_like(grid)
    for n in range(1, 7):
        decoded = decode(layers[:, :n])
        if n % 2:
            assert ((grid <= decoded) & (decoded <= outside)).all()
            outside = decoded
        else:
            assert ((inside <= decoded) & (decoded <= grid)).all()
            inside = decoded


def test_empty_and_full_grids():
    for value in (0.0, 1.0):
        grid = torch.full((2, 5, 5, 5), value)
        layers = encode(grid, 2)
        assert torch.equal(decode(layers), grid > 0)
        depths = to_depths(layers)
        assert depths[:, 0].eq(6 if value else 0)[:, ::2].all(), "a full grid begins at depth S + 1"
        assert depths[:, 1].eq(0).all(), "nothing is left to be carved"
        for function in (soft_log_odds, surface_logits):
            logits = function(layers.float().requires_grad_(), 0.15)
            assert logits.isfinite().all()
            assert ((logits >= 0) == (grid > 0)).all()


@given(st.integers(0, 10**6), st.integers(1, 7))
@settings(max_examples=15, deadline=None)
def test_learned_form_has_background_zero_and_comes_back(seed: int, side: int):
    layers = encode(random_grids(seed, side, 0.2), 3)
    depths = to_depths(layers)
    assert torch.equal(from_depths(depths).to(layers.dtype), layers)
    assert torch.equal(depths[..., 0::2, :, :] == 0, depths[..., 1::2, :, :] == 0)
    assert depths.min() >= 0
    # x maps lie transposed: (z, y).
    torch.testing.assert_close(depths[:, 0, 1], layers[:, 0, 1].mT.float())
    torch.testing.assert_close(depths[:, 0, 2], side + 2 - layers[:, 0, 2].float())


def test_predicted_maps_are_rounded():
    layer = encode_layer(torch.ones(1, 4, 4, 4, dtype=torch.bool)).float()
    layer[:, 0] = 1.6  # near x
    layer[:, 3] = 3.4  # far y
    cells = decode_layer(layer)[0]
    assert cells[1:, :3].all()
    assert not cells[0].any()
    assert not cells[:, 3].any()


def literal(layers: torch.Tensor, temperature: float) -> torch.Tensor:
    """The products of sigmoids themselves, for one sample of float64 maps."""
    side = layers.shape[-1]
    i = torch.arange(1, side + 1, dtype=layers.dtype)
    out = torch.zeros(side, side, side, dtype=layers.dtype)
    for n, maps in enumerate(layers):
        product = torch.ones_like(out)
        for axis in range(3):
            shape = [1, 1, 1]
            shape[axis] = side
            index = i.reshape(shape)
            near, far = maps[2 * axis].unsqueeze(axis), maps[2 * axis + 1].unsqueeze(axis)
            product = product * torch.sigmoid((index + 0.5 - near) / temperature)
            product = product * torch.sigmoid((far + 0.5 - index) / temperature)
        out = out * (1 - product) if n % 2 else 1 - (1 - out) * (1 - product)
    return out


def random_maps(layers: int, side: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(1, layers, 6, side, side, generator=g, dtype=torch.float64) * (side + 1)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_log_odds_are_those_of_the_products(layers: int):
    maps = random_maps(layers, 4)
    torch.testing.assert_close(soft_log_odds(maps, 0.7)[0].sigmoid(), literal(maps[0], 0.7))


@pytest.mark.parametrize("function", [soft_log_odds, surface_logits])
def test_gradients_by_finite_differences(function):
    maps = random_maps(2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: function(m, 0.4), maps)


@given(st.integers(0, 10**6), st.integers(2, 8), st.floats(0, 1), st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_soft_and_boolean_agree_on_integer_maps(seed: int, side: int, share: float, count: int):
    layers = encode(random_grids(seed, side, share), count)
    # Overlapping layers too, which no encoding makes but a network predicts.
    for maps in (layers, layers[torch.randperm(4, generator=torch.Generator().manual_seed(seed))].roll(1, 1)):
        cells = decode(maps)
        for function in (soft_log_odds, surface_logits):
            assert torch.equal(function(maps.float(), 0.15) >= 0, cells)


def test_nothing_saturates_or_overflows():
    maps = encode(random_grids(0, 16, 0.5), 3).float()
    for scale in (1.0, 1e4):
        predicted = (maps * scale).requires_grad_()
        logits = surface_logits(predicted, 0.15)
        logits.sum().backward()
        assert logits.isfinite().all()
        assert predicted.grad is not None
        assert predicted.grad.isfinite().all()
    background = encode(torch.zeros(1, 16, 16, 16)).float().requires_grad_()
    surface_logits(background, 0.15)[0, 8, 8, 8].backward()
    assert background.grad is not None
    # Every map of the lines through a cell can bring it in: nearer near, farther far.
    reached = background.grad[0, 0].reshape(6, -1)
    assert (reached[0::2].amin(1) < -1e-5).all()
    assert (reached[1::2].amax(1) > 1e-5).all()


def test_a_surface_lies_near_the_cells_faces():
    """On a box: where logits change sign between neighbouring cells, linear interpolation lies at 0.35 of the way."""
    grid = torch.zeros(1, 12, 12, 12, dtype=torch.bool)
    grid[0, 3:9, 3:9, 3:9] = True
    logits = surface_logits(encode(grid).float(), 0.15)[0]
    inside, outside = logits[8, 6, 6], logits[9, 6, 6]
    assert inside == pytest.approx(0.5, abs=1e-3)
    assert 0.25 < inside / (inside - outside) < 0.5
    raw = soft_log_odds(encode(grid).float(), 0.15)[0]
    assert raw[8, 6, 6] / (raw[8, 6, 6] - raw[9, 6, 6]) < 0.02, "what the compression is for"


def test_mistakes_are_named():
    with pytest.raises(ReconlabError, match=r"\(2, 3, 4, 4\)"):
        encode(torch.zeros(2, 3, 4, 4))
    with pytest.raises(ReconlabError, match="layers is 0"):
        encode(torch.zeros(1, 4, 4, 4), 0)
    with pytest.raises(ReconlabError, match="no layer"):
        soft_log_odds(torch.zeros(1, 0, 6, 4, 4), 0.15)
