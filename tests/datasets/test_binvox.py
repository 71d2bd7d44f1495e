"""Grids of binvox files of any size, place and scale, and their way into the object frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconlab.datasets import binvox
from reconlab.datasets import format as files
from reconlab.datasets.inside import cell_centres, surface_cells
from reconlab.datasets.synth import generate
from reconlab.errors import ReconlabError

UNIT = np.full(3, -0.5)
TURN = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])


def _grid(cells: np.ndarray, translate: object = UNIT, scale: float = 1.0) -> binvox.Grid:
    return binvox.Grid(cells, np.asarray(translate, np.float64), scale)


def test_a_file_by_hand(tmp_path: Path) -> None:
    """x slowest, then z, then y; 3 x 2 x 2 cells of which the last of the first x and one more are occupied."""
    path = tmp_path / "a.binvox"
    runs = bytes([0, 3, 1, 1, 0, 1, 1, 1, 0, 6])  # x=0: (z, y) = (1, 1); x=1: (0, 1)
    path.write_bytes(b"#binvox 1\ndim 3 2 2\ntranslate -1.5 0.25 2\nscale 6\ndata\n" + runs)
    grid = binvox.read_grid(path)
    assert grid.cells.shape == (3, 2, 2)
    assert np.argwhere(grid.cells).tolist() == [[0, 1, 1], [1, 1, 0]]
    assert grid.translate.tolist() == [-1.5, 0.25, 2]
    centres = binvox.centres(grid.cells, grid.translate, grid.scale / np.array(grid.cells.shape))
    assert centres.tolist() == [[-0.5, 4.75, 6.5], [1.5, 4.75, 3.5]]
    assert np.array_equal(files.read_binvox(path), grid.cells)


@pytest.mark.parametrize("turn", [np.eye(3), TURN])
@pytest.mark.parametrize("size", [16, 64, 128, 256])
def test_any_resolution_is_read_and_resampled(size: int, turn: np.ndarray, tmp_path: Path) -> None:
    """A box where translate and scale put it: all cells within are occupied, none that it does not touch."""
    translate, step = np.array([-0.4, -0.45, -0.6]), 0.95 / size
    low, high = np.array([0.2, 0.3, 0.5]), np.array([0.45, 0.7, 0.9])  # parts of the grid
    first, last = np.round(low * size).astype(int), np.round(high * size).astype(int)
    cells = np.zeros((size,) * 3, bool)
    cells[tuple(slice(a, b) for a, b in zip(first, last, strict=True))] = True
    (tmp_path / "a.binvox").write_bytes(files.binvox_bytes(cells))
    assert np.array_equal(binvox.read_grid(tmp_path / "a.binvox").cells, cells)
    found = binvox.resample(cells, translate, np.full(3, step), 32, turn)
    places = cell_centres(32) @ turn - translate
    depth = np.minimum(places - first * step, last * step - places).min(1).reshape(found.shape)
    assert found[depth > 0].all()
    assert not found[depth < -0.5 / 32].any()
    assert found.sum() > 500


def test_an_equal_grid_is_copied() -> None:
    cells = np.random.default_rng(0).random((32, 32, 32)) < 0.1
    assert np.array_equal(binvox.resample(cells, UNIT, np.full(3, 1 / 32), 32), cells)
    turned = np.transpose(cells, (2, 1, 0))[:, :, ::-1]  # (x, y, z) -> (z, y, -x)
    assert np.array_equal(binvox.resample(cells, UNIT, np.full(3, 1 / 32), 32, TURN), turned)


def test_a_thin_part_survives_a_coarser_grid() -> None:
    cells = np.zeros((128, 128, 128), bool)
    cells[40, :, 90] = True  # a rod thinner than a cell of 1/32
    found = binvox.resample(cells, UNIT, np.full(3, 1 / 128), 32)
    assert np.argwhere(found).tolist() == [[10, y, 22] for y in range(32)]


@pytest.mark.parametrize("box", [True, False])
@pytest.mark.parametrize("stale", [True, False])
def test_headers_are_believed_only_where_they_are_true(stale: bool, box: bool) -> None:
    """As binvox -cb makes them: the longest edge fills the grid."""
    shape = generate("chair", 3)
    vertices, faces, _ = shape.mesh()
    v, f = vertices.astype(np.float64), faces.astype(np.int64)
    edge = float(np.ptp(v, 0).max())
    inside = shape.occupancy(cell_centres(32) * edge).reshape(32, 32, 32)
    grid = _grid(inside | surface_cells(v / edge, f, 32), UNIT if stale else UNIT * edge, 1.0 if stale else edge)
    corner, step = binvox.locate(grid, np.stack([v.min(0), v.max(0)]) if box else None)
    if not stale:
        assert np.allclose(corner, -edge / 2)
        assert np.allclose(step, edge / 32)
    assert np.abs(step - edge / 32).max() < 0.03 * edge / 32
    assert np.abs(corner + edge / 2).max() < 0.02


def test_the_box_says_where_a_moved_shape_is() -> None:
    cells = (np.linalg.norm(cell_centres(64), axis=1) < 0.49).reshape(64, 64, 64)
    box = np.array([[1.0, 2, 3], [1.5, 2.5, 3.5]])
    corner, step = binvox.locate(_grid(cells, [0, 0, 0], 7.0), box)
    centres = binvox.centres(cells, corner, step)
    assert np.allclose((centres.min(0) + centres.max(0)) / 2, box.mean(0))
    assert np.allclose(np.ptp(centres, axis=0), 0.5, rtol=0.03)


@given(st.integers(0, 2**32 - 1), st.sampled_from([(4, 2), (8, 2), (8, 4), (6, 3)]))
def test_coarser_cells_by_counting(seed: int, sizes: tuple[int, int]) -> None:
    size, resolution = sizes
    cells = np.random.default_rng(seed).random((size,) * 3) < 0.1
    factor = size // resolution
    expected = np.zeros((resolution,) * 3, bool)
    for x, y, z in np.argwhere(cells):
        expected[x // factor, y // factor, z // factor] = True
    assert np.array_equal(binvox.coarser(cells, resolution), expected)


def test_coarser_cells_are_those_of_the_mesh() -> None:
    vertices, faces, _ = generate("lamp", 2).mesh()
    v, f = vertices.astype(np.float64), faces.astype(np.int64)
    assert np.array_equal(binvox.coarser(surface_cells(v, f, 64), 32), surface_cells(v, f, 32))
    for shape, resolution in (((32, 32, 32), 12), ((32, 32, 16), 16), ((32, 32, 32), 64), ((32, 32, 32), 0)):
        with pytest.raises(ReconlabError, match=f"cannot be given at resolution {resolution}: choose a divisor"):
            binvox.coarser(np.zeros(shape, bool), resolution)


@given(st.integers(0, 2**32 - 1))
def test_what_is_written_is_parsed(seed: int) -> None:
    cells = np.random.default_rng(seed).random((5, 5, 5)) < 0.4
    grid = binvox.parse(files.binvox_bytes(cells))
    assert np.array_equal(grid.cells, cells)
    assert grid.translate.tolist() == [-0.5, -0.5, -0.5]
    assert grid.scale == 1


HEAD = b"#binvox 1\ndim 2 2 2\ntranslate 0 0 0\nscale 1\ndata\n"
BAD: list[tuple[bytes, str]] = [
    (b"", "no #binvox line"),
    (b"OFF\n", "no #binvox line"),
    (b"#binvox 1\ndim 2 2 2\n", "no data line"),
    (b"#binvox 1\ndata\n\x00\x08", "dim is missing"),
    (b"#binvox 1\ndim 2 2\ndata\n\x01\x08", "dim is 2 2"),
    (b"#binvox 1\ndim 2 2 -2\ndata\n\x01\x08", "dim is 2 2 -2"),
    (b"#binvox 1\ndim 99999 2 2\ndata\n\x01\x08", "dim is 99999 2 2"),
    (b"#binvox 1\ndim two 2 2\ndata\n\x01\x08", "invalid literal"),
    (b"#binvox 1\ndim 2 2 2\ntranslate 0 0\ndata\n\x01\x08", "translate or scale"),
    (b"#binvox 1\ndim 2 2 2\ntranslate 0 0 nan\ndata\n\x01\x08", "translate or scale"),
    (b"#binvox 1\ndim 2 2 2\nscale 0\ndata\n\x01\x08", "translate or scale"),
    (b"#binvox 1\ndim 2 2 2\nscale -3\ndata\n\x01\x08", "translate or scale"),
    (HEAD + b"\x01\x08\x00", "its last run is cut off"),
    (HEAD + b"\x01\x07", "it has 7 cells, and dim says 8"),
    (HEAD + b"\x01\x09", "it has 9 cells, and dim says 8"),
    (HEAD + b"\x00\x08", "has no occupied cell"),
]


@pytest.mark.parametrize(("raw", "reason"), BAD)
def test_bad_files_are_named(raw: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.binvox").write_bytes(raw)
    with pytest.raises(ReconlabError, match=rf"a\.binvox .*{reason}"):
        binvox.read_grid(tmp_path / "a.binvox")
    with pytest.raises(ReconlabError, match=r"b\.binvox is missing"):
        binvox.read_grid(tmp_path / "b.binvox")
