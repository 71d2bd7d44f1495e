"""What losses made of named terms share: their names, their schedule, their logging."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.losses.base import Loss
from reconlab.shapes import Shape


class Composition(Loss):
    """Named losses, each of which may be switched on and off during training.

    Args:
        terms: Losses by name (names are what a config or a sweep addresses, and what is logged).
        start: Fraction of the run, in [0, 1], at which a term begins (0 where not named). Before it the term
            is not computed: ``start: {visual: 0.5}`` is a warm start by the other terms.
        end: Fraction at which a term ends (1, that is never, where not named).

    Raises:
        ReconlabError: No terms, a name that cannot be one, or a fraction out of range.
    """

    def __init__(
        self, terms: dict[str, Loss], start: dict[str, float] | None = None, end: dict[str, float] | None = None
    ) -> None:
        super().__init__()
        start, end = dict(start or {}), dict(end or {})
        who = type(self).__name__
        if not terms:
            raise ReconlabError(f"{who}: there are no terms; name at least one loss.")
        for name in terms:
            if name in ("loss", "weight") or not name.isidentifier() or hasattr(nn.ModuleDict(), name):
                raise ReconlabError(f"{who}: a term cannot be called {name!r}; use a plain word such as visual.")
        for key, fractions in (("start", start), ("end", end)):
            for name, value in fractions.items():
                if name not in terms:
                    raise ReconlabError(f"{who}: {key} names {name!r}; the terms are {sorted(terms)}.")
                if not 0 <= value <= 1:
                    raise ReconlabError(f"{who}: {key}.{name} is {value}; expected a fraction of the run in [0, 1].")
        self.terms = nn.ModuleDict(terms)
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
                f"{type(self).__name__}: start and end are fractions of the run: set trainer.max_steps or max_epochs."
            )
        self.progress = step / max(total, 1)
        super().advance(step, total)
        for name in self.terms:
            self._term(name).advance(step, total)

    @abstractmethod
    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``"loss"`` from :meth:`evaluate`'s losses, and what that gives to log."""

    def evaluate(self, shape: Shape, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The active terms' losses, and what to log of them.

        Returns:
            The losses by name, and detached: each loss, unweighted, under its name, its parts as ``name/part``.

        Raises:
            ReconlabError: No term is active.
        """
        losses: dict[str, Tensor] = {}
        parts: dict[str, Tensor] = {}
        for name in self.terms:
            if self.active(name):
                result = self._term(name)(shape, batch)
                losses[name] = result["loss"]
                parts[name] = result["loss"].detach()
                parts.update({f"{name}/{key}": value for key, value in result.items() if key != "loss"})
        if not losses:
            raise ReconlabError(
                f"{type(self).__name__}: no term is active at {self.progress:.0%} of the run; check start and end."
            )
        return losses, parts
