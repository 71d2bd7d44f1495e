"""True shapes and input images of a run's samples, from the data that its ``config.yaml`` names."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from reconlab.errors import ReconlabError
from reconlab.report.html_runs import Run

IMAGE_SIZE = 160
"""Side of the embedded input images in pixels, at most."""

Arrays = tuple[np.ndarray, np.ndarray | None]


class Source(Protocol):
    """Where truths and inputs come from."""

    def truth(self, category: str, name: str) -> Arrays:
        """Vertices ``(V, 3)`` and faces ``(F, 3)``, or None for a cloud, in the frame of the predictions.

        Raises:
            ReconlabError: It is not there or damaged.
        """

    def image(self, category: str, name: str, view: int) -> bytes | None:
        """A PNG of the input on white; None if there is none."""

    def direction(self, category: str, name: str, view: int) -> tuple[float, float] | None:
        """Azimuth (from +z towards +x) and elevation of the input's camera in degrees; None if not known."""


@dataclass
class Dataset:
    """A built dataset.

    Attributes:
        root: Its folder.
    """

    root: Path

    def _folder(self, category: str, name: str) -> Path:
        folder = self.root / category / name
        if not folder.resolve().is_relative_to(self.root.resolve()) or not folder.is_dir():
            raise ReconlabError(f"{self.root} has no shape {category}/{name}")
        return folder

    def truth(self, category: str, name: str) -> Arrays:
        """The mesh, else the surface points."""
        from reconlab.datasets import format as files
        from reconlab.datasets.samples import read_cloud, read_mesh_arrays

        folder = self._folder(category, name)
        if (folder / files.MESH).exists():
            mesh = read_mesh_arrays(folder / files.MESH)
            return mesh["vertices"], mesh["faces"]
        return read_cloud(folder / files.POINTCLOUD)["points"], None

    def image(self, category: str, name: str, view: int) -> bytes | None:
        """The picture of that view."""
        from PIL import Image

        from reconlab.datasets import format as files

        folder, suffix = files.views_of(self._folder(category, name))
        path = folder / f"{view:03d}.{suffix}"
        if not path.is_file():
            return None
        rgba = Image.fromarray(files.read_png(path))
        white = Image.new("RGBA", rgba.size, "white")
        white.alpha_composite(rgba)
        picture = white.convert("RGB")
        picture.thumbnail((IMAGE_SIZE, IMAGE_SIZE))
        out = io.BytesIO()
        picture.save(out, "PNG", optimize=True)
        return out.getvalue()

    def direction(self, category: str, name: str, view: int) -> tuple[float, float] | None:
        """From the camera's centre, ``-Rᵀ t``."""
        from reconlab.datasets import format as files
        from reconlab.datasets.samples import read_cameras

        try:
            rig = read_cameras(files.located(self._folder(category, name), files.CAMERAS))
            x, y, z = (-rig["R"][view].T @ rig["t"][view]).tolist()
        except (ReconlabError, IndexError, KeyError, ValueError):
            return None
        distance = math.sqrt(x * x + y * y + z * z)
        if not distance > 0:
            return None
        return math.degrees(math.atan2(x, z)), math.degrees(math.asin(y / distance))


@dataclass
class Files:
    """The ground-truth files of ``reconlab evaluate``, brought into the frame of comparison as it did.

    Attributes:
        files: By category and id.
        normalize: As ``--normalize``.
    """

    files: dict[tuple[str, str], Path]
    normalize: str

    def truth(self, category: str, name: str) -> Arrays:
        """The file in the frame ``(x - loc) / scale``."""
        from reconlab.lab.evaluate_files import frame, read_raw

        if (category, name) not in self.files:
            raise ReconlabError(f"there is no true file of {category}/{name}")
        raw = read_raw(self.files[category, name])
        loc, scale = frame(raw, self.normalize)
        return (raw.vertices - loc) / scale, raw.faces

    def image(self, category: str, name: str, view: int) -> bytes | None:
        """None: an evaluation of meshes has no images."""

    def direction(self, category: str, name: str, view: int) -> tuple[float, float] | None:
        """None."""


@dataclass
class Missing:
    """No data; every truth is missing for the same reason."""

    reason: str

    def truth(self, category: str, name: str) -> Arrays:
        """Raises the reason."""
        raise ReconlabError(self.reason)

    def image(self, category: str, name: str, view: int) -> bytes | None:
        """None."""

    def direction(self, category: str, name: str, view: int) -> tuple[float, float] | None:
        """None."""


def source_of(run: Run, root: Path | None = None) -> Source:
    """Where a run's truths and inputs are: ``root`` if given, else what its config names, near the run or near here.

    Raises:
        ReconlabError: ``root`` was given and is no built dataset.
    """
    from reconlab.lab.evaluate_pairs import is_dataset

    if root is not None:
        if not is_dataset(root):
            raise ReconlabError(f"--root {root} is no built dataset (category folders with split lists).")
        return Dataset(root)
    evaluated = run.config.get("evaluate")
    if isinstance(evaluated, dict):
        return _evaluated(evaluated)
    data = run.config.get("data")
    named = data.get("root") if isinstance(data, dict) else None
    if not isinstance(named, str) or not named:
        return Missing("config.yaml does not name the data (data.root): say --root DATA")
    for base in (*run.path.absolute().parents, Path()):  # another project's data here may have the same name
        if is_dataset(base / named):
            return Dataset(base / named)
    return Missing(f"the data {named} are not here: say --root DATA to show inputs and truths")


def _evaluated(settings: dict[str, Any]) -> Source:
    from reconlab.lab.evaluate_pairs import find_pairs, is_dataset, read_pairs

    try:
        truth = settings.get("gt")
        if isinstance(truth, str) and is_dataset(Path(truth)):
            return Dataset(Path(truth))
        if settings.get("pairs"):
            found = read_pairs(Path(settings["pairs"]))
        else:
            split, suffix = str(settings.get("split") or "test"), settings.get("suffix")
            found = find_pairs(Path(str(settings.get("pred"))), Path(str(truth)), split, suffix)
    except ReconlabError as error:
        return Missing(f"the ground truth of this evaluation cannot be read: {str(error).rstrip('.')}")
    files = {(p.category, p.id): p.truth for p in found.pairs if not p.truth_problem}
    return Files(files, str(settings.get("normalize") or "gt-box"))
