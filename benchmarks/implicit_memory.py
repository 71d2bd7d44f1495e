"""Peak memory of a training step of IM-Net (published decoder) through its surface, by DR-KFS and before it.

``python benchmarks/implicit_memory.py --out results/benchmarks/implicit_memory.json``; each case runs in a process of
its own, value and gradient of one step on the CPU. The memory is the process' peak in the step less what it had with
the decoder alone; the field is a ball of radius 0.33. Some minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import trimesh
from harness import parse, save

from reconlab.batch import Batch
from reconlab.losses import DRKFS
from reconlab.networks.imnet_decoder import IMDecoder, IMField
from reconlab.shapes import Mesh, VoxelGrid
from reconlab.threads import limit_threads

EVERYTHING = 1 << 30  # a chunk that holds all queries

# way "grid" records every cell of the lattice, else ImplicitField.mesh() is taken; without views nothing is rendered.
CASES: dict[str, dict[str, Any]] = {
    "every cell recorded, 32³": {"way": "grid", "resolution": 32, "chunk": EVERYTHING},  # 64³: eight times as much
    "implicit gradient, 64³": {"resolution": 64},
    "implicit gradient, 64³, one chunk": {"chunk": EVERYTHING, "resolution": 64},
    "implicit gradient, 64³, batch of 4": {"resolution": 64, "batch": 4},
    "implicit gradient, 128³": {"resolution": 128},
    "DR-KFS 64², 2 views, 64³": {"resolution": 64, "views": 2, "size": 64},
    "DR-KFS 256², 25 views, 64³": {"resolution": 64, "views": 25, "size": 256},
    "DR-KFS 256², 25 views in chunks of 4, 64³": {"resolution": 64, "views": 25, "size": 256, "views_per_chunk": 4},
    "every cell, recomputed by chunks, 32³": {"way": "grid", "resolution": 32},
}


def fitted(path: Path) -> None:
    """A decoder of published size that knows the ball, written to ``path``."""
    torch.manual_seed(0)
    decoder = IMDecoder(start="kaiming")
    optimizer = torch.optim.Adam(decoder.parameters(), 5e-4)
    code = torch.rand(1, 256, generator=torch.Generator().manual_seed(0))
    for _ in range(40):
        points = torch.rand(1, 600, 3) - 0.5
        target = (0.5 + 4 * (0.33 - points.norm(dim=-1))).clamp(0, 1)
        optimizer.zero_grad()
        (decoder(code, points) - target).square().mean().backward()
        optimizer.step()
    torch.save(decoder.state_dict(), path)


def step(case: dict[str, Any], weights: Path) -> dict[str, float]:
    """One step in this process: memory, time, size of the surface."""
    batch, resolution, chunk = case.get("batch", 1), case["resolution"], case.get("chunk", 16384)
    decoder = IMDecoder()
    decoder.load_state_dict(torch.load(weights, weights_only=True))
    code = torch.rand(1, 256, generator=torch.Generator().manual_seed(0)).expand(batch, -1).clone().requires_grad_()
    ball = trimesh.creation.icosphere(4, 0.3)
    faces = torch.tensor(ball.faces)
    before = _memory("VmRSS")
    truth = Mesh(torch.tensor(ball.vertices).float().expand(batch, -1, -1), faces)
    names = [str(i) for i in range(batch)]
    loss = None
    if "views" in case:
        loss = DRKFS(
            views_per_step=case["views"],
            image_size=case["size"],
            radius=1 if case["size"] == 256 else 0,
            half_fov=11.5,
            views_per_chunk=case.get("views_per_chunk"),
        )
        with torch.no_grad():  # compiled kernels and cached targets are not the step's
            loss(truth, Batch(names, names, mesh=truth))
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    start = time.process_time()
    field = IMField(decoder, code, resolution, chunk)
    mesh = (
        field.mesh() if case.get("way") != "grid" else VoxelGrid.from_logits(field.voxels(resolution).logits).mesh()
    )
    value = mesh.vertices.square().sum() if loss is None else loss(mesh, Batch(names, names, mesh=truth))["loss"]
    value.backward()
    seconds = time.process_time() - start
    peak = _memory("VmHWM")
    gradient = sum(float(p.grad.square().sum()) for p in decoder.parameters() if p.grad is not None) ** 0.5
    return {
        "peak_mb": (peak - before) / 1e6,
        "resident_before_mb": before / 1e6,
        "cpu_seconds": seconds,
        "vertices": len(mesh.vertices),
        "gradient_norm": gradient,
    }


def _memory(what: str) -> int:
    """Bytes of this process, by a line of Linux' status file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(what))


def main() -> None:
    """Command line; ``--case NAME --weights FILE`` is how it calls itself."""
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--case")
    own.add_argument("--weights", type=Path)
    chosen, others = own.parse_known_args()
    if chosen.case:
        limit_threads(int(others[0]))
        print(json.dumps(step(CASES[chosen.case], chosen.weights)))
        return
    options = parse(__doc__)
    options.rounds = 1
    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "ball.pt"
        fitted(weights)
        for name in CASES:
            command = [sys.executable, __file__, "--case", name, "--weights", str(weights), str(options.threads)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{name:<50} failed ({done.returncode}): {done.stderr.strip().splitlines()[-1:]}")
                continue
            result = json.loads(done.stdout.splitlines()[-1])
            print(f"{name:<50}{result['peak_mb']:>8.0f} MB {result['cpu_seconds']:>7.1f} s"
                  f"{result['vertices']:>8} vertices", flush=True)  # fmt: skip
            records.append({"case": name, **result})
            save(records, options)


if __name__ == "__main__":
    main()
