"""Optimal bijections of point clouds: the auction at two tolerances against SciPy's and POT's exact programs."""

from __future__ import annotations

from typing import Any

import torch
from harness import measure, parse, save, show
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from reconlab.bench.peers import pot_transport
from reconlab.bench.scenes import surface
from reconlab.kernels.auction import match_clouds


def distances(source: Tensor, target: Tensor) -> Any:
    """All of them, in float64."""
    return torch.cdist(source[0].double(), target[0].double()).numpy()


def exact(source: Tensor, target: Tensor) -> float:
    """The least mean distance, by SciPy."""
    apart = distances(source, target)
    return float(apart[linear_sum_assignment(apart)].mean())


def main() -> None:
    """Time, and how far the auction's mean is above the least."""
    options = parse(__doc__)
    records = []
    for count in (1024, 2048):
        target = surface(1, count, 0)
        shifted = torch.randn(1, count, 3, generator=torch.Generator().manual_seed(2))
        cases = {
            "two samples of one surface": surface(1, count, 1),
            "the surface and itself, thinner, shifted": surface(1, count, 1) * torch.tensor([0.5, 1.0, 1.2]) + 0.1,
            "the surface and a small blob": 0.05 * shifted,
        }
        for name, source in cases.items():
            best = exact(source, target)
            contestants = {
                "auction, tolerance 1e-2": lambda s=source, t=target: match_clouds(s, t, 1e-2),
                "auction, tolerance 1e-5": lambda s=source, t=target: match_clouds(s, t, 1e-5),
                "POT emd2": lambda s=source, t=target: pot_transport(distances(s, t)),
                "SciPy linear_sum_assignment": lambda s=source, t=target: exact(s, t),
            }
            record = show(f"{count} points: {name}", measure(contestants, options.rounds))
            record["excess"] = {}
            for tolerance in (1e-2, 1e-5):
                index, _ = match_clouds(source, target, tolerance)
                found = (source.double() - target[:, index[0]].double()).norm(dim=-1).mean().item()
                record["excess"][tolerance] = found / best - 1
                print(f"  above the least at {tolerance:g}: {record['excess'][tolerance]:.1e}")
            records.append(record)
    save(records, options)


if __name__ == "__main__":
    main()
