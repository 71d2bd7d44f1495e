"""The files of one model in the archive of Occupancy Networks: clouds, occupancies, voxels, JPEG pictures, cameras.

Its points are in a frame of their own, ``x_v1 = x * scale + loc``, in which the longest edge of the shape's box is 1;
its cameras are those of ShapeNet v1's frame; its pictures are Choy's on white, without alpha.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from reconlab.camera_converters import from_occnet
from reconlab.cameras import Cameras
from reconlab.datasets import binvox
from reconlab.datasets import format as files
from reconlab.datasets.choy_files import read_views, view_files
from reconlab.datasets.readers import read_cloud, read_queries
from reconlab.datasets.shapenet_frame import FRONTS, Frame, check_agreement
from reconlab.errors import ReconlabError

PARTS = (files.POINTCLOUD, files.POINTS, files.VOXELS, files.ARCHIVE_VIEWS)
"""What an archive can have of a model."""

INK = 224
"""A pixel darker than this in some channel shows the shape; JPEG's ringing on white stays above."""


def model_content(
    folder: Path, parts: tuple[str, ...], renders: Path | None, front: str, views: int | None, resolution: int
) -> dict[str, bytes]:
    """The files of one shape, by path relative to its folder.

    Args:
        folder: ``<archive>/<synset>/<model>``.
        parts: Of :data:`PARTS`, those that the archive has.
        renders: The model's folder in ShapeNetRendering, whose pictures have an alpha channel; None for the
            archive's.
        front: Where the shape shall face, see :data:`~reconlab.datasets.shapenet_frame.FRONTS`.
        views: The first so many; all if None.
        resolution: Of the voxels.

    Raises:
        ReconlabError: A file is missing, damaged or contradicts another one.
    """
    for part in parts:
        if not (folder / part).exists():
            raise ReconlabError(f"{folder / part} is missing.")
    frame, content, box, cloud = Frame(FRONTS[front]), {}, None, None
    if files.POINTCLOUD in parts:
        loc, scale = read_scale(folder / files.POINTCLOUD)
        arrays = read_cloud(folder / files.POINTCLOUD)
        places = arrays["points"].astype(np.float64) * scale + loc
        box = np.stack([places.min(0), places.max(0)])
        size = float(np.linalg.norm(box[1] - box[0]))
        if not size > 0:
            raise ReconlabError(f"{folder / files.POINTCLOUD}: all its points coincide.")
        frame = Frame(frame.turn, box.mean(0), size)
        cloud = frame.points(places)
        content[files.POINTCLOUD] = files.npz_bytes(
            {
                "points": cloud.astype(np.float32),
                **{k: (v @ frame.turn.T).astype(np.float16) for k, v in arrays.items() if k == "normals"},
                "loc": frame.loc,
                "scale": np.asarray(frame.scale),
            }
        )
    if files.POINTS in parts:
        loc, scale = read_scale(folder / files.POINTS)
        asked = read_queries(folder / files.POINTS)
        moved = frame.points(asked["points"].astype(np.float64) * scale + loc)
        content[files.POINTS] = files.npz_bytes(
            {
                "points": moved.astype(np.float32),
                "occupancies": np.packbits(asked["occupancies"]),
                "loc": frame.loc,
                "scale": np.asarray(frame.scale),
            }
        )
    if files.VOXELS in parts:
        grid = binvox.read_grid(folder / files.VOXELS)
        corner, step = binvox.locate(grid, None if box is None else (box - frame.loc) / frame.scale)
        content[files.VOXELS] = files.binvox_bytes(binvox.resample(grid.cells, corner, step, resolution, frame.turn))
    if renders is not None:
        images, rig = read_views(renders / "rendering", views)
        rig = frame.cameras(rig)
    elif files.ARCHIVE_VIEWS in parts and cloud is not None:
        pictures = read_pictures(folder / files.ARCHIVE_VIEWS, views)
        rig = frame.cameras(
            read_cameras(folder / files.ARCHIVE_VIEWS / "cameras.npz", len(pictures), pictures.shape[1])
        )
        images = np.concatenate([pictures, silhouettes(cloud, rig, pictures, folder)[..., None]], -1)
    else:
        return content
    if cloud is not None:
        check_agreement(cloud, rig, images[..., 3], str(folder / files.POINTCLOUD))
    return content | view_files(images, rig)


def read_scale(path: Path) -> tuple[np.ndarray, float]:
    """``loc (3,)`` and ``scale`` of an archive's ``.npz``: ``x * scale + loc`` is in ShapeNet v1's frame.

    Raises:
        ReconlabError: The file is damaged, or they are not usable.
    """
    arrays = files.read_npz(path, "loc", "scale")
    loc, scale = arrays["loc"].astype(np.float64).reshape(-1), arrays["scale"].astype(np.float64).reshape(-1)
    if loc.shape != (3,) or scale.shape != (1,) or not np.isfinite(loc).all() or not 0 < float(scale[0]) < np.inf:
        raise ReconlabError(f"{path}: loc and scale are not three numbers and a positive one.")
    return loc, float(scale[0])


def read_pictures(folder: Path, views: int | None = None) -> np.ndarray:
    """``(V, H, H, 3)`` uint8, the archive's pictures 000.jpg, 001.jpg, ...

    Raises:
        ReconlabError: One is missing, damaged, not square or of another size.
    """
    from PIL import Image

    paths = {int(p.stem): p for p in folder.iterdir() if re.fullmatch(r"\d+\.jpe?g", p.name)}
    numbers = sorted(paths)
    if not numbers or numbers[0] != 0:
        raise ReconlabError(f"{folder / '000.jpg'} is missing.")
    gap = next((a + 1 for a, b in pairwise(numbers) if b != a + 1), None)
    if gap is not None:
        raise ReconlabError(f"{folder / f'{gap:03d}.jpg'} is missing.")
    if views is not None and views > len(numbers):
        raise ReconlabError(f"{folder} has {len(numbers)} pictures, fewer than the {views} views asked for.")
    pictures: list[np.ndarray] = []
    for number in numbers[:views]:
        try:
            with Image.open(paths[number]) as image:
                pictures.append(np.asarray(image.convert("RGB")))
        except Exception as error:  # Pillow raises SyntaxError, OSError, struct.error, ValueError, ...
            raise ReconlabError(f"{paths[number]} is not a readable image ({error}).") from error
        height, width = pictures[-1].shape[:2]
        if height != width or pictures[-1].shape != pictures[0].shape:
            raise ReconlabError(
                f"{paths[number]} has {width} x {height} pixels; expected squares of {len(pictures[0])}."
            )
    return np.stack(pictures)


def read_cameras(path: Path, count: int, size: int) -> Cameras:
    """``(count,)`` cameras in ShapeNet v1's frame of an archive's ``cameras.npz``.

    Args:
        path: The file, ``world_mat_k`` and ``camera_mat_k`` for each picture k.
        count: Pictures.
        size: Their side in pixels.

    Raises:
        ReconlabError: The file is damaged, lacks a picture's matrices, or they are no camera of such pictures.
    """
    names = [f"{kind}_{k}" for k in range(count) for kind in ("world_mat", "camera_mat")]
    arrays = files.read_npz(path, *names)
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise ReconlabError(f"{path}: {name} has values that are not finite numbers.")
        if array.shape not in {"w": ((3, 4), (4, 4)), "c": ((3, 3),)}[name[0]]:
            raise ReconlabError(f"{path}: {name} has shape {array.shape}.")
    world = np.stack([arrays[f"world_mat_{k}"][:3].astype(np.float64) for k in range(count)])
    matrix = np.stack([arrays[f"camera_mat_{k}"].astype(np.float64) for k in range(count)])
    try:
        cameras = from_occnet(torch.from_numpy(world), torch.from_numpy(matrix), size)
    except ReconlabError as error:
        raise ReconlabError(f"{path}: {str(error).removeprefix('from_occnet: ')}") from None
    if float(cameras.centre.abs().max()) > 0.1:
        raise ReconlabError(f"{path}: its camera_mat belong to pictures of another size than {size} pixels.")
    return cameras


def archive_arrays(path: Path) -> dict[str, np.ndarray]:
    """``R``, ``t``, ``focal`` and ``centre`` of an archive's ``cameras.npz``, in the frame of the model's points.

    Raises:
        ReconlabError: Cameras or pictures are missing or damaged, or the shape's loc and scale are.
    """
    from PIL import Image

    pictures = sorted(path.parent.glob("*.jpg"))
    try:
        with Image.open(pictures[0]) as image:
            size = image.width
    except (OSError, IndexError) as error:
        raise ReconlabError(f"{path.parent} has no readable 000.jpg ({error}).") from error
    shape = path.parent.parent
    known = next((shape / f for f in (files.POINTCLOUD, files.POINTS) if (shape / f).exists()), None)
    loc, scale = read_scale(known) if known is not None else (np.zeros(3), 1.0)
    rig = Frame(np.eye(3), loc, scale).cameras(read_cameras(path, len(pictures), size))
    return {k: getattr(rig, k).numpy() for k in ("R", "t", "focal", "centre")}


def silhouettes(cloud: np.ndarray, cameras: Cameras, pictures: np.ndarray, what: Path) -> np.ndarray:
    """``(V, H, H)`` uint8, how much of each pixel the shape covers.

    White parts of a shape cannot be told from the white ground, so a silhouette is where the cloud's points fall,
    pinholes closed. Pixels are cut up to eight times finer, as far as there are three points for each part: with the
    archive's 100000 points, silhouettes of 500 pixels in eighths, of 3000 in thirds.

    Args:
        cloud: ``(N, 3)`` surface points.
        cameras: ``(V,)``.
        pictures: ``(V, H, H, 3)`` uint8.
        what: The model, for the error.

    Raises:
        ReconlabError: A tenth of what the pictures show is where no point projects.
    """
    from scipy.ndimage import binary_closing, binary_dilation

    size = pictures.shape[1]
    xy, depth = cameras.project(torch.from_numpy(cloud.astype(np.float32)))
    places = (xy.numpy() + 1) / 2 * size
    seen = ((places >= 0) & (places < size)).all(-1) & (depth.numpy() > 0)
    out = np.zeros(pictures.shape[:3], np.uint8)
    ink = np.asarray((pictures < INK).any(-1))
    missed = 0
    for k in range(len(pictures)):
        inside = places[k][seen[k]]
        pixels = len(np.unique(inside.astype(np.int64) @ [1, size]))
        fine = int(np.clip(np.sqrt(len(inside) / max(3 * pixels, 1)), 1, 8))
        column, row = np.minimum((inside * fine).astype(np.int64), size * fine - 1).T
        hit = np.zeros((size * fine + 4,) * 2, bool)
        hit[row + 2, column + 2] = True
        closed = np.asarray(binary_closing(hit, np.ones((3, 3))))[2:-2, 2:-2]
        out[k] = np.round(255 * closed.reshape(size, fine, size, fine).mean((1, 3)))
        missed += int((ink[k] & ~np.asarray(binary_dilation(out[k] > 0, np.ones((3, 3))))).sum())
    if not ink.any():
        raise ReconlabError(f"{what / files.ARCHIVE_VIEWS}: its pictures are white.")
    if missed > 0.1 * ink.sum():
        raise ReconlabError(
            f"{what}: {missed / ink.sum():.0%} of what the pictures show lies where no point of {files.POINTCLOUD} "
            "projects: points, cameras and pictures are not in one frame."
        )
    return out
