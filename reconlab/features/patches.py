"""The sliding window of DR-KFS: 32×32 patches at a stride of 16, and what is said of each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from reconlab.errors import ReconlabError


@dataclass
class PatchFeatures:
    """What DR-KFS knows of a set of views: a descriptor and a weight per patch.

    Attributes:
        descriptors: ``(..., gh, gw, 128)``.
        weights: ``(..., gh, gw)``, mean of the PoI map over the patch, at least 0.
        low: ``(...,)`` affine by which the view's score became its PoI map (0 and 1 for the sigmoid).
        high: ``(...,)``.
    """

    descriptors: Tensor
    weights: Tensor
    low: Tensor
    high: Tensor

    def map(self, function) -> PatchFeatures:  # type: ignore[no-untyped-def]
        """The same features with ``function`` applied to each tensor."""
        return PatchFeatures(*(function(x) for x in (self.descriptors, self.weights, self.low, self.high)))

    @property
    def nbytes(self) -> int:
        """Memory of the tensors in bytes."""
        tensors = (self.descriptors, self.weights, self.low, self.high)
        return sum(t.numel() * t.element_size() for t in tensors)


def patch_grid(height: int, width: int, size: int = 32, stride: int = 16) -> tuple[int, int]:
    """Rows and columns of patches in an image.

    Raises:
        ReconlabError: The image is smaller than a patch.

    Example:
        >>> patch_grid(256, 256), patch_grid(64, 64)
        ((15, 15), (3, 3))
    """
    if min(height, width) < size:
        raise ReconlabError(f"DR-KFS needs images of at least {size} pixels a side, not {height}×{width}.")
    return (height - size) // stride + 1, (width - size) // stride + 1


def extract_patches(maps: Tensor, size: int = 32, stride: int = 16) -> Tensor:
    """All windows of a map, as a view without a copy.

    Args:
        maps: ``(M, 1, H, W)``.
        size: Side of a patch in pixels.
        stride: Step between patches in pixels.

    Returns:
        ``(M, gh, gw, size, size)``.
    """
    patch_grid(maps.shape[-2], maps.shape[-1], size, stride)
    return maps[:, 0].unfold(1, size, stride).unfold(2, size, stride)


def flat_patches(patches: Tensor, threshold: float) -> Tensor:
    """Which patches have a standard deviation below ``threshold``: ``(..., size, size) -> (...)`` bool."""
    return torch.std(patches.detach(), dim=(-2, -1)) < threshold
