"""What the losses that compare views pixel by pixel share: which views, rendered how, chunked, targets cached."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from reconlab.batch import Batch, Views
from reconlab.cameras import Cameras, hemisphere_views
from reconlab.errors import ReconlabError
from reconlab.losses.base import Loss
from reconlab.losses.view_images import (
    Images,
    Normals,
    Renderer,
    RenderSettings,
    TargetCache,
    choose_views,
    mesh_keys,
    render_views,
    view_chunks,
)
from reconlab.shapes import Mesh, Shape


class ViewLoss(Loss):
    """A mean over views of a comparison of soft-rasterised images with the truth's, per pixel.

    Args:
        images: ``silhouette`` or ``shaded``.
        target: ``mesh`` renders the true mesh in the same way from the 25 views of DR-KFS; ``views`` takes the
            silhouettes and cameras of the dataset (``images`` must then be ``silhouette``).
        views_per_step: Random views per training step (None: all). In eval mode all are used.
        image_size: Pixels a side; dataset silhouettes of another size are resampled (area).
        sigma: Softness of the rasteriser's outline.
        gamma: Softness of its depth order.
        target_normals: ``smooth`` (as the reconstruction) or ``flat``, for the true mesh.
        views_per_chunk: Views rendered at once, the rest recomputed in the backward pass; None: all.
        cache_bytes: Limit of the cache of target images (fp16, where the meshes are); ``target="mesh"`` only.
        half_fov: Of the 25 cameras, in degrees.
        seed: Of the choice of views.
        renderer: ``softras``, ``nmr`` or ``dibr``; see :class:`reconlab.losses.view_images.RenderSettings`.

    Raises:
        ReconlabError: A setting out of range.
    """

    def __init__(
        self,
        images: Images = "silhouette",
        target: Literal["mesh", "views"] = "mesh",
        views_per_step: int | None = 4,
        image_size: int = 64,
        sigma: float = 1e-4,
        gamma: float = 1e-3,
        target_normals: Normals = "smooth",
        views_per_chunk: int | None = None,
        cache_bytes: int = 1 << 28,
        half_fov: float = 15.0,
        seed: int = 0,
        renderer: Renderer = "softras",
    ) -> None:
        super().__init__()
        for name, text, allowed in (
            ("images", images, ("silhouette", "shaded")),
            ("target", target, ("mesh", "views")),
            ("target_normals", target_normals, ("smooth", "flat")),
        ):
            if text not in allowed:
                raise ReconlabError(
                    f"{type(self).__name__}: {name} must be one of {', '.join(allowed)}, not {text!r}."
                )
        if target == "views" and images != "silhouette":
            raise ReconlabError(
                f"{type(self).__name__}: target 'views' compares silhouettes: set images to 'silhouette'."
            )
        for name, value in (
            ("image_size", image_size),
            ("views_per_step", views_per_step),
            ("views_per_chunk", views_per_chunk),
        ):
            if value is not None and value < 1:
                raise ReconlabError(f"{type(self).__name__}: {name} must be at least 1, not {value}.")
        self.needs = frozenset({target})
        self.target = target
        self.render = RenderSettings(images, image_size, sigma, gamma, "smooth", renderer)
        self.target_normals = target_normals
        self.views_per_step, self.views_per_chunk = views_per_step, views_per_chunk
        self.seed, self.step = seed, 0
        self.cameras = hemisphere_views(half_fov=half_fov)
        self.cache = TargetCache(cache_bytes)

    def advance(self, step: int, total: int) -> None:
        """Choose the step's views."""
        self.step = step

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``loss``: mean over samples, views and pixels."""
        return {"loss": self.per_view(shape.mesh(), batch).mean()}

    def per_view(self, mesh: Mesh, batch: Batch) -> Tensor:
        """``(B, V)`` for this step's views."""
        truth: Mesh | Views = batch.require(self.target, type(self).__name__)
        cameras = self.cameras if isinstance(truth, Mesh) else truth.cameras
        if len(mesh) != len(batch):
            raise ReconlabError(f"{type(self).__name__}: {len(mesh)} reconstructions for {len(batch)} samples.")
        per_step = self.views_per_step if self.training else None
        views = choose_views(cameras.shape[-1], per_step, self.seed, self.step)
        keys = mesh_keys(truth, batch) if isinstance(truth, Mesh) else []
        chunks = view_chunks(views, self.views_per_chunk)
        recompute = len(chunks) > 1 and torch.is_grad_enabled() and mesh.vertices.requires_grad
        parts = []
        for chunk in chunks:
            if isinstance(truth, Mesh):
                target = self._rendered(truth, keys, chunk)
                chosen = cameras[chunk]
            else:
                target = self._given(truth, chunk)
                chosen = cameras[:, chunk]
            target = target.to(mesh.vertices)
            if recompute:
                part = checkpoint(self._compare, mesh, chosen, target, use_reentrant=False, preserve_rng_state=False)
            else:
                part = self._compare(mesh, chosen, target)
            parts.append(part)
        return torch.cat(parts, dim=1)

    @abstractmethod
    def compare(self, images: Tensor, target: Tensor) -> Tensor:
        """Rendered and true views ``(B, V, H, W)`` to ``(B, V)``."""

    def _compare(self, mesh: Mesh, cameras: Cameras, target: Tensor) -> Tensor:
        return self.compare(render_views(mesh, cameras, self.render), target)

    def _given(self, truth: Views, views: list[int]) -> Tensor:
        """The dataset's silhouettes at the loss' size, ``(B, V, H, W)``."""
        silhouettes = truth.silhouettes[:, views].float()
        size = self.render.image_size
        if silhouettes.shape[-1] == size and silhouettes.shape[-2] == size:
            return silhouettes
        return F.interpolate(silhouettes, size=(size, size), mode="area")

    @torch.no_grad()
    def _rendered(self, truth: Mesh, keys: list[tuple[Any, ...]], views: list[int]) -> Tensor:
        """Views of the true meshes, from the cache where it has them, rounded to fp16 in any case."""
        settings = replace(self.render, normals=self.target_normals)
        rows = []
        for i, key in enumerate(keys):
            full = [(settings, key, v) for v in views]
            found = [self.cache.get(k) for k in full]
            absent = [j for j, f in enumerate(found) if f is None]
            if absent:
                one = Mesh.from_list([truth.item(i)])
                images = render_views(one, self.cameras[[views[j] for j in absent]], settings)[0].half()
                for n, j in enumerate(absent):
                    self.cache.put(full[j], (images[n],))
                    found[j] = (images[n],)
            rows.append(torch.stack([f[0] for f in found if f is not None]))
        return torch.stack(rows).to(truth.device)
