"""Adapter for the archive of Occupancy Networks: the object frame, pictures with alpha, our cameras.

``<root>/<synset>/<model>/`` holds ``pointcloud.npz``, ``points.npz``, ``model.binvox``,
``img_choy2016/{000..023}.jpg`` and ``img_choy2016/cameras.npz``; ``<root>/<synset>/{train,val,test}.lst`` the splits.
(It also loads as it is; see docs/data.md.)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from reconlab.datasets import format as files
from reconlab.datasets.builder import BuildReport, check_numbers
from reconlab.datasets.choy_files import view_inputs
from reconlab.datasets.occnet_files import PARTS, model_content
from reconlab.datasets.shapenet_layout import check_front
from reconlab.datasets.shapenet_lists import HOLD_OUT, build_models, choose
from reconlab.errors import ReconlabError


def build_occnet(
    input: Path | str,
    out: Path | str,
    *,
    renders: Path | str | None = None,
    splits: Path | str | None = None,
    categories: Sequence[str] | None = None,
    category_names: str = "synset",
    front: str = "+x",
    hold_out: float = HOLD_OUT,
    views: int | None = None,
    resolution: int = 32,
    workers: int = 1,
    force: bool = False,
    progress: bool = True,
) -> BuildReport:
    """Convert an archive of Occupancy Networks into a dataset that ``ReconstructionData`` reads.

    What some model of it has (surface points, occupancies, voxels, pictures) every model must have.

    Args:
        input: The archive.
        out: The dataset's folder.
        renders: ShapeNetRendering, whose pictures are the archive's before they lost their alpha channel. Without it
            the silhouettes are where the surface points project.
        splits: Split lists; the archive's own if None.
        categories: Synsets, or their readable names; all if None.
        category_names: ``synset`` keeps 02691156; ``word`` calls it airplane.
        front: ``+x``, ShapeNet v1's axes; or ``-z``, those of the procedural shapes.
        hold_out: Part of the training ids that validates if no list does.
        views: The first so many pictures of each model; all 24 if None.
        resolution: Of the voxels; the archive's have 32 cells on the shape's longest edge.
        workers: Processes.
        force: Replace a build that has other settings.
        progress: Show a progress bar on the terminal.

    Raises:
        ReconlabError: A folder, list or category is missing, a setting is impossible, or no model can be used.
    """
    check_front(front)
    check_numbers(0, workers)
    for name, value in {"views": 1 if views is None else views, "resolution": resolution}.items():
        if value < 1:
            raise ReconlabError(f"{name} is {value}: choose at least 1.")
    root, pictures = Path(input), Path(renders) if renders is not None else None
    if pictures is not None and not pictures.is_dir():
        raise ReconlabError(f"The folder of renders {pictures} does not exist.")
    choice = choose(root, splits if splits is not None else root, categories, hold_out=hold_out)
    models = [root / c / n for c, lists in choice.ids.items() for names in lists.values() for n in names]
    wanted = PARTS[:-1] if pictures is not None else PARTS
    parts = tuple(p for p in wanted if any((m / p).exists() for m in models))
    if not parts:
        raise ReconlabError(f"No model of {root} has {', '.join(PARTS[:-1])} or {PARTS[-1]}.")
    if parts[-1] == files.ARCHIVE_VIEWS and files.POINTCLOUD not in parts:
        choice.notes.append(
            f"The pictures were left out: they have no alpha channel, and without {files.POINTCLOUD} nothing says "
            "where the shape is. Give ShapeNetRendering as --renders."
        )
        parts = parts[:-1]
    settings = {"source": "occnet", "front": front, "parts": list(parts), "renders": pictures is not None}
    settings |= {"views": views, "resolution": resolution}

    def inputs(synset: str, name: str) -> list[Path]:
        folder = root / synset / name
        found = [folder / p for p in parts if (folder / p).is_file()]
        if files.ARCHIVE_VIEWS in parts and (folder / files.ARCHIVE_VIEWS).is_dir():
            found += sorted(
                p for p in (folder / files.ARCHIVE_VIEWS).iterdir() if p.suffix in (".jpg", ".jpeg", ".npz")
            )
        return found + (view_inputs(pictures / synset / name / "rendering") if pictures is not None else [])

    def make(synset: str, name: str) -> partial[dict[str, bytes]]:
        own = pictures / synset / name if pictures is not None else None
        return partial(model_content, root / synset / name, parts, own, front, views, resolution)

    return build_models(
        Path(out),
        choice,
        settings,
        inputs,
        make,
        category_names=category_names,
        workers=workers,
        force=force,
        progress=progress,
    )
