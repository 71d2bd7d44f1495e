"""Trains the dense descriptor to answer as HardNet does; ``python -m reconlab.features.train.dense --help``.

The patches are those that DR-KFS meets in training: windows of the PoI maps of procedural shapes, of the same shapes
stretched and bent, and of bumpy ellipsoids in their place, from the loss' own views at its own sizes.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from reconlab.cameras import hemisphere_views
from reconlab.features.dense import DenseDescriptor
from reconlab.features.extractor import PatchExtractor
from reconlab.features.patches import PatchFeatures, extract_patches, flat_patches
from reconlab.features.train.__main__ import HELD_OUT, commit, settings_of, synthetic_meshes
from reconlab.features.train.patches import uniform
from reconlab.features.weights import DENSE_FILE, load_dense, save_state
from reconlab.shapes import Mesh
from reconlab.threads import limited

log = logging.getLogger("reconlab.features.train")
SIZES, FIELDS_OF_VIEW = (64, 128, 256), (11.5, 15.0)


def reconstructions(truth: Mesh, generator: torch.Generator) -> Iterator[Mesh]:
    """A shape, the shape stretched and bent, and a bumpy, noisy ellipsoid of 642 vertices in its box."""
    from trimesh.creation import icosphere

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    v = truth.vertices
    yield truth
    scale = 1 + 0.15 * (2 * torch.rand(3, generator=generator) - 1)
    wave = torch.sin(v @ (6 * normal(3, 3)) + 6 * torch.rand(3, generator=generator))
    yield Mesh(v * scale + uniform(generator, 0.01, 0.06) * wave, truth.faces)
    sphere = icosphere(subdivisions=3)
    ball = torch.tensor(sphere.vertices, dtype=torch.float32)
    bumps = 1 + uniform(generator, 0, 0.25) * torch.sin(ball @ (8 * normal(3, 1)))
    ball = ball * (v.amax(dim=0) - v.amin(dim=0)) / 2 * bumps + uniform(generator, 0, 0.03) * normal(*ball.shape)
    yield Mesh(ball, torch.tensor(sphere.faces))


@torch.no_grad()
def poi_patches(
    meshes: Iterator[Mesh], extractor: PatchExtractor, generator: torch.Generator, per_mesh: int = 48, views: int = 2
) -> Tensor:
    """Windows ``(N, 32, 32)`` (fp16, of mean 0) of PoI maps, at most ``per_mesh`` of each mesh, few of them flat.

    The maps of reconstructions have the range of the true view's, as in the loss. The grid of windows is moved at
    random. A fifth of the windows lose contrast, down to a deviation of 5e-4, so that what is to be said of nearly
    flat ones is learnt, too.
    """
    from reconlab.losses.view_images import RenderSettings, render_views  # a program, not part of the library

    out = []
    for truth in meshes:
        size = SIZES[int(torch.randint(len(SIZES), (), generator=generator))]
        cameras = hemisphere_views(half_fov=FIELDS_OF_VIEW[int(torch.randint(2, (), generator=generator))])
        cameras = cameras[torch.randperm(25, generator=generator)[:views].tolist()]
        like: PatchFeatures | None = None
        for mesh in reconstructions(truth, generator):
            settings = RenderSettings("shaded", size, 1e-4, 1e-3, "smooth")
            if uniform(generator, 0, 1) < 0.2:
                settings = replace(settings, images="silhouette")
            if uniform(generator, 0, 1) < 0.4:
                settings = replace(settings, normals="flat")
            maps, low, high = extractor.poi(render_views(mesh, cameras, settings)[0], like)
            if like is None:
                like = PatchFeatures(maps, maps, low, high)
            moved = [int(torch.randint(16, (), generator=generator)) if size > 64 else 0 for _ in range(2)]
            patches = extract_patches(maps[..., moved[0] :, moved[1] :]).reshape(-1, 32, 32)
            patches = patches[~flat_patches(patches, 3e-3)]
            patches = patches[torch.randperm(len(patches), generator=generator)[:per_mesh]]
            deviation, mean = torch.std_mean(patches, dim=(1, 2), keepdim=True)
            faint = 10 ** (-3.3 + 1.8 * torch.rand(len(patches), 1, 1, generator=generator)) / deviation
            faint = torch.where(torch.rand(len(patches), 1, 1, generator=generator) < 0.2, faint.clamp(max=1), 1.0)
            out.append(((patches - mean) * faint).half())
    return torch.cat(out)


@torch.no_grad()
def describe(net: torch.nn.Module, patches: Tensor, bf16: bool = False) -> Tensor:
    """``(N, D)`` descriptors of patches ``(N, 32, 32)``."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return torch.cat([net(chunk.float().unsqueeze(1)).flatten(1).float() for chunk in patches.split(512)])


def train_dense(
    patches: Tensor,
    answers: Tensor,
    iterations: int,
    seed: int,
    batch: int = 256,
    rate: float = 2e-3,
    bf16: bool = True,
    widths: tuple[int, int, int, int, int] = (32, 32, 64, 128, 128),
) -> tuple[DenseDescriptor, list[float]]:
    """Learn ``answers (N, 128)`` to ``patches (N, 32, 32)``: mean of one minus the cosine, Adam, falling rate.

    Returns:
        The network in eval mode and the loss at each step.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = DenseDescriptor(widths)
    optimiser = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=1e-4)
    curve = []
    for step in range(iterations):
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - step / iterations) * min(1.0, (step + 1) / 50)
        chosen = torch.randint(len(patches), (batch,), generator=generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            described = net(patches[chosen].float().unsqueeze(1))
        loss = 1 - (described.flatten(1) * answers[chosen]).sum(dim=1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        net.centre()
        curve.append(float(loss.detach()))
        if step % 100 == 0:
            log.info("dense %d/%d: %.4f", step, iterations, curve[-1])
    return net.eval(), curve


def likeness(described: Tensor, answers: Tensor, seed: int = 0) -> dict[str, float]:
    """How alike two descriptors' answers ``(N, 128)`` are.

    Returns:
        ``cosine``: mean cosine of the answers; ``low_cosine``: its 10th percentile; ``distances``: correlation of the
        squared distances of random pairs under the one and under the other.
    """
    cosine = (described * answers).sum(dim=1)
    other = torch.randperm(len(described), generator=torch.Generator().manual_seed(seed))
    both = torch.stack([(x - x[other]).square().sum(dim=1) for x in (described, answers)])
    return {
        "cosine": float(cosine.mean()),
        "low_cosine": float(cosine.quantile(0.1)),
        "distances": float(torch.corrcoef(both)[0, 1]),
        "patches": len(described),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m reconlab.features.train.dense", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and card")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shapes", type=int, default=560, help="training shapes")
    parser.add_argument("--held-out", type=int, default=48, help="shapes for measuring")
    parser.add_argument("--iterations", type=int, default=2400)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--hardnet", default="bundled", help="the HardNet to learn from")
    parser.add_argument("--no-bf16", action="store_true", help="train in float32 throughout")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    with limited(given.threads):
        run(given)


def run(given: argparse.Namespace) -> None:
    """Do it all; see the module."""
    start = time.process_time()
    extractor = PatchExtractor.load(given.hardnet)
    generators = [torch.Generator().manual_seed(given.seed + i) for i in (0, 1)]
    patches = poi_patches(synthetic_meshes(given.shapes, 0), extractor, generators[0])
    held = poi_patches(synthetic_meshes(given.held_out, HELD_OUT), extractor, generators[1])
    log.info("%d + %d patches after %.0f s", len(patches), len(held), time.process_time() - start)
    answers, held_answers = (describe(extractor.hardnet, p, not given.no_bf16) for p in (patches, held))
    log.info("HardNet's answers after %.0f s", time.process_time() - start)
    net, _ = train_dense(
        patches, answers, given.iterations, given.seed, given.batch, given.rate, bf16=not given.no_bf16
    )
    card = {
        "config": {"widths": net.widths, "eps": net.eps},
        "patches": len(patches),
        "cpu_seconds": round(time.process_time() - start),
        "command": " ".join(["python -m reconlab.features.train.dense --out DIR", *settings_of(given)]),
        "commit": commit(),
        "seed": given.seed,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {given.threads} thread(s), CPU",
        "licence": "Apache-2.0; trained on this project's own procedural shapes and HardNet",
    }
    path = given.out / DENSE_FILE
    save_state(path, net, card)
    found = likeness(describe(load_dense(str(path)), held), held_answers)
    save_state(path, net, {**card, "held_out": found})
    log.info("done after %.0f CPU-seconds: %s", time.process_time() - start, json.dumps(found))


if __name__ == "__main__":
    main()
