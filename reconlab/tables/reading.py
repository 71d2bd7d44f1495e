"""Reading a mapping of a YAML file so that every mistake in it is one sentence with the file and the key."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import yaml

from reconlab.errors import ReconlabError


def close_to(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: what it may have meant, or what there is.

    Example:
        >>> close_to("metrik", ["metric", "group"])
        "did you mean 'metric'?"
    """
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known) or 'none'}."


class Entry:
    """A mapping and the place where it stands.

    Args:
        content: What the file holds there.
        file: The file, for the sentences.
        where: The path of keys down to it, ``""`` at the top.
        keys: The keys that it may have.

    Raises:
        ReconlabError: It is no mapping, or has another key.
    """

    def __init__(self, content: Any, file: Path, where: str, keys: Iterable[str]) -> None:
        self.file, self.where = file, where
        if not isinstance(content, dict):
            raise ReconlabError(f"{file}: {where or 'the file'} must be a mapping of keys, not {_kind(content)}.")
        self.content = content
        known = list(keys)
        for key in content:
            if key not in known:
                raise ReconlabError(f"{file}: unknown key {self.at(str(key))!r}; {close_to(str(key), known)}")

    def at(self, key: str) -> str:
        """The path of a key."""
        return f"{self.where}.{key}" if self.where else key

    def wrong(self, key: str, sentence: str) -> NoReturn:
        """Raise a sentence about a key."""
        raise ReconlabError(f"{self.file}: {self.at(key)} {sentence}")

    def __contains__(self, key: str) -> bool:
        return self.content.get(key) is not None

    def text(self, key: str, default: str | None = None) -> str:
        """A string; needed where there is no default."""
        value = self.content.get(key)
        if value is None:
            if default is None:
                self.wrong(key, "is missing.")
            return default
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            self.wrong(key, f"must be text, not {_kind(value)}.")
        return str(value)

    def number(self, key: str, default: float) -> float:
        """A finite number."""
        value = self.content.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self.wrong(key, f"must be a number, not {value!r}.")
        return float(value)

    def flag(self, key: str) -> bool:
        """True or false; false where it is not there."""
        value = self.content.get(key, False)
        if not isinstance(value, bool):
            self.wrong(key, f"must be true or false, not {value!r}.")
        return value

    def choice(self, key: str, default: str, choices: tuple[str, ...]) -> str:
        """One of some words."""
        value = self.text(key, default)
        if value not in choices:
            self.wrong(key, f"is {value!r}; choose one of {', '.join(choices)}.")
        return value

    def items(self, key: str) -> list[Any]:
        """A list; empty where it is not there."""
        value = self.content.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self.wrong(key, f"must be a list, not {_kind(value)}.")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        found = self.items(key)
        for value in found:
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                self.wrong(key, f"must be a list of texts, but holds {_kind(value)}.")
        return tuple(str(value) for value in found)

    def mapping(self, key: str) -> dict[str, Any]:
        """A mapping with text keys; empty where it is not there."""
        value = self.content.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.wrong(key, f"must be a mapping, not {_kind(value)}.")
        return {str(k): v for k, v in value.items()}

    def entries(self, key: str, keys: Iterable[str]) -> Iterator[Entry]:
        """The mappings of a list."""
        keys = tuple(keys)
        for i, value in enumerate(self.items(key)):
            yield Entry(value, self.file, f"{self.at(key)}[{i}]", keys)


def read_yaml(file: Path) -> Any:
    """The content of a YAML file.

    Raises:
        ReconlabError: It is missing, unreadable or no YAML, or it has a key twice.
    """
    try:
        return yaml.load(file.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError:
        raise ReconlabError(f"{file} does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ReconlabError(f"{file} cannot be read: {error}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2024-13-45
        raise ReconlabError(f"{file} is not valid YAML: {' '.join(str(error).split())}.") from error


class _UniqueKeys(yaml.SafeLoader):
    """YAML whose mappings may not have a key twice: of two numbers for one cell, one would be lost."""


def _unique(loader: _UniqueKeys, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, str | int | float | bool):
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
    return dict(yaml.SafeLoader.construct_mapping(loader, node, deep))


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique)


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: f"the text {value!r}", type(None): "empty", bool: repr(value)}
    return names.get(type(value), f"{value!r}")
