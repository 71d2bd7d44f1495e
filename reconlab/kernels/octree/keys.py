"""Cells of an octree as sorted Morton keys: encoding, children, neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from reconlab.errors import ReconlabError

MAX_BITS = 20
"""Bits of a coordinate: sides up to 2²⁰, with three bits left for the sample of a batch."""

_SPREAD = (
    (32, 0x1F00000000FFFF),
    (16, 0x1F0000FF0000FF),
    (8, 0x100F00F00F00F00F),
    (4, 0x10C30C30C30C30C3),
    (2, 0x1249249249249249),
)


def side_bits(side: int) -> int:
    """``b`` with ``side = 2^b``.

    Raises:
        ReconlabError: ``side`` is no power of two, or larger than ``2^MAX_BITS``.
    """
    if side < 1 or side & (side - 1) or side > 1 << MAX_BITS:
        raise ReconlabError(f"An octree's side is a power of two of at most 2^{MAX_BITS}, not {side}.")
    return side.bit_length() - 1


def encode(cells: Tensor, batch: Tensor, bits: int) -> Tensor:
    """Keys ``batch · 8^bits + morton(x, y, z)`` of cells of a grid of side ``2^bits``.

    In each group of three bits x is the highest: child ``4 dx + 2 dy + dz`` of a cell. Keys of a level, sorted, are
    ordered by sample, and the eight children of a cell lie together: ``8 key + (0 … 7)``.

    Args:
        cells: ``(..., 3)`` integers in ``[0, 2^bits)``.
        batch: ``(...)`` integers, the sample.
        bits: Of the level.

    Returns:
        ``(...)`` int64.

    Example:
        >>> encode(torch.tensor([[0, 0, 1], [1, 0, 0], [3, 3, 3]]), torch.tensor([0, 0, 1]), 2).tolist()
        [1, 4, 127]
    """
    x = cells.to(torch.int64)
    for shift, mask in _SPREAD:
        x = (x | (x << shift)) & mask
    morton = (x[..., 0] << 2) | (x[..., 1] << 1) | x[..., 2]
    return (batch.to(torch.int64) << (3 * bits)) | morton


def decode(keys: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The inverse of :func:`encode`: ``cells (..., 3)`` and ``batch (...)``, int64."""
    batch = keys >> (3 * bits)
    morton = keys & ((1 << (3 * bits)) - 1)
    x = torch.stack([morton >> 2, morton >> 1, morton], -1) & _SPREAD[-1][1]
    for (shift, _), (_, mask) in zip(reversed(_SPREAD), [*reversed(_SPREAD[:-1]), (0, 0x1FFFFF)], strict=True):
        x = (x | (x >> shift)) & mask
    return x, batch


def children(keys: Tensor) -> Tensor:
    """``(8 N,)`` keys one level finer; sorted if ``keys`` are."""
    return (keys.unsqueeze(1) * 8 + torch.arange(8, device=keys.device)).reshape(-1)


def neighbours(keys: Tensor, bits: int) -> Tensor:
    """Where the 3³ neighbours of each cell stand among the keys.

    Args:
        keys: ``(N,)`` sorted, without repetition.
        bits: Of the level.

    Returns:
        ``(N, 27)`` int32 rows of ``keys``, ``N`` where there is no such cell (or it lies outside the grid, whose
        samples do not touch). Neighbour ``9 (dx + 1) + 3 (dy + 1) + dz + 1``: the order of a flattened 3³ filter.

    Raises:
        ReconlabError: ``keys`` is not a vector of int64.

    Example:
        >>> table = neighbours(torch.tensor([0, 1, 4]), 1)  # cells (0,0,0), (0,0,1), (1,0,0)
        >>> table[0, 13].item(), table[0, 14].item(), table[0, 22].item(), table[0, 16].item()
        (0, 1, 2, 3)
    """
    if keys.dim() != 1 or keys.dtype != torch.int64:
        raise ReconlabError(f"neighbours() takes keys (N,) of int64, not {tuple(keys.shape)} of {keys.dtype}.")
    count, side = len(keys), 1 << bits
    table = torch.full((count, 27), count, dtype=torch.int32, device=keys.device)
    if not count:
        return table
    rows = torch.arange(count, dtype=torch.int32, device=keys.device)
    table[:, 13] = rows
    cells, batch = decode(keys, bits)
    # The other half mirrors this one: if j is i's neighbour k, i is j's neighbour 26 - k.
    for k in range(13):
        offset = torch.tensor([k // 9 - 1, k // 3 % 3 - 1, k % 3 - 1], device=keys.device)
        beside = cells + offset
        inside = ((beside >= 0) & (beside < side)).all(1)
        wanted = encode(beside.clamp(0, side - 1), batch, bits)
        place = torch.searchsorted(keys, wanted).clamp_max(count - 1)
        hit = (inside & (keys[place] == wanted)).nonzero().squeeze(1)
        found = place[hit]
        table[hit, k] = found.to(torch.int32)
        table[found, 26 - k] = rows[hit]
    return table


def child_neighbours(table: Tensor) -> Tensor:
    """The neighbours of all children of cells, from the cells' own :func:`neighbours`: an eighth of the search.

    Args:
        table: ``(P, 27)`` of the parents.

    Returns:
        ``(8 P, 27)`` int32, rows of :func:`children` of the same parents, ``8 P`` where there is none.
    """
    count = len(table)
    child = torch.arange(8)
    bits = torch.stack([child >> 2 & 1, child >> 1 & 1, child & 1], 1).unsqueeze(1)
    k = torch.arange(27)
    place = bits + torch.stack([k // 9, k // 3 % 3, k % 3], 1) - 1  # (8, 27, 3) in -1 … 2, in children's sides
    parent, within = place.div(2, rounding_mode="floor") + 1, place % 2
    slot = (parent * torch.tensor([9, 3, 1])).sum(-1).reshape(-1).to(table.device)
    which = (within * torch.tensor([4, 2, 1])).sum(-1).to(table.device, torch.int32)
    found = table[:, slot].reshape(count, 8, 27)
    return torch.where(found < count, found * 8 + which, 8 * count).reshape(8 * count, 27)
