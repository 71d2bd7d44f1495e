"""The batch that travels from the data to losses and metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.shapes import Mesh

# What a network, loss or metric may name in ``needs``, and the fields that answer it.
NEEDS: dict[str, tuple[str, ...]] = {
    "images": ("images",),
    "masks": ("masks",),
    "cameras": ("cameras",),
    "views": ("views",),
    "surface": ("points",),
    "normals": ("normals",),
    "voxels": ("voxels",),
    "occupancy": ("query_points", "query_occupancies"),
    "mesh": ("mesh",),
}


@dataclass
class Views:
    """Supervision views of each sample.

    Attributes:
        cameras: ``(B, V)``.
        silhouettes: ``(B, V, H, W)`` in [0, 1], 1 inside.
        images: ``(B, V, 3, H, W)`` in [0, 1], or None.
    """

    cameras: Cameras
    silhouettes: Tensor
    images: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Views:
        """Move to a device."""
        images = None if self.images is None else self.images.to(device, non_blocking=non_blocking)
        return Views(self.cameras.to(device), self.silhouettes.to(device, non_blocking=non_blocking), images)


@dataclass
class Batch:
    """``B`` samples. Every field but ``ids`` and ``categories`` may be None: only what is needed is loaded.

    Attributes:
        ids: Sample names, unique within a category.
        categories: Category names.
        images: ``(B, 3, H, W)`` in [0, 1], object on white.
        masks: ``(B, 1, H, W)`` coverage of the input images in [0, 1], 1 inside (their alpha).
        cameras: ``(B,)`` of the input images.
        views: Supervision views; the first is the input's.
        points: ``(B, P, 3)`` on the true surface, object frame, bounding-box diagonal 1.
        normals: ``(B, P, 3)`` unit, of the points; None where the dataset does not know them.
        voxels: ``(B, D, D, D)`` in {0, 1}, indexed [x, y, z] over [-0.5, 0.5]³.
        query_points: ``(B, Q, 3)``.
        query_occupancies: ``(B, Q)`` in {0, 1}.
        mesh: The true meshes, packed.
        input_view: Which of its shape's pictures each input image is; empty if none was loaded.
    """

    ids: list[str]
    categories: list[str]
    images: Tensor | None = None
    masks: Tensor | None = None
    cameras: Cameras | None = None
    views: Views | None = None
    points: Tensor | None = None
    normals: Tensor | None = None
    voxels: Tensor | None = None
    query_points: Tensor | None = None
    query_occupancies: Tensor | None = None
    mesh: Mesh | None = None
    input_view: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Move every tensor to a device (Lightning calls this).

        Args:
            device: Where to.
            non_blocking: Do not wait for copies from pinned memory to a GPU; later work on its stream does.
        """
        return self._changed(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """A copy in pinned memory, which a GPU reads while the processor goes on (the data loader calls this)."""
        return self._changed(torch.Tensor.pin_memory)

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """With ``change`` applied to every tensor but the splits of the mesh, which stay on the processor."""
        changed: dict[str, Any] = {}
        for part in fields(self):
            value = getattr(self, part.name)
            if isinstance(value, Tensor):
                changed[part.name] = change(value)
            elif isinstance(value, Cameras):
                changed[part.name] = _changed_cameras(value, change)
            elif isinstance(value, Views):
                images = None if value.images is None else change(value.images)
                changed[part.name] = Views(_changed_cameras(value.cameras, change), change(value.silhouettes), images)
            elif isinstance(value, Mesh):
                changed[part.name] = value.changed(change)
        return replace(self, **changed)

    def require(self, name: str, who: str) -> Any:
        """The field ``name``, or an error that says who needed it.

        Raises:
            ReconlabError: The batch does not carry it.
        """
        value = getattr(self, name)
        if value is None:
            need = next((n for n, f in NEEDS.items() if name in f), name)
            raise ReconlabError(f"{who} needs {name!r} of the batch, which is absent: declare {need!r} in its needs.")
        return value


def _changed_cameras(cameras: Cameras, change: Callable[[Tensor], Tensor]) -> Cameras:
    return Cameras(*(change(getattr(cameras, part.name)) for part in fields(Cameras)))
