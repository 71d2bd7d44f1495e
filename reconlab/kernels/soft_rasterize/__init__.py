"""Soft rasterisation of packed screen-space triangles: silhouette alpha and a depth-softmaxed grey image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.kernels.gpu import Backend, choose_backend
from reconlab.kernels.soft_rasterize.reference import Settings, soft_rasterize_reference


class SoftImage(NamedTuple):
    """What the rasteriser returns."""

    alpha: Tensor  # (M,H,W) in [0,1]
    shade: Tensor | None  # (M,H,W), None when no face_shade was given


def soft_rasterize(
    face_xyz: Tensor,
    splits: Tensor | Sequence[int],
    image_size: int | tuple[int, int],
    face_shade: Tensor | None = None,
    *,
    sigma: float = 1e-4,
    gamma: float = 1e-3,
    near: float = 0.1,
    far: float = 100.0,
    eps: float = 1e-3,
    cutoff: float = 1e-5,
    backend: Backend = "auto",
) -> SoftImage:
    """Rasterise M images of triangles softly (SoftRas, Liu et al., ICCV 2019), differentiably.

    With d the distance in NDC from a pixel's centre to a face's outline and u = ±d²/σ (positive inside), a
    face covers the pixel with s = sigmoid(u). ``alpha = 1 - Π(1 - s)``. ``shade`` is the mean of the faces'
    grey values weighted by ``s exp(z̃/γ)``, z̃ = (far - z)/(far - near), against a black background of weight
    ``exp(eps/γ)``, which is not clamped. Depth and grey value at the pixel use barycentric coordinates
    clipped to [0,1] and renormalised; depth is perspective-correct. Both sides of a face count alike.

    ``shade`` alone has a hard outline (any face within reach beats the background): images meant for
    gradients are ``shade * alpha``.

    A face is dropped when a corner is non-finite, nearer than ``near`` or beyond ``far``, or when its screen
    area vanishes. Depths enter as differences to each image's nearest vertex, so float32 keeps its precision
    however far ``far`` is; ``gamma * (far - near)`` is the depth over which a weight falls by e.

    Args:
        face_xyz: (F,3,3) per corner x, y in [-1,1] (x right, y down) and camera depth z; the faces of image m
            are ``splits[m]:splits[m+1]``.
        splits: (M+1,) non-decreasing, from 0 to F.
        image_size: Side, or (H, W). Pixel (i, j) has its centre at x = (2j+1)/W - 1, y = (2i+1)/H - 1.
        face_shade: (F,3) grey value of each corner; None for the silhouette alone (faster).
        sigma: Blur, in squared NDC.
        gamma: Softness of the depth order, in units of normalised depth.
        near: Nearest depth drawn.
        far: Farthest depth drawn.
        eps: Normalised depth of the background.
        cutoff: Coverage below which a face is not considered at a pixel outside of it.
        backend: "cpu" is the numba kernel (CPU float32), "cuda" the Triton kernels (GPU float32), "reference" plain
            torch on any device and dtype; "auto" takes the kernel that suits the tensors, else the reference. The
            GPU's kernels take O(faces + pixels) memory and do not make the host wait if ``splits`` is on the CPU.
            They are deterministic: sums are formed without atomics, in an order that depends on the input alone.

    Returns:
        ``alpha`` and ``shade``, differentiable with respect to ``face_xyz`` (x, y and, for shade, z) and
        ``face_shade``.

    Raises:
        ReconlabError: Shapes, splits or settings do not fit together.

    Example:
        >>> triangle = torch.tensor([[[-0.5, 0.5, 2.0], [0.5, 0.5, 2.0], [0.0, -0.5, 2.0]]])
        >>> alpha = soft_rasterize(triangle, [0, 1], 8).alpha
        >>> alpha.shape, bool(alpha[0, 4, 4] > 0.9), bool(alpha[0, 0, 0] == 0)
        (torch.Size([1, 8, 8]), True, True)
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    offsets = torch.as_tensor(splits, dtype=torch.int64).cpu()
    _check(face_xyz, offsets, face_shade, height, width)
    if not (sigma > 0 and gamma > 0 and 0 < near < far and 0 < cutoff < 0.5):
        raise ReconlabError(
            "soft_rasterize needs sigma, gamma > 0, 0 < near < far and 0 < cutoff < 0.5; got "
            f"sigma={sigma}, gamma={gamma}, near={near}, far={far}, cutoff={cutoff}."
        )
    settings = Settings(height, width, float(sigma), float(gamma), float(near), float(far), float(eps), cutoff)
    face_shade = None if face_shade is None else face_shade.to(face_xyz.dtype)
    inputs = [face_xyz] if face_shade is None else [face_xyz, face_shade]
    path = choose_backend("soft_rasterize", backend, *inputs)
    if path != "reference":
        kernel = _NumbaSoftRasterize if path == "cpu" else _TritonSoftRasterize
        alpha, shade = kernel.apply(face_xyz, face_shade, offsets, settings)
        return SoftImage(alpha, None if face_shade is None else shade)
    images = len(offsets) - 1
    count = (offsets[1:] - offsets[:-1]).to(face_xyz.device)
    image_of_face = torch.repeat_interleave(torch.arange(images, device=face_xyz.device), count)
    budget = 1 << (18 if face_xyz.device.type == "cpu" else 22)  # about 300 bytes a pair in the backward
    return SoftImage(*soft_rasterize_reference(face_xyz, image_of_face, images, face_shade, settings, budget=budget))


def _check(face_xyz: Tensor, splits: Tensor, face_shade: Tensor | None, height: int, width: int) -> None:
    if face_xyz.ndim != 3 or face_xyz.shape[1:] != (3, 3) or not face_xyz.is_floating_point():
        raise ReconlabError(
            f"soft_rasterize takes face_xyz (F,3,3) of floats, got {tuple(face_xyz.shape)} {face_xyz.dtype}."
        )
    falls = splits.ndim != 1 or len(splits) < 1 or bool((splits[1:] < splits[:-1]).any())
    if falls or int(splits[0]) != 0 or int(splits[-1]) != len(face_xyz):
        raise ReconlabError(
            f"soft_rasterize needs splits that rise from 0 to the number of faces ({len(face_xyz)}), "
            f"got {splits.tolist()[:8]}."
        )
    if face_shade is not None and face_shade.shape != face_xyz.shape[:2]:
        raise ReconlabError(
            f"soft_rasterize takes face_shade (F,3) = {tuple(face_xyz.shape[:2])}, got {tuple(face_shade.shape)}."
        )
    if height < 1 or width < 1:
        raise ReconlabError(f"soft_rasterize needs an image of at least one pixel, got {height} x {width}.")


class _NumbaSoftRasterize(torch.autograd.Function):
    """The numba kernel; the backward pass recomputes each pair instead of storing it."""

    @staticmethod
    def forward(
        ctx: Any, face_xyz: Tensor, face_shade: Tensor | None, splits: Tensor, settings: Settings
    ) -> tuple[Tensor, Tensor | None]:
        from reconlab.kernels.soft_rasterize import cpu

        xyz = face_xyz.detach().contiguous()
        grey = None if face_shade is None else face_shade.detach().contiguous()
        alpha, shade, state = cpu.forward(xyz, grey, splits.tolist(), settings)
        ctx.save_for_backward(xyz, grey, shade, *state)
        ctx.splits, ctx.settings = splits.tolist(), settings
        return alpha, shade

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_alpha: Tensor, grad_shade: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        from reconlab.kernels.soft_rasterize import cpu

        xyz, grey, shade, *state = ctx.saved_tensors
        grad_xyz, grad_grey = cpu.backward(
            xyz, grey, shade, tuple(state), grad_alpha, grad_shade, ctx.splits, ctx.settings
        )
        return grad_xyz, grad_grey, None, None


class _TritonSoftRasterize(torch.autograd.Function):
    """The Triton kernels; the backward pass recomputes each pair instead of storing it."""

    @staticmethod
    def forward(
        ctx: Any, face_xyz: Tensor, face_shade: Tensor | None, splits: Tensor, settings: Settings
    ) -> tuple[Tensor, Tensor | None]:
        from reconlab.kernels.soft_rasterize import cuda

        xyz = face_xyz.detach().contiguous()
        grey = None if face_shade is None else face_shade.detach().contiguous()
        alpha, shade, state = cuda.forward(xyz, grey, splits, settings)
        ctx.save_for_backward(xyz, grey, shade, *state)
        ctx.settings = settings
        return alpha, shade

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_alpha: Tensor, grad_shade: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        from reconlab.kernels.soft_rasterize import cuda_grad

        xyz, grey, shade, *state = ctx.saved_tensors
        grad_xyz, grad_grey = cuda_grad.backward(xyz, grey, shade, tuple(state), grad_alpha, grad_shade, ctx.settings)
        return grad_xyz, grad_grey, None, None
