"""Adapter for the data of Choy et al. (3D-R2N2), on which most of DR-KFS' networks were published.

``<ShapeNetRendering>/<synset>/<model>/rendering/{00..23}.png``, ``rendering_metadata.txt`` and ``renderings.txt``;
``<ShapeNetVox32>/<synset>/<model>/model.binvox``; and ShapeNetCore's meshes, v1 or v2, for everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from reconlab.datasets.builder import BuildReport, check_numbers
from reconlab.datasets.choy_files import find_voxels, model_content, view_inputs
from reconlab.datasets.content import Sizes
from reconlab.datasets.shapenet_layout import check_front, find_model
from reconlab.datasets.shapenet_lists import HOLD_OUT, SHARE, build_models, choose
from reconlab.errors import ReconlabError


def build_choy(
    input: Path | str,
    out: Path | str,
    *,
    voxels: Path | str | None = None,
    meshes: Path | str | None = None,
    splits: Path | str | None = None,
    categories: Sequence[str] | None = None,
    category_names: str = "synset",
    front: str = "+x",
    share: float = SHARE,
    hold_out: float = HOLD_OUT,
    views: int | None = None,
    seed: int = 0,
    sizes: Sizes | None = None,
    workers: int = 1,
    force: bool = False,
    progress: bool = True,
) -> BuildReport:
    """Convert a tree of ShapeNetRendering into a dataset that ``ReconstructionData`` reads.

    Args:
        input: The renders, ``<synset>/<model>/rendering/``.
        out: The dataset's folder.
        voxels: ShapeNetVox32, or another tree ``<synset>/<model>/model.binvox`` of any resolution. If given, every
            model must have its grid; else voxels are those of the meshes.
        meshes: ShapeNetCore v1 or v2. If given, every model must have its mesh; without it a shape has no surface
            points, occupancies and mesh.
        splits: Split lists; see :func:`~reconlab.datasets.shapenet_lists.choose`.
        categories: Synsets, or their readable names; all if None.
        category_names: ``synset`` keeps 02691156; ``word`` calls it airplane.
        front: ``+x``, ShapeNet v1's axes; or ``-z``, those of the procedural shapes.
        share: Of training among the sorted ids, without ``splits``.
        hold_out: Part of the training ids that validates if no list does.
        views: The first so many pictures of each model; all 24 if None.
        seed: Of the samples on meshes.
        sizes: Points, queries and resolution; its pictures are not used.
        workers: Processes.
        force: Replace a build that has other settings.
        progress: Show a progress bar on the terminal.

    Raises:
        ReconlabError: A folder, list or category is missing, a setting is impossible, or no model can be used.
    """
    check_front(front)
    check_numbers(seed, workers)
    if views is not None and views < 1:
        raise ReconlabError(f"views is {views}: choose at least 1 picture per shape.")
    sizes = sizes or Sizes()
    renders, grids, models = Path(input), *(Path(p) if p is not None else None for p in (voxels, meshes))
    for folder, what in ((renders, "folder of renders"), (grids, "folder of voxels"), (models, "folder of meshes")):
        if folder is not None and not folder.is_dir():
            raise ReconlabError(f"The {what} {folder} does not exist.")
    settings = {
        "source": "choy",
        "front": front,
        "voxels": grids is not None,
        "meshes": models is not None,
        "seed": seed,
        **{k: v for k, v in asdict(sizes).items() if k in ("points", "queries", "resolution")},
        "views": views,
    }

    def inputs(synset: str, name: str) -> list[Path]:
        own = view_inputs(renders / synset / name / "rendering")
        own += [find_voxels(grids / synset / name)] if grids else []
        return own + ([find_model(models / synset / name)] if models else [])

    def make(synset: str, name: str) -> partial[dict[str, bytes]]:
        grid, mesh = (root / synset / name if root else None for root in (grids, models))
        return partial(model_content, renders / synset / name, grid, mesh, front, views, sizes, seed)

    return build_models(
        Path(out),
        choose(renders, splits, categories, share=share, hold_out=hold_out),
        settings,
        inputs,
        make,
        category_names=category_names,
        workers=workers,
        force=force,
        progress=progress,
    )
