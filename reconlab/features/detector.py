"""The keypoint detector of DR-KFS Eq. 1: one convolution layer, a maximum over pieces, a signed sum over terms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reconlab.errors import ReconlabError
from reconlab.kernels.piecewise_linear import piecewise_linear


class PiecewiseLinearDetector(nn.Module):
    r"""Piecewise-linear keypoint score (DR-KFS Eq. 1; the form of TILDE and of LIFT's detector).

    .. math:: s(I) = \sum_{n=1}^{N} \delta_n \max_{m=1..M} (W_{mn} * I + b_{mn}),
              \quad \delta_n = +1 \text{ for odd } n, -1 \text{ for even } n

    The maximum is hard. ``*`` is correlation with a reflected border, so that the map has the image's size: a
    256² image then gives 225 patches, as the paper counts (with LIFT's 'valid' convolution it would be 169).
    The score has no fixed range; :func:`poi_map` makes a map of about [0, 1] of it.

    Args:
        terms: N.
        pieces: M.
        kernel: Side of the filters in pixels, odd (TILDE 21, LIFT 25).

    Example:
        >>> detector = PiecewiseLinearDetector(kernel=21)
        >>> detector(torch.zeros(2, 1, 64, 64)).shape
        torch.Size([2, 1, 64, 64])
    """

    reference_range: Tensor
    signs: Tensor

    def __init__(self, terms: int = 4, pieces: int = 4, kernel: int = 21) -> None:
        super().__init__()
        if kernel % 2 == 0 or kernel < 1:
            raise ReconlabError(f"The detector's kernel must be odd, not {kernel}.")
        self.terms, self.pieces, self.kernel = terms, pieces, kernel
        self.weight = nn.Parameter(torch.empty(terms * pieces, 1, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(terms * pieces))
        nn.init.kaiming_normal_(self.weight)
        signs = torch.ones(terms)
        signs[1::2] = -1.0
        self.register_buffer("signs", signs, persistent=False)
        # Typical (lowest, highest) score of a view of a shape; training measures it. It scales the fixed
        # sigmoid, and it bounds the min-max scaling of views on which nothing is seen.
        self.register_buffer("reference_range", torch.tensor([-1.0, 1.0]))

    def forward(self, images: Tensor, padded: bool = True) -> Tensor:
        """Score every pixel.

        Args:
            images: ``(M, 1, H, W)`` grey images in [0, 1]; H and W above ``kernel // 2`` when padded.
            padded: Reflect the border ('same'); without, the map is ``kernel - 1`` pixels smaller ('valid').

        Returns:
            ``(M, 1, H, W)`` raw scores, unbounded.
        """
        if images.dim() != 4 or images.shape[1] != 1:
            raise ReconlabError(f"The detector takes images (M, 1, H, W), not {tuple(images.shape)}.")
        if padded:
            half = self.kernel // 2
            if min(images.shape[-2:]) <= half:
                raise ReconlabError(
                    f"The detector's {self.kernel}-pixel filters need images of more than {half} pixels a side, "
                    f"not {tuple(images.shape[-2:])}."
                )
            images = F.pad(images, (half, half, half, half), mode="reflect")
        return piecewise_linear(images, self.weight, self.bias, self.signs)


def score_range(scores: Tensor, reference_range: Tensor, floor: float = 0.05) -> tuple[Tensor, Tensor]:
    """Lowest and highest score of each map, the affine by which :func:`poi_map` scales it.

    Args:
        scores: ``(M, 1, H, W)``.
        reference_range: ``(2,)``, the detector's typical range.
        floor: The least span, as a fraction of the typical span. A view without content would otherwise blow up
            rounding errors to a full-scale map.

    Returns:
        ``low (M,)`` and ``high (M,)``, without gradient, ``high > low``.
    """
    flat = scores.detach().flatten(1)
    low, high = flat.amin(dim=1), flat.amax(dim=1)
    least = floor * (reference_range[1] - reference_range[0]).clamp(min=1e-6)
    return low, torch.maximum(high, low + least)


def poi_map(scores: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """``(score - low) / (high - low)``: [0, 1] on the view that gave the range, about that on another.

    It is not clamped: outside the range of the ground truth's view a clamp would cut the gradient.

    Args:
        scores: ``(M, 1, H, W)``.
        low: ``(M,)``.
        high: ``(M,)``.

    Returns:
        ``(M, 1, H, W)``.

    Example:
        >>> poi_map(torch.tensor([[[[0.0, 5.0, 10.0]]]]), torch.tensor([0.0]), torch.tensor([10.0])).tolist()
        [[[[0.0, 0.5, 1.0]]]]
    """
    shape = (-1, 1, 1, 1)
    return (scores - low.view(shape)) / (high - low).view(shape)


def sigmoid_map(scores: Tensor, reference_range: Tensor) -> Tensor:
    """A squash that is the same for every view: sigmoid with its slope spread over the typical range.

    Args:
        scores: ``(M, 1, H, W)``.
        reference_range: ``(2,)``; its ends map to 0.018 and 0.982.

    Returns:
        ``(M, 1, H, W)`` in (0, 1).
    """
    low, high = reference_range[0], reference_range[1]
    return torch.sigmoid(8.0 * (scores - 0.5 * (low + high)) / (high - low).clamp(min=1e-6))
