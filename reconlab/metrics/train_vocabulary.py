"""Makes Shape Google's vocabulary: k-means of heat kernel signatures of a dataset's training meshes.

The committed file comes from the command in docs/metrics/shape_google.md.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reconlab.errors import ReconlabError
from reconlab.metrics.heat_kernel import EIGENPAIRS, POINTS, surface_spectrum
from reconlab.metrics.shape_google import Vocabulary, signatures

log = logging.getLogger("reconlab.metrics.train_vocabulary")

RAW_TIMES = 1024.0 * 4.0 ** (np.arange(6) / 5)
"""1024, 1351, 1783, 2353, 3104, 4096: the paper's, in the squared unit of its shapes."""
AREA = 2e4
"""The area, in that unit, that a surface is taken to have; see the docs for how it was chosen."""
EACH = 500
"""Signatures drawn of each shape, by area."""
ROUNDS, RESTARTS = 50, 20


def training_meshes(root: Path, count: int) -> list[Path]:
    """``mesh.npz`` files of a built dataset's training lists: as many of each category, evenly spread over its list.

    Raises:
        ReconlabError: There is no training list, or it names no mesh.
    """
    lists = sorted(root.glob("*/train.lst"))
    if not lists:
        raise ReconlabError(f"{root} has no <category>/train.lst: give the root of a built dataset.")
    found = []
    for file in lists:
        ids = file.read_text().split()
        take = min(len(ids), -(-count // len(lists)))
        paths = [file.parent / ids[i * len(ids) // take] / "mesh.npz" for i in range(take)]
        found += [path for path in paths if path.is_file()]
    if not found:
        raise ReconlabError(f"The training lists of {root} name no shape that has a mesh.npz.")
    return found


def cluster(found: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, float]:
    """k-means: the centres, by their first coordinate, and the median size of a cluster.

    The size of a cluster is the root mean square distance of its members from its centre.

    Args:
        found: ``(N, T)``.
        count: Clusters.
        seed: Of k-means++.

    Returns:
        ``(count, T)`` and a length.

    Raises:
        ReconlabError: There are fewer different signatures than clusters.
    """
    from scipy.cluster.vq import ClusterError, kmeans2

    restarts = RESTARTS if len(np.unique(found, axis=0)) >= count else 0
    for attempt in range(restarts):
        try:
            centres, label = kmeans2(
                found, count, iter=ROUNDS, minit="++", missing="raise", seed=np.random.default_rng((seed, attempt))
            )
        except ClusterError:
            continue
        square = ((found - centres[label]) ** 2).sum(1)
        sizes = np.sqrt(np.bincount(label, square, count) / np.bincount(label, minlength=count))
        return centres[np.argsort(centres[:, 0])], float(np.median(sizes))
    raise ReconlabError(f"{len(found)} signatures do not make {count} clusters: use more shapes or fewer words.")


def train(paths: Sequence[Path], words: int, seed: int, points: int, eigenpairs: int, area: float) -> Vocabulary:
    """The vocabulary of these meshes; those without a spectrum are named and left out."""
    times = RAW_TIMES / area
    parts = []
    for i, path in enumerate(paths):
        try:
            with np.load(path, allow_pickle=False) as data:
                spectrum = surface_spectrum(data["vertices"], data["faces"], points, eigenpairs)
        except (ReconlabError, OSError, ValueError, KeyError) as error:
            log.warning("left out %s: %s", path, error)
            continue
        draw = np.random.default_rng((seed, i)).choice(points, EACH, p=spectrum.areas)
        parts.append(signatures(spectrum, times)[draw])
        if (i + 1) % 20 == 0:
            log.info("%d of %d", i + 1, len(paths))
    if not parts:
        raise ReconlabError("No mesh of the training lists has a heat kernel.")
    centres, size = cluster(np.concatenate(parts), words, seed)
    return Vocabulary(centres, 2 * size, times, points, eigenpairs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m reconlab.metrics.train_vocabulary", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="a built dataset with meshes")
    parser.add_argument(
        "--out", type=Path, required=True, help="the .safetensors file to write; its card goes beside it"
    )
    parser.add_argument("--shapes", type=int, default=120, help="training shapes, the categories in equal parts")
    parser.add_argument("--words", type=int, default=48)
    parser.add_argument("--points", type=int, default=POINTS)
    parser.add_argument("--eigenpairs", type=int, default=EIGENPAIRS)
    parser.add_argument("--area", type=float, default=AREA, help="the times 1024 … 4096 are divided by it")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    start = time.process_time()
    try:
        if given.out.suffix != ".safetensors":
            raise ReconlabError(f"--out is {given.out}; expected a name that ends in .safetensors.")
        if min(given.shapes, given.words, given.area) <= 0:
            raise ReconlabError("--shapes, --words and --area must be positive.")
        paths = training_meshes(given.root, given.shapes)
        made = train(paths, given.words, given.seed, given.points, given.eigenpairs, given.area)
    except ReconlabError as error:
        log.error("%s", error)
        return 2
    data = Path(*given.root.parts[-2:]).as_posix()  # no path of this machine in a file that is passed on
    card = {
        "words": given.words,
        "shapes": len(paths),
        "data": data,
        "seed": given.seed,
        "area": given.area,
        "command": (
            f"python -m reconlab.metrics.train_vocabulary --root {data} --out FILE "
            f"--shapes {given.shapes} --words {given.words} --points {given.points} "
            f"--eigenpairs {given.eigenpairs} --area {given.area:g} --seed {given.seed}"
        ),
        "licence": "Apache-2.0; statistics of surfaces, no part of any mesh",
    }
    made.save(given.out, card)
    log.info("%s: sigma %.4f after %.0f CPU-seconds", given.out, made.sigma, time.process_time() - start)
    return 0


if __name__ == "__main__":
    sys.exit(main())
