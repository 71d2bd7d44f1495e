"""Sweeps: a W&B sweep file, its cells, and the command of each. What runs them is in ``sweep_run``."""

from __future__ import annotations

import contextlib
import fnmatch
import itertools
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from reconlab.errors import ReconlabError
from reconlab.lab.bases import read_config, with_bases

KEYS = {"name", "description", "method", "command", "parameters", "program", "project", "entity", "metric", "run_cap"}
"""Top-level keys of a W&B sweep that mean something here or may be passed over."""
SPECIAL = {"config": "row", "seed_everything": "seed", "data.categories": "group"}


@dataclass(frozen=True)
class Sweep:
    """A sweep file.

    Attributes:
        name: Its ``name``, else the file's stem.
        file: The file.
        command: As written, macros and all.
        program: W&B's ``${program}``.
        axes: Values by parameter, in the file's order.
    """

    name: str
    file: Path
    command: tuple[str, ...]
    program: str
    axes: Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Cell:
    """One training of a sweep.

    Attributes:
        name: Readable and unique within the sweep; a folder's name.
        parameters: Value by parameter of the sweep.
        row: Value of ``config``; None where the sweep has no such axis.
        group: Value of ``data.categories``, without brackets.
        seed: Value of ``seed_everything``.
        arguments: The command, macros replaced: what W&B's agent would run, but for the interpreter's path.
        options: What comes after it: the profile's, the row's, the user's.
    """

    name: str
    parameters: Mapping[str, Any]
    row: str | None
    group: str | None
    seed: int | None
    arguments: tuple[str, ...]
    options: tuple[str, ...] = field(default=())

    @property
    def command(self) -> list[str]:
        """The whole command, but for the run directory's place."""
        return [*self.arguments, *self.options]


def load_sweep(file: str | Path) -> Sweep:
    """Read a W&B sweep of method ``grid``.

    Raises:
        ReconlabError: The file is missing or no sweep, or its method cannot be run without W&B's server.
    """
    path = Path(file)
    if not path.is_file():
        raise ReconlabError(f"There is no sweep file {file}: name one of configs/sweeps/.")
    content = read_config(path)
    unknown = sorted(str(key) for key in set(content) - KEYS)
    if unknown:
        raise ReconlabError(
            f"The sweep {file} has the key {unknown[0]!r}, which is none of {', '.join(sorted(KEYS))}."
        )
    method = content.get("method")
    if method in ("random", "bayes"):
        raise ReconlabError(
            f"The sweep {file} has method {method}, which needs W&B's server (wandb sweep, wandb agent): "
            "reconlab sweep runs method grid."
        )
    if method != "grid":
        raise ReconlabError(f"The sweep {file} has method {method!r}: expected grid.")
    parameters = content.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        raise ReconlabError(f"The sweep {file} has no parameters: name at least one, with its values.")
    command = content.get("command", ["${env}", "${interpreter}", "${program}", "${args}"])
    if not isinstance(command, list) or not command:
        raise ReconlabError(f"command of the sweep {file} is {command!r}: expected a list of words.")
    axes = {str(key): _values(path, str(key), entry) for key, entry in parameters.items()}
    name = re.sub(r"[^\w.-]+", "_", str(content.get("name") or path.stem))
    if not name.strip("."):
        raise ReconlabError(f"The sweep {file} has the name {name!r}, which is no folder's: choose another.")
    return Sweep(name, path, tuple(str(c) for c in command), str(content.get("program") or ""), axes)


def _values(file: Path, key: str, entry: Any) -> tuple[Any, ...]:
    if isinstance(entry, dict) and isinstance(entry.get("values"), list) and entry["values"]:
        values = entry["values"]
    elif isinstance(entry, dict) and "value" in entry:
        values = [entry["value"]]
    else:
        raise ReconlabError(f"parameters.{key} of the sweep {file} has neither values (a list) nor value.")
    for value in values:
        if isinstance(value, dict | list):
            raise ReconlabError(
                f"parameters.{key} of the sweep {file} has the value {value!r}: write lists as text, '[a, b]', as "
                "W&B wants them."
            )
    if len({str(v) for v in values}) < len(values):
        raise ReconlabError(f"parameters.{key} of the sweep {file} names a value twice.")
    return tuple(values)


def expand(sweep: Sweep) -> list[Cell]:
    """The cells of a grid, the last parameter changing fastest.

    Raises:
        ReconlabError: A config that the sweep names does not exist.
    """
    combinations = [dict(zip(sweep.axes, values, strict=True)) for values in itertools.product(*sweep.axes.values())]
    names = [_cell_name(c, long=False) for c in combinations]
    if len(set(names)) < len(names):  # two rows of one file name in different folders
        names = [_cell_name(c, long=True) for c in combinations]
    if len(set(names)) < len(names):
        names = [f"{name}-{i:03d}" for i, name in enumerate(names)]
    cells = []
    for name, parameters in zip(names, combinations, strict=True):
        seed = parameters.get("seed_everything")
        group = parameters.get("data.categories")
        cells.append(
            Cell(
                name,
                parameters,
                None if "config" not in parameters else str(parameters["config"]),
                None if group is None else str(group).strip("[] "),
                seed if isinstance(seed, int) else None,
                tuple(place_configs(macros(sweep, parameters), sweep.file)),
            )
        )
    return cells


def _cell_name(parameters: Mapping[str, Any], long: bool) -> str:
    parts = []
    for key, value in parameters.items():
        if key == "config":
            path = Path(str(value)).with_suffix("")
            parts.append("_".join(path.parts[-2:]) if long else path.name)
    for key, value in parameters.items():
        if key == "data.categories":
            parts.append(str(value).strip("[] "))
        elif key == "seed_everything":
            parts.append(f"seed{value}")
        elif key != "config":
            parts.append(f"{key.rsplit('.', 1)[-1]}{value}")
    return re.sub(r"[^\w.+-]+", "_", "-".join(parts)).strip("_.")[:150] or "cell"


def macros(sweep: Sweep, parameters: Mapping[str, Any]) -> list[str]:
    """The command with W&B's macros replaced as its agent does, ``${env}`` by nothing.

    ``reconlab`` and the interpreter become this Python's own, which need not be on the path.

    Raises:
        ReconlabError: A macro that W&B does not have.
    """
    flags = [f"{key}={value}" for key, value in parameters.items()]
    known: dict[str, list[str]] = {
        "env": [],
        "interpreter": [sys.executable],
        "program": [sweep.program],
        "args": [f"--{flag}" for flag in flags],
        "args_no_hyphens": flags,
        "args_no_equals": [word for key, value in parameters.items() for word in (f"--{key}", str(value))],
        "args_no_boolean_flags": [
            f"--{key}" if value is True else f"--{key}={value}"
            for key, value in parameters.items()
            if value is not False
        ],
    }
    words: list[str] = []
    for word in sweep.command:
        if not (word.startswith("${") and word.endswith("}")):
            words.append(word)
        elif word[2:-1] in known:
            words += known[word[2:-1]]
        else:
            raise ReconlabError(f"command of the sweep {sweep.file} has {word}: known are {', '.join(known)}.")
    if words and words[0] == "reconlab":
        words[:1] = [sys.executable, "-m", "reconlab.cli"]
    return words


def place_configs(words: Sequence[str], near: Path) -> list[str]:
    """``--config`` paths that exist from here as they are, others as a folder above ``near`` has them.

    Raises:
        ReconlabError: No folder has it.
    """
    placed, rest = [], iter(words)
    for word in rest:
        if word == "--config":
            word = f"--config={next(rest, '')}"
        placed.append(f"--config={_place(word[9:], near)}" if word.startswith("--config=") else word)
    return placed


def _place(name: str, near: Path) -> str:
    if Path(name).is_file():
        return name
    for folder in near.resolve().parents:
        if (folder / name).is_file():
            return str(folder / name)
    raise ReconlabError(f"{near} names the config {name}, which does not exist here or in a folder above it.")


def choose(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """The cells that all of ``only`` admit.

    Args:
        cells: Of the sweep.
        only: Conditions such as ``row=full,l1``, ``seed=0``, ``group=car`` or ``cell=full*``; patterns as in a shell.

    Raises:
        ReconlabError: A condition is none, or admits no cell.
    """
    kept = list(cells)
    for condition in only:
        key, equals, text = condition.partition("=")
        if not equals or key not in ("row", "seed", "group", "cell"):
            raise ReconlabError(f"--only {condition} is none of row=…, seed=…, group=… and cell=….")
        patterns = [p.strip() for p in text.split(",")]
        known = sorted({_label(c, key) for c in cells})
        for pattern in patterns:
            if not any(fnmatch.fnmatchcase(k, pattern) for k in known):
                shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
                raise ReconlabError(f"--only {condition}: no cell has {key} {pattern!r}; there are {shown}.")
        kept = [c for c in kept if any(fnmatch.fnmatchcase(_label(c, key), p) for p in patterns)]
    if not kept:
        raise ReconlabError(f"--only {' --only '.join(only)}: no cell has all of these.")
    return kept


def _label(cell: Cell, key: str) -> str:
    if key == "row":
        return Path(cell.row).stem if cell.row else ""
    return str({"seed": cell.seed, "group": cell.group, "cell": cell.name}[key])


def steps_of(command: Sequence[str]) -> int | None:
    """``trainer.max_steps`` of a command line, as its configs and options have it; None where they do not say."""
    found: Any = None
    for word in command:
        if word.startswith("--config="):
            for file in with_bases(word[9:]):
                trainer = read_config(file).get("trainer")
                if isinstance(trainer, dict) and "max_steps" in trainer:
                    found = trainer["max_steps"]
        elif word.startswith("--trainer.max_steps="):
            with contextlib.suppress(yaml.YAMLError, ValueError):  # the command itself will say so
                found = yaml.safe_load(word.split("=", 1)[1])
    return found if isinstance(found, int) and found > 0 else None


def check_options(sweep: Sweep, cells: Sequence[Cell]) -> None:
    """Refuse options that would make cells other than their names, records and folders say.

    Raises:
        ReconlabError: A profile's, a row's or the user's option sets a parameter of the sweep (all seeds would be
            one), or where the runs go.
    """
    axes = [key for key in sweep.axes if key != "config"]
    for word in dict.fromkeys(word for cell in cells for word in cell.options):
        key = word.partition("=")[0].removeprefix("--")
        if key in ("out", "name"):
            raise ReconlabError(
                f"{word}: a sweep places its cells' runs itself; choose its folder by --out before --."
            )
        files = with_bases(word[9:]) if word.startswith("--config=") else []
        for axis in axes:
            if key == axis or any(_says(read_config(file), axis) for file in files):
                raise ReconlabError(
                    f"{word} sets {axis}, which is a parameter of the sweep {sweep.file}: all its cells would have "
                    "that one value. Leave it out, or choose cells by --only."
                )


def _says(content: Any, key: str) -> bool:
    """Whether a config gives a dotted key."""
    for part in key.split("."):
        if not isinstance(content, dict) or part not in content:
            return False
        content = content[part]
    return content is not None
