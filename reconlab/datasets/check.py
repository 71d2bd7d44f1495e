"""Verifying a built dataset: structure, checksums, numbers, lists; every problem is named by its path."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from reconlab.cameras import Cameras
from reconlab.datasets import format as files
from reconlab.datasets.decode import FOLDER
from reconlab.datasets.decoded import SUFFIX, Shard, UnusableError
from reconlab.datasets.readers import read_cameras, read_cloud, read_mesh_arrays, read_queries
from reconlab.errors import ReconlabError

SEEN = 0.9
"""The least share of surface points within the silhouettes. Shapes of one frame reach 0.99 and more."""


@dataclass
class CheckReport:
    """What :func:`check` found.

    Attributes:
        root: The dataset.
        shapes: Shapes looked at.
        problems: One sentence each, naming the file.
    """

    root: Path
    shapes: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def summary(self) -> str:
        """The report as text."""
        head = f"{self.root}: {self.shapes} shapes checked, {len(self.problems)} problems."
        return "\n".join([head, *(f"  {p}" for p in self.problems)])


def check(root: Path | str) -> CheckReport:
    """Verify a dataset, this program's or a published archive in the same layout.

    Checksums are verified where a shape has them; files that a published archive does not have are not missed.

    Raises:
        ReconlabError: There is no dataset at ``root``, or its build was not finished.
    """
    root = Path(root)
    report = CheckReport(root)
    for category in files.list_categories(root):
        listed: dict[str, str] = {}
        for split in files.SPLITS:
            path = root / category / f"{split}.lst"
            if not path.exists():
                report.problems.append(f"{path} is missing.")
                continue
            try:
                names = files.read_list(path)
            except ReconlabError as error:
                report.problems.append(str(error))
                continue
            for name in names:
                if name in listed:
                    report.problems.append(
                        f"{path} names {name}, which {listed[name]}.lst of this category names too."
                    )
                listed.setdefault(name, split)
        if not listed:
            report.problems.append(f"{root / category} is empty: its split lists name no shape.")
        for name in sorted(listed):
            report.shapes += 1
            report.problems += check_shape(root / category / name)
        for folder in sorted((root / category).iterdir()):
            ours = (folder / files.CHECKSUMS).exists() and not folder.name.startswith(".")
            if ours and folder.name not in listed:
                report.problems.append(f"{folder} is in no split list.")
    report.problems += list(_decoded(root / FOLDER))
    return report


def _decoded(folder: Path) -> Iterator[str]:
    """Problems of the decoded cache that is kept in a dataset: what its files hold, not whether they are stale."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            damaged = Shard(path, None).damaged()
        except (OSError, UnusableError) as error:
            yield f"{path} {error}: delete it, it will be made again."
        else:
            if damaged:
                yield f"{path}: {damaged[0]} differs from its checksum: delete it, it will be made again."


def check_shape(folder: Path) -> list[str]:
    """Problems of one shape's folder."""
    if not folder.is_dir():
        return [f"{folder} does not exist, but a split list names it."]
    problems = list(_checksums(folder))
    if problems:
        return problems  # what a damaged file holds need not be said twice
    readers = {
        files.POINTCLOUD: _cloud,
        files.POINTS: _queries,
        files.VOXELS: _voxels,
        files.MESH: read_mesh_arrays,
        files.CAMERAS: _cameras,
    }
    for name, read in readers.items():
        if (folder / name).exists():
            try:
                read(folder / name)
            except ReconlabError as error:
                problems.append(str(error))
    if not problems and all((folder / name).exists() for name in (files.POINTCLOUD, files.CAMERAS)):
        share = silhouette_share(folder)
        if share < SEEN:
            problems.append(
                f"{folder / files.POINTCLOUD}: only {share:.0%} of the points project into the silhouettes of "
                f"{folder / files.VIEWS}: points, cameras and pictures are not in one frame."
            )
    return problems


def silhouette_share(folder: Path) -> float:
    """Share of a shape's surface points that project into the silhouettes, a pixel's margin allowed.

    The mean over its views; points outside of a picture do not count. It is near 1 where points, cameras and pictures
    belong together; a shape turned by half a circle or mirrored has less, unless it is symmetric.
    """
    import torch

    points = torch.from_numpy(read_cloud(folder / files.POINTCLOUD)["points"].astype(np.float32))
    rig = read_cameras(folder / files.CAMERAS)
    cameras = Cameras(*(torch.from_numpy(rig[k].astype(np.float32)) for k in ("R", "t", "focal", "centre")))
    shares = []
    for camera, path in zip(cameras.project(points)[0], sorted((folder / files.VIEWS).glob("*.png")), strict=True):
        alpha = torch.from_numpy(files.read_png(path)[..., 3] > 0)
        near = torch.nn.functional.max_pool2d(alpha[None].float(), 3, 1, 1)[0]
        column, row = ((camera + 1) / 2 * torch.tensor(alpha.shape[::-1])).floor().long().T
        inside = (column >= 0) & (row >= 0) & (column < alpha.shape[1]) & (row < alpha.shape[0])
        if inside.any():
            shares.append(float(near[row[inside], column[inside]].mean()))
    return float(np.mean(shares)) if shares else 0.0


def _checksums(folder: Path) -> Iterator[str]:
    path = folder / files.CHECKSUMS
    if not path.exists():
        return
    try:
        sums = dict(json.loads(path.read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        yield f"{path} cannot be read."
        return
    for name, digest in sums.items():
        if not (folder / name).is_file():
            yield f"{folder / name} is missing."
        elif files.sha256((folder / name).read_bytes()) != digest:
            yield f"{folder / name} differs from its checksum: it was changed or damaged."
    for extra in sorted((folder / files.VIEWS).glob("*.png")):
        if f"{files.VIEWS}/{extra.name}" not in sums:
            yield f"{extra} is not among the checksums: it was added later."


def _cloud(path: Path) -> None:
    arrays = read_cloud(path)
    if np.abs(arrays["points"]).max() > 0.6:
        raise ReconlabError(f"{path} has points outside of the unit cube.")
    lengths = np.linalg.norm(arrays.get("normals", np.eye(3)).astype(np.float64), axis=1)
    if not np.allclose(lengths, 1, atol=0.02):
        raise ReconlabError(f"{path} has normals that are not of length 1.")


def _queries(path: Path) -> None:
    read_queries(path)


def _voxels(path: Path) -> None:
    if not files.read_binvox(path).any():
        raise ReconlabError(f"{path} has no occupied voxel.")


def _cameras(path: Path) -> None:
    arrays = read_cameras(path)
    pictures = sorted(path.parent.glob("*.png"))
    if len(pictures) != len(arrays["t"]):
        raise ReconlabError(f"{path} has {len(arrays['t'])} cameras, but {path.parent} has {len(pictures)} pictures.")
    rotations = arrays["R"].astype(np.float64)
    if not np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3), atol=1e-4):
        raise ReconlabError(f"{path} has rotations that are not orthogonal.")
    for picture in pictures:
        if not files.read_png(picture)[..., 3].any():
            raise ReconlabError(f"{picture} is empty: no pixel shows the shape.")
