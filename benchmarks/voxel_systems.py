"""Cost of a step of the losses on voxel grids: value and gradient for 4 shapes of 4 views at 32³.

Run ``python benchmarks/voxel_systems.py [--repeat 9]``.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from reconlab.batch import Batch, Views
from reconlab.cameras import dpc_cameras
from reconlab.losses import DRC, PTN
from reconlab.losses.drc import drc, sample_rays
from reconlab.shapes import VoxelGrid


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=9)
    repeat = parser.parse_args().repeat
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cameras = dpc_cameras(360 * torch.rand(4, 4), 60 * torch.rand(4, 4) - 20)
    masks = torch.zeros(4, 4, 128, 128)
    masks[..., 40:90, 30:100] = 1
    batch = Batch(["a"] * 4, ["b"] * 4, views=Views(cameras, masks))
    values = (0.1 * torch.rand(4, 32, 32, 32)).requires_grad_()
    losses = {
        "DRC, 3000 rays": lambda: DRC()(VoxelGrid(values), batch)["loss"],
        "DRC, torch reference": lambda: drc(values, sample_rays(masks, cameras, 3000), backend="reference").total(),
        "PTN": lambda: PTN()(VoxelGrid(values), batch)["loss"],
    }
    for name, loss in losses.items():
        wall, cpu = [], []
        for _ in range(repeat + 2):
            start, used = time.perf_counter(), time.thread_time()
            loss().sum().backward()
            wall.append(1e3 * (time.perf_counter() - start))
            cpu.append(1e3 * (time.thread_time() - used))
        print(f"{name:22} median {statistics.median(wall[2:]):6.1f} ms, least {min(wall[2:]):6.1f} ms", end="")
        print(f", least CPU {min(cpu[2:]):6.1f} ms")


if __name__ == "__main__":
    main()
