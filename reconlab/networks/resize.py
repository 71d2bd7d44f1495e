"""Images brought to the size that a network of fixed size reads."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from reconlab.errors import ReconlabError


def to_side(images: Tensor, side: int, who: str) -> Tensor:
    """Square images at another size: pixel i becomes the mean of the source pixels that its area touches.

    That is the exact area average where ``side`` divides the images' own, repetition where it is a multiple of
    it, and nothing where they are equal.

    Args:
        images: ``(B, 3, S, S)``.
        side: Pixels per side of the result.
        who: The network, for error messages.

    Raises:
        ReconlabError: Not three channels, or not square.

    Example:
        >>> import torch
        >>> to_side(torch.eye(4).expand(1, 3, 4, 4), 2, "A network")[0, 0]
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]])
    """
    if images.dim() != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3] or images.shape[2] == 0:
        raise ReconlabError(f"{who} takes square images (B, 3, S, S), not {tuple(images.shape)}.")
    return images if images.shape[2] == side else F.adaptive_avg_pool2d(images, side)
