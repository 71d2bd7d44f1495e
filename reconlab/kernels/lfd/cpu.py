"""Silhouettes and their features in numba, one light field per task; see :mod:`reconlab.kernels.lfd.reference`."""

from __future__ import annotations

import math

import numpy as np

from reconlab.kernels.jit import njit
from reconlab.kernels.lfd.contour import MARGIN, fourier

SIZE = 256  # pixels a side; the image spans [-1, 1]^2
LUT = 50  # radius of the table of basis functions
ANGULAR, RADIAL = 12, 3


@njit("void(float64[:,::1], int64[:,::1], float64[:,::1], float64[:,::1], uint8[:,::1])", nogil=True, cache=True)
def draw(points, faces, frame, screen, mask):
    """Cover the pixels whose centre is in the projection of a face; ``screen`` (V,2) is scratch."""
    size = mask.shape[0]
    mask[:] = 0
    half = size / 2
    for v in range(len(points)):
        for i in range(2):
            dot = points[v, 0] * frame[i, 0] + points[v, 1] * frame[i, 1] + points[v, 2] * frame[i, 2]
            screen[v, i] = dot * half + (half - 0.5)  # pixel k has its centre at k
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, bx, by, cx, cy = screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1]
        first, last = math.ceil(min(ay, by, cy)), math.floor(max(ay, by, cy))
        if first > last or math.ceil(min(ax, bx, cx)) > math.floor(max(ax, bx, cx)):
            continue
        # Sorted by y (then x), so that faces at a common edge compute the same crossings: no cracks.
        if by < ay or (by == ay and bx < ax):
            ax, ay, bx, by = bx, by, ax, ay
        if cy < by or (cy == by and cx < bx):
            bx, by, cx, cy = cx, cy, bx, by
        if by < ay or (by == ay and bx < ax):
            ax, ay, bx, by = bx, by, ax, ay
        if ay == cy:
            continue
        long = (cx - ax) / (cy - ay)
        lower = (bx - ax) / (by - ay) if by > ay else 0.0
        upper = (cx - bx) / (cy - by) if cy > by else 0.0
        for row in range(max(first, 0), min(last, size - 1) + 1):
            x0 = ax + (row - ay) * long
            x1 = ax + (row - ay) * lower if row < by or by == cy else bx + (row - by) * upper
            if x0 > x1:
                x0, x1 = x1, x0
            for column in range(max(math.ceil(x0), 0), min(math.floor(x1), size - 1) + 1):
                mask[row, column] = 1


@njit("boolean(uint8[:,::1])", nogil=True, cache=True)
def mirror_is_less(mask):
    """Whether the mask mirrored left to right comes first when both are read row by row."""
    size = mask.shape[0]
    for y in range(size):
        for x in range(size):
            if mask[y, x] != mask[y, size - 1 - x]:
                return mask[y, x] > mask[y, size - 1 - x]
    return False


@njit("boolean(uint8[:,::1], uint8[:,::1])", nogil=True, cache=True)
def is_less(a, b):
    """Whether ``a`` comes before ``b`` when both are read row by row."""
    for y in range(a.shape[0]):
        for x in range(a.shape[1]):
            if a[y, x] != b[y, x]:
                return a[y, x] < b[y, x]
    return False


@njit("void(uint8[:,::1])", nogil=True, cache=True)
def mirror(mask):
    """Mirror left to right, in place."""
    size = mask.shape[0]
    for y in range(size):
        for x in range(size // 2):
            mask[y, x], mask[y, size - 1 - x] = mask[y, size - 1 - x], mask[y, x]


@njit(
    "void(uint8[:,::1], float64, float64, float64, float64[:,::1], float64[:,::1], float64[::1])",
    nogil=True,
    cache=True,
)
def regions(mask, cx, cy, radius, table, weight, out):
    """The 35 ART magnitudes, quotients of the mean over pixels; ``table`` (nodes, 72) is :func:`art_table`.

    The bases are interpolated bilinearly between the nodes of a 101 x 101 table; as that is linear, each pixel's
    share is first added up per node (``weight``, scratch).
    """
    side = 2 * LUT + 1
    weight[:] = 0
    scale = LUT / radius if radius > 0 else 0.0
    pixels = 0
    for y in range(mask.shape[0]):
        ty = (y - cy) * scale + LUT
        iy = int(ty)
        fy = ty - iy
        for x in range(mask.shape[1]):
            if mask[y, x]:
                tx = (x - cx) * scale + LUT
                ix = int(tx)
                fx = tx - ix
                weight[iy, ix] += (1 - fy) * (1 - fx)
                weight[iy, ix + 1] += (1 - fy) * fx
                weight[iy + 1, ix] += fy * (1 - fx)
                weight[iy + 1, ix + 1] += fy * fx
                pixels += 1
    total = np.zeros(2 * ANGULAR * RADIAL)
    for y in range(side):
        for x in range(side):
            w = weight[y, x]
            if w != 0:
                for k in range(len(total)):
                    total[k] += w * table[y * side + x, k]
    half = ANGULAR * RADIAL
    for k in range(1, half):
        out[k - 1] = math.sqrt(total[k] ** 2 + total[half + k] ** 2) / pixels


@njit("void(uint8[:,::1], int64, int64, float64[::1])", nogil=True, cache=True)
def compactness(mask, sx, sy, out):
    """Circularity and eccentricity; ``sx``, ``sy`` are twice the centre, so that the moments are integers."""
    height, width = mask.shape
    area = border = i20 = i02 = i11 = 0
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            if mask[y, x]:
                area += 1
                u, v = 2 * x - sx, 2 * y - sy
                i20 += u * u
                i02 += v * v
                i11 += u * v
                inside = True
                for dy in range(-1, 2):
                    for dx in range(-1, 2):
                        if not mask[y + dy, x + dx]:
                            inside = False
                border += not inside
    out[0] = min(1.0, 4 * math.pi * area / (border * border)) if border else 0.0
    spread = float(i20 + i02)
    out[1] = min(1.0, (float(i20 - i02) ** 2 + 4 * float(i11) ** 2) / (spread * spread)) if spread > 0 else 0.0


@njit(
    "void(float64[:,::1], int64[:,::1], float64[:,:,:,::1], float64[:,::1], boolean, float64[:,::1])",
    nogil=True,
    cache=True,
)
def light_field(points, faces, frames, table, canonical, out):
    """Features (10, 47) of one light field's views; see :func:`reconlab.kernels.lfd.light_fields`."""
    views, rolls = frames.shape[0], frames.shape[1]
    masks = np.empty((views, SIZE, SIZE), np.uint8)
    other = np.empty((SIZE, SIZE), np.uint8)
    screen = np.empty((len(points), 2))
    box = np.empty((views, 4), np.int64)
    radius = 0.0
    for view in range(views):
        mask = masks[view]
        for roll in range(rolls):
            target = mask if roll == 0 else other
            draw(points, faces, frames[view, roll], screen, target)
            if canonical and mirror_is_less(target):
                mirror(target)
            if roll and is_less(other, mask):
                mask[:] = other
        x0, x1, y0, y1 = SIZE, -1, SIZE, -1
        for y in range(SIZE):
            for x in range(SIZE):
                if mask[y, x]:
                    x0, x1, y0, y1 = min(x0, x), max(x1, x), min(y0, y), max(y1, y)
        box[view, 0], box[view, 1], box[view, 2], box[view, 3] = x0, x1, y0, y1
        square = 0
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                if mask[y, x]:
                    square = max(square, (2 * x - x0 - x1) ** 2 + (2 * y - y0 - y1) ** 2)
        radius = max(radius, math.sqrt(square) / 2)
    weight = np.empty((2 * LUT + 3, 2 * LUT + 3))
    out[:] = 0
    for view in range(views):
        x0, x1, y0, y1 = box[view]
        if x1 < 0:
            continue  # a flat model from its side covers no pixel centre
        crop = np.zeros((y1 - y0 + 1 + 2 * MARGIN, x1 - x0 + 1 + 2 * MARGIN), np.uint8)
        crop[MARGIN:-MARGIN, MARGIN:-MARGIN] = masks[view, y0 : y1 + 1, x0 : x1 + 1]
        sx, sy = crop.shape[1] - 1, crop.shape[0] - 1  # twice the centre
        regions(crop, sx / 2, sy / 2, radius, table, weight, out[view, :35])
        fourier(crop, sx / 2, sy / 2, out[view, 35:45])
        compactness(crop, sx, sy, out[view, 45:])
