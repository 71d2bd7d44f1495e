"""What DRWR reads from a silhouette: the smooth field of its Eq. 3, the mask, and the boundary bias of Fig. 4.

Positions are in normalised image coordinates, [-1, 1], x right, y down; pixel ``i`` of a ``V`` grid is centred
at ``(2 i + 1) / V - 1`` (``align_corners=False``), or, for a sub-sampled mask, where its source pixel is.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from reconlab.errors import ReconlabError
from reconlab.losses.silhouettes import Reduction, reduce_silhouettes
from reconlab.threads import parallel_map

FieldKind = Literal["normalised", "literal", "released", "binary"]

CACHE_BYTES = 64 << 20
"""Memory for distance fields of silhouettes seen before (a data set's views come again every epoch)."""


BLOCK = 1 << 24
"""Pairs of pixels that the distance transform on a GPU holds at once."""


@dataclass(frozen=True)
class Fields:
    """Maps of ``M`` silhouettes at the loss' resolution ``V``.

    Attributes:
        smooth: ``(M, V, V)`` the field v, 1 in the foreground.
        mask: ``(M, V, V)`` the foreground indicator, what ω samples.
        corners: ``(M, 4, V, V)`` mean over R scales of the mask at the corners (y-, x-), (y-, x+), (y+, x-),
            (y+, x+) of growing squares, indexed by the inner cell's lower pixel: what δ blends.
        usable: ``(M,)`` bool, neither empty nor full.
        area: ``(M,)`` foreground fraction of the image.
        scale, shift: Pixel position in the grid: ``scale * x + shift`` for x in [-1, 1].
    """

    smooth: Tensor
    mask: Tensor
    corners: Tensor
    usable: Tensor
    area: Tensor
    scale: float
    shift: float

    def pixel(self, xy: Tensor) -> Tensor:
        """Positions in pixels of the grid (0 is the first centre) of normalised positions."""
        return xy * self.scale + self.shift


def silhouette_fields(
    silhouettes: Tensor,
    resolution: int,
    reduction: Reduction = "subsample",
    kind: FieldKind = "normalised",
    scales: int = 5,
) -> Fields:
    """Reduce silhouettes to the loss' resolution and build their maps.

    ``kind`` names the field, with d the distance in pixels of the grid to the closest foreground pixel:

    - ``normalised``: ``1 - d / max d``, foreground counting as d = 0;
    - ``literal``: the paper's min-max over the background alone, so that the first ring of background
      pixels becomes exactly 1 as well: ``1 - (d - min d) / (max d - min d)``;
    - ``released``: the published code's ``220/255 - d₁₂₈ / (64 √2)`` on a 128-pixel image, alpha kept where it
      is not 0, then sub-sampled; its mask is alpha, not binary;
    - ``binary``: no smoothing, Eq. 2 on the mask itself.

    Args:
        silhouettes: ``(M, H, H)`` in [0, 1]; ``H`` a multiple of ``resolution``.
        resolution: ``V``, pixels per side of the maps.
        reduction: ``subsample`` takes every k-th pixel from the first, as DPC and DRWR did; ``area`` averages
            k × k pixels. Both are cut at 0.5.
        kind: The field.
        scales: R of the boundary bias.

    Returns:
        The maps, without gradients. An empty or full silhouette has a field of 1 and is not ``usable``.

    Raises:
        ReconlabError: The image is not square, or its side is no multiple of ``resolution``.
    """
    alpha, scale, shift = reduce_silhouettes(silhouettes, resolution, reduction, "DRWR")
    step = silhouettes.shape[1] // resolution
    silhouettes = silhouettes.detach().float()
    binary = (alpha > 0.5).float()
    area = binary.mean((1, 2))
    usable = (area > 0) & (area < 1)
    mask = alpha if kind == "released" else binary
    if kind == "binary":
        smooth = binary
    elif kind in ("normalised", "literal"):
        smooth = _distance_fields(binary, kind)
    elif kind == "released":
        smooth = _distance_fields(silhouettes, kind)
        smooth = smooth[:, ::step, ::step] if reduction == "subsample" else F.avg_pool2d(smooth[:, None], step)[:, 0]
    else:
        raise ReconlabError(f"DRWR: field is {kind!r}; expected 'normalised', 'literal', 'released' or 'binary'.")
    smooth = torch.where(usable[:, None, None], smooth, torch.ones_like(smooth))
    return Fields(smooth, mask, _corner_maps(mask, scales), usable, area, scale, shift)


def sample_bilinear(maps: Tensor, pixel: Tensor) -> Tensor:
    """Bilinear values of one map per image, differentiable by the position.

    Args:
        maps: ``(M, V, V)``.
        pixel: ``(M, J, 2)`` positions (x, y) within [0, V - 1].

    Returns:
        ``(M, J)``.
    """
    x0, y0, x1, y1, fx, fy = _cells(pixel, maps.shape[-1])
    v, flat = maps.shape[-1], maps.flatten(1)
    top = torch.lerp(flat.gather(1, y0 * v + x0), flat.gather(1, y0 * v + x1), fx)
    bottom = torch.lerp(flat.gather(1, y1 * v + x0), flat.gather(1, y1 * v + x1), fx)
    return torch.lerp(top, bottom, fy)


def sample_corners(corners: Tensor, pixel: Tensor) -> Tensor:
    """The boundary bias δ: corner maps blended by the position in the inner cell.

    Args:
        corners: ``(M, 4, V, V)`` of :class:`Fields`.
        pixel: ``(M, J, 2)`` positions (x, y) within [0, V - 1].

    Returns:
        ``(M, J)`` in [0, 1].
    """
    x0, y0, _, _, fx, fy = _cells(pixel, corners.shape[-1])
    index = (y0 * corners.shape[-1] + x0)[:, None].expand(-1, 4, -1)
    c = corners.flatten(2).gather(2, index)
    return torch.lerp(torch.lerp(c[:, 0], c[:, 1], fx), torch.lerp(c[:, 2], c[:, 3], fx), fy)


def _cells(pixel: Tensor, size: int) -> tuple[Tensor, ...]:
    # A position that is not finite must not index outside of the map; its value stays NaN by the fraction.
    low = pixel.detach().nan_to_num(0.0).floor().clamp(0, size - 1)
    fraction = pixel - low
    index = low.long()
    upper = (index + 1).clamp_max(size - 1)
    return index[..., 0], index[..., 1], upper[..., 0], upper[..., 1], fraction[..., 0], fraction[..., 1]


def _corner_maps(mask: Tensor, scales: int) -> Tensor:
    """For every inner cell (lower pixel y, x) the mean over r of mask[y - r | y + 1 + r, x - r | x + 1 + r]."""
    if scales < 1:
        raise ReconlabError(f"DRWR: scales is {scales}; expected at least 1.")
    size = mask.shape[-1]
    padded = F.pad(mask[:, None], (scales,) * 4, mode="replicate")[:, 0]  # positions clamped to the border
    corners = mask.new_zeros(mask.shape[0], 4, size, size)
    for r in range(scales):
        low, high = slice(scales - r, scales - r + size), slice(scales + 1 + r, scales + 1 + r + size)
        for c, (rows, columns) in enumerate(((low, low), (low, high), (high, low), (high, high))):
            corners[:, c] += padded[:, rows, columns]
    return corners / scales


def _distance_fields(images: Tensor, kind: str) -> Tensor:
    """Distance fields ``(M, V, V)``, where the silhouettes are: the CPU remembers them, a GPU makes them anew."""
    return _cached_fields(images, kind) if images.device.type == "cpu" else fields_in_place(images, kind)


def fields_in_place(images: Tensor, kind: str) -> Tensor:
    """:func:`silhouette_fields`' distance fields by torch alone: nothing travels and nothing is waited for.

    Args:
        images: ``(M, V, V)`` silhouettes at the resolution at which the field is made.
        kind: ``normalised``, ``literal`` or ``released``.

    Returns:
        ``(M, V, V)``; 1 where the silhouette is empty or full.
    """
    inside = images >= 0.95 if kind == "released" else images > 0.5
    usable = inside.flatten(1).any(1) & ~inside.flatten(1).all(1)
    distance = distance_transform(inside)
    if kind == "released":
        far = 220 / 255 - distance * (128 / images.shape[1]) / (64 * math.sqrt(2))
        field = torch.where(images > 0, images, far)
    else:
        low = torch.zeros_like(distance[:, 0, 0])
        if kind == "literal":
            low = torch.where(inside, torch.inf, distance).flatten(1).amin(1)
        span = distance.flatten(1).amax(1) - low
        scaled = 1 - (distance - low[:, None, None]) / span.clamp_min(1e-30)[:, None, None]
        field = torch.where(inside | (span <= 0)[:, None, None], 1.0, scaled)
    return torch.where(usable[:, None, None], field, 1.0)


def distance_transform(inside: Tensor) -> Tensor:
    """Exact Euclidean distance, in pixels, of every pixel to the closest one inside; without waiting for the device.

    First along the columns, then the least of the sums of squares along the rows: O(V³) for an image, in blocks of
    rows. Squares are whole numbers, so nothing is rounded before the root.

    Args:
        inside: ``(M, H, W)`` bool.

    Returns:
        ``(M, H, W)`` float32; infinite in an image without an inside.

    Example:
        >>> distance_transform(torch.tensor([[[True, False, False, False]]]))
        tensor([[[0., 1., 2., 3.]]])
    """
    height, width = inside.shape[1:]
    row = torch.arange(height, device=inside.device, dtype=torch.float32)[:, None]
    last = torch.where(inside, row, -torch.inf).cummax(1).values
    following = torch.where(inside, row, torch.inf).flip(1).cummin(1).values.flip(1)
    squared = torch.minimum(row - last, following - row).square()
    column = torch.arange(width, device=inside.device, dtype=torch.float32)
    across = (column[:, None] - column).square()
    block = max(1, BLOCK // max(1, len(inside) * width * width))
    parts = [(rows.unsqueeze(-2) + across).amin(-1) for rows in squared.split(block, dim=1)]
    return torch.cat(parts, 1).sqrt() if parts else squared


_cache: OrderedDict[tuple[bytes, str, int], Tensor] = OrderedDict()
_cache_bytes = 0
_lock = threading.Lock()


def _cached_fields(images: Tensor, kind: str) -> Tensor:
    """Distance fields ``(M, V, V)``, on the images' device; remembered by content."""
    global _cache_bytes
    host = images.cpu().numpy()
    keys = [(_digest(image if kind == "released" else image > 0.5), kind, image.shape[0]) for image in host]
    with _lock:
        known = {key: _cache[key] for key in keys if key in _cache}
        for key in known:
            _cache.move_to_end(key)
    wanted = {key: image for key, image in zip(keys, host, strict=True) if key not in known}
    made = parallel_map(lambda image: torch.from_numpy(_distance_field(image, kind)), wanted.values())
    fresh = dict(zip(wanted, made, strict=True))
    known |= fresh
    with _lock:
        for key, field in fresh.items():
            if key not in _cache:
                _cache[key] = field
                _cache_bytes += field.numel() * 4
        while _cache_bytes > CACHE_BYTES and _cache:
            _cache_bytes -= _cache.popitem(last=False)[1].numel() * 4
    return torch.stack([known[key] for key in keys]).to(images.device)


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def _distance_field(image: np.ndarray, kind: str) -> np.ndarray:
    from scipy.ndimage import distance_transform_edt

    inside = image >= 0.95 if kind == "released" else image > 0.5
    if not inside.any() or inside.all():
        return np.ones(image.shape, np.float32)
    distance = distance_transform_edt(~inside)
    if kind == "released":
        far = 220 / 255 - distance * (128 / len(image)) / (64 * math.sqrt(2))
        return np.where(image > 0, image, far).astype(np.float32)
    if kind == "literal":
        low, high = distance[~inside].min(), distance.max()
        field = 1 - (distance - low) / (high - low) if high > low else np.ones(image.shape)
        return np.where(inside, 1.0, field).astype(np.float32)
    return (1 - distance / distance.max()).astype(np.float32)
