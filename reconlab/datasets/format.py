"""The files of a built dataset: the Occupancy Networks layout plus views and meshes.

``<root>/<category>/<id>/`` holds ``pointcloud.npz``, ``points.npz``, ``model.binvox``, ``mesh.npz``, ``views/*.png``
and ``views/cameras.npz``; ``<root>/<category>/{train,val,test}.lst`` name the shapes of each split;
``<root>/metadata.yaml`` is written last. Writers give the same bytes for the same content; readers name the file
in every error.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from reconlab.datasets.binvox import parse
from reconlab.errors import ReconlabError

SPLITS = ("train", "val", "test")
POINTCLOUD, POINTS, VOXELS, MESH = "pointcloud.npz", "points.npz", "model.binvox", "mesh.npz"
VIEWS, CAMERAS = "views", "views/cameras.npz"
ARCHIVE_VIEWS = "img_choy2016"
"""Where the archive of Occupancy Networks has pictures (.jpg, no alpha) and cameras."""
CHECKSUMS, METADATA, BUILDING = "checksums.json", "metadata.yaml", "build.json"
VERSION = 1
"""Of this layout, kept in ``metadata.yaml``."""


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A compressed ``.npz`` whose bytes depend on the arrays alone (no time stamps)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, array in arrays.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, np.ascontiguousarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data.getvalue())
    return out.getvalue()


def read_npz(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz``: those named (which must be there), or all.

    Raises:
        ReconlabError: The file is missing, is no readable ``.npz``, or lacks an array; the sentence names it.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [n for n in names if n not in archive.files]
            if missing:
                raise ReconlabError(
                    f"{path} has no array {missing[0]!r} (it has {', '.join(archive.files)}): rebuild this shape."
                )
            return {n: archive[n] for n in (names or archive.files)}
    except FileNotFoundError:
        raise ReconlabError(f"{path} is missing: rebuild this shape or take it off the split lists.") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError, AttributeError, zipfile.error) as error:
        raise ReconlabError(f"{path} cannot be read ({error}): rebuild this shape.") from error
    except Exception as error:  # zlib.error and what else damaged bytes provoke
        if isinstance(error, ReconlabError):
            raise
        raise ReconlabError(f"{path} cannot be read ({error}): rebuild this shape.") from error


def png_bytes(rgba: np.ndarray) -> bytes:
    """A PNG of ``(H, W, 4)`` uint8."""
    out = io.BytesIO()
    Image.fromarray(rgba).save(out, "PNG", optimize=False, compress_level=6)
    return out.getvalue()


def read_png(path: Path) -> np.ndarray:
    """``(H, W, 4)`` uint8, straight alpha; an image without alpha counts as wholly opaque.

    Raises:
        ReconlabError: The file is missing or damaged.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGBA"))
    except FileNotFoundError:
        raise ReconlabError(f"{path} is missing: rebuild this shape or take it off the split lists.") from None
    except Exception as error:  # Pillow raises SyntaxError, OSError, struct.error, ValueError, ...
        raise ReconlabError(f"{path} is not a readable image ({error}): rebuild this shape.") from error


def binvox_bytes(voxels: np.ndarray) -> bytes:
    """A ``.binvox`` file (run-length coded, y fastest) of ``(D, D, D)`` bool over [-0.5, 0.5]³, indexed [x, y, z]."""
    flat = np.ascontiguousarray(voxels.transpose(0, 2, 1)).reshape(-1).astype(np.uint8)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1, [len(flat)]])
    runs = bytearray()
    for value, length in zip(flat[starts[:-1]].tolist(), np.diff(starts).tolist(), strict=True):
        while length > 0:
            runs += bytes((value, min(length, 255)))
            length -= 255
    d = voxels.shape
    header = f"#binvox 1\ndim {d[0]} {d[2]} {d[1]}\ntranslate -0.5 -0.5 -0.5\nscale 1\ndata\n"
    return header.encode() + bytes(runs)


def read_binvox(path: Path) -> np.ndarray:
    """``(D, D, D)`` bool, indexed [x, y, z], whatever D is; translate and scale are not looked at.

    Raises:
        ReconlabError: The file is missing, no binvox, or damaged.
    """
    try:
        return parse(path.read_bytes()).cells
    except FileNotFoundError:
        raise ReconlabError(f"{path} is missing: rebuild this shape or take it off the split lists.") from None
    except (ValueError, OSError) as error:
        raise ReconlabError(f"{path} is not a readable binvox file ({error}): rebuild this shape.") from error


def views_of(folder: Path) -> tuple[Path, str]:
    """A shape's folder of pictures and their suffix: ours, or else that of the archive of Occupancy Networks."""
    ours, theirs = folder / VIEWS, folder / ARCHIVE_VIEWS
    return (ours, "png") if ours.is_dir() or not theirs.is_dir() else (theirs, "jpg")


def located(folder: Path, name: str) -> Path:
    """Where a shape's file is, given its name in this layout; pictures and cameras may be an archive's."""
    if name in (VIEWS, CAMERAS):
        return views_of(folder)[0] / Path(name).relative_to(VIEWS)
    return folder / name


def unpack_occupancies(packed: np.ndarray, count: int) -> np.ndarray:
    """``(count,)`` bool of ``points.npz``'s ``occupancies``, bits packed (as published archives) or plain."""
    if packed.dtype == np.uint8 and len(packed) == (count + 7) // 8 and count > 1:
        return np.unpackbits(packed, count=count).astype(bool)
    return packed.astype(bool)[:count]


def sha256(data: bytes) -> str:
    """The checksum in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def write_durable(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file as a whole: a reader sees the old or the new one, whatever happens meanwhile."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_durable(aside, data)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Make renames in a folder durable, where the platform can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_list(path: Path) -> list[str]:
    """The shape names of a split list, blank lines left out.

    Raises:
        ReconlabError: The list cannot be read.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ReconlabError(f"{path} cannot be read ({error}).") from error


def list_categories(root: Path) -> list[str]:
    """Folders of a dataset that hold split lists, sorted.

    Raises:
        ReconlabError: The dataset does not exist, or was not finished.
    """
    if not root.is_dir():
        raise ReconlabError(
            f"The dataset {root} does not exist: make it with `reconlab data build --out {root} ...` or correct root."
        )
    if (root / BUILDING).exists() and not (root / METADATA).exists():
        raise ReconlabError(f"The build of {root} was not finished: run the same `reconlab data build` again.")
    found = sorted(p.name for p in root.iterdir() if p.is_dir() and any((p / f"{s}.lst").exists() for s in SPLITS))
    if not found:
        raise ReconlabError(f"The dataset {root} has no category folder with train.lst, val.lst or test.lst.")
    return found
