"""Sums of losses whose terms may be switched on and off during training."""

from __future__ import annotations

from torch import Tensor

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.losses.base import Loss
from reconlab.losses.composition import Composition
from reconlab.shapes import Shape


class WeightedSum(Composition):
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
        if not terms or set(terms) != set(weights):
            raise ReconlabError(
                f"WeightedSum: terms are {sorted(terms)} but weights are given for {sorted(weights)}; name the same."
            )
        super().__init__(terms, start, end)
        self.weights = {name: float(value) for name, value in weights.items()}

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``"loss"``, each active term unweighted under its name, and its parts as ``name/part``."""
        losses, parts = self.evaluate(shape, batch)
        first, *rest = (self.weights[name] * value for name, value in losses.items())
        parts["loss"] = sum(rest, start=first)
        return parts

    def extra_repr(self) -> str:
        """Weights and switches."""
        return f"weights={self.weights}, start={self.start}, end={self.end}"
