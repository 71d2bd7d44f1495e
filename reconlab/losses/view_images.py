"""Rendered views for the losses that compare images: which views, how rendered, and a bounded cache of targets."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from reconlab.batch import Batch
from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.renderers import render_dibr, render_nmr, soft_rasterize
from reconlab.shapes import Mesh

Images = Literal["shaded", "silhouette"]
Normals = Literal["smooth", "flat"]
Renderer = Literal["softras", "nmr", "dibr"]


@dataclass(frozen=True)
class RenderSettings:
    """How a mesh becomes a grey view; hashable, so that it can key a cache.

    Attributes:
        images: ``shaded`` is the Lambert shading times the soft coverage, on black, without which the outline
            would carry no gradient; ``silhouette`` is the coverage alone.
        image_size: Pixels a side.
        sigma: Softness of the outline: SoftRas' σ, DIB-R's δ; NMR has none.
        gamma: Softness of the depth order (SoftRas alone).
        normals: Of the shading, interpolated from the vertices or one per face.
        renderer: ``softras``, ``nmr`` or ``dibr`` (docs/renderers.md). DIB-R's shaded views have no gradient in their
            outline.

    Raises:
        ReconlabError: The renderer is unknown.
    """

    images: Images
    image_size: int
    sigma: float
    gamma: float
    normals: Normals
    renderer: Renderer = "softras"

    def __post_init__(self) -> None:
        if self.renderer not in ("softras", "nmr", "dibr"):
            raise ReconlabError(f"The renderer must be one of softras, nmr and dibr, not {self.renderer!r}.")


def render_views(mesh: Mesh, cameras: Cameras, settings: RenderSettings) -> Tensor:
    """Grey views of meshes, differentiable.

    Args:
        mesh: ``B`` meshes.
        cameras: ``(V,)``, for every mesh the same, or ``(B, V)``.
        settings: How to render.

    Returns:
        ``(B, V, H, W)`` in [0, 1], attached to the vertices' graph even where no face is seen.
    """
    size, normals, shading = settings.image_size, settings.normals, settings.images == "shaded"
    if settings.renderer == "nmr":
        images = render_nmr(mesh, cameras, size, normals=normals, shading=shading)
    elif settings.renderer == "dibr":
        images = render_dibr(mesh, cameras, size, delta=settings.sigma, normals=normals, shading=shading)
    else:
        images = soft_rasterize(
            mesh, cameras, size, sigma=settings.sigma, gamma=settings.gamma, normals=normals, shading=shading
        )
    out = images.silhouette if images.shaded is None else images.shaded
    # An empty mesh renders to a constant; a training step must still find a (zero) gradient. Summing an empty
    # slice keeps a NaN vertex, whose faces the renderer drops, from spoiling the value.
    return out + mesh.vertices[:0].sum()


def choose_views(count: int, per_step: int | None, seed: int, step: int) -> list[int]:
    """A sorted random subset of ``per_step`` of ``count`` views, the same for the same seed and step.

    Every view is equally likely, so a mean over the subset has the mean over all views as its expectation.

    Example:
        >>> choose_views(25, None, seed=0, step=7) == list(range(25))
        True
        >>> choose_views(25, 4, seed=0, step=7) == choose_views(25, 4, seed=0, step=7)
        True
    """
    if per_step is None or per_step >= count:
        return list(range(count))
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % (2**63))
    return sorted(torch.randperm(count, generator=generator)[:per_step].tolist())


def view_chunks(views: list[int], size: int | None) -> list[list[int]]:
    """Consecutive pieces of at most ``size`` views (one piece if None)."""
    step = size or len(views)
    return [views[i : i + step] for i in range(0, len(views), step)]


def mesh_keys(mesh: Mesh, batch: Batch) -> list[tuple[Any, ...]]:
    """One hashable key per sample: its category and id, and a fingerprint of its true mesh.

    The fingerprint keeps two datasets that name a sample alike from sharing cached targets. A batch that came from
    the CPU brings it along.
    """
    sums = mesh.fingerprints()
    v_count, f_count = mesh.vertex_splits.diff().tolist(), mesh.face_splits.diff().tolist()
    return [(batch.categories[i], batch.ids[i], v_count[i], f_count[i], round(sums[i], 6)) for i in range(len(mesh))]


class TargetCache:
    """Least-recently-used store of detached tensors where they are, bounded in bytes; empty again after pickling.

    On a GPU they stay there: a copy from pageable memory would hold up every step.

    Args:
        limit: Bytes to hold at most; 0 stores nothing.
    """

    def __init__(self, limit: int) -> None:
        if limit < 0:
            raise ReconlabError(f"The cache's limit must be 0 or more bytes, not {limit}.")
        self.limit = limit
        self.nbytes = 0
        self.hits = 0
        self._items: OrderedDict[Any, tuple[Tensor, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: Any) -> tuple[Tensor, ...] | None:
        """The stored tensors, now the most recently used; None if absent."""
        found = self._items.get(key)
        if found is not None:
            self._items.move_to_end(key)
            self.hits += 1
        return found

    def put(self, key: Any, tensors: tuple[Tensor, ...]) -> None:
        """Store, and drop the least recently used items above the limit."""
        # A stored slice would keep its whole batch alive
        stored = tuple(t.detach().clone() for t in tensors)
        size = sum(t.numel() * t.element_size() for t in stored)
        if size > self.limit:
            return
        old = self._items.pop(key, None)
        if old is not None:
            self.nbytes -= sum(t.numel() * t.element_size() for t in old)
        self._items[key] = stored
        self.nbytes += size
        while self.nbytes > self.limit:
            _, dropped = self._items.popitem(last=False)
            self.nbytes -= sum(t.numel() * t.element_size() for t in dropped)

    def __getstate__(self) -> dict[str, Any]:
        return {"limit": self.limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        TargetCache.__init__(self, state["limit"])
