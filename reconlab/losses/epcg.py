"""EPCG: depth maps of a shape against the true ones, in fixed or novel views (Lin, Kong & Lucey, AAAI 2018).

The only system of DRWR's tables that needs depth: the true maps are drawn from the true mesh, so this is 3D
supervision in all but name, not silhouettes alone.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.losses.base import Loss
from reconlab.losses.view_images import TargetCache, choose_views, mesh_keys
from reconlab.renderers.pseudo_depth import (
    DISTANCE,
    FIXED_VIEWS,
    fixed_views,
    from_view,
    random_views,
    render_orthographic_depth,
    render_pseudo_depth,
)
from reconlab.shapes import Mesh, Shape


class EPCGTerms(NamedTuple):
    """The terms of each sample, ``(B,)``: means over views and pixels.

    Attributes:
        mask: Cross-entropy of the mask logits with the true mask.
        xy: |x - column| + |y - row|, in pixels (0 in novel views, where positions are what they are).
        depth: |depth - true depth| where compared, 0 elsewhere; the true background has depth 1.
        overlap: Intersection over union of the masks, no gradient; 1 where both are empty.
    """

    mask: Tensor
    xy: Tensor
    depth: Tensor
    overlap: Tensor


def fixed_view_terms(view_maps: Tensor, view_logits: Tensor, truth: Tensor) -> EPCGTerms:
    """Stage 1: the maps themselves. Depth is compared where the *predicted* mask is, as in the published code.

    Args:
        view_maps: ``(B, 8, 3, S, S)``: x, y in pixels, depth.
        view_logits: ``(B, 8, S, S)``.
        truth: ``(B, 8, S, S)`` true depth, +inf on the background.
    """
    size = view_maps.shape[-1]
    grid = torch.arange(size, device=view_maps.device, dtype=view_maps.dtype)
    x, y, depth = view_maps.unbind(2)
    xy = (x - grid).abs() + (y - grid[:, None]).abs()
    error = (depth - _background(truth)).abs()
    error = torch.where(view_logits > 0, error, torch.zeros_like(error))
    return EPCGTerms(_entropy(view_logits, truth), _mean(xy), _mean(error), _overlap(view_logits, truth))


def novel_view_terms(
    view_maps: Tensor, view_logits: Tensor, rotations: Tensor, truth: Tensor, upscale: int = 5
) -> EPCGTerms:
    """Stage 2: the fused points, pseudo-rendered into other views.

    Depth is compared where no two visible points share a cell of the finer grid, as in the published code. An
    empty prediction has logit -1 everywhere: finite, without gradient where no point falls.

    Args:
        view_maps: ``(B, 8, 3, S, S)`` of the fixed views.
        view_logits: ``(B, 8, S, S)``.
        rotations: ``(V, 3, 3)`` of the other views.
        truth: ``(B, V, S, S)`` true depth there, +inf on the background.
        upscale: Of the pseudo-renderer.
    """
    size = view_maps.shape[-1]
    points = from_view(view_maps.flatten(3).transpose(2, 3), fixed_views(), size).flatten(1, 2)
    drawn = render_pseudo_depth(points, view_logits.flatten(1), rotations, size, upscale)
    clear = drawn.sharing == 1
    error = (torch.where(clear, drawn.depth, torch.zeros_like(drawn.depth)) - _background(truth)).abs()
    error = torch.where(clear, error, torch.zeros_like(error))
    mask = _entropy(drawn.logit, truth)
    return EPCGTerms(mask, torch.zeros_like(mask), _mean(error), _overlap(drawn.logit, truth))


def _background(truth: Tensor) -> Tensor:
    return torch.where(truth.isfinite(), truth, torch.full_like(truth, DISTANCE))


def _mean(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1)


def _entropy(logits: Tensor, truth: Tensor) -> Tensor:
    mask = truth.isfinite().to(logits.dtype)
    return _mean(F.binary_cross_entropy_with_logits(logits, mask, reduction="none"))


def _overlap(logits: Tensor, truth: Tensor) -> Tensor:
    found, true = (logits.detach() > 0).flatten(1), truth.isfinite().flatten(1)
    union = (found | true).sum(1)
    return torch.where(union > 0, (found & true).sum(1) / union.clamp_min(1), 1.0)


class EPCG(Loss):
    """EPCG's two-stage loss, for networks that return maps of the eight fixed views (EPCGNet).

    ``fixed`` (first stage): ``mask + depth_weight (xy + depth)`` on the maps. ``novel`` (second, from the first's
    checkpoint): ``mask + depth_weight depth`` of the fused points in ``views_per_step`` of a pool of random
    orthographic views. The published code sums over pixels (and fixed views); here all terms are means,
    which keeps their ratio.

    Args:
        stage: ``fixed`` or ``novel``.
        depth_weight: Weight of the coordinates against the mask.
        views_per_step: Novel views per training step, the same for the batch; in eval mode the first of the pool.
        pool: Novel views to choose from, uniform on the sphere.
        upscale: Of the pseudo-renderer.
        cache_bytes: Limit of the cache of true depth maps (where the meshes are), by sample.
        seed: Of the pool and the choice.

    Raises:
        ReconlabError: A setting is out of range.
    """

    needs = frozenset({"mesh"})

    def __init__(
        self,
        stage: Literal["fixed", "novel"] = "fixed",
        depth_weight: float = 1.0,
        views_per_step: int = 5,
        pool: int = 100,
        upscale: int = 5,
        cache_bytes: int = 1 << 28,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if stage not in ("fixed", "novel"):
            raise ReconlabError(f"EPCG: stage is {stage!r}; expected 'fixed' or 'novel'.")
        if not depth_weight >= 0:
            raise ReconlabError(f"EPCG: depth_weight is {depth_weight}; expected 0 or more.")
        if upscale < 1 or not 1 <= views_per_step <= pool:
            raise ReconlabError(
                f"EPCG: upscale is {upscale} and views_per_step {views_per_step} of {pool}; "
                f"expected at least 1, and no more views than the pool has."
            )
        self.stage, self.depth_weight = stage, depth_weight
        self.views_per_step, self.upscale = views_per_step, upscale
        self.seed, self.step = seed, 0
        self.rotations = fixed_views() if stage == "fixed" else random_views(pool, seed)
        self.cache = TargetCache(cache_bytes)

    def advance(self, step: int, total: int) -> None:
        """Choose the step's views."""
        self.step = step

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``"loss"``, the means of the terms and ``iou`` of the masks.

        Raises:
            ReconlabError: The shape has no maps, or the batch no mesh.
        """
        truth: Mesh = batch.require("mesh", "EPCG")
        maps, logits = getattr(shape, "view_maps", None), getattr(shape, "view_logits", None)
        if not isinstance(maps, Tensor) or not isinstance(logits, Tensor) or maps.shape[1] != FIXED_VIEWS:
            raise ReconlabError(
                f"EPCG compares depth maps of its eight fixed views, which a {type(shape).__name__} does not have: "
                "use the network EPCGNet."
            )
        if len(truth) != len(shape):
            raise ReconlabError(f"EPCG: {len(shape)} reconstructions for {len(truth)} meshes.")
        count = len(self.rotations)
        if self.stage == "fixed":
            views = list(range(count))
        elif self.training:
            views = choose_views(count, self.views_per_step, self.seed, self.step)
        else:
            views = list(range(self.views_per_step))
        target = self._true_depth(truth, batch, views, maps.shape[-1]).to(maps)
        if self.stage == "fixed":
            terms = fixed_view_terms(maps, logits, target)
        else:
            terms = novel_view_terms(maps, logits, self.rotations[views], target, self.upscale)
        mask, xy, depth, overlap = (x.mean() for x in terms)
        parts = {"mask": mask.detach(), "depth": depth.detach(), "iou": overlap}
        if self.stage == "fixed":
            parts["xy"] = xy.detach()
        return {"loss": mask + self.depth_weight * (xy + depth), **parts}

    def _true_depth(self, truth: Mesh, batch: Batch, views: list[int], size: int) -> Tensor:
        """``(B, V, size, size)``, from the cache where it has them."""
        rows = []
        for i, key in enumerate(mesh_keys(truth, batch)):
            full: list[Any] = [(key, size, view) for view in views]
            found = [self.cache.get(k) for k in full]
            absent = [j for j, f in enumerate(found) if f is None]
            if absent:
                vertices, faces = truth.item(i)
                drawn = render_orthographic_depth(vertices, faces, self.rotations[[views[j] for j in absent]], size)
                for j, image in zip(absent, drawn, strict=True):
                    self.cache.put(full[j], (image,))
                    found[j] = (image,)
            rows.append(torch.stack([f[0] for f in found if f is not None]))
        return torch.stack(rows)

    def extra_repr(self) -> str:
        """The settings in force."""
        novel = f", views_per_step={self.views_per_step}, upscale={self.upscale}" if self.stage == "novel" else ""
        return f"stage={self.stage!r}, depth_weight={self.depth_weight}{novel}"
