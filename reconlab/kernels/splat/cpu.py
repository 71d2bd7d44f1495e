"""Points to silhouettes on the CPU, one image at a time, and back, without ever blurring the whole volume.

Work and memory follow the points: rows of voxels along x that hold any are kept in a compact list (blur along x),
an image row gathers those near it into one plane (blur along y), and the blur along z goes straight into the ray
product. The way back is the mirror image; it blurs into the rows that hold points and nowhere else. Planes outside
of the points' bounding box and the blur's reach have the smallest occupancy and no gradient. Inner loops run along
x and are written so that LLVM vectorises them: check the speed after any change, not only the value.
"""

from __future__ import annotations

import math

import numpy as np

from reconlab.kernels.jit import njit

EPS = np.float32(1e-5)  # occupancies are clipped to [EPS, FULL]
FULL = np.float32(1 - 1e-5)
ONE = np.float32(1)
ZERO = np.float32(0)
FAST = {"contract", "reassoc", "arcp", "nsz"}


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _axpy(out, weight, row):
    for x in range(out.shape[0]):
        out[x] += weight * row[x]


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _start(out, weight, row):
    for x in range(out.shape[0]):
        out[x] = weight * row[x]


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _pair(out, h1, a, b):
    for x in range(out.shape[0]):
        out[x] += h1 * (a[x] + b[x])


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _pairs(out, h1, h2, a, b, c, d):
    for x in range(out.shape[0]):
        out[x] += h1 * (a[x] + b[x]) + h2 * (c[x] + d[x])


@njit(nogil=True, cache=True)
def _blurred_row(out, half, plane, z):
    """``out[x] = Σ_k half[|k|] plane[z + k, x]``; the plane has margins of zeros."""
    reach = half.shape[0] - 1
    _start(out, half[0], plane[z])
    k = 1
    while k < reach:
        _pairs(out, half[k], half[k + 1], plane[z - k], plane[z + k], plane[z - k - 1], plane[z + k + 1])
        k += 2
    if k == reach:
        _pair(out, half[k], plane[z - k], plane[z + k])


@njit(nogil=True, cache=True)
def _blur_along(out, half, row):
    """``out[x] = Σ_k half[|k|] row[x + reach + k]``."""
    reach, n = half.shape[0] - 1, out.shape[0]
    _start(out, half[0], row[reach : reach + n])
    k = 1
    while k < reach:
        a, b, c, d = reach - k, reach + k, reach - k - 1, reach + k + 1
        _pairs(out, half[k], half[k + 1], row[a : a + n], row[b : b + n], row[c : c + n], row[d : d + n])
        k += 2
    if k == reach:
        _pair(out, half[k], row[:n], row[2 * reach : 2 * reach + n])


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _march(passed, row, scale):
    for x in range(row.shape[0]):
        passed[x] *= ONE - min(max(scale * row[x], EPS), FULL)


@njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _march_back(out, push, row, scale):
    """Gradient by the blurred row, from ``push`` = upstream gradient times what passes; returns that by the scale."""
    total = ZERO
    for x in range(row.shape[0]):
        o = scale * row[x]
        clipped = min(max(o, EPS), FULL)
        g = push[x] / (ONE - clipped) if o == clipped else ZERO
        total += g * row[x]
        out[x] = g * scale
    return total


@njit("boolean(float32, float32, float32, int64)", nogil=True, cache=True)
def _takes_part(x, y, z, size):
    return -1 < x < size and -1 < y < size and -1 < z < size


@njit("Tuple((int32[:,::1], int64[::1]))(float32[:,::1], int64)", nogil=True, cache=True)
def find_rows(position, size):
    """Number of the row along x of each (y, z) that holds weight, -1 elsewhere; the count and the box.

    Returns:
        ``(V, V)`` row numbers, and ``[count, x0, x1, y0, y1, z0, z1]`` (half-open, empty if the count is 0).
    """
    number = np.full((size, size), -1, np.int32)
    box = np.array([0, size, 0, size, 0, size, 0])
    for j in range(position.shape[0]):
        if not _takes_part(position[j, 0], position[j, 1], position[j, 2], size):
            continue
        x, y, z = (math.floor(position[j, 0]), math.floor(position[j, 1]), math.floor(position[j, 2]))
        box[1], box[2] = min(box[1], max(x, 0)), max(box[2], min(x + 2, size))
        for b in range(max(y, 0), min(y + 2, size)):
            for c in range(max(z, 0), min(z + 2, size)):
                if number[b, c] < 0:
                    number[b, c] = box[0]
                    box[0] += 1
                    box[3], box[4] = min(box[3], b), max(box[4], b + 1)
                    box[5], box[6] = min(box[5], c), max(box[6], c + 1)
    return number, box


@njit("void(float32[:,::1], int64, int32[:,::1], int64, float32[:,::1], float32[:,::1])", nogil=True, cache=True)
def _gather(position, size, number, x0, by_cell, out):
    """Gradient by the positions of the trilinear weights, given that by the cells."""
    for j in range(position.shape[0]):
        if not _takes_part(position[j, 0], position[j, 1], position[j, 2], size):
            continue
        x, y, z = (math.floor(position[j, 0]), math.floor(position[j, 1]), math.floor(position[j, 2]))
        fx, fy, fz = position[j, 0] - x, position[j, 1] - y, position[j, 2] - z
        gx, gy, gz = ZERO, ZERO, ZERO
        for b in range(max(y, 0), min(y + 2, size)):
            wy = fy if b > y else ONE - fy
            sy = ONE if b > y else -ONE
            for c in range(max(z, 0), min(z + 2, size)):
                wz = fz if c > z else ONE - fz
                sz = ONE if c > z else -ONE
                row = number[b, c]
                for a in range(max(x, 0), min(x + 2, size)):
                    g = by_cell[row, a - x0]
                    wx = fx if a > x else ONE - fx
                    gx += (g if a > x else -g) * wy * wz
                    gy += sy * g * wx * wz
                    gz += sz * g * wx * wy
        out[j, 0], out[j, 1], out[j, 2] = np.float32(gx), np.float32(gy), np.float32(gz)


@njit("void(float32[:,::1], int64, int32[:,::1], int64, float32[:,::1])", nogil=True, cache=True)
def scatter(position, size, number, left, rows):
    """Add the trilinear weights of all points into the rows; column 0 is x = ``left``."""
    for j in range(position.shape[0]):
        if not _takes_part(position[j, 0], position[j, 1], position[j, 2], size):
            continue
        x, y, z = (math.floor(position[j, 0]), math.floor(position[j, 1]), math.floor(position[j, 2]))
        fx, fy, fz = position[j, 0] - x, position[j, 1] - y, position[j, 2] - z
        for b in range(max(y, 0), min(y + 2, size)):
            wy = fy if b > y else ONE - fy
            for c in range(max(z, 0), min(z + 2, size)):
                w = np.float32(wy * (fz if c > z else ONE - fz))
                row = number[b, c]
                for a in range(max(x, 0), min(x + 2, size)):
                    rows[row, a - left] += np.float32(w * (fx if a > x else ONE - fx))


@njit("Tuple((int64, int64))(int32[:,::1], int64, int64, int64, int64)", nogil=True, cache=True)
def _plane_range(number, y, reach, z0, z1):
    """First and last z of rows within reach of image row y."""
    first, last = z1, z0 - 1
    for b in range(max(0, y - reach), min(number.shape[0], y + reach + 1)):
        for c in range(z0, first):
            if number[b, c] >= 0:
                first = c
                break
        for c in range(z1 - 1, last, -1):
            if number[b, c] >= 0:
                last = c
                break
    return first, last


@njit(
    "void(int64, int32[:,::1], int64[::1], float32[:,::1], float32[::1], float32, float32[:,::1], "
    "float32[:,::1], float32[:,:,::1], boolean)",
    nogil=True,
    cache=True,
)
def forward(size, number, box, rows, half, scale, image, passed, blurred, keep):
    """The image of clipped rows, what passes each ray's part of the box, and the blurred box if ``keep``.

    Args:
        size: V.
        number: Of :func:`find_rows`.
        box: Of :func:`find_rows`.
        rows: ``(rows, W + 2 reach)`` splatted weights of the columns from x0 - 2 reach, W = x1 - x0 + 2 reach.
        half: ``(reach + 1,)`` the kernel from its middle.
        scale: Factor of the occupancy.
        image: ``(V, V)`` to be written.
        passed: ``(V, W)`` ones, to be written.
        blurred: ``(V, Z, W)`` to be written where it is needed if ``keep``; Z = z1 - z0 + 2 reach.
        keep: Whether there will be a way back.
    """
    reach = half.shape[0] - 1
    count, x0, x1, y0, y1, z0, z1 = box
    width = x1 - x0 + 2 * reach
    image[:] = 1 - math.pow(1 - 1e-5, size)
    if count == 0:
        return
    along = np.empty((count, width), np.float32)
    clipped = np.empty(rows.shape[1], np.float32)
    for n in range(count):
        for x in range(rows.shape[1]):
            clipped[x] = min(rows[n, x], ONE)
        _blur_along(along[n], half, clipped)
    plane = np.zeros((z1 - z0 + 4 * reach, width), np.float32)
    out = np.empty(width, np.float32)
    for y in range(max(0, y0 - reach), min(size, y1 + reach)):
        first, last = _plane_range(number, y, reach, z0, z1)
        if last < first:
            continue
        for b in range(max(0, y - reach), min(size, y + reach + 1)):
            weight = half[abs(b - y)]
            for c in range(first, last + 1):
                if number[b, c] >= 0:
                    _axpy(plane[c - z0 + 2 * reach], weight, along[number[b, c]])
        low, high = max(0, first - reach), min(size, last + reach + 1)
        for z in range(low, high):
            row = blurred[y, z - z0 + reach] if keep else out
            _blurred_row(row, half, plane, z - z0 + 2 * reach)
            _march(passed[y], row, scale)
        rest = math.pow(1 - 1e-5, size - (high - low))
        for x in range(max(0, x0 - reach), min(size, x1 + reach)):
            passed[y, x - x0 + reach] *= np.float32(rest)
            image[y, x] = ONE - passed[y, x - x0 + reach]
        plane[first - z0 + 2 * reach : last - z0 + 2 * reach + 1] = ZERO


@njit(
    "float64(int64, float32[:,::1], int32[:,::1], int64[::1], float32[:,::1], float32[::1], float32, "
    "float32[:,::1], float32[:,:,::1], float32[:,::1], float32[:,::1])",
    nogil=True,
    cache=True,
)
def backward(size, position, number, box, rows, half, scale, passed, blurred, upstream, by_position):
    """Gradient by the positions, written, and by the scale, returned; see :func:`forward`."""
    reach = half.shape[0] - 1
    count, x0, x1, y0, y1, z0, z1 = box
    width = x1 - x0 + 2 * reach
    left = max(0, reach - x0)  # columns of the box outside of the image
    right = min(width, size - x0 + reach)
    by_along = np.zeros((count, width + 2 * reach), np.float32)
    plane = np.zeros((z1 - z0 + 4 * reach, width), np.float32)
    push = np.zeros(width, np.float32)
    out = np.empty(width, np.float32)
    by_scale = 0.0
    for y in range(max(0, y0 - reach), min(size, y1 + reach)):
        first, last = _plane_range(number, y, reach, z0, z1)
        if last < first:
            continue
        for x in range(left, right):
            push[x] = upstream[y, x + x0 - reach] * passed[y, x]
        low, high = max(0, first - reach), min(size, last + reach + 1)
        for z in range(low, high):
            by_scale += _march_back(plane[z - z0 + 2 * reach], push, blurred[y, z - z0 + reach], scale)
        for c in range(first, last + 1):
            fresh = True
            for b in range(max(0, y - reach), min(size, y + reach + 1)):
                if number[b, c] >= 0:
                    if fresh:
                        _blurred_row(out, half, plane, c - z0 + 2 * reach)
                        fresh = False
                    _axpy(by_along[number[b, c], reach : reach + width], half[abs(b - y)], out)
        plane[low - z0 + 2 * reach : high - z0 + 2 * reach] = ZERO
    by_cell = np.empty((count, width), np.float32)
    for n in range(count):
        _blur_along(by_cell[n], half, by_along[n])
        for x in range(width):
            if rows[n, x + reach] > ONE:
                by_cell[n, x] = ZERO
    _gather(position, size, number, x0 - reach, by_cell, by_position)
    return by_scale


def render(position, size, half, scale, image, keep):
    """One image's silhouette, written into ``image``; returns what :func:`render_back` needs.

    Args:
        position: ``(J, 3)`` float32 positions (x, y, z) in voxels, finite.
        size: V.
        half: The kernel from its middle.
        scale: Factor of the occupancy.
        image: ``(V, V)``.
        keep: Whether there will be a way back.
    """
    number, box = find_rows(position, size)
    reach = len(half) - 1
    count, x0, x1, _, _, z0, z1 = box.tolist()
    width = max(0, x1 - x0) + 2 * reach
    rows = np.zeros((count, width + 2 * reach), np.float32)
    scatter(position, size, number, x0 - 2 * reach, rows)
    passed = np.ones((size, width), np.float32)
    blurred = np.empty((size if keep and count else 0, max(0, z1 - z0) + 2 * reach, width), np.float32)
    forward(size, number, box, rows, half, np.float32(scale), image, passed, blurred, keep)
    return number, box, rows, passed, blurred


def render_back(position, size, half, scale, kept, upstream, by_position):
    """The gradient by the positions, written into ``by_position``; returns that by the scale.

    Args:
        position: As given to :func:`render`.
        size: V.
        half: As given to :func:`render`.
        scale: Factor of the occupancy.
        kept: What :func:`render` returned.
        upstream: ``(V, V)`` gradient by the image.
        by_position: ``(J, 3)``, zeros.
    """
    number, box, rows, passed, blurred = kept
    if box[0] == 0:
        return 0.0
    return backward(
        size, position, number, box, rows, half, np.float32(scale), passed, blurred, upstream, by_position
    )
