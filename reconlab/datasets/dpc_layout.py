"""Adapter for the data of DRC, Differentiable Point Clouds and DRWR: Blender renders, cameras and clouds of points.

``<renders>/<synset>/<model>/render_k.png`` (RGBA) and ``camera_k.mat`` (``extrinsic``, ``pos``, ``K``; MATLAB 5),
``<ground truth>/<synset>/<model>.mat`` (``points``), and split lists. ``depth_k.png`` is not read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from reconlab.datasets import format as files
from reconlab.datasets.builder import BuildReport, Task, check_numbers, run_build, task_key
from reconlab.datasets.content import Sizes
from reconlab.datasets.dpc_files import model_content
from reconlab.datasets.split_lists import SplitLists, find_split_lists
from reconlab.errors import ReconlabError

SYNSETS = {"02691156": "airplane", "02958343": "car", "03001627": "chair", "03636649": "lamp"}
"""Readable names of ShapeNet's synsets."""


def build_dpc(
    input: Path | str,
    out: Path | str,
    *,
    splits: Path | str,
    ground_truth: Path | str | None = None,
    categories: Sequence[str] | None = None,
    category_names: str = "synset",
    views: int | None = None,
    workers: int = 1,
    force: bool = False,
    progress: bool = True,
) -> BuildReport:
    """Convert a tree in DPC's layout into a dataset that ``ReconstructionData`` reads.

    Args:
        input: The renders, ``<synset>/<model>/render_k.png`` and ``camera_k.mat``.
        out: The dataset's folder.
        splits: A folder of lists, or a ``.file`` of DRC; see :func:`~reconlab.datasets.split_lists.find_split_lists`.
        ground_truth: ``<synset>/<model>.mat``. If given, shapes of val and test without it are left off the lists,
            as DPC's evaluation passes over them; if None, no shape gets true points.
        categories: Synsets, or their readable names; all that have renders and a list if None.
        category_names: ``synset`` keeps 02691156; ``word`` calls it airplane.
        views: The first so many of each model; all if None.
        workers: Processes.
        force: Replace a build that has other settings.
        progress: Show a progress bar on the terminal.

    Raises:
        ReconlabError: A folder, list or category is missing, a setting is impossible, or no model can be used.
    """
    check_numbers(0, workers)
    if category_names not in ("synset", "word"):
        raise ReconlabError(f"category_names is {category_names!r}: choose synset or word.")
    if views is not None and views < 1:
        raise ReconlabError(f"views is {views}: choose at least 1 picture per shape.")
    renders, truth = Path(input), Path(ground_truth) if ground_truth is not None else None
    for folder, what in ((renders, "folder of renders"), (truth, "folder of ground truth")):
        if folder is not None and not folder.is_dir():
            raise ReconlabError(f"The {what} {folder} does not exist.")
    chosen, notes = _lists(renders, Path(splits), categories)
    settings: dict[str, Any] = {
        "source": "dpc",
        "categories": sorted(chosen),
        "category_names": category_names,
        "ground_truth": truth is not None,
        "views": views,
        "lists": task_key({}, *(f"{c}/{s}/{i}" for c in sorted(chosen) for s, ids in chosen[c].items() for i in ids)),
    }
    tasks: list[Task] = []
    failed: dict[str, str] = {}
    shown = {c: SYNSETS.get(c, c) if category_names == "word" else c for c in chosen}
    places = {shown[c]: {i: s for s, ids in chosen[c].items() for i in ids} for c in chosen}
    for synset in sorted(chosen):
        listed, more = _with_files(renders, truth, synset, chosen[synset])
        notes += more
        for name in listed:
            full = f"{shown[synset]}/{name}"
            try:
                digests = [files.sha256(p.read_bytes()) for p in _inputs(renders, truth, synset, name)]
            except OSError as error:
                failed[full] = f"{error.filename} cannot be read ({error.strerror})."
                continue
            make = partial(model_content, renders / synset / name, _cloud_file(truth, synset, name), views)
            key = task_key({"source": "dpc", "views": views}, full, *digests)
            tasks.append(Task(shown[synset], name, key, 0, Sizes(), make=make))
    if not tasks and not failed:
        raise ReconlabError(f"No model that {splits} names has a folder in {renders}: " + " ".join(notes))

    def deal(category: str, names: list[str]) -> dict[str, list[str]]:
        return {s: [n for n in names if places[category][n] == s] for s in files.SPLITS}

    labels = {shown[c]: SYNSETS.get(c, c) for c in chosen}
    return run_build(Path(out), tasks, settings, deal, workers, force, progress, failed, notes, labels)


def _lists(
    renders: Path, source: Path, categories: Sequence[str] | None
) -> tuple[dict[str, dict[str, list[str]]], list[str]]:
    """Ids by split by synset, and notes."""
    present = sorted(p.name for p in renders.iterdir() if p.is_dir() and not p.name.startswith("."))
    synset = {word: s for s, word in SYNSETS.items()}
    wanted = present if categories is None else sorted({c if c in present else synset.get(c, c) for c in categories})
    for category in wanted:
        if category not in present:
            raise ReconlabError(
                f"{renders} has no category {category!r}: it has {', '.join(present) or 'no folder at all'}."
            )
    found: dict[str, SplitLists] = {}
    notes = []
    for category in wanted:
        lists = find_split_lists(source, category)
        if lists is not None:
            found[category] = lists
        elif categories is None:
            notes.append(f"{source} has no split list of {category}: left out.")
        else:
            raise ReconlabError(f"{source} has no split list of {category}: expected {category}_train.txt, ...")
    if not found:
        raise ReconlabError(
            f"{source} has no split list of any folder in {renders} ({', '.join(present) or 'which is empty'}): "
            "expected <synset>_train.txt, ..., or <synset>.file."
        )
    return {c: lists.ids for c, lists in found.items()}, [n for x in found.values() for n in x.notes] + notes


def _with_files(
    renders: Path, truth: Path | None, synset: str, ids: dict[str, list[str]]
) -> tuple[list[str], list[str]]:
    """The listed models that have a folder (and true points, where they are asked for), and notes on the others."""
    kept, notes = [], []
    folders = {p.name for p in (renders / synset).iterdir() if p.is_dir() and not p.name.startswith(".")}
    for split, names in ids.items():
        there = [n for n in names if n in folders]
        if len(there) < len(names):
            first = next(n for n in names if n not in folders)
            notes.append(
                f"{len(names) - len(there)} of {len(names)} models in the {split} list of {synset} have no folder in "
                f"the renders (first {first}): left off the list."
            )
        if truth is not None and split != "train":
            blind = [n for n in there if _cloud_file(truth, synset, n) is None]
            if blind:
                notes.append(
                    f"{len(blind)} of {len(there)} models in the {split} list of {synset} have no ground truth "
                    f"(first {blind[0]}): left off the list."
                )
            there = [n for n in there if n not in set(blind)]
        kept += there
    unlisted = sorted(folders - {n for names in ids.values() for n in names})
    if unlisted:
        notes.append(f"{len(unlisted)} folders of {synset} are in no list (first {unlisted[0]}): left out.")
    return kept, notes


def _cloud_file(truth: Path | None, synset: str, name: str) -> Path | None:
    path = None if truth is None else truth / synset / f"{name}.mat"
    return path if path is not None and path.exists() else None


def _inputs(renders: Path, truth: Path | None, synset: str, name: str) -> list[Path]:
    folder, cloud = renders / synset / name, _cloud_file(truth, synset, name)
    own = sorted(p for p in folder.iterdir() if re.fullmatch(r"render_\d+\.png|camera_\d+\.mat", p.name))
    return own + ([] if cloud is None else [cloud])
