"""Marching cubes with gradients against scikit-image's, which has none.

``python benchmarks/marching_cubes.py --out results/benchmarks/marching_cubes.json``
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from harness import measure, parse, save, show
from skimage import measure as skimage_measure

from reconlab.bench.scenes import smooth_fields
from reconlab.kernels.marching_cubes import marching_cubes


def main() -> None:
    """Command line."""
    options = parse(__doc__)
    records = []
    for count, size in ((8, 32), (8, 64), (1, 128)):
        grids = smooth_fields(count, size)
        learned = grids.clone().requires_grad_(True)

        def with_gradient(values: torch.Tensor = learned) -> Any:
            return marching_cubes(values).vertices.square().sum().backward()

        def of_skimage(values: torch.Tensor = grids) -> Any:
            padded = np.pad(values.numpy(), ((0, 0), (1, 1), (1, 1), (1, 1)), constant_values=-1.0)
            return [skimage_measure.marching_cubes(g, 0.0) for g in padded]

        contestants = {
            "scikit-image (Lewiner), no gradient": of_skimage,
            "kernel": lambda values=grids: marching_cubes(values),
            "kernel, value and gradient": with_gradient,
            "torch reference": lambda values=grids: marching_cubes(values, backend="reference"),
        }
        faces = len(marching_cubes(grids).faces)
        title = f"{count} grids of {size}³, {faces} faces"
        records.append(show(title, measure(contestants, options.rounds)))
    save(records, options)


if __name__ == "__main__":
    main()
