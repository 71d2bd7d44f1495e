"""Contact sheets of procedural shapes: `python -m reconlab.datasets.synth.sheet docs/images/synth.png`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from reconlab.cameras import softras_cameras
from reconlab.datasets.synth import CATEGORIES, SynthShape, generate
from reconlab.renderers import render_rgba


def render(shape: SynthShape, size: int = 128, azimuth: float = 35.0, elevation: float = 22.0) -> NDArray[np.uint8]:
    """Picture of a shape on white.

    Args:
        shape: any size; it is normalised first.
        size: side in pixels.
        azimuth: degrees; 0 looks at the front.
        elevation: degrees.

    Returns:
        (size, size, 3) uint8.
    """
    vertices, faces, colors = (torch.from_numpy(a) for a in shape.normalized().mesh())
    camera = softras_cameras(torch.tensor([azimuth]), elevation, half_fov=11.0)  # a shape's sphere fills the frame
    rgba = render_rgba(vertices, faces, camera, size, colors, supersample=3)[0].numpy().astype(np.float32)
    alpha = rgba[..., 3:] / 255
    return np.round(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def contact_sheet(rows: list[list[SynthShape]], size: int = 128) -> Image.Image:
    """One picture per shape, one row per list; rows may differ in length."""
    width = max(len(row) for row in rows) * size
    sheet = np.full((len(rows) * size, width, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, shape in enumerate(row):
            sheet[i * size : (i + 1) * size, j * size : (j + 1) * size] = render(shape, size)
    return Image.fromarray(sheet)


def main(arguments: list[str] | None = None) -> None:
    """Write the sheet of the documentation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="picture to write")
    parser.add_argument("--per-row", type=int, default=10, help="shapes of a category in a row")
    parser.add_argument("--rows", type=int, default=2, help="rows of each category")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=104, help="side of a shape's picture in pixels")
    chosen = parser.parse_args(arguments)
    rows = []
    for category in CATEGORIES:
        for k in range(chosen.rows):
            start = chosen.first_seed + k * chosen.per_row
            rows.append([generate(category, seed) for seed in range(start, start + chosen.per_row)])
    picture = contact_sheet(rows, chosen.size)
    chosen.path.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(128, dither=Image.Dither.NONE).save(chosen.path, optimize=True)


if __name__ == "__main__":
    main()
