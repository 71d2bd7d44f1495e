"""DR-KFS' comparison of views (Eq. 2): patches' features matched within a window, both ways, and summed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.features.extractor import PatchExtractor
from reconlab.features.patches import PatchFeatures, patch_grid
from reconlab.kernels.patch_matching import match_patches

Reduction = Literal["sum", "mean"]


def drkfs(
    pred_images: Tensor,
    target: Tensor | Sequence[PatchFeatures],
    extractor: PatchExtractor,
    radius: int = 1,
    reduction: Reduction = "sum",
    weight_grad: bool = False,
    pyramid_levels: int = 1,
) -> Tensor:
    """DR-KFS of views (Eq. 2, both directions), one value per view.

    ``Σ_i w_i min_k MSE(f_i, g_k)`` over the reconstruction's patches i and the ground truth's patches k near i,
    plus the same with the roles exchanged. Zero for equal images.

    Args:
        pred_images: ``(B, V, H, W)`` grey views of the reconstruction in [0, 1].
        target: ``(B, V, H, W)`` views of the ground truth, or their features by :func:`target_features`.
        extractor: Detector and descriptor.
        radius: Half-width of the search window in patches: 1 is 3×3; 0 compares like positions.
        reduction: Over the patches of a view. ``sum`` is Eq. 2.
        weight_grad: Let gradients pass through the weights w (the mean keypoint score of a patch) too. By
            default they are constants, else erasing keypoints lowers the loss.
        pyramid_levels: Mean over this many blurred, halved copies of the views; widens the reach of the slope.

    Returns:
        ``(B, V)``, at least 0.
    """
    recon, truth = drkfs_parts(
        pred_images, target, extractor, radius, reduction, weight_grad, pyramid_levels=pyramid_levels
    )
    return recon + truth


def drkfs_parts(
    pred_images: Tensor,
    target: Tensor | Sequence[PatchFeatures],
    extractor: PatchExtractor,
    radius: int = 1,
    reduction: Reduction = "sum",
    weight_grad: bool = False,
    pyramid_levels: int = 1,
) -> tuple[Tensor, Tensor]:
    """The two directions of :func:`drkfs`: reconstruction to ground truth and back, each ``(B, V)``."""
    if pred_images.dim() != 4:
        raise ReconlabError(f"drkfs takes views (B, V, H, W), not {tuple(pred_images.shape)}.")
    b, v = pred_images.shape[:2]
    if isinstance(target, Tensor):
        if target.shape != pred_images.shape:
            raise ReconlabError(
                f"drkfs compares views of one shape, not {tuple(pred_images.shape)} and {tuple(target.shape)}."
            )
        target = target_features(target.flatten(0, 1), extractor, pyramid_levels)
    # The empty sum keeps the result in the images' graph where all patches are flat, hence constants.
    zero = pred_images.new_zeros(b * v) + pred_images[:0].sum()
    recon, truth = zero, zero
    levels = pyramid(pred_images.flatten(0, 1), pyramid_levels)
    for images, there in zip(levels, target, strict=True):
        here = extractor(images, like=there)
        recon = recon + _one_way(here, there, radius, reduction, weight_grad) / pyramid_levels
        truth = truth + _one_way(there, here, radius, reduction, weight_grad) / pyramid_levels
    return recon.view(b, v), truth.view(b, v)


def _one_way(
    query: PatchFeatures, key: PatchFeatures, radius: int, reduction: Reduction, weight_grad: bool
) -> Tensor:
    """Eq. 2: every patch of ``query`` to its best match in ``key``, ``(M,)``."""
    distance, _ = match_patches(query.descriptors, key.descriptors, radius)
    weights = query.weights if weight_grad else query.weights.detach()
    parts = (weights * distance).flatten(1)
    return parts.sum(dim=1) if reduction == "sum" else parts.mean(dim=1)


def pyramid(images: Tensor, levels: int) -> list[Tensor]:
    """Copies ``(M, H/2^l, W/2^l)`` for l = 0 .. levels-1, each blurred against aliasing before it is pooled.

    The blur's standard deviation at level l ≥ 1 is 3·2^(l-1) pixels of the full image.
    """
    out = [images]
    for level in range(1, levels):
        factor = 2**level
        patch_grid(images.shape[-2] // factor, images.shape[-1] // factor)
        deviation = 3.0 * 2 ** (level - 1)
        reach = round(3 * deviation)
        steps = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
        kernel = torch.exp(-0.5 * (steps / deviation) ** 2)
        kernel = kernel / kernel.sum()
        # The background is black, so zero padding continues it
        x = F.conv2d(images.unsqueeze(1), kernel.view(1, 1, -1, 1), padding=(reach, 0))
        x = F.conv2d(x, kernel.view(1, 1, 1, -1), padding=(0, reach))
        out.append(F.avg_pool2d(x, factor).squeeze(1))
    return out


@torch.no_grad()
def target_features(images: Tensor, extractor: PatchExtractor, levels: int = 1) -> list[PatchFeatures]:
    """Features of the ground truth's views ``(M, H, W)``, one entry per pyramid level, without a graph."""
    return [extractor(x) for x in pyramid(images, levels)]
