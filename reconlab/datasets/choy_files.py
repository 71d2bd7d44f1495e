"""The files of one model as Choy et al. (3D-R2N2) published them: renders and their cameras, voxels; verified."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from reconlab.camera_converters import from_choy
from reconlab.cameras import Cameras
from reconlab.datasets import binvox
from reconlab.datasets import format as files
from reconlab.datasets.content import Sizes, sample_surface, shape_content, shape_rng
from reconlab.datasets.dpc_files import read_render
from reconlab.datasets.meshes import RawMesh, normalization
from reconlab.datasets.shapenet_frame import FRONTS, Frame, check_agreement
from reconlab.datasets.shapenet_layout import V1, find_model, read_model
from reconlab.errors import ReconlabError

METADATA, NAMES = "rendering_metadata.txt", "renderings.txt"
DENSE = 20000
"""Points on a mesh that are compared with its silhouettes."""
VOXEL_NAMES = ("model.presolid.binvox", "model.binvox")
"""The filled grid first: ShapeNet's own v1 archive has it beside one of the surface alone."""


def model_content(
    folder: Path,
    voxels: Path | None,
    mesh: Path | None,
    front: str,
    views: int | None,
    sizes: Sizes,
    seed: int,
) -> dict[str, bytes]:
    """The files of one shape, by path relative to its folder.

    Args:
        folder: ``<ShapeNetRendering>/<synset>/<model>``.
        voxels: ``<ShapeNetVox32>/<synset>/<model>``; None to take the voxels of the mesh, or none.
        mesh: ``<ShapeNetCore>/<synset>/<model>``; None for no mesh, surface points and occupancies.
        front: Where the shape shall face, see :data:`~reconlab.datasets.shapenet_frame.FRONTS`.
        views: The first so many; all if None.
        sizes: Points, queries and resolution of what is made.
        seed: Of samples.

    Raises:
        ReconlabError: A file is missing, damaged or contradicts another one.
    """
    images, rig = read_views(folder / "rendering", views)
    turn = FRONTS[front]
    frame, content, what, radius = Frame(turn), {}, folder, 0.0
    box = truth = None
    if mesh is not None:
        raw, what = read_model(mesh), find_model(mesh)
        loc, scale = normalization(raw.vertices, raw.faces)
        # v1's own frame is the cameras'; v2's origin is another one, so its box is put where v1's is.
        frame = Frame(turn, loc, scale) if what.name == V1 else frame
        few = replace(sizes, views=1, image_size=8)
        content = shape_content(RawMesh(raw.vertices @ turn.T, raw.faces), few, shape_rng(seed, *mesh.parts[-2:]))
        content = {k: v for k, v in content.items() if not k.startswith(files.VIEWS)}
        used = (raw.vertices[np.unique(raw.faces)] - loc) / scale
        box = np.stack([used.min(0), used.max(0)])
        dense = sample_surface(raw.vertices, raw.faces, DENSE, np.random.default_rng(0))[0]
        truth = (dense - loc) / scale @ turn.T
    if voxels is not None:
        path = find_voxels(voxels)
        grid = binvox.read_grid(path)
        corner, step = binvox.locate(grid, box)
        cells = binvox.resample(grid.cells, corner, step, sizes.resolution, turn)
        content[files.VOXELS] = files.binvox_bytes(cells)
        if truth is None:
            truth = binvox.centres(cells, np.full(3, -0.5), np.full(3, 1 / sizes.resolution))
            radius, what = 0.9 / sizes.resolution, path
    rig = frame.cameras(rig)
    if truth is not None:
        check_agreement(truth, rig, images[..., 3], str(what), radius)
    return content | view_files(images, rig)


def view_files(images: np.ndarray, rig: Cameras) -> dict[str, bytes]:
    """Pictures ``(V, H, W, 4)`` and cameras ``(V,)`` as files of a built dataset."""
    arrays = {k: getattr(rig, k).numpy().astype(np.float32) for k in ("R", "t", "focal", "centre")}
    out = {files.CAMERAS: files.npz_bytes(arrays)}
    return out | {f"{files.VIEWS}/{i:03d}.png": files.png_bytes(image) for i, image in enumerate(images)}


def view_inputs(folder: Path) -> list[Path]:
    """Files of a ``rendering`` folder that decide its views.

    Raises:
        ReconlabError: There is no such folder.
    """
    if not folder.is_dir():
        raise ReconlabError(f"{folder} is missing.")
    own = [p for p in sorted(folder.iterdir()) if p.suffix == ".png" or p.name in (METADATA, NAMES)]
    return own


def find_voxels(folder: Path) -> Path:
    """The grid of a model's folder.

    Raises:
        ReconlabError: It has none.
    """
    for name in VOXEL_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise ReconlabError(f"{folder / VOXEL_NAMES[-1]} is missing.")


def read_views(folder: Path, views: int | None = None) -> tuple[np.ndarray, Cameras]:
    """Pictures ``(V, H, W, 4)`` uint8 (straight alpha) and cameras ``(V,)`` in ShapeNet v1's frame.

    ``renderings.txt`` names the pictures in the order of the lines of ``rendering_metadata.txt``; without it they are
    00.png, 01.png, ...

    Args:
        folder: ``rendering``.
        views: The first so many; all if None.

    Raises:
        ReconlabError: A file is missing or damaged, or their numbers differ.
    """
    rows = read_metadata(folder / METADATA)
    there = sorted(p.name for p in folder.iterdir() if re.fullmatch(r"\d+\.png", p.name))
    names = (
        files.read_list(folder / NAMES) if (folder / NAMES).exists() else [f"{k:02d}.png" for k in range(len(rows))]
    )
    if not there:
        raise ReconlabError(f"{folder} has no 00.png.")
    if len(rows) < max(len(names), len(there)):
        raise ReconlabError(f"{folder / METADATA} has {len(rows)} lines for {max(len(names), len(there))} pictures.")
    if len(names) < len(rows):
        raise ReconlabError(f"{folder / NAMES} names {len(names)} pictures, but {METADATA} has {len(rows)} lines.")
    if views is not None and views > len(names):
        raise ReconlabError(f"{folder} has {len(names)} pictures, fewer than the {views} views asked for.")
    images = []
    for name in names[:views]:
        if Path(name).name != name or not (folder / name).is_file():
            raise ReconlabError(f"{folder / name} is missing.")
        images.append(read_render(folder / name))
        if images[-1].shape != images[0].shape:
            raise ReconlabError(
                f"{folder / name} has {len(images[-1])} pixels a side, {names[0]} has {len(images[0])}."
            )
    numbers = torch.from_numpy(rows[:views])
    rig = from_choy(numbers[:, 0], numbers[:, 1], numbers[:, 3], in_plane=numbers[:, 2])
    return np.stack(images), rig


def read_metadata(path: Path) -> np.ndarray:
    """``(V, 5)`` float64 of ``rendering_metadata.txt``.

    Azimuth, elevation and in-plane rotation in degrees, distance in units of 1.75, field of view. The last (25 in the
    published files) is not read by the renderer, whose lens is 35 mm on a 32 mm sensor.

    Raises:
        ReconlabError: The file is missing or a line is not five usable numbers.
    """
    if not path.is_file():
        raise ReconlabError(f"{path} is missing.")
    rows = []
    for number, line in enumerate(files.read_list(path), 1):
        try:
            row = [float(w) for w in line.split()]
        except ValueError:
            raise ReconlabError(f"{path}, line {number}: {line[:60]!r} is not five numbers.") from None
        if len(row) != 5:
            raise ReconlabError(f"{path}, line {number}: it has {len(row)} numbers, expected 5.")
        if not all(math.isfinite(v) for v in row):
            raise ReconlabError(f"{path}, line {number}: it has a number that is not finite.")
        if not row[3] > 0 or abs(row[1]) > 90:
            raise ReconlabError(
                f"{path}, line {number}: distance {row[3]:g} and elevation {row[1]:g} are no place of a camera."
            )
        rows.append(row)
    if not rows:
        raise ReconlabError(f"{path} has no line.")
    return np.array(rows)
