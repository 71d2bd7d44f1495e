"""Matching accuracy of descriptors on patches of held-out shapes: bundled, random, and others' where at hand.

    python benchmarks/descriptors.py --shapes 40 --out results/weights.json [--others ../shared/weights]

Another seed than the training's: other shapes, views and lights than those that training was checked on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from drkfs_bars import others
from torch import nn

from reconlab.features import HardNet, load_detector, load_hardnet
from reconlab.features.train.__main__ import HELD_OUT, synthetic_meshes
from reconlab.features.train.detector import detector_windows, separation
from reconlab.features.train.hardnet import matching, patch_pairs
from reconlab.features.train.patches import view_pairs


@torch.no_grad()
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", type=int, default=40)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--weights", default="bundled")
    parser.add_argument("--detector", default="bundled")
    parser.add_argument("--others", type=Path, default=None, help="folder with HardTFeat.pth, tfeat-liberty.params")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(2)
    pairs = list(view_pairs(synthetic_meshes(given.shapes, 2 * HELD_OUT), 4, 160, generator))
    detector = load_detector(given.detector)
    windows = detector_windows(pairs, detector.kernel, generator)
    results: dict[str, object] = {
        "command": f"python benchmarks/descriptors.py --shapes {given.shapes}",
        "detector": {"windows": len(windows["first"]), "auc": separation(detector, windows)},
    }
    print("detector", results["detector"])
    nets: dict[str, nn.Module] = {
        f"HardNet {given.weights}": load_hardnet(given.weights).fold(),
        "HardNet random": HardNet().eval().fold(),
    }
    nets |= others(given.others) if given.others else {}
    for jitter in (3.0, 0.0):
        patches = patch_pairs(pairs, detector, generator, jitter=jitter)
        patches = patches[torch.randperm(len(patches), generator=generator)]
        for name, net in nets.items():
            found = {source: matching(net, patches[:, i]) for i, source in enumerate(("render", "poi"))}
            results[f"{name}, jitter {jitter:g} px"] = found
            print(f"{name:24} jitter {jitter:g}", found, flush=True)
    if given.out:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
