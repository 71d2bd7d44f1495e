"""Decoded arrays on disk, mapped into memory: what reading a shape's files gives, kept as it is.

A shard holds one kind of content of the shapes of one category and split: the arrays one after another, each at a
multiple of 64 bytes, then a table of where they are, then 24 bytes that say where the table is and what its checksum
is. So a file that was cut off anywhere has no valid end. Workers map the same file and share the pages that the
system keeps of it. :mod:`reconlab.datasets.decode` writes shards and decides which may be read.
"""

from __future__ import annotations

import json
import mmap
import os
import platform
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reconlab.datasets import format as files
from reconlab.errors import ReconlabError

SUFFIX = ".decoded"
ALIGN = 64
PICTURES = "pictures"
NAMES: dict[str, tuple[str, ...]] = {
    "cameras": ("R", "t", "focal", "centre"),
    "surface": ("points", "normals"),
    "queries": ("points", "occupancies"),
    "voxels": ("voxels",),
    "mesh": ("vertices", "faces"),
}
"""The arrays of each kind in their order; the last may be absent. Of pictures they are numbered."""
_RECORD = np.dtype([("offset", "<i8"), ("type", "<i2"), ("ndim", "<i2"), ("shape", "<i4", (4,)), ("crc", "<u4")])
_END = struct.Struct("<8sQII")  # magic, where the table begins, its checksum, 0
_MAGIC = b"RCNLSHD1"
_BITS = "bits"


class UnusableError(Exception):
    """A shard that may not be read; the text says why."""


class Shard:
    """One open file; reading it needs no lock.

    Args:
        path: The file.
        fingerprint: Of the dataset and settings that it must have been made of; any if None.

    Raises:
        UnusableError: It is damaged, or was made of something else.
        FileNotFoundError: There is none.
    """

    def __init__(self, path: Path, fingerprint: str | None) -> None:
        self.path = path
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < _END.size:
                raise UnusableError("is damaged (cut off)")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        magic, start, crc, _ = _END.unpack(self._map[size - _END.size :])
        tail = self._map[start : size - _END.size] if magic == _MAGIC and start < size else b""
        if not tail or zlib.crc32(tail) != crc:
            raise UnusableError("is damaged (its table does not agree with its checksum)")
        head, _, _ = tail.partition(b"\n")
        self.header: dict[str, Any] = json.loads(head)
        if fingerprint is not None and self.header["fingerprint"] != fingerprint:
            raise UnusableError("was made of another state of the dataset")
        counts, at = (len(self.header["names"]) + 1, self.header["arrays"]), start + len(head) + 1
        self._first = np.frombuffer(self._map, "<i8", counts[0], at)
        self._table = np.frombuffer(self._map, _RECORD, counts[1], at + 8 * counts[0])
        self._place = {name: i for i, name in enumerate(self.header["names"])}

    def count(self, name: str) -> int:
        """Arrays of a shape."""
        i = self._place[name]
        return int(self._first[i + 1] - self._first[i])

    def array(self, name: str, number: int) -> np.ndarray:
        """One array of a shape, as it was given to :func:`write_shard`; not to be written to."""
        return self._read(int(self._first[self._place[name]]) + number)

    def _read(self, row: int) -> np.ndarray:
        offset, kind, ndim, shape, _ = self._table[row].item()
        shape = tuple(shape[:ndim])
        count = 1
        for n in shape:
            count *= n
        if (code := self.header["types"][kind]) != _BITS:
            return np.frombuffer(self._map, code, count, offset).reshape(shape)
        packed = np.frombuffer(self._map, np.uint8, (count + 7) // 8, offset)
        return np.unpackbits(packed, count=count).view(bool).reshape(shape)

    def damaged(self) -> list[str]:
        """Shapes whose arrays do not agree with their checksums; reads all of the file."""
        found = []
        for name, i in self._place.items():
            rows = range(int(self._first[i]), int(self._first[i + 1]))
            if any(zlib.crc32(_bytes(self._read(row))) != int(self._table[row]["crc"]) for row in rows):
                found.append(name)
        return found


def _bytes(array: np.ndarray) -> memoryview:
    stored = np.packbits(array) if array.dtype == bool else np.ascontiguousarray(array)
    return stored.reshape(-1).view(np.uint8).data


def write_shard(
    path: Path, header: Mapping[str, Any], names: Sequence[str], parts: Iterable[Sequence[np.ndarray]]
) -> None:
    """Write a shard aside, wait for the disk, and rename it into place; bool is packed to bits.

    Args:
        path: Its file; one that is there is replaced, and whoever has mapped it keeps what it was.
        header: Kept in it; ``fingerprint`` must be there.
        names: Of the shapes, each once.
        parts: The arrays of each shape, of at most four dimensions.

    Raises:
        OSError: The disk is full, or cannot be written; nothing is left then.
    """
    aside = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")
    types: list[str] = []
    rows: list[tuple[int, int, int, list[int], int]] = []
    first, at = [0], 0
    try:
        with aside.open("wb") as file:
            for arrays in parts:
                for array in arrays:
                    code = _BITS if array.dtype == bool else array.dtype.str
                    if code not in types:
                        types.append(code)
                    data = _bytes(array)
                    shape = [*array.shape, *[0] * (4 - array.ndim)]
                    rows.append((at, types.index(code), array.ndim, shape, zlib.crc32(data)))
                    pad = -len(data) % ALIGN
                    file.write(data)
                    file.write(bytes(pad))
                    at += len(data) + pad
                first.append(len(rows))
            known = {**header, "types": types, "names": list(names), "arrays": len(rows)}
            head = json.dumps(known).encode()
            head += b" " * (-(len(head) + 1) % 8) + b"\n"  # so that the table is aligned
            tail = head + np.array(first, "<i8").tobytes() + _table(rows).tobytes()
            file.write(tail + _END.pack(_MAGIC, at, zlib.crc32(tail), 0))
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        files.sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def _table(rows: list[tuple[int, int, int, list[int], int]]) -> np.ndarray:
    table = np.zeros(len(rows), _RECORD)
    for column, field in enumerate(("offset", "type", "ndim", "shape", "crc")):
        if rows:
            table[field] = [row[column] for row in rows]
    return table


class Decoded:
    """The shards of one split, opened where they are first read: in each worker anew.

    Args:
        shards: File and fingerprint by category and kind.
    """

    def __init__(self, shards: Mapping[tuple[str, str], tuple[Path, str]]) -> None:
        self.shards = dict(shards)
        self._open: dict[tuple[str, str], Shard] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"shards": self.shards, "_open": {}}

    def shard(self, category: str, kind: str) -> Shard:
        """The open shard.

        Raises:
            ReconlabError: It was there when the run began, and is not any more.
        """
        if (category, kind) not in self._open:
            path, fingerprint = self.shards[category, kind]
            try:
                self._open[category, kind] = Shard(path, fingerprint)
            except (OSError, UnusableError) as error:
                raise ReconlabError(f"{path} was changed during the run ({error}): start again.") from error
        return self._open[category, kind]

    def arrays(self, category: str, name: str, kind: str) -> dict[str, np.ndarray]:
        """What reading the shape's file gives, by name."""
        shard = self.shard(category, kind)
        names = NAMES[kind.partition("-")[0]][: shard.count(name)]
        return {n: shard.array(name, i) for i, n in enumerate(names)}
