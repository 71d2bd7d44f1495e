"""The shapes of a dataset: found by its split lists, and looked over for what a need reads, with few calls each.

A run on ShapeNet begins by looking at 43 000 folders, so this asks the file system as little as it can:
``benchmarks/data_loading.py`` says how long it takes.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reconlab.datasets import format as files
from reconlab.errors import ReconlabError

FILES: dict[str, tuple[str, ...]] = {
    "images": (files.VIEWS,),
    "masks": (files.VIEWS,),
    "cameras": (files.CAMERAS,),
    "views": (files.VIEWS, files.CAMERAS),
    "surface": (files.POINTCLOUD,),
    "normals": (files.POINTCLOUD,),  # which may lack them: see missing_files
    "voxels": (files.VOXELS,),
    "occupancy": (files.POINTS,),
    "mesh": (files.MESH,),
}
"""The files that answer each need."""


@dataclass(frozen=True)
class Item:
    """One shape of a dataset: its category, its id, its folder; and its input view, where that is fixed."""

    category: str
    id: str
    folder: Path
    view: int | None = None


def find_items(root: Path, split: str, categories: Sequence[str]) -> list[Item]:
    """The shapes that the split lists of the categories name.

    Raises:
        ReconlabError: A list names a shape without a folder.
    """
    items = []
    for category in categories:
        path = root / category / f"{split}.lst"
        names = files.read_list(path) if path.exists() else []
        there = _folders(path.parent) if names else set()
        for name in names:
            folder = root / category / name
            if name not in there and not folder.is_dir():
                raise ReconlabError(f"{path} names {name!r}, but {folder} does not exist: rebuild, or edit the list.")
            items.append(Item(category, name, folder))
    return items


def _folders(path: Path) -> set[str]:
    with os.scandir(path) as entries:
        return {entry.name for entry in entries if entry.is_dir()}


def every_view(items: Sequence[Item]) -> list[Item]:
    """Each shape once for each of its pictures, which is then the input: shape by shape."""
    return [
        Item(i.category, i.id, i.folder, view)
        for i in items
        for view in range(count_views(files.views_of(i.folder)[0]))
    ]


def count_views(folder: Path) -> int:
    """Pictures in a folder of views.

    Raises:
        ReconlabError: There are none.
    """
    try:
        count = sum(name.endswith((".png", ".jpg")) for name in os.listdir(folder))
    except OSError:
        count = 0
    if count == 0:
        raise ReconlabError(f"{folder} has no pictures 000.png, 001.png, ...: rebuild this shape.")
    return count


def missing_files(items: Sequence[Item], needs: frozenset[str]) -> tuple[str, str] | None:
    """The first need that some shape does not meet, and what it lacks for it; None if all is there."""
    wanted = [(need, FILES[need]) for need in sorted(needs)]
    pictured = any(name in (files.VIEWS, files.CAMERAS) for _, names in wanted for name in names)
    for item in items:
        views, suffix = files.views_of(item.folder) if pictured else (item.folder, "")
        # Several needs read the same file: it is asked for once.
        paths = {
            name: f"{views}{name.removeprefix(files.VIEWS)}"
            if name.startswith(files.VIEWS)
            else f"{item.folder}/{name}"
            for _, names in wanted
            for name in names
        }
        absent = {name for name, path in paths.items() if not os.path.exists(path)}
        for need, names in wanted:
            for name in names:
                if name in absent:
                    return need, str(Path(paths[name]))
            if need in ("masks", "views") and suffix == "jpg":
                return need, f"silhouettes (an alpha channel) in {views}"
            if need == "normals" and not _has_normals(item.folder / files.POINTCLOUD):
                return need, f"normals in {item.folder / files.POINTCLOUD}"
    return None


def _has_normals(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:  # an archive's list of names is at its end
            os.lseek(handle, max(0, os.fstat(handle).st_size - 1024), os.SEEK_SET)
            if b"normals.npy" in os.read(handle, 1024):
                return True
        finally:
            os.close(handle)
        with zipfile.ZipFile(path) as archive:
            return "normals.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return True  # damaged: whoever reads it says so
