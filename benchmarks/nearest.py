"""Nearest neighbours, one direction: the grid kernel against the torch reference, cdist, SciPy and PyTorch3D."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from harness import measure, parse, save, show
from scipy.spatial import cKDTree
from torch import Tensor

from reconlab.kernels.nearest import nearest
from reconlab.losses.chamfer import chamfer


def surface(batch: int, count: int, seed: int) -> Tensor:
    """Points on the faces of a box, as clouds of surfaces are."""
    g = torch.Generator().manual_seed(seed)
    points = torch.rand(batch, count, 3, generator=g) - 0.5
    axis = torch.randint(3, (batch, count, 1), generator=g)
    side = torch.randint(2, (batch, count, 1), generator=g) - 0.5
    return points.scatter(2, axis, side) * torch.tensor([0.6, 0.9, 0.4])


def tree(source: Tensor, target: Tensor) -> None:
    """SciPy's k-d tree, built and asked."""
    for s, t in zip(source.numpy(), target.numpy(), strict=True):
        cKDTree(t).query(s)


def cdist(source: Tensor, target: Tensor) -> None:
    """The plain torch way: all distances, then the minimum."""
    for s, t in zip(source, target, strict=True):
        torch.cdist(s, t).min(1)


def main() -> None:
    """Run the comparison."""
    options = parse(__doc__)
    records = []
    # The slow ones are timed on fewer clouds of the large size: it is the ratio that counts.
    for batch, count, noise in ((32, 2500, 0.0), (32, 2500, 0.1), (1, 16384, 0.0), (1, 16384, 0.1)):
        source, target = surface(batch, count, 0), surface(batch, count, 1)
        source = source + noise * torch.randn(source.shape, generator=torch.Generator().manual_seed(2))
        contestants: dict[str, Callable[[], Any]] = {
            "kernel (grid)": lambda s=source, t=target: nearest(s, t, backend="cpu"),
            "SciPy cKDTree": lambda s=source, t=target: tree(s, t),
            "torch reference": lambda s=source, t=target: nearest(s, t, backend="reference"),
            "torch.cdist": lambda s=source, t=target: cdist(s, t),
        }
        if importlib.util.find_spec("pytorch3d"):
            from pytorch3d.ops import knn_points

            contestants["PyTorch3D knn_points"] = lambda s=source, t=target: knn_points(s, t)
        title = f"{batch} x {count} x {count}, {'surface' if not noise else f'source off the surface by {noise}'}"
        rounds = options.rounds if count < 10_000 else min(options.rounds, 2)
        records.append(show(title, measure(contestants, rounds)))

    pred, target = surface(4, 2500, 0).requires_grad_(), surface(4, 2500, 1)

    def torch_chamfer() -> None:
        total = torch.zeros(())
        for p, t in zip(pred, target, strict=True):
            d = torch.cdist(p, t).square()
            total = total + d.amin(0).mean() + d.amin(1).mean()
        total.backward()

    both: dict[str, Callable[[], Any]] = {
        "kernel (grid)": lambda: chamfer(pred, target).sum().backward(),
        "torch.cdist and autograd": torch_chamfer,
    }
    records.append(show("Chamfer, forward and backward, 4 x 2500", measure(both, options.rounds)))
    save(records, options)


if __name__ == "__main__":
    main()
