# mypy: allow-untyped-defs, allow-untyped-calls
"""Weighted pairwise repulsion on the GPU: value and gradients in one pass over the pairs, O(J) memory, no atomics.

A program takes a block of rows and goes over all columns. The kernel is symmetric, so that everything wanted of a row
is a sum along it: what it adds to the value (which is its own weight's gradient), the force on its point and, where
asked for, the gradient of its column weight. A pair takes 15 instructions, 21 flops with a fused multiply-add as two.
Two of them, the reciprocal root and the exponential, run at an eighth of the rate of the others, so that they alone
take as long as 16: a multiprocessor does 8 pairs a cycle, by either count. Halving the pairs by symmetry would need
atomics or O(J²) memory.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from reconlab.kernels.gpu import Example, on_device

ROWS, FEW_ROWS, COLUMNS = 32, 16, 32
"""Points in a tile: rows where there are many, rows where there are few, columns."""

PROGRAMS = 1024
"""Programs, about two waves on the largest GPUs, below which the blocks are made smaller."""

LOG2_E = math.log2(math.e)
TINY = tl.constexpr(1e-37)  # keeps the reciprocal root finite between equal points, whose difference vector is 0
FAR = tl.constexpr(1e18)  # positions beyond it would overflow when squared; they feel no force anyway


@triton.jit
def _position(points, at, inside):
    x = tl.load(points + at * 2, mask=inside, other=0.0)
    y = tl.load(points + at * 2 + 1, mask=inside, other=0.0)
    return tl.minimum(tl.maximum(x, -FAR), FAR), tl.minimum(tl.maximum(y, -FAR), FAR)


@triton.jit
def _repulsion(
    points, row, column, poison, value, by_points, by_row, by_column, count, blocks, scale, back,
    SQUARED: tl.constexpr, WEIGHTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A block of rows against all columns. Differences are exact for close points: scaling comes after them."""
    program = tl.program_id(0)
    image = (program // blocks).to(tl.int64)
    points += image * count * 2
    row += image * count
    column += image * count
    j = (program % blocks) * ROWS + tl.arange(0, ROWS)
    inside = j < count
    x, y = _position(points, j, inside)
    a = tl.load(row + j, mask=inside, other=0.0)
    b = tl.load(column + j, mask=inside, other=0.0)
    end = count
    if not WEIGHTS:  # rows without weight feel and add nothing
        end = count * tl.max(((a != 0.0) | (b != 0.0)).to(tl.int32), 0)
    lane = tl.arange(0, COLUMNS)
    mine = tl.zeros((ROWS, COLUMNS), tl.float32)
    other = tl.zeros((ROWS, COLUMNS), tl.float32)
    fx = tl.zeros((ROWS, COLUMNS), tl.float32)
    fy = tl.zeros((ROWS, COLUMNS), tl.float32)
    for first in range(0, end, COLUMNS):
        k = first + lane
        here = k < count
        u, v = _position(points, k, here)
        c = tl.load(row + k, mask=here, other=0.0)[None, :]
        d = tl.load(column + k, mask=here, other=0.0)[None, :]
        dx = u[None, :] - x[:, None]
        dy = v[None, :] - y[:, None]
        pair = a[:, None] * d + b[:, None] * c  # the pair counts twice, once in each row
        if SQUARED:
            kernel = tl.exp2((dx * dx + dy * dy) * scale)
            force = pair * kernel
        else:
            square = dx * dx + (dy * dy + TINY)
            inverse = tl.rsqrt(square)
            kernel = tl.exp2(square * inverse * scale)
            force = pair * kernel * inverse
        mine += d * kernel
        fx += force * dx
        fy += force * dy
        if WEIGHTS:
            other += c * kernel
    bad = tl.load(poison + image)  # 0, or NaN where a position is not finite
    sums = tl.sum(mine, 1) + bad
    at = image * count + j
    tl.store(value + program, tl.sum(a * sums, 0) + bad)
    tl.store(by_points + at * 2, tl.sum(fx, 1) * back + bad, mask=inside)
    tl.store(by_points + at * 2 + 1, tl.sum(fy, 1) * back + bad, mask=inside)
    if WEIGHTS:
        tl.store(by_row + at, sums, mask=inside)
        tl.store(by_column + at, tl.sum(other, 1) + bad, mask=inside)


def repulsion(
    points: Tensor, row: Tensor, column: Tensor, sigma: float, squared: bool, weights_too: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """``Σ_jk row_j column_k exp(-d(p_j, p_k) / σ)`` of each image and its gradients, as the reference has them.

    Args:
        points: ``(M, J, 2)`` float32, contiguous as all arguments.
        row: ``(M, J)``.
        column: ``(M, J)``.
        sigma: Decay, in the unit of the distance.
        squared: Whether ``d`` is the squared distance or the distance.
        weights_too: Whether the gradients by the weights are wanted: one more instruction a pair.

    Returns:
        The value ``(M,)`` and its gradients by ``points``, ``row`` and ``column``, the last two None if not wanted.
    """
    images, count = points.shape[:2]
    by_points = torch.empty_like(points)
    by_row, by_column = (torch.empty_like(row), torch.empty_like(row)) if weights_too else (None, None)
    if points.numel() == 0:
        return points.new_zeros(images), by_points, by_row, by_column
    rows = ROWS if images * triton.cdiv(count, ROWS) >= PROGRAMS else FEW_ROWS
    blocks = triton.cdiv(count, rows)
    value = points.new_empty((images, blocks))
    poison = (points * 0).sum((1, 2))
    with on_device(points):
        _repulsion[(images * blocks,)](
            points, row, column, poison, value, by_points, by_row, by_column, count, blocks,
            -LOG2_E / sigma, (2.0 if squared else 1.0) / sigma,
            SQUARED=squared, WEIGHTS=weights_too, ROWS=rows, COLUMNS=COLUMNS,
        )  # fmt: skip
    return value.sum(1), by_points, by_row, by_column


def work(images: int, count: int, squared: bool = False, weights_too: bool = False) -> tuple[float, float]:
    """Operations and bytes of value and gradient, for a roofline.

    Operations are instructions times two, as the peak rate of a GPU counts a fused multiply-add: divided by that rate
    they are the least time. For distances the unit of roots and exponentials is what takes longest, as long as 16
    other instructions; for their squares there is no root, and 12 instructions (13 with the weights) count. Bytes
    are those of the points, the weights, the value and the gradients, each moved once.
    """
    instructions = 12 + weights_too if squared else 16
    numbers = 6 + 2 * weights_too
    return 2.0 * instructions * images * count**2, 4.0 * images * (numbers * count + 1)


_TYPES = {
    name: "*fp32" for name in ("points", "row", "column", "poison", "value", "by_points", "by_row", "by_column")
}

EXAMPLES = [
    Example(
        _repulsion,
        {**_TYPES, "count": "i32", "blocks": "i32", "scale": "fp32", "back": "fp32"},
        {"SQUARED": squared, "WEIGHTS": weights, "ROWS": rows, "COLUMNS": COLUMNS},
        label=f"{rows}{' squared' if squared else ''}{' weights' if weights else ''}",
    )
    for rows in (ROWS, FEW_ROWS)
    for squared in (False, True)
    for weights in (False, True)
]
