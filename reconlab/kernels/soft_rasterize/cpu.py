"""Soft rasterisation in numba: faces scattered forward with an online softmax, gathered backward with recompute.

O(1) memory per pixel and no limit on the faces per pixel. Formula and constants: ``reference.py``.

This file has the silhouette's kernels and what torch calls; ``cpu_shaded.py`` those with a grey value, which are
compiled only when they are needed.

Each row of a face's box is walked in segments of ``LANES`` pixels without branches, which LLVM turns into vector
instructions: hence the float32 constants, the polynomial exp, the slices (an index that might be negative stops the
vectoriser), one function per set of channels, and images padded by ``LANES`` columns whose contents mean nothing.
"""

# mypy: disable-error-code="call-arg, no-untyped-def"

from __future__ import annotations

import math

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from reconlab.kernels.jit import flush_subnormals, njit, restore_subnormals
from reconlab.kernels.soft_rasterize.reference import MAX_COORDINATE, MIN_AREA2, Settings
from reconlab.threads import parallel_map

LANES = 8
# Not the whole of fastmath: NaN must stay NaN, for faces are tested for it.
FAST = {"reassoc", "contract", "arcp", "nsz"}
_AREA, _LARGE = np.float32(MIN_AREA2), np.float32(MAX_COORDINATE)
F0, F1, F2, HALF = np.float32(0), np.float32(1), np.float32(2), np.float32(0.5)
LOG2E, LEAST = np.float32(math.log2(math.e)), np.float32(-126)
# 2^f on [-1/2, 1/2], interpolated at Chebyshev nodes; relative error 1.0e-7
_P0, _P1, _P2 = np.float32(1.00000008), np.float32(0.69314721), np.float32(0.24022107)
_P3, _P4, _P5 = np.float32(0.05550327), np.float32(0.00967604), np.float32(0.00134004)


@intrinsic
def _power_of_two(typingctx, n):
    """2.0**n of an int32 in [-126, 127], by writing the exponent's bits."""

    def generate(context, builder, signature, args):
        def number(value):
            return ir.Constant(ir.IntType(32), value)

        bits = builder.shl(builder.add(args[0], number(127)), number(23))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def where(typingctx, condition, yes, no):
    """``yes if condition else no`` as one instruction: conditional expressions become branches."""

    def generate(context, builder, signature, args):
        return builder.select(builder.trunc(args[0], ir.IntType(1)) if args[0].type.width > 1 else args[0], *args[1:])

    return types.float32(types.boolean, types.float32, types.float32), generate


@njit(nogil=True, cache=True, forceinline=True, fastmath=FAST)
def exp_minus(u):
    """exp(-u) for u >= 0, within 2e-7; 1e-38 beyond 87."""
    t = max(-u * LOG2E, LEAST)
    n = np.int32(t - HALF)
    f = t - np.float32(n)
    return (((((_P5 * f + _P4) * f + _P3) * f + _P2) * f + _P1) * f + _P0) * _power_of_two(n)


@njit(nogil=True, cache=True)
def usable_face(xyz, f, near, far):
    """Whether face ``f`` is drawn (``reference.usable_faces``), and twice its signed area."""
    ok = True
    for i in range(3):
        z = xyz[f, i, 2]
        if not (z >= near and z <= far and abs(xyz[f, i, 0]) < _LARGE and abs(xyz[f, i, 1]) < _LARGE):
            ok = False
    # In float64, where products are exact: fused in float32, a line gets an area, and its edge of length 0 a NaN.
    ax, ay = np.float64(xyz[f, 0, 0]), np.float64(xyz[f, 0, 1])
    abx, aby, acx, acy = xyz[f, 1, 0] - ax, xyz[f, 1, 1] - ay, xyz[f, 2, 0] - ax, xyz[f, 2, 1] - ay
    area2 = np.float32(abx * acy - aby * acx)
    return ok and abs(area2) > _AREA, area2


@njit(nogil=True, cache=True)
def first_last(a, b, c, radius, size):
    """First and last pixel whose centre lies within ``radius`` of [min, max] of a, b, c."""
    scale = np.float32(size) * HALF
    low, high = min(a, b, c) - radius, max(a, b, c) + radius
    first = min(max(math.ceil((low + F1) * scale - HALF), F0), np.float32(size))
    last = max(min(math.floor((high + F1) * scale - HALF), np.float32(size - 1)), -F1)
    return int(first), int(last)


@njit(nogil=True, cache=True, forceinline=True, fastmath=FAST)
def direction(ax, ay, bx, by):
    """Length of the edge from a to b and its unit vector."""
    dx, dy = bx - ax, by - ay
    length = math.sqrt(dx * dx + dy * dy)
    inv = F1 / length
    return length, dx * inv, dy * inv


@njit(nogil=True, cache=True)
def nearest_depth(xyz, near, far):
    """Smallest corner depth of the faces drawn, or ``far``."""
    low = far
    for f in range(xyz.shape[0]):
        if usable_face(xyz, f, near, far)[0]:
            low = min(low, xyz[f, 0, 2], xyz[f, 1, 2], xyz[f, 2, 2])
    return low


@njit(
    "void(float32[:,:,::1], float32, float32, float32, float32, int64, float32[:,::1])",
    nogil=True, cache=True, fastmath=FAST, error_model="numpy",
)  # fmt: skip
def _silhouette(xyz, sigma, limit, near, far, width, through):
    """One image: multiplies ``through`` (H, W + LANES) by 1 - s of every face."""
    before = flush_subnormals()
    height = through.shape[0]
    radius, inv_sigma = np.float32(math.sqrt(limit * sigma)), F1 / sigma
    for f in range(xyz.shape[0]):
        usable, area2 = usable_face(xyz, f, near, far)
        if not usable:
            continue
        ib, ic = (1, 2) if area2 > F0 else (2, 1)  # anticlockwise in (x, y): signed distances positive inside
        ax, ay, bx, by, cx, cy = (
            xyz[f, 0, 0],
            xyz[f, 0, 1],
            xyz[f, ib, 0],
            xyz[f, ib, 1],
            xyz[f, ic, 0],
            xyz[f, ic, 1],
        )
        l0, x0, y0 = direction(ax, ay, bx, by)
        l1, x1, y1 = direction(bx, by, cx, cy)
        l2, x2, y2 = direction(cx, cy, ax, ay)
        first, last = first_last(ax, bx, cx, radius, width)
        top_row, last_row = first_last(ay, by, cy, radius, height)
        for row in range(top_row, last_row + 1):
            py = np.float32(2 * row + 1) / np.float32(height) - F1
            s0, p0 = (py - ay) * y0, (py - ay) * x0
            s1, p1 = (py - by) * y1, (py - by) * x1
            s2, p2 = (py - cy) * y2, (py - cy) * x2
            for start in range(first, last + 1, LANES):
                out = through[row, start : start + LANES]
                for k in range(LANES):
                    px = np.float32(np.int32(2 * (start + k) + 1)) / np.float32(width) - F1
                    # Of each edge: along it (s), across it (p, positive inside), beyond its ends (e).
                    u = px - ax
                    s, p = s0 + u * x0, p0 - u * y0
                    e = max(max(-s, s - l0), F0)
                    d2, inner = p * p + e * e, p
                    u = px - bx
                    s, p = s1 + u * x1, p1 - u * y1
                    e = max(max(-s, s - l1), F0)
                    d2, inner = min(d2, p * p + e * e), min(inner, p)
                    u = px - cx
                    s, p = s2 + u * x2, p2 - u * y2
                    e = max(max(-s, s - l2), F0)
                    d2, inner = min(d2, p * p + e * e), min(inner, p)
                    u = d2 * inv_sigma
                    small = exp_minus(u)
                    r = F1 / (F1 + small)
                    outside = where(u < limit, r, F1)
                    out[k] *= where(inner >= F0, small * r, outside)
    restore_subnormals(before)


@njit(
    "void(float32[:,:,::1], float32, float32, float32, float32, int64, float32[:,::1], float32[:,:,::1])",
    nogil=True, cache=True, fastmath=FAST, error_model="numpy",
)  # fmt: skip
def _silhouette_grad(xyz, sigma, limit, near, far, width, pull, grad):
    """One image: writes ``grad`` (F,3,3); ``pull`` (H, W + LANES) is dL/dalpha times through, 0 in the padding."""
    before = flush_subnormals()
    height = pull.shape[0]
    radius, inv_sigma = np.float32(math.sqrt(limit * sigma)), F1 / sigma
    for f in range(xyz.shape[0]):
        usable, area2 = usable_face(xyz, f, near, far)
        if not usable:
            continue
        ib, ic = (1, 2) if area2 > F0 else (2, 1)
        ax, ay, bx, by, cx, cy = (
            xyz[f, 0, 0],
            xyz[f, 0, 1],
            xyz[f, ib, 0],
            xyz[f, ib, 1],
            xyz[f, ic, 0],
            xyz[f, ic, 1],
        )
        l0, x0, y0 = direction(ax, ay, bx, by)
        l1, x1, y1 = direction(bx, by, cx, cy)
        l2, x2, y2 = direction(cx, cy, ax, ay)
        i0, i1, i2 = F1 / l0, F1 / l1, F1 / l2
        first, last = first_last(ax, bx, cx, radius, width)
        top_row, last_row = first_last(ay, by, cy, radius, height)
        gx, gy, gbx, gby, gcx, gcy = F0, F0, F0, F0, F0, F0
        for row in range(top_row, last_row + 1):
            py = np.float32(2 * row + 1) / np.float32(height) - F1
            s0, p0 = (py - ay) * y0, (py - ay) * x0
            s1, p1 = (py - by) * y1, (py - by) * x1
            s2, p2 = (py - cy) * y2, (py - cy) * x2
            for start in range(first, last + 1, LANES):
                into = pull[row, start : start + LANES]
                for k in range(LANES):
                    px = np.float32(np.int32(2 * (start + k) + 1)) / np.float32(width) - F1
                    u = px - ax
                    s, p = s0 + u * x0, p0 - u * y0
                    t = min(max(s, F0), l0)
                    e = s - t
                    d2, inner, dx, dy = p * p + e * e, p, e * x0 - p * y0, e * y0 + p * x0
                    wb, wc = t * i0, F0  # the nearest point of the outline as a mix of the corners
                    u = px - bx
                    s, p = s1 + u * x1, p1 - u * y1
                    t = min(max(s, F0), l1)
                    e = s - t
                    h2, t = p * p + e * e, t * i1
                    closer = h2 < d2
                    inner = min(inner, p)
                    d2 = where(closer, h2, d2)
                    dx = where(closer, e * x1 - p * y1, dx)
                    dy = where(closer, e * y1 + p * x1, dy)
                    wb = where(closer, F1 - t, wb)
                    wc = where(closer, t, wc)
                    u = px - cx
                    s, p = s2 + u * x2, p2 - u * y2
                    t = min(max(s, F0), l2)
                    e = s - t
                    h2, t = p * p + e * e, t * i2
                    closer = h2 < d2
                    inner = min(inner, p)
                    d2 = where(closer, h2, d2)
                    dx = where(closer, e * x2 - p * y2, dx)
                    dy = where(closer, e * y2 + p * x2, dy)
                    wb = where(closer, F0, wb)
                    wc = where(closer, F1 - t, wc)
                    u = d2 * inv_sigma
                    small = exp_minus(u)
                    r = F1 / (F1 + small)
                    outside = where(u < limit, small * r, F0)
                    g = into[k] * where(inner >= F0, -r, outside)
                    dx, dy = g * dx, g * dy
                    gx += dx
                    gy += dy
                    gbx += wb * dx
                    gby += wb * dy
                    gcx += wc * dx
                    gcy += wc * dy
        scale = F2 * inv_sigma
        grad[f, 0, 0], grad[f, 0, 1] = (gx - gbx - gcx) * scale, (gy - gby - gcy) * scale
        grad[f, ib, 0], grad[f, ib, 1] = gbx * scale, gby * scale
        grad[f, ic, 0], grad[f, ic, 1] = gcx * scale, gcy * scale
    restore_subnormals(before)


def forward(xyz: Tensor, shade: Tensor | None, splits: list[int], s: Settings):
    """Alpha (M,H,W), shade (empty without ``shade``) and what :func:`backward` needs."""
    size = (len(splits) - 1, s.height, s.width)
    points = xyz.numpy()
    through = np.empty(size, np.float32)
    constants = [np.float32(v) for v in (s.sigma, s.limit, s.near, s.far)]

    def silhouette(m: int) -> None:
        padded = np.ones((s.height, s.width + LANES), np.float32)
        _silhouette(points[splits[m] : splits[m + 1]], *constants, s.width, padded)
        through[m] = padded[:, : s.width]

    if shade is None:
        parallel_map(silhouette, range(size[0]))
        state = (torch.from_numpy(through),)
        return 1.0 - state[0], xyz.new_empty(0), state

    from reconlab.kernels.soft_rasterize.cpu_shaded import shaded

    grey, image, top, weights = shade.numpy(), *(np.empty(size, np.float32) for _ in range(3))
    nearest = np.empty(size[0], np.float32)

    def draw(m: int) -> None:
        faces = slice(splits[m], splits[m + 1])
        nearest[m] = nearest_depth(points[faces], constants[2], constants[3])
        state = np.ones((s.height, s.width + LANES, 4), np.float32)
        state[..., 1] = s.eps / s.gamma - (s.far - float(nearest[m])) / s.depth_scale  # the background's exponent
        state[..., 3] = 0  # and black
        flat = state.reshape(s.height, -1)
        shaded(points[faces], grey[faces], *constants, np.float32(s.depth_scale), nearest[m], s.width, flat)
        seen = state[:, : s.width]
        through[m], top[m], weights[m], image[m] = (
            seen[..., 0],
            seen[..., 1],
            seen[..., 2],
            seen[..., 3] / seen[..., 2],
        )

    parallel_map(draw, range(size[0]))
    return (
        torch.from_numpy(1.0 - through),
        torch.from_numpy(image),
        tuple(torch.from_numpy(x) for x in (through, top, weights, nearest)),
    )


def backward(
    xyz: Tensor,
    shade: Tensor | None,
    image: Tensor,
    state: tuple[Tensor, ...],
    grad_alpha: Tensor,
    grad_image: Tensor,
    splits: list[int],
    s: Settings,
):
    """Gradients to ``xyz`` and ``shade`` (None without it)."""
    points, through, pull = xyz.numpy(), state[0].numpy(), grad_alpha.numpy()
    grad = np.zeros_like(points)
    constants = [np.float32(v) for v in (s.sigma, s.limit, s.near, s.far)]

    def silhouette(m: int) -> None:
        faces = slice(splits[m], splits[m + 1])
        padded = np.zeros((s.height, s.width + LANES), np.float32)
        padded[:, : s.width] = pull[m] * through[m]
        _silhouette_grad(points[faces], *constants, s.width, padded, grad[faces])

    if shade is None:
        parallel_map(silhouette, range(len(splits) - 1))
        return torch.from_numpy(grad), None

    from reconlab.kernels.soft_rasterize.cpu_shaded import shaded_grad

    _, top, weights, nearest = (x.numpy() for x in state)
    grey, colour, share = shade.numpy(), image.detach().numpy(), grad_image.numpy()
    grad_grey = np.zeros_like(grey)

    def gather(m: int) -> None:
        faces = slice(splits[m], splits[m + 1])
        given = np.zeros((s.height, 4, s.width + LANES), np.float32)
        for k, plane in enumerate((pull[m] * through[m], share[m] / weights[m], top[m], colour[m])):
            given[:, k, : s.width] = plane
        scale = np.float32(s.depth_scale)
        shaded_grad(
            points[faces], grey[faces], *constants, scale, nearest[m], s.width, given, grad[faces], grad_grey[faces]
        )

    parallel_map(gather, range(len(splits) - 1))
    return torch.from_numpy(grad), torch.from_numpy(grad_grey)
