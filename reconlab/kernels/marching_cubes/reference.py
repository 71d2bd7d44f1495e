"""Marching cubes' topology in plain torch: which lattice edges are cut, and the triangles between them."""

from __future__ import annotations

import torch
from torch import Tensor

from reconlab.kernels.marching_cubes.table import EDGES, tables


def extract(inside: Tensor) -> tuple[Tensor, Tensor]:
    """The surface between inside and outside points of a lattice.

    Args:
        inside: ``(X, Y, Z)`` bool.

    Returns:
        ``ends (V, 2)``: flat indices of the two points that each cut edge joins, lower first, sorted by the first
        and then by axis; and ``faces (F, 3)`` into them, counter-clockwise as seen from outside.
    """
    device, shape = inside.device, inside.shape
    stride = torch.tensor([shape[1] * shape[2], shape[2], 1], device=device)
    cut = torch.zeros(*shape, 3, dtype=torch.bool, device=device)
    cut[:-1, :, :, 0] = inside[:-1] != inside[1:]
    cut[:, :-1, :, 1] = inside[:, :-1] != inside[:, 1:]
    cut[:, :, :-1, 2] = inside[:, :, :-1] != inside[:, :, 1:]
    flat = cut.reshape(-1)
    name = flat.cumsum(0) - 1  # of the vertex on each cut edge (point, axis)
    chosen = flat.nonzero()[:, 0]
    first = chosen // 3
    ends = torch.stack([first, first + stride[chosen % 3]], 1)

    triangles, counts = (torch.from_numpy(t).long().to(device) for t in tables())
    case = torch.zeros([n - 1 for n in shape], dtype=torch.long, device=device)
    for c in range(8):
        x, y, z = c & 1, c >> 1 & 1, c >> 2
        case |= inside[x : x + shape[0] - 1, y : y + shape[1] - 1, z : z + shape[2] - 1].long() << c
    busy = counts[case].nonzero()
    case = case[busy.unbind(1)]
    local = triangles[case]  # (cells, MOST, 3)
    used = torch.arange(local.shape[1], device=device) < counts[case].unsqueeze(1)
    corner = torch.tensor([[c & 1, c >> 1 & 1, c >> 2] for c, _ in EDGES], device=device)
    point = ((busy[:, None, None] + corner[local]) * stride).sum(-1)
    faces = name[3 * point + local // 4][used]
    return ends, faces
