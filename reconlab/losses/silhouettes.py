"""True silhouettes at the resolution at which a loss compares them."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError

Reduction = Literal["subsample", "area"]


class Reduced(NamedTuple):
    """Silhouettes on a ``V`` grid, and where its pixels are.

    Attributes:
        alpha: ``(M, V, V)`` in [0, 1], not cut at a threshold.
        scale, shift: Pixel position in the grid: ``scale * x + shift`` for x in [-1, 1] (0 is the first centre).
    """

    alpha: Tensor
    scale: float
    shift: float

    def pixel(self, xy: Tensor) -> Tensor:
        """Positions in pixels of the grid of normalised image positions."""
        return xy * self.scale + self.shift


def check_clouds_and_views(points: Tensor, silhouettes: Tensor, cameras: Cameras, who: str) -> tuple[int, int]:
    """See that clouds, silhouettes and cameras are of the same samples and views.

    Args:
        points: ``(B, J, 3)``.
        silhouettes: ``(B, V, H, H)``.
        cameras: ``(B, V)``.
        who: The function that takes them, for error messages.

    Returns:
        ``(B, V)``.

    Raises:
        ReconlabError: They are not.
    """
    if points.dim() != 3 or points.shape[-1] != 3 or points.shape[1] == 0:
        raise ReconlabError(f"{who} takes points (B, J, 3) with J >= 1, not {tuple(points.shape)}.")
    lead = tuple(silhouettes.shape[:2])
    if silhouettes.dim() != 4 or lead[0] != points.shape[0] or tuple(cameras.shape) != lead:
        raise ReconlabError(
            f"{who} takes silhouettes (B, V, H, H) and cameras (B, V) for {points.shape[0]} clouds, "
            f"not {tuple(silhouettes.shape)} and {tuple(cameras.shape)}."
        )
    return lead[0], lead[1]


def reduce_silhouettes(silhouettes: Tensor, resolution: int, reduction: Reduction, who: str) -> Reduced:
    """Silhouettes of ``H`` pixels a side on a grid of ``resolution``.

    ``subsample`` takes every k-th pixel from the first, as DPC and DRWR did (TensorFlow 1's resizing): pixel i of
    the grid is source pixel k i, and the grid's positions say so. ``area`` averages k × k pixels.

    Args:
        silhouettes: ``(M, H, H)`` in [0, 1]; ``H`` a multiple of ``resolution``.
        resolution: ``V``, pixels per side of the result.
        reduction: ``subsample`` or ``area``.
        who: The loss, for error messages.

    Raises:
        ReconlabError: The image is not square, its side is no multiple of ``resolution``, or the reduction does
            not exist.

    Example:
        >>> import torch
        >>> reduce_silhouettes(torch.ones(1, 8, 8), 4, "area", "A loss").alpha.shape
        torch.Size([1, 4, 4])
    """
    if silhouettes.dim() != 3 or silhouettes.shape[1] != silhouettes.shape[2]:
        raise ReconlabError(f"{who} takes square silhouettes, not images of {tuple(silhouettes.shape[1:])} pixels.")
    side = silhouettes.shape[1]
    if resolution < 2 or side % resolution:
        raise ReconlabError(
            f"{who}: resolution is {resolution}, but the silhouettes have {side} pixels a side; "
            f"choose a resolution that divides it."
        )
    step = side // resolution
    silhouettes = silhouettes.detach().float()
    if reduction == "subsample":
        return Reduced(silhouettes[:, ::step, ::step], side / (2 * step), (side / 2 - 0.5) / step)
    if reduction == "area":
        return Reduced(F.avg_pool2d(silhouettes[:, None], step)[:, 0], resolution / 2, (resolution - 1) / 2)
    raise ReconlabError(f"{who}: reduction is {reduction!r}; expected 'subsample' or 'area'.")
