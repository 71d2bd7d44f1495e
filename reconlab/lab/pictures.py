"""Pictures of shapes: rendered tiles, and galleries of inputs, reconstructions and truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from reconlab.cameras import Cameras, softras_cameras
from reconlab.errors import ConversionError
from reconlab.renderers.hard import render_rgba
from reconlab.renderers.shading import Light
from reconlab.shapes import Mesh, Shape

GALLERY_VIEWS = ((30.0, 20.0), (-60.0, 30.0))  # (azimuth, elevation) in degrees: front three-quarter, side


def gallery_cameras(views: Sequence[tuple[float, float]] = GALLERY_VIEWS) -> Cameras:
    """The cameras of galleries: close enough that a shape of diagonal 1 fills the tile."""
    azimuth, elevation = zip(*views, strict=True)
    return softras_cameras(list(azimuth), list(elevation), distance=2.2, half_fov=13.5)


def render_shape(shape: Shape, index: int, cameras: Cameras, size: int, light: Light | None = None) -> np.ndarray:
    """Render sample ``index`` as ``(V, size, size, 3)`` uint8 on white: its mesh, or else its points as dots.

    ``light`` is a mesh's; the one of the networks' inputs if None.
    """
    one = shape[index]
    try:
        mesh = one.mesh()
    except ConversionError:
        return render_points(one.points()[0].detach().cpu(), cameras, size)
    vertices, faces = mesh.item(0)
    return _on_white(render_rgba(vertices.detach().cpu(), faces.cpu(), cameras, size, light=light))


def render_points(points: Tensor, cameras: Cameras, size: int, radius: int | None = None) -> np.ndarray:
    """Points ``(N, 3)`` as depth-shaded dots, ``(V, size, size, 3)`` uint8 on white."""
    radius = max(1, size // 96) if radius is None else radius
    points = points[points.isfinite().all(-1)]
    if len(points) == 0:
        return np.full((len(cameras), size, size, 3), 255, np.uint8)
    tiles = []
    for v in range(len(cameras)):
        xy, depth = cameras[v].project(points)
        pixel = ((xy + 1) / 2 * size).numpy()
        order = depth.argsort(descending=True).numpy()  # far to near
        shade = ((depth - depth.mean()) / (2 * depth.std(correction=0).clamp_min(1e-6))).clamp(-1, 1).numpy()
        tile = Image.new("RGB", (size, size), "white")
        draw = ImageDraw.Draw(tile)
        for i in order:
            x, y = pixel[i]
            grey = int(120 + 60 * shade[i])
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(grey - 40, grey - 10, grey + 30))
        tiles.append(np.asarray(tile))
    return np.stack(tiles) if tiles else np.zeros((0, size, size, 3), np.uint8)


def image_tile(image: Tensor, size: int) -> np.ndarray:
    """An input image ``(3, H, W)`` in [0, 1] as a ``(size, size, 3)`` uint8 tile."""
    array = (image.detach().cpu().clamp(0, 1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    return np.asarray(Image.fromarray(array).resize((size, size), Image.Resampling.BICUBIC))


def gallery(
    images: Tensor, truth: Mesh | None, shapes: dict[str, Shape], labels: Sequence[str], size: int = 160
) -> Image.Image:
    """A contact sheet: per sample the input, the truth, and each reconstruction, every shape in two views.

    Args:
        images: ``(B, 3, H, W)`` inputs in [0, 1].
        truth: ``B`` true meshes, or None.
        shapes: Reconstructions by column title, each of ``B`` samples.
        labels: ``B`` row captions.
        size: Pixels along a tile.
    """
    cameras = gallery_cameras()
    columns: list[tuple[str, Shape]] = ([("truth", truth)] if truth is not None else []) + list(shapes.items())
    head, width = 22, size * (1 + 2 * len(columns))
    sheet = Image.new("RGB", (width, head + len(images) * size), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((6, 5), "input", fill="black")
    for c, (title, _) in enumerate(columns):
        draw.text((size * (1 + 2 * c) + 6, 5), title, fill="black")
    for row in range(len(images)):
        y = head + row * size
        sheet.paste(Image.fromarray(image_tile(images[row], size)), (0, y))
        for c, (_, shape) in enumerate(columns):
            for v, tile in enumerate(render_shape(shape, row, cameras, size)):
                sheet.paste(Image.fromarray(tile), (size * (1 + 2 * c + v), y))
        draw.text((4, y + size - 14), labels[row][:40], fill=(120, 120, 120))
        draw.line((0, y, width, y), fill=(225, 225, 225))
    return sheet


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    picture.save(aside, format="PNG", optimize=True)
    aside.replace(path)


def _on_white(rgba: np.ndarray | Tensor) -> np.ndarray:
    array = torch.as_tensor(rgba).float().numpy()
    alpha = array[..., 3:] / 255
    return (array[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
