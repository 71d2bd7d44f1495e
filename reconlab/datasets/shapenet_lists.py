"""What the adapters of ShapeNet's layouts share: categories, split lists, and a build of the models they name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconlab.datasets import format as files
from reconlab.datasets.builder import BuildReport, Task, check_numbers, run_build, task_key
from reconlab.datasets.content import Sizes
from reconlab.datasets.split_lists import find_split_lists
from reconlab.errors import ReconlabError

SYNSETS = {
    "02691156": "airplane",
    "02828884": "bench",
    "02933112": "cabinet",
    "02958343": "car",
    "03001627": "chair",
    "03211117": "display",
    "03636649": "lamp",
    "03691459": "speaker",
    "04090263": "rifle",
    "04256520": "sofa",
    "04379243": "table",
    "04401088": "telephone",
    "04530566": "vessel",
}
"""Readable names of the thirteen synsets that Choy et al. rendered; DR-KFS takes airplane, car, chair and lamp."""

SHARE = 0.8
"""Part of the sorted ids that AtlasNet and DR-KFS train on; the rest is the test."""
HOLD_OUT = 0.05
"""Part of the training ids that validate where the lists have no validation split."""

Inputs = Callable[[str, str], Sequence[Path]]
"""``(synset, model) -> files`` that decide a shape's content; raises what is missing."""
Make = Callable[[str, str], Callable[[], dict[str, bytes]]]
"""``(synset, model) -> maker`` of a shape's files; the maker must survive pickling."""


@dataclass
class Choice:
    """The models to build.

    Attributes:
        ids: By synset and split, of models that have a folder.
        notes: What was odd, one sentence each.
    """

    ids: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def choose(
    root: Path,
    splits: Path | str | None = None,
    categories: Sequence[str] | None = None,
    *,
    share: float = SHARE,
    hold_out: float = HOLD_OUT,
) -> Choice:
    """Find the models of a tree ``<root>/<synset>/<model>/`` and deal them out.

    Args:
        root: The tree.
        splits: Lists, see :func:`~reconlab.datasets.split_lists.find_split_lists`. None: the ids are sorted, the
            first ``share`` is for training, the rest for the test, as in AtlasNet (and so DR-KFS' "80-20").
        categories: Synsets, or their readable names; all of the tree (that have a list) if None.
        share: Of training among the sorted ids, above 0 and at most 1.
        hold_out: Part of the training list (its last ids) that becomes the validation list where there is none:
            ``fit`` needs one. 0 leaves it empty.

    Raises:
        ReconlabError: A folder, category or list is missing, or a number is impossible.
    """
    if not 0 < share <= 1:
        raise ReconlabError(f"share is {share}: choose above 0 and at most 1.")
    if not 0 <= hold_out < 1:
        raise ReconlabError(f"hold_out is {hold_out}: choose at least 0 and below 1.")
    if not root.is_dir():
        raise ReconlabError(f"The input folder {root} does not exist.")
    choice = Choice()
    for synset in _wanted(root, categories):
        folders = {p.name for p in (root / synset).iterdir() if p.is_dir() and not p.name.startswith(".")}
        lists = find_split_lists(Path(splits), synset) if splits is not None else None
        if lists is not None:
            ids = lists.ids
            choice.notes += lists.notes
        elif splits is None:
            names = sorted(folders)
            cut = int(share * len(names))
            ids = {"train": names[:cut], "val": [], "test": names[cut:]}
        elif categories is None:
            choice.notes.append(f"{splits} has no split list of {synset}: left out.")
            continue
        else:
            raise ReconlabError(f"{splits} has no split list of {synset}: expected {synset}_train.txt (or .lst), ...")
        kept = {s: [n for n in names if n in folders] for s, names in ids.items()}
        for split, names in ids.items():
            if len(kept[split]) < len(names):
                first = next(n for n in names if n not in folders)
                choice.notes.append(
                    f"{len(names) - len(kept[split])} of {len(names)} models in the {split} list of {synset} have no "
                    f"folder in {root.name} (first {first}): left off the list."
                )
        if stray := sorted(folders - {n for names in ids.values() for n in names}):
            choice.notes.append(f"{len(stray)} folders of {synset} are in no list (first {stray[0]}): left out.")
        count = min(round(hold_out * len(kept["train"])) or 1, len(kept["train"]) - 1) if hold_out else 0
        if not kept["val"] and count > 0:
            choice.notes.append(
                f"{synset} has no validation list: the last {count} of {len(kept['train'])} training ids validate "
                "(--hold_out 0 keeps them in training)."
            )
            kept["train"], kept["val"] = kept["train"][:-count], kept["train"][-count:]
        choice.ids[synset] = kept
    if not choice.ids:
        raise ReconlabError(f"{splits} has no split list of any folder in {root}: expected <synset>_train.txt, ...")
    if not any(names for lists_ in choice.ids.values() for names in lists_.values()):
        more = " ".join(choice.notes)
        raise ReconlabError(f"{root} has no folder <synset>/<model> that a split list names. {more}".strip())
    return choice


def _wanted(root: Path, categories: Sequence[str] | None) -> list[str]:
    present = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not present:
        raise ReconlabError(f"{root} has no folder: expected <synset>/<model>/...")
    if categories is None:
        return present
    synset = {word: s for s, word in SYNSETS.items()}
    wanted = sorted({c if c in present else synset.get(c, c) for c in categories})
    for category in wanted:
        if category not in present:
            raise ReconlabError(f"{root} has no category {category!r}: it has {', '.join(present)}.")
    return wanted


def build_models(
    out: Path,
    choice: Choice,
    settings: dict[str, Any],
    inputs: Inputs,
    make: Make,
    *,
    category_names: str = "synset",
    workers: int = 1,
    force: bool = False,
    progress: bool = True,
) -> BuildReport:
    """Build the chosen models; who cannot be built is named in the report, the others are there.

    Args:
        out: The dataset's folder.
        choice: The models and their splits.
        settings: What decides the files, besides the inputs.
        inputs: The files of a model.
        make: What makes a shape of them.
        category_names: ``synset`` keeps 02691156; ``word`` calls it airplane.
        workers: Processes.
        force: Replace a build that has other settings.
        progress: Show a progress bar on the terminal.

    Raises:
        ReconlabError: A setting is impossible, ``out`` holds something else, or no model can be used.
    """
    check_numbers(0, workers)
    if category_names not in ("synset", "word"):
        raise ReconlabError(f"category_names is {category_names!r}: choose synset or word.")
    shown = {c: SYNSETS.get(c, c) if category_names == "word" else c for c in choice.ids}
    places = {shown[c]: {i: s for s, ids in lists.items() for i in ids} for c, lists in choice.ids.items()}
    listed = [f"{c}/{s}/{i}" for c in sorted(choice.ids) for s, ids in choice.ids[c].items() for i in ids]
    tasks: list[Task] = []
    failed: dict[str, str] = {}
    for synset, lists in sorted(choice.ids.items()):
        for name in [n for names in lists.values() for n in names]:
            full = f"{shown[synset]}/{name}"
            try:
                digests = [files.sha256(p.read_bytes()) for p in inputs(synset, name)]
            except ReconlabError as error:
                failed[full] = str(error)
                continue
            except OSError as error:
                failed[full] = f"{error.filename} cannot be read ({error.strerror})."
                continue
            key = task_key(settings, full, *digests)
            tasks.append(Task(shown[synset], name, key, 0, Sizes(), make=make(synset, name)))

    def deal(category: str, names: list[str]) -> dict[str, list[str]]:
        return {s: [n for n in names if places[category][n] == s] for s in files.SPLITS}

    whole = {
        **settings,
        "categories": sorted(choice.ids),
        "category_names": category_names,
        "lists": task_key({}, *listed),
    }
    labels = {shown[c]: SYNSETS.get(c, c) for c in choice.ids}
    return run_build(out, tasks, whole, deal, workers, force, progress, failed, choice.notes, labels)
