"""Light Field Descriptor: features per mesh (10 light fields x 10 views), and one descriptor against 1000."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from harness import measure, parse, save, show

from reconlab.bench.scenes import bumpy
from reconlab.kernels.lfd import default_cameras, describe, distances
from reconlab.kernels.lfd.cameras import dodecahedron, half_turns, upright_cameras

ORIGINAL_SECONDS = 2.0  # of the original C program per mesh on the reference values' machine (wall time, features)


def main() -> None:
    """Run the comparison."""
    options = parse(__doc__)
    ours = default_cameras()
    upright = upright_cameras(np.stack([dodecahedron() @ turn.T for turn in half_turns()]), "one image a view")
    records = []
    for subdivisions in (3, 5, 7):
        vertices, faces = bumpy(subdivisions)
        contestants: dict[str, Callable[[], Any]] = {
            "our cameras (three images a view)": lambda v=vertices, f=faces: describe(v, f, ours),
            "cameras of a CSV (one)": lambda v=vertices, f=faces: describe(v, f, upright),
        }
        rounds = options.rounds if subdivisions < 7 else min(options.rounds, 2)
        records.append(show(f"features, {len(faces)} faces", measure(contestants, rounds)))
        for name, seconds in records[-1]["seconds"].items():
            print(f"  original program / {name}: {ORIGINAL_SECONDS / seconds:.0f}x")
    rng = np.random.default_rng(0)
    many = rng.integers(0, 256, (1000, 10, 10, 47), dtype=np.uint8)
    both: dict[str, Callable[[], Any]] = {"kernel": lambda: distances(many[0], many)}
    records.append(show("1 descriptor against 1000", measure(both, options.rounds)))
    few: dict[str, Callable[[], Any]] = {
        "kernel": lambda: distances(many[0], many[:10]),
        "NumPy reference": lambda: distances(many[0], many[:10], "reference"),
    }
    records.append(show("1 descriptor against 10", measure(few, options.rounds)))
    save(records, options)


if __name__ == "__main__":
    main()
