"""Soft rasterisation in numba: faces scattered forward with an online softmax, gathered backward with recompute.

O(1) memory per pixel and no limit on the faces per pixel. Formula and constants: ``reference.py``.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numba import njit
from torch import Tensor

from reconlab.kernels.soft_rasterize.reference import MIN_AREA2, Settings
from reconlab.threads import parallel_map

# NaN must stay NaN (faces are tested for it), hence not the whole of fastmath.
_FAST = {"reassoc", "contract", "arcp", "nsz"}
_AREA = np.float32(MIN_AREA2)
F0, F1, F2, HALF = np.float32(0), np.float32(1), np.float32(2), np.float32(0.5)


@njit(nogil=True, cache=True)
def _usable(xyz, f, near, far):
    ok = True
    for i in range(3):
        z = xyz[f, i, 2]
        if not (z >= near and z <= far):
            ok = False
        if not (abs(xyz[f, i, 0]) < np.float32(1e30) and abs(xyz[f, i, 1]) < np.float32(1e30)):
            ok = False
    return ok


@njit(nogil=True, cache=True)
def _first_last(low, high, radius, size):
    """First and last pixel whose centre lies in [low - radius, high + radius]."""
    scale = np.float32(size) * HALF
    a = min(max(math.ceil((low - radius + F1) * scale - HALF), F0), np.float32(size))
    b = max(min(math.floor((high + radius + F1) * scale - HALF), np.float32(size - 1)), np.float32(-1))
    return int(a), int(b)


@njit(nogil=True, cache=True)
def _forward(xyz, shade, sigma, limit, near, far, depth_scale, nearest, background, through, image, top, weights):
    """One image. ``shade`` (0,3) draws the silhouette only; outputs (H,W) hold their starting values."""
    height, width = through.shape
    shaded = shade.shape[0] > 0
    radius = math.sqrt(limit * sigma)
    inv_sigma = F1 / sigma
    for f in range(xyz.shape[0]):
        if not _usable(xyz, f, near, far):
            continue
        ax, ay, az = xyz[f, 0, 0], xyz[f, 0, 1], xyz[f, 0, 2]
        bx, by, bz = xyz[f, 1, 0], xyz[f, 1, 1], xyz[f, 1, 2]
        cx, cy, cz = xyz[f, 2, 0], xyz[f, 2, 1], xyz[f, 2, 2]
        abx, aby, bcx, bcy, cax, cay = bx - ax, by - ay, cx - bx, cy - by, ax - cx, ay - cy
        area2 = abx * (cy - ay) - aby * (cx - ax)
        if not abs(area2) > _AREA:
            continue
        inv = F1 / area2
        lab, lbc, lca = F1 / (abx * abx + aby * aby), F1 / (bcx * bcx + bcy * bcy), F1 / (cax * cax + cay * cay)
        x0, x1 = _first_last(min(ax, bx, cx), max(ax, bx, cx), radius, width)
        y0, y1 = _first_last(min(ay, by, cy), max(ay, by, cy), radius, height)
        for row in range(y0, y1 + 1):
            py = np.float32(2 * row + 1) / np.float32(height) - F1
            for col in range(x0, x1 + 1):
                px = np.float32(2 * col + 1) / np.float32(width) - F1
                ux, uy, vx, vy, wx, wy = px - ax, py - ay, px - bx, py - by, px - cx, py - cy
                wa = (vy * bcx - vx * bcy) * inv
                wb = (wy * cax - wx * cay) * inv
                wc = (uy * abx - ux * aby) * inv
                t = min(max((ux * abx + uy * aby) * lab, F0), F1)
                dx, dy = ux - t * abx, uy - t * aby
                d2 = dx * dx + dy * dy
                t = min(max((vx * bcx + vy * bcy) * lbc, F0), F1)
                dx, dy = vx - t * bcx, vy - t * bcy
                d2 = min(d2, dx * dx + dy * dy)
                t = min(max((wx * cax + wy * cay) * lca, F0), F1)
                dx, dy = wx - t * cax, wy - t * cay
                d2 = min(d2, dx * dx + dy * dy)
                u = d2 * inv_sigma
                inside = wa >= F0 and wb >= F0 and wc >= F0
                if not inside and u >= limit:
                    continue
                e = math.exp(-u)
                r = F1 / (F1 + e)
                s = r if inside else e * r
                through[row, col] *= e * r if inside else r
                if shaded:
                    na, nb, nc = min(max(wa, F0), F1), min(max(wb, F0), F1), min(max(wc, F0), F1)
                    total = F1 / (na + nb + nc)
                    depth = F1 / ((na / az + nb / bz + nc / cz) * total)
                    value = (na * shade[f, 0] + nb * shade[f, 1] + nc * shade[f, 2]) * total
                    z = (nearest - depth) / depth_scale
                    old = top[row, col]
                    if z > old:
                        k = math.exp(old - z)
                        top[row, col] = z
                        weights[row, col] = weights[row, col] * k + s
                        image[row, col] = image[row, col] * k + s * value
                    else:
                        k = math.exp(z - old) * s
                        weights[row, col] += k
                        image[row, col] += k * value


@njit(nogil=True, cache=True)
def _backward(
    xyz, shade, sigma, limit, near, far, depth_scale, nearest, through, image, top, weights, grad_alpha, grad_image,
    grad_xyz, grad_shade,
):  # fmt: skip
    """One image: adds to ``grad_xyz`` (F,3,3) and ``grad_shade``; the images are those of the forward pass."""
    height, width = through.shape
    shaded = shade.shape[0] > 0
    radius = math.sqrt(limit * sigma)
    inv_sigma = F1 / sigma
    for f in range(xyz.shape[0]):
        if not _usable(xyz, f, near, far):
            continue
        ax, ay, az = xyz[f, 0, 0], xyz[f, 0, 1], xyz[f, 0, 2]
        bx, by, bz = xyz[f, 1, 0], xyz[f, 1, 1], xyz[f, 1, 2]
        cx, cy, cz = xyz[f, 2, 0], xyz[f, 2, 1], xyz[f, 2, 2]
        abx, aby, bcx, bcy, cax, cay = bx - ax, by - ay, cx - bx, cy - by, ax - cx, ay - cy
        area2 = abx * (cy - ay) - aby * (cx - ax)
        if not abs(area2) > _AREA:
            continue
        inv = F1 / area2
        lab, lbc, lca = F1 / (abx * abx + aby * aby), F1 / (bcx * bcx + bcy * bcy), F1 / (cax * cax + cay * cay)
        iza, izb, izc = F1 / az, F1 / bz, F1 / cz
        gax, gay, gaz, gbx, gby, gbz, gcx, gcy, gcz = F0, F0, F0, F0, F0, F0, F0, F0, F0
        gsa, gsb, gsc = F0, F0, F0
        x0, x1 = _first_last(min(ax, bx, cx), max(ax, bx, cx), radius, width)
        y0, y1 = _first_last(min(ay, by, cy), max(ay, by, cy), radius, height)
        for row in range(y0, y1 + 1):
            py = np.float32(2 * row + 1) / np.float32(height) - F1
            for col in range(x0, x1 + 1):
                ga = grad_alpha[row, col] * through[row, col]
                gi = F0
                if shaded:
                    gi = grad_image[row, col]
                if ga == F0 and gi == F0:
                    continue
                px = np.float32(2 * col + 1) / np.float32(width) - F1
                ux, uy, vx, vy, wx, wy = px - ax, py - ay, px - bx, py - by, px - cx, py - cy
                wa = (vy * bcx - vx * bcy) * inv
                wb = (wy * cax - wx * cay) * inv
                wc = (uy * abx - ux * aby) * inv
                t = min(max((ux * abx + uy * aby) * lab, F0), F1)
                dx, dy = ux - t * abx, uy - t * aby
                d2 = dx * dx + dy * dy
                ta, tb, tc = F1 - t, t, F0  # the nearest outline point as a mix of the corners
                t = min(max((vx * bcx + vy * bcy) * lbc, F0), F1)
                ex, ey = vx - t * bcx, vy - t * bcy
                e2 = ex * ex + ey * ey
                if e2 < d2:
                    dx, dy, d2 = ex, ey, e2
                    ta, tb, tc = F0, F1 - t, t
                t = min(max((wx * cax + wy * cay) * lca, F0), F1)
                ex, ey = wx - t * cax, wy - t * cay
                e2 = ex * ex + ey * ey
                if e2 < d2:
                    dx, dy, d2 = ex, ey, e2
                    ta, tb, tc = t, F0, F1 - t
                u = d2 * inv_sigma
                inside = wa >= F0 and wb >= F0 and wc >= F0
                if not inside and u >= limit:
                    continue
                e = math.exp(-u)
                r = F1 / (F1 + e)
                s = r if inside else e * r
                gu = ga * s
                if shaded:
                    na, nb, nc = min(max(wa, F0), F1), min(max(wb, F0), F1), min(max(wc, F0), F1)
                    total = F1 / (na + nb + nc)
                    na, nb, nc = na * total, nb * total, nc * total
                    depth = F1 / (na * iza + nb * izb + nc * izc)
                    value = na * shade[f, 0] + nb * shade[f, 1] + nc * shade[f, 2]
                    q = gi * s * math.exp((nearest - depth) / depth_scale - top[row, col]) / weights[row, col]
                    if q != F0:
                        qd = q * (value - image[row, col])
                        gu += qd * (e * r if inside else r)
                        gz = -qd / depth_scale * depth * depth
                        gsa += q * na
                        gsb += q * nb
                        gsc += q * nc
                        gaz += gz * na * iza * iza
                        gbz += gz * nb * izb * izb
                        gcz += gz * nc * izc * izc
                        ha = q * shade[f, 0] - gz * iza
                        hb = q * shade[f, 1] - gz * izb
                        hc = q * shade[f, 2] - gz * izc
                        mean = na * ha + nb * hb + nc * hc
                        ha = (ha - mean) * total if wa > F0 and wa < F1 else F0
                        hb = (hb - mean) * total if wb > F0 and wb < F1 else F0
                        hc = (hc - mean) * total if wc > F0 and wc < F1 else F0
                        # dw_i/dv_j = -w_j grad(w_i), because the corners weighted by w give the pixel
                        hx = (ha * bcy + hb * cay + hc * aby) * inv
                        hy = -(ha * bcx + hb * cax + hc * abx) * inv
                        gax += wa * hx
                        gay += wa * hy
                        gbx += wb * hx
                        gby += wb * hy
                        gcx += wc * hx
                        gcy += wc * hy
                gu *= -F2 * inv_sigma if inside else F2 * inv_sigma
                gax += gu * ta * dx
                gay += gu * ta * dy
                gbx += gu * tb * dx
                gby += gu * tb * dy
                gcx += gu * tc * dx
                gcy += gu * tc * dy
        grad_xyz[f, 0, 0], grad_xyz[f, 0, 1], grad_xyz[f, 0, 2] = gax, gay, gaz
        grad_xyz[f, 1, 0], grad_xyz[f, 1, 1], grad_xyz[f, 1, 2] = gbx, gby, gbz
        grad_xyz[f, 2, 0], grad_xyz[f, 2, 1], grad_xyz[f, 2, 2] = gcx, gcy, gcz
        if shaded:
            grad_shade[f, 0], grad_shade[f, 1], grad_shade[f, 2] = gsa, gsb, gsc


@njit(nogil=True, cache=True)
def _nearest(xyz, near, far):
    """Smallest corner depth of the faces between the planes, or ``far``."""
    low = far
    for f in range(xyz.shape[0]):
        if _usable(xyz, f, near, far):
            low = min(low, xyz[f, 0, 2], xyz[f, 1, 2], xyz[f, 2, 2])
    return low


def forward(xyz: Tensor, shade: Tensor | None, splits: list[int], s: Settings):
    """Alpha, shade and what :func:`backward` needs, of all images."""
    size = (len(splits) - 1, s.height, s.width)
    through = np.ones(size, np.float32)
    image, top, weights = (np.zeros(size if shade is not None else (size[0], 0, 0), np.float32) for _ in range(3))
    points = xyz.numpy()
    grey = np.zeros((0, 3), np.float32) if shade is None else shade.numpy()
    nearest = np.zeros(size[0], np.float32)

    def one(m: int) -> None:
        faces = points[splits[m] : splits[m + 1]]
        nearest[m] = _nearest(faces, np.float32(s.near), np.float32(s.far))
        background = s.eps / s.gamma - (s.far - float(nearest[m])) / s.depth_scale
        top[m], weights[m] = background, 1.0
        _forward(
            faces, grey[splits[m] : splits[m + 1]], np.float32(s.sigma), np.float32(s.limit), np.float32(s.near),
            np.float32(s.far), np.float32(s.depth_scale), nearest[m], np.float32(background), through[m], image[m],
            top[m], weights[m],
        )  # fmt: skip
        image[m] /= weights[m]

    parallel_map(one, range(size[0]))
    state = tuple(torch.from_numpy(x) for x in (through, top, weights, nearest))
    return 1.0 - state[0], torch.from_numpy(image), state


def backward(xyz, shade, image, state, grad_alpha, grad_image, splits: list[int], s: Settings):
    """Gradients to ``xyz`` and ``shade`` (None without it)."""
    through, top, weights, nearest = (x.numpy() for x in state)
    points = xyz.numpy()
    grey = np.zeros((0, 3), np.float32) if shade is None else shade.numpy()
    colour = image.detach().numpy()
    ga = np.zeros_like(through) if grad_alpha is None else grad_alpha.contiguous().numpy()
    gi = np.zeros_like(colour) if grad_image is None else grad_image.contiguous().numpy()
    grad_xyz, grad_grey = np.zeros_like(points), np.zeros_like(grey)

    def one(m: int) -> None:
        part = slice(splits[m], splits[m + 1])
        _backward(
            points[part], grey[part], np.float32(s.sigma), np.float32(s.limit), np.float32(s.near),
            np.float32(s.far), np.float32(s.depth_scale), nearest[m], through[m], colour[m], top[m],
            weights[m], ga[m], gi[m], grad_xyz[part], grad_grey[part],
        )  # fmt: skip

    parallel_map(one, range(len(splits) - 1))
    return torch.from_numpy(grad_xyz), None if shade is None else torch.from_numpy(grad_grey)
