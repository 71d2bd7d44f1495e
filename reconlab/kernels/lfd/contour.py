"""Contours of silhouettes in numba: border following, joining of parts, Fourier magnitudes.

Masks are ``(H, W)`` uint8, 1 inside, row 0 at the bottom; the outermost :data:`MARGIN` pixels must be empty. The
order of the steps is the original program's: it decides which pixels a contour counts twice.
"""

from __future__ import annotations

import math

import numpy as np

from reconlab.kernels.jit import njit

FOURIER = 10  # magnitudes kept
MARGIN = 4  # a part grows by up to three pixels when parts are joined
CONNECTED = 0.95  # share of the silhouette that one contour must enclose


@njit("int64(uint8[:,::1], int16[:,::1], uint8[:,::1])", nogil=True, cache=True)
def trace(mask: np.ndarray, contour: np.ndarray, on_contour: np.ndarray) -> int:
    """Follow the outer border of the first part (in raster order) into ``contour`` (rows of x, y).

    The walker looks ahead to its outer side, straight ahead and ahead to its inner side, and takes the first pixel
    that is inside; if none is, it turns a quarter inwards. The first pixel is counted again at the end.

    Returns:
        How many pixels were visited; -1 if the mask is empty or its first pixel is isolated.
    """
    height, width = mask.shape
    on_contour[:] = 0
    start = -1
    for i in range(height * width):
        if mask[i // width, i % width]:
            start = i
            break
    if start < 0:
        return -1
    y0, x0 = start // width, start % width
    x, y, hx, hy = x0, y0, 0, 1
    contour[0, 0], contour[0, 1] = x, y
    on_contour[y, x] = 1
    count = 1
    # Two branches may meet in the start only; the walk then has to pass it once to see the second branch.
    forked = mask[y + 1, x - 1] and not mask[y + 1, x] and (mask[y + 1, x + 1] or mask[y, x + 1])
    while count < len(contour):
        moved = False
        for _ in range(4):
            ox, oy = -hy, hx  # outwards
            if mask[y + hy + oy, x + hx + ox]:
                x, y, hx, hy, moved = x + hx + ox, y + hy + oy, ox, oy, True
            elif mask[y + hy, x + hx]:
                x, y, moved = x + hx, y + hy, True
            elif mask[y + hy - oy, x + hx - ox]:
                x, y, moved = x + hx - ox, y + hy - oy, True
            if moved:
                break
            hx, hy = -ox, -oy
        if not moved:
            return -1
        contour[count, 0], contour[count, 1] = x, y
        on_contour[y, x] = 1
        count += 1
        if x == x0 and y == y0 and not (forked and hx == 1):
            break
    return count


@njit("boolean(uint8[:,::1], uint8[:,::1], int32[::1])", nogil=True, cache=True)
def encloses(mask: np.ndarray, on_contour: np.ndarray, stack: np.ndarray) -> bool:
    """Whether the contour encloses more than 95 % of the mask: what cannot be reached from the image's border."""
    height, width = mask.shape
    outside = 2
    on_contour[0, 0] = outside  # the border is empty and hangs together
    stack[0] = 0
    top = 1
    while top:
        top -= 1
        y, x = stack[top] // width, stack[top] % width
        for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            v, u = y + dy, x + dx
            if 0 <= v < height and 0 <= u < width and on_contour[v, u] == 0:
                on_contour[v, u] = outside
                stack[top] = v * width + u
                top += 1
    inside = total = 0
    for y in range(height):
        for x in range(width):
            if mask[y, x]:
                total += 1
                inside += on_contour[y, x] != outside
    return total > 0 and inside > CONNECTED * total


@njit("void(uint8[:,::1], uint8[:,::1], int64)", nogil=True, cache=True)
def dilate(source: np.ndarray, out: np.ndarray, reach: int) -> None:
    """Dilate by the square of side 2 ``reach`` + 1, without its corners if ``reach`` is 2."""
    out[:] = source
    for y in range(reach, source.shape[0] - reach):
        for x in range(reach, source.shape[1] - reach):
            if source[y, x]:
                for dy in range(-reach, reach + 1):
                    for dx in range(-reach, reach + 1):
                        if not (reach == 2 and abs(dy) == 2 and abs(dx) == 2):
                            out[y + dy, x + dx] = 1


@njit("boolean(uint8[:,::1], int64, int64)", nogil=True, cache=True)
def removable(mask: np.ndarray, y: int, x: int) -> bool:
    """Whether thinning may take the pixel: not an end, and its 4-neighbours hang together without it."""
    # The eight neighbours in a circle, 4-neighbours at even places.
    ring = (
        mask[y, x + 1],
        mask[y + 1, x + 1],
        mask[y + 1, x],
        mask[y + 1, x - 1],
        mask[y, x - 1],
        mask[y - 1, x - 1],
        mask[y - 1, x],
        mask[y - 1, x + 1],
    )
    neighbours = parts = 0
    for i in range(8):
        neighbours += ring[i]
    for i in range(0, 8, 2):  # a 4-connected part of the ring ends where a 4-neighbour has no follower
        parts += ring[i] and not (ring[i + 1] and ring[(i + 2) % 8])
    return neighbours != 1 and parts <= 1


@njit("void(uint8[:,::1], uint8[:,::1], int32[::1], uint8[:,::1])", nogil=True, cache=True)
def thin(mask: np.ndarray, keep: np.ndarray, todo: np.ndarray, listed: np.ndarray) -> None:
    """Thin ``mask`` down to ``keep`` and the thinnest links between its parts, side by side in parallel."""
    height, width = mask.shape
    listed[:] = 0
    count = 0
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            enclosed = mask[y, x + 1] and mask[y, x - 1] and mask[y + 1, x] and mask[y - 1, x]
            if mask[y, x] and not keep[y, x] and not enclosed:
                todo[count] = y * width + x
                listed[y, x] = 1
                count += 1
    changed = True
    while changed:
        changed = False
        for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
            known = count
            for i in range(known):
                y, x = todo[i] // width, todo[i] % width
                if not mask[y + dy, x + dx] and removable(mask, y, x):
                    listed[y, x] = 2
            count = 0
            gone = known  # those taken away go to the end of the list's other half
            for i in range(known):
                y, x = todo[i] // width, todo[i] % width
                if listed[y, x] == 2:
                    todo[len(todo) - 1 - (gone - known)] = todo[i]
                    gone += 1
                    mask[y, x] = 0
                    changed = True
                else:
                    todo[count] = todo[i]
                    count += 1
            for i in range(gone - known):  # their neighbours are at the border now
                pixel = todo[len(todo) - 1 - i]
                y, x = pixel // width, pixel % width
                for v, u in ((y, x + 1), (y, x - 1), (y + 1, x), (y - 1, x)):
                    if (
                        mask[v, u]
                        and not keep[v, u]
                        and not listed[v, u]
                        and 0 < v < height - 1
                        and 0 < u < width - 1
                    ):
                        todo[count] = v * width + u
                        listed[v, u] = 1
                        count += 1


@njit("void(uint8[:,::1], float64, float64, float64[::1])", nogil=True, cache=True)
def fourier(mask: np.ndarray, cx: float, cy: float, out: np.ndarray) -> None:
    """``|F_k| / |F_0|``, k = 1..10, of the contour's distance to (cx, cy); a silhouette of parts is joined first."""
    height, width = mask.shape
    contour = np.empty((4 * height * width, 2), np.int16)
    on_contour = np.empty_like(mask)
    stack = np.empty(2 * height * width, np.int32)
    out[:] = 0
    count = trace(mask, contour, on_contour)
    if not encloses(mask, on_contour, stack):
        joined, wider = np.empty_like(mask), np.empty_like(mask)
        dilate(mask, joined, 1)
        trace(joined, contour, on_contour)
        if not encloses(joined, on_contour, stack):
            dilate(joined, wider, 2)
            joined, wider = wider, joined
            trace(joined, contour, on_contour)
            if not encloses(joined, on_contour, stack):
                joined[:] = 0
                x0, x1, y0, y1 = width, -1, height, -1
                for y in range(height):
                    for x in range(width):
                        if mask[y, x]:
                            x0, x1, y0, y1 = min(x0, x), max(x1, x), min(y0, y), max(y1, y)
                for y in range(y0, y1 + 1):
                    for x in range(x0, x1 + 1):
                        joined[y, x] = 1
        thin(joined, mask, stack, on_contour)
        count = trace(joined, contour, on_contour)
    if count < 8:
        return
    cosine, sine = np.empty(count), np.empty(count)
    distance = np.empty(count)
    mean = 0.0
    for i in range(count):
        cosine[i], sine[i] = math.cos(2 * math.pi * i / count), math.sin(2 * math.pi * i / count)
        distance[i] = math.sqrt((contour[i, 0] - cx) ** 2 + (contour[i, 1] - cy) ** 2)
        mean += distance[i]
    for k in range(1, min(FOURIER, count // 2) + 1):
        real = imaginary = 0.0
        place = 0
        for i in range(count):
            real += distance[i] * cosine[place]
            imaginary += distance[i] * sine[place]
            place += k
            if place >= count:
                place -= count
        out[k - 1] = math.sqrt(real * real + imaginary * imaginary) / mean
