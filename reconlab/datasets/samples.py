"""Reading the shapes of a built dataset: only what is needed, seeded per (seed, epoch, sample), decoded once."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from reconlab.cameras import Cameras
from reconlab.datasets import format as files
from reconlab.datasets.decoded import PICTURES, Decoded
from reconlab.datasets.items import FILES, Item, every_view, find_items, missing_files
from reconlab.datasets.pictures import paint
from reconlab.datasets.readers import (
    Arrays,
    list_views,
    read_cameras,
    read_cloud,
    read_mesh_arrays,
    read_picture,
    read_queries,
    read_voxels,
)
from reconlab.errors import ReconlabError

__all__ = [
    "FILES",
    "Cache",
    "Item",
    "Loading",
    "ShapeDataset",
    "choose",
    "every_view",
    "find_items",
    "missing_files",
    "read_cameras",
    "read_cloud",
    "read_mesh_arrays",
    "read_queries",
]


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
    """Samples of a list of shapes. Indexed by ``(epoch, index)``: the same pair always gives the same sample.

    Args:
        items: The shapes.
        loading: How samples are made of them.
        cache_bytes: Decoded arrays kept in this process' memory.
        decoded: The decoded cache of these shapes, which is then read instead of their files: the same samples.
    """

    def __init__(
        self, items: Sequence[Item], loading: Loading, cache_bytes: int = 1 << 30, decoded: Decoded | None = None
    ) -> None:
        self.items = list(items)
        self.loading = loading
        self.cache = Cache(cache_bytes)
        self.decoded = decoded

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
            sample |= self._pictures(item, rng)
        if how.needs & {"surface", "normals"}:
            cloud = self._arrays(item, "surface", item.folder / files.POINTCLOUD, read_cloud)
            pick = choose(len(cloud["points"]), how.points, rng(1))
            sample |= {k: _floats(array[pick]) for k, array in cloud.items()}
        if "voxels" in how.needs:
            kind = "voxels" if how.resolution is None else f"voxels-{how.resolution}"
            read = partial(read_voxels, resolution=how.resolution)
            sample["voxels"] = _floats(self._arrays(item, kind, item.folder / files.VOXELS, read)["voxels"])
        if "occupancy" in how.needs:
            asked = self._arrays(item, "queries", item.folder / files.POINTS, read_queries)
            pick = choose(len(asked["points"]), how.queries, rng(2))
            sample["query_points"] = _floats(asked["points"][pick])
            sample["query_occupancies"] = _floats(asked["occupancies"][pick])
        if "mesh" in how.needs:
            mesh = self._arrays(item, "mesh", item.folder / files.MESH, read_mesh_arrays)
            sample["mesh"] = (_floats(mesh["vertices"]), torch.from_numpy(mesh["faces"].astype(np.int64)))
        return sample

    def _arrays(self, item: Item, kind: str, path: Path, read: Callable[[Path], Arrays]) -> Arrays:
        if self.decoded is not None:
            return self.decoded.arrays(item.category, item.id, kind)
        return self.cache.get(path, read)

    def _pictures(self, item: Item, rng: Callable[[int], np.random.Generator]) -> dict[str, Any]:
        how, (folder, suffix) = self.loading, files.views_of(item.folder)
        available = self._count(item, folder)
        wanted = max(1, how.views) if "views" in how.needs else 1
        if wanted > available:
            raise ReconlabError(
                f"views is {wanted}, but {folder} has {available} pictures: lower data.views, or rebuild."
            )
        chosen = self._choose_views(item, available, wanted, folder, rng)
        first = chosen[0]
        out: dict[str, Any] = {"view": first}
        if how.needs & {"cameras", "views"}:
            path = files.located(item.folder, files.CAMERAS)
            rig = self._arrays(item, "cameras", path, read_cameras)
            if len(rig["t"]) < available:
                raise ReconlabError(
                    f"{path} has {len(rig['t'])} cameras for {available} pictures: rebuild this shape."
                )
            cameras = Cameras(*(_floats(rig[k][chosen]) for k in ("R", "t", "focal", "centre")))
            if "cameras" in how.needs:
                out["camera"] = cameras[0]
        image = alpha = None
        if "views" in how.needs:
            pictures = [self._picture(item, folder / f"{i:03d}.{suffix}", i) for i in chosen]
            if how.view_size is None and len({p.shape for p in pictures}) > 1:
                raise ReconlabError(f"The pictures in {folder} have different sizes: set data.view_size.")
            alphas, images = _painted(pictures, how.view_size)
            out["views"] = (cameras, alphas, images)
            if alphas.shape[1:] == (how.image_size, how.image_size):
                image, alpha = images[0], alphas[0]
        if how.needs & {"images", "masks"}:
            if image is None or alpha is None:
                alphas, images = _painted(
                    [self._picture(item, folder / f"{first:03d}.{suffix}", first)], how.image_size
                )
                image, alpha = images[0], alphas[0]
            out |= {"image": image} if "images" in how.needs else {}
            out |= {"masks": alpha[None]} if "masks" in how.needs else {}
        return out

    def _choose_views(
        self, item: Item, available: int, wanted: int, folder: Path, rng: Callable[[int], np.random.Generator]
    ) -> list[int]:
        """The input view, then others in the order of their numbers, or of chance."""
        how = self.loading
        stream = rng(0) if how.input_view == "random" else None
        first = how.input_view if stream is None else int(stream.integers(available))
        first = int(first) if item.view is None else item.view
        if not 0 <= first < available:
            raise ReconlabError(f"The input view is {first}, but {folder} has views 0 to {available - 1}.")
        others = [i for i in range(available) if i != first]
        if stream is not None:
            others = [others[i] for i in stream.permutation(len(others))]
        return [first, *others[: wanted - 1]]

    def _count(self, item: Item, folder: Path) -> int:
        if self.decoded is not None and self.loading.needs & {"images", "masks", "views"}:
            return self.decoded.shard(item.category, PICTURES).count(item.id)
        return int(self.cache.get(folder, list_views)["count"].item())

    def _picture(self, item: Item, path: Path, number: int) -> np.ndarray:
        if self.decoded is not None:
            return self.decoded.shard(item.category, PICTURES).array(item.id, number)
        return self.cache.get(path, read_picture)["rgba"]


def _painted(pictures: Sequence[np.ndarray], size: int | None) -> tuple[Tensor, Tensor]:
    """Coverage ``(V, H, W)`` and images on white ``(V, 3, H, W)``, of the given size or of the first picture's."""
    height, width = pictures[0].shape[:2] if size is None else (size, size)
    images = np.empty((len(pictures), 3, height, width), np.float32)
    alphas = np.empty((len(pictures), height, width), np.float32)
    for rgba, image, alpha in zip(pictures, images, alphas, strict=True):
        paint(rgba, image, alpha)
    return torch.from_numpy(alphas), torch.from_numpy(images)


def choose(available: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` indices below ``available``: without repetition if there are enough, else each about equally often.

    So a count above a cloud's size takes all of its points.
    """
    if count <= available:
        return rng.choice(available, count, replace=False)
    whole = np.tile(np.arange(available), count // available)
    return np.concatenate([whole, rng.choice(available, count - len(whole), replace=False)])


def _floats(array: np.ndarray) -> Tensor:
    made = np.ascontiguousarray(array, dtype=np.float32)
    return torch.from_numpy(made if made.flags.writeable else made.copy())  # a mapped file's arrays are not
