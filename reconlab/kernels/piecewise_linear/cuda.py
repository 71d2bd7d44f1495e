# mypy: allow-untyped-defs, allow-untyped-calls
"""The piecewise-linear score of constant filters on the GPU, and its gradient by the images.

Forward: a program is one warp that has the sums of a block of 32 × 4 pixels and all filters in its registers, for
4 × 4 filters 64 a thread. At each tap a thread loads its 4 pixels and, as vectors that all threads share, the 16
weights: 8 loads to 64 fused multiply-adds, so that the arithmetic is the limit. On the tensor cores each product
would be three for the precision of float32, and every pixel would be written to shared memory once a tap: on paper
that is no faster with 16 filters.

Backward: a pixel gathers, over the taps, the upstream gradient times the sum of the winning filters' weights. That
sum is looked up: terms are taken together in groups, with a table of all combinations of their pieces for each tap.
A group of two terms of four pieces has 16, so that the tables of a tap fit into a line of the cache. Gradient and
pieces travel as one 64-bit word.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from reconlab.kernels.gpu import Example, on_device

COLUMNS = tl.constexpr(32)
UNROLL = tl.constexpr(3)  # taps of a row at a time: the pixels' addresses are computed once for them

SUMS = 64
"""Pixels times filters of a thread."""

ROWS_BACK = 16
"""Rows of a block on the way back, with four warps."""

TABLE_BITS = 4
"""Pieces' numbers of terms that are looked up together have at most as many bits, if they are several terms."""

INSTRUCTIONS_BACK = 16
"""Of a pixel and tap on the way back with two groups, as compiled for an H200."""

BLOCK = 512


@triton.jit
def _scores(
    image, filters, bias, sign, score, code, height, width, kernel,
    TERMS: tl.constexpr, PIECES: tl.constexpr, BITS: tl.constexpr, ROWS: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """Score of a block of pixels; with ``KEEP`` also which pieces won, ``BITS`` for each term.

    ``filters`` is (taps, TERMS PIECES). Pieces that only fill up have a bias of minus infinity, terms a sign of 0.
    """
    high = height - kernel + 1
    wide = width - kernel + 1
    across = tl.cdiv(wide, COLUMNS)
    down = tl.cdiv(high, ROWS)
    program = tl.program_id(0)
    pixel = tl.arange(0, ROWS * COLUMNS)
    x = program % across * COLUMNS + pixel % COLUMNS
    y = program // across % down * ROWS + pixel // COLUMNS
    m = (program // across // down).to(tl.int64)
    channel = tl.arange(0, TERMS * PIECES)
    response = tl.load(bias + channel)[:, None] + tl.zeros((TERMS * PIECES, ROWS * COLUMNS), tl.float32)
    # Pixels beyond the border repeat the last ones: loads without a mask are fewer instructions.
    at = image + m * height * width + (tl.minimum(y, high - 1) * width + tl.minimum(x, wide - 1))
    for _ in range(kernel):
        for dx in tl.range(0, kernel, loop_unroll_factor=UNROLL):
            response += tl.load(filters + channel)[:, None] * tl.load(at + dx)[None, :]
            filters += TERMS * PIECES
        at += width
    response = tl.reshape(response, (TERMS, PIECES, ROWS * COLUMNS))
    missing = response != response  # not a number, which counts as larger
    response = tl.where(missing, float("inf"), response)
    best = tl.max(response, 1)
    piece = tl.min(tl.where(response == best[:, None, :], tl.arange(0, PIECES)[None, :, None], PIECES), 1)
    best = tl.where(tl.max(missing.to(tl.int32), 1) > 0, float("nan"), best)
    term = tl.arange(0, TERMS)
    out = m * high * wide + y * wide + x
    inside = (x < wide) & (y < high)
    tl.store(score + out, tl.sum(tl.load(sign + term)[:, None] * best, 0), mask=inside)
    if KEEP:
        word = tl.sum(piece << (term * BITS)[:, None], 0)
        tl.store(code + out, word.to(code.dtype.element_ty), mask=inside)


@triton.jit
def _pack(upstream, code, packed, pixels, high, wide, margin, BLOCK: tl.constexpr):
    """Gradient and pieces of each pixel in the upper and lower half of a word; around the map a margin of zeros."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = at % (wide + 2 * margin) - margin
    row = at // (wide + 2 * margin)
    y = row % (high + 2 * margin) - margin
    inside = (at < pixels) & (x >= 0) & (x < wide) & (y >= 0) & (y < high)
    source = (row // (high + 2 * margin) * high + y) * wide + x
    gradient = tl.load(upstream + source, mask=inside, other=0.0).to(tl.int32, bitcast=True)
    pieces = tl.load(code + source, mask=inside, other=0)
    tl.store(packed + at, (gradient.to(tl.int64) << 32) | pieces.to(tl.int64), mask=at < pixels)


@triton.jit
def _by_images(
    packed, table, by_image, height, width, kernel,
    GROUPS: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Gradient by a block of an image's pixels; ``table`` is (taps, GROUPS, 2^WIDTH)."""
    across = tl.cdiv(width, COLUMNS)
    down = tl.cdiv(height, ROWS)
    program = tl.program_id(0)
    pixel = tl.arange(0, ROWS * COLUMNS)
    x = program % across * COLUMNS + pixel % COLUMNS
    y = program // across % down * ROWS + pixel // COLUMNS
    m = (program // across // down).to(tl.int64)
    margin = kernel - 1
    stride = width + margin
    # Tap 0 of a pixel meets the score at its own place, later ones those to the left of it and above.
    corner = (tl.minimum(y, height - 1) + margin) * stride + tl.minimum(x, width - 1) + margin
    at = packed + m * (height + margin) * stride + corner
    total = tl.zeros((ROWS * COLUMNS,), tl.float32)
    for _ in range(kernel):
        for dx in tl.range(0, kernel, loop_unroll_factor=UNROLL):
            word = tl.load(at - dx)
            pieces = word.to(tl.uint32)
            weight = tl.load(table + (pieces & ((1 << WIDTH) - 1)))
            for group in tl.static_range(1, GROUPS):
                entry = (pieces >> (group * WIDTH)) & ((1 << WIDTH) - 1)
                weight += tl.load(table + (group << WIDTH) + entry)
            total += (word >> 32).to(tl.int32).to(tl.float32, bitcast=True) * weight
            table += GROUPS << WIDTH
        at -= stride
    tl.store(by_image + m * height * width + y * width + x, total, mask=(x < width) & (y < height))


def scores(images: Tensor, weight: Tensor, bias: Tensor, signs: Tensor, keep: bool) -> tuple[Tensor, Tensor | None]:
    """Scores, and for the way back which pieces won.

    Args:
        images: ``(M, 1, H, W)`` float32, contiguous.
        weight: ``(N P, 1, K, K)``.
        bias: ``(N P,)``.
        signs: ``(N,)``.
        keep: Whether there will be a way back.

    Returns:
        ``(M, 1, H', W')`` scores; and ``(M, H', W')`` uint8 or int32, the winning piece of term n from bit n b on,
        b bits that number a term's pieces.
    """
    m, _, height, width = images.shape
    terms, pieces, kernel = len(signs), len(weight) // len(signs), weight.shape[-1]
    high, wide = height - kernel + 1, width - kernel + 1
    deep, full = triton.next_power_of_2(terms), triton.next_power_of_2(pieces)
    bits = full.bit_length() - 1
    filters = F.pad(weight.reshape(terms, pieces, kernel**2), (0, 0, 0, full - pieces, 0, deep - terms))
    filters = filters.flatten(0, 1).t().contiguous()
    bias = F.pad(F.pad(bias.reshape(terms, pieces), (0, full - pieces), value=-torch.inf), (0, 0, 0, deep - terms))
    score = images.new_empty((m, 1, high, wide))
    kind = torch.uint8 if terms * bits <= 8 else torch.int32
    code = torch.empty((m, high, wide), dtype=kind, device=images.device) if keep else None
    signs = F.pad(signs, (0, deep - terms))
    rows = _rows(deep * full)
    grid = (m * triton.cdiv(wide, COLUMNS.value) * triton.cdiv(high, rows),)
    if m > 0:
        with on_device(images):
            _scores[grid](
                images, filters, bias.contiguous(), signs, score, code, height, width, kernel,
                TERMS=deep, PIECES=full, BITS=bits, ROWS=rows, KEEP=keep, num_warps=1,
            )  # fmt: skip
    return score, code


def by_images(upstream: Tensor, weight: Tensor, signs: Tensor, code: Tensor) -> Tensor:
    """Gradient by the images, ``(M, 1, H, W)``.

    Args:
        upstream: ``(M, 1, H', W')``, contiguous.
        weight: ``(N P, 1, K, K)``.
        signs: ``(N,)``.
        code: Of :func:`scores`.
    """
    m, _, high, wide = upstream.shape
    kernel, margin = weight.shape[-1], weight.shape[-1] - 1
    height, width = high + margin, wide + margin
    table, bits = combinations(weight, signs)
    packed = torch.empty((m, height + margin, width + margin), dtype=torch.int64, device=upstream.device)
    by_image = upstream.new_empty((m, 1, height, width))
    grid = (m * triton.cdiv(width, COLUMNS.value) * triton.cdiv(height, ROWS_BACK),)
    if m > 0:
        with on_device(upstream):
            pixels = packed.numel()
            _pack[(triton.cdiv(pixels, BLOCK),)](upstream, code, packed, pixels, high, wide, margin, BLOCK=BLOCK)
            _by_images[grid](
                packed, table, by_image, height, width, kernel, GROUPS=table.shape[1], WIDTH=bits, ROWS=ROWS_BACK
            )
    return by_image


def combinations(weight: Tensor, signs: Tensor) -> tuple[Tensor, int]:
    """Sums of the weights, times their signs, of every combination of a group's pieces.

    Args:
        weight: ``(N P, 1, K, K)``.
        signs: ``(N,)``.

    Returns:
        ``(K², groups, 2^b)``, contiguous, and b: the number of an entry has the pieces of the group's terms, the
        first in its lowest bits.
    """
    terms, pieces, taps = len(signs), len(weight) // len(signs), weight.shape[-1] ** 2
    bits = (pieces - 1).bit_length()
    together = max(1, TABLE_BITS // bits) if bits else terms
    groups = triton.cdiv(terms, together)
    signed = weight.reshape(terms, pieces, taps) * signs[:, None, None]
    signed = F.pad(signed, (0, 0, 0, (1 << bits) - pieces, 0, groups * together - terms))
    signed = signed.view(groups, together, 1 << bits, taps)
    table = signed[:, 0]
    for term in range(1, together):
        table = (signed[:, term, :, None] + table[:, None]).flatten(1, 2)
    return table.permute(2, 0, 1).contiguous(), bits * together


def _rows(filters: int) -> int:
    """Of a block of a program."""
    return max(1, min(4, SUMS // filters))


def work(
    images: int, height: int, width: int, kernel: int, terms: int, pieces: int, backward: bool = False
) -> tuple[float, float]:
    """Operations and bytes of one pass, for a roofline; operations are the limit.

    Forward they are a fused multiply-add, two, for each pixel, tap and filter. Back they are instructions times two,
    as the peak rate of a GPU counts a fused multiply-add, since most are for addresses. Bytes are those of images,
    scores, their gradients and the pieces, each moved once.

    Args:
        images: M.
        height: H, of the images.
        width: W.
        kernel: K.
        terms: N.
        pieces: P.
        backward: The way back instead of the way there.
    """
    image, score = float(height * width), float((height - kernel + 1) * (width - kernel + 1))
    code = 1 if terms * (pieces - 1).bit_length() <= 8 else 4
    pairs = image * INSTRUCTIONS_BACK if backward else score * terms * pieces
    return images * 2.0 * kernel**2 * pairs, images * (4 * image + (4 + code) * score)


_SIZES: dict[str, Any] = {"height": "i32", "width": "i32", "kernel": "i32"}
_SCORES = {name: "*fp32" for name in ("image", "filters", "bias", "sign", "score")}

EXAMPLES = [
    *(
        Example(
            _scores,
            {**_SCORES, "code": "*u8" if keep and terms < 8 else "*i32", **_SIZES},
            {"TERMS": terms, "PIECES": pieces, "BITS": pieces.bit_length() - 1}
            | {"ROWS": _rows(terms * pieces), "KEEP": keep},
            warps=1,
            label=f"{terms}x{pieces}{' kept' if keep else ''}",
        )
        for terms, pieces, keep in ((4, 4, True), (4, 4, False), (2, 2, True), (8, 8, True))
    ),
    Example(
        _pack,
        {"upstream": "*fp32", "code": "*u8", "packed": "*i64", "pixels": "i32"}
        | {"high": "i32", "wide": "i32", "margin": "i32"},
        {"BLOCK": BLOCK},
    ),
    *(
        Example(
            _by_images,
            {"packed": "*i64", "table": "*fp32", "by_image": "*fp32", **_SIZES},
            {"GROUPS": groups, "WIDTH": bits, "ROWS": ROWS_BACK},
            label=f"{groups} tables",
        )
        for groups, bits in ((2, 4), (8, 3))
    ),
]
