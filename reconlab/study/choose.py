"""Which samples a study asks about: at random from two runs' common ones, or from the best of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reconlab.errors import ReconlabError
from reconlab.study.runs import Run, Sample, read_scores

VISUAL = ("lfd", "shape_google", "mvcnn")
TOP_RULE = (
    "each sample's ranks among the pair's common samples, under every metric and of both runs, are averaged; "
    "the samples with the lowest average are taken (failed ones rank last)"
)
TURNS = 3  # at most: the input's view, and turned to either side


@dataclass(frozen=True)
class Plan:
    """What is built.

    Attributes:
        questions: Real questions, shared out evenly over the pairs of runs.
        checks: Attention checks besides them.
        seed: Of every choice.
        top: Share of the common samples that questions are drawn from, None for all (PS-2: 0.2).
        by: Metrics that rank them.
        views: Pictures of each shape: the input's view, one turned to a side, one to the other.
        size: Pixels along a picture.
        title: The page's heading.

    Raises:
        ReconlabError: A number is out of range.
    """

    questions: int = 50
    checks: int = 4
    seed: int = 0
    top: float | None = None
    by: tuple[str, ...] = VISUAL
    views: int = 2
    size: int = 256
    title: str = "Which shape looks more like the picture?"

    def __post_init__(self) -> None:
        limits = {"questions": (1, 1000), "checks": (0, 100), "seed": (0, 2**31), "views": (1, TURNS)}
        for name, (low, high) in {**limits, "size": (64, 1024)}.items():
            if not low <= getattr(self, name) <= high:
                raise ReconlabError(f"--{name} is {getattr(self, name)}; expected {low} to {high}.")
        if self.top is not None and not 0 < self.top <= 1:
            raise ReconlabError(f"--top is {self.top:g}; expected a share above 0 and at most 1, like 0.2.")
        if not self.by:
            raise ReconlabError("--by names no metric; say --by lfd,shape_google,mvcnn.")


def settings(plan: Plan) -> dict[str, Any]:
    """The plan as the key keeps it, with the rule of ``--top`` where it was used."""
    out = asdict(plan) | {"by": list(plan.by)}
    return out | {"top_rule": TOP_RULE} if plan.top is not None else out | {"by": None}


def top_samples(runs: Sequence[tuple[Path, list[Sample]]], metrics: tuple[str, ...], share: float) -> list[Sample]:
    """The best of the common samples: :data:`TOP_RULE`.

    Args:
        runs: Folders whose tables have the metrics, each with the samples as it names them, in one order.
        metrics: Names of values.
        share: Of the samples that is kept, rounded up.

    Raises:
        ReconlabError: A value is missing.
    """
    from scipy.stats import rankdata

    samples = runs[0][1]
    ranks = [
        rankdata(values) for folder, names in runs for values in read_scores(folder, metrics, names).values()
    ]  # ties share their mean rank
    mean = np.mean(ranks, axis=0)
    kept = math.ceil(share * len(samples) - 1e-9)
    return [samples[i] for i in np.lexsort((np.arange(len(samples)), mean))[:kept]]


def common_samples(a: Run, b: Run) -> list[Sample]:
    """Samples that both runs reconstructed from the same picture, by name.

    Raises:
        ReconlabError: There is none, or a shape was reconstructed from different pictures.
    """
    both = sorted(a.files.keys() & b.files.keys())
    shared = {(s.category, s.id) for s in both}
    views = {(s.category, s.id): s.view for s in a.files}
    for category, name, view in sorted(b.files):
        if (category, name) in views and (category, name) not in shared:
            raise ReconlabError(
                f"{a.folder} was given view {views[category, name]} of {category}/{name}, {b.folder} view {view}: "
                "test both with the same data.eval_view."
            )
    if both:
        return both
    raise ReconlabError(
        f"{a.folder} and {b.folder} have no sample in common (there {min(a.files).key!r}, here "
        f"{min(b.files).key!r}): test both on the same dataset."
    )


def choose(
    runs: Sequence[tuple[Run, Run]], plan: Plan, scores: Sequence[tuple[Path, Path]], rng: np.random.Generator
) -> list[list[Sample]]:
    """For each pair of runs the samples that its questions may come from, in random order.

    Args:
        runs: Pairs.
        plan: What to build.
        scores: For each pair the folders whose tables have ``plan.by``; the runs themselves if empty.
        rng: Of the order.

    Raises:
        ReconlabError: There are fewer samples than questions, or no values to choose by.
    """
    chosen: list[list[Sample]] = []
    for k, (a, b) in enumerate(runs):
        samples = common_samples(a, b)
        where = f"the samples that {a.folder} and {b.folder} have in common"
        if plan.top is not None:
            where = f"the best {plan.top:.0%} of the {len(samples)} samples that {a.folder} and {b.folder} share"
            folders = scores[k] if scores else (a.folder, b.folder)
            samples = top_samples([(f, samples) for f in folders], plan.by, plan.top)
        wanted = share_of(plan.questions, len(runs), k)
        if len(samples) < wanted:
            total = f" (of --questions {plan.questions})" if len(runs) > 1 else ""
            raise ReconlabError(
                f"{len(samples)} {'is' if len(samples) == 1 else 'are'} {where}, fewer than the {wanted} questions"
                f"{total}: ask fewer (--questions), or test both runs on more."
            )
        chosen.append([samples[i] for i in rng.permutation(len(samples))])
    return chosen


def share_of(questions: int, pairs: int, pair: int) -> int:
    """How many of the questions are about a pair: as equal as it can be, the first ones one more.

    Example:
        >>> [share_of(5, 2, k) for k in range(2)]
        [3, 2]
    """
    return questions // pairs + (pair < questions % pairs)
