# mypy: allow-untyped-defs, allow-untyped-calls
"""The z-buffer on the GPU: a program draws a tile of an image. How it finds its faces: soft_rasterize's cuda_tiles.

Coverage and depth are computed in float64, as the numba kernel does: a centre on the edge that two faces share has to
fall to both, and of two faces that meet there the same has to win everywhere; in float32 thin faces leave cracks.
With the same operations in the same order, and without fused multiply-adds, which round otherwise, the images are
those of the numba kernel to the bit. A program's faces do not come in the order of the input: of equal depths the
lower index wins.

Cost: :func:`work`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from reconlab.kernels.gpu import Example, on_device
from reconlab.kernels.soft_rasterize import cuda_tiles
from reconlab.kernels.soft_rasterize.cuda_face import corners, drawn
from reconlab.kernels.soft_rasterize.cuda_tiles import GROUP, NEVER, SIDE, overlap, store_boxes, tile_place

RECORD = 10
"""Numbers in a face's record: x and y of each corner, 1 / area, 1 / depth of each corner; all float64."""

BLOCK = 256
"""Pixels of a program that merges."""

FAR, LARGE = torch.finfo(torch.float32).max, float("inf")


def work(pairs: int, faces: int, pixels: int) -> tuple[float, float]:
    """Operations and bytes that cannot be done without: what the kernel's time is to be held against.

    Args:
        pairs: (Face, pixel) pairs in the faces' boxes.
        faces: Drawn, of all images.
        pixels: Of all images.

    Returns:
        Float64 operations, and bytes of the corners, depths and indices, each moved once.
    """
    return float(28 * pairs), float(36 * faces + 8 * pixels)


@triton.jit
def _first_last(low, high, size):
    """First and last pixel whose centre lies in [low, high], float64; last < first if there is none."""
    first = tl.maximum(tl.ceil(tl.minimum(tl.maximum((low + 1) * size / 2 - 0.5, -1.0), size * 1.0)), 0.0)
    last = tl.minimum(tl.floor(tl.maximum(tl.minimum((high + 1) * size / 2 - 0.5, size * 1.0), -1.0)), size - 1.0)
    return first.to(tl.int32), last.to(tl.int32)


@triton.jit
def _arrange(
    xyz, order, records, boxes, groups, faces, height, width, near, far,
    RECORD: tl.constexpr, LARGE: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Write the record and the pixel box of each face of one group, in the order of drawing, and the group's box."""
    place = tl.program_id(0) * GROUP + tl.arange(0, GROUP)
    inside = place < faces
    ax, ay, az, bx, by, bz, cx, cy, cz = corners(xyz, tl.load(order + place, mask=inside, other=0), inside)
    ok, area2 = drawn(ax, ay, az, bx, by, bz, cx, cy, cz, near, far, LARGE, 0.0)
    ok &= inside
    ax, ay = tl.where(ok, ax, 0.0).to(tl.float64), tl.where(ok, ay, 0.0).to(tl.float64)
    bx, by = tl.where(ok, bx, 0.0).to(tl.float64), tl.where(ok, by, 0.0).to(tl.float64)
    cx, cy = tl.where(ok, cx, 0.0).to(tl.float64), tl.where(ok, cy, 0.0).to(tl.float64)
    x0, x1 = _first_last(tl.minimum(tl.minimum(ax, bx), cx), tl.maximum(tl.maximum(ax, bx), cx), width)
    y0, y1 = _first_last(tl.minimum(tl.minimum(ay, by), cy), tl.maximum(tl.maximum(ay, by), cy), height)
    ok &= (x0 <= x1) & (y0 <= y1)
    store_boxes(boxes, groups, place, faces, ok, x0, x1, y0, y1)
    at = records + place.to(tl.int64) * RECORD
    tl.store(at, ax, mask=ok)
    tl.store(at + 1, ay, mask=ok)
    tl.store(at + 2, bx, mask=ok)
    tl.store(at + 3, by, mask=ok)
    tl.store(at + 4, cx, mask=ok)
    tl.store(at + 5, cy, mask=ok)
    tl.store(at + 6, 1.0 / tl.where(ok, area2, 1.0), mask=ok)
    tl.store(at + 7, 1.0 / tl.where(ok, az, 1.0).to(tl.float64), mask=ok)
    tl.store(at + 8, 1.0 / tl.where(ok, bz, 1.0).to(tl.float64), mask=ok)
    tl.store(at + 9, 1.0 / tl.where(ok, cz, 1.0).to(tl.float64), mask=ok)


@triton.jit
def _draw(
    records, order, boxes, groups, starts, inverse, seen, faces, group_count, pixels, height, width,
    RECORD: tl.constexpr, SIDE: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Draw one part (program axis 1) of the faces on one tile (axis 0): 1 / depth and index, (part, image, pixel)."""
    image, column, row = tile_place(width, height, SIDE)
    lane = tl.arange(0, GROUP)
    columns = column + lane % SIDE
    rows = row + lane // SIDE
    px = (columns * 2 + 1).to(tl.float64) / width - 1.0
    py = (rows * 2 + 1).to(tl.float64) / height - 1.0
    begin = tl.load(starts + image)
    end = tl.load(starts + image + 1)
    best = tl.zeros((GROUP,), tl.float64)
    winner = tl.full((GROUP,), -1, tl.int32)
    part = tl.program_id(1)
    parts = tl.num_programs(1)
    first = begin // GROUP + part
    last = tl.cdiv(end, GROUP)
    while first < last:
        group = first + lane * parts
        met = overlap(groups, group, group_count, group < last, column, row, SIDE)
        groups_left = tl.sum(met.to(tl.int32))
        while groups_left > 0:
            chosen = tl.min(tl.where(met, group, NEVER))
            met &= group != chosen
            groups_left -= 1
            place = chosen * GROUP + lane
            found = overlap(boxes, place, faces, (place >= begin) & (place < end), column, row, SIDE)
            left = tl.sum(found.to(tl.int32))
            while left > 0:
                which = tl.min(tl.where(found, place, NEVER))
                found &= place != which
                left -= 1
                face = tl.load(order + which).to(tl.int32) - begin
                at = boxes + which
                box = (columns >= tl.load(at)) & (columns <= tl.load(at + faces))
                at += faces
                at += faces
                box &= (rows >= tl.load(at)) & (rows <= tl.load(at + faces))
                at = records + which.to(tl.int64) * RECORD
                ax, ay = tl.load(at) - px, tl.load(at + 1) - py
                bx, by = tl.load(at + 2) - px, tl.load(at + 3) - py
                cx, cy = tl.load(at + 4) - px, tl.load(at + 5) - py
                inv = tl.load(at + 6)
                wa = (bx * cy - by * cx) * inv
                wb = (cx * ay - cy * ax) * inv
                wc = (ax * by - ay * bx) * inv
                near = wa * tl.load(at + 7) + wb * tl.load(at + 8) + wc * tl.load(at + 9)
                wins = box & (wa >= 0) & (wb >= 0) & (wc >= 0)
                wins &= (near > best) | ((near == best) & (face < winner))
                best = tl.where(wins, near, best)
                winner = tl.where(wins, face, winner)
        first += GROUP * parts
    inside = (columns < width) & (rows < height)
    at = part.to(tl.int64) * pixels + image.to(tl.int64) * height * width + rows * width + columns
    tl.store(inverse + at, best, mask=inside)
    tl.store(seen + at, winner, mask=inside)


@triton.jit
def _merge(
    xyz, starts, inverse, seen, depth, face, bary, pixels, height, width, parts,
    BARY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Keep the nearest of the parts; depth, index and, if wanted, barycentrics of each pixel."""
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    inverse += pixel
    seen += pixel
    best = tl.load(inverse, mask=inside, other=0.0)
    winner = tl.load(seen, mask=inside, other=-1)
    for _ in range(1, parts):
        inverse += pixels
        seen += pixels
        near = tl.load(inverse, mask=inside, other=0.0)
        other = tl.load(seen, mask=inside, other=-1)
        wins = (near > best) | ((near == best) & (other < winner))
        best = tl.where(wins, near, best)
        winner = tl.where(wins, other, winner)
    hit = best > 0
    far = tl.full((BLOCK,), float("inf"), tl.float32)
    tl.store(depth + pixel, tl.where(hit, (1.0 / tl.where(hit, best, 1.0)).to(tl.float32), far), mask=inside)
    tl.store(face + pixel, winner, mask=inside)
    if BARY:
        column = pixel % width
        row = pixel // width % height
        px = (column * 2 + 1).to(tl.float64) / width - 1.0
        py = (row * 2 + 1).to(tl.float64) / height - 1.0
        at = tl.load(starts + pixel // width // height, mask=inside, other=0) + winner
        ax, ay, az, bx, by, bz, cx, cy, cz = corners(xyz, at, hit)
        ax, ay = ax.to(tl.float64) - px, ay.to(tl.float64) - py
        bx, by = bx.to(tl.float64) - px, by.to(tl.float64) - py
        cx, cy = cx.to(tl.float64) - px, cy.to(tl.float64) - py
        # 1 / the area cancels.
        area2 = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        turn = tl.where(area2 < 0, -1.0, 1.0)
        wa = (bx * cy - by * cx) * turn / tl.where(hit, az, 1.0)
        wb = (cx * ay - cy * ax) * turn / tl.where(hit, bz, 1.0)
        wc = (ax * by - ay * bx) * turn / tl.where(hit, cz, 1.0)
        total = tl.where(hit, wa + wb + wc, 1.0)
        bary += pixel * 3
        tl.store(bary, tl.where(hit, wa / total, 0.0).to(tl.float32), mask=inside)
        tl.store(bary + 1, tl.where(hit, wb / total, 0.0).to(tl.float32), mask=inside)
        tl.store(bary + 2, tl.where(hit, wc / total, 0.0).to(tl.float32), mask=inside)


def zbuffer(
    xyz: Tensor,
    splits: Tensor,
    height: int,
    width: int,
    near: float,
    barycentrics: bool = False,
    parts: int | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Depth, face and barycentrics of every image; see :func:`reconlab.kernels.zbuffer.zbuffer`.

    Args:
        xyz: (F,3,3) contiguous float32.
        splits: (M+1,) int64 on the CPU.
        height: H.
        width: W.
        near: Nearest depth drawn.
        barycentrics: Whether they are wanted.
        parts: Into how many parts each image's faces are divided; None chooses.
    """
    faces, images, device = len(xyz), len(splits) - 1, xyz.device
    size, pixels, group_count = (images, height, width), images * height * width, triton.cdiv(faces, GROUP)
    depth, face = xyz.new_full(size, float("inf")), torch.full(size, -1, dtype=torch.int32, device=device)
    bary = xyz.new_zeros(*size, 3) if barycentrics else None
    if faces == 0 or pixels == 0:
        return depth, face, bary
    if parts is None:
        parts = cuda_tiles.parts(images, height, width, int((splits[1:] - splits[:-1]).max()))
    found = cuda_tiles.sort_faces(xyz, splits, near, FAR, LARGE, 0.0, nearest=False)
    records = torch.empty(faces, RECORD, dtype=torch.float64, device=device)
    boxes, groups = (torch.empty(4, n, dtype=torch.int32, device=device) for n in (faces, group_count))
    inverse = torch.empty(parts, pixels, dtype=torch.float64, device=device)
    seen = torch.empty(parts, pixels, dtype=torch.int32, device=device)
    with on_device(xyz):
        _arrange[(group_count,)](
            xyz, found.order, records, boxes, groups, faces, height, width, near, FAR,
            RECORD=RECORD, LARGE=LARGE, GROUP=GROUP, num_warps=2, enable_fp_fusion=False,
        )  # fmt: skip
        _draw[(images * cuda_tiles.tiles(height, width), parts)](
            records, found.order, boxes, groups, found.starts, inverse, seen, faces, group_count, pixels,
            height, width, RECORD=RECORD, SIDE=SIDE, GROUP=GROUP, num_warps=1, enable_fp_fusion=False,
        )  # fmt: skip
        _merge[(triton.cdiv(pixels, BLOCK),)](
            xyz, found.starts, inverse, seen, depth, face, bary, pixels, height, width, parts,
            BARY=barycentrics, BLOCK=BLOCK, num_warps=4, enable_fp_fusion=False,
        )  # fmt: skip
    return depth, face, bary


_SIZES = {"faces": "i32", "group_count": "i32", "pixels": "i32", "height": "i32", "width": "i32", "parts": "i32"}
_TYPES = {"xyz": "*fp32", "order": "*i64", "records": "*fp64", "boxes": "*i32", "groups": "*i32", "starts": "*i32"}
_TYPES |= {"inverse": "*fp64", "seen": "*i32", "depth": "*fp32", "face": "*i32", "near": "fp32", "far": "fp32"}
_TYPES |= _SIZES
EXAMPLES = [
    Example(_arrange, _TYPES, {"RECORD": RECORD, "LARGE": LARGE, "GROUP": GROUP}, 2),
    Example(_draw, _TYPES, {"RECORD": RECORD, "SIDE": SIDE, "GROUP": GROUP}, 1),
    Example(_merge, _TYPES, {"bary": None, "BARY": False, "BLOCK": BLOCK}, 4, "depth"),
    Example(_merge, _TYPES | {"bary": "*fp32"}, {"BARY": True, "BLOCK": BLOCK}, 4, "barycentrics"),
]
