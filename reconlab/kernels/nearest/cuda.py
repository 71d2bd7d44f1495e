# mypy: allow-untyped-defs, allow-untyped-calls
"""Nearest neighbours on the GPU: brute force in tiles, the distances never leave the registers.

A program takes a block of sources and a span of targets. Each element of its tile keeps the closest target that it
has seen and the tile is reduced once, at the end. A pair takes nine instructions: three differences, a product, two
fused multiply-adds, a comparison and two selections. Where the sources alone would leave most of the GPU idle, the
targets are divided, too, and a second kernel takes the closest of each source's candidates: a minimum over
(distance, index) does not depend on order.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from reconlab.kernels.gpu import Example, deterministic, on_device

ROWS, COLUMNS = 64, 32
"""Sources and targets in a tile: 16 pairs a thread, so that loads are few."""

PROGRAMS = 1024
"""Programs wanted, about two waves on the largest GPUs; targets are divided until there are as many."""

LEAST = 256
"""Targets that a span has at least: fewer, and reducing the tile would cost as much as filling it."""

INSTRUCTIONS = 9
"""Of each pair."""

BLOCK = 256
SEGMENTS, LANES = 32, 16


@triton.jit
def _search(
    source, target, distance, index, sources, targets, blocks, splits, span, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Closest target in one span of each source in one block; sums that are not finite never compare as closer."""
    program = tl.program_id(0)
    row = (program % blocks) * ROWS + tl.arange(0, ROWS)
    split = (program // blocks) % splits
    batch = (program // blocks // splits).to(tl.int64)
    source += batch * sources * 3
    target += batch * targets * 3
    inside = row < sources
    x = tl.load(source + row * 3, mask=inside, other=0.0)[:, None]
    y = tl.load(source + row * 3 + 1, mask=inside, other=0.0)[:, None]
    z = tl.load(source + row * 3 + 2, mask=inside, other=0.0)[:, None]
    lane = tl.arange(0, COLUMNS)
    best = tl.full((ROWS, COLUMNS), float("inf"), tl.float32)
    found = tl.zeros((ROWS, COLUMNS), tl.int32)
    for first in range(split * span, tl.minimum(split * span + span, targets), COLUMNS):
        column = first + lane
        here = column < targets
        dx = x - tl.load(target + column * 3, mask=here, other=float("nan"))[None, :]
        dy = y - tl.load(target + column * 3 + 1, mask=here, other=float("nan"))[None, :]
        dz = z - tl.load(target + column * 3 + 2, mask=here, other=float("nan"))[None, :]
        square = dx * dx + dy * dy + dz * dz
        closer = square < best
        best = tl.where(closer, square, best)
        found = tl.where(closer, first, found)
    closest = tl.min(best, 1)
    # Of equally close ones the lowest; nothing found is index 0.
    candidate = tl.where(best < float("inf"), found + lane[None, :], 0)
    candidate = tl.where(best == closest[:, None], candidate, 2147483647)
    batches = tl.num_programs(0) // blocks // splits
    at = (split.to(tl.int64) * batches + batch) * sources + row
    tl.store(distance + at, closest, mask=inside)
    tl.store(index + at, tl.min(candidate, 1), mask=inside)


@triton.jit
def _closest(distances, indices, distance, index, count, splits, BLOCK: tl.constexpr):
    """The closest of the spans' candidates; spans ascend, so that the first of equals has the lowest index."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    best = tl.load(distances + at, mask=inside, other=0.0)
    found = tl.load(indices + at, mask=inside, other=0)
    for _ in range(1, splits):
        at += count
        square = tl.load(distances + at, mask=inside, other=0.0)
        candidate = tl.load(indices + at, mask=inside, other=0)
        found = tl.where(square < best, candidate, found)
        best = tl.minimum(square, best)
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(distance + at, best, mask=inside)
    tl.store(index + at, found, mask=inside)


@triton.jit
def _steps(
    source, target, index, upstream, by_source, by_target, count, sources, targets,
    SCATTER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient of each source and, by atomics, its negative to the chosen target; none over infinite distances."""
    point = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = point < count
    here = point * 3
    there = (point // sources * targets + tl.load(index + point, mask=inside, other=0)) * 3
    dx = tl.load(source + here, mask=inside, other=0.0) - tl.load(target + there, mask=inside, other=0.0)
    dy = tl.load(source + here + 1, mask=inside, other=0.0) - tl.load(target + there + 1, mask=inside, other=0.0)
    dz = tl.load(source + here + 2, mask=inside, other=0.0) - tl.load(target + there + 2, mask=inside, other=0.0)
    matched = inside & (dx * dx + dy * dy + dz * dz < float("inf"))
    twice = 2.0 * tl.load(upstream + point, mask=matched, other=0.0)
    dx = tl.where(matched, twice * dx, 0.0)
    dy = tl.where(matched, twice * dy, 0.0)
    dz = tl.where(matched, twice * dz, 0.0)
    tl.store(by_source + here, dx, mask=inside)
    tl.store(by_source + here + 1, dy, mask=inside)
    tl.store(by_source + here + 2, dz, mask=inside)
    if SCATTER:
        tl.atomic_add(by_target + there, -dx, mask=matched, sem="relaxed")
        tl.atomic_add(by_target + there + 1, -dy, mask=matched, sem="relaxed")
        tl.atomic_add(by_target + there + 2, -dz, mask=matched, sem="relaxed")


@triton.jit
def _segment_sums(steps, order, start, by_target, count, SEGMENTS: tl.constexpr, LANES: tl.constexpr):
    """Minus the sum of each target's steps, in the order of ``order``: always the same additions."""
    row = tl.program_id(0).to(tl.int64) * SEGMENTS + tl.arange(0, SEGMENTS)
    inside = row < count
    begin = tl.load(start + row, mask=inside, other=0)
    end = tl.load(start + row + 1, mask=inside, other=0)
    at = begin[:, None] + tl.arange(0, LANES)[None, :]
    x = tl.zeros((SEGMENTS, LANES), tl.float32)
    y = tl.zeros((SEGMENTS, LANES), tl.float32)
    z = tl.zeros((SEGMENTS, LANES), tl.float32)
    for _ in range(0, tl.max(end - begin, 0).to(tl.int32), LANES):
        here = at < end[:, None]
        point = tl.load(order + at, mask=here, other=0)
        x += tl.load(steps + point * 3, mask=here, other=0.0)
        y += tl.load(steps + point * 3 + 1, mask=here, other=0.0)
        z += tl.load(steps + point * 3 + 2, mask=here, other=0.0)
        at += LANES
    tl.store(by_target + row * 3, -tl.sum(x, 1), mask=inside)
    tl.store(by_target + row * 3 + 1, -tl.sum(y, 1), mask=inside)
    tl.store(by_target + row * 3 + 2, -tl.sum(z, 1), mask=inside)


def spans(batch: int, sources: int, targets: int) -> tuple[int, int]:
    """Into how many spans the targets are divided, and the targets in each (a multiple of the tile's width)."""
    programs = max(1, batch * triton.cdiv(sources, ROWS))
    wanted = min(triton.cdiv(PROGRAMS, programs), max(1, targets // LEAST))
    span = triton.cdiv(triton.cdiv(targets, wanted), COLUMNS) * COLUMNS
    return triton.cdiv(targets, span), span


def nearest_neighbours(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """For every source point the closest finite target point, as the reference has it.

    Args:
        source: ``(B, N, 3)`` float32, contiguous.
        target: ``(B, M, 3)`` float32, contiguous, ``M >= 1``.

    Returns:
        Squared distances ``(B, N)`` and indices ``(B, N)`` int64. Beside them, memory of ``8 B N`` bytes for each
        span where the targets are divided, which is only done for small ``B N``.
    """
    batch, sources, targets = source.shape[0], source.shape[1], target.shape[1]
    distance = source.new_empty((batch, sources))
    index = torch.empty((batch, sources), dtype=torch.int64, device=source.device)
    if distance.numel() == 0:
        return distance, index
    blocks = triton.cdiv(sources, ROWS)
    splits, span = spans(batch, sources, targets)
    several = splits > 1
    distances = source.new_empty((splits, batch, sources)) if several else distance
    indices = torch.empty_like(distances, dtype=torch.int32) if several else index
    with on_device(source):
        _search[(batch * blocks * splits,)](
            source, target, distances, indices, sources, targets, blocks, splits, span, ROWS=ROWS, COLUMNS=COLUMNS
        )
        if several:
            count = batch * sources
            _closest[(triton.cdiv(count, BLOCK),)](distances, indices, distance, index, count, splits, BLOCK=BLOCK)
    return distance, index


def gradients(
    source: Tensor, target: Tensor, index: Tensor, upstream: Tensor, by_target: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients by both clouds, of ``(B, N)`` upstream gradients of the squared distances.

    In deterministic mode the steps are sorted by their targets and summed; else they are added by atomics. Pairs at
    infinite distance get and give no gradient.

    Args:
        source: ``(B, N, 3)``, contiguous as all arguments.
        target: ``(B, M, 3)``.
        index: ``(B, N)`` int64.
        upstream: ``(B, N)``.
        by_target: Whether the target's gradient is wanted.
    """
    (batch, sources), targets = index.shape, target.shape[1]
    by_source = torch.empty_like(source)
    count, rows = batch * sources, batch * targets
    ordered = by_target and deterministic()
    back = torch.zeros_like(target) if by_target else None
    if count == 0:
        return by_source, back
    scatter = by_target and not ordered
    with on_device(source):
        _steps[(triton.cdiv(count, BLOCK),)](
            source, target, index, upstream, by_source, back, count, sources, targets,
            SCATTER=scatter, BLOCK=BLOCK,
        )  # fmt: skip
        if ordered:
            first = torch.arange(batch, device=index.device)[:, None] * targets
            chosen, order = torch.sort((index + first).flatten(), stable=True)
            start = torch.searchsorted(chosen, torch.arange(rows + 1, device=index.device))
            _segment_sums[(triton.cdiv(rows, SEGMENTS),)](
                by_source, order, start, back, rows, SEGMENTS=SEGMENTS, LANES=LANES
            )
    return by_source, back


def work(batch: int, sources: int, targets: int) -> tuple[float, float]:
    """Operations and bytes of one search, for a roofline.

    Operations are instructions times two, as the peak rate of a GPU counts a fused multiply-add: divided by that rate
    they are the least time. Bytes are those of the clouds and the results, each moved once.
    """
    pairs = float(batch) * sources * targets
    return 2.0 * INSTRUCTIONS * pairs, 12.0 * batch * (sources + targets) + 12.0 * batch * sources


_POINTS = {"source": "*fp32", "target": "*fp32"}
_SIZES: dict[str, Any] = {"sources": "i32", "targets": "i32"}
_OUT = {"distance": "*fp32", "index": "*i64"}

EXAMPLES = [
    Example(
        _search,
        {**_POINTS, **_OUT, **_SIZES, "blocks": "i32", "splits": "i32", "span": "i32"},
        {"ROWS": ROWS, "COLUMNS": COLUMNS},
    ),
    Example(
        _closest,
        {"distances": "*fp32", "indices": "*i32", **_OUT, "count": "i32", "splits": "i32"},
        {"BLOCK": BLOCK},
    ),
    *(
        Example(
            _steps,
            {**_POINTS, "index": "*i64", "upstream": "*fp32", "by_source": "*fp32"}
            | {"by_target": "*fp32", "count": "i32", **_SIZES},
            {"SCATTER": scatter, "BLOCK": BLOCK},
            label="atomics" if scatter else "",
        )
        for scatter in (False, True)
    ),
    Example(
        _segment_sums,
        {"steps": "*fp32", "order": "*i64", "start": "*i64", "by_target": "*fp32", "count": "i32"},
        {"SEGMENTS": SEGMENTS, "LANES": LANES},
    ),
]
