"""Reading folders of CAD meshes, and bringing meshes into the object frame."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reconlab.errors import ReconlabError

SUFFIXES = (".obj", ".glb", ".ply", ".stl", ".off")


@dataclass(frozen=True)
class RawMesh:
    """Triangles as read.

    Attributes:
        vertices: ``(V, 3)`` float64.
        faces: ``(F, 3)`` int64.
        face_colors: ``(F, 3)`` uint8, or None.
    """

    vertices: np.ndarray
    faces: np.ndarray
    face_colors: np.ndarray | None = None


def find_meshes(folder: Path) -> list[tuple[str, str, Path]]:
    """``(category, name, file)`` of every ``<folder>/<category>/<name>.<suffix>``, sorted.

    Two files of one name in a category keep their suffix in the shape's name.

    Raises:
        ReconlabError: The folder is missing, or holds no mesh at all.
    """
    if not folder.is_dir():
        raise ReconlabError(f"The input folder {folder} does not exist.")
    found = []
    for category in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        files = sorted(p for p in category.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        stems = [p.stem for p in files]
        for path in files:
            name = path.stem if stems.count(path.stem) == 1 else f"{path.stem}_{path.suffix[1:].lower()}"
            found.append((category.name, name, path))
    if not found:
        raise ReconlabError(
            f"{folder} has no meshes: expected <category>/<name> with a suffix of {', '.join(SUFFIXES)}."
        )
    return found


def empty_categories(folder: Path) -> list[str]:
    """Sub-folders of an input folder without any mesh."""
    return sorted(
        p.name
        for p in folder.iterdir()
        if p.is_dir() and not p.name.startswith(".") and not any(q.suffix.lower() in SUFFIXES for q in p.iterdir())
    )


def read_mesh(path: Path) -> RawMesh:
    """Read one mesh file: all parts of a scene in their places, triangulated, textures dropped.

    An ``.obj`` with relative (negative) indices is read by :func:`~reconlab.datasets.shapenet_obj.read_obj`: trimesh
    would count them from the end of the file, and move faces to other vertices.

    Raises:
        ReconlabError: The file cannot be read, has no faces, or a used vertex is not finite.
    """
    import trimesh

    if path.suffix.lower() == ".obj" and _relative_indices(path):
        from reconlab.datasets.shapenet_obj import read_obj

        return read_obj(path)
    try:
        loaded = trimesh.load(path, force="mesh", process=False, skip_materials=path.suffix.lower() == ".obj")
    except Exception as error:  # every reader of trimesh fails in its own way
        raise ReconlabError(f"{path} cannot be read as a mesh ({type(error).__name__}: {error}).") from error
    if not isinstance(loaded, trimesh.Trimesh) or len(loaded.faces) == 0:
        raise ReconlabError(f"{path} has no faces.")
    vertices, faces = np.asarray(loaded.vertices, np.float64), np.asarray(loaded.faces, np.int64)
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise ReconlabError(f"{path} has faces that name vertices which it does not have.")
    if not np.isfinite(vertices[np.unique(faces)]).all():
        raise ReconlabError(f"{path} has vertices that are not finite numbers (NaN or infinity).")
    return RawMesh(np.where(np.isfinite(vertices), vertices, 0.0), faces, _colors(loaded))


def _relative_indices(path: Path) -> bool:
    try:
        return re.search(rb"^[ \t]*f[ \t](?:[^\n]*[ \t])?-\d", path.read_bytes(), re.MULTILINE) is not None
    except OSError:
        return False  # the reader says what is wrong


def _colors(mesh: object) -> np.ndarray | None:
    visual = getattr(mesh, "visual", None)
    if visual is None or not getattr(visual, "defined", False) or visual.kind not in ("face", "vertex"):
        return None
    try:
        return np.asarray(visual.face_colors)[:, :3].astype(np.uint8)
    except Exception:  # colours are a decoration: never a reason to lose a shape
        return None


def normalization(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre ``loc (3,)`` and diagonal ``scale`` of the bounding box of the used vertices.

    ``(vertices - loc) / scale`` is in the object frame.

    Raises:
        ReconlabError: All used vertices coincide, or the box is too large for float64.
    """
    used = vertices[np.unique(faces)]
    low, high = used.min(0), used.max(0)
    with np.errstate(over="ignore"):
        scale = float(np.linalg.norm(high - low))
    if not 0 < scale < np.inf:
        raise ReconlabError(f"the mesh has a bounding box of diagonal {scale}: it cannot be brought to size 1.")
    return (low + high) / 2, scale
