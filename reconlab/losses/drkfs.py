"""DR-KFS (Jin et al., ECCV 2020): two-way localised matching of patch features over keypoint maps of views."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from reconlab.batch import Batch
from reconlab.cameras import hemisphere_views
from reconlab.errors import ReconlabError
from reconlab.features.extractor import Descriptor, PatchExtractor, Squash
from reconlab.features.patches import PatchFeatures, patch_grid
from reconlab.losses.base import Loss
from reconlab.losses.drkfs_matching import Reduction, drkfs, drkfs_parts, pyramid, target_features
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

__all__ = ["DRKFS", "Stage", "drkfs", "drkfs_parts", "pyramid", "target_features"]

PATCHES_AT_ONCE = 8192  # each keeps about 0.46 MB of activations for the backward pass


@dataclass(frozen=True)
class Stage:
    """Settings that hold until a fraction of the training; None keeps the loss' own."""

    until: float
    image_size: int | None = None
    radius: int | None = None
    sigma: float | None = None
    pyramid_levels: int | None = None


class DRKFS(Loss):
    """Differentiable visual similarity of a reconstructed mesh to the true one, seen from 25 views.

    Both meshes are soft-rasterised with one light, without colour, from the pole and three rings of the upper
    hemisphere; see :func:`drkfs` for the comparison. The mean over views is the loss. It gives no useful slope
    where the shapes are further apart than half a patch stride (8-10 pixels): warm-start with another loss, add it
    rather than replace, or use ``stages`` or ``pyramid_levels`` (docs/drkfs.md has the evidence).

    Args:
        views_per_step: Random views per training step (None: all 25).
        eval_views: Views in eval mode, spread evenly over the 25 and always the same (None: all).
        image_size: Pixels a side; the paper has 256.
        radius: Half-width of the search window in patches.
        stages: Coarse to fine, e.g. ``[{until: 0.3, image_size: 64, radius: 0}]``; see :class:`Stage`. After the
            last stage, the settings of the loss.
        images: ``shaded`` or ``silhouette``.
        sigma: Softness of the rasteriser's outline.
        gamma: Softness of its depth order.
        target_normals: ``smooth`` renders the truth as the reconstruction is, so that the loss of the truth is 0;
            ``flat`` suits CAD targets, whose creases smooth normals would round off.
        descriptor: ``exact`` describes patch by patch with HardNet. ``dense`` is the fast mode: a small network that
            answers nearly as HardNet does, for all patches of a view at once (docs/drkfs.md says how nearly).
        weights: The descriptor's: ``bundled``, ``kornia`` (HardNet only) or a path.
        detector: The detector's: ``bundled`` or a path.
        squash: How the detector's scores become a PoI map.
        flat_std: Patches of the PoI map below this standard deviation are flat and not described.
        reduction: ``sum`` or ``mean`` over patches.
        weight_grad: Let gradients pass through the patch weights.
        pyramid_levels: Blurred, halved copies of the views to average over.
        views_per_chunk: Views that are rendered and described at once; the rest is recomputed in the backward
            pass. Bounds the memory; None takes as many as make 8192 patches, about 4 GB.
        cache_bytes: Limit of the ground-truth feature cache, in the memory of the meshes' device.
        bf16: The descriptor's convolutions in bfloat16: faster where the processor has it.
        half_fov: Of the cameras, in degrees; 11.5 fills the frame with a shape of diagonal 1.
        seed: Of the choice of views.
        renderer: ``softras``, ``nmr`` or ``dibr``; see :class:`reconlab.losses.view_images.RenderSettings`.
        extractor: Networks to use instead of loading ``weights`` and ``detector``.

    Raises:
        ReconlabError: Weights that cannot be had, or a setting out of range.
    """

    needs = frozenset({"mesh"})

    def __init__(
        self,
        views_per_step: int | None = 4,
        eval_views: int | None = None,
        image_size: int = 256,
        radius: int = 1,
        stages: list[dict[str, Any]] | None = None,
        images: Images = "shaded",
        sigma: float = 1e-4,
        gamma: float = 1e-3,
        target_normals: Normals = "smooth",
        descriptor: Descriptor = "exact",
        weights: str = "bundled",
        detector: str = "bundled",
        squash: Squash = "minmax",
        flat_std: float = 5e-3,
        reduction: Reduction = "sum",
        weight_grad: bool = False,
        pyramid_levels: int = 1,
        views_per_chunk: int | None = None,
        cache_bytes: int = 1 << 30,
        bf16: bool = False,
        half_fov: float = 15.0,
        seed: int = 0,
        renderer: Renderer = "softras",
        extractor: PatchExtractor | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("image_size", image_size, 32 * 2 ** (pyramid_levels - 1)),
            ("radius", radius, 0),
            ("views_per_step", 1 if views_per_step is None else views_per_step, 1),
            ("eval_views", 1 if eval_views is None else eval_views, 1),
            ("views_per_chunk", 1 if views_per_chunk is None else views_per_chunk, 1),
            ("pyramid_levels", pyramid_levels, 1),
        ):
            if value < least:
                raise ReconlabError(f"DRKFS: {name} must be at least {least}, not {value}.")
        for name, text, allowed in (
            ("images", images, ("shaded", "silhouette")),
            ("target_normals", target_normals, ("smooth", "flat")),
            ("descriptor", descriptor, ("exact", "dense")),
            ("squash", squash, ("minmax", "sigmoid")),
            ("reduction", reduction, ("sum", "mean")),
        ):
            if text not in allowed:
                raise ReconlabError(f"DRKFS: {name} must be one of {', '.join(allowed)}, not {text!r}.")
        self.stages = _parse_stages(stages or [])
        for stage in self.stages:
            least = 32 * 2 ** ((stage.pyramid_levels or pyramid_levels) - 1)
            if (stage.image_size or image_size) < least:
                raise ReconlabError(
                    f"DRKFS: the stage until {stage.until} needs an image_size of at least {least} for its pyramid."
                )
        self.base = RenderSettings(images, image_size, sigma, gamma, "smooth", renderer)
        self.base_radius = radius
        self.render = self.base
        self.target_normals = target_normals
        self.radius = radius
        self.reduction: Reduction = reduction
        self.weight_grad = weight_grad
        self.base_levels = self.pyramid_levels = pyramid_levels
        self.views_per_step, self.views_per_chunk = views_per_step, views_per_chunk
        self.eval_views = eval_views
        self.seed = seed
        self.step = 0
        self.cameras = hemisphere_views(half_fov=half_fov)
        self.cache = TargetCache(cache_bytes)
        if extractor is None:
            extractor = PatchExtractor.load(
                weights, detector, descriptor, squash=squash, flat_std=flat_std, bf16=bf16
            )
        self.extractor = extractor
        self.advance(0, 1)

    def advance(self, step: int, total: int) -> None:
        """Choose the stage and the step's views."""
        self.step = step
        fraction = step / max(total, 1)
        now = next((s for s in self.stages if fraction < s.until), Stage(1.0))
        size = self.base.image_size if now.image_size is None else now.image_size
        sigma = self.base.sigma if now.sigma is None else now.sigma
        radius = self.base_radius if now.radius is None else now.radius
        self.render = replace(self.base, image_size=size, sigma=sigma)
        self.radius = radius
        self.pyramid_levels = self.base_levels if now.pyramid_levels is None else now.pyramid_levels

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``loss``, and its two directions ``recon`` and ``gt`` (detached), means over samples and views."""
        recon, truth = self.per_view(shape.mesh(), batch)
        return {
            "loss": (recon + truth).mean(),
            "recon": recon.mean().detach(),
            "gt": truth.mean().detach(),
        }

    def per_view(self, mesh: Mesh, batch: Batch, views: list[int] | None = None) -> tuple[Tensor, Tensor]:
        """Both directions of Eq. 2, each ``(B, V)``, for this step's views or the given ones."""
        true_mesh: Mesh = batch.require("mesh", "DRKFS")
        if len(mesh) != len(true_mesh):
            raise ReconlabError(f"DRKFS: {len(mesh)} reconstructions for {len(true_mesh)} true meshes.")
        count = self.cameras.shape[0]
        if views is None and self.training:
            views = choose_views(count, self.views_per_step, self.seed, self.step)
        elif views is None:
            spread = min(self.eval_views or count, count)
            views = [(2 * i + 1) * count // (2 * spread) for i in range(spread)]
        keys = mesh_keys(true_mesh, batch)
        grid = patch_grid(self.render.image_size, self.render.image_size)
        most = self.views_per_chunk or max(1, PATCHES_AT_ONCE // (len(mesh) * grid[0] * grid[1]))
        chunks = view_chunks(views, most)
        recompute = len(chunks) > 1 and torch.is_grad_enabled() and mesh.vertices.requires_grad
        parts = []
        for chunk in chunks:
            target = self.targets(true_mesh, keys, chunk)
            target = [f.map(lambda x: x.to(mesh.vertices)) for f in target]
            if recompute:
                part = checkpoint(self._compare, mesh, chunk, target, use_reentrant=False, preserve_rng_state=False)
            else:
                part = self._compare(mesh, chunk, target)
            parts.append(part)
        return torch.cat([p[0] for p in parts], dim=1), torch.cat([p[1] for p in parts], dim=1)

    def _compare(self, mesh: Mesh, views: list[int], target: list[PatchFeatures]) -> tuple[Tensor, Tensor]:
        images = render_views(mesh, self.cameras[views], self.render)
        return drkfs_parts(
            images,
            target,
            self.extractor,
            self.radius,
            self.reduction,
            self.weight_grad,
            pyramid_levels=self.pyramid_levels,
        )

    @torch.no_grad()
    def targets(self, mesh: Mesh, keys: list[tuple[Any, ...]], views: list[int]) -> list[PatchFeatures]:
        """Features of the true meshes' views in fp16, from the cache where it has them; leading shape (B·V,)."""
        settings = replace(self.render, normals=self.target_normals)
        full = [[(settings, self.pyramid_levels, key, v) for v in views] for key in keys]
        found = [[self.cache.get(k) for k in row] for row in full]
        rows = [i for i, row in enumerate(found) if any(f is None for f in row)]
        columns = sorted({j for i in rows for j, f in enumerate(found[i]) if f is None})
        if rows:
            missing = mesh if len(rows) == len(mesh) else Mesh.from_list([mesh.item(i) for i in rows])
            images = render_views(missing, self.cameras[[views[j] for j in columns]], settings)
            levels = target_features(images.flatten(0, 1), self.extractor, self.pyramid_levels)
            # Rounded to fp16 whether or not they came from the cache: the value must not depend on that.
            half = [f.map(lambda x: x.half()) for f in levels]
            for a, i in enumerate(rows):
                for b, j in enumerate(columns):
                    at = a * len(columns) + b
                    item = tuple(t[at] for f in half for t in (f.descriptors, f.weights, f.low, f.high))
                    self.cache.put(full[i][j], item)
                    found[i][j] = item
        flat = [item for row in found for item in row if item is not None]
        device = mesh.device
        out = []
        for level in range(self.pyramid_levels):
            stacked = (torch.stack([item[4 * level + k] for item in flat]).to(device) for k in range(4))
            out.append(PatchFeatures(*stacked))
        return out


def _parse_stages(stages: list[dict[str, Any]]) -> list[Stage]:
    """Checked stages, in order."""
    out: list[Stage] = []
    for i, settings in enumerate(stages):
        unknown = sorted(set(settings) - set(Stage.__dataclass_fields__))
        if unknown or "until" not in settings:
            raise ReconlabError(
                f"DRKFS: stages[{i}] needs 'until' and may have image_size, radius, sigma and pyramid_levels; it has "
                f"{', '.join(map(repr, settings)) or 'nothing'}."
            )
        stage = Stage(**settings)
        if not 0 < stage.until <= 1 or (out and stage.until <= out[-1].until):
            raise ReconlabError(f"DRKFS: stages[{i}].until must rise from stage to stage within (0, 1].")
        out.append(stage)
    return out
