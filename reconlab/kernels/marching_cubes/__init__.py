"""Marching cubes whose vertices carry gradients into the grid's values; the topology is that of the values' signs."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.threads import parallel_map

__all__ = ["GUARD", "Surface", "marching_cubes"]

GUARD = 1e-3
"""Least difference of two neighbouring values that a vertex's slope is computed with, in the values' unit."""


class Surface(NamedTuple):
    """Packed triangle meshes of a batch of grids."""

    vertices: Tensor  # (ΣV, 3) in [-0.5, 0.5]³
    faces: Tensor  # (ΣF, 3) into the packed vertices
    vertex_splits: Tensor  # (B + 1,) on the CPU
    face_splits: Tensor  # (B + 1,) on the CPU


def marching_cubes(
    values: Tensor,
    level: float | Tensor = 0.0,
    outside: float | Tensor | None = None,
    *,
    guard: float = GUARD,
    backend: Literal["auto", "reference", "cpu"] = "auto",
) -> Surface:
    r"""The surfaces on which grids reach a level, closed at the grids' borders and turned outwards.

    A vertex lies on each lattice edge with one end inside (``v >= level``) and the other outside, at
    ``p_a + t (p_b - p_a)`` with ``t = (level - v_a) / (v_b - v_a)``. Its gradient is the exact one,
    ``∂t/∂v_a = (t - 1) / (v_b - v_a)`` and ``∂t/∂v_b = -t / (v_b - v_a)``, except that ``|v_b - v_a|`` counts as
    ``guard`` at least: a plateau at the level would have no finite slope. The guard moves no vertex. Topology
    (which edges are cut, which triangles join them) has no gradient. Every mesh is watertight: each edge has two
    faces, which pass it in opposite directions. Where inside cells touch at an edge or a corner they stay apart.

    Args:
        values: ``(B, X, Y, Z)``, higher inside, at the cell centres ``(i + 0.5) / X - 0.5`` of [-0.5, 0.5]³;
            half precision is computed in float32.
        level: Where the surface lies; a number, or ``(B,)``. It gets no gradient.
        outside: What lies beyond the border, a number below the level or ``(B,)``. None puts it as far below as
            the grid's farthest value is from the level (1 at least), which keeps the surface within the cube.
        guard: See above; positive.
        backend: ``auto`` takes the numba kernel on the CPU and batched torch operations elsewhere.

    Returns:
        The meshes; none for a grid that nowhere reaches the level or has a value that is not finite. Vertices are
        in the values' graph even where there are none.

    Raises:
        ReconlabError: A shape does not fit, ``outside`` is not below the level, or a setting is out of range.

    Examples:
        >>> one = torch.zeros(1, 3, 3, 3)
        >>> one[0, 1, 1, 1] = 1.0
        >>> surface = marching_cubes(one, 0.5)
        >>> surface.vertices.shape, surface.faces.shape, surface.vertices.abs().max()  # a sixth: to the cell's border
        (torch.Size([6, 3]), torch.Size([8, 3]), tensor(0.1667))
    """
    if values.dim() != 4 or not values.is_floating_point():
        raise ReconlabError(
            f"marching_cubes() takes floating-point values (B, X, Y, Z), not {values.dtype} {tuple(values.shape)}."
        )
    if not guard > 0:
        raise ReconlabError(f"marching_cubes() takes a positive guard, not {guard}.")
    if backend not in ("auto", "cpu", "reference"):
        raise ReconlabError(f"marching_cubes() has the backends auto, cpu and reference, not {backend!r}.")
    if backend == "cpu" and values.device.type != "cpu":
        raise ReconlabError("marching_cubes(backend='cpu') takes tensors on the CPU.")
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    fixed = values.detach().flatten(1)
    levels = _per_grid(level, values, "level")
    least, most = (fixed.amin(1), fixed.amax(1)) if fixed.shape[1] else (levels, levels)  # NaN if a value is
    if outside is None:
        reach = torch.maximum(most - levels, levels - least)
        outside = levels - reach.nan_to_num(1.0, 1.0, 1.0).clamp_min(1.0)
    beyond = _per_grid(outside, values, "outside")
    if not bool((beyond < levels).all()):
        raise ReconlabError("marching_cubes() takes an outside value below the level, else the surface is open.")

    padded = beyond.reshape(-1, 1, 1, 1).repeat(1, *(n + 2 for n in values.shape[1:]))
    padded[:, 1:-1, 1:-1, 1:-1] = values
    reached = torch.where(least.isfinite() & most.isfinite(), levels, torch.nan)  # nothing is as high as NaN
    inside = padded.detach() >= reached.reshape(-1, 1, 1, 1)
    ends, faces, vertex_splits, face_splits = _topology(inside, backend)
    which = torch.repeat_interleave(vertex_splits.diff().to(values.device), output_size=len(ends))
    v_a, v_b = (padded.reshape(-1)[x + which * padded.shape[1:].numel()] for x in ends.unbind(1))
    t = _where_cut(v_a, v_b, levels[which], guard)
    return Surface(_positions(ends, t, padded.shape[1:]), faces, vertex_splits, face_splits)


def _per_grid(given: float | Tensor, values: Tensor, what: str) -> Tensor:
    """A number or ``(B,)`` as ``(B,)``, without gradient."""
    tensor = torch.as_tensor(given, dtype=values.dtype, device=values.device).detach()
    if tensor.dim() > 1 or (tensor.dim() == 1 and len(tensor) != len(values)):
        raise ReconlabError(
            f"marching_cubes() takes {what} as a number or as ({len(values)},), not {tuple(tensor.shape)}."
        )
    return tensor.expand(len(values))


def _topology(inside: Tensor, backend: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ends of the cut edges within their own lattice, packed faces, and both splits."""
    if backend == "reference" or inside.device.type != "cpu":
        from reconlab.kernels.marching_cubes import reference

        found = [reference.extract(grid) for grid in inside]
    else:
        from reconlab.kernels.marching_cubes import cpu

        bits = inside.to(torch.uint8).numpy()
        found = [(torch.from_numpy(e), torch.from_numpy(f)) for e, f in parallel_map(cpu.extract, list(bits))]
    vertex_splits = torch.tensor([0] + [len(e) for e, _ in found]).cumsum(0)
    face_splits = torch.tensor([0] + [len(f) for _, f in found]).cumsum(0)
    if len(found) == 1:
        # A copy: the kernel's array is part of a larger one, which would be stored and sent with it.
        return found[0][0], found[0][1].clone(), vertex_splits, face_splits
    none = torch.zeros(0, 3, dtype=torch.int64, device=inside.device)
    ends = torch.cat([none[:, :2], *(e for e, _ in found)])
    faces = torch.cat([none, *(f for _, f in found)])
    for offset, first, last in zip(vertex_splits[1:-1], face_splits[1:-1], face_splits[2:], strict=True):
        faces[first:last] += offset.to(faces.device)
    return ends, faces, vertex_splits, face_splits


def _where_cut(v_a: Tensor, v_b: Tensor, level: Tensor, guard: float) -> Tensor:
    """``t``: its exact value, with the guarded slope."""
    a, b = v_a.detach(), v_b.detach()
    step = b - a
    t = ((level - a) / step).clamp(0, 1)
    slope = 1 / torch.where(step < 0, step.clamp_max(-guard), step.clamp_min(guard))
    return t - (1 - t) * slope * (v_a - a) - t * slope * (v_b - b)


def _positions(ends: Tensor, t: Tensor, padded: torch.Size) -> Tensor:
    """``(V, 3)`` in the cube: the parts ``t`` of the way between two neighbours of the padded lattice."""
    first, step = ends[:, 0], ends[:, 1] - ends[:, 0]
    row = first.div(padded[2], rounding_mode="floor")
    x = row.div(padded[1], rounding_mode="floor")
    place = torch.stack([x, row - x * padded[1], first - row * padded[2]], -1).to(t.dtype)
    along = step.unsqueeze(1) == step.new_tensor([padded[1] * padded[2], padded[2], 1])
    return (place - 0.5 + along * t.unsqueeze(1)) / (t.new_tensor(padded) - 2) - 0.5
