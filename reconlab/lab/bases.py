"""``base:`` in a config file: the configs that it lies over, so that one file is one experiment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from reconlab.errors import ReconlabError


def read_config(file: str | Path, named_by: str | Path | None = None) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Args:
        file: To read.
        named_by: The file whose ``base`` it is, for the error messages.

    Raises:
        ReconlabError: It is missing, is no text, or is not a YAML mapping; both files are named.
    """
    who = f"The config {file}" + (f", the base of {named_by}," if named_by is not None else "")
    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ReconlabError(f"{who} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ReconlabError(f"{who} is not UTF-8 text.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2024-13-45
        raise ReconlabError(f"{who} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise ReconlabError(f"{who} is not a mapping of keys to values.")
    return content


def check_yaml(argv: Sequence[str]) -> list[str]:
    """The config files that a command line names, each read once to see that it is YAML.

    Raises:
        ReconlabError: A file is missing, is not text, or is not a YAML mapping; it is named.
    """
    files = []
    for i, argument in enumerate(argv):
        if argument in ("-c", "--config") and i + 1 < len(argv):
            files.append(argv[i + 1])
        elif argument.startswith("--config="):
            files.append(argument.split("=", 1)[1])
    for file in files:
        read_config(file)
    return files


def with_bases(file: str | Path) -> list[str]:
    """The files that a config stands for: its bases, theirs before them, and itself last.

    A base is a path relative to the file that names it, or a list of such paths, of which later ones win. A file
    that is reached twice is read where it first comes.

    Raises:
        ReconlabError: A file is missing or no mapping, ``base`` is neither a path nor a list of paths, or files are
            bases of one another.
    """
    found: list[str] = []
    _collect(Path(file), None, [], found)
    return found


def _collect(file: Path, named_by: Path | None, above: list[Path], found: list[str]) -> None:
    content = read_config(file, named_by)
    bases = content.get("base") or []
    if isinstance(bases, str):
        bases = [bases]
    if not isinstance(bases, list) or not all(isinstance(b, str) for b in bases):
        raise ReconlabError(f"base of the config {file} is {content['base']!r}: name a file, or a list of files.")
    for name in bases:
        base = file.parent / name
        if any(base.resolve() == other.resolve() for other in (*above, file)):
            raise ReconlabError(f"The configs {file} and {base} are bases of one another: take `base` out of one.")
        if not any(base.resolve() == Path(f).resolve() for f in found):
            _collect(base, file, [*above, file], found)
    found.append(str(file))


def expand_configs(argv: list[str]) -> list[str]:
    """A command line in which every ``--config`` is preceded by the bases of its file.

    Raises:
        ReconlabError: As :func:`with_bases`, or ``--base`` is an option.
    """
    given: list[str] = []
    rest = iter(argv)
    for argument in rest:
        if argument == "--base" or argument.startswith("--base="):
            raise ReconlabError("base is a key of config files: on the command line give several --config instead.")
        if argument in ("-c", "--config"):
            file = next(rest, None)
            if file is None:
                given.append(argument)
                continue
        elif argument.startswith("--config="):
            file = argument.split("=", 1)[1]
        else:
            given.append(argument)
            continue
        given += [f"--config={name}" for name in with_bases(file)]
    return given
