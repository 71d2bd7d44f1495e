# mypy: allow-untyped-defs, allow-untyped-calls
"""Localised patch matching on the GPU: one pass over the window forward, one backward, nothing scattered.

Descriptors are read along their channels. A patch's neighbours are its neighbours' neighbours too, so that all but
the first reading of a descriptor come from a cache. Backward, a key patch looks for the queries in its window that
chose it and adds them up in row order, which is deterministic and needs no atomics.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor, empty, int64

from reconlab.kernels.gpu import Example, on_device

PATCHES = 8
"""Patches a program."""

CHANNELS = 128
"""Channels at a time, at most; DR-KFS' descriptors have as many."""


@triton.jit
def _neighbour(y, x, offset, height, width, reach_y, reach_x):
    """Where the window's patch number ``offset`` is, relative to the flat index, and whether it is on the grid."""
    across = 2 * reach_x + 1
    dy = offset // across - reach_y
    dx = offset % across - reach_x
    there = (y + dy >= 0) & (y + dy < height) & (x + dx >= 0) & (x + dx < width)
    return dy * width + dx, there


@triton.jit
def _match(
    query, key, distance, index, patches, height, width, reach_y, reach_x,
    channels: tl.constexpr, WHOLE: tl.constexpr, PATCHES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Best match of each patch in a block; ``WHOLE`` where one load has all channels."""
    patch = tl.program_id(0).to(tl.int64) * PATCHES + tl.arange(0, PATCHES)
    inside = patch < patches
    own = (patch % (height * width)).to(tl.int32)
    y, x = own // width, own % width
    lane = tl.arange(0, CHANNELS)[None, :]
    mine = query + patch[:, None] * channels
    theirs = key + patch[:, None] * channels
    if WHOLE:
        descriptor = tl.load(mine + lane, mask=inside[:, None] & (lane < channels), other=0.0)
    best = tl.full((PATCHES,), float("inf"), tl.float32)
    found = own
    for offset in range(0, (2 * reach_y + 1) * (2 * reach_x + 1)):
        shift, there = _neighbour(y, x, offset, height, width, reach_y, reach_x)
        there &= inside
        if WHOLE:
            other = tl.load(theirs + (shift * channels + lane), mask=there[:, None] & (lane < channels), other=0.0)
            difference = descriptor - other
            square = difference * difference
        else:
            square = tl.zeros((PATCHES, CHANNELS), tl.float32)
            for first in range(0, channels, CHANNELS):
                here = there[:, None] & (first + lane < channels)
                difference = tl.load(mine + (first + lane), mask=here, other=0.0)
                difference -= tl.load(theirs + (shift * channels + first + lane), mask=here, other=0.0)
                square += difference * difference
        mean = tl.sum(square, 1) / channels
        # The undisplaced patch is compared in its turn, but wins ties, and if it is not a number nothing beats it.
        take = there & ((mean < best) | ((shift == 0) & (mean == best)) | ((shift == 0) & (mean != mean)))
        best = tl.where(take, mean, best)
        found = tl.where(take, own + shift, found)
    tl.store(distance + patch, best, mask=inside)
    tl.store(index + patch, found, mask=inside)


@triton.jit
def _gradients(
    query, key, index, upstream, by_query, by_key, patches, height, width, reach_y, reach_x,
    channels: tl.constexpr, QUERY: tl.constexpr, KEY: tl.constexpr, PATCHES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Gradients of a block of patches, as queries and as keys, in one block of channels."""
    patch = tl.program_id(0).to(tl.int64) * PATCHES + tl.arange(0, PATCHES)
    inside = patch < patches
    own = (patch % (height * width)).to(tl.int32)
    y, x = own // width, own % width
    lane = (tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS))[None, :]
    at = patch[:, None] * channels + lane
    here = inside[:, None] & (lane < channels)
    if QUERY:
        chosen = patch - own + tl.load(index + patch, mask=inside, other=0)
        step = tl.load(upstream + patch, mask=inside, other=0.0) * 2.0 / channels
        other = tl.load(key + chosen[:, None] * channels + lane, mask=here, other=0.0)
        tl.store(by_query + at, step[:, None] * (tl.load(query + at, mask=here, other=0.0) - other), mask=here)
    if KEY:
        descriptor = tl.load(key + at, mask=here, other=0.0)
        total = tl.zeros((PATCHES, CHANNELS), tl.float32)
        for offset in range(0, (2 * reach_y + 1) * (2 * reach_x + 1)):
            shift, there = _neighbour(y, x, offset, height, width, reach_y, reach_x)
            there &= inside
            chose = there & (tl.load(index + (patch + shift), mask=there, other=-1) == own)
            step = tl.load(upstream + (patch + shift), mask=chose, other=0.0) * 2.0 / channels
            other = tl.load(query + (at + shift * channels), mask=chose[:, None] & here, other=0.0)
            total += tl.where(chose[:, None], step[:, None] * (descriptor - other), 0.0)
        tl.store(by_key + at, total, mask=here)


def _sizes(grid: Tensor, radius: int) -> tuple[int, int, int, int, int]:
    """Patches, height, width, and how far the window reaches: never past the grid."""
    m, gh, gw, _ = grid.shape
    return m * gh * gw, gh, gw, min(radius, gh - 1), min(radius, gw - 1)


def _width(channels: int) -> int:
    return min(CHANNELS, int(triton.next_power_of_2(channels)))


def best_matches(query: Tensor, key: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Distance and index of every query patch's best match, by the reference's rule; see there.

    Args:
        query: ``(M, gh, gw, C)`` float32, contiguous, not empty.
        key: The same.
        radius: In patches.

    Returns:
        ``(M, gh, gw)`` mean squared distances and int64 indices into the flattened grid.
    """
    distance = query.new_empty(query.shape[:3])
    index = empty(query.shape[:3], dtype=int64, device=query.device)
    sizes, channels = _sizes(query, radius), query.shape[3]
    width = _width(channels)
    with on_device(query):
        _match[(triton.cdiv(sizes[0], PATCHES),)](
            query, key, distance, index, *sizes,
            channels=channels, WHOLE=channels <= width, PATCHES=PATCHES, CHANNELS=width,
        )  # fmt: skip
    return distance, index


def gradients(
    query: Tensor, key: Tensor, index: Tensor, upstream: Tensor, radius: int, by_query: bool, by_key: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients by both grids, where wanted, of ``(M, gh, gw)`` upstream gradients; contiguous as all arguments."""
    mine = query.new_empty(query.shape) if by_query else None
    theirs = key.new_empty(key.shape) if by_key else None
    sizes, channels = _sizes(query, radius), query.shape[3]
    width = _width(channels)
    with on_device(query):
        _gradients[(triton.cdiv(sizes[0], PATCHES), triton.cdiv(channels, width))](
            query, key, index, upstream, mine, theirs, *sizes,
            channels=channels, QUERY=by_query, KEY=by_key, PATCHES=PATCHES, CHANNELS=width,
        )  # fmt: skip
    return mine, theirs


def work(images: int, height: int, width: int, channels: int, radius: int = 1) -> tuple[float, float]:
    """Operations and bytes of one match, without its gradient, for a roofline.

    Operations are instructions times two, as the peak rate of a GPU counts a fused multiply-add: a difference and a
    multiply-add for each channel of each pair of patches. Bytes are those of the grids and the results, each moved
    once.
    """
    rows, columns = (sum(max(0, n - abs(d)) for d in range(-radius, radius + 1)) for n in (height, width))
    patches = float(images) * height * width
    return 4.0 * images * rows * columns * channels, patches * (8.0 * channels + 12.0)


_TYPES = {
    **{name: "*fp32" for name in ("query", "key", "distance", "upstream", "by_query", "by_key")},
    "index": "*i64",
    **{name: "i32" for name in ("patches", "height", "width", "reach_y", "reach_x")},
}


def _typed(kernel: object, **constants: bool | int) -> Example:
    names = kernel.arg_names  # type: ignore[attr-defined]
    label = ", ".join(name.lower() for name, value in constants.items() if value is True)
    channels = 300 if constants.get("WHOLE") is False else CHANNELS
    constants = {**constants, "channels": channels, "PATCHES": PATCHES, "CHANNELS": CHANNELS}
    return Example(kernel, {n: t for n, t in _TYPES.items() if n in names}, constants, label=label)


EXAMPLES = [
    _typed(_match, WHOLE=True),
    _typed(_match, WHOLE=False),
    _typed(_gradients, QUERY=True, KEY=True),
    _typed(_gradients, QUERY=False, KEY=True),
    _typed(_gradients, QUERY=True, KEY=False),
]
