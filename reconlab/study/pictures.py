"""The pictures of a study: the input, and shapes seen from the input's camera and from turned ones."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from reconlab.cameras import Cameras
from reconlab.datasets import format as files
from reconlab.datasets.samples import read_cameras, read_mesh_arrays
from reconlab.errors import ReconlabError
from reconlab.lab.evaluate_files import read_raw
from reconlab.lab.pictures import render_shape
from reconlab.renderers.shading import Light
from reconlab.shapes import Mesh, PointCloud, Shape

TURN = (45.0, 60.0)  # degrees between the input's view and a further one
NOISE = 0.12  # of the box's diagonal: nothing of the shape is left
QUALITY = 88


def input_picture(folder: Path, view: int, size: int) -> bytes:
    """The picture that the network was given, on white, as JPEG of at most ``size`` pixels a side.

    Args:
        folder: The shape's folder in the dataset.
        view: Number of the picture.
        size: Largest side.

    Raises:
        ReconlabError: The picture is missing or damaged.
    """
    pictures, suffix = files.views_of(folder)
    rgba = files.read_png(pictures / f"{view:03d}.{suffix}").astype(np.float32)
    alpha = rgba[..., 3:] / 255
    white = (rgba[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
    image = Image.fromarray(white)
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    return jpeg(image)


def cameras_of(folder: Path, view: int, turns: Sequence[float]) -> Cameras:
    """The input's camera, and it moved around the shape's vertical axis by each further angle.

    Args:
        folder: The shape's folder in the dataset.
        view: Number of the picture.
        turns: Degrees; 0 is the input's view.

    Returns:
        As many cameras as ``turns``.

    Raises:
        ReconlabError: The dataset does not know the picture's camera.
    """
    path = files.located(folder, files.CAMERAS)
    rig = read_cameras(path)
    if view >= len(rig["t"]):
        raise ReconlabError(f"{path} has {len(rig['t'])} cameras, but the network was given picture {view}.")
    R, t, focal, centre = (
        torch.from_numpy(np.asarray(rig[k][view], np.float32)) for k in ("R", "t", "focal", "centre")
    )
    turned = []
    for degrees in turns:
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        turned.append(R @ torch.tensor([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]]))
    n = len(turned)
    return Cameras(torch.stack(turned), t.expand(n, 3), focal.expand(n, 2), centre.expand(n, 2))


def read_shape(path: Path) -> Shape:
    """A reconstruction: a mesh, or points where the file has no faces.

    Raises:
        ReconlabError: The file is missing, damaged, empty or not finite.
    """
    raw = read_raw(path)
    vertices = torch.from_numpy(raw.vertices.astype(np.float32))
    return PointCloud(vertices[None]) if raw.faces is None else Mesh(vertices, torch.from_numpy(raw.faces))


def true_shape(folder: Path) -> Mesh | None:
    """The true mesh of a shape's folder, None if the dataset has none."""
    if not (folder / files.MESH).is_file():
        return None
    arrays = read_mesh_arrays(folder / files.MESH)
    return Mesh(torch.from_numpy(arrays["vertices"].astype(np.float32)), torch.from_numpy(arrays["faces"]).long())


def crumpled(shape: Shape, rng: np.random.Generator) -> Shape:
    """A shape whose vertices (or points) are thrown about, so that nothing of it can be recognised."""

    def thrown(points: torch.Tensor) -> torch.Tensor:
        return points + torch.from_numpy(rng.normal(0, NOISE, tuple(points.shape)).astype(np.float32))

    if isinstance(shape, PointCloud):
        return PointCloud(thrown(shape.points()))
    vertices, faces = shape.mesh().item(0)
    corners = vertices[faces]  # each triangle for itself: moved corners alone leave large flat parts whole
    centres = corners.mean(1, keepdim=True)
    bits = (corners - centres).clamp(-0.1, 0.1) + 0.3 * thrown(torch.zeros(len(faces), 3, 3))
    heap = 0.6 * (centres + thrown(torch.zeros(len(faces), 1, 3))) + 0.7 * bits  # smaller, so that it stays in view
    return Mesh(heap.reshape(-1, 3), torch.arange(3 * len(faces)).reshape(-1, 3))


def shape_pictures(shape: Shape, cameras: Cameras, size: int) -> list[bytes]:
    """One JPEG a camera, on white, lit from over the viewer's shoulder.

    The inputs' own light is fixed to the object and leaves whole sides in even shade, where no surface can be judged.

    Raises:
        ReconlabError: No camera sees anything of the shape.
    """
    each = [cameras[i : i + 1] for i in range(len(cameras))]
    tiles = np.concatenate([render_shape(shape, 0, camera, size, shoulder_light(camera)) for camera in each])
    if bool((tiles == 255).all()):
        raise ReconlabError("nothing of the shape is in view")
    return [jpeg(Image.fromarray(tile)) for tile in tiles]


def shoulder_light(camera: Cameras) -> Light:
    """A light above and to the left of one camera, which shades everything that it sees."""
    eye = camera.position[0] / camera.position[0].norm()
    left, up = -camera.R[0, 0], -camera.R[0, 1]  # the camera's x points right, its y down
    return Light(tuple((eye + 0.45 * left + 0.6 * up).tolist()), ambient=0.25, diffuse=0.75)


def jpeg(image: Image.Image) -> bytes:
    """The picture's bytes, without any further content."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY, optimize=True)
    return out.getvalue()
