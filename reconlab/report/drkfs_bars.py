"""DR-KFS' Table 5 and Fig. 6: a chair's leg bars moved by five pixels or deleted, under four image measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from reconlab.cameras import SOFTRAS_DISTANCE, softras_cameras
from reconlab.datasets.synth import SynthShape, generate, move_part, remove_part, thicken
from reconlab.errors import ReconlabError
from reconlab.features import PatchExtractor
from reconlab.features.patches import extract_patches
from reconlab.kernels.patch_matching import match_patches
from reconlab.renderers import soft_rasterize
from reconlab.shapes import Mesh

SIZE, SHIFT = 256, 5
# Pixels, of the bar itself; seen from above it covers about one more. A bar that covers more than it is shifted by
# overlaps its old place, and MSE(I) turns round; the paper's printed ratio .60 speaks for thin ones, too.
THICKEST = 4.0
HALF_FOV = 11.5
EDITS = ("shift up", "shift down", "deletion")
Family = Literal["drawn", "rendered"]

PAPER = {
    "MSE(I)": (0.2961, 0.3736, 0.2007),
    "descriptors of I": (0.1174, 0.1231, 0.1498),
    "MSE(PoI)": (0.0137, 0.0149, 0.0138),
    "DR-KFS": (0.0143, 0.0160, 0.0256),
}
"""Table 5 as printed, one chair; its second row has LIFT features."""


@dataclass(frozen=True)
class Chair:
    """A picture of a chair and its three edits, each ``(256, 256)`` grey in [0, 1], in the order of :data:`EDITS`."""

    reference: Tensor
    edited: Tensor


def drawn_chair(seed: int) -> Chair:
    """A chair from the front, drawn in two dimensions, with a bar of 3 to 6 pixels between its legs."""
    rng = np.random.default_rng(seed)
    centre, half = int(rng.integers(118, 138)), int(rng.integers(38, 60))
    seat, top, floor = int(rng.integers(120, 150)), int(rng.integers(28, 60)), int(rng.integers(205, 235))
    post, slats, bar = int(rng.integers(5, 10)), int(rng.integers(0, 4)), int(rng.integers(3, 7))
    at = int(rng.integers(seat + 25, floor - 20))
    greys = rng.uniform(0.5, 1.0, 5)

    def draw(position: int | None) -> Tensor:
        image = np.zeros((SIZE, SIZE), np.float32)

        def fill(y0: float, y1: float, x0: float, x1: float, grey: float) -> None:
            image[int(y0) : int(y1), int(x0) : int(x1)] = grey

        if position is not None:
            fill(position, position + bar, centre - half, centre + half, greys[4])
        for side in (centre - half, centre + half - post):
            fill(top, seat, side, side + post, greys[0])
            fill(seat, floor, side, side + post, greys[1])
        fill(top, top + post + 2, centre - half, centre + half, greys[2])
        for i in range(slats):
            x = centre - half + (i + 1) * 2 * half / (slats + 1)
            fill(top, seat, x - 2, x + 2, greys[0])
        fill(seat - 4, seat + 8, centre - half - 4, centre + half + 4, greys[3])
        sharp = torch.from_numpy(image)
        return 0.5 * sharp + 0.5 * F.avg_pool2d(sharp[None, None], 3, 1, 1)[0, 0]

    return Chair(draw(at), torch.stack([draw(at - SHIFT), draw(at + SHIFT), draw(None)]))


def rendered_chair(seed: int) -> Chair | None:
    """The same of a procedural chair with all its leg bars; None if it has none, or if they are hidden in the view.

    Bars thicker than :data:`THICKEST` pixels of the view are thinned to that.
    """
    shape = generate("chair", seed)
    bars = [p.name for p in shape if p.kind == "bar"]
    if not bars:
        return None
    pixel = 2 * float(np.tan(np.radians(HALF_FOV))) * SOFTRAS_DISTANCE / SIZE  # object units, at the chair's centre
    for name in bars:
        low, high = shape[name].bounds
        shape = thicken(shape, name, min(1.0, THICKEST * pixel / float(high[1] - low[1])))
    move = SHIFT * pixel
    variants = [shape, move_part(shape, bars, (0, move, 0)), move_part(shape, bars, (0, -move, 0))]
    images = torch.stack([_view(v) for v in (*variants, remove_part(shape, bars))])
    if float((images[3] - images[0]).abs().sum()) < 50:
        return None
    return Chair(images[0], images[1:])


@torch.no_grad()
def _view(shape: SynthShape) -> Tensor:
    vertices, faces, _ = shape.mesh()
    camera = softras_cameras(20.0, 15.0, half_fov=HALF_FOV).reshape(1)
    mesh = Mesh(torch.from_numpy(vertices), torch.from_numpy(faces))
    image = soft_rasterize(mesh, camera, SIZE, sigma=3e-5, normals="flat").shaded
    assert image is not None  # noqa: S101 - shading was asked for
    return image[0, 0]


def chairs(family: Family, count: int) -> list[Chair]:
    """The first ``count`` chairs of a family; seeds whose chair has no visible bars are passed over."""
    if family == "drawn":
        return [drawn_chair(seed) for seed in range(count)]
    found: list[Chair] = []
    seed = 0
    while len(found) < count:
        chair = rendered_chair(seed)
        found += [chair] if chair is not None else []
        seed += 1
    return found


@torch.no_grad()
def scores(chair: Chair, extractor: PatchExtractor, radius: int = 1) -> dict[str, list[float]]:
    """The four rows of Table 5 for one chair, each for the three edits.

    ``MSE(I)``: mean over pixels. ``descriptors of I``: in the place of LIFT's features, the descriptor on patches of
    the raw images, matched within the window, both directions, mean over patches. ``MSE(PoI)``: of the keypoint maps
    with the reference's range. ``DR-KFS``: Eq. 2, both directions, sum over patches.
    """
    reference, edited = chair.reference, chair.edited
    truth = extractor(reference[None])
    there = truth.map(lambda x: x.expand(len(edited), *x.shape[1:]))
    here = extractor(edited, like=there)
    raw_there = extractor.describe(extract_patches(reference[None, None])).expand(len(edited), -1, -1, -1)
    raw_here = extractor.describe(extract_patches(edited.unsqueeze(1)))
    raw = sum(match_patches(a, b, radius)[0].mean((1, 2)) for a, b in ((raw_here, raw_there), (raw_there, raw_here)))
    own = extractor.poi(reference[None])[0]
    maps = extractor.poi(edited, like=there)[0]
    both = [
        (match_patches(a.descriptors, b.descriptors, radius)[0] * a.weights).sum((1, 2))
        for a, b in ((here, there), (there, here))
    ]
    return {
        "MSE(I)": (edited - reference).square().mean((1, 2)).tolist(),
        "descriptors of I": torch.as_tensor(raw).tolist(),
        "MSE(PoI)": (maps - own).square().mean((1, 2, 3)).tolist(),
        "DR-KFS": (both[0] + both[1]).tolist(),
    }


def table5(count: int = 56, radius: int = 1, extractor: PatchExtractor | None = None) -> dict[str, Any]:
    """Table 5 over ``count`` drawn and ``count`` rendered chairs.

    Returns:
        ``family -> row -> {"mean": 3 values, "ratio": median of deletion over the mean shift, "deletion_highest":
        fraction of chairs where it exceeds both shifts, "deletion_lowest": where both exceed it, "n": count}``.

    Raises:
        ReconlabError: ``count`` is below 1.
    """
    if count < 1:
        raise ReconlabError(f"--count is {count}; choose at least 1.")
    extractor = extractor or PatchExtractor.load()
    out: dict[str, Any] = {}
    families: tuple[Family, ...] = ("drawn", "rendered")
    for family in families:
        rows: dict[str, list[list[float]]] = {}
        for chair in chairs(family, count):
            for name, values in scores(chair, extractor, radius).items():
                rows.setdefault(name, []).append(values)
        out[family] = {}
        for name, many in rows.items():
            v = np.array(many)
            shifts, deletion = v[:, :2], v[:, 2]
            out[family][name] = {
                "mean": v.mean(0).tolist(),
                "ratio": float(np.median(deletion / shifts.mean(1))),
                "deletion_highest": float((deletion > shifts.max(1)).mean()),
                "deletion_lowest": float((deletion < shifts.min(1)).mean()),
                "n": len(v),
            }
    return out


def text(table: dict[str, Any]) -> str:
    """The table beside the paper's, in lines."""
    head = f"{'':18}{'shift up':>10}{'shift down':>12}{'deletion':>10}{'ratio':>8}{'highest':>9}{'lowest':>8}"
    lines = [f"{'paper, one chair':18}" + head[18:58]]
    for name, (up, down, gone) in PAPER.items():
        title = "MSE(LIFT)" if name.startswith("desc") else name
        lines.append(f"{title:18}{up:10.4f}{down:12.4f}{gone:10.4f}{2 * gone / (up + down):8.2f}")
    for family, rows in table.items():
        count = next(iter(rows.values()))["n"]
        lines += ["", f"{family + f', {count} chairs':20}" + head[20:]]
        for name, row in rows.items():
            up, down, gone = row["mean"]
            shares = f"{row['deletion_highest']:9.0%}{row['deletion_lowest']:8.0%}"
            lines.append(f"{name:18}{up:10.4f}{down:12.4f}{gone:10.4f}{row['ratio']:8.2f}{shares}")
    lines.append("ratio: deletion over the mean shift (median); highest, lowest: chairs where the deletion is so")
    return "\n".join(lines)


def figure6(extractor: PatchExtractor | None = None, seeds: tuple[int, int] = (3, 8)) -> Figure:
    """Fig. 6: a drawn and a rendered chair, its three edits, and their PoI maps."""
    extractor = extractor or PatchExtractor.load()
    rendered = next(c for s in range(seeds[1], seeds[1] + 200) if (c := rendered_chair(s)) is not None)
    figure = Figure(figsize=(8, 8.6), layout="constrained")
    axes = figure.subplots(4, 4)
    for k, chair in enumerate((drawn_chair(seeds[0]), rendered)):
        like = extractor(chair.reference[None])
        with torch.no_grad():
            maps = [extractor.poi(x[None], like=like)[0][0, 0] for x in (chair.reference, *chair.edited)]
        for row, pictures in ((2 * k, (chair.reference, *chair.edited)), (2 * k + 1, maps)):
            for axis, picture in zip(axes[row], pictures, strict=True):
                axis.imshow(picture.clamp(0, 1), cmap="gray", vmin=0, vmax=1)
                axis.set(xticks=[], yticks=[])
        axes[2 * k, 0].set_ylabel("image")
        axes[2 * k + 1, 0].set_ylabel("PoI map")
    for axis, title in zip(axes[0], ("reference", *EDITS), strict=True):
        axis.set_title(title)
    return figure
