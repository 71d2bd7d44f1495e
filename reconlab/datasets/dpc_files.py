"""The files of one model in DPC's layout: renders, cameras and true points, verified."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reconlab.camera_converters import from_blender, from_dpc
from reconlab.cameras import DPC_FOCAL, Cameras
from reconlab.datasets import format as files
from reconlab.errors import ReconlabError

AGREE = 2e-3
"""By how much a camera's position and its extrinsic matrix may disagree: entries of the rotation, and lengths.
Blender's single precision gives 1e-6; another convention, or a camera with roll, gives 0.1 and more."""

REACH = 0.6
"""The largest coordinate of a true point, as in ``reconlab data check``: the unit cube, and some air."""


def model_content(folder: Path, cloud: Path | None, views: int | None) -> dict[str, bytes]:
    """The files of one shape, by path relative to its folder.

    Args:
        folder: Of the renders and cameras.
        cloud: The ``.mat`` of true points; None if there is none.
        views: The first so many; all if None.

    Raises:
        ReconlabError: A file is missing, damaged or contradicts another one.
    """
    pictures, mats = _numbered(folder, "render", "png"), _numbered(folder, "camera", "mat")
    if not pictures:
        raise ReconlabError(f"{folder} has no render_0.png.")
    numbers = sorted(pictures)[:views]
    if views is not None and len(numbers) < views:
        raise ReconlabError(f"{folder} has {len(numbers)} renders, fewer than the {views} views asked for.")
    gap = next((a + 1 for a, b in pairwise(numbers) if b != a + 1), None)
    if gap is not None:
        raise ReconlabError(f"{folder / f'render_{gap}.png'} is missing.")
    if views is None and (extra := sorted(mats.keys() - pictures.keys())):
        raise ReconlabError(f"{folder / f'render_{extra[0]}.png'} is missing: there is a camera of that number.")
    images, cameras = [], []
    for k in numbers:
        if k not in mats:
            raise ReconlabError(f"{folder / f'camera_{k}.mat'} is missing.")
        images.append(read_render(pictures[k]))
        cameras.append(read_camera(mats[k]))
        if images[-1].shape != images[0].shape:
            raise ReconlabError(
                f"{pictures[k]} has {images[-1].shape[0]} pixels a side, {pictures[numbers[0]].name} has "
                f"{images[0].shape[0]}."
            )
    rig = Cameras.stack(cameras)
    out = {
        files.CAMERAS: files.npz_bytes(
            {k: getattr(rig, k).numpy().astype(np.float32) for k in ("R", "t", "focal", "centre")}
        )
    }
    out |= {f"{files.VIEWS}/{i:03d}.png": files.png_bytes(image) for i, image in enumerate(images)}
    if cloud is not None:
        frame = {"loc": np.zeros(3), "scale": np.asarray(1.0)}
        out[files.POINTCLOUD] = files.npz_bytes({"points": read_points(cloud).astype(np.float32), **frame})
    return out


def _numbered(folder: Path, stem: str, suffix: str) -> dict[int, Path]:
    found = {p: re.fullmatch(rf"{stem}_(\d+)\.{suffix}", p.name) for p in sorted(folder.iterdir())}
    return {int(match[1]): path for path, match in found.items() if match}


def read_render(path: Path) -> np.ndarray:
    """``(H, H, 4)`` uint8 RGBA, straight alpha, of a render.

    Raises:
        ReconlabError: The file is damaged, not square, or its alpha channel is absent or shows no outline.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            alpha = "A" in image.getbands() or "transparency" in image.info
            pixels = np.asarray(image.convert("RGBA"))
    except Exception as error:  # Pillow raises SyntaxError, OSError, struct.error, ValueError, ...
        raise ReconlabError(f"{path} is not a readable image ({error}).") from error
    if pixels.shape[0] != pixels.shape[1]:
        raise ReconlabError(f"{path} has {pixels.shape[1]} x {pixels.shape[0]} pixels; expected a square.")
    if not alpha:
        raise ReconlabError(f"{path} has no alpha channel, and the silhouette is taken from it.")
    if not pixels[..., 3].any():
        raise ReconlabError(f"{path} is empty: no pixel shows the shape.")
    if pixels[..., 3].all():
        raise ReconlabError(f"{path} has no background: no pixel's alpha is 0.")
    return pixels


def read_camera(path: Path) -> Cameras:
    """One camera from ``camera_k.mat``.

    ``pos`` says where it stands in Blender's world; it looks at the origin without roll (the path that DPC takes,
    which takes the distance to be 2 and the focal length 1.875 widths; here both are the file's). ``extrinsic``, from
    Blender's world to the camera (x right, y down, z forward), must say the same. ``K`` gives the focal length,
    which is DPC's if ``K`` is absent.

    Raises:
        ReconlabError: The file is damaged, lacks a key, or contradicts itself.
    """
    mat = read_mat(path, "pos", "extrinsic")
    position = _array(path, mat, "pos").reshape(-1)
    extrinsic = _array(path, mat, "extrinsic")
    if position.shape != (3,):
        raise ReconlabError(f"{path}: pos has {position.size} numbers, expected 3.")
    if extrinsic.shape not in ((4, 4), (3, 4)):
        raise ReconlabError(f"{path}: extrinsic has shape {extrinsic.shape}, expected (4, 4).")
    if not np.linalg.norm(position) > 1e-3:
        raise ReconlabError(f"{path}: pos is the origin, which is what the camera looks at.")
    focal = torch.tensor([DPC_FOCAL, DPC_FOCAL]) if "K" not in mat else _focal(path, _array(path, mat, "K"))
    stated = from_dpc(torch.from_numpy(position), distance=None)
    rotation, shift = extrinsic[:3, :3], extrinsic[:3, 3]
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=AGREE) or np.linalg.det(rotation) < 0:
        raise ReconlabError(f"{path}: the left 3x3 part of extrinsic is not a rotation.")
    world = np.eye(4)
    world[:3, :3] = rotation.T * [1, -1, -1]  # Blender's camera has y up and looks along -z
    world[:3, 3] = -rotation.T @ shift
    exact = from_blender(torch.from_numpy(world).float(), focal)
    turned = float((stated.R - exact.R).abs().max())
    moved = float((stated.t - exact.t).abs().max()) / max(1.0, float(np.linalg.norm(position)))
    if max(turned, moved) > AGREE:
        raise ReconlabError(
            f"{path}: pos and extrinsic are different cameras (rotations differ by {turned:.2g}, positions by "
            f"{moved:.2g})."
        )
    return Cameras(stated.R, stated.t, focal.to(stated.t), torch.zeros_like(stated.centre))


def _focal(path: Path, matrix: np.ndarray) -> torch.Tensor:
    """``(2,)`` half-widths; the principal point of ``K`` is the image's middle, whatever size it was rendered at."""
    middle = matrix[:2, 2] if matrix.shape == (3, 3) else np.zeros(2)
    if not (middle > 0).all() or not (np.diag(matrix)[:2] > 0).all() or abs(matrix[0, 1]) > AGREE * matrix[0, 0]:
        raise ReconlabError(f"{path}: K is no calibration matrix [[f, 0, u], [0, f, v], [0, 0, 1]].")
    return torch.from_numpy((np.diag(matrix)[:2] / middle).astype(np.float32))


def read_points(path: Path) -> np.ndarray:
    """``(N, 3)`` float64 true points of a ground-truth ``.mat``, object frame.

    Raises:
        ReconlabError: The file is damaged, lacks ``points``, or they are not points within the unit cube.
    """
    points = _array(path, read_mat(path, "points"), "points")
    if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
        raise ReconlabError(f"{path}: points has shape {points.shape}, expected (N, 3).")
    if np.abs(points).max() > REACH:
        raise ReconlabError(
            f"{path} has points as far out as {np.abs(points).max():.3g}: the unit cube [-0.5, 0.5] was expected."
        )
    return points


def read_mat(path: Path, *names: str) -> dict[str, Any]:
    """The variables of a MATLAB file up to version 7.

    Raises:
        ReconlabError: The file is missing, damaged, of version 7.3 (HDF5), or lacks one of ``names``.
    """
    from scipy.io import loadmat

    try:
        found = loadmat(path, appendmat=False)
    except NotImplementedError as error:
        raise ReconlabError(
            f"{path} is a MATLAB 7.3 (HDF5) file: save it with -v7, or with scipy.io.savemat."
        ) from error
    except Exception as error:  # MatReadError, ValueError, TypeError, OSError, zlib.error, KeyError, ...
        raise ReconlabError(f"{path} is not a readable MATLAB file ({error}).") from error
    found = {k: v for k, v in found.items() if not k.startswith("__")}
    for name in names:
        if name not in found:
            raise ReconlabError(f"{path} has no key {name!r} (it has {', '.join(sorted(found)) or 'none'}).")
    return found


def _array(path: Path, mat: dict[str, Any], name: str) -> np.ndarray:
    value = np.asarray(mat[name])
    if value.dtype.kind not in "fiu":
        raise ReconlabError(f"{path}: {name} holds {value.dtype} rather than numbers.")
    if not np.isfinite(value).all():
        raise ReconlabError(f"{path}: {name} has numbers that are not finite.")
    return value.astype(np.float64)
