"""A dataset's folder while it is being built: its lock, whose it is, what is done, and shapes put in place."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reconlab.datasets import format as files
from reconlab.errors import ReconlabError

_held: set[Path] = set()


@contextmanager
def locked(root: Path, wait: bool) -> Iterator[None]:
    """Hold the dataset's build lock; it ends with the process, whatever happens. Reentrant within a process.

    Raises:
        ReconlabError: ``wait`` is False and another process builds there, or the folder cannot be written.
    """
    real = root.resolve()
    if real in _held:
        yield
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle = (root / ".lock").open("a")
    except OSError as error:
        raise ReconlabError(f"The dataset folder {root} cannot be written ({error.strerror}).") from error
    with handle:
        try:
            import fcntl
        except ImportError:  # Windows: builds are not protected from one another there
            yield
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            raise ReconlabError(f"Another process is building {root}: wait for it.") from error
        _held.add(real)
        try:
            yield
        finally:
            _held.discard(real)


def read_settings(root: Path) -> dict[str, Any] | None:
    """The settings that a folder was (or is being) built with; None if it is no build of this program."""
    import yaml

    try:
        if (root / files.BUILDING).exists():
            return dict(json.loads((root / files.BUILDING).read_text(encoding="utf-8")))
        if (root / files.METADATA).exists():
            meta = yaml.safe_load((root / files.METADATA).read_text(encoding="utf-8")) or {}
            return dict(meta["reconlab"]["settings"]) if "reconlab" in meta else None
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return None
    return None


def claim(root: Path, settings: dict[str, Any], force: bool) -> None:
    """Mark the folder as being built with these settings, or refuse."""
    before = read_settings(root)
    others = [p.name for p in root.iterdir() if p.name != ".lock"]
    if before is None and others and not force:
        raise ReconlabError(
            f"{root} is not empty and no dataset of this program: choose another folder, or --force to build into it."
        )
    if before is not None and before != settings and not force:
        keys = sorted(k for k in before.keys() | settings.keys() if before.get(k) != settings.get(k))
        changes = ", ".join(f"{k} {before.get(k)} -> {settings.get(k)}" for k in keys)
        raise ReconlabError(
            f"{root} was built with other settings ({changes}): choose another folder, or --force to replace it."
        )
    files.write_atomic(root / files.BUILDING, json.dumps(settings, sort_keys=True).encode())
    (root / files.METADATA).unlink(missing_ok=True)


def is_done(root: Path, category: str, name: str, key: str) -> bool:
    """Is the shape there, complete, made by the same settings? Folders appear only by a rename of a whole shape."""
    folder = root / category / name
    try:
        sums = json.loads((folder / files.CHECKSUMS).read_text(encoding="utf-8"))
        return bool(sums["key"] == key) and all((folder / f).is_file() for f in sums["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def remove_leftovers(root: Path, wanted: set[tuple[str, str]] | None) -> None:
    """Remove what killed builds left aside; with ``wanted``, also this program's shapes that are not in it."""
    for category in (p for p in root.iterdir() if p.is_dir()):
        for path in category.iterdir():
            stale = path.name.startswith(".") and path.name.endswith((".tmp", ".old"))
            if wanted is not None and (path / files.CHECKSUMS).is_file() and (category.name, path.name) not in wanted:
                stale = True
            if stale:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def place_shape(root: Path, category: str, name: str, key: str, content: dict[str, bytes]) -> None:
    """Write a shape aside, wait for the disk, and rename it into place."""
    folder = root / category / name
    aside = folder.with_name(f".{name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        (aside / files.VIEWS).mkdir(parents=True)
        for file, data in content.items():
            files.write_durable(aside / file, data)
        sums = {"key": key, "files": {file: files.sha256(data) for file, data in sorted(content.items())}}
        files.write_durable(aside / files.CHECKSUMS, json.dumps(sums, indent=1, sort_keys=True).encode())
        files.sync_folder(aside)
        if folder.exists():
            old = folder.with_name(f".{name}.{os.getpid()}.old")
            folder.rename(old)
            aside.rename(folder)
            shutil.rmtree(old)
        else:
            aside.rename(folder)
        files.sync_folder(folder.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
