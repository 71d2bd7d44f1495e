"""DRWR's Figs. 3 and 5: what each term does to a free cloud, on one silhouette."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from reconlab.cameras import Cameras, dpc_cameras
from reconlab.errors import ReconlabError
from reconlab.losses.drwr import Reading, drwr
from reconlab.losses.drwr_field import silhouette_fields

Ground = Literal["silhouette", "field"]
Figure = Literal["drwr-fig3", "drwr-fig5"]

SILHOUETTE = 128  # pixels a side, DPC's renderings
EXTENT = 1.25  # what a panel shows, in half image sides: the unit cube projects into it from every side
SLATE, PALE, RED = (74, 82, 96), (150, 190, 225), (214, 39, 40)
CELLS = 32


@dataclass(frozen=True)
class Setting:
    """What is optimised, and how long.

    Attributes:
        shape: Category of the procedural shape.
        mesh: A mesh file instead.
        seed: Of the procedural shape and of the initial points.
        points: Points of the cloud.
        steps: Adam steps, the rate falling from 1e-2 to 2e-4 by a cosine.
        resolution: Side of the silhouette as the loss sees it.
        beta: Weight of the repulsion.
        sigma: Its reach, in 1/32 of the image side; half of the preset spreads a free cloud more evenly.
        azimuth: Of the DPC camera, in degrees.
        elevation: Of the DPC camera, in degrees.

    Raises:
        ReconlabError: A number is out of range.
    """

    shape: str = "chair"
    mesh: Path | None = None
    seed: int = 0
    points: int = 1000
    steps: int = 300
    resolution: int = 64
    beta: float = 1.0
    sigma: float = 0.5
    azimuth: float = 35.0
    elevation: float = 20.0

    def __post_init__(self) -> None:
        for name, low, high in (("points", 1, 20000), ("steps", 0, 100000), ("seed", 0, 2**31), ("beta", 0, 1e6)):
            if not low <= getattr(self, name) <= high:
                raise ReconlabError(f"--{name} is {getattr(self, name)}; expected {low:g} to {high:g}.")
        if not (-90 < self.elevation < 90 and -360 <= self.azimuth <= 360):
            raise ReconlabError(
                f"--azimuth and --elevation are {self.azimuth:g} and {self.elevation:g}; "
                "expected degrees from -360 to 360 and between -90 and 90."
            )


class Spread(NamedTuple):
    """How projections lie in a silhouette.

    Attributes:
        inside: Fraction of the points whose pixel is in the foreground.
        covered: Fraction of the cells of a 32 × 32 grid that are all foreground and hold a point.
        variation: Standard deviation over mean of the number of points in those cells.
    """

    inside: float
    covered: float
    variation: float


def read_shape(setting: Setting) -> tuple[Tensor, Tensor]:
    """Vertices ``(N, 3)`` in the object frame and faces ``(F, 3)`` of the setting's shape.

    Raises:
        ReconlabError: The mesh file is missing or no mesh; the category does not exist.
    """
    if setting.mesh is None:
        from reconlab.datasets.synth import generate

        vertices, faces, _ = generate(setting.shape, setting.seed).mesh()
    else:
        from reconlab.datasets.meshes import normalization, read_mesh

        if not setting.mesh.is_file():
            raise ReconlabError(f"--mesh {setting.mesh} does not exist, or is not a file.")
        raw = read_mesh(setting.mesh)
        try:
            centre, scale = normalization(raw.vertices, raw.faces)
        except ReconlabError as error:
            raise ReconlabError(f"--mesh {setting.mesh}: {error}") from error
        vertices, faces = (raw.vertices - centre) / scale, raw.faces
    return torch.from_numpy(np.asarray(vertices, np.float32)), torch.from_numpy(np.asarray(faces, np.int64))


def silhouette_of(vertices: Tensor, faces: Tensor, camera: Cameras, side: int = SILHOUETTE) -> Tensor:
    """``(side, side)`` coverage in [0, 1] of one mesh, 16 samples a pixel.

    Raises:
        ReconlabError: Nothing, or everything, is covered.
    """
    from reconlab.renderers.hard import render_rgba

    alpha = render_rgba(vertices, faces, camera.reshape(1), side, supersample=4)[0, :, :, 3].float() / 255
    if not 0 < (alpha > 0.5).float().mean() < 1:
        raise ReconlabError("The shape's silhouette is empty or full: choose another shape or viewpoint.")
    return alpha


def initial_cloud(setting: Setting) -> Tensor:
    """``(points, 3)`` uniform in the unit cube."""
    return torch.rand(setting.points, 3, generator=torch.Generator().manual_seed(setting.seed)) - 0.5


def fit(start: Tensor, silhouette: Tensor, camera: Cameras, setting: Setting, reading: Reading) -> Tensor:
    """The cloud ``(points, 3)`` after the setting's steps under one reading of the loss."""
    points = start[None].clone().requires_grad_()
    optimizer = torch.optim.Adam([points], 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(setting.steps, 1), 2e-4)
    cameras, mask = camera.reshape(1, 1), silhouette[None, None]
    for _ in range(setting.steps):
        optimizer.zero_grad()
        drwr(points, mask, cameras, setting.resolution, reading=reading).total().sum().backward()
        optimizer.step()
        schedule.step()
    return points.detach()[0]


def spread(xy: Tensor, silhouette: Tensor) -> Spread:
    """Measure projections ``(J, 2)`` in [-1, 1] against a silhouette ``(H, H)``, ``H`` a multiple of 32."""
    side = silhouette.shape[0]
    step = side // CELLS
    mask = silhouette > 0.5
    pixel = ((xy + 1) / 2 * side).floor().long()
    x, y = pixel[((pixel >= 0) & (pixel < side)).all(-1)].unbind(-1)
    counts = torch.zeros(CELLS * CELLS).index_add(0, y // step * CELLS + x // step, torch.ones(len(x)))
    full = mask.reshape(CELLS, step, CELLS, step).all(3).all(1).flatten()
    if not full.any():  # a shape thinner than a cell
        full = mask.reshape(CELLS, step, CELLS, step).any(3).any(1).flatten()
    inner = counts[full]
    variation = inner.std(correction=0) / inner.mean() if inner.sum() > 0 else torch.tensor(torch.nan)
    return Spread(mask[y, x].sum().item() / len(xy), (inner > 0).float().mean().item(), variation.item())


def uniform_draw(silhouette: Tensor, count: int, seed: int = 0) -> Tensor:
    """``(count, 2)`` uniform random positions in the foreground: what ``variation`` chance alone gives."""
    g = torch.Generator().manual_seed(seed)
    side = silhouette.shape[0]
    index = torch.multinomial((silhouette > 0.5).float().flatten(), count, True, generator=g)
    corner = torch.stack([index % side, index // side], -1)
    return 2 * (corner + torch.rand(count, 2, generator=g)) / side - 1


def draw_figure(name: Figure, setting: Setting) -> Image.Image:
    """The figure as a picture.

    ``drwr-fig3`` has the paper's six panels: silhouette, points before and after Eq. 2 on the binary silhouette;
    the smooth field of Eq. 3, points before and after Eq. 4 on it. ``drwr-fig5``: silhouette, points before, after
    the smooth term alone, and after both terms (Eq. 6). Points are drawn where they project; the frame is the
    image's border.

    Raises:
        ReconlabError: The shape cannot be read or has no silhouette.
    """
    camera = dpc_cameras(setting.azimuth, setting.elevation)
    mask = silhouette_of(*read_shape(setting), camera)
    smooth = silhouette_fields(mask[None], setting.resolution).smooth[0]
    start = initial_cloud(setting)
    l1 = Reading(pairwise=False)

    uniform = spread(uniform_draw(mask, setting.points, setting.seed), mask).variation
    chance = f"variation of {setting.points} uniform random positions: {uniform:.2f}"

    def bare(title: str, ground: Ground) -> np.ndarray:
        return panel(title, chance if ground == "silhouette" else "", ground, mask, smooth, None)

    def cloud(title: str, ground: Ground, reading: Reading | None = None) -> np.ndarray:
        points = start if reading is None else fit(start, mask, camera, setting, reading)
        xy, _ = camera.project(points)
        s = spread(xy, mask)
        note = f"inside {s.inside:.0%}, cells reached {s.covered:.0%}, variation {s.variation:.2f}"
        return panel(title, note, ground, mask, smooth, xy)

    if name == "drwr-fig3":
        binary = Reading(field="binary", off_image="clip", pairwise=False)
        rows = [
            [bare("(a) silhouette", "silhouette"), cloud("(b) before", "silhouette")],
            [bare("(d) smooth field, Eq. 3", "field"), cloud("(e) before", "field")],
        ]
        rows[0].append(cloud("(c) after the pixel loss, Eq. 2", "silhouette", binary))
        rows[1].append(cloud("(f) after the smooth loss, Eq. 4", "field", l1))
    else:
        both = Reading(beta=setting.beta, sigma=setting.sigma)
        rows = [
            [bare("silhouette", "silhouette"), cloud("before", "silhouette")],
            [cloud("smooth loss alone, Eq. 4", "silhouette", l1), cloud("both losses, Eq. 6", "silhouette", both)],
        ]
    return Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows], 0))


def panel(
    title: str, note: str, ground: Ground, silhouette: Tensor, smooth: Tensor, xy: Tensor | None, size: int = 420
) -> np.ndarray:
    """One titled panel, ``(size + 52, size + 16, 3)`` uint8: silhouette or field, and points as red diamonds."""
    fine = 2 * size  # drawn twice as large, then reduced: smooth edges
    side = round(fine / EXTENT)
    alpha = np.asarray(_resized(silhouette, side, Image.Resampling.BICUBIC))[..., None]
    back = np.full((side, side, 3), 255.0)
    if ground == "field":
        v = np.asarray(_resized(smooth, side, Image.Resampling.BILINEAR))[..., None]
        back = 255 * (1 - v) + np.array(PALE) * v
    image = np.clip(back * (1 - alpha) + np.array(SLATE) * alpha, 0, 255).round().astype(np.uint8)
    tile = Image.new("RGB", (fine, fine), (244, 244, 244))
    corner = (fine - side) // 2
    tile.paste(Image.fromarray(image), (corner, corner))
    draw = ImageDraw.Draw(tile)
    draw.rectangle((corner, corner, corner + side - 1, corner + side - 1), outline=(120, 120, 120), width=2)
    if xy is not None:
        radius = fine / 190
        for x, y in (fine / 2 + xy.double() * side / 2).tolist():
            draw.polygon(((x - radius, y), (x, y - radius), (x + radius, y), (x, y + radius)), fill=RED)
    sheet = Image.new("RGB", (size + 16, size + 52), "white")
    sheet.paste(tile.resize((size, size), Image.Resampling.LANCZOS), (8, 24))
    write = ImageDraw.Draw(sheet)
    write.text((9, 4), title, fill="black", font=ImageFont.load_default(15))
    write.text((9, size + 28), note, fill=(90, 90, 90), font=ImageFont.load_default(13))
    return np.asarray(sheet)


def _resized(values: Tensor, side: int, how: Image.Resampling) -> Image.Image:
    return Image.fromarray(values.float().clamp(0, 1).numpy()).resize((side, side), how)
