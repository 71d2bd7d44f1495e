"""How far DR-KFS' slope points the right way: a view against itself shifted sideways by d pixels.

Counts, over shapes and views at 128², where the loss at d + 1 exceeds the loss at d - 1, as it should. Besides the
library's settings it tries what might widen the reach or remove the false minimum: patches of several scales, a
window that charges for displacement (hard, and a soft minimum), pyramids of the images and of the PoI maps, and
descriptors that need no training. ``--real DIR --lists train`` takes meshes of a built dataset's list.

    python benchmarks/drkfs_reach.py --out reach.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reconlab.cameras import hemisphere_views
from reconlab.features import PatchExtractor
from reconlab.features.detector import poi_map
from reconlab.features.patches import extract_patches, flat_patches
from reconlab.features.train.__main__ import synthetic_meshes
from reconlab.losses.drkfs import drkfs, pyramid, target_features
from reconlab.losses.silhouette_iou import silhouette_iou
from reconlab.renderers import soft_rasterize
from reconlab.shapes import Mesh

SHIFTS = (2, 4, 8, 12, 16, 24, 32)
Distance = Callable[[Tensor], Callable[[Tensor], Tensor]]  # the truth's views (M, H, W), then others, to (M,)


def library(extractor: PatchExtractor, **settings: int) -> Distance:
    """:func:`reconlab.losses.drkfs.drkfs` with settings."""

    def made(target: Tensor) -> Callable[[Tensor], Tensor]:
        features = target_features(target, extractor, settings.get("pyramid_levels", 1))
        return lambda pred: drkfs(pred[None], features, extractor, **settings)[0]

    return made


def described(extractor: PatchExtractor, maps: Tensor, describe: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Descriptors and weights of PoI maps ``(M, 1, H, W)``; flat patches as the library has them."""
    patches = extract_patches(maps)
    flat = flat_patches(patches, extractor.flat_std)
    textured = describe(patches[~flat].unsqueeze(1))
    features = describe(patches.new_zeros(1, 1, 32, 32)).repeat(flat.numel(), 1)
    features[~flat.flatten()] = textured
    return features.view(*flat.shape, -1), patches.mean(dim=(-2, -1)).clamp(min=0)


def charged(query: Tensor, key: Tensor, radius: int, charge: float, soft: float) -> Tensor:
    """Least of ``MSE + charge · |displacement in strides|²`` over the window, or the soft minimum's mean cost.

    The soft minimum spreads its weights by ``exp(-cost / soft)``, so that they, too, carry gradient.
    """
    gh, gw = query.shape[1:3]
    padded = F.pad(key, (0, 0, radius, radius, radius, radius), value=1e3)
    costs = []
    for dy in range(2 * radius + 1):
        for dx in range(2 * radius + 1):
            there = padded[:, dy : dy + gh, dx : dx + gw]
            far = (dy - radius) ** 2 + (dx - radius) ** 2
            costs.append((query - there).square().mean(dim=-1) + charge * far)
    stack = torch.stack(costs)
    if soft > 0:
        return (torch.softmax(-stack / soft, dim=0) * stack).sum(dim=0)
    return stack.amin(dim=0)


def variant(
    extractor: PatchExtractor,
    describe: Callable[[Tensor], Tensor] | None = None,
    levels: Callable[[Tensor], list[Tensor]] = lambda maps: [maps],
    radius: int = 0,
    charge: float = 0.0,
    soft: float = 0.0,
) -> Distance:
    """DR-KFS with another descriptor, with PoI maps of several scales, or with a charge per displacement."""

    def features(maps: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [described(extractor, x, describe or extractor.hardnet) for x in levels(maps)]

    def made(target: Tensor) -> Callable[[Tensor], Tensor]:
        maps, low, high = extractor.poi(target)
        there = features(maps)

        def distance(pred: Tensor) -> Tensor:
            here = features(poi_map(extractor.detector(pred.unsqueeze(1)), low, high))
            total = pred.new_zeros(len(pred))
            for (f, w), (g, u) in zip(here, there, strict=True):
                total = total + (w * charged(f, g, radius, charge, soft)).sum(dim=(1, 2))
                total = total + (u * charged(g, f, radius, charge, soft)).sum(dim=(1, 2))
            return total

        return distance

    return made


def poi_pyramid(maps: Tensor, blurred: bool) -> list[Tensor]:
    """PoI maps at 1, 1/2 and 1/4: patches of 32, 64 and 128 pixels, read at 32×32."""
    if blurred:
        return [x.unsqueeze(1) for x in pyramid(maps[:, 0], 3)]
    return [maps, F.avg_pool2d(maps, 2), F.avg_pool2d(maps, 4)]


def variants(extractor: PatchExtractor, dense: PatchExtractor) -> dict[str, Distance]:
    """All that are tried, by name."""
    from kornia.feature import MKDDescriptor, SIFTDescriptor

    sift, kernels = SIFTDescriptor(32, rootsift=True), MKDDescriptor(32, whitening=None)

    def raw(patches: Tensor) -> Tensor:
        small = F.avg_pool2d(patches, 2).flatten(1)
        return F.normalize(small - small.mean(dim=1, keepdim=True), dim=1, eps=1e-2)

    return {
        "silhouette IoU": lambda b: lambda a: silhouette_iou(a[None].gt(0.02).float(), b[None].gt(0.02).float())[0],
        "MSE of pixels": lambda b: lambda a: (a - b).square().mean(dim=(1, 2)),
        "r = 1": library(extractor, radius=1),
        "r = 0": library(extractor, radius=0),
        "r = 1, 3 levels": library(extractor, radius=1, pyramid_levels=3),
        "r = 0, 3 levels": library(extractor, radius=0, pyramid_levels=3),
        "dense, r = 1": library(dense, radius=1),
        "dense, r = 0": library(dense, radius=0),
        "dense, r = 0, 3 levels": library(dense, radius=0, pyramid_levels=3),
        "patches of 32, 64, 128, r = 0": variant(extractor, levels=lambda m: poi_pyramid(m, blurred=False)),
        "PoI maps blurred, 3 levels, r = 0": variant(extractor, levels=lambda m: poi_pyramid(m, blurred=True)),
        "r = 1, charge 0.002": variant(extractor, radius=1, charge=0.002),
        "r = 1, charge 0.006": variant(extractor, radius=1, charge=0.006),
        "r = 2, charge 0.002, soft 0.002": variant(extractor, radius=2, charge=0.002, soft=0.002),
        "raw patches, r = 0": variant(extractor, raw),
        "RootSIFT, r = 1": variant(extractor, sift, radius=1),
        "RootSIFT, r = 0": variant(extractor, sift),
        "RootSIFT, r = 0, PoI maps blurred": variant(extractor, sift, levels=lambda m: poi_pyramid(m, blurred=True)),
        "MKD, r = 0": variant(extractor, kernels),
    }


def meshes(options: argparse.Namespace) -> list[Mesh]:
    """Procedural shapes, or as many of each category of a built dataset's list."""
    if options.real is None:
        return list(synthetic_meshes(options.shapes, 500))
    found = []
    for category in sorted(p for p in options.real.iterdir() if p.is_dir()):
        for name in (category / f"{options.list}.lst").read_text().split()[: -(-options.shapes // 4)]:
            stored = np.load(category / name / "mesh.npz")
            found.append(Mesh(torch.tensor(stored["vertices"]).float(), torch.tensor(stored["faces"]).long()))
    return found[: options.shapes]


@torch.no_grad()
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", type=int, default=4)
    parser.add_argument("--real", type=Path, help="a built dataset instead of procedural shapes")
    parser.add_argument("--list", default="train", help="its list")
    parser.add_argument("--only", nargs="+", help="names of variants")
    parser.add_argument("--weights", default="bundled")
    parser.add_argument("--dense-weights", default="bundled")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    extractor = PatchExtractor.load(given.weights)
    dense = PatchExtractor.load(given.dense_weights, descriptor="dense")
    cameras = hemisphere_views(half_fov=11.5)[[3, 12, 21]]
    views = []
    for mesh in meshes(given):
        shaded = soft_rasterize(mesh, cameras, 128).shaded
        assert shaded is not None
        views.append(shaded[0])
    images = torch.cat(views)
    results: dict[str, dict[str, float]] = {"views": {"count": len(images)}}
    for name, distance in variants(extractor, dense).items():
        if given.only and name not in given.only:
            continue
        results[name] = {}
        compare = distance(images)
        for d in SHIFTS:
            near, far = (compare(images.roll(shift, -1)) for shift in (d - 1, d + 1))
            results[name][str(d)] = int((far > near).sum())
        print(f"{name:36} {results[name]} of {len(images)}", flush=True)
    if given.out:
        given.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
