# mypy: allow-untyped-defs, allow-untyped-calls
"""Which faces reach which tile of an image, on the GPU: without a list of pairs and without waiting for the GPU.

An image is cut into tiles of ``SIDE`` x ``SIDE`` pixels and a program, one warp, draws one. A list of the faces of
each tile would have a length that only the GPU knows, and the host would have to wait for it: a gap in every step,
and no CUDA graph. Instead the faces of each image are sorted along a Morton curve (large ones apart, lest they
stretch the boxes of small ones) and every ``GROUP`` of them get a common box. A program compares its tile with
``GROUP`` groups at once, then with the ``GROUP`` faces of each group that it meets, and draws the faces that it
meets there in that order. Memory is O(faces).

The sort is stable and its keys depend on the faces alone, so that a tile always meets its faces in the same order.

Why 8 x 8: a face of a mesh of a few thousand covers 4 to 16 pixels across, and its blur some more; the tiles that it
reaches have to evaluate all of their pixels. With a grown box of side b they are about (1 + b/8)² 64 pixels, of
which b² are wanted; tiles of 16 take (1 + b/16)² 256, more until b is about 80. One warp, because then the search
and the reductions need no shared memory and no barriers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from reconlab.kernels.gpu import Example, on_device
from reconlab.kernels.soft_rasterize.cuda_face import corners, drawn
from reconlab.kernels.soft_rasterize.reference import MAX_COORDINATE, MIN_AREA2

SIDE = 8
"""Pixels along a tile's side."""

GROUP = SIDE * SIDE
"""Faces with a common box; as many as a tile has pixels, so that one vector of lanes serves both."""

WARPS_WANTED = 4096
"""Programs that fill a GPU: 32 on each of about 128 multiprocessors."""

BLOCK = 128

NEVER = tl.constexpr(2147483647)
"""First pixel of an empty box, and the index of no face."""


class Sorted(NamedTuple):
    """Faces in the order in which they are drawn."""

    order: Tensor  # (F,) int64 input index of each place: image by image, undrawn faces last
    image: Tensor  # (F,) int32 image of each face, by input index; -1 of those that are not drawn
    starts: Tensor  # (M+1,) int32 first place of each image
    nearest: Tensor  # (M,) float32 smallest corner depth of the drawn faces, or ``far``


@triton.jit
def spread_bits(x):
    """The low 6 bits of ``x`` with a zero after each."""
    x = (x | (x << 8)) & 0x00FF00FF
    x = (x | (x << 4)) & 0x0F0F0F0F
    x = (x | (x << 2)) & 0x33333333
    return (x | (x << 1)) & 0x55555555


@triton.jit
def _keys(
    xyz, starts, nearest, keys, image_of, faces, images, steps, near, far,
    LARGE: tl.constexpr, LEAST: tl.constexpr, NEAREST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Key (image, class of size, Morton code) and image of each face; minimum of the depths of each image.

    ``LEAST`` is a constant lest it be rounded to float32: whoever draws the faces compares with float64 again.
    """
    face = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = face < faces
    # The last image that starts at or before the face, by bisection; idle lanes look for the last face.
    wanted = tl.minimum(face, faces - 1)
    image = tl.zeros((BLOCK,), tl.int32)
    end = tl.zeros((BLOCK,), tl.int32) + images
    for _ in range(steps):
        middle = (image + end) // 2
        later = tl.load(starts + middle) > wanted
        end = tl.where(later, middle, end)
        image = tl.where(later, image, middle)
    ax, ay, az, bx, by, bz, cx, cy, cz = corners(xyz, face, valid)
    ok, _ = drawn(ax, ay, az, bx, by, bz, cx, cy, cz, near, far, LARGE, LEAST)
    ok &= valid
    x0 = tl.where(ok, tl.minimum(tl.minimum(ax, bx), cx), 0.0)
    x1 = tl.where(ok, tl.maximum(tl.maximum(ax, bx), cx), 0.0)
    y0 = tl.where(ok, tl.minimum(tl.minimum(ay, by), cy), 0.0)
    y1 = tl.where(ok, tl.maximum(tl.maximum(ay, by), cy), 0.0)
    size = tl.maximum(x1 - x0, y1 - y0)
    column = tl.minimum(tl.maximum((x0 * 0.5 + x1 * 0.5 + 1.0) * 32.0, 0.0), 63.0).to(tl.int32)
    row = tl.minimum(tl.maximum((y0 * 0.5 + y1 * 0.5 + 1.0) * 32.0, 0.0), 63.0).to(tl.int32)
    group = tl.where(size > 0.5, 0, tl.where(size > 0.125, 1, 2))
    key = tl.where(ok, group * 4096 + spread_bits(column) + spread_bits(row) * 2, 3 * 4096)
    tl.store(keys + face, image.to(keys.dtype.element_ty) * 16384 + key, mask=valid)
    tl.store(image_of + face, tl.where(ok, image, -1), mask=valid)
    if NEAREST:
        # As integers: positive floats are ordered as their bits are, and a minimum does not depend on the order.
        depth = tl.where(ok, tl.minimum(tl.minimum(az, bz), cz), far).to(tl.int32, bitcast=True)
        first = tl.min(image)
        if first == tl.max(image):
            tl.atomic_min(nearest + first, tl.min(depth), sem="relaxed")
        else:
            tl.atomic_min(nearest + image, depth, mask=ok, sem="relaxed")


@triton.jit
def store_boxes(boxes, groups, place, places, ok, x0, x1, y0, y1):
    """Store the pixel boxes (first and last column and row) of a group of faces, empty if not ``ok``, and its own."""
    x0 = tl.where(ok, x0, NEVER)
    x1 = tl.where(ok, x1, -1)
    y0 = tl.where(ok, y0, NEVER)
    y1 = tl.where(ok, y1, -1)
    inside = place < places
    group = tl.program_id(0)
    count = tl.num_programs(0)
    tl.store(boxes + place, x0, mask=inside)
    tl.store(boxes + places + place, x1, mask=inside)
    tl.store(boxes + 2 * places + place, y0, mask=inside)
    tl.store(boxes + 3 * places + place, y1, mask=inside)
    tl.store(groups + group, tl.min(x0))
    tl.store(groups + count + group, tl.max(x1))
    tl.store(groups + 2 * count + group, tl.min(y0))
    tl.store(groups + 3 * count + group, tl.max(y1))


@triton.jit
def overlap(boxes, index, count, valid, column, row, SIDE: tl.constexpr):
    """Which of the boxes ``index`` meet the tile whose first pixel is (column, row)."""
    x0 = tl.load(boxes + index, mask=valid, other=NEVER)
    x1 = tl.load(boxes + count + index, mask=valid, other=-1)
    y0 = tl.load(boxes + 2 * count + index, mask=valid, other=NEVER)
    y1 = tl.load(boxes + 3 * count + index, mask=valid, other=-1)
    return valid & (x0 < column + SIDE) & (x1 >= column) & (y0 < row + SIDE) & (y1 >= row)


@triton.jit
def tile_place(width, height, SIDE: tl.constexpr):
    """Image of this program, first column and row of its tile."""
    across = tl.cdiv(width, SIDE)
    tiles = across * tl.cdiv(height, SIDE)
    tile = tl.program_id(0) % tiles
    return tl.program_id(0) // tiles, tile % across * SIDE, tile // across * SIDE


def tiles(height: int, width: int) -> int:
    """Tiles of an image."""
    return -(-height // SIDE) * -(-width // SIDE)


def parts(images: int, height: int, width: int, most_faces: int) -> int:
    """Into how many parts the faces of an image are divided, each with programs of its own.

    Enough that there are programs to fill a GPU, and that a tile on which all the faces fall does not keep one
    program busy long after the rest; groups are dealt out in turn, so that neighbours fall to different parts. A
    part has at least 256 faces, and the parts' images, which are merged afterwards, at most 4 M pixels together.
    """
    programs = max(images * tiles(height, width), 1)
    wanted = max(-(-WARPS_WANTED // programs), -(-most_faces // 8192))
    return max(1, min(wanted, most_faces // 256, (1 << 22) // max(images * height * width, 1)))


def starts_on(splits: Tensor, device: torch.device) -> Tensor:
    """``splits`` (CPU) as int32 on ``device``; where all images have as many faces, nothing is copied there."""
    images = len(splits) - 1
    each = int(splits[-1]) // max(images, 1)
    if torch.equal(splits, torch.arange(images + 1, device=splits.device) * each):
        return torch.arange(images + 1, device=device, dtype=torch.int32) * each
    return splits.to(torch.int32).to(device, non_blocking=True)


def sort_faces(
    xyz: Tensor, splits: Tensor, near: float, far: float, large: float, least: float, nearest: bool = True
) -> Sorted:
    """The order in which the faces (F,3,3), F > 0, are drawn.

    Args:
        xyz: Corners, contiguous float32.
        splits: (M+1,) int64 on the CPU.
        near: Least depth of a corner that is drawn.
        far: Greatest.
        large: |x| and |y| from which on a corner is not drawn.
        least: Twice the area of the largest face that is not drawn.
        nearest: Whether the images' nearest depths are wanted; ``near`` must then be positive.
    """
    faces, images, device = len(xyz), len(splits) - 1, xyz.device
    starts = starts_on(splits, device)
    key = torch.empty(faces, dtype=torch.int32 if images < 1 << 17 else torch.int64, device=device)
    image = torch.empty(faces, dtype=torch.int32, device=device)
    depth = torch.full((images,), far, dtype=torch.float32, device=device)
    with on_device(xyz):
        _keys[(triton.cdiv(faces, BLOCK),)](
            xyz, starts, depth.view(torch.int32), key, image, faces, images, images.bit_length(), near, far,
            LARGE=large, LEAST=least, NEAREST=nearest, BLOCK=BLOCK, num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip
    return Sorted(torch.sort(key, stable=True).indices, image, starts, depth)


_TYPES = {"xyz": "*fp32", "starts": "*i32", "nearest": "*i32", "keys": "*i32", "image_of": "*i32"}
_TYPES |= {
    "faces": "i32",
    "images": "i32",
    "steps": "i32",
    "near": "fp32",
    "far": "fp32",
}
_CUT = {"LARGE": MAX_COORDINATE, "LEAST": MIN_AREA2, "BLOCK": BLOCK}
EXAMPLES = [Example(_keys, _TYPES, _CUT | {"NEAREST": n}, label="nearest" if n else "") for n in (True, False)]
