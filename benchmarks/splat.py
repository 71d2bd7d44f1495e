"""DPC: the splat kernel (value and gradient) against torch, and one whole loss step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from harness import measure, parse, save, show
from torch import Tensor

from reconlab.bench.scenes import shell
from reconlab.cameras import dpc_cameras
from reconlab.kernels.splat import splat_silhouettes
from reconlab.losses.dpc import dpc
from reconlab.losses.drwr import drwr

SIGMA = 1.6  # the middle of DPC's schedule from 3.0 to 0.2 voxels


def main() -> None:
    """Run the comparison."""
    options = parse(__doc__)
    records = []
    g = torch.Generator().manual_seed(0)
    for size, count in ((32, 2000), (64, 2000), (64, 8000), (128, 2000), (128, 16000)):
        position = (size * (shell(16, count, g) + 0.5) - 0.5).requires_grad_()

        def run(backend: str, sigma: float = SIGMA, v: int = size, p: Tensor = position) -> None:
            splat_silhouettes(p, v, sigma, 21, backend=backend).sum().backward()  # type: ignore[arg-type]

        contestants: dict[str, Callable[[], Any]] = {
            "kernel": lambda run=run: run("cpu"),
            "kernel, sigma 3.0": lambda run=run: run("cpu", 3.0),
            "kernel, sigma 0.2": lambda run=run: run("cpu", 0.2),
            "torch reference (blur by band matrices)": lambda run=run: run("reference"),
        }
        seconds = measure(contestants, options.rounds if size < 128 else min(options.rounds, 2))
        title = f"{size}^3, 16 images of {count} points, sigma {SIGMA}, 21 taps, value and gradient"
        records.append(show(title, seconds))

    cameras = dpc_cameras(22.5 * torch.arange(16), 0.0).reshape(4, 4)
    masks = torch.zeros(4, 4, 128, 128)
    masks[:, :, 30:98, 40:88] = 1
    for size, count in ((32, 2000), (64, 8000), (128, 16000)):
        cloud = shell(4, count, g).requires_grad_()
        steps: dict[str, Callable[[], Any]] = {
            "DPC": lambda v=size, p=cloud: dpc(p, masks, cameras, v, SIGMA, 21).error.sum().backward(),
            "DPC, half of the points": lambda v=size, p=cloud: (
                dpc(p, masks, cameras, v, SIGMA, 21, keep=0.5).error.sum().backward()
            ),
            "DRWR, exact": lambda v=size, p=cloud: drwr(p, masks, cameras, v).total().sum().backward(),
        }
        rounds = options.rounds if count < 16000 else min(options.rounds, 2)
        records.append(show(f"whole loss step, 4 x 4 views of {count} points, V = {size}", measure(steps, rounds)))
    save(records, options)


if __name__ == "__main__":
    main()
