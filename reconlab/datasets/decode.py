"""Making the decoded cache of a split: what it was made of, how large it is, once for all processes that want it."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from reconlab.datasets import format as files
from reconlab.datasets import readers
from reconlab.datasets.decoded import NAMES, PICTURES, SUFFIX, Decoded, Shard, UnusableError, write_shard
from reconlab.datasets.items import Item, count_views
from reconlab.datasets.work import progress_bar
from reconlab.errors import ReconlabError
from reconlab.threads import parallel_map

FOLDER = ".decoded"
"""Within a dataset, unless another folder is given."""
VERSION = 1
"""Of what readers make of files; a cache of another version is made again."""
KINDS: dict[str, frozenset[str]] = {
    PICTURES: frozenset({"images", "masks", "views"}),
    "cameras": frozenset({"cameras", "views"}),
    "surface": frozenset({"surface", "normals"}),
    "queries": frozenset({"occupancy"}),
    "voxels": frozenset({"voxels"}),
    "mesh": frozenset({"mesh"}),
}
"""Kinds of content, and the needs of the batch that read them."""
_FILES = {"surface": files.POINTCLOUD, "queries": files.POINTS, "voxels": files.VOXELS, "mesh": files.MESH}
_READERS = {"surface": readers.read_cloud, "queries": readers.read_queries, "mesh": readers.read_mesh_arrays}
_AT_ONCE = 32  # shapes in memory while a shard is written
_PROBED = 12  # shapes of each kind that are decoded to say how large all will be


@dataclass(frozen=True)
class _Job:
    path: Path
    kind: str
    items: list[Item]
    fingerprint: str


def kinds_of(needs: frozenset[str], resolution: int | None) -> list[str]:
    """Which kinds a batch with these needs reads; voxels of a chosen resolution are a kind of their own."""
    kinds = [kind for kind, users in KINDS.items() if users & needs]
    return [f"voxels-{resolution}" if k == "voxels" and resolution is not None else k for k in kinds]


def decode(
    root: Path, items: Sequence[Item], split: str, kinds: Sequence[str], folder: Path | None, announce: bool = True
) -> Decoded | None:
    """The decoded cache of a split: as it is on disk, or made first.

    What is there counts only if the list of shapes, and name, size and time of change of every file that was read,
    are what they were. Several processes may ask at once: one makes it, the others wait.

    Args:
        root: The dataset.
        items: The split's shapes; one may be there several times.
        split: Its name.
        kinds: From :func:`kinds_of`.
        folder: Where to keep it; a folder within the dataset if None, and then nothing, with a line that says why,
            if it cannot be kept there.
        announce: Whether this process says that it waits, or goes without.

    Raises:
        ReconlabError: A file of the dataset cannot be read; ``folder`` was given and cannot be written, or is full.
    """
    place = _place(root, folder)
    jobs = _jobs(items, split, kinds, place)
    try:
        if _unusable(jobs):
            _make(root, place, jobs, announce)
    except OSError as error:
        reason = error.strerror or str(error)
        if folder is not None:
            raise ReconlabError(f"The decoded cache {place} cannot be written ({reason}).") from error
        if announce:
            _tell(f"{root}: no decoded cache, since {place} cannot be written ({reason}).")
        return None
    return Decoded({(j.items[0].category, j.kind): (j.path, j.fingerprint) for j in jobs})


def prune(root: Path, items: Mapping[str, Sequence[Item]], folder: Path | None) -> list[tuple[Path, int]]:
    """Remove what no run of the dataset as it is reads.

    Those are files made of other lists or contents, damaged ones, and what killed processes left half-made. A run
    that has not opened a file yet ends with a sentence if it is removed.

    Args:
        root: The dataset.
        items: The shapes of every split, of all categories.
        folder: As :func:`decode` has it.

    Returns:
        What was removed, and its bytes.

    Raises:
        ReconlabError: There is no cache, or it cannot be changed.
    """
    place = _place(root, folder)
    if not place.is_dir():
        raise ReconlabError(f"There is no decoded cache {place}.")
    removed = []
    try:
        with _locked(place, partial(_tell, f"Waiting for another process that makes {place}.")) as sure:
            half_made = place.glob(".*.tmp") if sure else ()
            for path in [*sorted(half_made), *(p for p in sorted(place.glob(f"*{SUFFIX}")) if not _in_use(p, items))]:
                removed.append((path, path.stat().st_size))
                path.unlink()
    except OSError as error:
        raise ReconlabError(f"The decoded cache {place} cannot be changed ({error.strerror or error}).") from error
    return removed


def _in_use(path: Path, items: Mapping[str, Sequence[Item]]) -> bool:
    parts = path.name.removesuffix(SUFFIX).rsplit(".", 2)
    if len(parts) < 3:
        return False
    category, split, kind = parts
    own = [item for item in items.get(split, ()) if item.category == category]
    known = kind.partition("-")[0] in KINDS
    return known and bool(own) and not _unusable(_jobs(own, split, [kind], path.parent))


def _place(root: Path, folder: Path | None) -> Path:
    return root / FOLDER if folder is None else folder / f"{root.name}-{_digest(str(root.resolve()))[:12]}"


def _jobs(items: Sequence[Item], split: str, kinds: Sequence[str], place: Path) -> list[_Job]:
    by_category: dict[str, dict[str, Item]] = {}
    for item in items:
        by_category.setdefault(item.category, {}).setdefault(item.id, item)
    return [
        _Job(place / f"{category}.{split}.{kind}{SUFFIX}", kind, list(shapes.values()), _fingerprint(shapes, kind))
        for category, shapes in by_category.items()
        for kind in kinds
    ]


def _unusable(jobs: Sequence[_Job]) -> list[tuple[_Job, str]]:
    """What must be made, and why."""
    found = []
    for job in jobs:
        try:
            Shard(job.path, job.fingerprint)
        except FileNotFoundError:
            found.append((job, ""))
        except UnusableError as error:
            found.append((job, f"{job.path.name} {error}"))
    return found


def _make(root: Path, place: Path, jobs: Sequence[_Job], announce: bool) -> None:
    place.mkdir(parents=True, exist_ok=True)
    waiting = partial(_tell, f"Waiting for another process that makes {place}.") if announce else None
    with _locked(place, waiting) as sure:
        todo = _unusable(jobs)
        if not todo:
            return
        if sure:
            for path in place.glob(".*.tmp"):  # of killed processes
                path.unlink(missing_ok=True)
        size, free = _estimate([job for job, _ in todo]), shutil.disk_usage(place).free
        about = f"about {_bytes(size)}"
        if 1.05 * size > free:  # tables, and the last bytes of a disk are not for this
            raise OSError(0, f"it takes {about}, and {_bytes(free)} are free")
        reasons = [why for _, why in todo if why]
        more = f" ({reasons[0]}{f'; {len(reasons) - 1} more' if len(reasons) > 1 else ''})" if reasons else ""
        _tell(f"{root}: making the decoded cache {place}, {about}, once{more}.")
        with progress_bar(sys.stderr.isatty()) as bar:
            total = sum(len(job.items) for job, _ in todo)
            task = bar.add_task(f"Decoding {root}", total=total) if bar else None
            for job, _ in todo:
                header = {"version": VERSION, "fingerprint": job.fingerprint}
                parts = _read_all(job, (lambda: bar.advance(task)) if bar else (lambda: None))
                write_shard(job.path, header, [item.id for item in job.items], parts)


def _read_all(job: _Job, advance: Callable[[], None]) -> Iterator[list[np.ndarray]]:
    for start in range(0, len(job.items), _AT_ONCE):
        for arrays in parallel_map(partial(_read, job.kind), job.items[start : start + _AT_ONCE]):
            yield arrays
            advance()


def _read(kind: str, item: Item) -> list[np.ndarray]:
    name, _, resolution = kind.partition("-")
    if name == PICTURES:
        folder, suffix = files.views_of(item.folder)
        return [readers.read_picture(folder / f"{i:03d}.{suffix}")["rgba"] for i in range(count_views(folder))]
    if name == "cameras":
        arrays = readers.read_cameras(files.located(item.folder, files.CAMERAS))
    elif name == "voxels":
        arrays = readers.read_voxels(item.folder / files.VOXELS, int(resolution) if resolution else None)
    else:
        arrays = _READERS[name](item.folder / _FILES[name])
    return [arrays[n] for n in NAMES[name] if n in arrays]


def _fingerprint(shapes: dict[str, Item], kind: str) -> str:
    """Of all that decides a shard: the names in their order, and name, size and time of change of every file."""
    name = kind.partition("-")[0]
    seen = hashlib.sha256(f"{VERSION} {kind}\n".encode())
    for item in shapes.values():
        seen.update(f"{item.id}\n".encode())
        if name == PICTURES:
            try:
                with os.scandir(files.views_of(item.folder)[0]) as entries:
                    found = sorted((e.name, e.stat()) for e in entries if e.name.endswith((".png", ".jpg")))
            except OSError:
                found = []  # whoever reads it says what is wrong
            for picture, stat in found:
                seen.update(f"{picture} {stat.st_size} {stat.st_mtime_ns}\n".encode())
            continue
        path = files.located(item.folder, files.CAMERAS) if name == "cameras" else item.folder / _FILES[name]
        try:
            stat = path.stat()
        except OSError:
            continue
        seen.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return seen.hexdigest()


def _estimate(jobs: Sequence[_Job]) -> int:
    """Bytes of all shards, from some shapes of each kind."""
    size = 0.0
    for kind in dict.fromkeys(job.kind for job in jobs):
        items = [item for job in jobs if job.kind == kind for item in job.items]
        probed = items[:: -(-len(items) // _PROBED)]
        stored = sum((a.size + 7) // 8 if a.dtype == bool else a.nbytes for i in probed for a in _read(kind, i))
        size += stored * len(items) / len(probed)
    return int(size)


@contextmanager
def _locked(place: Path, waiting: Callable[[], None] | None) -> Iterator[bool]:
    """Hold the cache's lock; gives whether that is certain: some file systems and platforms have no locks.

    Without one, two processes may make the same shards; the later rename replaces a file by its equal.
    """
    with (place / ".lock").open("a") as handle:
        try:
            import fcntl

            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is not None:
                    waiting()
                fcntl.flock(handle, fcntl.LOCK_EX)
        except (ImportError, OSError):
            yield False
            return
        yield True


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _tell(text: str) -> None:
    from rich.console import Console

    Console(stderr=True, soft_wrap=True, markup=False, highlight=False).print(text)
