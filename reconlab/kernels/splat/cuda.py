# mypy: allow-untyped-defs, allow-untyped-calls
"""Points to silhouettes on the GPU, and back.

Forward: weights are added into a volume of integers, whose sums do not depend on order, so that the same input
always gives the same bits; then clipped and blurred along x, along y, and along z straight into the ray product.
Backward: the gradient by the blurred volume is a ray's own factor times what the forward pass kept of each voxel, so
that the blur back along z needs nothing else; then along y. Along x it is blurred at the points' cells alone, which
are few beside the voxels. The host never waits for the device.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.kernels.gpu import Example, on_device
from reconlab.kernels.splat.cuda_points import corners, gather, scatter
from reconlab.kernels.splat.cuda_volume import blur, blur_across, rays

BLOCK = 128
"""Points that a program scatters."""

CELLS = 256
"""Points times lanes of a program that gathers; a lane is a voxel of the row that a point's gradient comes from."""

TILE = 32
"""Side of a tile of a volume's plane, and rays that a program marches."""

LEAST_BITS = 17
"""Of a weight's fraction, from 32-bit sums; with too many points for it the sums have 64 bits."""

LARGEST = 1024
"""Voxels a side; the kernels count a volume's voxels in 32 bits."""


class Setting(NamedTuple):
    """Of a volume and its blur, in the kernels' order.

    Attributes:
        size: V.
        reach: Taps on either side of the middle one.
        rate: The tap at k voxels is ``norm * exp(-rate * k²)``.
        norm: The middle tap.
    """

    size: int
    reach: int
    rate: float
    norm: float


class Kept(NamedTuple):
    """What the way back needs, of M images of J points.

    Attributes:
        passed: ``(M, V, V)`` what passes each ray.
        slope: ``(M, V, V)`` gradient by the scale of minus the logarithm of it.
        free: ``(M, V, V, V)`` 1 / (1 - o) where the occupancy is not clipped, else 0; undefined out of reach of the
            points. None if the positions ask for no gradient.
        unclipped: ``(M, J)`` which corners of a point's cell have a gradient; None likewise.
        box: ``(M, 8)`` minus the first and one past the last index of cells that hold weight, along x, y and z; and
            a positive number if a coordinate is not finite.
    """

    passed: Tensor
    slope: Tensor
    free: Tensor | None
    unclipped: Tensor | None
    box: Tensor


def fraction_bits(count: int) -> int:
    """Bits after the point of a weight, so that sums of ``count`` weights do not overflow.

    Up to 24, the precision of float32; less than ``LEAST_BITS`` from 32 bits stands for 64-bit sums with 32. For
    DPC's own pairs of points and voxels (2000 and 32, 8000 and 64, 16000 and 128) they are 21, 19 and 18: a finer
    step than float32 positions have there.
    """
    bits = min(24, 32 - count.bit_length())
    return bits if bits >= LEAST_BITS else 32


def render(
    position: Tensor, scale: Tensor, setting: Setting, keep: bool, positions: bool
) -> tuple[Tensor, Kept | None]:
    """Silhouettes of all images.

    Beside its results it takes two volumes of 4 V³ bytes an image (with 64-bit sums three), one of which becomes
    ``Kept.free``.

    Args:
        position: ``(M, J, 3)`` in voxels, contiguous float32.
        scale: ``(M,)`` factors of the occupancy.
        setting: The volume and its blur.
        keep: Whether there will be a way back, and
        positions: whether it goes to the positions.

    Returns:
        ``(M, V, V)``, and what :func:`render_back` needs.
    """
    size = setting.size
    if size > LARGEST:
        raise ReconlabError(f"splat_silhouettes(backend='cuda') takes resolutions up to {LARGEST}, not {size}.")
    images, count, _ = position.shape
    image = position.new_empty((images, size, size))
    passed, slope = (torch.empty_like(image), torch.empty_like(image)) if keep else (image, image)
    box = torch.full((images, 8), -(1 << 30), dtype=torch.int32, device=position.device)
    positions = keep and positions
    unclipped = torch.empty((images, count), dtype=torch.uint8, device=position.device) if positions else None
    bits = fraction_bits(count)
    shape = (images, size, size, size)
    weight = torch.zeros(shape, dtype=torch.int64 if bits == 32 else torch.int32, device=position.device)
    other = position.new_empty(shape)
    first = weight.view(torch.float32).flatten()[: other.numel()].view(shape)  # the weights' memory, used twice
    kept = Kept(passed, slope, other if positions else None, unclipped, box) if keep else None
    if images == 0:
        return image, kept
    tile, tiles, programs = _tiles(images, size)
    with on_device(position):
        if count > 0:
            blocks = (images * triton.cdiv(count, BLOCK),)
            scatter[blocks](position, weight, box, count, size, ONE=1 << bits, BLOCK=BLOCK)
            if unclipped is not None:
                corners[blocks](position, weight, unclipped, count, size, ONE=1 << bits, BLOCK=BLOCK)
            blur_across[(programs,)](weight, other, box, *setting, ONE=1 << bits, TILE=tile)
            blur[(programs,)](other, first, None, box, *setting, DEEP=False, BACK=False, TILE=tile)
        rays[(images * size * tiles,)](
            first, scale, image, passed, slope, other, box, *setting, KEEP=keep, DEPTH=16, TILE=tile
        )
    return image, kept


def render_back(
    position: Tensor, scale: Tensor, setting: Setting, kept: Kept, upstream: Tensor, scaled: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients by the positions, ``(M, J, 3)`` if they were asked for, and by the scale, ``(M,)`` if ``scaled``.

    It takes two volumes beside the one that was kept.

    Args:
        position: As given to :func:`render`, and the next two.
        scale: ``(M,)``.
        setting: The volume and its blur.
        kept: What :func:`render` returned.
        upstream: ``(M, V, V)`` gradient by the images, contiguous.
        scaled: Whether the scale's gradient is wanted.
    """
    push = upstream * kept.passed
    by_scale = (push * kept.slope).sum((1, 2)) if scaled else None
    if kept.free is None or kept.unclipped is None:
        return None, by_scale
    images, count, _ = position.shape
    size = setting.size
    by_position = torch.empty_like(position)
    if by_position.numel() == 0:
        return by_position, by_scale
    push = push * scale[:, None, None]
    deep, along = torch.empty_like(kept.free), torch.empty_like(kept.free)
    tile, _, programs = _tiles(images, size)
    lanes = triton.next_power_of_2(2 * setting.reach + 2)
    points = max(1, CELLS // lanes)
    with on_device(position):
        blur[(programs,)](kept.free, deep, push, kept.box, *setting, DEEP=True, BACK=True, TILE=tile)
        blur[(programs,)](deep, along, None, kept.box, *setting, DEEP=False, BACK=True, TILE=tile)
        gather[(images * triton.cdiv(count, points),)](
            position,
            scale,
            kept.unclipped,
            along,
            by_position,
            kept.box,
            count,
            *setting,
            POINTS=points,
            LANES=lanes,
        )
    return by_position, by_scale


def _tiles(images: int, size: int) -> tuple[int, int, int]:
    """A tile's side, tiles along an axis, and tiles of all planes of all volumes."""
    tile = min(TILE, triton.next_power_of_2(size))
    tiles = triton.cdiv(size, tile)
    return tile, tiles, images * size * tiles * tiles


def work(
    images: int, count: int, size: int, reach: int, extent: tuple[int, int, int] | None = None, backward: bool = False
) -> tuple[float, float]:
    """Operations and bytes of one pass, for a roofline.

    Bytes are those of each kernel's input and output, read and written once, with the first zeros; they are the
    limit. A fused multiply-add is two operations.

    Args:
        images: M.
        count: J.
        size: V.
        reach: Taps on either side.
        extent: Cells along x, y and z that hold weight; the whole grid if None.
        backward: The way back instead of the way there.
    """
    x, y, z = extent or (size, size, size)
    wide_x, wide_y, wide_z = (min(size, n + 2 * reach) for n in (x, y, z))
    stencil = 3 * reach + 1  # a sum and a fused multiply-add for each pair of taps, and a product
    rays, box = size * size, wide_x * wide_y * wide_z
    if backward:
        flat = wide_x * wide_y * z
        line = wide_x * y * z
        operations = stencil * (flat + line) + flat + 4 * (2 * reach + 2) * 17 * count + 5 * rays
        moved = 4 * (box + 2 * flat + 2 * line) + 20 * rays + 25 * count
    else:
        line = wide_x * y * z
        flat = wide_x * wide_y * z
        operations = stencil * (line + flat + box) + 12 * box + 40 * count
        moved = 4 * (size**3 + x * y * z + 2 * line + 2 * flat + box) + 12 * rays + (12 + 64 + 12 + 32 + 1) * count
    return float(images) * operations, float(images) * moved


_BLUR: dict[str, Any] = {"size": "i32", "reach": "i32", "rate": "fp32", "norm": "fp32"}
_POINTS = {"position": "*fp32", "count": "i32", "size": "i32"}
_BACK = {"scale": "*fp32", "unclipped": "*u8", "by_volume": "*fp32", "by_position": "*fp32", "box": "*i32"}
_RAYS = {name: "*fp32" for name in ("source", "scale", "image", "passed", "slope", "free")}

EXAMPLES = [
    *(
        example
        for kind, one in (("i32", 1 << 18), ("i64", 1 << 32))
        for example in (
            Example(
                scatter, {**_POINTS, "weight": f"*{kind}", "box": "*i32"}, {"ONE": one, "BLOCK": BLOCK}, label=kind
            ),
            Example(
                corners,
                {**_POINTS, "weight": f"*{kind}", "unclipped": "*u8"},
                {"ONE": one, "BLOCK": BLOCK},
                label=kind,
            ),
            Example(
                blur_across,
                {"weight": f"*{kind}", "target": "*fp32", "box": "*i32", **_BLUR},
                {"ONE": one, "TILE": TILE},
                label=kind,
            ),
        )
    ),
    *(
        Example(
            blur,
            {"source": "*fp32", "target": "*fp32", "push": "*fp32", "box": "*i32", **_BLUR},
            {"DEEP": deep, "BACK": back, "TILE": TILE},
            label=f"{'z' if deep else 'y'}{' back' if back else ''}",
        )
        for deep, back in ((False, False), (True, True), (False, True))
    ),
    *(
        Example(
            rays,
            {**_RAYS, "box": "*i32", **_BLUR},
            {"KEEP": keep, "DEPTH": 16, "TILE": TILE},
            label="kept" if keep else "",
        )
        for keep in (False, True)
    ),
    Example(gather, {**_POINTS, **_BACK, **_BLUR}, {"POINTS": 8, "LANES": 32}),
]
