"""Point clouds to silhouettes through a smoothed occupancy volume (DPC's renderer), with gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from reconlab.errors import ReconlabError
from reconlab.kernels.gpu import Backend, choose_backend
from reconlab.kernels.splat import reference
from reconlab.threads import parallel_map

__all__ = ["splat_silhouettes"]

NEGLIGIBLE = 1e-9
"""Taps of the blur (of sum 1) below this are left out by the kernels: nothing of them survives in float32."""


def splat_silhouettes(
    position: Tensor,
    resolution: int,
    sigma: float,
    kernel_size: int = 21,
    scale: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> Tensor:
    r"""Silhouettes of points in a volume whose z axis is the viewing direction.

    Points are added into a V³ grid with trilinear weights and clipped to [0, 1]; the grid is blurred by a
    separable Gaussian of unit sum, zeros outside; times ``scale``, clipped to [0, 1] it is the occupancy o. With o
    clipped to [1e-5, 1 - 1e-5] the silhouette is ``1 - Π_z (1 - o)``. Gradients pass a clip where it does nothing.

    Args:
        position: ``(M, J, 3)`` positions (x, y, z) in voxels, 0 at the first centre. Corners of a point's cell
            that lie outside of the grid are dropped, so a point beyond -1 or V takes no part.
        resolution: V, voxels per side.
        sigma: Standard deviation of the blur in voxels, positive.
        kernel_size: Taps of the blur along each axis, odd.
        scale: ``(M,)`` factor of each image's occupancy, 0 or more; None for 1.
        backend: ``cpu`` is the fused kernel, ``cuda`` the GPU's, ``reference`` plain torch. ``auto`` takes the one of
            the tensors' device for float32, and ``reference`` otherwise. ``cuda`` takes two volumes of 4 V³ bytes an
            image, keeps one of them for the way back, and takes two more there; time follows the points' bounding
            box. It adds up weights as integers (of 18 bits after the point for 16000 points), so that the same input
            always gives the same bits. Its V is at most 1024.

    Returns:
        ``(M, V, V)`` in [0, 1] indexed [y, x], differentiable once by positions and scale. An image with a position
        or a scale that is not finite is NaN.

    Raises:
        ReconlabError: Shapes do not fit, or a setting is out of range.

    Example:
        >>> point = torch.tensor([[[4.0, 2.0, 3.0]]])
        >>> image = splat_silhouettes(point, 8, sigma=0.1, kernel_size=3)
        >>> image[0, 2, 4].item() > 0.999, image[0, 4, 2].item() < 0.001
        (True, True)
    """
    if position.dim() != 3 or position.shape[-1] != 3:
        raise ReconlabError(f"splat_silhouettes() takes positions (M, J, 3), not {tuple(position.shape)}.")
    if scale is not None and scale.shape != position.shape[:1]:
        raise ReconlabError(
            f"splat_silhouettes() takes a scale of shape ({len(position)},), one an image, not {tuple(scale.shape)}."
        )
    if resolution < 1 or not sigma > 0 or kernel_size < 1 or kernel_size % 2 == 0:
        raise ReconlabError(
            "splat_silhouettes() takes a positive resolution and sigma and an odd kernel_size, "
            f"not {resolution}, {sigma}, {kernel_size}."
        )
    kind = torch.promote_types(position.dtype, torch.float32)
    if scale is not None:
        kind = torch.promote_types(kind, scale.dtype)
        scale = scale.to(kind)
    position = position.to(kind)
    factor = position.new_ones(len(position)) if scale is None else scale
    path = choose_backend("splat_silhouettes", backend, position, factor)
    if path == "reference":
        with torch.autocast(position.device.type, enabled=False):
            return reference.silhouettes(position, resolution, float(sigma), kernel_size, scale)
    kernel = _Silhouettes if path == "cpu" else _SilhouettesOnGPU
    image: Tensor = kernel.apply(position, factor, resolution, float(sigma), kernel_size)
    return image


class _Silhouettes(torch.autograd.Function):
    """The fused kernel of the CPU; what it keeps for the way back is the blurred volume inside of the points' box."""

    @staticmethod
    def forward(ctx: Any, position: Tensor, scale: Tensor, resolution: int, sigma: float, kernel_size: int) -> Tensor:
        from reconlab.kernels.splat import cpu

        position, scale = position.detach().contiguous(), scale.detach()
        taps = reference.gaussian_taps(sigma, kernel_size)[kernel_size // 2 :]
        half = taps[taps > NEGLIGIBLE].float().numpy()
        keep = bool(ctx.needs_input_grad[0] or ctx.needs_input_grad[1])
        finite = (position.isfinite().flatten(1).all(1) & scale.isfinite()).tolist()
        image = position.new_full((len(position), resolution, resolution), torch.nan)
        points, factors, images = position.numpy(), scale.tolist(), image.numpy()

        def one(m: int) -> tuple[Any, ...] | None:
            return cpu.render(points[m], resolution, half, factors[m], images[m], keep) if finite[m] else None

        kept = parallel_map(one, range(len(points)))
        if keep:
            ctx.kept, ctx.half, ctx.resolution = kept, half, resolution
            ctx.save_for_backward(position, scale)
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from reconlab.kernels.splat import cpu

        position, scale = ctx.saved_tensors
        by_position, by_scale = torch.zeros_like(position), torch.zeros_like(scale)
        points, factors, upstream = position.numpy(), scale.tolist(), grad.contiguous().numpy()
        out, total = by_position.numpy(), by_scale.numpy()

        def one(m: int) -> None:
            if ctx.kept[m] is None:
                out[m], total[m] = torch.nan, torch.nan
            else:
                total[m] = cpu.render_back(
                    points[m], ctx.resolution, ctx.half, factors[m], ctx.kept[m], upstream[m], out[m]
                )

        parallel_map(one, range(len(points)))
        return by_position, by_scale, None, None, None


class _SilhouettesOnGPU(torch.autograd.Function):
    """The kernels of the GPU; what they keep for the way back is a volume."""

    @staticmethod
    def forward(ctx: Any, position: Tensor, scale: Tensor, resolution: int, sigma: float, kernel_size: int) -> Tensor:
        from reconlab.kernels.splat import cuda

        position, scale = position.contiguous(), scale.contiguous()
        taps = reference.gaussian_taps(sigma, kernel_size)[kernel_size // 2 :]
        reach = min(int((taps > NEGLIGIBLE).sum()), resolution) - 1
        ctx.setting = cuda.Setting(resolution, reach, 0.5 / sigma / sigma if reach else 0.0, float(taps[0]))
        by_position, by_scale = ctx.needs_input_grad[:2]
        image, kept = cuda.render(position, scale, ctx.setting, by_position or by_scale, by_position)
        if kept is not None:
            ctx.save_for_backward(position, scale, *kept)
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from reconlab.kernels.splat import cuda

        position, scale, *kept = ctx.saved_tensors
        scaled = ctx.needs_input_grad[1]
        upstream = grad.contiguous()  # else what is multiplied with it takes its strides, which kernels don't know
        return *cuda.render_back(position, scale, ctx.setting, cuda.Kept(*kept), upstream, scaled), None, None, None
