# mypy: allow-untyped-defs, allow-untyped-calls
"""The gradient of soft rasterisation on the GPU: a program gathers that of one face from the pixels of its box.

Each pair is computed anew from the corners and from what the forward kept of each pixel. The sums stay in registers
until the face is done: no atomics, no partial sums in memory, and always the same order of additions.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from reconlab.kernels.gpu import Example, on_device
from reconlab.kernels.soft_rasterize.cuda_face import anticlockwise, clip, corners, drawn, edge, first_last
from reconlab.kernels.soft_rasterize.reference import MAX_COORDINATE, MIN_AREA2, Settings


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
def _gather(
    xyz, grey, image_of, nearest, pull, share, top, shade, grad, grad_grey, height, width,
    near, far, radius, inv_sigma, limit, inv_scale,
    SHADED: tl.constexpr, LARGE: tl.constexpr, LEAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the gradient of one face.

    ``pull`` is dL/dalpha times through and ``share`` dL/dshade over the weights, of every pixel.
    """
    face = tl.program_id(0)
    ax, ay, az, bx, by, bz, cx, cy, cz = corners(xyz, face, True)
    ok, area2 = drawn(ax, ay, az, bx, by, bz, cx, cy, cz, near, far, LARGE, LEAST)
    ax, ay, az, bx, by, bz, cx, cy, cz, b, c, inv_area = anticlockwise(
        ok, area2, ax, ay, az, bx, by, bz, cx, cy, cz
    )  # fmt: skip
    left, right = first_last(tl.minimum(tl.minimum(ax, bx), cx), tl.maximum(tl.maximum(ax, bx), cx), radius, width)
    upper, lower = first_last(tl.minimum(tl.minimum(ay, by), cy), tl.maximum(tl.maximum(ay, by), cy), radius, height)
    across = tl.maximum(right - left + 1, 0)
    count = tl.where(ok, across * tl.maximum(lower - upper + 1, 0), 0)
    across = tl.maximum(across, 1)
    l0, x0, y0 = edge(ax, ay, bx, by)
    l1, x1, y1 = edge(bx, by, cx, cy)
    l2, x2, y2 = edge(cx, cy, ax, ay)
    i0, i1, i2 = 1.0 / l0, 1.0 / l1, 1.0 / l2
    image = tl.load(image_of + face)
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
    tl.store(at, tl.where(ok, tl.sum(gx), 0.0))
    tl.store(at + 1, tl.where(ok, tl.sum(gy), 0.0))
    tl.store(at + b * 3, tl.where(ok, tl.sum(gbx), 0.0))
    tl.store(at + b * 3 + 1, tl.where(ok, tl.sum(gby), 0.0))
    tl.store(at + c * 3, tl.where(ok, tl.sum(gcx), 0.0))
    tl.store(at + c * 3 + 1, tl.where(ok, tl.sum(gcy), 0.0))
    if SHADED:
        tl.store(at + 2, tl.where(ok, tl.sum(gza) * iza * iza, 0.0))
        tl.store(at + b * 3 + 2, tl.where(ok, tl.sum(gzb) * izb * izb, 0.0))
        tl.store(at + c * 3 + 2, tl.where(ok, tl.sum(gzc) * izc * izc, 0.0))
        at = grad_grey + face.to(tl.int64) * 3
        tl.store(at, tl.where(ok, tl.sum(gva), 0.0))
        tl.store(at + b, tl.where(ok, tl.sum(gvb), 0.0))
        tl.store(at + c, tl.where(ok, tl.sum(gvc), 0.0))
    else:
        tl.store(at + 2, 0.0)
        tl.store(at + b * 3 + 2, 0.0)
        tl.store(at + c * 3 + 2, 0.0)


def lanes(faces: int, pixels: int, radius: float) -> tuple[int, int]:
    """Pixels that a program takes at once, and its warps, by the size that the faces' boxes are likely to have.

    The faces of a closed mesh that fills the image cover it twice. A box of that size and its blur is taken in few
    steps by one warp, which needs no barriers; of few and large faces each is given four warps.

    Args:
        faces: F, of all images.
        pixels: Of all images.
        radius: Of the blur, in pixels.
    """
    side = math.sqrt(2.0 * pixels / max(faces, 1)) + 2.0 * radius
    return (64, 1) if side < 48 else (256, 4)


def backward(
    xyz: Tensor,
    grey: Tensor | None,
    shade: Tensor,
    state: tuple[Tensor, ...],
    grad_alpha: Tensor,
    grad_shade: Tensor,
    s: Settings,
) -> tuple[Tensor, Tensor | None]:
    """Gradients to ``xyz`` and ``grey`` (None without it); ``state`` is what ``cuda.forward`` kept."""
    grad, grad_grey = torch.zeros_like(xyz), None if grey is None else torch.zeros_like(grey)
    if not state:
        return grad, grad_grey
    kept, image, nearest = state
    pull, share, top = grad_alpha.reshape(-1) * kept[0], None, None
    if grey is not None:
        share, top = grad_shade.reshape(-1) / kept[2], kept[1]
    block, warps = lanes(len(xyz), pull.numel(), s.radius * max(s.height, s.width) / 2)
    with on_device(xyz):
        _gather[(len(xyz),)](
            xyz, grey, image, nearest, pull, share, top, shade, grad, grad_grey, s.height, s.width,
            s.near, s.far, s.radius, 1.0 / s.sigma, s.limit, 1.0 / s.depth_scale,
            SHADED=grey is not None, LARGE=MAX_COORDINATE, LEAST=MIN_AREA2, BLOCK=block, num_warps=warps,
        )  # fmt: skip
    return grad, grad_grey


_TYPES = {"xyz": "*fp32", "image_of": "*i32", "nearest": "*fp32", "pull": "*fp32", "grad": "*fp32"}
_TYPES |= {"shade": "*fp32", "height": "i32", "width": "i32", "near": "fp32", "far": "fp32", "radius": "fp32"}
_TYPES |= {"inv_sigma": "fp32", "limit": "fp32", "inv_scale": "fp32"}
_GREY = {"grey": "*fp32", "share": "*fp32", "top": "*fp32", "grad_grey": "*fp32"}
_CUT = {"LARGE": MAX_COORDINATE, "LEAST": MIN_AREA2}
EXAMPLES = [
    Example(_gather, _TYPES, {"SHADED": False, "BLOCK": 64} | _CUT | dict.fromkeys(_GREY), 1, "silhouette"),
    Example(_gather, _TYPES | _GREY, {"SHADED": True, "BLOCK": 64} | _CUT, 1, "shaded"),
    Example(_gather, _TYPES | _GREY, {"SHADED": True, "BLOCK": 256} | _CUT, 4, "shaded, large"),
]
