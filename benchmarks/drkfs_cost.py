"""What DR-KFS costs per view, forward and backward, at the image sizes in use, and what each saving is worth.

The reconstruction is an ellipsoid of 642 vertices, the truth a procedural chair with cached features (as from
the second epoch on). ``python benchmarks/drkfs_cost.py --out results/benchmarks/drkfs_cost.json``
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

import torch
import trimesh
from harness import measure, parse, save, show

from reconlab.batch import Batch
from reconlab.datasets.synth import generate
from reconlab.features import PatchExtractor, load_detector, load_hardnet
from reconlab.losses.drkfs import DRKFS
from reconlab.losses.pixel_mse import PixelMSE
from reconlab.losses.view_images import render_views
from reconlab.shapes import Mesh

VIEWS = [0, 5, 12, 20]


def contestants(size: int) -> dict[str, Callable[[], Any]]:
    """One step on four views, by name."""
    vertices, faces, _ = generate("chair", 1).mesh()
    truth = Mesh(torch.from_numpy(vertices), torch.from_numpy(faces))
    batch = Batch(ids=["1"], categories=["chair"], mesh=truth)
    ball = trimesh.creation.icosphere(subdivisions=3)
    points = torch.tensor(ball.vertices, dtype=torch.float32) * torch.tensor([0.25, 0.4, 0.25])
    triangles = torch.tensor(ball.faces)

    def shape() -> Mesh:
        return Mesh(points.clone().requires_grad_(), triangles)

    def step(loss: DRKFS) -> Callable[[], Any]:
        def run() -> None:
            recon, back = loss.per_view(shape(), batch, VIEWS)
            (recon + back).mean().backward()

        run()
        return run

    def unfolded() -> PatchExtractor:
        extractor = PatchExtractor(load_detector(), load_hardnet())
        extractor.hardnet = load_hardnet().requires_grad_(False)
        return extractor

    common = {"image_size": size}
    loss = DRKFS(**common)
    cold = DRKFS(**common, cache_bytes=0)
    pixels = PixelMSE(images="shaded", views_per_step=4, image_size=size)

    def render_only() -> None:
        render_views(shape(), loss.cameras[VIEWS], loss.render).sum().backward()

    def mse() -> None:
        pixels(shape(), batch)["loss"].backward()

    return {
        "DRKFS as by default": step(loss),
        "flat patches described too": step(DRKFS(**common, flat_std=0.0)),
        "BatchNorm not folded": step(DRKFS(**common, extractor=unfolded())),
        "bfloat16 convolutions": step(DRKFS(**common, bf16=True)),
        "one view per chunk (recomputed)": step(DRKFS(**common, views_per_chunk=1)),
        "ground truth not cached": step(cold),
        "silhouettes": step(DRKFS(**common, images="silhouette")),
        "render alone": render_only,
        "PixelMSE, shaded": mse,
    }


def main() -> None:
    """Command line."""
    options = parse(__doc__)
    records = []
    for size in (64, 128, 256):
        seconds = {k: v / len(VIEWS) for k, v in measure(contestants(size), options.rounds).items()}
        record = show(f"{size}² px, seconds per view", seconds)
        record["peak_memory_mib_so_far"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        records.append(record)
    save(records, options)


if __name__ == "__main__":
    main()
