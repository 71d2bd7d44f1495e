# mypy: allow-untyped-defs, allow-untyped-calls
"""The gradient of soft rasterisation on the GPU: a program gathers that of one face from the pixels of its box.

Each pair is computed anew from the corners and from what the forward kept of each pixel. The sums stay in registers
until the face is done: no atomics, no partial sums in memory, and always the same order of additions. Most faces have
small boxes, for which one warp is best: it needs no barriers. A second kernel looks for the others and gives each
eight warps, lest one face that covers the image keep a warp busy long after the rest.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from reconlab.kernels.gpu import Example, on_device
from reconlab.kernels.soft_rasterize.cuda_face import anticlockwise, clip, corners, edge, first_last, twice_area
from reconlab.kernels.soft_rasterize.cuda_tiles import NEVER
from reconlab.kernels.soft_rasterize.reference import Settings

MOST = 2048
"""Pixels of the largest box that one warp gathers, 64 at a time."""

PROGRAMS = 2048
"""Programs that look for larger ones, and gather them: two waves on the largest GPUs."""


@triton.jit
def _foot(u, v, x, y, length, inverse):
    """Of a point (u, v) from an edge's beginning, as to the closest point of the edge.

    Distance across the edge, positive inside; where along the edge it is, 0 to 1; the vector from there; its square.
    """
    along = u * x + v * y
    across = v * x - u * y
    reached = tl.minimum(tl.maximum(along, 0.0), length)
    beyond = along - reached
    return (
        across,
        reached * inverse,
        beyond * x - across * y,
        beyond * y + across * x,
        across * across + beyond * beyond,
    )


@triton.jit
def _corners_and_box(xyz, image_of, face, valid, height, width, radius):
    """Of drawn faces the corners, anticlockwise, the places of the last two, 1 / twice the area, and the pixel box.

    First column and row, columns, pixels; none of a face that is not drawn.
    """
    ax, ay, az, bx, by, bz, cx, cy, cz = corners(xyz, face, valid)
    ok = tl.load(image_of + face, mask=valid, other=-1) >= 0
    ax, ay, az, bx, by, bz, cx, cy, cz, b, c, inv_area = anticlockwise(
        ok, twice_area(ok, ax, ay, bx, by, cx, cy), ax, ay, az, bx, by, bz, cx, cy, cz
    )  # fmt: skip
    left, right = first_last(tl.minimum(tl.minimum(ax, bx), cx), tl.maximum(tl.maximum(ax, bx), cx), radius, width)
    upper, lower = first_last(tl.minimum(tl.minimum(ay, by), cy), tl.maximum(tl.maximum(ay, by), cy), radius, height)
    across = tl.maximum(right - left + 1, 0)
    count = tl.where(ok, across * tl.maximum(lower - upper + 1, 0), 0)
    return ax, ay, az, bx, by, bz, cx, cy, cz, b, c, inv_area, left, upper, tl.maximum(across, 1), count


@triton.jit
def _gather(
    xyz, grey, image_of, nearest, pull, share, top, shade, grad, grad_grey, height, width,
    radius, inv_sigma, limit, inv_scale, face, least, most, SHADED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the gradient of one face if its box has ``least`` to ``most`` pixels.

    ``pull`` is dL/dalpha times through and ``share`` dL/dshade over the weights, of every pixel.
    """
    ax, ay, az, bx, by, bz, cx, cy, cz, b, c, inv_area, left, upper, across, count = _corners_and_box(
        xyz, image_of, face, True, height, width, radius
    )  # fmt: skip
    mine = (count >= least) & (count <= most)
    count = tl.where(mine, count, 0)
    l0, x0, y0 = edge(ax, ay, bx, by)
    l1, x1, y1 = edge(bx, by, cx, cy)
    l2, x2, y2 = edge(cx, cy, ax, ay)
    i0, i1, i2 = 1.0 / l0, 1.0 / l1, 1.0 / l2
    image = tl.maximum(tl.load(image_of + face), 0)
    before = image.to(tl.int64) * height * width
    pull += before
    lane = tl.arange(0, BLOCK)
    zero = tl.zeros((BLOCK,), tl.float32)
    gx, gy, gbx, gby, gcx, gcy = zero, zero, zero, zero, zero, zero
    if SHADED:
        share += before
        top += before
        shade += before
        ha, hb, hc = l1 * inv_area, l2 * inv_area, l0 * inv_area
        low = tl.load(nearest + image)
        iza, izb, izc = 1.0 / az, 1.0 / bz, 1.0 / cz
        za, zb, zc = (az - low) * iza * inv_scale, (bz - low) * izb * inv_scale, (cz - low) * izc * inv_scale
        grey += face.to(tl.int64) * 3
        va, vb, vc = tl.load(grey), tl.load(grey + b), tl.load(grey + c)
        gza, gzb, gzc, gva, gvb, gvc = zero, zero, zero, zero, zero, zero
    # Lanes walk through the box row by row; the division is made once, then each step is added with a carry.
    row, column = lane // across, lane % across
    step_row, step_column = BLOCK // across, BLOCK % across
    done = 0
    while done < count:
        inside = done + lane < count
        px = ((left + column) * 2 + 1).to(tl.float32) / width - 1.0
        py = ((upper + row) * 2 + 1).to(tl.float32) / height - 1.0
        at = (upper + row) * width + left + column
        pc, t, dx, dy, d2 = _foot(px - ax, py - ay, x0, y0, l0, i0)
        wb, wc = t, zero  # the closest of the outline as a mix of the corners
        pa, t, ex, ey, e2 = _foot(px - bx, py - by, x1, y1, l1, i1)
        closer = e2 < d2
        d2 = tl.minimum(d2, e2)
        dx, dy = tl.where(closer, ex, dx), tl.where(closer, ey, dy)
        wb, wc = tl.where(closer, 1.0 - t, wb), tl.where(closer, t, wc)
        pb, t, ex, ey, e2 = _foot(px - cx, py - cy, x2, y2, l2, i2)
        closer = e2 < d2
        d2 = tl.minimum(d2, e2)
        dx, dy = tl.where(closer, ex, dx), tl.where(closer, ey, dy)
        wb, wc = tl.where(closer, 0.0, wb), tl.where(closer, 1.0 - t, wc)
        inner = tl.minimum(tl.minimum(pa, pb), pc) >= 0.0
        u = d2 * inv_sigma
        small = tl.exp(-u)
        more = 1.0 / (1.0 + small)
        less = small * more
        cover = tl.where(inner, more, tl.where(u < limit, less, 0.0))
        g = tl.load(pull + at, mask=inside, other=0.0) * cover
        if SHADED:
            ua, ub, uc = pa * ha, pb * hb, pc * hc
            na, nb, nc = clip(ua), clip(ub), clip(uc)
            total, inverse = na + nb + nc, na * iza + nb * izb + nc * izc
            rest = 1.0 / tl.maximum(total * inverse, 1e-30)  # of a sliver rounding may clip all three to 0
            inv, inv_y = inverse * rest, total * rest
            z = (na * za + nb * zb + nc * zc) * inv_y
            depth = inv_y * total
            na, nb, nc = na * inv, nb * inv, nc * inv
            value = na * va + nb * vb + nc * vc
            fade = tl.exp(-tl.maximum(tl.load(top + at, mask=inside, other=0.0) + z, 0.0))
            q = tl.load(share + at, mask=inside, other=0.0) * cover * fade  # dL/d(value)
            qd = q * (value - tl.load(shade + at, mask=inside, other=0.0))  # dL/d(log weight)
            g += qd * tl.where(inner, less, more)
            gva += q * na
            gvb += q * nb
            gvc += q * nc
            gd = -qd * inv_scale * depth
            gz = gd * depth
            gza += gz * na
            gzb += gz * nb
            gzc += gz * nc
            # By the barycentrics before they are clipped. These move against the corners: the corners weighted by
            # them are the pixel, hence d(bary_i)/d(corner_j) = -bary_j grad(bary_i).
            mean = q * value - gd
            ga = tl.where((ua > 0.0) & (ua < 1.0), (q * va - gz * iza - mean) * inv * ha, 0.0)
            gb = tl.where((ub > 0.0) & (ub < 1.0), (q * vb - gz * izb - mean) * inv * hb, 0.0)
            gc = tl.where((uc > 0.0) & (uc < 1.0), (q * vc - gz * izc - mean) * inv * hc, 0.0)
            hx = ga * y1 + gb * y2 + gc * y0
            hy = -(ga * x1 + gb * x2 + gc * x0)
            gx += ua * hx
            gy += ua * hy
            gbx += ub * hx
            gby += ub * hy
            gcx += uc * hx
            gcy += uc * hy
        g *= tl.where(inner, -2.0, 2.0) * inv_sigma
        dx, dy = g * dx, g * dy
        gx += (1.0 - wb - wc) * dx
        gy += (1.0 - wb - wc) * dy
        gbx += wb * dx
        gby += wb * dy
        gcx += wc * dx
        gcy += wc * dy
        done += BLOCK
        column += step_column
        row += step_row
        carry = column >= across
        row += carry.to(tl.int32)
        column = tl.where(carry, column - across, column)
    at = grad + face.to(tl.int64) * 9
    tl.store(at, tl.sum(gx), mask=mine)
    tl.store(at + 1, tl.sum(gy), mask=mine)
    tl.store(at + b * 3, tl.sum(gbx), mask=mine)
    tl.store(at + b * 3 + 1, tl.sum(gby), mask=mine)
    tl.store(at + c * 3, tl.sum(gcx), mask=mine)
    tl.store(at + c * 3 + 1, tl.sum(gcy), mask=mine)
    if SHADED:
        tl.store(at + 2, tl.sum(gza) * iza * iza, mask=mine)
        tl.store(at + b * 3 + 2, tl.sum(gzb) * izb * izb, mask=mine)
        tl.store(at + c * 3 + 2, tl.sum(gzc) * izc * izc, mask=mine)
        at = grad_grey + face.to(tl.int64) * 3
        tl.store(at, tl.sum(gva), mask=mine)
        tl.store(at + b, tl.sum(gvb), mask=mine)
        tl.store(at + c, tl.sum(gvc), mask=mine)
    else:
        tl.store(at + 2, 0.0, mask=mine)
        tl.store(at + b * 3 + 2, 0.0, mask=mine)
        tl.store(at + c * 3 + 2, 0.0, mask=mine)


@triton.jit
def _small(
    xyz, grey, image_of, nearest, pull, share, top, shade, grad, grad_grey, height, width,
    radius, inv_sigma, limit, inv_scale, most, SHADED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Of the face of this program, if its box has at most ``most`` pixels; zeros if it has none."""
    _gather(
        xyz, grey, image_of, nearest, pull, share, top, shade, grad, grad_grey, height, width,
        radius, inv_sigma, limit, inv_scale, tl.program_id(0), 0, most, SHADED, BLOCK,
    )  # fmt: skip


@triton.jit
def _large(
    xyz, grey, image_of, nearest, pull, share, top, shade, grad, grad_grey, height, width,
    radius, inv_sigma, limit, inv_scale, most, faces, SHADED: tl.constexpr, BLOCK: tl.constexpr, LOOK: tl.constexpr,
):  # fmt: skip
    """Of those of this program's faces whose boxes have more than ``most`` pixels; it looks at ``LOOK`` at once."""
    programs = tl.num_programs(0)
    lane = tl.arange(0, LOOK)
    for first in range(tl.program_id(0), faces, programs * LOOK):
        face = first + lane * programs
        _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, count = _corners_and_box(
            xyz, image_of, face, face < faces, height, width, radius
        )  # fmt: skip
        todo = count > most
        left = tl.sum(todo.to(tl.int32))
        while left > 0:
            which = tl.min(tl.where(todo, face, NEVER))
            todo &= face != which
            left -= 1
            _gather(
                xyz, grey, image_of, nearest, pull, share, top, shade, grad, grad_grey, height, width,
                radius, inv_sigma, limit, inv_scale, which, most + 1, NEVER, SHADED, BLOCK,
            )  # fmt: skip


def backward(
    xyz: Tensor,
    grey: Tensor | None,
    shade: Tensor,
    state: tuple[Tensor, ...],
    grad_alpha: Tensor,
    grad_shade: Tensor,
    s: Settings,
    most: int = MOST,
) -> tuple[Tensor, Tensor | None]:
    """Gradients to ``xyz`` and ``grey`` (None without it).

    Args:
        xyz: (F,3,3) contiguous float32.
        grey: (F,3), or None.
        shade: (M,H,W) as drawn; anything without ``grey``.
        state: What ``cuda.forward`` kept.
        grad_alpha: dL/dalpha (M,H,W).
        grad_shade: dL/dshade (M,H,W); anything without ``grey``.
        s: As drawn.
        most: Pixels of the largest box that one warp gathers.
    """
    grad, grad_grey = torch.zeros_like(xyz), None if grey is None else torch.zeros_like(grey)
    if not state:
        return grad, grad_grey
    kept, image, nearest = state
    pull, share, top = grad_alpha.reshape(-1) * kept[0], None, None
    if grey is not None:
        share, top = grad_shade.reshape(-1) / kept[2], kept[1]
    faces, shaded = len(xyz), grey is not None
    with on_device(xyz):
        given = (
            xyz, grey, image, nearest, pull, share, top, shade, grad, grad_grey, s.height, s.width,
            s.radius, 1.0 / s.sigma, s.limit, 1.0 / s.depth_scale, most,
        )  # fmt: skip
        _small[(faces,)](*given, SHADED=shaded, BLOCK=64, num_warps=1)
        _large[(min(faces, PROGRAMS),)](*given, faces, SHADED=shaded, BLOCK=256, LOOK=64, num_warps=8)
    return grad, grad_grey


_TYPES = {"xyz": "*fp32", "image_of": "*i32", "nearest": "*fp32", "pull": "*fp32", "grad": "*fp32"}
_TYPES |= {"shade": "*fp32", "height": "i32", "width": "i32", "radius": "fp32", "inv_sigma": "fp32"}
_TYPES |= {"limit": "fp32", "inv_scale": "fp32", "most": "i32", "faces": "i32"}
_GREY = {"grey": "*fp32", "share": "*fp32", "top": "*fp32", "grad_grey": "*fp32"}
_NONE: dict[str, None] = dict.fromkeys(_GREY)
EXAMPLES = [
    Example(_small, _TYPES, {"SHADED": False, "BLOCK": 64} | _NONE, 1, "silhouette"),
    Example(_small, _TYPES | _GREY, {"SHADED": True, "BLOCK": 64}, 1, "shaded"),
    Example(_large, _TYPES, {"SHADED": False, "BLOCK": 256, "LOOK": 64} | _NONE, 8, "silhouette"),
    Example(_large, _TYPES | _GREY, {"SHADED": True, "BLOCK": 256, "LOOK": 64}, 8, "shaded"),
]
