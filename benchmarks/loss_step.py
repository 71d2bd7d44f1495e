"""One step of DRWR against DPC and CAP, of the loss and of whole training, at DRWR's three pairings.

4 shapes x 4 views; the loss alone is forward and backward to the points, training adds DPC's network and Adam.
DRWR's Table 5 gives whole training times on a GPU (DPC 14, 24 and 72 hours, DRWR 7, 12 and 36): ratios of 2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from harness import measure, parse, save, show

from reconlab.bench.scenes import settle, shadows
from reconlab.kernels import pairwise
from reconlab.losses import CAP, DPC, DRWR, Loss
from reconlab.networks import dpc
from reconlab.shapes import PointCloud

PAPER = {32: (14, 7), 64: (24, 12), 128: (72, 36)}
"""Table 5: hours of DPC and of DRWR."""


def main() -> None:
    """Run the comparison."""
    options = parse(__doc__)
    records = []
    g = torch.Generator().manual_seed(0)
    data = shadows(g)
    least = pairwise.GRID_FROM
    for size, count in ((32, 2000), (64, 8000), (128, 16000)):
        losses: dict[str, Loss] = {
            "DRWR": DRWR(points=count, resolution=size),
            "DPC": DPC(points=count, resolution=size),
            "CAP": CAP(points=count, resolution=size),
        }
        for loss in losses.values():
            loss.advance(1, 2)  # DPC's schedules at the middle: blur 1.6 voxels, half of the points
        cloud = settle(0.7 * (torch.rand(4, count, 3, generator=g) - 0.5), losses["DRWR"], data)
        network = dpc.DPC(points=count, image_size=128)
        optimiser = torch.optim.Adam(network.parameters(), 1e-4)

        def alone(name: str, losses: dict[str, Loss] = losses, cloud: torch.Tensor = cloud) -> None:
            losses[name](PointCloud(cloud), data)["loss"].backward()

        def exactly(alone: Callable[[str], None] = alone) -> None:
            pairwise.GRID_FROM = 1 << 60
            alone("DRWR")
            pairwise.GRID_FROM = least

        def training(
            name: str,
            losses: dict[str, Loss] = losses,
            cloud: torch.Tensor = cloud,
            network: dpc.DPC = network,
            optimiser: torch.optim.Optimizer = optimiser,
        ) -> None:
            optimiser.zero_grad()
            assert data.images is not None
            # The network's time with the settled cloud: an untrained one's points would lie in a dot.
            points = cloud.detach() + 0 * network(data.images).positions
            losses[name](PointCloud(points), data)["loss"].backward()
            optimiser.step()

        rounds = options.rounds if count < 16000 else min(options.rounds, 2)
        steps: dict[str, Callable[[], Any]] = {name: partial(alone, name) for name in losses}
        steps["DRWR, all pairs"] = exactly
        whole: dict[str, Callable[[], Any]] = {name: partial(training, name) for name in losses}
        case = f"{count} points, {size} px, 4 x 4 views"
        records.append(show(f"loss step, {case}", measure(steps, rounds)))
        records.append(show(f"training step, {case}", measure(whole, rounds)))
        theirs, ours = PAPER[size]
        records[-1]["paper"] = {"DPC_hours": theirs, "DRWR_hours": ours, "ratio": theirs / ours}
        print(f"  paper's training time, DPC over DRWR: {theirs / ours:.1f}x")
    save(records, options)


if __name__ == "__main__":
    main()
