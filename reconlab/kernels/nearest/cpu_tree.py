# mypy: allow-untyped-defs, allow-untyped-calls
"""A tree of boxes over points in Morton order: the nearest neighbour where a uniform grid does badly.

Outliers, and clouds that are small compared with their distance from the sources (a collapsed prediction), make
a grid walk through many empty cells. Boxes skip empty space.
"""

from __future__ import annotations

import numpy as np

from reconlab.kernels.jit import njit

LEAF = 8  # points per leaf


@njit(nogil=True, cache=True)
def _spread(bits):
    """Put two zero bits between the 21 bits of a coordinate."""
    bits = (bits | (bits << 32)) & 0x1F00000000FFFF
    bits = (bits | (bits << 16)) & 0x1F0000FF0000FF
    bits = (bits | (bits << 8)) & 0x100F00F00F00F00F
    bits = (bits | (bits << 4)) & 0x10C30C30C30C30C3
    return (bits | (bits << 2)) & 0x1249249249249249


@njit("int32[::1](int64[::1])", nogil=True, cache=True)
def _sorted_order(code):
    """Indices that sort 63-bit codes: radix sort, stable (numba's own sort takes seconds to compile)."""
    order = np.arange(code.shape[0], dtype=np.int32)
    other = np.empty_like(order)
    for shift in range(0, 63, 11):
        start = np.zeros(2049, np.int32)
        for j in range(code.shape[0]):
            start[((code[j] >> shift) & 2047) + 1] += 1
        for digit in range(2048):
            start[digit + 1] += start[digit]
        for j in range(code.shape[0]):
            digit = (code[order[j]] >> shift) & 2047
            other[start[digit]] = order[j]
            start[digit] += 1
        order, other = other, order
    return order


@njit(
    "Tuple((float32[:,::1], int32[::1], float32[:,::1], int32[::1]))(float32[:,::1], int32[::1])",
    nogil=True,
    cache=True,
)
def build(points, labels):
    """Sort ``points (M, 3)`` and build the boxes above them.

    Returns:
        Points and labels in Morton order, boxes ``(2 P, 6)`` (low, high), a heap whose root is 1 and whose leaf
        ``P + i`` holds points ``8 i … 8 i + 7`` (boxes of missing leaves are inside out), and each box's lowest
        label ``(2 P,)``.
    """
    m = points.shape[0]
    low, longest = np.empty(3, np.float64), 0.0
    for a in range(3):
        low[a] = points[:, a].min()
        longest = max(longest, points[:, a].max() - low[a])
    factor = 2097151.0 / longest if longest > 0.0 else 0.0
    code = np.empty(m, np.int64)
    for j in range(m):
        x = _spread(np.int64((points[j, 0] - low[0]) * factor))
        y = _spread(np.int64((points[j, 1] - low[1]) * factor))
        z = _spread(np.int64((points[j, 2] - low[2]) * factor))
        code[j] = x | (y << 1) | (z << 2)
    order = _sorted_order(code)
    ranked = np.empty((m, 3), np.float32)
    names = np.empty(m, np.int32)
    for j in range(m):
        names[j] = labels[order[j]]
        for a in range(3):
            ranked[j, a] = points[order[j], a]
    leaves = (m + LEAF - 1) // LEAF
    width = 1
    while width < leaves:
        width *= 2
    boxes = np.empty((2 * width, 6), np.float32)
    boxes[:, :3] = np.inf
    boxes[:, 3:] = -np.inf
    lowest = np.full(2 * width, 2**31 - 1, np.int32)
    for j in range(m):
        leaf = width + j // LEAF
        lowest[leaf] = min(lowest[leaf], names[j])
        for a in range(3):
            boxes[leaf, a] = min(boxes[leaf, a], ranked[j, a])
            boxes[leaf, a + 3] = max(boxes[leaf, a + 3], ranked[j, a])
    for node in range(width - 1, 0, -1):
        lowest[node] = min(lowest[2 * node], lowest[2 * node + 1])
        for a in range(3):
            boxes[node, a] = min(boxes[2 * node, a], boxes[2 * node + 1, a])
            boxes[node, a + 3] = max(boxes[2 * node, a + 3], boxes[2 * node + 1, a + 3])
    return ranked, names, boxes, lowest


@njit("float32(float32[:,::1], int64, float32, float32, float32)", nogil=True, cache=True, inline="always")
def _box_distance(boxes, node, x, y, z):
    # Rounds exactly as the distance to a point does, so it never exceeds that of a point inside.
    zero = np.float32(0.0)
    ex = max(zero, max(boxes[node, 0] - x, x - boxes[node, 3]))
    ey = max(zero, max(boxes[node, 1] - y, y - boxes[node, 4]))
    ez = max(zero, max(boxes[node, 2] - z, z - boxes[node, 5]))
    return ex * ex + ey * ey + ez * ez


@njit(
    "Tuple((float32, int32))(float32[:,::1], int32[::1], float32[:,::1], int32[::1], "
    "float32, float32, float32, float32, int32)",
    nogil=True,
    cache=True,
)
def query(points, labels, boxes, lowest, x, y, z, best, found):
    """Improve on a squared distance ``best`` to the point called ``found``; the lowest label wins a tie."""
    width = boxes.shape[0] // 2
    waiting = np.empty(64, np.int32)
    apart = np.empty(64, np.float32)
    top = 0
    node = np.int64(1)
    while True:
        if node >= width:
            first = (node - width) * LEAF
            for j in range(first, min(first + LEAF, points.shape[0])):
                ex = x - points[j, 0]
                ey = y - points[j, 1]
                ez = z - points[j, 2]
                d = ex * ex + ey * ey + ez * ez
                if d < best or (d == best and labels[j] < found):
                    best = d
                    found = labels[j]
        else:
            left, right = _box_distance(boxes, 2 * node, x, y, z), _box_distance(boxes, 2 * node + 1, x, y, z)
            near, far = 2 * node, 2 * node + 1
            if right < left:
                near, far = far, near
                left, right = right, left
            if right < best or (right == best and lowest[far] < found):
                waiting[top] = far
                apart[top] = right
                top += 1
            if left < best or (left == best and lowest[near] < found):
                node = near
                continue
        while top > 0 and (apart[top - 1] > best or (apart[top - 1] == best and lowest[waiting[top - 1]] >= found)):
            top -= 1
        if top == 0:
            return best, found
        top -= 1
        node = np.int64(waiting[top])
