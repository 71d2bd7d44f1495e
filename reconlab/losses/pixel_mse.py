"""Pixel-wise mean squared error of soft-rasterised views, the baseline that DR-KFS sets out to replace."""

from __future__ import annotations

from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.losses.view_loss import ViewLoss


def pixel_mse(pred_images: Tensor, target_images: Tensor) -> Tensor:
    """Mean over pixels of the squared difference of views: two ``(B, V, H, W)`` to ``(B, V)``.

    Example:
        >>> import torch
        >>> pixel_mse(torch.zeros(1, 1, 2, 2), torch.tensor([[[[2.0, 0.0], [0.0, 0.0]]]])).item()
        1.0
    """
    if pred_images.shape != target_images.shape or pred_images.dim() != 4:
        raise ReconlabError(
            f"pixel_mse compares views (B, V, H, W) of one shape, not {tuple(pred_images.shape)} and "
            f"{tuple(target_images.shape)}."
        )
    return (pred_images - target_images).square().mean(dim=(-2, -1))


class PixelMSE(ViewLoss):
    """Mean squared error of silhouettes or of shaded views; the arguments are :class:`ViewLoss`'s."""

    def compare(self, images: Tensor, target: Tensor) -> Tensor:
        """:func:`pixel_mse`."""
        return pixel_mse(images, target)
