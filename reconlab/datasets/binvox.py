"""Grids of ``.binvox`` files: any size, translation and scale, brought into the object frame.

Header: ``dim`` depth (x), width (z), height (y); cell ``i`` of an axis of ``d`` cells spans
``translate + scale * [i / d, (i + 1) / d]`` in the frame of the mesh (www.patrickmin.com/binvox/binvox.html). Cells
run x slowest, then z, then y; here they are indexed [x, y, z].

Published headers are not to be relied on: ShapeNetVox32 was made with ``binvox -d 32 -cb -dc -aw -pb``, which centres
the shape in the cube and fills its longest edge, and Mesh R-CNN fits the boxes rather than read the header. So a
header is believed where it puts the occupied cells where the shape is; otherwise they are put there (:func:`locate`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reconlab.errors import ReconlabError

LARGEST = 1024
"""Cells along an axis; more is taken for a damaged header."""


@dataclass(frozen=True)
class Grid:
    """A binvox file.

    Attributes:
        cells: ``(X, Y, Z)`` bool.
        translate: ``(3,)`` where the first cell's corner is.
        scale: Edge of the whole grid.
    """

    cells: np.ndarray
    translate: np.ndarray
    scale: float


def parse(raw: bytes) -> Grid:
    """The grid in a file's bytes.

    Raises:
        ValueError: They are no binvox file; the text says what is wrong.
    """
    head, mark, data = raw.partition(b"\ndata\n")
    if not mark:
        head, mark, data = raw.partition(b"\ndata\r\n")
    lines = head.decode("ascii", "replace").splitlines()
    if not lines or not lines[0].startswith("#binvox"):
        raise ValueError("no #binvox line")
    if not mark:
        raise ValueError("no data line")
    words = {line.split()[0]: line.split()[1:] for line in lines[1:] if line.strip()}
    dims = tuple(int(w) for w in words.get("dim", ()))
    if len(dims) != 3 or not all(0 < d <= LARGEST for d in dims):
        raise ValueError(f"dim is {' '.join(words.get('dim', ['missing']))}")
    translate = np.array([float(w) for w in words.get("translate", ("-0.5", "-0.5", "-0.5"))])
    scale = float((words.get("scale") or ["1"])[0])
    if translate.shape != (3,) or not np.isfinite(translate).all() or not 0 < scale < np.inf:
        raise ValueError("translate or scale are no numbers to work with")
    if len(data) % 2:
        raise ValueError("its last run is cut off")
    pairs = np.frombuffer(data, np.uint8).reshape(-1, 2)
    x, z, y = dims
    if (total := int(pairs[:, 1].sum(dtype=np.int64))) != x * y * z:
        raise ValueError(f"it has {total} cells, and dim says {x * y * z}")
    flat = np.repeat(pairs[:, 0], pairs[:, 1]).astype(bool)
    return Grid(np.ascontiguousarray(flat.reshape(x, z, y).transpose(0, 2, 1)), translate, scale)


def read_grid(path: Path) -> Grid:
    """The grid of a published file.

    Raises:
        ReconlabError: The file is missing, no binvox, damaged, or has no occupied cell.
    """
    try:
        grid = parse(path.read_bytes())
    except FileNotFoundError:
        raise ReconlabError(f"{path} is missing.") from None
    except (ValueError, OSError) as error:
        raise ReconlabError(f"{path} is not a readable binvox file ({error}).") from error
    if not grid.cells.any():
        raise ReconlabError(f"{path} has no occupied cell.")
    return grid


def locate(grid: Grid, box: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Where the cells are in the shape's frame.

    The header is believed if it puts the occupied cells on the shape's bounding box within two cells (centre and
    diagonal). If not, the cells are moved and scaled (alike on every axis, without turning) so that they are. Their
    extent is taken as one cell less than is occupied, which is its mean for a surface that marks every cell it
    meets, but as the whole on an axis that is full. So without a true ``box`` the size is uncertain by half a cell.

    Args:
        grid: The file's.
        box: ``(2, 3)`` lowest and highest corner of the shape; None for any shape centred at 0 with diagonal 1.

    Returns:
        Corner of the first cell and size of a cell, each ``(3,)``.
    """
    dims = np.array(grid.cells.shape)
    low, high = occupied_range(grid.cells)
    extent = np.where(high - low == dims, dims, np.maximum(high - low - 1, 0.5))
    step = grid.scale / dims
    centre = np.zeros(3) if box is None else np.asarray(box, np.float64).mean(0)
    diagonal = 1.0 if box is None else float(np.linalg.norm(box[1] - box[0]))
    stated = grid.translate + step * (low + high) / 2
    near = 2 * float(step.max())
    if np.abs(stated - centre).max() <= near and abs(float(np.linalg.norm(extent * step)) - diagonal) <= near:
        return grid.translate, step
    step = step / step.max()
    step = step * diagonal / float(np.linalg.norm(extent * step))
    return centre - step * (low + high) / 2, step


def occupied_range(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First occupied index and last plus one on each axis, ``(3,)`` int each; some cell must be occupied."""
    found = [np.flatnonzero(cells.any(tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return np.array([f[0] for f in found]), np.array([f[-1] + 1 for f in found])


def centres(cells: np.ndarray, corner: np.ndarray, step: np.ndarray) -> np.ndarray:
    """``(N, 3)`` centres of the occupied cells, x slowest."""
    return np.asarray(corner + (np.argwhere(cells) + 0.5) * step)


def resample(
    cells: np.ndarray, corner: np.ndarray, step: np.ndarray, resolution: int, turn: np.ndarray | None = None
) -> np.ndarray:
    """The shape on the grid of built datasets, [-0.5, 0.5]³.

    A cell is occupied if its centre lies in an occupied cell of the source, or the centre of one lies in it: so
    nothing thin is lost, whichever grid is the finer one. Equal grids are copied exactly.

    Args:
        cells: ``(X, Y, Z)`` bool.
        corner: Of the first cell, ``(3,)``.
        step: Size of a cell, ``(3,)``.
        resolution: Cells of the result along each axis.
        turn: ``(3, 3)`` rotation applied to the source.

    Returns:
        ``(D, D, D)`` bool.
    """
    turn = np.eye(3) if turn is None else turn
    axis = (np.arange(resolution) + 0.5) / resolution - 0.5
    targets = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    index = np.floor((targets @ turn - corner) / step).astype(np.int64)
    inside = ((index >= 0) & (index < cells.shape)).all(1)
    out = np.zeros(resolution**3, bool)
    out[inside] = cells[tuple(index[inside].T)]
    out = out.reshape((resolution,) * 3)
    places = np.floor((centres(cells, corner, step) @ turn.T + 0.5) * resolution + 1e-9).astype(np.int64)
    places = places[((places >= 0) & (places < resolution)).all(1)]
    out[tuple(places.T)] = True
    return out


def coarser(cells: np.ndarray, resolution: int) -> np.ndarray:
    """The same shape with fewer cells: a cell is occupied if any cell within it is.

    For grids of built datasets that is exactly what a build of that resolution gives, since a cell is occupied there
    if a face meets it or its centre is inside.

    Args:
        cells: ``(D, D, D)``.
        resolution: A divisor of D.

    Raises:
        ReconlabError: It is none.
    """
    size = cells.shape[0]
    if len(set(cells.shape)) != 1 or resolution < 1 or size % resolution:
        shown = " x ".join(map(str, cells.shape))
        raise ReconlabError(
            f"voxels of {shown} cells cannot be given at resolution {resolution}: choose a divisor, or build with "
            f"--resolution {resolution}."
        )
    factor = size // resolution
    blocks = cells.reshape(resolution, factor, resolution, factor, resolution, factor)
    return np.asarray(blocks.any((1, 3, 5)))
