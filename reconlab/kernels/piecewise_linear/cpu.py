"""The piecewise-linear score of constant filters on the CPU: torch's convolution there, Fourier transforms back."""

from __future__ import annotations

from typing import Any

import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.autograd.function import once_differentiable

from reconlab.kernels.piecewise_linear.reference import best_pieces, signed_sum


class Score(torch.autograd.Function):
    """Torch's way back, 16 channels through filters of 21×21 into one, takes five times as long as the way there.

    That was a third of a DR-KFS step at 256²; by FFT it takes as long.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, signs: Tensor) -> Tensor:
        """The scores, and which piece of each term is the largest."""
        best, piece = best_pieces(images, weight, bias, len(signs))
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(weight, signs, piece.to(torch.uint8))
        return signed_sum(best, signs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The transposed convolution of what the largest pieces received."""
        weight, signs, piece = ctx.saved_tensors
        m, terms, h, w = piece.shape
        kernel = weight.shape[-1]
        if m == 0:  # of which the transforms know nothing
            return grad.new_zeros(0, 1, h + kernel - 1, w + kernel - 1), None, None, None
        spread = grad.new_zeros(m, terms, len(weight) // terms, h, w)
        spread.scatter_(2, piece.long().unsqueeze(2), (grad * signs.view(1, -1, 1, 1)).unsqueeze(2))
        # Of at least the full convolution's size, so that the circular one does not wrap
        size = [next_fast_len(n + kernel - 1, real=True) for n in (h, w)]
        spectrum = torch.fft.rfft2(spread.flatten(1, 2), s=size) * torch.fft.rfft2(weight[:, 0], s=size)
        full = torch.fft.irfft2(spectrum.sum(dim=1, keepdim=True), s=size)
        return full[..., : h + kernel - 1, : w + kernel - 1], None, None, None
