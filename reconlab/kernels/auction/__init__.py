"""Optimal bijections between point clouds of equal size, by auction."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from reconlab.errors import ReconlabError
from reconlab.threads import parallel_map

__all__ = ["match_clouds"]


def match_clouds(
    source: Tensor,
    target: Tensor,
    tolerance: float = 1e-2,
    backend: Literal["auto", "reference", "cpu"] = "auto",
) -> tuple[Tensor, Tensor]:
    """The bijection of each sample whose mean distance is the least, but for a proven share.

    Args:
        source: ``(B, N, 3)`` points, any unit.
        target: ``(B, N, 3)`` points in the same unit.
        tolerance: Share of the mean distance by which it may exceed the least one; the excess is usually far less
            than that which is proven. Below about 1e-8 the limit of the arithmetic is reached.
        backend: ``auto`` takes the compiled auction on the CPU (computed in float64 from float32) and torch
            otherwise (which holds all ``N²`` distances of a sample); ``reference`` and ``cpu`` force one.

    Returns:
        ``(B, N)`` int64, the target of each source point, and ``(B,)`` by how much each sample's mean distance may
        exceed the least one, in the clouds' unit. A sample with a point that is not finite is not matched: indices
        0 … N-1, infinite excess. Not differentiable: the match is piecewise constant.

    Raises:
        ReconlabError: The shapes do not fit, there are no points, or the tolerance is not positive.

    Examples:
        >>> line = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]])
        >>> match_clouds(line, line.flip(1) + 0.1, 1e-6)[0]
        tensor([[2, 1, 0]])
    """
    if source.dim() != 3 or source.shape[-1] != 3 or source.shape != target.shape or source.shape[1] == 0:
        raise ReconlabError(
            "match_clouds() takes two batches of clouds (B, N, 3) of one size with N >= 1, "
            f"not {tuple(source.shape)} and {tuple(target.shape)}."
        )
    if not 0 < tolerance < float("inf"):
        raise ReconlabError(f"match_clouds(): the tolerance is {tolerance}; expected a positive number.")
    if backend not in ("auto", "cpu", "reference"):
        raise ReconlabError(f"match_clouds() has the backends auto, cpu and reference, not {backend!r}.")
    source, target = source.detach(), target.detach()
    finite = (source.isfinite() & target.isfinite()).flatten(1).all(1).tolist()
    index = torch.arange(source.shape[1], device=source.device).repeat(len(source), 1)
    gap = torch.full((len(source),), torch.inf, dtype=torch.float32, device=source.device)
    whole = [b for b, good in enumerate(finite) if good]
    host = source.device.type == "cpu" and target.device.type == "cpu"
    if backend == "cpu" and not host:
        raise ReconlabError("match_clouds(backend='cpu') takes tensors on the CPU.")
    if host and backend != "reference":
        from reconlab.kernels.auction import cpu

        s, t = source.float().contiguous().numpy(), target.float().contiguous().numpy()
        rows = index.numpy()
        found = parallel_map(lambda b: cpu.match(s[b], t[b], tolerance, rows[b]), whole)
    else:
        from reconlab.kernels.auction import reference

        found = []
        for b in whole:
            index[b], excess = reference.match(source[b], target[b], tolerance)
            found.append(excess)
    gap[whole] = torch.tensor(found, dtype=torch.float32, device=gap.device)
    return index, gap
