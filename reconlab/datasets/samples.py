"""Reading the shapes of a built dataset: only what is needed, seeded per (seed, epoch, sample), decoded once."""

from __future__ import annotations

import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from reconlab.cameras import Cameras
from reconlab.datasets import format as files
from reconlab.datasets.binvox import coarser
from reconlab.errors import ReconlabError

Arrays = dict[str, np.ndarray]

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


@dataclass(frozen=True)
class Loading:
    """How samples are made of shapes.

    Attributes:
        needs: Fields of the batch to load.
        image_size: Side of the input image.
        points: Surface points per sample.
        queries: Occupancy points per sample.
        views: Supervision views per sample; the first is the input image's.
        view_size: Side of the supervision views; None for their size on disk.
        input_view: Index of the input view, or ``random``.
        seed: Of all choices.
        resolution: Of the voxels, a divisor of the files'; theirs if None.
    """

    needs: frozenset[str]
    image_size: int
    points: int
    queries: int
    views: int
    view_size: int | None
    input_view: int | Literal["random"]
    seed: int
    resolution: int | None = None


def find_items(root: Path, split: str, categories: Sequence[str]) -> list[Item]:
    """The shapes that the split lists of the categories name.

    Raises:
        ReconlabError: A list names a shape without a folder.
    """
    items = []
    for category in categories:
        path = root / category / f"{split}.lst"
        for name in files.read_list(path) if path.exists() else []:
            folder = root / category / name
            if not folder.is_dir():
                raise ReconlabError(f"{path} names {name!r}, but {folder} does not exist: rebuild, or edit the list.")
            items.append(Item(category, name, folder))
    return items


def every_view(items: Sequence[Item]) -> list[Item]:
    """Each shape once for each of its pictures, which is then the input: shape by shape."""
    return [replace(i, view=k) for i in items for k in range(int(_list_views(files.views_of(i.folder)[0])["count"]))]


def missing_files(items: Sequence[Item], needs: frozenset[str]) -> tuple[str, str] | None:
    """The first need that some shape does not meet, and what it lacks for it; None if all is there."""
    for item in items:
        for need in sorted(needs):
            for name in FILES[need]:
                if not files.located(item.folder, name).exists():
                    return need, str(files.located(item.folder, name))
            if need in ("masks", "views") and files.views_of(item.folder)[1] == "jpg":
                return need, f"silhouettes (an alpha channel) in {files.views_of(item.folder)[0]}"
            if need == "normals" and not _has_normals(item.folder / files.POINTCLOUD):
                return need, f"normals in {item.folder / files.POINTCLOUD}"
    return None


def _has_normals(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return "normals.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return True  # damaged: whoever reads it says so


class Cache:
    """Decoded arrays in memory, the least recently used thrown out beyond a bound."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0
        self.entries: OrderedDict[Path, Arrays] = OrderedDict()

    def get(self, path: Path, read: Callable[[Path], Arrays]) -> Arrays:
        """The arrays of ``path``, read if they are not here."""
        if path in self.entries:
            self.entries.move_to_end(path)
            return self.entries[path]
        arrays = read(path)
        size = sum(a.nbytes for a in arrays.values())
        if size <= self.limit:
            self.entries[path] = arrays
            self.used += size
            while self.used > self.limit:
                _, old = self.entries.popitem(last=False)
                self.used -= sum(a.nbytes for a in old.values())
        return arrays

    def __getstate__(self) -> dict[str, Any]:  # a data-loader worker starts with an empty one
        return {"limit": self.limit, "used": 0, "entries": OrderedDict()}


class ShapeDataset(Dataset[dict[str, Any]]):
    """Samples of a list of shapes. Indexed by ``(epoch, index)``: the same pair always gives the same sample."""

    def __init__(self, items: Sequence[Item], loading: Loading, cache_bytes: int = 1 << 30) -> None:
        self.items = list(items)
        self.loading = loading
        self.cache = Cache(cache_bytes)

    def __len__(self) -> int:
        return len(self.items)

    def per_shape(self) -> int:
        """Samples of the first shape: the number of its views if every view is judged, else 1."""
        return sum(item.folder == self.items[0].folder for item in self.items) if self.items else 0

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        epoch, index = (0, key) if isinstance(key, int) else key
        item, how = self.items[index], self.loading
        # One stream per kind of content: what else is loaded changes nothing.
        name = zlib.crc32(f"{item.category}/{item.id}".encode())

        def rng(stream: int) -> np.random.Generator:
            return np.random.default_rng([how.seed, epoch, name, stream])

        sample: dict[str, Any] = {"id": item.id, "category": item.category}
        if how.needs & {"images", "masks", "cameras", "views"}:
            sample |= self._pictures(item, rng(0))
        if how.needs & {"surface", "normals"}:
            cloud = self.cache.get(item.folder / files.POINTCLOUD, read_cloud)
            pick = choose(len(cloud["points"]), how.points, rng(1))
            sample |= {k: _floats(array[pick]) for k, array in cloud.items()}
        if "voxels" in how.needs:
            read = partial(_read_voxels, resolution=how.resolution)
            sample["voxels"] = _floats(self.cache.get(item.folder / files.VOXELS, read)["voxels"])
        if "occupancy" in how.needs:
            asked = self.cache.get(item.folder / files.POINTS, read_queries)
            pick = choose(len(asked["points"]), how.queries, rng(2))
            sample["query_points"] = _floats(asked["points"][pick])
            sample["query_occupancies"] = _floats(asked["occupancies"][pick])
        if "mesh" in how.needs:
            mesh = self.cache.get(item.folder / files.MESH, read_mesh_arrays)
            sample["mesh"] = (_floats(mesh["vertices"]), torch.from_numpy(mesh["faces"].astype(np.int64)))
        return sample

    def _pictures(self, item: Item, rng: np.random.Generator) -> dict[str, Any]:
        how, (folder, suffix) = self.loading, files.views_of(item.folder)
        available = self.cache.get(folder, _list_views)["count"].item()
        wanted = max(1, how.views) if "views" in how.needs else 1
        if wanted > available:
            raise ReconlabError(
                f"views is {wanted}, but {folder} has {available} pictures: lower data.views, or rebuild."
            )
        first = int(rng.integers(available)) if how.input_view == "random" else how.input_view
        first = first if item.view is None else item.view
        if not 0 <= first < available:
            raise ReconlabError(f"The input view is {first}, but {folder} has views 0 to {available - 1}.")
        others = [i for i in range(available) if i != first]
        if how.input_view == "random":
            others = [others[i] for i in rng.permutation(len(others))]
        chosen = [first, *others[: wanted - 1]]
        out: dict[str, Any] = {"view": first}
        if how.needs & {"cameras", "views"}:
            path = files.located(item.folder, files.CAMERAS)
            rig = self.cache.get(path, read_cameras)
            if len(rig["t"]) < available:
                raise ReconlabError(
                    f"{path} has {len(rig['t'])} cameras for {available} pictures: rebuild this shape."
                )
            cameras = Cameras(*(_floats(rig[k][chosen]) for k in ("R", "t", "focal", "centre")))
            if "cameras" in how.needs:
                out["camera"] = cameras[0]
        if "views" in how.needs:
            pictures = [self._picture(folder / f"{i:03d}.{suffix}", how.view_size) for i in chosen]
            sizes = {tuple(p.shape) for p in pictures}
            if len(sizes) > 1:
                raise ReconlabError(f"The pictures in {folder} have different sizes: set data.view_size.")
            stack = torch.stack(pictures)
            out["views"] = (cameras, stack[:, 3], on_white(stack))
        if how.needs & {"images", "masks"}:
            picture = self._picture(folder / f"{first:03d}.{suffix}", how.image_size)
            out |= {"image": on_white(picture)} if "images" in how.needs else {}
            out |= {"masks": picture[3:]} if "masks" in how.needs else {}
        return out

    def _picture(self, path: Path, size: int | None) -> Tensor:
        return resize(self.cache.get(path, _read_picture)["rgba"], size)


def choose(available: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` indices below ``available``: without repetition if there are enough, else each about equally often.

    So a count above a cloud's size takes all of its points.
    """
    if count <= available:
        return rng.choice(available, count, replace=False)
    whole = np.tile(np.arange(available), count // available)
    return np.concatenate([whole, rng.choice(available, count - len(whole), replace=False)])


def resize(rgba: np.ndarray, size: int | None) -> Tensor:
    """``(H, W, 4)`` uint8, straight alpha -> ``(4, S, S)`` float in [0, 1], colour multiplied by alpha.

    Colours are resampled multiplied by alpha, so that the hidden colour of transparent pixels cannot bleed in.
    """
    image = torch.from_numpy(rgba.astype(np.float32) / 255.0).permute(2, 0, 1)
    image = torch.cat([image[:3] * image[3:], image[3:]])
    if size is not None and image.shape[1:] != (size, size):
        image = torch.nn.functional.interpolate(
            image[None], size=(size, size), mode="bilinear", align_corners=False, antialias=True
        )[0].clamp(0, 1)
    return image


def on_white(image: Tensor) -> Tensor:
    """``(..., 4, H, W)`` premultiplied RGBA -> ``(..., 3, H, W)`` on white."""
    return (image[..., :3, :, :] + 1.0 - image[..., 3:, :, :]).clamp(0, 1)


def _floats(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


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


def _read_voxels(path: Path, resolution: int | None) -> Arrays:
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


def _read_picture(path: Path) -> Arrays:
    return {"rgba": files.read_png(path)}


def _list_views(path: Path) -> Arrays:
    count = sum(1 for p in path.iterdir() if p.suffix in (".png", ".jpg")) if path.is_dir() else 0
    if count == 0:
        raise ReconlabError(f"{path} has no pictures 000.png, 001.png, ...: rebuild this shape.")
    return {"count": np.array(count)}
