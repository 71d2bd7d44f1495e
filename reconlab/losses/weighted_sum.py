"""Sums of losses whose terms may be switched on and off during training."""

from __future__ import annotations

from torch import Tensor, nn

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.losses.base import Loss
from reconlab.shapes import Shape


class WeightedSum(Loss):
    """``Σ weight · loss`` over named terms.

    Args:
        terms: Losses by name (names are what a config or a sweep addresses, and what is logged).
        weights: A factor per term; every term needs one.
        start: Fraction of the run, in [0, 1], at which a term begins (0 where not named). Before it the term
            is not computed: ``start: {visual: 0.5}`` is a warm start by the other terms.
        end: Fraction at which a term ends (1, that is never, where not named).

    Raises:
        ReconlabError: Terms and weights do not have the same names, or a fraction is out of range.
    """

    def __init__(
        self,
        terms: dict[str, Loss],
        weights: dict[str, float],
        start: dict[str, float] | None = None,
        end: dict[str, float] | None = None,
    ) -> None:
        super().__init__()
        start, end = dict(start or {}), dict(end or {})
        if not terms or set(terms) != set(weights):
            raise ReconlabError(
                f"WeightedSum: terms are {sorted(terms)} but weights are given for {sorted(weights)}; name the same."
            )
        for name in terms:
            if name == "loss" or not name.isidentifier() or hasattr(nn.ModuleDict(), name):
                raise ReconlabError(
                    f"WeightedSum: a term cannot be called {name!r}; use a plain word such as visual."
                )
        for key, fractions in (("start", start), ("end", end)):
            for name, value in fractions.items():
                if name not in terms:
                    raise ReconlabError(f"WeightedSum: {key} names {name!r}; the terms are {sorted(terms)}.")
                if not 0 <= value <= 1:
                    raise ReconlabError(
                        f"WeightedSum: {key}.{name} is {value}; expected a fraction of the run in [0, 1]."
                    )
        self.terms = nn.ModuleDict(terms)
        self.weights = {name: float(value) for name, value in weights.items()}
        self.start, self.end = start, end
        self.progress = 0.0

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """All that the terms need."""
        return frozenset().union(*(self._term(name).needs for name in self.terms))

    def _term(self, name: str) -> Loss:
        term = self.terms[name]
        assert isinstance(term, Loss)  # noqa: S101 - for the type checker
        return term

    def active(self, name: str) -> bool:
        """Whether a term counts at the present step."""
        end = self.end.get(name, 1.0)
        return self.start.get(name, 0.0) <= self.progress and (self.progress < end or end >= 1.0)

    def advance(self, step: int, total: int) -> None:
        """Move the schedule; each term sees its own progress through the whole run.

        Raises:
            ReconlabError: There is a schedule, but the run has no end that fractions could refer to.
        """
        if total < 1 and (self.start or self.end):
            raise ReconlabError(
                "WeightedSum: start and end are fractions of the run: set trainer.max_steps or max_epochs."
            )
        self.progress = step / max(total, 1)
        super().advance(step, total)
        for name in self.terms:
            self._term(name).advance(step, total)

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``"loss"``, each active term unweighted under its name, and its parts as ``name/part``."""
        parts: dict[str, Tensor] = {}
        total: Tensor | None = None
        for name in self.terms:
            if not self.active(name):
                continue
            result = self._term(name)(shape, batch)
            parts[name] = result["loss"].detach()
            parts.update({f"{name}/{key}": value for key, value in result.items() if key != "loss"})
            weighted = self.weights[name] * result["loss"]
            total = weighted if total is None else total + weighted
        if total is None:
            raise ReconlabError(
                f"WeightedSum: no term is active at {self.progress:.0%} of the run; check start and end."
            )
        parts["loss"] = total
        return parts

    def extra_repr(self) -> str:
        """Weights and switches."""
        return f"weights={self.weights}, start={self.start}, end={self.end}"
