"""How far DR-KFS' slope points the right way: a view against itself shifted sideways by d pixels.

Counts, over shapes and views at 128², where the loss at d + 1 exceeds the loss at d - 1, as it should.

    python benchmarks/drkfs_reach.py --out reach.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from reconlab.cameras import hemisphere_views
from reconlab.features import PatchExtractor
from reconlab.features.train.__main__ import synthetic_meshes
from reconlab.losses.drkfs import drkfs, target_features
from reconlab.renderers import soft_rasterize

SHIFTS = (2, 4, 8, 12, 16, 24, 32)
VARIANTS = {
    "r = 1": {"radius": 1},
    "r = 0": {"radius": 0},
    "r = 0, 3 levels": {"radius": 0, "pyramid_levels": 3},
}


@torch.no_grad()
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", type=int, default=4)
    parser.add_argument("--weights", default="bundled")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    extractor = PatchExtractor.load(given.weights)
    cameras = hemisphere_views(half_fov=11.5)[[3, 12, 21]]
    views = []
    for mesh in synthetic_meshes(given.shapes, 500):
        shaded = soft_rasterize(mesh, cameras, 128).shaded
        assert shaded is not None
        views.append(shaded[0])
    images = torch.cat(views)
    results: dict[str, dict[str, int]] = {"views": {"count": len(images)}}
    for name, settings in VARIANTS.items():
        levels = settings.get("pyramid_levels", 1)
        target = target_features(images, extractor, levels)
        results[name] = {}
        for d in SHIFTS:
            near, far = (
                drkfs(images.roll(shift, -1)[None], target, extractor, **settings)[0] for shift in (d - 1, d + 1)
            )
            results[name][str(d)] = int((far > near).sum())
        print(f"{name:18} {results[name]} of {len(images)}", flush=True)
    if given.out:
        given.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
