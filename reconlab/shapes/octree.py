"""Grids that a network predicts as octrees, and the true grids that their cells are compared with."""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.kernels.octree import MIXED, from_morton
from reconlab.shapes.mesh import Mesh
from reconlab.shapes.voxels import VoxelGrid

UNKNOWN = -math.log(2.0)
"""Log of the odds that a MIXED cell without children is given: half filled, half empty."""


@dataclass(frozen=True)
class OctreeLevel:
    """The cells of one level of ``B`` octrees.

    Attributes:
        side: Cells along each axis of the level's full grid.
        keys: ``(N,)`` sorted Morton keys, the sample in the high bits (:mod:`reconlab.kernels.octree`).
        logits: ``(N, 3)`` of EMPTY, FILLED, MIXED; ``(N, 2)`` at the finest level, which has no MIXED.
        opened: ``(N,)`` bool: the cell is divided, its children are in the next level.
        context: ``(N,)`` bool: the cell is no part of the tree (it lies below an undivided one) and only lends its
            features to its neighbours.
    """

    side: int
    keys: Tensor
    logits: Tensor
    opened: Tensor
    context: Tensor

    @property
    def cells(self) -> int:
        """Of one sample's full grid."""
        return self.side**3


class OctreeGrid(VoxelGrid):
    """``B`` octrees as grids of soft occupancy, composed over the levels when first asked for.

    A cell that is filled with probability ``p_F`` and mixed with ``p_M`` has the occupancy ``p_F + p_M · q``, where
    ``q`` is its children's occupancy, or 1/2 where it has none. ``logits`` are the exact log-odds, accumulated in log
    space, so that they neither saturate nor need a clamp; ``values`` their sigmoid. Both are differentiable.
    Metrics and meshes read them; :meth:`hard` decodes by each cell's most probable class instead.

    Args:
        levels: Coarsest first; every cell of the coarsest is present, as are all children of opened cells, beside
            the context.
        count: ``B``.
        threshold: What counts as occupied.

    Raises:
        ReconlabError: The levels' sides do not double, or the coarsest is not whole.
    """

    def __init__(self, levels: Sequence[OctreeLevel], count: int, threshold: float = 0.5) -> None:
        if not levels or any(b.side != 2 * a.side for a, b in pairwise(levels)):
            raise ReconlabError(
                f"OctreeGrid: the levels' sides are {[v.side for v in levels]}; expected them to double."
            )
        if len(levels[0].keys) != count * levels[0].cells:
            raise ReconlabError(
                f"OctreeGrid: the first level has {len(levels[0].keys)} cells; expected "
                f"all {count} · {levels[0].side}³."
            )
        self.levels = list(levels)
        self.count = count
        self.threshold = threshold

    @cached_property
    def logits(self) -> Tensor:  # type: ignore[override]
        """``(B, D, D, D)`` log-odds of the occupancy."""
        return from_morton(log_odds(self.levels, self.count), self.count, self.resolution)

    @cached_property
    def values(self) -> Tensor:  # type: ignore[override]
        """``(B, D, D, D)`` soft occupancy."""
        return torch.sigmoid(self.logits)

    def anchors(self) -> list[Tensor]:
        """The logits of every level."""
        return [level.logits for level in self.levels]

    def hard(self) -> VoxelGrid:
        """The grid in {0, 1} of each cell's most probable class: of EMPTY and FILLED where it has no children."""
        flat = live = torch.ones(self.count * self.levels[0].cells, device=self.device)
        for i, level in enumerate(self.levels):
            if i:
                flat, live = flat.repeat_interleave(8), live.repeat_interleave(8)
            kept = ~level.context
            keys, logits = level.keys[kept], level.logits.detach()[kept]
            # Children opened by the truth count only where the network, too, would have divided the cell.
            keys, logits, opened = (x[live[keys] > 0] for x in (keys, logits, level.opened[kept]))
            flat = flat.index_copy(0, keys, (logits[:, 1] > logits[:, 0]).to(flat))
            divided = opened & (logits.argmax(1) == MIXED)
            live = torch.zeros_like(live).index_copy(0, keys, divided.to(live))
        return VoxelGrid(from_morton(flat, self.count, self.resolution), self.threshold)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: slice | int) -> OctreeGrid:
        chosen = list(range(*self.as_slice(index, len(self)).indices(len(self))))
        levels = []
        for level in self.levels:
            borders = torch.arange(self.count + 1, device=self.device) * level.cells
            ends = torch.searchsorted(level.keys, borders).tolist()
            spans = [torch.arange(ends[i], ends[i + 1], device=self.device) for i in chosen]
            rows = torch.cat([torch.zeros(0, dtype=torch.int64, device=self.device), *spans])
            moved = [(n - i) * level.cells for n, i in enumerate(chosen) for _ in range(ends[i + 1] - ends[i])]
            keys = level.keys[rows] + torch.tensor(moved, dtype=torch.int64, device=self.device)
            levels.append(
                replace(
                    level,
                    keys=keys,
                    logits=level.logits[rows],
                    opened=level.opened[rows],
                    context=level.context[rows],
                )
            )
        return OctreeGrid(levels, len(chosen), self.threshold)

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.levels[0].keys.device

    @property
    def resolution(self) -> int:
        """Cells along each axis of the finest level."""
        return self.levels[-1].side

    def voxels(self, resolution: int = 32) -> VoxelGrid:
        """The grid at another resolution; a coarser cell has its most occupied cell's occupancy. Differentiable.

        That is how datasets fill cells: wherever the surface passes. By the mean, the rule of other grids, the
        *true* 128³ grids of real meshes agree with the datasets' 32³ by an IoU of 0.05 to 0.37; by this rule by 1.
        """
        if resolution < 1 or resolution == self.resolution or self.resolution % resolution:
            return super().voxels(resolution)
        logits = F.max_pool3d(self.logits.unsqueeze(1), self.resolution // resolution).squeeze(1)
        return VoxelGrid(torch.sigmoid(logits), self.threshold, logits)

    def to(self, device: torch.device | str) -> OctreeGrid:
        """Move to a device."""
        moved = [
            OctreeLevel(v.side, *(t.to(device) for t in (v.keys, v.logits, v.opened, v.context))) for v in self.levels
        ]
        return OctreeGrid(moved, self.count, self.threshold)


def log_odds(levels: Sequence[OctreeLevel], count: int) -> Tensor:
    """Log-odds of the occupancy that the levels compose to, ``(B · D³,)`` in Morton order. Differentiable.

    ``log P(filled)`` and ``log P(empty)`` of what is settled above a cell, and ``log P(mixed all the way)``, are
    carried down; where a cell has no children, each outcome takes half of the rest.
    """
    logits = levels[0].logits
    kind = torch.promote_types(logits.dtype, torch.float32)
    empty = filled = torch.full((), -math.inf, dtype=kind, device=logits.device)
    within = torch.zeros((), dtype=kind, device=logits.device)
    flat = torch.zeros(count * levels[0].cells, dtype=kind, device=logits.device)
    for i, level in enumerate(levels):
        kept = ~level.context
        chance = F.log_softmax(level.logits[kept].to(kind), 1)
        empty = torch.logaddexp(empty, within + chance[:, 0])
        filled = torch.logaddexp(filled, within + chance[:, 1])
        if level is levels[-1]:
            own = filled - empty
        else:
            within = within + chance[:, MIXED]
            rest = within + UNKNOWN
            own = torch.logaddexp(filled, rest) - torch.logaddexp(empty, rest)
            opened = level.opened[kept]
            empty, filled, within = (x[opened].repeat_interleave(8) for x in (empty, filled, within))
        flat = (flat.repeat_interleave(8) if i else flat).index_copy(0, level.keys[kept], own)
    return flat


class TrueGrids:
    """Filled grids of true meshes, voxelised once each: a bounded store keyed by the meshes' content.

    Network (which cells to open) and loss (their labels) ask for the same grids in the same step.

    Args:
        limit: Bytes to hold at most, at a bit per cell: 128³ takes a quarter of a megabyte.
    """

    def __init__(self, limit: int = 1 << 28) -> None:
        self.limit = limit
        self._items: OrderedDict[tuple[bytes, int], Tensor] = OrderedDict()
        self._nbytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._items)

    def of(self, mesh: Mesh, resolution: int) -> Tensor:
        """``(B, D, D, D)`` bool on the meshes' device: cells that the surface crosses or encloses."""
        return torch.stack([self._one(mesh, i, resolution) for i in range(len(mesh))])

    def _one(self, mesh: Mesh, i: int, resolution: int) -> Tensor:
        vertices, faces = (t.detach().cpu() for t in mesh.item(i))
        content = hashlib.blake2b(vertices.numpy().tobytes(), digest_size=16)
        content.update(faces.numpy().tobytes())
        key = (content.digest(), resolution)
        with self._lock:
            packed = self._items.get(key)
            if packed is not None:
                self._items.move_to_end(key)
        if packed is None:
            packed = _pack(Mesh(vertices, faces).voxels(resolution).values[0] > 0)
            self._keep(key, packed)
        return _unpack(packed.to(mesh.device), resolution)

    def _keep(self, key: tuple[bytes, int], packed: Tensor) -> None:
        with self._lock:
            if key not in self._items and packed.numel() <= self.limit:
                self._items[key] = packed
                self._nbytes += packed.numel()
                while self._nbytes > self.limit:
                    self._nbytes -= self._items.popitem(last=False)[1].numel()


TRUE_GRIDS = TrueGrids()
"""Shared by the networks and losses of a process."""


def true_grid(voxels: Tensor | None, mesh: Mesh | None, resolution: int, who: str) -> Tensor:
    """The true occupancy at a resolution, from the dataset's grids or, if none are given, from its meshes.

    Args:
        voxels: ``(B, D, D, D)``, occupied where >= 0.5; their D must be ``resolution``.
        mesh: Used if ``voxels`` is None.
        resolution: Cells along each axis.
        who: For error messages.

    Returns:
        ``(B, D, D, D)`` bool.

    Raises:
        ReconlabError: The grids have another resolution, or neither is given.
    """
    if voxels is not None:
        if tuple(voxels.shape[1:]) != (resolution,) * 3:
            raise ReconlabError(
                f"{who}: the dataset's grids are {tuple(voxels.shape[1:])}, the octree's finest level is "
                f"{resolution}³; set truth to 'mesh', or build the data with --resolution {resolution}."
            )
        return voxels if voxels.dtype == torch.bool else voxels >= 0.5
    if mesh is None:
        raise ReconlabError(f"{who}: the batch has neither voxels nor a mesh to know the true cells by.")
    return TRUE_GRIDS.of(mesh, resolution)


def _pack(grid: Tensor) -> Tensor:
    bits = F.pad(grid.reshape(-1).to(torch.uint8), (0, -grid.numel() % 8)).reshape(-1, 8)
    return (bits << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def _unpack(packed: Tensor, resolution: int) -> Tensor:
    bits = (packed.unsqueeze(1) >> torch.arange(8, dtype=torch.uint8, device=packed.device)) & 1
    return bits.reshape(-1)[: resolution**3].bool().reshape((resolution,) * 3)
