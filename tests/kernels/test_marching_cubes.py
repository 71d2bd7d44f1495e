"""Marching cubes against scikit-image, its own reference, geometry that is known, and finite differences."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from skimage import measure

from reconlab.errors import ReconlabError
from reconlab.kernels.marching_cubes import Surface, marching_cubes
from reconlab.kernels.marching_cubes.table import FACES, loops, tables


def cells(size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    axis = (torch.arange(size, dtype=dtype) + 0.5) / size - 0.5
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)


def torus(size: int) -> torch.Tensor:
    x, y, z = cells(size).unbind(-1)
    return 0.12 - torch.hypot(torch.hypot(x, y) - 0.28, z)


def noise(size: int, seed: int, blur: float = 0.0) -> torch.Tensor:
    field = np.random.default_rng(seed).standard_normal((size, size, size))
    return torch.from_numpy(gaussian_filter(field, blur) if blur else field).float()


def corners(surface: Surface) -> torch.Tensor:
    return surface.vertices.detach().double()[surface.faces]


def area(surface: Surface) -> float:
    a, b, c = corners(surface).unbind(1)
    return float(torch.linalg.cross(b - a, c - a).norm(dim=-1).sum() / 2)


def volume(surface: Surface) -> float:
    a, b, c = corners(surface).unbind(1)
    return float((a * torch.linalg.cross(b, c)).sum() / 6)


def assert_watertight(surface: Surface) -> None:
    """Each directed edge is there once, and so is its opposite."""
    count = len(surface.vertices)
    one, two = surface.faces[:, [0, 1, 2]].reshape(-1), surface.faces[:, [1, 2, 0]].reshape(-1)
    forward, back = one * count + two, two * count + one
    assert len(forward.unique()) == len(forward)
    assert torch.equal(forward.sort().values, back.sort().values)


def of_skimage(grid: torch.Tensor, level: float, outside: float) -> tuple[np.ndarray, np.ndarray]:
    padded = np.pad(grid.numpy(), 1, constant_values=outside)
    vertices, faces, _, _ = measure.marching_cubes(padded, level, gradient_direction="ascent", method="lorensen")
    return (vertices - 0.5) / grid.shape[0] - 0.5, faces


def test_every_case_is_closed_and_its_complement_has_the_same_cuts() -> None:
    triangles, counts = tables()
    assert (int(counts.max()), int((counts == 0).sum())) == (5, 2)
    for case in range(256):
        cut = {i for loop in loops(case) for i in loop}
        assert cut == {i for loop in loops(255 - case) for i in loop}
        assert set(triangles[case, : counts[case]].ravel()) == cut
        # Within the cube the triangles' boundary is the loops; each loop of n edges has n - 2 triangles.
        edges = {}
        for a, b, c in triangles[case, : counts[case]].tolist():
            for one, two in ((a, b), (b, c), (c, a)):
                edges[one, two] = edges.get((one, two), 0) + 1
        boundary = {e for e in edges if e[::-1] not in edges}
        expected = {pair for loop in loops(case) for pair in pairwise([*loop, loop[0]])}
        assert boundary == expected
        assert max(edges.values(), default=1) == 1
        assert counts[case] == sum(len(loop) - 2 for loop in loops(case))
    assert sorted(c for ring in FACES for c in ring) == sorted(list(range(8)) * 3)


def test_two_cubes_agree_on_every_face() -> None:
    """All 4096 pairs of cases of two neighbours: the contour on their common face is the same, reversed."""

    def on_face(case: int, axis: int, side: int) -> set:
        found = set()
        for loop in loops(case):
            for one, two in pairwise([*loop, loop[0]]):
                ends = []
                for edge in (one, two):
                    k, n = divmod(edge, 4)
                    c = [c for c in range(8) if not c >> k & 1][n]
                    middle = [2 * (c >> i & 1) + (i == k) for i in range(3)]
                    ends.append(tuple(middle))
                if all(e[axis] == 2 * side for e in ends):
                    found.add(tuple(tuple(v for i, v in enumerate(e) if i != axis) for e in ends))
        return found

    for axis in range(3):
        low = [c for c in range(8) if not c >> axis & 1]
        one, two = {}, {}
        for case in range(256):
            near = tuple(case >> c & 1 for c in low)
            far = tuple(case >> (c | 1 << axis) & 1 for c in low)
            one.setdefault(far, set()).add(frozenset(on_face(case, axis, 1)))
            two.setdefault(near, set()).add(frozenset(on_face(case, axis, 0)))
        for pattern, contours in one.items():
            assert len(contours) == len(two[pattern]) == 1
            assert {pair[::-1] for pair in next(iter(contours))} == next(iter(two[pattern]))


FIELDS = {
    "sphere": (0.37 - cells(24).norm(dim=-1), 0.0, 1e-4),
    "torus": (torus(32), 0.0, 2e-3),
    "smooth": (noise(24, 3, 3.0) * 30, 0.3, 1e-2),
    "steep": (((0.3 - cells(20).norm(dim=-1)) * 200).sigmoid(), 0.4, 5e-3),
}


@pytest.mark.parametrize("name", FIELDS)
def test_same_surface_as_scikit_image(name: str) -> None:
    grid, level, tolerance = FIELDS[name]
    outside = float(min(level, grid.min())) - 0.1
    surface = marching_cubes(grid[None], level, outside)
    vertices, faces = of_skimage(grid, level, outside)
    assert len(surface.vertices) == len(vertices)
    for one, two in ((surface.vertices.numpy(), vertices), (vertices, surface.vertices.numpy())):
        assert cKDTree(one).query(two)[0].max() < 1e-5
    theirs = Surface(torch.from_numpy(vertices), torch.from_numpy(faces.astype(np.int64)), *surface[2:])
    # Quadrilaterals and larger loops may be cut along another diagonal.
    assert len(surface.faces) == len(faces)
    assert area(surface) == pytest.approx(area(theirs), rel=tolerance)
    assert volume(surface) == pytest.approx(volume(theirs), rel=tolerance)
    assert volume(surface) > 0
    assert_watertight(surface)


@pytest.mark.parametrize("seed", [0, 1])
def test_noise_has_scikit_images_vertices_and_no_hole(seed: int) -> None:
    """Every case, the ambiguous ones included; scikit-image's classic table closes them otherwise."""
    grid = noise(20, seed)
    bits = [
        (grid >= 0).long()[x : x + 19, y : y + 19, z : z + 19] << n for n, (z, y, x) in enumerate(np.ndindex(2, 2, 2))
    ]
    assert len(torch.stack(bits).sum(0).unique()) == 256
    surface = marching_cubes(grid[None], 0.0, -1.0)
    vertices, _ = of_skimage(grid, 0.0, -1.0)
    assert len(surface.vertices) == len(vertices)
    assert cKDTree(vertices).query(surface.vertices.numpy())[0].max() < 1e-5
    assert cKDTree(surface.vertices.numpy()).query(vertices)[0].max() < 1e-5
    assert_watertight(surface)
    assert volume(surface) > 0


@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 6)] * 3), st.floats(-1, 1))
@settings(max_examples=25, deadline=None)
def test_any_grid_gives_a_closed_surface_that_counts_its_inside(seed: int, shape: tuple, level: float) -> None:
    """Volume by the divergence theorem lies between those of the cells well inside and of all cells touched."""
    values = torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed))
    surface = marching_cubes(values, level)
    assert_watertight(surface)
    assert float(surface.vertices.abs().max() if len(surface.vertices) else 0) <= 0.5 + 1e-6
    assert surface.vertex_splits[-1] == len(surface.vertices)
    for i in range(2):
        one = marching_cubes(values[i : i + 1], level)
        v0, v1 = surface.vertex_splits[i : i + 2].tolist()
        f0, f1 = surface.face_splits[i : i + 2].tolist()
        assert torch.equal(one.vertices, surface.vertices[v0:v1])
        assert torch.equal(one.faces, surface.faces[f0:f1] - v0)
        assert (len(one.faces) > 0) == bool((values[i] >= level).any())
        assert (volume(one) > 0) == (len(one.faces) > 0)


@pytest.mark.parametrize("kind", ["noise", "smooth", "empty", "full"])
def test_reference_and_numba_are_equal(kind: str) -> None:
    values = {
        "noise": torch.stack([noise(9, 5), noise(9, 6)]),
        "smooth": torus(12)[None],
        "empty": torch.full((2, 5, 5, 5), -1.0),
        "full": torch.full((1, 5, 4, 3), 2.0),
    }[kind]
    for one, two in zip(
        marching_cubes(values, backend="cpu"), marching_cubes(values, backend="reference"), strict=True
    ):
        assert torch.equal(one, two)


def test_gradients_by_finite_differences() -> None:
    values = noise(5, 2)[None].double()
    values += 0.1 * values.sign()  # topology holds within the step, and the guard is far
    values.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda v: marching_cubes(v, 0.0, -2.0).vertices, (values,), eps=1e-6)


def test_volume_of_a_sphere_by_its_offset() -> None:
    """d(volume)/d(offset of k (r - |x|)) = surface / k."""
    radius, steep = 0.33, 12.0
    values = (steep * (radius - cells(48, torch.float64).norm(dim=-1)))[None].requires_grad_(True)
    surface = marching_cubes(values)
    a, b, c = surface.vertices[surface.faces].unbind(1)
    enclosed = (a * torch.linalg.cross(b, c)).sum() / 6
    (slope,) = torch.autograd.grad(enclosed, values)
    assert enclosed.item() == pytest.approx(4 / 3 * np.pi * radius**3, rel=3e-3)
    assert slope.sum().item() == pytest.approx(4 * np.pi * radius**2 / steep, rel=3e-3)
    assert bool((slope >= -1e-12).all()), "raising any cell grows the sphere"


def test_the_guard_bounds_the_slope_and_moves_nothing() -> None:
    values = torch.full((1, 1, 1, 2), 1.0)
    values[0, 0, 0] = torch.tensor([1e-6, -3e-6])
    values.requires_grad_(True)
    for guard, expected in ((1e-9, 1 / 4e-6), (1e-3, 1e3)):
        surface = marching_cubes(values, 0.0, -1.0, guard=guard)
        between = surface.vertices[:, 2].argmax()  # the cell's far end along z: t = 1/4 between the two centres
        assert surface.vertices[between, 2].item() == pytest.approx(-0.25 + 0.25 * 0.5, abs=1e-5)
        (slope,) = torch.autograd.grad(surface.vertices[between, 2], values)
        assert slope[0, 0, 0].tolist() == pytest.approx([0.5 * 0.75 * expected, 0.5 * 0.25 * expected], rel=1e-3)


def test_empty_full_single_and_broken_grids() -> None:
    values = torch.full((5, 4, 4, 4), -1.0)
    values[1] = 1.0
    values[2, 1, 2, 3] = 1.0
    values[3, 0, 0, 0] = torch.nan
    values[4] = torch.inf
    values.requires_grad_(True)
    surface = marching_cubes(values)
    assert surface.face_splits.diff().tolist() == [0, surface.face_splits[2].item(), 8, 0, 0]
    full = Surface(*marching_cubes(values[1:2]))
    assert full.vertices.abs().max().item() == pytest.approx(0.5)
    # The cube without the half cells that its edges and corners lose: half a cell all round, at edges a half of it.
    assert 0.9 < volume(full) < 1
    single = Surface(*marching_cubes(values[2:3]))
    centre = torch.tensor([(i + 0.5) / 4 - 0.5 for i in (1, 2, 3)])
    torch.testing.assert_close(single.vertices.detach().mean(0), centre)
    assert volume(single) == pytest.approx(4 / 3 * 0.125**3)  # an octahedron
    empty = marching_cubes(values[:1])
    (empty.vertices.sum() + surface.vertices.sum()).backward()
    assert values.grad is not None
    assert bool((values.grad[[0, 3, 4]] == 0).all())
    assert bool(values.grad.isfinite().all())


@pytest.mark.parametrize("count", [1, 2])
def test_what_is_returned_holds_no_more_memory_than_its_numbers(count) -> None:
    surface = marching_cubes(torus(12).expand(count, -1, -1, -1))
    for part in surface:
        assert part.untyped_storage().nbytes() == part.numel() * part.element_size()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("shape", [(0, 3, 3, 3), (2, 0, 3, 3), (0, 0, 3, 3)])
def test_no_grids_and_grids_without_cells(backend, shape) -> None:
    surface = marching_cubes(torch.zeros(shape), backend=backend)
    assert (surface.vertices.shape, surface.faces.shape) == ((0, 3), (0, 3))
    assert surface.vertex_splits.tolist() == surface.face_splits.tolist() == [0] * (shape[0] + 1)


def test_levels_and_outside_by_grid() -> None:
    grid = (0.5 - cells(16).norm(dim=-1)).expand(2, -1, -1, -1)
    surface = marching_cubes(grid, torch.tensor([0.1, 0.3]), torch.tensor([-1.0, 0.0]))
    first, second = surface.vertices.split(surface.vertex_splits.diff().tolist())
    assert (first.norm(dim=-1) - 0.4).abs().max() < 0.01
    assert (second.norm(dim=-1) - 0.2).abs().max() < 0.01
    half = marching_cubes(grid.half(), 0.1)
    assert half.vertices.dtype == torch.float32


def test_mistakes_are_named() -> None:
    values = torch.zeros(2, 4, 4, 4)
    for call, text in [
        (lambda: marching_cubes(values[0]), r"values \(B, X, Y, Z\), not torch.float32 \(4, 4, 4\)"),
        (lambda: marching_cubes(values.long()), "torch.int64"),
        (lambda: marching_cubes(values, 0.0, 0.0), "outside value below the level"),
        (lambda: marching_cubes(values, torch.zeros(3)), r"level as a number or as \(2,\), not \(3,\)"),
        (lambda: marching_cubes(values, guard=0.0), "positive guard"),
        (lambda: marching_cubes(values, backend="gpu"), "not 'gpu'"),
    ]:
        with pytest.raises(ReconlabError, match=text):
            call()
