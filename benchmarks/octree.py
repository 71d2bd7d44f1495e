"""OGN: a training step of the octree decoder on the surface's cells against the same layers on full grids.

Time is CPU time, interleaved; memory the growth of the resident set over the step, each in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from harness import measure, parse, save, show
from torch import Tensor, nn

from reconlab.datasets.synth import generate
from reconlab.kernels.octree import MIXED, octree_labels
from reconlab.losses.octree_cross_entropy import octree_cross_entropy
from reconlab.networks import OGN
from reconlab.networks.ogn import OctreeStep
from reconlab.shapes import Mesh

CATEGORIES = ("airplane", "car", "chair", "lamp")
SIZES = {"channels": 64, "latent": 256, "encoder_width": 8, "encoder_norm": "group"}


class DenseDecoder(nn.Module):
    """OGN's decoder without its tree: every cell of every level, two classes at the finest."""

    def __init__(self, network: OGN) -> None:
        super().__init__()
        self.head = nn.Sequential(network.seed, network.dense)
        layers: list[nn.Module] = []
        steps = [step for step in network.levels if isinstance(step, OctreeStep)]
        for inputs, outputs in pairwise([steps[0].up.shape[0], *(step.up.shape[2] for step in steps)]):
            layers += [nn.ConvTranspose3d(inputs, outputs, 2, 2), nn.ReLU()]
            layers += [nn.Conv3d(outputs, outputs, 3, 1, 1), nn.ReLU()]
        layers.append(nn.Conv3d(steps[-1].up.shape[2], 2, 1))
        self.body = nn.Sequential(*layers)

    def forward(self, code: Tensor) -> Tensor:
        """``(B, 2, D, D, D)`` logits."""
        return self.body(self.head(code))


def shapes(count: int) -> Mesh:
    """Procedural shapes, of the four categories in turn."""
    made = [generate(CATEGORIES[i % 4], i // 4).mesh() for i in range(count)]
    return Mesh.from_list([(torch.from_numpy(v), torch.from_numpy(f)) for v, f, _ in made])


def steps_of(side: int, count: int) -> tuple[dict[str, Callable[[], Any]], dict[str, Any]]:
    """A step (forward, loss, backward) of each contestant on ``count`` shapes, and what the tree looks like."""
    torch.manual_seed(0)
    network = OGN(resolution=side, truth="mesh", **SIZES)  # type: ignore[arg-type]
    dense = DenseDecoder(network)
    grid = shapes(count).voxels(side).values > 0
    code = torch.randn(count, 256)

    def octree() -> None:
        labels = octree_labels(grid, network.start)
        shape = network.decode(code, [own == MIXED for own in labels])
        octree_cross_entropy(shape.levels, labels, count).sum(1).mean().backward()

    def full() -> None:
        F.cross_entropy(dense(code), grid.long()).backward()

    def composed() -> None:
        labels = octree_labels(grid, network.start)
        network.decode(code, [own == MIXED for own in labels]).logits.square().mean().backward()

    mixed = [(own == MIXED).sum().item() for own in octree_labels(grid, network.start, "ignore")]
    cells = [count * network.start**3, *(8 * m for m in mixed[:-1])]
    facts = {"side": side, "shapes": count, "cells": cells, "share_of_finest": cells[-1] / (count * side**3)}
    return {"octree": octree, "full grid": full, "octree, composed to a grid": composed}, facts


def peak(side: int, count: int, name: str) -> float:
    """MiB that one step adds to the resident set, in a fresh process."""
    command = [sys.executable, __file__, "--memory", json.dumps([side, count, name])]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def memory(arguments: Sequence[Any]) -> None:
    """The child of :func:`peak`."""
    torch.set_num_threads(1)
    side, count, name = arguments
    contestants, _ = steps_of(side, count)
    contestants_small, _ = steps_of(16, 1)
    contestants_small[name]()  # libraries, buffers of the allocator
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew (Linux)
    before = _high_water()
    contestants[name]()
    print((_high_water() - before) / 1024)


def _high_water() -> int:
    """KiB of the largest resident set."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """Run the comparison."""
    if "--memory" in sys.argv:
        memory(json.loads(sys.argv[-1]))
        return
    options = parse(__doc__)
    records = []
    for side, count in ((32, 4), (64, 4), (128, 2)):
        contestants, facts = steps_of(side, count)
        rounds = options.rounds if side < 128 else min(options.rounds, 3)
        record = show(f"decoder step, {count} shapes at {side}^3", measure(contestants, rounds))
        facts["peak_mib"] = {name: peak(side, count, name) for name in contestants}
        print(f"  cells per level {facts['cells']}, {100 * facts['share_of_finest']:.1f} % of the finest grid")
        for name, value in facts["peak_mib"].items():
            print(f"  {name:<34}{value:>10.0f} MiB")
        records.append({**record, **facts})
    save(records, options)


if __name__ == "__main__":
    main()
