# mypy: allow-untyped-defs, allow-untyped-calls
"""The kernels of the splat that go over points: into the volume, and back from it.

A program takes a block of one image's points, whose positions are (x, y, z) in voxels. ``box`` is of
:func:`reconlab.kernels.splat.cuda.render`: 8 numbers an image. The tap at k voxels is ``norm * exp(-rate * k²)``;
``count`` is J and ``size`` V.
"""

from __future__ import annotations

import triton
import triton.language as tl

from reconlab.kernels.splat.cuda_volume import clipped


@triton.jit
def _cells(position, image, count, size, j):
    """The lower corner of each point's cell, the place in it, whether it takes part, and whether it is finite."""
    position += image.to(tl.int64) * count * 3
    x = tl.load(position + 3 * j, mask=j < count, other=-2.0)
    y = tl.load(position + 3 * j + 1, mask=j < count, other=-2.0)
    z = tl.load(position + 3 * j + 2, mask=j < count, other=-2.0)
    infinity = float("inf")
    finite = (tl.abs(x) < infinity) & (tl.abs(y) < infinity) & (tl.abs(z) < infinity)
    near = (x > -1) & (x < size) & (y > -1) & (y < size) & (z > -1) & (z < size)
    x = tl.where(near, x, -2.0)
    y = tl.where(near, y, -2.0)
    z = tl.where(near, z, -2.0)
    ix, iy, iz = tl.floor(x), tl.floor(y), tl.floor(z)
    fx, fy, fz = x - ix, y - iy, z - iz
    return ix.to(tl.int32), iy.to(tl.int32), iz.to(tl.int32), fx, fy, fz, near, finite


@triton.jit
def _corner(ix, iy, iz, near, size, CORNER: tl.constexpr):
    """Index in [z, x, y] of one of the 8 corners of each cell, and whether it is in the grid."""
    x = ix + CORNER % 2
    y = iy + CORNER // 2 % 2
    z = iz + CORNER // 4
    inside = near & (x >= 0) & (x < size) & (y >= 0) & (y < size) & (z >= 0) & (z < size)
    return (z * size + x) * size + y, inside


@triton.jit
def scatter(position, weight, box, count, size, ONE: tl.constexpr, BLOCK: tl.constexpr):
    """Add trilinear weights, in units of 1 / ``ONE``, and extend each image's box."""
    blocks = tl.cdiv(count, BLOCK)
    image = tl.program_id(0) // blocks
    j = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    ix, iy, iz, fx, fy, fz, near, finite = _cells(position, image, count, size, j)
    weight += image.to(tl.int64) * size * size * size
    for corner in tl.static_range(8):
        at, inside = _corner(ix, iy, iz, near, size, corner)
        w = fx if corner % 2 else 1.0 - fx
        w *= fy if corner // 2 % 2 else 1.0 - fy
        w *= fz if corner // 4 else 1.0 - fz
        w = tl.floor(w * ONE + 0.5).to(weight.dtype.element_ty)
        tl.atomic_add(weight + at, w, mask=inside, sem="relaxed")
    box += image * 8
    none = -1073741824
    tl.atomic_max(box, tl.max(tl.where(near, -tl.maximum(ix, 0), none)), sem="relaxed")
    tl.atomic_max(box + 1, tl.max(tl.where(near, tl.minimum(ix + 2, size), none)), sem="relaxed")
    tl.atomic_max(box + 2, tl.max(tl.where(near, -tl.maximum(iy, 0), none)), sem="relaxed")
    tl.atomic_max(box + 3, tl.max(tl.where(near, tl.minimum(iy + 2, size), none)), sem="relaxed")
    tl.atomic_max(box + 4, tl.max(tl.where(near, -tl.maximum(iz, 0), none)), sem="relaxed")
    tl.atomic_max(box + 5, tl.max(tl.where(near, tl.minimum(iz + 2, size), none)), sem="relaxed")
    tl.atomic_max(box + 6, tl.max(tl.where(finite, none, 1)), sem="relaxed")


@triton.jit
def corners(position, weight, unclipped, count, size, ONE: tl.constexpr, BLOCK: tl.constexpr):
    """A bit for each corner of a point's cell: it is in the grid, and its weight is not above one."""
    blocks = tl.cdiv(count, BLOCK)
    image = tl.program_id(0) // blocks
    j = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    ix, iy, iz, _, _, _, near, _ = _cells(position, image, count, size, j)
    weight += image.to(tl.int64) * size * size * size
    bits = tl.zeros((BLOCK,), tl.int32)
    for corner in tl.static_range(8):
        at, inside = _corner(ix, iy, iz, near, size, corner)
        value = tl.load(weight + at, mask=inside, other=0)
        bits |= tl.where(inside & (clipped(value, ONE + 1) <= ONE), 1 << corner, 0)
    tl.store(unclipped + image.to(tl.int64) * count + j, bits.to(tl.uint8), mask=j < count)


@triton.jit
def gather(
    position, scale, unclipped, by_volume, by_position, box, count, size, reach, rate, norm,
    POINTS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Gradient by the positions, from that by the volume blurred along x: a point's lanes are a row's voxels."""
    blocks = tl.cdiv(count, POINTS)
    image = tl.program_id(0) // blocks
    j = tl.program_id(0) % blocks * POINTS + tl.arange(0, POINTS)
    ix, iy, iz, fx, fy, fz, _, _ = _cells(position, image, count, size, j)
    first = image.to(tl.int64) * count
    bits = tl.load(unclipped + first + j, mask=j < count, other=0).to(tl.int32)
    box += image * 8
    low = tl.maximum(-tl.load(box) - reach, 0)
    high = tl.minimum(tl.load(box + 1) + reach, size)
    k = (tl.arange(0, LANES) - reach)[None, :]
    x = ix[:, None] + k
    inside = (x >= low) & (x < high) & (k <= reach + 1)
    to_left = norm * tl.where(k <= reach, tl.exp(-rate * k * k), 0.0)  # of x: what it gives the cell's left side,
    to_right = norm * tl.where(k > -reach, tl.exp(-rate * (k - 1) * (k - 1)), 0.0)  # and its right side
    by_volume += image.to(tl.int64) * size * size * size
    gx = tl.zeros((POINTS, LANES), tl.float32)
    gy = tl.zeros((POINTS, LANES), tl.float32)
    gz = tl.zeros((POINTS, LANES), tl.float32)
    for edge in tl.static_range(4):
        left_free = ((bits >> (2 * edge)) & 1)[:, None]
        right_free = ((bits >> (2 * edge + 1)) & 1)[:, None]
        row = ((iz + edge // 2) * size + iy + edge % 2) * size
        g = tl.load(by_volume + row[:, None] + x, mask=inside & (left_free + right_free > 0), other=0.0)
        left = g * to_left * left_free.to(tl.float32)
        right = g * to_right * right_free.to(tl.float32)
        between = left + fx[:, None] * (right - left)
        wy = fy[:, None] if edge % 2 else 1.0 - fy[:, None]
        wz = fz[:, None] if edge // 2 else 1.0 - fz[:, None]
        gx += wy * wz * (right - left)
        gy += wz * between if edge % 2 else -wz * between
        gz += wy * between if edge // 2 else -wy * between
    bad = (tl.load(box + 6) > 0) | ~(tl.abs(tl.load(scale + image)) < float("inf"))
    out = by_position + (first + j) * 3
    tl.store(out, tl.where(bad, float("nan"), tl.sum(gx, 1)), mask=j < count)
    tl.store(out + 1, tl.where(bad, float("nan"), tl.sum(gy, 1)), mask=j < count)
    tl.store(out + 2, tl.where(bad, float("nan"), tl.sum(gz, 1)), mask=j < count)
