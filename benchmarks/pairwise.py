"""DRWR: the repulsion kernels (value and gradient) against torch and each other, and one whole loss step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from harness import measure, parse, save, show
from torch import Tensor

from reconlab.bench.cases_points import cdist_repulsion
from reconlab.bench.scenes import disc
from reconlab.cameras import dpc_cameras
from reconlab.kernels.pairwise import pairwise_repulsion
from reconlab.losses.drwr import drwr


def grid(count: int, g: torch.Generator, rounds: int) -> dict[str, Any]:
    """The O(J) kernel against all pairs, on points spread over a disc of 8 % of the image, with its error."""
    points, weights, bias = disc(1, count, g)

    def run(backend: str) -> tuple[Tensor, Tensor]:
        p = points.clone().requires_grad_()
        value = pairwise_repulsion(p, weights, bias, backend=backend)  # type: ignore[arg-type]
        return value, torch.autograd.grad(value.sum(), p)[0]

    (value, gradient), (exact, true) = run("grid"), run("cpu")
    contestants: dict[str, Callable[[], Any]] = {"grid": lambda: run("grid"), "all pairs": lambda: run("cpu")}
    record = show(f"repulsion in a disc, {count} points, value and gradient", measure(contestants, rounds))
    error = (gradient - true).square().mean().sqrt() / true.square().mean().sqrt()
    record |= {"value_error": ((value - exact) / exact).abs().item(), "gradient_error_rms": error.item()}
    print(f"  error of the value {record['value_error']:.1e}, of the gradient {record['gradient_error_rms']:.1e}")
    return record


def main() -> None:
    """Run the comparison."""
    options = parse(__doc__)
    records = []
    g = torch.Generator().manual_seed(0)
    for images, count in ((16, 2000), (2, 8000)):
        points = (32 * torch.rand(images, count, 2, generator=g)).requires_grad_()
        weights, bias = torch.rand(images, count, generator=g), torch.rand(images, count, generator=g)

        def run(
            backend: str, squared: bool = False, p: Tensor = points, w: Tensor = weights, b: Tensor = bias
        ) -> None:
            pairwise_repulsion(p, w, b, squared=squared, backend=backend).sum().backward()  # type: ignore[arg-type]

        contestants: dict[str, Callable[[], Any]] = {
            "kernel": lambda run=run: run("cpu"),
            "kernel, squared distances": lambda run=run: run("cpu", True),
            "torch reference (closed form)": lambda run=run: run("reference"),
            "torch.cdist and autograd": lambda p=points, w=weights, b=bias: cdist_repulsion(p, w, b).sum().backward(),
        }
        seconds = measure(contestants, options.rounds if count < 4000 else min(options.rounds, 2))
        records.append(show(f"repulsion, {images} images of {count} points, value and gradient", seconds))
        records[-1]["ns_per_pair"] = 1e9 * seconds["kernel"] / (images * count**2)
        print(f"  kernel: {records[-1]['ns_per_pair']:.3f} ns a pair")

    for count in (2000, 4000, 8000, 16000):
        records.append(grid(count, g, options.rounds if count < 8000 else min(options.rounds, 2)))

    cameras = dpc_cameras(22.5 * torch.arange(16), 0.0).reshape(4, 4)
    masks = torch.zeros(4, 4, 128, 128)
    masks[:, :, 30:98, 40:88] = 1
    cloud = (0.7 * (torch.rand(4, 2000, 3, generator=g) - 0.5)).requires_grad_()
    steps: dict[str, Callable[[], Any]] = {
        f"V = {v}": lambda v=v: drwr(cloud, masks, cameras, v).total().sum().backward() for v in (32, 64, 128)
    }
    records.append(show("whole loss step, 4 x 4 views of 2000 points", measure(steps, options.rounds)))
    save(records, options)


if __name__ == "__main__":
    main()
