"""The shaded half of ``cpu.py``: alpha and a depth-softmaxed grey value, and their gradients."""

# mypy: disable-error-code="call-arg, no-untyped-def, no-untyped-call, misc, var-annotated"

from __future__ import annotations

import math

import numpy as np

from reconlab.kernels.jit import flush_subnormals, njit, restore_subnormals
from reconlab.kernels.soft_rasterize.cpu import (
    F0,
    F1,
    F2,
    FAST,
    LANES,
    direction,
    exp_minus,
    first_last,
    usable_face,
    where,
)

_UNSEEN = np.float32(-1e30)  # depth exponent of a pixel out of reach


@njit(
    "void(float32[:,:,::1], float32[:,::1], float32, float32, float32, float32, float32, float32, int64, "
    "float32[:,::1])",
    nogil=True, cache=True, fastmath=FAST, error_model="numpy",
)  # fmt: skip
def shaded(xyz, shade, sigma, limit, near, far, depth_scale, nearest, width, state):
    """One image: adds every face to ``state`` (H, 4 (W + LANES)), of each pixel: through, top, weights, values."""
    before = flush_subnormals()
    height = state.shape[0]
    radius, inv_sigma, inv_scale = np.float32(math.sqrt(limit * sigma)), F1 / sigma, F1 / depth_scale
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
        inv_area = F1 / abs(area2)
        ha, hb, hc = l1 * inv_area, l2 * inv_area, l0 * inv_area  # 1 / height over the opposite edge
        iza, izb, izc = F1 / xyz[f, 0, 2], F1 / xyz[f, ib, 2], F1 / xyz[f, ic, 2]
        # (z - nearest) / z / scale: the depth difference, free of cancellation
        za = (xyz[f, 0, 2] - nearest) * iza * inv_scale
        zb = (xyz[f, ib, 2] - nearest) * izb * inv_scale
        zc = (xyz[f, ic, 2] - nearest) * izc * inv_scale
        va, vb, vc = shade[f, 0], shade[f, ib], shade[f, ic]
        first, last = first_last(ax, bx, cx, radius, width)
        top_row, last_row = first_last(ay, by, cy, radius, height)
        for row in range(top_row, last_row + 1):
            py = np.float32(2 * row + 1) / np.float32(height) - F1
            s0, p0 = (py - ay) * y0, (py - ay) * x0
            s1, p1 = (py - by) * y1, (py - by) * x1
            s2, p2 = (py - cy) * y2, (py - cy) * x2
            for start in range(first, last + 1, LANES):
                out = state[row, 4 * start : 4 * (start + LANES)]
                for k in range(LANES):
                    px = np.float32(np.int32(2 * (start + k) + 1)) / np.float32(width) - F1
                    u = px - ax
                    s, pc = s0 + u * x0, p0 - u * y0
                    e = max(max(-s, s - l0), F0)
                    d2 = pc * pc + e * e
                    u = px - bx
                    s, pa = s1 + u * x1, p1 - u * y1
                    e = max(max(-s, s - l1), F0)
                    d2 = min(d2, pa * pa + e * e)
                    u = px - cx
                    s, pb = s2 + u * x2, p2 - u * y2
                    e = max(max(-s, s - l2), F0)
                    d2 = min(d2, pb * pb + e * e)
                    inner = min(min(pa, pb), pc) >= F0
                    u = d2 * inv_sigma
                    small = exp_minus(u)
                    r = F1 / (F1 + small)
                    seen = inner | (u < limit)
                    na, nb, nc = min(max(pa * ha, F0), F1), min(max(pb * hb, F0), F1), min(max(pc * hc, F0), F1)
                    z = -(na * za + nb * zb + nc * zc) / (na * iza + nb * izb + nc * izc)
                    value = (na * va + nb * vb + nc * vc) / (na + nb + nc)
                    z = where(seen, z, _UNSEEN)
                    top = out[4 * k + 1]
                    ahead = z > top
                    fade = exp_minus(abs(z - top))
                    keep = where(ahead, fade, F1)
                    weight = where(ahead, F1, fade) * where(inner, r, small * r)
                    out[4 * k] *= where(seen, where(inner, small * r, r), F1)
                    out[4 * k + 1] = max(z, top)
                    out[4 * k + 2] = out[4 * k + 2] * keep + weight
                    out[4 * k + 3] = out[4 * k + 3] * keep + weight * value
    restore_subnormals(before)


@njit(
    "void(float32[:,:,::1], float32[:,::1], float32, float32, float32, float32, float32, float32, int64, "
    "float32[:,:,::1], float32[:,:,::1], float32[:,::1])",
    nogil=True, cache=True, fastmath=FAST, error_model="numpy",
)  # fmt: skip
def shaded_grad(xyz, shade, sigma, limit, near, far, depth_scale, nearest, width, given, grad, grad_shade):
    """One image: writes ``grad`` (F,3,3) and ``grad_shade`` (F,3).

    ``given`` (H, 4, W + LANES): dL/dalpha times through, dL/dshade over weights (both 0 in the padding), top, shade.
    """
    before = flush_subnormals()
    height = given.shape[0]
    radius, inv_sigma, inv_scale = np.float32(math.sqrt(limit * sigma)), F1 / sigma, F1 / depth_scale
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
        inv_area = F1 / abs(area2)
        ha, hb, hc = l1 * inv_area, l2 * inv_area, l0 * inv_area
        iza, izb, izc = F1 / xyz[f, 0, 2], F1 / xyz[f, ib, 2], F1 / xyz[f, ic, 2]
        za = (xyz[f, 0, 2] - nearest) * iza * inv_scale
        zb = (xyz[f, ib, 2] - nearest) * izb * inv_scale
        zc = (xyz[f, ic, 2] - nearest) * izc * inv_scale
        va, vb, vc = shade[f, 0], shade[f, ib], shade[f, ic]
        gx, gy, gbx, gby, gcx, gcy = F0, F0, F0, F0, F0, F0
        gza, gzb, gzc, gva, gvb, gvc = F0, F0, F0, F0, F0, F0
        first, last = first_last(ax, bx, cx, radius, width)
        top_row, last_row = first_last(ay, by, cy, radius, height)
        for row in range(top_row, last_row + 1):
            py = np.float32(2 * row + 1) / np.float32(height) - F1
            s0, p0 = (py - ay) * y0, (py - ay) * x0
            s1, p1 = (py - by) * y1, (py - by) * x1
            s2, p2 = (py - cy) * y2, (py - cy) * x2
            for start in range(first, last + 1, LANES):
                pull = given[row, 0, start : start + LANES]
                share = given[row, 1, start : start + LANES]
                top = given[row, 2, start : start + LANES]
                image = given[row, 3, start : start + LANES]
                for k in range(LANES):
                    px = np.float32(np.int32(2 * (start + k) + 1)) / np.float32(width) - F1
                    u = px - ax
                    s, pc = s0 + u * x0, p0 - u * y0
                    t = min(max(s, F0), l0)
                    e = s - t
                    d2, dx, dy = pc * pc + e * e, e * x0 - pc * y0, e * y0 + pc * x0
                    wb, wc = t * i0, F0  # the nearest point of the outline as a mix of the corners
                    u = px - bx
                    s, pa = s1 + u * x1, p1 - u * y1
                    t = min(max(s, F0), l1)
                    e = s - t
                    h2, t = pa * pa + e * e, t * i1
                    closer = h2 < d2
                    d2, dx, dy = min(h2, d2), where(closer, e * x1 - pa * y1, dx), where(closer, e * y1 + pa * x1, dy)
                    wb, wc = where(closer, F1 - t, wb), where(closer, t, wc)
                    u = px - cx
                    s, pb = s2 + u * x2, p2 - u * y2
                    t = min(max(s, F0), l2)
                    e = s - t
                    h2, t = pb * pb + e * e, t * i2
                    closer = h2 < d2
                    d2, dx, dy = min(h2, d2), where(closer, e * x2 - pb * y2, dx), where(closer, e * y2 + pb * x2, dy)
                    wb, wc = where(closer, F0, wb), where(closer, F1 - t, wc)
                    inner = min(min(pa, pb), pc) >= F0
                    u = d2 * inv_sigma
                    small = exp_minus(u)
                    r = F1 / (F1 + small)
                    seen = where(inner, F1, where(u < limit, F1, F0))
                    less = small * r
                    cover, rest = where(inner, r, less) * seen, where(inner, less, r)
                    ua, ub, uc = pa * ha, pb * hb, pc * hc
                    na, nb, nc = min(max(ua, F0), F1), min(max(ub, F0), F1), min(max(uc, F0), F1)
                    inv = F1 / (na + nb + nc)
                    inv_y = F1 / (na * iza + nb * izb + nc * izc)
                    z = (na * za + nb * zb + nc * zc) * inv_y
                    depth = inv_y * (na + nb + nc)
                    na, nb, nc = na * inv, nb * inv, nc * inv
                    value = na * va + nb * vb + nc * vc
                    q = share[k] * cover * exp_minus(max(top[k] + z, F0))
                    qd = q * (value - image[k])
                    # Corners of the softmax: grey values and depths.
                    gva += q
                    gvb += q * nb
                    gvc += q * nc
                    gd = -qd * inv_scale * depth
                    gz = gd * depth
                    gza += gz * na
                    gzb += gz * nb
                    gzc += gz * nc
                    # Its barycentrics, where they are not clipped. The corners weighted by them give the pixel,
                    # hence d(bary_i)/d(corner_j) = -bary_j grad(bary_i).
                    mean = q * value - gd
                    ga = where(ua > F0, where(ua < F1, (q * va - gz * iza - mean) * inv * ha, F0), F0)
                    gb = where(ub > F0, where(ub < F1, (q * vb - gz * izb - mean) * inv * hb, F0), F0)
                    gc = where(uc > F0, where(uc < F1, (q * vc - gz * izc - mean) * inv * hc, F0), F0)
                    hx, hy = ga * y1 + gb * y2 + gc * y0, -(ga * x1 + gb * x2 + gc * x0)
                    # The outline, through alpha and through the softmax.
                    g = (pull[k] * cover + qd * rest) * where(inner, -F2, F2) * inv_sigma
                    dx, dy = g * dx, g * dy
                    gx += dx + hx
                    gy += dy + hy
                    gbx += wb * dx + ub * hx
                    gby += wb * dy + ub * hy
                    gcx += wc * dx + uc * hx
                    gcy += wc * dy + uc * hy
        grad[f, 0, 0], grad[f, 0, 1], grad[f, 0, 2] = gx - gbx - gcx, gy - gby - gcy, gza * iza * iza
        grad[f, ib, 0], grad[f, ib, 1], grad[f, ib, 2] = gbx, gby, gzb * izb * izb
        grad[f, ic, 0], grad[f, ic, 1], grad[f, ic, 2] = gcx, gcy, gzc * izc * izc
        grad_shade[f, 0], grad_shade[f, ib], grad_shade[f, ic] = gva - gvb - gvc, gvb, gvc
    restore_subnormals(before)
