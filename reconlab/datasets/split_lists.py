"""Published split lists: a text file of ids for each split, or DRC's Torch7 table of all three."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from glob import escape as glob_escape
from pathlib import Path

from reconlab.datasets import format as files
from reconlab.datasets.torch7 import as_list, read_torch7
from reconlab.errors import ReconlabError

_ID = re.compile(r"[^/\\\s.][^/\\\s]*")


@dataclass
class SplitLists:
    """Ids by split, each id once.

    Attributes:
        ids: By ``train``, ``val``, ``test``, in the order of the files.
        notes: What was odd about them, one sentence each.
    """

    ids: dict[str, list[str]]
    notes: list[str] = field(default_factory=list)


def find_split_lists(source: Path, category: str) -> SplitLists | None:
    """The split of a category.

    A folder is searched for ``<category>_<split>.txt`` (or ``.lst``), ``<category>/<split>.txt`` (or ``.lst``), and
    ``<category>.file``; names may have a prefix that ends with ``_``, and a ``source`` that is a folder and such a
    prefix (``lists/disn``) reads those files alone. Text files win over ``.file``; where both are
    there and disagree, a note says so (DRC's chair lists do, by one id).

    Args:
        source: Such a folder, the folder and a prefix, or one ``.file``.
        category: As in the file names.

    Returns:
        None if there is no list of this category.

    Raises:
        ReconlabError: ``source`` does not exist, a list cannot be read or names no id, or two files claim one split.
    """
    prefix = ""
    if not source.exists() and source.name and any(source.parent.glob(f"{glob_escape(source.name)}_*")):
        source, prefix = source.parent, f"{source.name}_"
    if not source.exists():
        raise ReconlabError(f"The split lists {source} do not exist: give a folder of lists, or one .file of DRC.")
    if source.is_file():
        if source.suffix != ".file":
            raise ReconlabError(f"{source} is no .file of DRC: give it, or the folder that holds the .txt lists.")
        return _tidy(read_drc(source), category) if _names(source.stem, category) else None
    present = sorted(p for p in source.iterdir() if p.is_file() and not p.name.startswith("."))
    present = [p for p in present if p.name.startswith(prefix)]
    within = source / category
    text: dict[str, list[str]] = {}
    for split in files.SPLITS:
        found = [p for p in present if p.suffix in (".txt", ".lst") and _names(p.stem, f"{category}_{split}")]
        found += [p for x in (".txt", ".lst") if not prefix and (p := within / f"{split}{x}").is_file()]
        if path := _only(found, f"{split} list of {category}"):
            text[split] = files.read_list(path)
    path = _only(
        [p for p in present if p.suffix == ".file" and _names(p.stem, category)], f"Torch7 list of {category}"
    )
    table = read_drc(path) if path else {}
    if not text and path is None:
        return None
    lists = _tidy(text or table, category)
    if text and path is not None:
        for split in files.SPLITS:
            mine, theirs = set(text.get(split, ())), set(table.get(split, ()))
            if mine != theirs:
                first = min(mine ^ theirs)
                lists.notes.append(
                    f"{path.name} differs from the {split} text list of {category} by {len(mine ^ theirs)} ids "
                    f"(first {first}): the text list was taken."
                )
    return lists


def read_drc(path: Path) -> dict[str, list[str]]:
    """The lists of a Torch7 table ``{train = {...}, val = {...}, test = {...}}``; other entries are passed over.

    Raises:
        ReconlabError: The file is no such table.
    """
    table = read_torch7(path)
    lists = {s: as_list(table[s]) for s in files.SPLITS if s in table} if isinstance(table, dict) else {}
    if not lists:
        raise ReconlabError(f"{path} holds no table with train, val or test.")
    out = {}
    for split, ids in lists.items():
        if ids is None or not all(isinstance(i, str) for i in ids):
            raise ReconlabError(f"{path}: its entry {split!r} is not a list of strings.")
        out[split] = [str(i).strip() for i in ids]
    return out


def _names(stem: str, wanted: str) -> bool:
    return stem == wanted or stem.endswith(f"_{wanted}")


def _only(found: list[Path], what: str) -> Path | None:
    if len(found) > 1:
        shown = " and ".join(str(p) for p in found[:2])
        raise ReconlabError(f"Both {shown} could be the {what}: keep one of them in that folder.")
    return found[0] if found else None


def _tidy(lists: dict[str, list[str]], category: str) -> SplitLists:
    """Each id once: repetitions are dropped, and what is also in a later list (val, test) is not trained on."""
    taken: set[str] = set()
    out: dict[str, list[str]] = {}
    twice, shared = [], []
    for split in reversed(files.SPLITS):
        kept: dict[str, None] = {}
        for raw in lists.get(split, ()):
            name = raw.removeprefix(f"{category}/")
            if not _ID.fullmatch(name):
                raise ReconlabError(f"The {split} list of {category} has {raw!r}, which cannot be a folder's name.")
            if name in taken:
                shared.append(name)
            elif name in kept:
                twice.append(name)
            else:
                kept[name] = None
        taken |= kept.keys()
        out[split] = list(kept)
    if not taken:
        raise ReconlabError(f"The split lists of {category} name no id.")
    notes = []
    if twice:
        notes.append(f"{len(twice)} ids stand twice in a list of {category} (first {twice[0]}): taken once.")
    if shared:
        notes.append(
            f"{len(shared)} ids of {category} stand in two lists (first {shared[0]}): kept in test rather than val, "
            "and in val rather than train."
        )
    return SplitLists({s: out[s] for s in files.SPLITS}, notes)
