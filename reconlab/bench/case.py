"""What a measurement is made of: a case and its contestants, and a cost that grows; and whether answers agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

OURS = "reconlab"

Answer = tuple[Tensor, ...]


@dataclass(frozen=True)
class Setting:
    """Where and with whom is measured.

    Attributes:
        device: ``cpu`` or a GPU, as torch names it.
        peers: Names of :data:`reconlab.bench.peers.PEERS` that take part.
        quick: Take the small sizes alone.
        seed: Of the inputs.
        scratch: A folder for files that a measurement needs; it is removed afterwards.
    """

    device: str = "cpu"
    peers: frozenset[str] = frozenset()
    quick: bool = False
    seed: int = 0
    scratch: Path = Path()

    @property
    def on_cpu(self) -> bool:
        """Whether the CPU is measured: programs that know no GPU then take part."""
        return self.device == "cpu"

    def generator(self, more: int = 0) -> torch.Generator:
        """Of random inputs, drawn on the CPU: a seed means the same everywhere."""
        return torch.Generator().manual_seed(1000 * self.seed + more)


def flat(result: Any) -> Answer:
    """A tensor, or a tuple of some, as an answer."""
    return (result,) if isinstance(result, Tensor) else tuple(result)


@dataclass(frozen=True)
class Contestant:
    """One way to do the work of a case.

    Attributes:
        run: Does it; this is timed.
        answer: Makes of what ``run`` returned the tensors that are compared; this is not timed.
        tolerance: How far the answer may be from the first contestant's, see :func:`difference`; None if another
            thing is computed, whose answer need only be finite.
    """

    run: Callable[[], Any]
    answer: Callable[[Any], Answer] = flat
    tolerance: float | None = 1e-3


@dataclass(frozen=True)
class Case:
    """One size of an operator's work.

    Attributes:
        key: Its name within the operator, fit for a file's name.
        title: As the page says it.
        build: Makes the contestants, ours first.
        quick: Whether ``--quick`` takes it.
    """

    key: str
    title: str
    build: Callable[[Setting], dict[str, Contestant]]
    quick: bool = False


@dataclass(frozen=True)
class Operator:
    """Cases that share contestants, and so a table.

    Attributes:
        name: As ``--only`` takes it.
        title: Heading of the table.
        note: What is compared, a sentence or two.
        cases: The sizes.
        on_gpu: Whether it is measured with ``--device cuda``.
    """

    name: str
    title: str
    note: str
    cases: tuple[Case, ...]
    on_gpu: bool = True


@dataclass(frozen=True)
class Growing:
    """A cost over a size.

    Attributes:
        name: As ``--only`` takes it; an operator's growth has the operator's name.
        key: Its own name, fit for a file's name.
        title: What is timed.
        variable: What grows.
        sizes: Four or more, rising.
        expected: The exponent of large sizes.
        why: The reason of it, a clause.
        build: ``(setting, size)`` to what is timed.
        quick: Whether ``--quick`` takes it, with its four smallest sizes.
        on_gpu: Whether it is measured with ``--device cuda``.
    """

    name: str
    key: str
    title: str
    variable: str
    sizes: tuple[int, ...]
    expected: float
    why: str
    build: Callable[[Setting, int], Callable[[], Any]]
    quick: bool = False
    on_gpu: bool = True


def difference(answer: Answer, true: Answer) -> float:
    """Root of the mean squared difference over the root of the mean square, the largest of an answer's tensors.

    Infinite where shapes differ or a number is not finite, except where both are the same infinity.

    Example:
        >>> difference((torch.tensor([3.0, 4.0]),), (torch.tensor([3.0, 4.5]),)) < 0.1
        True
    """
    if len(answer) != len(true):
        return math.inf
    worst = 0.0
    for a, b in zip(answer, true, strict=True):
        x, y = a.detach().double().cpu(), b.detach().double().cpu()
        if x.shape != y.shape:
            return math.inf
        same = x == y
        x, y = x.masked_fill(same, 0), y.masked_fill(same & y.isinf(), 0)
        gap = (x - y.masked_fill(same, 0)).square().mean().sqrt().item() if x.numel() else 0.0
        size = y.square().mean().sqrt().item() if y.numel() else 0.0
        ratio = 0.0 if gap == 0 else gap / size if size > 0 else math.inf
        worst = max(worst, ratio) if math.isfinite(ratio) else math.inf
    return worst


def finite(answer: Answer) -> bool:
    """Whether every number of an answer is."""
    return all(bool(part.isfinite().all()) for part in answer)


@dataclass(frozen=True)
class Checked:
    """Contestants after the check of their answers.

    Attributes:
        fit: Those that are timed.
        differences: Of each from the first; None where another thing is computed.
        problems: Why the others are not timed.
    """

    fit: dict[str, Contestant] = field(default_factory=dict)
    differences: dict[str, float | None] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def check(contestants: Mapping[str, Contestant]) -> Checked:
    """Let everyone answer once, and keep those whose answer is the first one's.

    Whatever another library raises is its problem, not the end of the benchmark. Without the first nobody is timed.
    """
    checked = Checked()
    true: Answer | None = None
    for name, contestant in contestants.items():
        try:
            answer = contestant.answer(contestant.run())
        except Exception as error:
            checked.problems[name] = (f"{type(error).__name__}: {error}".splitlines() or [""])[0].rstrip(": ")
        else:
            free = true is None or contestant.tolerance is None
            apart = None if free else difference(answer, true or answer)
            if free and not finite(answer):
                checked.problems[name] = "its answer is not finite"
            elif apart is not None and not apart <= (contestant.tolerance or 0.0):
                checked.problems[name] = f"its answer is off by {apart:.1e}, more than {contestant.tolerance:g}"
            else:
                checked.fit[name] = contestant
                checked.differences[name] = apart
                true = answer if true is None else true
        if true is None:
            return checked
    return checked
