"""Where axis-parallel rays from many points cross many triangles: the raw material of inside and outside."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.threads import parallel_map

__all__ = ["count_crossings"]


def count_crossings(
    points: Tensor,
    corners: Tensor,
    rotations: Tensor,
    backend: Literal["auto", "reference", "cpu"] = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """Cast two opposite rays along each axis of every rotated frame from every point; sum up what they meet.

    A ray crosses a triangle with sign +1 where it leaves through the front (the side that the right-hand rule
    calls outer) and -1 where it enters. The mean of the sum over directions is the generalised winding number
    (Jacobson et al., 2013), estimated by Monte Carlo where directions are random.

    Args:
        points: ``(N, 3)``.
        corners: ``(F, 3, 3)`` triangles, same unit.
        rotations: ``(K, 3, 3)`` orthogonal; the rays run along the rows, both ways: 6 K rays from each point.
        backend: ``auto`` takes the numba kernel on the CPU and blocked torch otherwise.

    Returns:
        ``(N,)`` int64 each, sums over the 6 K rays: signed crossings; rays with an odd number of crossings; rays
        with none (those that escape).

    Raises:
        ReconlabError: The shapes do not fit.

    Examples:
        >>> tetrahedron = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
        >>> corners = tetrahedron[torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])]
        >>> count_crossings(torch.tensor([[0.2, 0.21, 0.22]]), corners, torch.eye(3)[None])
        (tensor([6]), tensor([6]), tensor([0]))
    """
    if points.dim() != 2 or points.shape[1] != 3 or corners.dim() != 3 or corners.shape[1:] != (3, 3):
        raise ReconlabError(
            f"count_crossings() takes points (N, 3) and corners (F, 3, 3), not {tuple(points.shape)} and "
            f"{tuple(corners.shape)}."
        )
    if rotations.dim() != 3 or rotations.shape[1:] != (3, 3):
        raise ReconlabError(f"count_crossings() takes rotations (K, 3, 3), not {tuple(rotations.shape)}.")
    if backend not in ("auto", "cpu", "reference"):
        raise ReconlabError(f"count_crossings() has the backends auto, cpu and reference, not {backend!r}.")
    # Row j of the frame becomes the third coordinate, the ray's own: cyclic shifts keep the handedness.
    frames = torch.cat([rotations.roll(-1 - j, 1) for j in range(3)]).double()
    # A reflected frame would turn every sign round.
    frames = frames * torch.linalg.det(frames).sign().reshape(-1, 1, 1)
    p, c = points.detach().double(), corners.detach().double()
    if backend == "reference" or (backend == "auto" and points.device.type != "cpu"):
        from reconlab.kernels.crossings.reference import axis_crossings

        parts = [axis_crossings(p @ m.T, c @ m.T) for m in frames.to(p.device)]
        return tuple(torch.stack(x).sum(0) for x in zip(*parts, strict=True))  # type: ignore[return-value]
    if points.device.type != "cpu":
        raise ReconlabError("count_crossings(backend='cpu') takes tensors on the CPU.")
    from reconlab.kernels.crossings import cpu

    def one(frame: Tensor) -> Tensor:
        out = torch.zeros(len(p), 3, dtype=torch.int32)
        a, b = (p @ frame.T).contiguous().numpy(), (c @ frame.T).contiguous().numpy()
        cpu.axis_crossings(a, b, max(4, min(512, int(len(b) ** 0.5) + 1)), out.numpy())
        return out

    total = torch.zeros(len(p), 3, dtype=torch.int64)
    for out in parallel_map(one, list(frames)):
        total += out
    signed, odd, free = total.unbind(1)
    return signed, odd, free
