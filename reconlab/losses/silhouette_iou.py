"""Soft intersection over union of silhouettes (SoftRas, Liu et al., ICCV 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.losses.view_loss import ViewLoss


def silhouette_iou(pred: Tensor, target: Tensor) -> Tensor:
    """``1 - Σ p t / Σ (p + t - p t)`` over the pixels of each view: two ``(B, V, H, W)`` in [0, 1] to ``(B, V)``.

    Two empty views agree: 0, with gradient 0.

    Example:
        >>> view = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
        >>> silhouette_iou(view, view).item(), round(silhouette_iou(view, view.transpose(-1, -2)).item(), 4)
        (0.0, 0.6667)
    """
    if pred.shape != target.shape or pred.dim() != 4:
        raise ReconlabError(
            f"silhouette_iou compares views (B, V, H, W) of one shape, not {tuple(pred.shape)} and "
            f"{tuple(target.shape)}."
        )
    both = (pred * target).sum((-2, -1))
    either = (pred + target - pred * target).sum((-2, -1))
    seen = either > 0
    return torch.where(seen, 1 - both / torch.where(seen, either, torch.ones_like(either)), torch.zeros_like(both))


class SilhouetteIoU(ViewLoss):
    """One minus the soft intersection over union of silhouettes, mean over views.

    Arguments as in :class:`ViewLoss`, ``images`` being ``silhouette``. As a term beside an object-space loss it is
    the cheap control that DR-KFS has to beat (docs/drkfs.md). A soft outline does not overlap itself wholly, so
    the loss of the truth is small but not 0.
    """

    def compare(self, images: Tensor, target: Tensor) -> Tensor:
        """:func:`silhouette_iou`."""
        return silhouette_iou(images, target)
