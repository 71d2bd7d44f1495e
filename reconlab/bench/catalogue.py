"""Everything that can be measured, and the choice of it by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from reconlab.bench import cases_growth, cases_meshes, cases_points
from reconlab.bench.case import Case, Growing, Operator
from reconlab.errors import ReconlabError

OPERATORS: tuple[Operator, ...] = (*cases_meshes.OPERATORS, *cases_points.OPERATORS)
GROWTHS: tuple[Growing, ...] = cases_growth.GROWTHS
GROUPS = {"ratios": "all comparisons, no growth", "growth": "all growths, no comparison"}
WORKERS = "workers"
"""Name of the measurement of builds over processes."""


@dataclass(frozen=True)
class Choice:
    """What is to be measured."""

    cases: tuple[tuple[Operator, Case], ...]
    growths: tuple[Growing, ...]
    workers: bool

    def __len__(self) -> int:
        return len(self.cases) + len(self.growths) + self.workers


def names() -> dict[str, str]:
    """What ``--only`` takes, with a clause on each."""
    found: dict[str, list[str]] = {}
    for operator in OPERATORS:
        found.setdefault(operator.name, []).append(operator.title)
    for growing in GROWTHS:
        found.setdefault(growing.name, []).append(f"growth: {growing.title}")
    found[WORKERS] = ["Dataset builds over processes (wall time)"]
    return {name: "; ".join(titles) for name, titles in found.items()} | GROUPS


def choose(only: Sequence[str] | None, quick: bool, on_gpu: bool) -> Choice:
    """The cases and growths of the given names; all if None.

    Raises:
        ReconlabError: A name is unknown, or nothing is left.
    """
    known = names()
    for name in only or ():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(known)}."
            raise ReconlabError(f"There is no case {name!r} to measure; {hint}")
    wanted = set(only) if only else {"ratios", "growth"}
    cases = tuple(
        (operator, case)
        for operator in OPERATORS
        for case in operator.cases
        if wanted & {operator.name, "ratios"} and case.quick >= quick and operator.on_gpu >= on_gpu
    )
    growths = tuple(
        growing
        for growing in GROWTHS
        if wanted & {growing.name, "growth"} and growing.quick >= quick and growing.on_gpu >= on_gpu
    )
    workers = bool(wanted & {WORKERS, "growth"}) and not quick and not on_gpu
    chosen = Choice(cases, growths, workers)
    if not len(chosen):
        kept_out = " --quick" * quick + " --device cuda" * on_gpu
        raise ReconlabError(f"Nothing of {', '.join(only or ())} is measured with{kept_out}.")
    return chosen
