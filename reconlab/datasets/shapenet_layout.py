"""Adapter for trees of ShapeNetCore meshes, v1 and v2: views, points, occupancies and voxels are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from reconlab.datasets.builder import BuildReport, check_numbers
from reconlab.datasets.content import Sizes, shape_content, shape_rng
from reconlab.datasets.meshes import RawMesh
from reconlab.datasets.shapenet_frame import FRONTS, V2_TO_V1
from reconlab.datasets.shapenet_lists import HOLD_OUT, SHARE, build_models, choose
from reconlab.datasets.shapenet_obj import read_obj
from reconlab.errors import ReconlabError

V1, V2 = "model.obj", "models/model_normalized.obj"


def build_shapenet(
    input: Path | str,
    out: Path | str,
    *,
    splits: Path | str | None = None,
    categories: Sequence[str] | None = None,
    category_names: str = "synset",
    front: str = "+x",
    share: float = SHARE,
    hold_out: float = HOLD_OUT,
    seed: int = 0,
    sizes: Sizes | None = None,
    workers: int = 1,
    force: bool = False,
    progress: bool = True,
) -> BuildReport:
    """Build a dataset of a tree of meshes.

    Args:
        input: ``<synset>/<model>/model.obj`` (v1) or ``<synset>/<model>/models/model_normalized.obj`` (v2); v1 is
            taken where a model has both.
        out: The dataset's folder.
        splits: Split lists; see :func:`~reconlab.datasets.shapenet_lists.choose`.
        categories: Synsets, or their readable names; all if None.
        category_names: ``synset`` keeps 02691156; ``word`` calls it airplane.
        front: Where the shapes face: ``+x`` as in ShapeNet v1, Choy's renders, DPC's data and Occupancy Networks'
            archive; ``-z`` as in ShapeNet v2 and the procedural shapes.
        share: Of training among the sorted ids, without ``splits``.
        hold_out: Part of the training ids that validates if no list does.
        seed: Of viewpoints and samples.
        sizes: How much each shape gets.
        workers: Processes.
        force: Replace a build that has other settings.
        progress: Show a progress bar on the terminal.

    Raises:
        ReconlabError: A folder, list or category is missing, a setting is impossible, or no model can be used.
    """
    check_front(front)
    check_numbers(seed, workers)
    root, sizes = Path(input), sizes or Sizes()
    settings = {"source": "shapenet", "front": front, "seed": seed, **asdict(sizes)}
    return build_models(
        Path(out),
        choose(root, splits, categories, share=share, hold_out=hold_out),
        settings,
        lambda synset, name: [find_model(root / synset / name)],
        lambda synset, name: partial(mesh_content, root / synset / name, front, sizes, seed),
        category_names=category_names,
        workers=workers,
        force=force,
        progress=progress,
    )


def check_front(front: str) -> None:
    """Refuse what is no front."""
    if front not in FRONTS:
        raise ReconlabError(f"front is {front!r}: choose {' or '.join(FRONTS)}.")


def find_model(folder: Path) -> Path:
    """The mesh file of a model's folder.

    Raises:
        ReconlabError: It has none.
    """
    for name in (V1, V2):
        if (folder / name).is_file():
            return folder / name
    raise ReconlabError(f"{folder} has neither {V1} (ShapeNetCore v1) nor {V2} (v2).")


def read_model(folder: Path) -> RawMesh:
    """The mesh of a model with ShapeNet v1's axes, whichever version it is of.

    Raises:
        ReconlabError: It is missing or cannot be used.
    """
    path = find_model(folder)
    mesh = read_obj(path)
    return mesh if path.name == V1 else RawMesh(mesh.vertices @ V2_TO_V1.T, mesh.faces)


def mesh_content(folder: Path, front: str, sizes: Sizes, seed: int) -> dict[str, bytes]:
    """The files of one shape, by path relative to its folder.

    Raises:
        ReconlabError: The mesh is missing or cannot be used.
    """
    raw = read_model(folder)
    turned = RawMesh(raw.vertices @ FRONTS[front].T, raw.faces)
    return shape_content(turned, sizes, shape_rng(seed, folder.parent.name, folder.name))
