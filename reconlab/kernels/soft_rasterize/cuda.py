# mypy: allow-untyped-defs, allow-untyped-calls
"""Soft rasterisation on the GPU: a program draws a tile of an image, or gathers the gradient of a face.

Formula and constants: ``reference.py``. How a tile finds its faces: ``cuda_tiles.py``. Gradient: ``cuda_grad.py``.

Each program keeps the state of its 64 pixels in registers: the product of 1 - s and, with a grey value, an online
softmax over depth (largest exponent, weights, values), which begins at the background's exponent. What a face needs
at every pixel (unit vectors of the edges, reciprocals) is computed once and read as one record of 64 or 128 bytes.
If a GPU has room for more programs than there are tiles, the faces are divided among several, and a second kernel
merges their states, always in the same order. Nothing waits for the GPU, and the same input gives the same bits.

Cost: :func:`work`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from reconlab.kernels.gpu import Example, on_device
from reconlab.kernels.soft_rasterize import cuda_grad, cuda_tiles
from reconlab.kernels.soft_rasterize.cuda_face import anticlockwise, beside, clip, corners, drawn, edge, first_last
from reconlab.kernels.soft_rasterize.cuda_tiles import GROUP, NEVER, SIDE, overlap, store_boxes, tile_place
from reconlab.kernels.soft_rasterize.reference import MAX_COORDINATE, MIN_AREA2, Settings

RECORD, SHADED_RECORD = 16, 32
"""Numbers in a face's record."""

BLOCK = 256
"""Pixels of a program that merges."""


def work(pairs: int, faces: int, pixels: int, shaded: bool, backward: bool) -> tuple[float, float]:
    """Operations and bytes that a pass cannot do without: what its time is to be held against.

    Args:
        pairs: (Face, pixel) pairs in the faces' boxes grown by the blur's radius (``reference.pixel_boxes``).
        faces: Drawn, of all images.
        pixels: Of all images.
        shaded: Whether there is a grey value.
        backward: Which pass.

    Returns:
        Float32 operations (a multiply-add counts as two; divisions, exponentials, comparisons and selections as one),
        counted in the kernels' source, and bytes of the inputs and outputs, each moved once.
    """
    per_pair, per_face, per_pixel = {
        (False, False): (57, 36, 8),  # corners; alpha and through
        (True, False): (107, 36 + 12, 20),  # and grey values; alpha, image, through, top and weights
        (False, True): (109, 2 * 36, 8),  # corners and their gradient; dL/dalpha and through
        (True, True): (225, 2 * (36 + 12), 24),  # and of grey; both gradients and the state
    }[shaded, backward]
    return float(per_pair * pairs), float(per_face * faces + per_pixel * pixels)


@triton.jit
def _arrange(
    xyz, grey, order, image_of, nearest, records, boxes, groups, faces, height, width, near, far, radius, inv_scale,
    SHADED: tl.constexpr, RECORD: tl.constexpr, LARGE: tl.constexpr, LEAST: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Write the record and the pixel box of each face of one group, in the order of drawing, and the group's box."""
    place = tl.program_id(0) * GROUP + tl.arange(0, GROUP)
    inside = place < faces
    face = tl.load(order + place, mask=inside, other=0)
    ax, ay, az, bx, by, bz, cx, cy, cz = corners(xyz, face, inside)
    ok, area2 = drawn(ax, ay, az, bx, by, bz, cx, cy, cz, near, far, LARGE, LEAST)
    ok &= inside
    ax, ay, az, bx, by, bz, cx, cy, cz, b, c, inv_area = anticlockwise(
        ok, area2, ax, ay, az, bx, by, bz, cx, cy, cz
    )  # fmt: skip
    x0, x1 = first_last(tl.minimum(tl.minimum(ax, bx), cx), tl.maximum(tl.maximum(ax, bx), cx), radius, width)
    y0, y1 = first_last(tl.minimum(tl.minimum(ay, by), cy), tl.maximum(tl.maximum(ay, by), cy), radius, height)
    ok &= (x0 <= x1) & (y0 <= y1)
    store_boxes(boxes, groups, place, faces, ok, x0, x1, y0, y1)
    l0, dx0, dy0 = edge(ax, ay, bx, by)
    l1, dx1, dy1 = edge(bx, by, cx, cy)
    l2, dx2, dy2 = edge(cx, cy, ax, ay)
    # Beyond this distance from an edge nothing is seen, for certain: the radius and what rounding may add.
    reach = tl.maximum(tl.maximum(tl.abs(ax) + tl.abs(ay), tl.abs(bx) + tl.abs(by)), tl.abs(cx) + tl.abs(cy))
    reach = radius * 1.001 + (reach + 2.0) * 2e-6
    at = records + place.to(tl.int64) * RECORD
    tl.store(at, ax, mask=ok)
    tl.store(at + 1, ay, mask=ok)
    tl.store(at + 2, bx, mask=ok)
    tl.store(at + 3, by, mask=ok)
    tl.store(at + 4, cx, mask=ok)
    tl.store(at + 5, cy, mask=ok)
    tl.store(at + 6, dx0, mask=ok)
    tl.store(at + 7, dy0, mask=ok)
    tl.store(at + 8, dx1, mask=ok)
    tl.store(at + 9, dy1, mask=ok)
    tl.store(at + 10, dx2, mask=ok)
    tl.store(at + 11, dy2, mask=ok)
    tl.store(at + 12, l0, mask=ok)
    tl.store(at + 13, l1, mask=ok)
    tl.store(at + 14, l2, mask=ok)
    tl.store(at + 15, reach, mask=ok)
    if SHADED:
        low = tl.load(nearest + tl.load(image_of + face, mask=ok, other=0))
        # 1 / the triangle's height over the edge opposite to a, b, c; 1 / depth; depth from the nearest, over depth
        # and scale: the exponent's parts, free of cancellation; grey values.
        tl.store(at + 16, l1 * inv_area, mask=ok)
        tl.store(at + 17, l2 * inv_area, mask=ok)
        tl.store(at + 18, l0 * inv_area, mask=ok)
        tl.store(at + 19, 1.0 / az, mask=ok)
        tl.store(at + 20, 1.0 / bz, mask=ok)
        tl.store(at + 21, 1.0 / cz, mask=ok)
        tl.store(at + 22, (az - low) / az * inv_scale, mask=ok)
        tl.store(at + 23, (bz - low) / bz * inv_scale, mask=ok)
        tl.store(at + 24, (cz - low) / cz * inv_scale, mask=ok)
        tl.store(at + 25, tl.load(grey + face * 3, mask=inside, other=0.0), mask=ok)
        tl.store(at + 26, tl.load(grey + face * 3 + b, mask=inside, other=0.0), mask=ok)
        tl.store(at + 27, tl.load(grey + face * 3 + c, mask=inside, other=0.0), mask=ok)


@triton.jit
def _draw(
    records, boxes, groups, starts, nearest, partial, faces, group_count, pixels, height, width,
    inv_sigma, limit, base, far, inv_scale,
    SHADED: tl.constexpr, RECORD: tl.constexpr, SIDE: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Draw one part (program axis 1) of the faces on one tile (axis 0), into planes (state, part, image, pixel)."""
    image, column, row = tile_place(width, height, SIDE)
    lane = tl.arange(0, GROUP)
    columns = column + lane % SIDE
    rows = row + lane // SIDE
    px = (columns * 2 + 1).to(tl.float32) / width - 1.0
    py = (rows * 2 + 1).to(tl.float32) / height - 1.0
    middle_x = (column * 2 + SIDE).to(tl.float32) / width - 1.0
    middle_y = (row * 2 + SIDE).to(tl.float32) / height - 1.0
    half_x = (SIDE - 1.0) / width  # from the middle to the outermost centres
    half_y = (SIDE - 1.0) / height
    begin = tl.load(starts + image)
    end = tl.load(starts + image + 1)
    through = tl.full((GROUP,), 1.0, tl.float32)
    top = through * 0.0
    weights = through * 0.0
    values = through * 0.0
    if SHADED:
        top += base - (far - tl.load(nearest + image)) * inv_scale
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
                at = records + which.to(tl.int64) * RECORD
                ax, ay = tl.load(at), tl.load(at + 1)
                bx, by = tl.load(at + 2), tl.load(at + 3)
                cx, cy = tl.load(at + 4), tl.load(at + 5)
                x0, y0 = tl.load(at + 6), tl.load(at + 7)
                x1, y1 = tl.load(at + 8), tl.load(at + 9)
                x2, y2 = tl.load(at + 10), tl.load(at + 11)
                # The least over the edges of how far the tile reaches inside: a box is twice its triangle.
                p0 = (middle_y - ay) * x0 - (middle_x - ax) * y0 + tl.abs(x0) * half_y + tl.abs(y0) * half_x
                p1 = (middle_y - by) * x1 - (middle_x - bx) * y1 + tl.abs(x1) * half_y + tl.abs(y1) * half_x
                p2 = (middle_y - cy) * x2 - (middle_x - cx) * y2 + tl.abs(x2) * half_y + tl.abs(y2) * half_x
                if tl.minimum(tl.minimum(p0, p1), p2) > -tl.load(at + 15):
                    pc, d0 = beside(px - ax, py - ay, x0, y0, tl.load(at + 12))
                    pa, d1 = beside(px - bx, py - by, x1, y1, tl.load(at + 13))
                    pb, d2 = beside(px - cx, py - cy, x2, y2, tl.load(at + 14))
                    inner = tl.minimum(tl.minimum(pa, pb), pc) >= 0.0
                    u = tl.minimum(tl.minimum(d0, d1), d2) * inv_sigma
                    small = tl.exp(-u)
                    more = 1.0 / (1.0 + small)
                    less = small * more
                    seen = inner | (u < limit)
                    through *= tl.where(seen, tl.where(inner, less, more), 1.0)
                    if SHADED:
                        na = clip(pa * tl.load(at + 16))
                        nb = clip(pb * tl.load(at + 17))
                        nc = clip(pc * tl.load(at + 18))
                        inverse = na * tl.load(at + 19) + nb * tl.load(at + 20) + nc * tl.load(at + 21)
                        deeper = na * tl.load(at + 22) + nb * tl.load(at + 23) + nc * tl.load(at + 24)
                        value = na * tl.load(at + 25) + nb * tl.load(at + 26) + nc * tl.load(at + 27)
                        total = na + nb + nc
                        rest = 1.0 / tl.maximum(
                            total * inverse, 1e-30
                        )  # of a sliver rounding may clip all three to 0
                        value *= inverse * rest
                        z = tl.where(seen, -deeper * total * rest, -1e30)
                        fade = tl.exp(-tl.abs(z - top))
                        ahead = z > top
                        weight = tl.where(ahead, 1.0, fade) * tl.where(inner, more, less)
                        keep = tl.where(ahead, fade, 1.0)
                        top = tl.maximum(top, z)
                        weights = weights * keep + weight
                        values = values * keep + weight * value
        first += GROUP * parts
    inside = (columns < width) & (rows < height)
    plane = parts.to(tl.int64) * pixels
    at = partial + part.to(tl.int64) * pixels + image.to(tl.int64) * height * width + rows * width + columns
    tl.store(at, through, mask=inside)
    if SHADED:
        tl.store(at + plane, top, mask=inside)
        tl.store(at + 2 * plane, weights, mask=inside)
        tl.store(at + 3 * plane, values, mask=inside)


@triton.jit
def _merge(
    partial, nearest, state, alpha, shade, pixels, per_image, parts, step, base, far, inv_scale,
    SHADED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Merge the parts of each pixel, add the background; ``state`` (through, top, weights) may be part 0 itself."""
    pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    through = tl.load(partial + pixel, mask=inside, other=1.0)
    own = partial + pixel
    for _ in range(1, parts):
        own += pixels
        through *= tl.load(own, mask=inside, other=1.0)
    tl.store(alpha + pixel, 1.0 - through, mask=inside)
    if SHADED:
        at_top = partial + step + pixel
        at_weights = at_top + step
        at_values = at_weights + step
        top = tl.load(at_top, mask=inside, other=0.0)
        weights = tl.load(at_weights, mask=inside, other=1.0)
        values = tl.load(at_values, mask=inside, other=0.0)
        for _ in range(1, parts):
            at_top += pixels
            at_weights += pixels
            at_values += pixels
            other = tl.load(at_top, mask=inside, other=0.0)
            highest = tl.maximum(top, other)
            keep = tl.exp(top - highest)
            fade = tl.exp(other - highest)
            weights = weights * keep + tl.load(at_weights, mask=inside, other=0.0) * fade
            values = values * keep + tl.load(at_values, mask=inside, other=0.0) * fade
            top = highest
        low = tl.load(nearest + pixel // per_image, mask=inside, other=0.0)
        weights += tl.exp(base - (far - low) * inv_scale - top)
        tl.store(shade + pixel, values / weights, mask=inside)
        at = state + pixels + pixel
        tl.store(at, top, mask=inside)
        tl.store(at + pixels, weights, mask=inside)
    tl.store(state + pixel, through, mask=inside)


def forward(
    xyz: Tensor, grey: Tensor | None, splits: Tensor, s: Settings, parts: int | None = None
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Alpha (M,H,W), shade (empty without ``grey``) and what :func:`backward` needs.

    Args:
        xyz: (F,3,3) contiguous float32.
        grey: (F,3) contiguous float32, or None.
        splits: (M+1,) int64 on the CPU.
        s: Image size and the formula's constants.
        parts: Into how many parts each image's faces are divided; None chooses.
    """
    faces, images, size = len(xyz), len(splits) - 1, (len(splits) - 1, s.height, s.width)
    pixels = images * s.height * s.width
    shaded, depth = grey is not None, (s.eps / s.gamma, s.far, 1.0 / s.depth_scale)
    if faces == 0 or pixels == 0:
        zero = xyz.new_zeros(size)
        return zero, zero.clone() if shaded else xyz.new_empty(0), ()
    if parts is None:
        parts = cuda_tiles.parts(images, s.height, s.width, int((splits[1:] - splits[:-1]).max()))
    record, group_count = SHADED_RECORD if shaded else RECORD, triton.cdiv(faces, GROUP)
    found = cuda_tiles.sort_faces(xyz, splits, s.near, s.far, MAX_COORDINATE, MIN_AREA2)
    records = xyz.new_empty(faces, record)
    boxes, groups = (torch.empty(4, n, dtype=torch.int32, device=xyz.device) for n in (faces, group_count))
    partial = xyz.new_empty(4 if shaded else 1, parts, pixels)
    state = partial if parts == 1 else xyz.new_empty(3 if shaded else 1, pixels)
    alpha, shade = xyz.new_empty(size), xyz.new_empty(size if shaded else 0)
    with on_device(xyz):
        _arrange[(group_count,)](
            xyz, grey, found.order, found.image, found.nearest, records, boxes, groups, faces, s.height, s.width,
            s.near, s.far, s.radius, depth[2],
            SHADED=shaded, RECORD=record, LARGE=MAX_COORDINATE, LEAST=MIN_AREA2, GROUP=GROUP,
            num_warps=2, enable_fp_fusion=False,
        )  # fmt: skip
        _draw[(images * cuda_tiles.tiles(s.height, s.width), parts)](
            records, boxes, groups, found.starts, found.nearest, partial, faces, group_count, pixels,
            s.height, s.width, 1.0 / s.sigma, s.limit, *depth,
            SHADED=shaded, RECORD=record, SIDE=SIDE, GROUP=GROUP, num_warps=1,
        )  # fmt: skip
        _merge[(triton.cdiv(pixels, BLOCK),)](
            partial, found.nearest, state, alpha, shade, pixels, s.height * s.width, parts, parts * pixels, *depth,
            SHADED=shaded, BLOCK=BLOCK, num_warps=4,
        )  # fmt: skip
    return alpha, shade, (state.view(-1, pixels), found.image, found.nearest)


_COMMON = {"faces": "i32", "height": "i32", "width": "i32", "near": "fp32", "far": "fp32", "radius": "fp32"}
_COMMON |= {"inv_scale": "fp32", "inv_sigma": "fp32", "limit": "fp32", "base": "fp32", "nearest": "*fp32"}
_ARRANGE = {
    "xyz": "*fp32",
    "order": "*i64",
    "image_of": "*i32",
    "records": "*fp32",
    "boxes": "*i32",
    "groups": "*i32",
}
_DRAW = {"records": "*fp32", "boxes": "*i32", "groups": "*i32", "starts": "*i32", "partial": "*fp32"}
_DRAW |= {"group_count": "i32", "pixels": "i32"} | _COMMON
_MERGE = {"partial": "*fp32", "state": "*fp32", "alpha": "*fp32", "shade": "*fp32", "pixels": "i32"}
_MERGE |= {"per_image": "i32", "parts": "i32", "step": "i32"} | _COMMON
_NAMED = [("silhouette", {"SHADED": False, "RECORD": RECORD}), ("shaded", {"SHADED": True, "RECORD": SHADED_RECORD})]
_CUT = {"LARGE": MAX_COORDINATE, "LEAST": MIN_AREA2, "GROUP": GROUP}
EXAMPLES = [*cuda_tiles.EXAMPLES]
for _label, _constants in _NAMED:
    _grey = {"grey": "*fp32"} if _constants["SHADED"] else {}
    EXAMPLES += [
        Example(
            _arrange, _ARRANGE | _COMMON | _grey, _constants | _CUT | ({} if _grey else {"grey": None}), 2, _label
        ),
        Example(_draw, _DRAW, _constants | {"SIDE": SIDE, "GROUP": GROUP}, 1, _label),
        Example(_merge, _MERGE, {"SHADED": _constants["SHADED"], "BLOCK": BLOCK}, 4, _label),
    ]
EXAMPLES += cuda_grad.EXAMPLES
