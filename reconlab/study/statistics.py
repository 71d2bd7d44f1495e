"""Shares of votes with their intervals, and how far people agree."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from reconlab.errors import ReconlabError

DRAWS = 10_000
LEVEL = 0.95


class Share(NamedTuple):
    """A share of votes.

    Attributes:
        votes: For it.
        of: All.
        share: Their ratio, None without votes.
        low: Lower end of the exact (Clopper–Pearson) interval.
        high: Its upper end.
    """

    votes: int
    of: int
    share: float | None
    low: float
    high: float


def share(votes: int, of: int, level: float = LEVEL) -> Share:
    """A share with its exact binomial (Clopper–Pearson) interval.

    Example:
        >>> s = share(9, 10)
        >>> s.share, round(s.low, 4), round(s.high, 4)
        (0.9, 0.555, 0.9975)
    """
    from scipy.stats import beta

    if not 0 <= votes <= of:
        raise ReconlabError(f"share: {votes} votes of {of}.")
    tail = (1 - level) / 2
    low = 0.0 if votes == 0 else float(beta.ppf(tail, votes, of - votes + 1))
    high = 1.0 if votes == of else float(beta.ppf(1 - tail, votes + 1, of - votes))
    return Share(votes, of, votes / of if of else None, low, high)


def fleiss_kappa(counts: np.ndarray) -> float | None:
    """Fleiss' kappa of a table of votes, one row an item, one column an answer.

    Items may have unequal numbers of votes: each item's agreement is the share of equal pairs among its own votes,
    their mean is not weighted, and items with fewer than two votes do not count. With equal numbers this is Fleiss'
    formula.

    Returns:
        1 for full agreement, 0 for that of chance; None where nothing can be said (no item with two votes, or all
        votes the same).

    Example:
        >>> fleiss_kappa(np.array([[2, 0], [0, 2], [1, 1]]))  # agreement 2/3, by chance 1/2
        0.333...
    """
    counts = counts[counts.sum(1) >= 2].astype(float)
    if len(counts) == 0:
        return None
    n = counts.sum(1)
    observed = float(((counts * (counts - 1)).sum(1) / (n * (n - 1))).mean())
    chance = float(((counts.sum(0) / counts.sum()) ** 2).sum())
    return None if chance == 1 else (observed - chance) / (1 - chance)


def bootstrap(votes: np.ndarray, items: bool, draws: int = DRAWS, seed: int = 0) -> tuple[float, float] | None:
    """The 95 % percentile interval of the share of ones when participants are drawn anew, with replacement.

    Args:
        votes: ``(participants, questions)`` of 0, 1, and NaN where there is no vote.
        items: Draw the questions anew as well: what other shapes would have given.
        draws: How often.
        seed: Of the draws.

    Returns:
        None with fewer than two participants (or questions, with ``items``).
    """
    people, questions = votes.shape
    if people < 2 or (items and questions < 2):
        return None
    rng = np.random.default_rng(seed)
    cast, won = (~np.isnan(votes)).astype(float), np.nan_to_num(votes)
    weights = rng.multinomial(people, np.full(people, 1 / people), draws).astype(float)
    if items:
        chosen = rng.multinomial(questions, np.full(questions, 1 / questions), draws).astype(float)
        top, bottom = ((weights @ part * chosen).sum(1) for part in (won, cast))
    else:
        top, bottom = (weights @ part.sum(1) for part in (won, cast))
    shares = top[bottom > 0] / bottom[bottom > 0]
    low, high = np.quantile(shares, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
