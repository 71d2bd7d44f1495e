"""Reading Torch7's ASCII serialisation: tables of strings and numbers, nothing else, and nothing is executed.

The format is a stream of objects, each a type number and its content, in tokens that end with a line feed:
0 nil; 1 number; 2 string (length, then as many bytes, line feeds included); 3 table (index, number of pairs, keys and
values in turn); 4 object of a Torch class; 5 boolean; 6 to 8 function (index, length, byte code, table of upvalues).
A table or function whose index was seen before is that one again, without content.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from reconlab.errors import ReconlabError

_NIL, _NUMBER, _STRING, _TABLE, _TORCH, _BOOLEAN = range(6)
_FUNCTIONS = (6, 7, 8)
_DEEPEST = 100  # tables within tables: more is a damaged or hostile file, and would exhaust Python's stack


class Opaque(NamedTuple):
    """Something that has no Python value and was skipped: a function, or a table that serves as a key."""

    what: str
    number: int


class _StreamError(Exception):
    """What is wrong with the stream, to be said with the file's name."""


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.seen: dict[int, Any] = {}

    def token(self, kind: type[int] | type[float]) -> Any:
        match = re.compile(rb"\s*([^\s]+)\n?").match(self.data, self.at)
        if match is None:
            raise _StreamError("it ends too early")
        try:
            value = kind(match[1])
        except ValueError:
            shown = match[1][:20].decode("ascii", "backslashreplace")
            raise _StreamError(f"it has {shown!r} at byte {self.at}, where a number should be") from None
        self.at = match.end()
        return value

    def string(self) -> str:
        length = self.token(int)
        if not 0 <= length <= len(self.data) - self.at:
            raise _StreamError(f"it has a string of length {length}, more than is left of the file")
        raw = self.data[self.at : self.at + length]
        self.at += length
        if self.data[self.at : self.at + 1] == b"\n":
            self.at += 1
        return raw.decode("utf-8", "replace")

    def value(self, depth: int = 0) -> Any:
        if depth > _DEEPEST:
            raise _StreamError(f"its tables are nested more than {_DEEPEST} deep")
        kind = self.token(int)
        if kind == _NIL:
            return None
        if kind == _NUMBER:
            number = self.token(float)
            return int(number) if number.is_integer() else number
        if kind == _STRING:
            return self.string()
        if kind == _BOOLEAN:
            return self.token(int) == 1
        if kind not in (_TABLE, _TORCH, *_FUNCTIONS):
            raise _StreamError(f"it has an object of type {kind}, which Torch7 does not know")
        index = self.token(int)
        if index in self.seen:
            return self.seen[index]
        if kind in _FUNCTIONS:
            self.seen[index] = Opaque("function", index)
            self.string()
            self.value(depth + 1)
            return self.seen[index]
        if kind == _TORCH:
            version = self.string()
            name = self.string() if version.startswith("V ") else version
            raise _StreamError(f"it has an object of the class {name}, and only tables, strings and numbers are read")
        table: dict[Any, Any] = {}
        self.seen[index] = table
        for _ in range(self.token(int)):
            key = self.value(depth + 1)
            value = self.value(depth + 1)
            table[Opaque("table", id(key)) if isinstance(key, dict) else key] = value
        return table


def read_torch7(path: Path) -> Any:
    """The first object of a Torch7 ASCII file.

    Returns:
        Tables as dicts, whole numbers as int; a skipped function as :class:`Opaque`.

    Raises:
        ReconlabError: The file cannot be read, is no Torch7 ASCII file, or holds an object of a Torch class.
    """
    try:
        return _Reader(path.read_bytes()).value()
    except OSError as error:
        raise ReconlabError(f"{path} cannot be read ({error.strerror or error}).") from error
    except _StreamError as error:
        raise ReconlabError(f"{path} is not a Torch7 ASCII file that can be read: {error}.") from None


def as_list(table: Any) -> list[Any] | None:
    """The values of a Lua array (keys 1 to n, in any order) in sequence; None if it is none."""
    if not isinstance(table, dict) or set(table) != set(range(1, len(table) + 1)):
        return None
    return [table[i] for i in range(1, len(table) + 1)]
