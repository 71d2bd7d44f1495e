"""Costs that grow: what is timed at each size, and the exponent that it should have."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reconlab.bench import scenes
from reconlab.bench.case import Growing, Setting

Function = Callable[[], Any]


def _repulsion(backend: str) -> Callable[[Setting, int], Function]:
    def build(setting: Setting, count: int) -> Function:
        from reconlab.kernels.pairwise import pairwise_repulsion

        points, weights, bias = (x.to(setting.device) for x in scenes.disc(1, count, setting.generator()))
        chosen: Any = backend if setting.on_cpu else "auto"

        def value(p: Tensor) -> Tensor:
            return pairwise_repulsion(p, weights, bias, backend=chosen)

        return lambda: scenes.gradient_of(value, points)

    return build


def _rasterizer(setting: Setting, subdivisions: int, size: int, views: int) -> Function:
    from reconlab.cameras import hemisphere_views
    from reconlab.kernels.soft_rasterize import soft_rasterize

    xyz, splits, _ = scenes.screen_faces(subdivisions, hemisphere_views()[:views])
    xyz = xyz.to(setting.device)
    return lambda: scenes.gradient_of(lambda x: soft_rasterize(x, splits, size).alpha.square(), xyz)


def _in_faces(setting: Setting, faces: int) -> Function:
    return _rasterizer(setting, round(np.log(faces / 20) / np.log(4)), 128, 4)


def _in_pixels(setting: Setting, pixels: int) -> Function:
    return _rasterizer(setting, 3, round(pixels**0.5), 4)


def _nearest(setting: Setting, count: int) -> Function:
    from reconlab.kernels.nearest import nearest

    source, target = (scenes.surface(1, count, 10 * setting.seed + i).to(setting.device) for i in (0, 1))
    return lambda: nearest(source, target)


@cache
def _drkfs() -> Any:
    from reconlab.losses.drkfs import DRKFS

    return DRKFS(image_size=64, views_per_step=None)


def _views(setting: Setting, views: int) -> Function:
    from reconlab.batch import Batch
    from reconlab.datasets.synth import generate
    from reconlab.shapes import Mesh

    vertices, faces, _ = generate("chair", 1).mesh()
    truth = Mesh(torch.from_numpy(vertices), torch.from_numpy(faces)).to(setting.device)
    batch = Batch(ids=["1"], categories=["chair"], mesh=truth)
    ball = scenes.ellipsoid(3, (0.25, 0.4, 0.25)).to(setting.device)
    loss = _drkfs().to(setting.device)
    chosen = list(range(views))

    def step() -> Tensor:
        mesh = Mesh(ball.vertices.detach().requires_grad_(), ball.faces)
        here, there = loss.per_view(mesh, batch, chosen)
        (here + there).mean().backward()
        assert mesh.vertices.grad is not None  # noqa: S101
        return mesh.vertices.grad

    return step


def _gallery(setting: Setting, count: int) -> Function:
    from reconlab.kernels.lfd import distances

    many = np.random.default_rng(setting.seed).integers(0, 256, (count, 10, 10, 47), dtype=np.uint8)
    return lambda: distances(many[0], many)


def _evaluation(setting: Setting, samples: int) -> Function:
    """Chamfer distance and F-score of files, read, sampled and compared, in this process."""
    from reconlab.lab.evaluate import Store, evaluate
    from reconlab.lab.evaluate_metrics import CLASSES, Plan
    from reconlab.lab.evaluate_pairs import find_pairs

    folder = setting.scratch / f"evaluation-{samples}"
    for kind, radii in (("pred", (0.36, 0.28, 0.2)), ("true", (0.34, 0.3, 0.2))):
        place = folder / kind / "ball"
        place.mkdir(parents=True)
        mesh = scenes.ellipsoid(3, radii)
        lines = [f"v {x} {y} {z}" for x, y, z in mesh.vertices.tolist()]
        lines += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in mesh.faces.tolist()]
        (place / "0.obj").write_text("\n".join(lines) + "\n")
        for i in range(1, samples):
            shutil.copyfile(place / "0.obj", place / f"{i}.obj")
    pairs = find_pairs(folder / "pred", folder / "true").pairs
    plan = Plan({name: (CLASSES[name], {}) for name in ("cd", "fscore")})
    return lambda: evaluate(pairs, plan, Store(None, {}))


def build_dataset(setting: Setting, shapes: int, workers: int) -> Function:
    """A build of small procedural shapes into a new folder, which is removed."""
    from reconlab.datasets.builder import build_synth
    from reconlab.datasets.content import Sizes

    sizes = Sizes(views=4, image_size=128, points=5000, queries=20_000, resolution=32)

    def build() -> None:
        root = Path(tempfile.mkdtemp(dir=setting.scratch))
        build_synth(root / "synth", ["chair"], shapes, setting.seed, sizes=sizes, workers=workers, progress=False)
        shutil.rmtree(root)

    return build


def _builds(setting: Setting, shapes: int) -> Function:
    return build_dataset(setting, shapes, 1)


POINTS = (1000, 2000, 4000, 8000, 16000)

GROWTHS: tuple[Growing, ...] = (
    Growing(
        "repulsion",
        "repulsion-pairs",
        "DRWR repulsion, all pairs",
        "points J",
        POINTS,
        2.0,
        "every pair once",
        _repulsion("cpu"),
        quick=True,
    ),
    Growing(
        "repulsion",
        "repulsion-grid",
        "DRWR repulsion, grid",
        "points J",
        POINTS,
        1.0,
        "J, and a grid's fixed cost",
        _repulsion("grid"),
        on_gpu=False,  # the grid is the CPU's
    ),
    Growing(
        "rasterizer",
        "rasterizer-faces",
        "Soft rasteriser, silhouette step at 128²",
        "faces",
        (320, 1280, 5120, 20480, 81920),
        1.0,
        "many faces smaller than the blur; for few, the covered pixels count",
        _in_faces,
    ),
    Growing(
        "rasterizer",
        "rasterizer-pixels",
        "Soft rasteriser, silhouette step of 1280 faces",
        "pixels",
        (32**2, 64**2, 128**2, 256**2, 512**2),
        1.0,
        "covered pixels; for few, the faces count",
        _in_pixels,
        quick=True,
    ),
    Growing(
        "nearest",
        "nearest-points",
        "Nearest neighbours, N to N on surfaces",
        "points N",
        (1024, 4096, 16384, 65536),
        1.0,
        "a grid of about constant occupancy",
        _nearest,
        quick=True,
    ),
    Growing(
        "drkfs",
        "drkfs-views",
        "DR-KFS step at 64², truth cached",
        "views",
        (1, 2, 4, 8, 16),
        1.0,
        "views are independent",
        _views,
    ),
    Growing(
        "lfd",
        "lfd-gallery",
        "LFD, one against a gallery",
        "descriptors",
        (100, 300, 1000, 3000),
        1.0,
        "each compared alike",
        _gallery,
        on_gpu=False,
    ),
    Growing(
        "evaluate",
        "evaluate-samples",
        "Evaluation: CD and F-score of .obj files",
        "samples",
        (2, 4, 8, 16),
        1.0,
        "samples are independent",
        _evaluation,
        on_gpu=False,
    ),
    Growing(
        "build",
        "build-shapes",
        "Dataset build, one worker",
        "shapes",
        (4, 8, 16, 32),
        1.0,
        "shapes are independent",
        _builds,
        on_gpu=False,
    ),
)
