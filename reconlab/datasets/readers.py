"""Files of a shape -> arrays as they are stored, verified; every error names the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reconlab.datasets import format as files
from reconlab.datasets.binvox import coarser
from reconlab.datasets.items import count_views
from reconlab.errors import ReconlabError

Arrays = dict[str, np.ndarray]


def _finite(path: Path, arrays: Arrays, **shapes: tuple[int | None, ...]) -> Arrays:
    for name, shape in shapes.items():
        array = arrays[name]
        if array.ndim != len(shape) or any(s is not None and s != n for s, n in zip(shape, array.shape, strict=True)):
            raise ReconlabError(f"{path}: {name} has shape {array.shape}, expected {shape}: rebuild this shape.")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ReconlabError(f"{path}: {name} has numbers that are not finite: rebuild this shape.")
    return arrays


def read_cloud(path: Path) -> Arrays:
    """Surface ``points`` and, if the file has them, ``normals`` of a ``pointcloud.npz``, verified."""
    arrays = files.read_npz(path)
    if "points" not in arrays:
        raise ReconlabError(f"{path} has no array 'points' (it has {', '.join(arrays)}): rebuild this shape.")
    arrays = {k: arrays[k] for k in ("points", "normals") if k in arrays}
    _finite(path, arrays, **dict.fromkeys(arrays, (None, 3)))
    counts = {len(array) for array in arrays.values()}
    if counts == {0} or len(counts) > 1:
        shown = " and ".join(f"{len(array)} {name}" for name, array in arrays.items())
        raise ReconlabError(f"{path} has {shown}: rebuild this shape.")
    return arrays


def read_queries(path: Path) -> Arrays:
    """Points and occupancies (bool, unpacked) of a ``points.npz``, verified."""
    arrays = _finite(path, files.read_npz(path, "points", "occupancies"), points=(None, 3))
    inside = files.unpack_occupancies(arrays["occupancies"], len(arrays["points"]))
    if len(inside) != len(arrays["points"]) or len(inside) == 0:
        raise ReconlabError(
            f"{path} has {len(arrays['points'])} points and {len(inside)} occupancies: rebuild this shape."
        )
    return {"points": arrays["points"], "occupancies": inside}


def read_voxels(path: Path, resolution: int | None) -> Arrays:
    """``voxels``, bool, of a ``model.binvox``: as they are, or of a resolution that divides theirs."""
    cells = files.read_binvox(path)
    if resolution is None or cells.shape == (resolution,) * 3:
        return {"voxels": cells}
    try:
        return {"voxels": coarser(cells, resolution)}
    except ReconlabError as error:
        raise ReconlabError(f"{path}: {error}") from None


def read_mesh_arrays(path: Path) -> Arrays:
    """Vertices and faces of a ``mesh.npz``, verified."""
    arrays = _finite(path, files.read_npz(path, "vertices", "faces"), vertices=(None, 3), faces=(None, 3))
    faces = arrays["faces"]
    if len(faces) == 0 or faces.min() < 0 or faces.max() >= len(arrays["vertices"]):
        raise ReconlabError(f"{path} has no faces, or faces of vertices that it does not have: rebuild this shape.")
    return arrays


def read_cameras(path: Path) -> Arrays:
    """``R``, ``t``, ``focal`` and ``centre`` of a ``cameras.npz``, verified; an archive's for its points' frame."""
    if path.parent.name == files.ARCHIVE_VIEWS:
        from reconlab.datasets.occnet_files import archive_arrays

        return archive_arrays(path)
    arrays = files.read_npz(path, "R", "t", "focal", "centre")
    return _finite(path, arrays, R=(None, 3, 3), t=(None, 3), focal=(None, 2), centre=(None, 2))


def read_picture(path: Path) -> Arrays:
    """``rgba`` of a picture: ``(H, W, 4)`` uint8, straight alpha."""
    return {"rgba": files.read_png(path)}


def list_views(path: Path) -> Arrays:
    """How many pictures a folder has, as the array ``count``."""
    return {"count": np.array(count_views(path))}
