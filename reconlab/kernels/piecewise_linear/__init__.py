"""Sums of maxima of correlations with an image: the keypoint score of DR-KFS Eq. 1, with gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reconlab.errors import ReconlabError
from reconlab.kernels.gpu import Backend, choose_backend
from reconlab.kernels.piecewise_linear import reference

__all__ = ["piecewise_linear"]

FILTERS = 64
"""Of the GPU kernel, the terms and a term's pieces each counted up to a power of two."""

BITS = 31
"""Of the winning pieces' numbers at a pixel, together."""


def piecewise_linear(
    images: Tensor, weight: Tensor, bias: Tensor, signs: Tensor, *, backend: Backend = "auto"
) -> Tensor:
    r"""``Σ_n δ_n max_p (W_np * I + b_np)``, with ``*`` the correlation without padding.

    Computed in float32 also under autocast, and half precision, too.

    Args:
        images: ``(M, 1, H, W)``, H and W of at least K.
        weight: ``(N P, 1, K, K)``, the P pieces of a term one after the other.
        bias: ``(N P,)``.
        signs: ``(N,)`` factors δ of the terms, constant.
        backend: ``reference`` is plain torch, and the only one with gradients by the filters; ``cpu`` has the
            gradient by Fourier transforms. ``cuda`` never holds the responses: it keeps the winning pieces for the
            way back, one byte a pixel for 4 terms of 4 pieces, takes 8 bytes a pixel there, and gives the same bits
            for the same input. It takes up to 64 filters, terms and pieces each counted up to a power of two.
            ``auto`` takes ``cuda`` for float32 on a GPU and ``cpu`` for a gradient by images on the CPU, if the
            filters are constant, and else ``reference``.

    Returns:
        ``(M, 1, H - K + 1, W - K + 1)``, differentiable (but for ``reference`` once). Of equal pieces the first gets
        the gradient. A pixel that is not finite makes scores within its reach that are not finite.

    Raises:
        ReconlabError: Shapes do not fit, or the backend does not take this input.

    Example:
        >>> image = torch.tensor([[[[0.25, 1.0]]]])
        >>> weight = torch.tensor([1.0, -1.0, 2.0, 0.0]).view(4, 1, 1, 1)
        >>> bias, signs = torch.tensor([0.0, 0.5, 0.0, 1.0]), torch.tensor([1.0, -1.0])
        >>> piecewise_linear(image, weight, bias, signs)  # .25 - 1 and 1 - 2
        tensor([[[[-0.7500, -1.0000]]]])
    """
    if images.dim() != 4 or images.shape[1] != 1:
        raise ReconlabError(f"piecewise_linear() takes images (M, 1, H, W), not {tuple(images.shape)}.")
    square = weight.dim() == 4 and weight.shape[1] == 1 and weight.shape[2] == weight.shape[3] > 0
    if not square or signs.dim() != 1 or len(signs) == 0 or len(weight) == 0 or len(weight) % len(signs) != 0:
        raise ReconlabError(
            "piecewise_linear() takes filters (N P, 1, K, K) of N terms' signs (N,), "
            f"not {tuple(weight.shape)} and {tuple(signs.shape)}."
        )
    if bias.shape != weight.shape[:1]:
        raise ReconlabError(f"piecewise_linear() takes a bias ({len(weight)},), not {tuple(bias.shape)}.")
    if min(images.shape[2:]) < weight.shape[-1]:
        raise ReconlabError(
            f"piecewise_linear() takes images of at least {weight.shape[-1]} pixels a side, as the filters, "
            f"not {tuple(images.shape[2:])}."
        )
    kind = torch.promote_types(torch.promote_types(images.dtype, weight.dtype), torch.float32)
    images, weight, bias, signs = (x.to(kind) for x in (images, weight, bias, signs))
    path = _path(backend, images, weight, bias, signs)
    with torch.autocast(images.device.type, enabled=False):
        if path == "cpu":
            from reconlab.kernels.piecewise_linear.cpu import Score

            by_fourier: Tensor = Score.apply(images, weight, bias, signs)
            return by_fourier
        if path == "cuda":
            on_gpu: Tensor = _ScoreOnGPU.apply(images, weight, bias, signs)
            return on_gpu
        return reference.scores(images, weight, bias, signs)


def _path(backend: Backend, images: Tensor, weight: Tensor, bias: Tensor, signs: Tensor) -> str:
    """Of :func:`piecewise_linear`'s backends the one that is taken."""
    path: str = choose_backend("piecewise_linear", backend, images, weight, bias, signs)
    learning = torch.is_grad_enabled() and (weight.requires_grad or bias.requires_grad)
    if learning and backend in ("cpu", "cuda"):
        raise ReconlabError(f"piecewise_linear(backend={backend!r}) has no gradient by the filters.")
    terms, pieces = len(signs), len(weight) // len(signs)
    deep, wide = (terms - 1).bit_length(), (pieces - 1).bit_length()
    if path == "cuda" and (1 << deep + wide > FILTERS or terms * wide > BITS):
        if backend == "cuda":
            raise ReconlabError(
                f"piecewise_linear(backend='cuda') takes up to {FILTERS} filters whose winners fit into {BITS} bits, "
                f"not {terms} terms of {pieces}."
            )
        path = "reference"
    if backend == "auto" and images.device.type == "cpu":
        path = "cpu" if images.requires_grad and torch.is_grad_enabled() else "reference"  # of any precision
    return "reference" if learning else path


class _ScoreOnGPU(torch.autograd.Function):
    """The kernels of the GPU; what they keep for the way back is which pieces won."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, signs: Tensor) -> Tensor:
        from reconlab.kernels.piecewise_linear import cuda

        score, code = cuda.scores(images.contiguous(), weight, bias, signs, ctx.needs_input_grad[0])
        if code is not None:
            ctx.save_for_backward(weight, signs, code)
        return score

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from reconlab.kernels.piecewise_linear import cuda

        weight, signs, code = ctx.saved_tensors
        return cuda.by_images(grad.contiguous(), weight, signs, code), None, None, None
