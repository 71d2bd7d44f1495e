# mypy: allow-untyped-defs, allow-untyped-calls
"""The kernels of the splat that walk through volumes: blurs along each axis, and the product along the rays.

Every one works on tiles of a plane whose second axis is contiguous in memory, and blurs along the first: a thread
then loads aligned vectors, and a load that the tile above has made comes from the first-level cache. A tile that no
weight can reach is left alone, so that time follows the points' bounding box, not the volume. Nothing outside of the
box and the blur's reach is written, and nothing of it is read: every load is masked by the span that was written
along the tile's first axis, and along the second the spans are those of whole tiles.

``box`` is of :func:`reconlab.kernels.splat.cuda.render`: 8 numbers an image. The tap at k voxels is
``norm * exp(-rate * k²)``; sizes are V.
"""

from __future__ import annotations

import triton
import triton.language as tl

EPS = tl.constexpr(1e-5)  # occupancies are clipped to [EPS, FULL]
FULL = tl.constexpr(1 - 1e-5)


@triton.jit
def spans(box):
    """First and one past the last index of cells that hold weight, along x, y and z; without any, first > last."""
    x, y, z = -tl.load(box), -tl.load(box + 2), -tl.load(box + 4)
    return x, tl.load(box + 1), y, tl.load(box + 3), z, tl.load(box + 5)


@triton.jit
def clipped(weight, ONE: tl.constexpr):
    """A cell's fixed-point weight, of at most one: 32 bits are taken as unsigned."""
    if weight.dtype == tl.int32:
        weight = weight.to(tl.uint32, bitcast=True)
    return tl.minimum(weight, ONE)


@triton.jit
def blurred(source, row, column, stride, low, high, size, reach, rate, norm):
    """``(rows, columns)`` of ``Σ_k tap(|k|) source[row + k, column]`` over rows in [low, high)."""
    at = source + row[:, None] * stride + column[None, :]
    inside = (column < size)[None, :]
    out = norm * tl.load(at, mask=((row >= low) & (row < high))[:, None] & inside, other=0.0)
    for k in range(1, reach + 1):
        back = ((row >= low + k) & (row < high + k))[:, None] & inside
        ahead = ((row >= low - k) & (row < high - k))[:, None] & inside
        pair = tl.load(at - k * stride, mask=back, other=0.0) + tl.load(at + k * stride, mask=ahead, other=0.0)
        out += norm * tl.exp(-rate * k * k) * pair
    return out


@triton.jit
def blur_across(weight, target, box, size, reach, rate, norm, ONE: tl.constexpr, TILE: tl.constexpr):
    """Clip the splatted weights, blur them along x, and turn [z, x, y] into [z, y, x].

    Reads cells in the box; writes tiles that overlap it, wider by the reach along x.
    """
    tiles = tl.cdiv(size, TILE)
    program = tl.program_id(0)
    y0 = program % tiles * TILE
    x0 = program // tiles % tiles * TILE
    plane = program // tiles // tiles
    z = plane % size
    box += plane // size * 8
    x_low, x_high, y_low, y_high, z_low, z_high = spans(box)
    reached = (x0 < x_high + reach) & (x0 + TILE > x_low - reach) & (y0 < y_high) & (y0 + TILE > y_low)
    if reached & (z >= z_low) & (z < z_high):
        x = x0 + tl.arange(0, TILE)
        y = y0 + tl.arange(0, TILE)
        weight += plane.to(tl.int64) * size * size
        target += plane.to(tl.int64) * size * size
        at = weight + x[:, None] * size + y[None, :]
        inside = (y < size)[None, :]
        own = tl.load(at, mask=((x >= x_low) & (x < x_high))[:, None] & inside, other=0)
        out = norm * clipped(own, ONE).to(tl.float32)
        for k in range(1, reach + 1):
            back = ((x >= x_low + k) & (x < x_high + k))[:, None] & inside
            ahead = ((x >= x_low - k) & (x < x_high - k))[:, None] & inside
            pair = clipped(tl.load(at - k * size, mask=back, other=0), ONE)
            pair += clipped(tl.load(at + k * size, mask=ahead, other=0), ONE)
            out += norm * tl.exp(-rate * k * k) * pair.to(tl.float32)
        out *= 1.0 / ONE
        tl.store(target + y[None, :] * size + x[:, None], out, mask=(x < size)[:, None] & inside)


@triton.jit
def blur(
    source, target, push, box, size, reach, rate, norm, DEEP: tl.constexpr, BACK: tl.constexpr, TILE: tl.constexpr
):
    """Blur ``[z, y, x]`` along y, or along z if ``DEEP``; on the way back to where the points are.

    Forward, along y, it reads rows of the box and writes those in reach of them, too. Back it is the other way
    round, and along z, which comes first, each ray is multiplied by its ``push``, ``(M, V, V)``.
    """
    tiles = tl.cdiv(size, TILE)
    program = tl.program_id(0)
    x0 = program % tiles * TILE
    row0 = program // tiles % tiles * TILE
    plane = program // tiles // tiles
    fixed = plane % size
    image = plane // size
    box += image * 8
    x_low, x_high, y_low, y_high, z_low, z_high = spans(box)
    if DEEP:
        low, high, first, last = z_low, z_high, y_low - reach, y_high + reach
    else:
        low, high, first, last = y_low, y_high, z_low, z_high
    wide_low = tl.maximum(low - reach, 0)
    wide_high = tl.minimum(high + reach, size)
    if BACK:
        read_low, read_high = wide_low, wide_high
    else:
        read_low, read_high, low, high = low, high, wide_low, wide_high
    reached = (x0 < x_high + reach) & (x0 + TILE > x_low - reach) & (row0 < high) & (row0 + TILE > low)
    if reached & (fixed >= first) & (fixed < last):
        row = row0 + tl.arange(0, TILE)
        x = x0 + tl.arange(0, TILE)
        volume = image.to(tl.int64) * size * size * size
        if DEEP:
            stride = size * size
            volume += fixed * size
        else:
            stride = size
            volume += fixed * size * size
        out = blurred(source + volume, row, x, stride, read_low, read_high, size, reach, rate, norm)
        if DEEP:
            ray = (image.to(tl.int64) * size + fixed) * size + x
            out *= tl.load(push + ray, mask=x < size, other=0.0)[None, :]
        kept = ((row >= low) & (row < high))[:, None] & (x < size)[None, :]
        tl.store(target + volume + row[:, None] * stride + x[None, :], out, mask=kept)


@triton.jit
def _either(stopped, passed, stopped_next, passed_next):
    """One stretch of a ray and another: what stops in them, and what passes both."""
    return stopped + passed * stopped_next, passed * passed_next


@triton.jit
def rays(
    source, scale, image, passed, slope, free, box, size, reach, rate, norm,
    KEEP: tl.constexpr, DEPTH: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Blur along z, and what of each ray is stopped: a program marches a row of rays through the box.

    With ``KEEP`` it writes for the way back ``free``, 1 / (1 - o) where the occupancy o is not clipped and 0 where it
    is; ``passed``, Π (1 - o); and ``slope``, the sum over the ray of ``free`` times the blurred weights. An image
    with a coordinate or a scale that is not finite is NaN.
    """
    tiles = tl.cdiv(size, TILE)
    program = tl.program_id(0)
    x0 = program % tiles * TILE
    y = program // tiles % size
    m = program // tiles // size
    box += m * 8
    factor = tl.load(scale + m)
    x_low, x_high, y_low, y_high, z_low, z_high = spans(box)
    reached = (x0 < x_high + reach) & (x0 + TILE > x_low - reach) & (y >= y_low - reach) & (y < y_high + reach)
    low = tl.maximum(z_low - reach, 0)
    high = tl.where(reached, tl.minimum(z_high + reach, size), low)
    x = x0 + tl.arange(0, TILE)
    volume = m.to(tl.int64) * size * size * size + y * size
    stop = tl.zeros((DEPTH, TILE), tl.float32)
    left = tl.full((DEPTH, TILE), 1.0, tl.float32)
    steep = tl.zeros((DEPTH, TILE), tl.float32)
    for start in range(low, high, DEPTH):
        z = start + tl.arange(0, DEPTH)
        weight = blurred(source + volume, z, x, size * size, z_low, z_high, size, reach, rate, norm)
        raw = factor * weight
        occupancy = tl.minimum(tl.maximum(raw, EPS), FULL)
        here = (z < high)[:, None]
        gain = tl.where(here & (raw == occupancy), 1.0 / (1.0 - occupancy), 0.0)
        occupancy = tl.where(here, occupancy, 0.0)
        steep += gain * weight
        stop += left * occupancy
        left *= 1.0 - occupancy
        if KEEP:
            at = free + volume + z[:, None] * (size * size) + x[None, :]
            tl.store(at, gain, mask=here & (x < size)[None, :])
    # Each thread of the tile marched through its own part of the ray; the order does not matter.
    stop, left = tl.reduce((stop, left), 0, _either)
    empty = size - tl.maximum(high - low, 0)
    rest = tl.exp(empty * -1.000005e-5)  # log(1 - EPS)
    stop, left = stop + left * (1.0 - rest), left * rest
    bad = (tl.load(box + 6) > 0) | ~(tl.abs(factor) < float("inf"))
    out = (m.to(tl.int64) * size + y) * size + x
    tl.store(image + out, tl.where(bad, float("nan"), stop), mask=x < size)
    if KEEP:
        tl.store(passed + out, tl.where(bad, float("nan"), left), mask=x < size)
        tl.store(slope + out, tl.sum(steep, 0), mask=x < size)
