"""Which prediction belongs to which true shape: one pair, two folders, a built dataset, or a table."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from reconlab.datasets import format as files
from reconlab.errors import ReconlabError
from reconlab.lab.evaluate_files import suffixes


@dataclass(frozen=True)
class Pair:
    """A sample.

    Attributes:
        category: Its category, ``""`` without.
        id: Its name within the category.
        pred: The prediction's file, or None if there is none.
        truth: The true shape's file, or its folder in a built dataset.
        pred_problem: Why the prediction cannot be taken (missing, or two files of one name), or "".
        truth_problem: Likewise of the true shape.
    """

    category: str
    id: str
    pred: Path | None
    truth: Path
    pred_problem: str = ""
    truth_problem: str = ""

    @property
    def key(self) -> str:
        """``category/id``."""
        return f"{self.category}/{self.id}" if self.category else self.id

    def stamp(self) -> list[str]:
        """Size and time of both files: whether a kept result still belongs to them."""
        return [_stamp(self.pred), _stamp(self.truth), self.pred_problem, self.truth_problem]


@dataclass
class Pairs:
    """What was found.

    Attributes:
        pairs: In the order of their names, or of the table.
        notes: What was left aside, one sentence each.
    """

    pairs: list[Pair]
    notes: list[str] = field(default_factory=list)


def find_pairs(pred: Path, truth: Path, split: str = "test", suffix: str | None = None) -> Pairs:
    """Pair two files, two folders by relative path without suffix, or a folder with a built dataset.

    The category is the first folder of the relative path, ``""`` without folders.

    Args:
        pred: A file or a folder.
        truth: Likewise, or a dataset that ``reconlab data build`` made.
        split: Of the dataset.
        suffix: Only predictions of this format are seen (``obj``), where a folder has several of each.

    Raises:
        ReconlabError: Something is missing, or no name occurs on both sides.
    """
    for path, what in ((pred, "prediction"), (truth, "ground truth")):
        if not path.exists():
            raise ReconlabError(f"The {what} {path} does not exist.")
    if pred.is_dir() != truth.is_dir():
        one, other = (pred, truth) if pred.is_dir() else (truth, pred)
        raise ReconlabError(f"{one} is a folder and {other} a file: give two files, or two folders.")
    if not pred.is_dir():
        return Pairs([Pair("", truth.stem, pred, truth)])
    kinds = suffixes() if suffix is None else (f".{suffix.lower().lstrip('.')}",)
    if suffix is not None and kinds[0] not in suffixes():
        raise ReconlabError(f"--suffix is {suffix!r}; choose from {', '.join(suffixes())}.")
    ours = _named(pred, kinds)
    dataset = is_dataset(truth)
    theirs = _stored(truth, split) if dataset else _named(truth, suffixes())
    if not theirs:
        what = f"shape in its {split} lists" if dataset else f"file of {', '.join(suffixes())}"
        raise ReconlabError(f"The ground truth {truth} has no {what}.")
    if not ours:
        raise ReconlabError(f"The predictions' folder {pred} has no file of {', '.join(kinds)}.")
    if not ours.keys() & theirs.keys():
        raise ReconlabError(
            f"No file under {pred} has the name of one under {truth} (there {min(ours)!r}, here {min(theirs)!r}): "
            "relative paths without suffix must be equal, or name the pairs in a table (--pairs FILE.csv)."
        )
    found = Pairs([])
    for name in sorted(theirs, key=lambda n: (PurePosixPath(n).parts[:-1], n)):
        category, sample = _split(name)
        mine = ours.get(name, [])
        problem = "" if mine else f"there is no prediction {name} under {pred}."
        problems = [problem or _doubled(mine), _doubled(theirs[name])]
        found.pairs.append(Pair(category, sample, mine[0] if len(mine) == 1 else None, theirs[name][0], *problems))
    extra = sorted(ours.keys() - theirs.keys())
    if extra:
        more = f" and {len(extra) - 5} more" if len(extra) > 5 else ""
        shown = ", ".join(extra[:5])
        found.notes.append(f"{len(extra)} predictions have no ground truth and are left aside: {shown}{more}.")
    return found


def read_pairs(table: Path) -> Pairs:
    """Pairs of a CSV with columns ``pred,gt[,category,id]``; relative paths start at the table's folder.

    Without ``id`` the true file's name is taken; without ``category`` there is none.

    Raises:
        ReconlabError: The table cannot be read, lacks a column, or names a sample twice.
    """
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReconlabError(f"--pairs {table} cannot be read ({error}).") from error
    lacking = [c for c in ("pred", "gt") if c not in columns]
    if lacking:
        raise ReconlabError(f"--pairs {table} has no column {lacking[0]!r}; expected pred,gt[,category,id].")
    pairs: list[Pair] = []
    seen: dict[str, int] = {}
    for line, row in enumerate(rows, start=2):
        pred, truth = (table.parent / (row[c] or "").strip() for c in ("pred", "gt"))
        if not (row["pred"] or "").strip() or not (row["gt"] or "").strip():
            raise ReconlabError(f"--pairs {table}, line {line}: pred and gt must both be given.")
        sample = (row.get("id") or "").strip() or truth.stem
        pair = Pair((row.get("category") or "").strip(), sample, pred, truth)
        parts = PurePosixPath(pair.key).parts
        if ".." in parts or PurePosixPath(pair.key).is_absolute():
            raise ReconlabError(f"--pairs {table}, line {line}: {pair.key!r} is not a name.")
        if pair.key in seen:
            raise ReconlabError(
                f"--pairs {table}, line {line}: {pair.key!r} is the name of line {seen[pair.key]} too; give each "
                "pair its own id."
            )
        seen[pair.key] = line
        missing = "" if pred.is_file() else f"{pred} does not exist."
        pairs.append(Pair(pair.category, sample, pred if pred.is_file() else None, truth, missing))
    if not pairs:
        raise ReconlabError(f"--pairs {table} names no pair.")
    return Pairs(pairs)


def is_dataset(folder: Path) -> bool:
    """Whether a folder is a built dataset (metadata or split lists)."""
    return (folder / files.METADATA).is_file() or any(folder.glob("*/*.lst"))


def _stored(root: Path, split: str) -> dict[str, list[Path]]:
    from reconlab.datasets.samples import find_items

    items = find_items(root, split, files.list_categories(root))
    return {f"{item.category}/{item.id}": [item.folder] for item in items}


def _named(folder: Path, kinds: tuple[str, ...]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in _files(folder, kinds):
        name = path.relative_to(folder).with_suffix("").as_posix()
        found.setdefault(name, []).append(path)
    return found


def _files(folder: Path, kinds: tuple[str, ...]) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in kinds and not hidden and path.is_file():
            yield path


def _split(name: str) -> tuple[str, str]:
    category, slash, rest = name.partition("/")
    return (category, rest) if slash else ("", name)


def _doubled(paths: list[Path]) -> str:
    if len(paths) < 2:
        return ""
    return (
        f"{paths[0]} and {paths[1].name} have one name: keep one (--suffix), or name the pairs in a table (--pairs)."
    )


def _stamp(path: Path | None) -> str:
    if path is None or not path.exists():
        return ""
    chosen = path / files.MESH if path.is_dir() else path
    if not chosen.exists():
        return ""
    about = chosen.stat()
    return f"{chosen.resolve()} {about.st_size} {about.st_mtime_ns}"
