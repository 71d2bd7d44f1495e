"""Comparing the configs of runs: which are the same experiment, and what others differ in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from reconlab.report.html_runs import Run

IGNORED = ("seed_everything", "out", "ckpt_path", "data.seed")
"""Keys of a config in which runs of the same experiment differ."""


def experiment(run: Run) -> str:
    """A key that runs of the same config share, whatever their seeds."""
    flat = flatten(run.config)
    return json.dumps({k: v for k, v in sorted(flat.items()) if k not in IGNORED}, sort_keys=True, default=str)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys.

    Example:
        >>> flatten({"a": {"b": 1, "c": [2]}, "d": {}})
        {'a.b': 1, 'a.c': [2], 'd': {}}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value
    return flat


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """The keys in which the configs of runs differ, and each run's value ("–" where it has none)."""
    flat = [flatten(run.config) for run in runs]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [(key, [_shown(one[key]) if key in one else "–" for one in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
