"""Points to silhouettes through a smoothed volume, in plain torch with autograd: the definition of the kernel."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

OCCUPANCY_EPS = 1e-5
"""Occupancies are clipped to [1e-5, 1 - 1e-5] before the ray product, as DPC does."""


def gaussian_taps(sigma: float, size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """``(size,)`` samples of a Gaussian at the whole voxels around 0, of sum 1."""
    offset = torch.arange(size, dtype=torch.float64) - size // 2
    weights = torch.exp(-0.5 * (offset / sigma).square())
    return (weights / weights.sum()).to(dtype)


def splat(position: Tensor, resolution: int) -> Tensor:
    """Trilinear weights of points added up in a volume.

    Args:
        position: ``(M, J, 3)`` positions (x, y, z) in voxels, 0 at the first centre.
        resolution: V.

    Returns:
        ``(M, V, V, V)`` indexed [z, y, x]; what falls outside of the grid is dropped.
    """
    near = ((position > -1) & (position < resolution)).all(-1, keepdim=True)
    position = torch.where(near, position, torch.full_like(position, -2.0))  # far ones would overflow
    low = position.detach().floor()
    fraction = position - low
    index = low.long()
    volume = position.new_zeros(position.shape[0], resolution**3)
    for corner in product((0, 1), repeat=3):
        at = index + torch.tensor(corner, device=index.device)
        weight = torch.stack([fraction[..., a] if c else 1 - fraction[..., a] for a, c in enumerate(corner)]).prod(0)
        here = ((at >= 0) & (at < resolution)).all(-1)
        at = at.clamp(0, resolution - 1)
        flat = (at[..., 2] * resolution + at[..., 1]) * resolution + at[..., 0]
        volume = volume.scatter_add(1, flat, torch.where(here, weight, torch.zeros_like(weight)))
    return volume.unflatten(1, (resolution,) * 3)


def blur(volume: Tensor, taps: Tensor) -> Tensor:
    """Convolve ``(M, V, V, V)`` with a symmetric kernel along each axis, zeros outside."""
    size, reach = volume.shape[-1], len(taps) // 2
    index = torch.arange(size, device=volume.device)
    offset = index[:, None] - index + reach
    inside = (offset >= 0) & (offset < len(taps))
    # As a band matrix: products of matrices are far faster than a convolution with a single channel.
    band = torch.where(inside, taps[offset.clamp(0, len(taps) - 1)], torch.zeros_like(taps[:1]))
    x = volume @ band
    x = band @ x
    return (band @ x.flatten(2)).unflatten(2, (size, size))


def silhouettes(position: Tensor, resolution: int, sigma: float, kernel_size: int, scale: Tensor | None) -> Tensor:
    """``S = 1 - Π_z (1 - o)`` with ``o = clip(scale · blur(clip(splat)))``; the gradients are autograd's.

    Args:
        position: ``(M, J, 3)`` positions (x, y, z) in voxels, 0 at the first centre.
        resolution: V.
        sigma: Standard deviation of the blur, voxels.
        kernel_size: Its odd number of taps.
        scale: ``(M,)`` or None for 1.

    Returns:
        ``(M, V, V)`` indexed [y, x].
    """
    finite = position.isfinite().flatten(1).all(1)
    position = torch.where(finite[:, None, None], position, torch.full_like(position, -2.0))
    taps = gaussian_taps(sigma, kernel_size, position.dtype).to(position.device)
    occupancy = blur(splat(position, resolution).clamp(0, 1), taps)
    if scale is not None:
        occupancy = occupancy * scale[:, None, None, None]
    occupancy = occupancy.clamp(0, 1).clamp(OCCUPANCY_EPS, 1 - OCCUPANCY_EPS)
    image = -torch.expm1(torch.log1p(-occupancy).sum(1))
    return torch.where(finite[:, None, None], image, torch.full_like(image, torch.nan))
