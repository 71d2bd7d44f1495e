"""What the MVCNN distance knows: retrieval of categories among held-out meshes, and the order of easy comparisons.

Against the same network with random weights and against the distance of the 12 pictures' pixels.

- **Retrieval.** Every mesh of the list is the query once: fraction whose nearest neighbour has its category, mAP;
  among the list's other meshes, and (top-1) in the training list, which has no family in common with it.
- **Order.** Vertex noise of the query must cost less than another shape of its category, and that less than a shape
  of another category: fraction of all triples for which it does, and the medians of the distances.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reconlab.datasets.format import MESH
from reconlab.datasets.samples import find_items, read_mesh_arrays
from reconlab.features.mvcnn import MultiViewCNN, render_ring, retrieval
from reconlab.features.weights import BUNDLED, MVCNN_FILE, load_mvcnn
from reconlab.shapes import Mesh
from reconlab.threads import limit_threads


def meshes(root: Path, split: str) -> tuple[list[Mesh], list[str]]:
    """The meshes of a list and their categories."""
    categories = sorted(p.name for p in root.iterdir() if p.is_dir())
    items = find_items(root, split, categories)
    found = []
    for item in items:
        arrays = read_mesh_arrays(item.folder / MESH)
        found.append(Mesh(torch.from_numpy(arrays["vertices"]).float(), torch.from_numpy(arrays["faces"]).long()))
    return found, [item.category for item in items]


def noisy(mesh: Mesh, sigma: float, seed: int) -> Mesh:
    """Every vertex moved by a normal deviate, a vertex that several faces repeat alike."""
    same = np.unique(mesh.vertices.numpy(), axis=0, return_inverse=True)[1].reshape(-1)
    generator = torch.Generator().manual_seed(seed)
    moves = sigma * torch.randn(int(same.max()) + 1, 3, generator=generator)
    return Mesh(mesh.vertices + moves[torch.from_numpy(same)], mesh.faces)


def judge(
    describe: Callable[[Tensor], Tensor], rings: dict[str, Tensor], labels: list[str], gallery_labels: list[str]
) -> dict[str, Any]:
    """All numbers of one distance: L2 between what ``describe`` makes of rings ``(N, 12, S, S)``."""
    found = {name: describe(ring).double() for name, ring in rings.items()}
    distance = torch.cdist(found["queries"], found["queries"])
    top, mean = retrieval(distance, labels)
    nearest = torch.cdist(found["queries"], found["gallery"]).argmin(1)
    right = [gallery_labels[int(k)] == label for k, label in zip(nearest, labels, strict=True)]
    same = np.array([[a == b for b in labels] for a in labels])
    d = distance.numpy()
    answer: dict[str, Any] = {
        "top1": top,
        "map": mean,
        "top1_in_training_list": float(np.mean(right)),
        "top1_by_category": {
            c: float(np.mean([r for r, label in zip(right, labels, strict=True) if label == c]))
            for c in sorted(set(labels))
        },
    }
    other = [np.sort(d[i][~same[i]]) for i in range(len(labels))]
    near = [d[i][same[i] & (np.arange(len(labels)) != i)] for i in range(len(labels))]
    answer["category_before_other"] = float(
        np.mean([(x < y).mean() for a, b in zip(near, other, strict=True) for x, y in [(a[:, None], b[None])]])
    )
    answer["median"] = {
        "same category": float(np.median(np.concatenate(near))),
        "other category": float(np.median(np.concatenate(other))),
    }
    for name in found:
        if name.startswith("noise"):
            moved = (found[name] - found["queries"]).norm(dim=1).numpy()
            answer["median"][name] = float(np.median(moved))
            answer[f"{name} before category"] = float(
                np.mean([(m < a).mean() for m, a in zip(moved, near, strict=True)])
            )
    return answer


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("data/real"), help="a built dataset with meshes")
    parser.add_argument("--split", default="test")
    parser.add_argument("--weights", default="bundled")
    parser.add_argument("--random", type=int, default=3, help="random networks, averaged")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    given = parser.parse_args()
    limit_threads(given.threads)
    net = load_mvcnn(given.weights)
    shapes, labels = meshes(given.root, given.split)
    gallery, gallery_labels = meshes(given.root, "train")
    start = time.process_time()
    rings = {"queries": torch.stack([render_ring(m, net.size) for m in shapes])}
    rendering = (time.process_time() - start) / len(shapes)
    rings["gallery"] = torch.stack([render_ring(m, net.size) for m in gallery])
    for sigma in (0.003, 0.01):
        rings[f"noise {sigma}"] = torch.stack(
            [render_ring(noisy(m, sigma, i), net.size) for i, m in enumerate(shapes)]
        )

    def describing(network: MultiViewCNN) -> Callable[[Tensor], Tensor]:
        def describe(ring: Tensor) -> Tensor:
            with torch.no_grad():
                return torch.cat([network.describe(part) for part in ring.split(8)])

        return describe

    start = time.process_time()
    describing(net)(rings["queries"])
    network = (time.process_time() - start) / len(shapes)
    answers = {"bundled" if given.weights == "bundled" else "trained": describing(net)}
    for seed in range(given.random):
        torch.manual_seed(seed)
        control = MultiViewCNN(1, size=net.size)
        # Statistics of normalisation as after training, so that only the filters are random
        control.train()
        describing(control)(rings["gallery"][:64])
        answers[f"random {seed}"] = describing(control.eval())
    answers["pixels"] = lambda ring: ring.flatten(1)
    results = {k: judge(describe, rings, labels, gallery_labels) for k, describe in answers.items()}
    for name, found in results.items():
        print(name, json.dumps(found))
    card = BUNDLED / MVCNN_FILE
    content = {
        "command": f"python benchmarks/mvcnn.py --split {given.split} --weights {given.weights}",
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        ).stdout.strip(),
        "weights_sha256": json.loads(card.with_suffix(".json").read_text())["sha256"]
        if given.weights == "bundled"
        else given.weights,
        "seed": "random networks 0 to 2; noise: the mesh's place in the list",
        "machine": f"{platform.machine()}, {given.threads} thread(s), torch {torch.__version__}",
        "n": {c: labels.count(c) for c in sorted(set(labels))},
        "gallery": len(gallery),
        "cpu_seconds_per_mesh": {"rendering": round(rendering, 4), "network": round(network, 4)},
        "results": results,
    }
    if given.out:
        given.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
