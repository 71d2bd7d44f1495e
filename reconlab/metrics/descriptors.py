"""What metrics on whole meshes share: one descriptor per mesh, cached for the ground truth, and a distance of two."""

from __future__ import annotations

import hashlib
import os
import tempfile
from abc import abstractmethod
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reconlab.batch import Batch
from reconlab.errors import ConversionError, ReconlabError
from reconlab.metrics.base import Metric
from reconlab.metrics.protocol import Protocol
from reconlab.shapes import Mesh, Shape

Descriptor = dict[str, np.ndarray]


def mesh_digest(mesh: Mesh) -> str:
    """A hash of one mesh's vertices and faces: the key of its descriptor."""
    digest = hashlib.blake2b(digest_size=16)
    for tensor, kind in ((mesh.vertices, np.float64), (mesh.faces, np.int64)):
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy().astype(kind)).tobytes())
        digest.update(b"|")
    return digest.hexdigest()


class DescriptorCache:
    """Descriptors by mesh: the newest in memory, all of them in a folder where one is given.

    Args:
        folder: Kept across processes and runs; each descriptor is written aside and renamed. None keeps memory only.
        limit: Descriptors held in memory.
    """

    def __init__(self, folder: str | Path | None = None, limit: int = 2048) -> None:
        self.folder = None if folder is None else Path(folder)
        self.limit = limit
        self._held: OrderedDict[str, Descriptor] = OrderedDict()

    def get(self, key: str) -> Descriptor | None:
        """The descriptor, or None; a damaged file counts as none."""
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        if self.folder is None:
            return None
        try:
            with np.load(self.folder / f"{key}.npz", allow_pickle=False) as data:
                found = {name: data[name] for name in data.files}
        except (OSError, ValueError, EOFError, KeyError):
            return None
        self._hold(key, found)
        return found

    def put(self, key: str, descriptor: Descriptor) -> None:
        """Keep a descriptor."""
        self._hold(key, descriptor)
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.folder, suffix=".part")
        with os.fdopen(handle, "wb") as stream:
            np.savez(stream, **descriptor)  # type: ignore[arg-type]
        os.replace(name, self.folder / f"{key}.npz")

    def _hold(self, key: str, descriptor: Descriptor) -> None:
        self._held[key] = descriptor
        self._held.move_to_end(key)
        while len(self._held) > self.limit:
            self._held.popitem(last=False)


class DescriptorMetric(Metric):
    """A metric that describes each mesh by itself and then compares two descriptions.

    The ground truth's descriptors are cached by the mesh's content and :meth:`settings`, so that a second epoch, a
    second method or a second run does not compute them again.

    Args:
        protocols: See :class:`Metric`.
        cache: Folder for the ground truth's descriptors; null keeps them in memory.
    """

    needs = frozenset({"mesh"})
    heavy = True

    def __init__(self, protocols: dict[str, Protocol], cache: str | None = None) -> None:
        super().__init__(protocols)
        self.cache = DescriptorCache(cache)

    @abstractmethod
    def settings(self) -> str:
        """All that changes a descriptor (the code's version, sizes, weights' digest): part of the cache's key."""

    @abstractmethod
    def describe(self, mesh: Mesh) -> Descriptor:
        """The descriptor of one mesh (a batch of one).

        Raises:
            ReconlabError: The mesh cannot be described (a prediction is then counted as failed).
        """

    @abstractmethod
    def compare(self, pred: Descriptor, truth: Descriptor) -> dict[str, float]:
        """The value of every protocol, by name."""

    def described(self, mesh: Mesh) -> Descriptor:
        """:meth:`describe` through the cache."""
        name = f"{type(self).__name__}|{self.settings()}|{mesh_digest(mesh)}"
        key = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
        found = self.cache.get(key)
        if found is None:
            found = self.describe(mesh)
            self.cache.put(key, found)
        return found

    def _measure(self, shape: Shape, batch: Batch) -> tuple[list[int], dict[str, Tensor]]:
        truth = batch.mesh
        if truth is None:
            raise ReconlabError(f"{type(self).__name__} reads the true mesh, and the batch has none.")
        rows: list[int] = []
        values: dict[str, list[float]] = {name: [] for name in self.protocols}
        pred = shape.mesh()  # a ConversionError here is a mistake in the config, not a failure
        valid = pred.valid().cpu()
        for i in range(len(batch)):
            try:
                target = self.described(truth[i].to("cpu"))
            except ReconlabError as error:
                who = f"{batch.categories[i]}/{batch.ids[i]}"
                raise ReconlabError(f"{type(self).__name__}: the ground truth of {who}: {error}") from error
            if not bool(valid[i]):
                continue
            try:
                found = self.compare(self.describe(pred[i].to("cpu")), target)
            except ConversionError:
                raise
            except ReconlabError:
                continue
            rows.append(i)
            for name in self.protocols:
                values[name].append(found[name])
        device = shape.device
        return rows, {k: torch.tensor(v, dtype=torch.float64, device=device) for k, v in values.items()}
