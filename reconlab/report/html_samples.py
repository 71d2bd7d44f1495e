"""The samples of an HTML report: which are shown in 3D, and everything about them as JSON for the page."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconlab.errors import ReconlabError
from reconlab.report.html_geometry import encode
from reconlab.report.html_runs import Run, Sample, Value
from reconlab.report.html_truth import Dataset, Source, source_of

BUDGET = 22_000_000
"""Bytes of samples in a file if ``--samples`` is not given: with the script of the curves it stays below 30 MB."""
COLUMNS = 8
"""Runs side by side, at most."""

Key = tuple[str, str, int | None]


@dataclass(frozen=True)
class Shown:
    """The samples of a page.

    Attributes:
        runs: Side by side.
        metrics: In the order of the menus.
        samples: As JSON, in the order in which they were chosen: those with 3D first.
        total: Samples of the runs.
        with_shapes: Of these with 3D.
        simplified: Shapes whose faces (or points) were cut down to ``faces``.
        faces: That cap.
        notes: Sentences for the page.
    """

    runs: list[Run]
    metrics: list[Value]
    samples: list[dict[str, Any]]
    total: int
    with_shapes: int
    simplified: int
    faces: int
    notes: list[str]


def collect(
    runs: Sequence[Run],
    root: Path | None = None,
    count: int | None = None,
    faces: int = 8000,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Shown:
    """Everything that the page shows of the runs' samples.

    Args:
        runs: Those without samples are left out.
        root: The dataset of all runs, instead of those that their configs name.
        count: Samples with 3D; as many as :data:`BUDGET` allows if None.
        faces: Most faces (or points) of a shape; 0 for all.
        progress: Is told how many samples are done.

    Raises:
        ReconlabError: ``root`` is no dataset.
    """
    notes: list[str] = []
    using = [run for run in runs if run.samples]
    if len(using) > COLUMNS:
        left = ", ".join(run.name for run in using[COLUMNS:])
        notes.append(f"Samples of the first {COLUMNS} runs are shown; left out: {left}.")
        using = using[:COLUMNS]
    merged = merge(using)
    metrics = _metrics(using)
    sources = [source_of(run, root) for run in using]
    chosen = list(order(merged, metrics))
    limit = len(chosen) if count is None else min(count, len(chosen))
    out, size, simplified = [], 0, 0
    for position, key in enumerate(chosen):
        there = position < limit and (count is not None or size < BUDGET)
        entry = _numbers(key, merged[key])
        if there:
            size += _add_shapes(entry, key, merged[key], sources, faces or 1 << 62)
            simplified += sum(s["shown"] < s["count"] for s in _shapes(entry))
            progress(position + 1, limit)
        out.append(entry)
    with_shapes = sum(entry["has3d"] for entry in out)
    for source, run in zip(sources, using, strict=True):
        reason = getattr(source, "reason", None)
        if reason:
            notes.append(f"{run.name}: {reason}.")
    roots = list(dict.fromkeys(s.root.resolve() for s in sources if isinstance(s, Dataset)))
    if len(roots) > 1:
        notes.append(
            f"The runs name different datasets ({', '.join(map(str, roots))}): a sample's truth and input are those "
            "of the first run that has it. --root says which to show."
        )
    return Shown(using, metrics, out, len(out), with_shapes, simplified, faces, list(dict.fromkeys(notes)))


def merge(runs: Sequence[Run]) -> dict[Key, list[Sample | None]]:
    """The same samples of all runs side by side: by category and id, and by view where a run judges several."""
    by_view = any(
        len({(s.category, s.id) for s in run.samples}) < len({(s.category, s.id, s.view) for s in run.samples})
        for run in runs
    )  # a sample that two ranks judged (to fill a batch) is the same view twice
    merged: dict[Key, list[Sample | None]] = {}
    for index, run in enumerate(runs):
        for sample in run.samples:
            key = (sample.category, sample.id, sample.view if by_view else None)
            merged.setdefault(key, [None] * len(runs))[index] = sample
    return merged


def order(merged: dict[Key, list[Sample | None]], metrics: Sequence[Value]) -> Iterator[Key]:
    """The order in which samples get 3D: failed ones, then in turn the worst by each metric, and an even spread.

    Samples that all runs have come before those that only some have.
    """
    given: set[Key] = set()
    common = [k for k, row in merged.items() if all(row)]
    some = [k for k, row in merged.items() if not all(row)]
    for part in (common, some):
        failed = [k for k in part if any(s is not None and s.failed for s in merged[k])]
        rankings = [failed] if failed else []
        for value in metrics:
            numbers = {k: n for k in part if (n := _worst(merged[k], value)) is not None}
            rankings.append(sorted(numbers, key=lambda k: -numbers[k]))
        first = rankings[-len(metrics)] if metrics else part
        spread = [first[i] for i in _spread(len(first))]
        turns = itertools.zip_longest(*rankings, spread)
        for key in (*itertools.chain.from_iterable(turns), *part):
            if key is not None and key not in given:
                given.add(key)
                yield key


def _worst(row: Sequence[Sample | None], value: Value) -> float | None:
    sign = -1.0 if value.higher else 1.0
    numbers = [sign * n for s in row if s is not None and (n := s.values.get(value.name)) is not None]
    return max(numbers) if numbers else None


def _spread(count: int) -> list[int]:
    """Indices from the last (the best) inwards by halves: any prefix covers the whole range."""
    if count == 0:
        return []
    bits = max(1, (count - 1).bit_length())
    turned = [int(f"{i:0{bits}b}"[::-1], 2) for i in range(1 << bits)]
    return [count - 1 - i for i in turned if i < count]


def _metrics(runs: Sequence[Run]) -> list[Value]:
    found: dict[str, Value] = {}
    for run in runs:
        names = dict.fromkeys(name for sample in run.samples for name in sample.values)
        for name in names:
            if any(s.values.get(name) is not None for s in run.samples):
                found.setdefault(name, run.values[name])
    return list(found.values())


def _numbers(key: Key, row: Sequence[Sample | None]) -> dict[str, Any]:
    category, name, view = key
    runs = [None if s is None else {"values": s.values, "failed": s.failed, "shape": None, "note": ""} for s in row]
    return {"category": category, "id": name, "view": view, "runs": runs, "has3d": False, "truth": None, "note": ""}


def _add_shapes(
    entry: dict[str, Any], key: Key, row: Sequence[Sample | None], sources: Sequence[Source], faces: int
) -> int:
    """Put truth, input and predictions into an entry; what cannot be read is named there. Returns its bytes."""
    from reconlab.lab.evaluate_files import read_raw

    category, name, view = key
    entry["has3d"] = True
    for sample, source in zip(row, sources, strict=True):
        if sample is None or entry["truth"] is not None:
            continue
        shown = view if view is not None else sample.view or 0
        try:
            entry["truth"] = encode(*source.truth(category, name), faces)
        except ReconlabError as error:
            entry["note"] = f"No truth: {str(error).rstrip('.')}."
            continue
        entry["note"] = ""
        try:
            image = source.image(category, name, shown)
            entry["image"] = None if image is None else base64.b64encode(image).decode("ascii")
            entry["camera"] = source.direction(category, name, shown)
        except ReconlabError as error:
            entry["note"] = f"No input image: {str(error).rstrip('.')}."
    given = {s.view for s in row if s is not None and s.view is not None}
    if len(given) > 1:
        views = ", ".join(map(str, sorted(given)))
        entry["note"] = f"{entry['note']} The runs were given different views: {views}.".strip()
    for slot, sample in zip(entry["runs"], row, strict=True):
        if slot is None or sample is None:
            continue
        if sample.file is None:
            slot["note"] = "No prediction was written: it was empty or not finite." if sample.failed else "No file."
            continue
        try:
            raw = read_raw(sample.file)
            slot["shape"] = encode(raw.vertices, raw.faces, faces)
        except ReconlabError as error:
            slot["note"] = str(error)
    return len(json.dumps(entry))


def _shapes(entry: dict[str, Any]) -> list[dict[str, Any]]:
    found = [entry["truth"], *(slot["shape"] for slot in entry["runs"] if slot is not None)]
    return [shape for shape in found if shape is not None]
