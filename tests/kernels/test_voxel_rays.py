"""Rays through voxel grids: hand-computed cells, a brute-force program, both backends, finite differences."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconlab.errors import ReconlabError
from reconlab.kernels.voxel_rays import escape_probability, traverse

BACKENDS = ["reference", "cpu"]


def brute_force(origin: np.ndarray, direction: np.ndarray, size: int) -> list[tuple[float, float, int]]:
    """(enter, leave, flat index) of the cells that a ray crosses: every cell as a box, by the slab test."""
    found = []
    for index, cell in enumerate(itertools.product(range(size), repeat=3)):
        near, far = 0.0, math.inf
        for o, d, i in zip(origin, direction, cell, strict=True):
            low, high = i / size - 0.5, (i + 1) / size - 0.5
            if d == 0:
                if not low <= o < high:
                    far = -math.inf
            else:
                near, far = (
                    max(near, min((low - o) / d, (high - o) / d)),
                    min(far, max((low - o) / d, (high - o) / d)),
                )
        if far - near > 1e-9:
            found.append((near, far, index))
    return sorted(found)


def random_rays(count: int, seed: int, lattice: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """``(1, count, 3)`` float64 rays; with ``lattice`` from cell corners along axes and diagonals."""
    g = torch.Generator().manual_seed(seed)
    origins = 3 * torch.rand(1, count, 3, generator=g, dtype=torch.float64) - 1.5
    directions = torch.randn(1, count, 3, generator=g, dtype=torch.float64)
    if lattice:
        origins, directions = (origins * lattice).round() / lattice, directions.round().clamp(-1, 1)
        directions[(directions == 0).all(-1)] = 1.0
    aimed = 0.8 * (torch.rand(1, count, 3, generator=g, dtype=torch.float64) - 0.5) - origins
    keep = torch.rand(1, count, 1, generator=g) < (0.0 if lattice else 0.7)
    return origins, torch.nn.functional.normalize(torch.where(keep, aimed, directions), dim=-1)


def test_cells_and_distances_by_hand() -> None:
    """From (-1, -.4, .25) along (1, .5, 0): y = 0 is met at x = -.2, so three of the 2³ cells are crossed."""
    slope = math.sqrt(1.25)
    direction = torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64) / slope
    crossings = traverse(torch.tensor([-1.0, -0.4, 0.25], dtype=torch.float64), direction, 2)
    assert crossings.cells[crossings.crossed].tolist() == [0b001, 0b011, 0b111]
    expected = slope * torch.tensor([0.5, 0.8, 1.0, 1.5], dtype=torch.float64)
    torch.testing.assert_close(crossings.enter[:3], expected[:3])
    torch.testing.assert_close(crossings.leave[:3], expected[1:])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("origin", "direction", "cells"),
    [
        ((-2, 0.3, 0.3), (1, 0, 0), [0b011, 0b111]),
        ((2, 0.3, 0.3), (-3, 0, 0), [0b111, 0b011]),
        ((-2, -2, -2), (1, 1, 1), [0b000, 0b111]),  # through the centre: the other six are met in a point
        ((-1, -1, 0.1), (1, 1, 0), [0b001, 0b111]),
        ((0.1, 0.3, 0.3), (1, 0, 0), [0b111]),  # starts inside; what lies behind is not crossed
        ((0.1, 0.3, 0.3), (-1, 0, 0), [0b111, 0b011]),
        ((2, 0.3, 0.3), (1, 0, 0), []),  # leaves
        ((-2, 0.6, 0.3), (1, 0, 0), []),  # passes by
        ((-2, 0.0, 0.3), (1, 0, 0), [0b011, 0b111]),  # inside a plane between cells: the upper ones
        ((-2, 0.5, 0.3), (1, 0, 0), []),  # inside the upper face: none
        ((-2, -0.5, 0.3), (1, 0, 0), [0b001, 0b101]),  # inside the lower face: its cells
    ],
)
def test_two_cubed_cells_by_hand(backend: str, origin: tuple, direction: tuple, cells: list[int]) -> None:
    """Cell k has its own prime as 1 - o, so the product names the cells that were crossed."""
    primes = torch.tensor([2.0, 3, 5, 7, 11, 13, 17, 19])
    rays = torch.tensor([[origin]]).float(), torch.tensor([[direction]]).float()
    escape = escape_probability((1 - primes).reshape(1, 2, 2, 2), *rays, backend=backend)
    assert escape.item() == math.prod(int(primes[k]) for k in cells)
    crossings = traverse(rays[0][0, 0], torch.nn.functional.normalize(rays[1][0, 0].double(), dim=0), 2)
    assert crossings.cells[crossings.crossed].tolist() == cells


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.booleans())
def test_traversal_agrees_with_testing_every_cell(seed: int, size: int, lattice: bool) -> None:
    if lattice:  # planes between cells must be exact numbers, else it is chance which side of one a ray within it is
        size = 2 ** (size % 3)
    origins, directions = random_rays(12, seed, 2 * size if lattice else 0)
    crossings = traverse(origins, directions, size)
    grid = torch.rand(1, size, size, size, generator=torch.Generator().manual_seed(seed))
    fast = escape_probability(grid, origins, directions, backend="cpu")
    for r in range(12):
        expected = brute_force(origins[0, r].numpy(), directions[0, r].numpy(), size)
        used = crossings.crossed[0, r]
        assert crossings.cells[0, r, used].tolist() == [cell for _, _, cell in expected]
        np.testing.assert_allclose(crossings.enter[0, r, used], [e for e, _, _ in expected], atol=1e-12)
        np.testing.assert_allclose(crossings.leave[0, r, used], [e for _, e, _ in expected], atol=1e-12)
        product = math.prod(1 - grid.flatten()[cell].item() for _, _, cell in expected)
        assert fast[0, r].item() == pytest.approx(product, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("lattice", [False, True])
@pytest.mark.parametrize("size", [1, 2, 7, 32])
def test_fused_kernel_agrees_with_the_reference(size: int, lattice: bool) -> None:
    origins, directions = random_rays(600, size, 2 * size if lattice else 0)
    origins, directions = (x.reshape(2, 300, 3) for x in (origins, directions))
    g = torch.Generator().manual_seed(0)
    single = (0.3 * torch.rand(2, size, size, size, generator=g)).requires_grad_()
    double = single.detach().double().requires_grad_()
    upstream = torch.randn(2, 300, generator=g)
    fast = escape_probability(single, origins, directions, backend="cpu")
    slow = escape_probability(double, origins, directions)
    assert (slow < 1).float().mean() > (0.02 if lattice else 0.5)
    torch.testing.assert_close(fast.double(), slow, rtol=1e-5, atol=1e-7)
    (by_fast,) = torch.autograd.grad((fast * upstream).sum(), single)
    (by_slow,) = torch.autograd.grad((slow * upstream).sum(), double)
    torch.testing.assert_close(by_fast.double(), by_slow, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_by_hand_where_cells_are_full(backend: str) -> None:
    """dT/do_i = -Π of the others: with one full cell only that one has a gradient, with two none has."""
    ray = torch.tensor([[[-2.0, 0.3, 0.3]]]), torch.tensor([[[1.0, 0, 0]]])
    for near, far, expected in ((0.5, 0.2, (-0.8, -0.5)), (1.0, 0.2, (-0.8, 0.0)), (1.0, 1.0, (0.0, 0.0))):
        grid = torch.zeros(1, 2, 2, 2)
        grid[0, 0, 1, 1], grid[0, 1, 1, 1] = near, far
        escape_probability(grid.requires_grad_(), *ray, backend=backend).sum().backward()
        wanted = torch.zeros(1, 2, 2, 2)
        wanted[0, 0, 1, 1], wanted[0, 1, 1, 1] = expected
        torch.testing.assert_close(grid.grad, wanted)


def test_finite_differences_in_float64() -> None:
    origins, directions = random_rays(20, 3)
    grid = torch.rand(1, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: escape_probability(x, origins, directions), (grid,))


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_finite_shows(backend: str) -> None:
    origins = torch.tensor([[[-2.0, 0.3, 0.3], [-2, -0.3, 0.3], [torch.nan, 0, 0], [-2, 0.3, 0.3]]])
    directions = torch.tensor([[[1.0, 0, 0]] * 3 + [[torch.inf, 0, 0]]])
    grid = torch.zeros(1, 2, 2, 2)
    grid[0, 1, 1, 1] = torch.nan
    escape = escape_probability(grid, origins, directions, backend=backend)
    assert escape.isnan().tolist() == [[True, False, True, True]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_length_of_directions_and_half_precision(backend: str) -> None:
    origins, directions = random_rays(50, 5)
    grid = torch.rand(1, 4, 4, 4)
    expected = escape_probability(grid, origins, directions, backend=backend)
    torch.testing.assert_close(escape_probability(grid, origins, 7 * directions, backend=backend), expected)
    half = escape_probability(grid.bfloat16(), origins, directions, backend=backend)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, rtol=0.1, atol=0.02)


def test_mistakes_are_named() -> None:
    grid, rays = torch.zeros(1, 2, 2, 2), (torch.zeros(1, 5, 3), torch.ones(1, 5, 3))
    for wrong in (torch.zeros(1, 2, 2, 3), torch.zeros(2, 2, 2), torch.zeros(1, 0, 0, 0), torch.zeros(0, 2, 2, 2)):
        with pytest.raises(ReconlabError, match="at least one cell"):
            escape_probability(wrong, *rays)
    with pytest.raises(ReconlabError, match="for 2 grids"):
        escape_probability(torch.zeros(2, 2, 2, 2), *rays)
    with pytest.raises(ReconlabError, match=r"not \(1, 5, 3\) and \(1, 4, 3\)"):
        escape_probability(grid, rays[0], rays[1][:, :4])
    with pytest.raises(ReconlabError, match="one is zero"):
        escape_probability(grid, rays[0], torch.zeros(1, 5, 3))
    with pytest.raises(ReconlabError, match="'cuda'"):
        escape_probability(grid, *rays, backend="cuda")  # type: ignore[arg-type]
    with pytest.raises(ReconlabError, match="float32 grid"):
        escape_probability(grid.double(), *rays, backend="cpu")
