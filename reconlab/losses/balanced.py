"""Sums of losses whose weights are found while training."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from reconlab.batch import Batch
from reconlab.errors import ConversionError, ReconlabError
from reconlab.losses.base import Loss
from reconlab.losses.composition import Composition
from reconlab.shapes import Shape, VoxelGrid

LEAST = 1e-12
"""Loss below which the initial log-variance of a term no longer follows it."""


class Balanced(Composition):
    """``Σ weight · loss`` over named terms, with automatic weights.

    ``gradient``: the gradients that the weighted terms send into the shape itself (:func:`shape_tensors`: vertices,
    points, logits, or a latent code) have norms of given ratios, ``‖w ∇L‖ = ratio · ‖∇L_reference‖``; the reference
    has weight 1, so the learning rate keeps its meaning. Norms are measured every ``every`` steps and when a term
    begins; a moving average of them gives the weights, which are constants to the optimiser. A measurement costs one
    more backward pass of each term, as far as the shape and not into the network. Gradients of 0 do not count: a
    term has weight 0 until a measurement finds one, and its ratio as long as the reference has none.

    ``uncertainty``: ``Σ ½ exp(-s) L + ½ s`` with a learned log-variance ``s`` per term (Kendall et al., CVPR 2018,
    Eq. 7 with ``s = log σ²``), whose optimum ``exp(-s) = 1 / L`` gives every term the same share. Terms must not be
    negative. Departures: ``s`` starts at ``log L`` of the step in which its term begins (from 0, Adam would need
    thousands of steps at its usual rate), and it is ``speed`` times a parameter, so that it learns that much faster
    than the network.

    In eval mode weights are kept as they are. They are parameters and buffers, so checkpoints hold them, and they
    are averaged over the processes of a distributed run.

    Args:
        terms: Losses by name.
        method: ``gradient`` or ``uncertainty``.
        reference: The term whose gradient the others are measured by; the first if not named. It cannot have a
            ``start``. ``gradient`` only, as are ratios, every and momentum.
        ratios: Gradient norm of a weighted term as a multiple of the reference's; 1 where not named.
        fixed: Terms that take no part in this, geometric regularisers say, with their constant weights.
        every: Steps between measurements.
        momentum: Share of the old value in the moving average of the norms, in [0, 1).
        speed: Factor on the learning rate of the log-variances; ``uncertainty`` only.
        start: Fraction of the run at which a term begins, as in :class:`~reconlab.losses.WeightedSum`.
        end: Fraction at which a term ends.

    Raises:
        ReconlabError: A setting out of range; in training, a negative term under ``uncertainty``, or under
            ``gradient`` a shape without tensors of its own or a term that does not depend on them.
    """

    norms: Tensor
    begun: Tensor

    def __init__(
        self,
        terms: dict[str, Loss],
        method: Literal["gradient", "uncertainty"] = "gradient",
        reference: str | None = None,
        ratios: dict[str, float] | None = None,
        fixed: dict[str, float] | None = None,
        every: int = 10,
        momentum: float = 0.9,
        speed: float = 10.0,
        start: dict[str, float] | None = None,
        end: dict[str, float] | None = None,
    ) -> None:
        super().__init__(terms, start, end)
        if method not in ("gradient", "uncertainty"):
            raise ReconlabError(f"Balanced: method is {method!r}; expected 'gradient' or 'uncertainty'.")
        if method == "uncertainty" and (reference is not None or ratios):
            raise ReconlabError("Balanced: reference and ratios belong to method 'gradient', not to 'uncertainty'.")
        if every < 1 or not 0 <= momentum < 1 or not 0 < speed < math.inf:
            raise ReconlabError(
                f"Balanced: every is {every}, momentum {momentum}, speed {speed}; expected every >= 1, "
                "0 <= momentum < 1, speed > 0."
            )
        self.method = method
        self.fixed = {name: float(value) for name, value in (fixed or {}).items()}
        free = [name for name in terms if name not in self.fixed]
        if not set(self.fixed) < set(terms):
            raise ReconlabError(
                f"Balanced: fixed names {sorted(self.fixed)} of the terms {sorted(terms)}; expected some, not all."
            )
        self.reference = free[0] if reference is None else reference
        self.ratios = _ratios(free, self.reference, ratios or {})
        if method == "gradient" and self.start.get(self.reference, 0.0) > 0:
            raise ReconlabError(
                f"Balanced: the reference {self.reference!r} starts at {self.start[self.reference]}, but the others' "
                "weights are relative to it: choose a reference that is there from the beginning."
            )
        self.every, self.momentum, self.speed = every, momentum, speed
        self.step = 0
        # In the order of the names, so that a config that lists the terms in another order can resume.
        self.names = sorted(free)
        if method == "gradient":
            self.register_buffer("norms", torch.zeros(len(free)))  # 0: no gradient yet
        else:
            self.log_variances = nn.Parameter(torch.zeros(len(free)))
        self.register_buffer("begun", torch.zeros(len(free), dtype=torch.bool))

    def advance(self, step: int, total: int) -> None:
        """Move the schedule, and note the step for the next measurement."""
        super().advance(step, total)
        self.step = step

    def weights(self) -> Tensor:
        """``(T,)`` present factor of each term that is not fixed, in the order of ``names``; a constant."""
        if self.method == "uncertainty":
            return 0.5 * torch.exp(-self.speed * self.log_variances.detach())
        ratios = self.norms.new_tensor([self.ratios[name] for name in self.names])
        ours = self.norms[self.names.index(self.reference)]
        if not bool(ours > 0):
            return ratios
        known = self.norms > 0
        return ratios * torch.where(known, ours / torch.where(known, self.norms, 1.0), torch.zeros_like(ours))

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``"loss"``, each active term unweighted under its name, its parts as ``name/part``, ``weight/name``."""
        losses, parts = self.evaluate(shape, batch)
        free = {name: value for name, value in losses.items() if name not in self.fixed}
        if self.training and torch.is_grad_enabled() and free:
            self._measure(free, shape) if self.method == "gradient" else self._initialise(free)
        weights = self.weights()
        total: Tensor | None = None
        for name, value in losses.items():
            i = -1 if name in self.fixed else self.names.index(name)
            if name in self.fixed:
                weighted = self.fixed[name] * value
            elif self.method == "uncertainty" and self.training:
                s = self.speed * self.log_variances[i]
                weighted = 0.5 * torch.exp(-s) * value + 0.5 * s
            else:
                weighted = weights[i] * value
            if i >= 0:
                parts[f"weight/{name}"] = weights[i]
            total = weighted if total is None else total + weighted
        if self.method == "uncertainty" and self.training and not free:
            # Where only fixed terms are active: distributed training wants a gradient for every parameter
            total = total + 0.0 * self.log_variances.sum()  # type: ignore[operator]
        assert total is not None  # noqa: S101 - evaluate() refuses a moment without terms
        parts["loss"] = total
        return parts

    @torch.no_grad()
    def _initialise(self, losses: dict[str, Tensor]) -> None:
        """Set the log-variance of each term that has just begun, and refuse negative ones."""
        begun = self.begun.tolist()
        for name, value in losses.items():
            if float(value) < 0:
                raise ReconlabError(
                    f"Balanced: the term {name!r} is {float(value):.4g}, but uncertainty weights need terms that are "
                    "not negative: use method 'gradient'."
                )
            i = self.names.index(name)
            if not begun[i]:
                mean = _over_ranks(value.detach().float())
                self.log_variances[i] = torch.log(mean.clamp_min(LEAST)) / self.speed
                self.begun[i] = True

    def _measure(self, losses: dict[str, Tensor], shape: Shape) -> None:
        """Update the moving averages of the gradient norms, at the steps at which that is due."""
        rows = [self.names.index(name) for name in losses]
        if self.step % self.every and bool(self.begun[rows].all()):
            return
        tensors = [t for t in shape_tensors(shape) if t.requires_grad]
        if not tensors:
            raise ReconlabError(f"Balanced: the {type(shape).__name__} carries no gradient to measure terms by.")
        found = torch.stack([gradient_norm(value, tensors, name) for name, value in losses.items()])
        for i, norm in zip(rows, _over_ranks(found), strict=True):
            self.begun[i] = True
            if bool(norm > 0) and bool(norm.isfinite()):
                first = bool(self.norms[i] == 0)
                self.norms[i] = norm if first else self.momentum * self.norms[i] + (1 - self.momentum) * norm

    def extra_repr(self) -> str:
        """The settings."""
        return f"method={self.method!r}, reference={self.reference!r}, ratios={self.ratios}, fixed={self.fixed}"


def gradient_norm(loss: Tensor, tensors: list[Tensor], name: str) -> Tensor:
    """Norm of the gradient of a term by all the tensors together; 0 where the term is a constant.

    Raises:
        ReconlabError: The term has a gradient, but does not depend on the tensors.
    """
    zero = torch.zeros((), device=tensors[0].device)
    if not loss.requires_grad:
        return zero
    found = torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True)
    given = [g.detach().float().square().sum() for g in found if g is not None]
    if not given:
        raise ReconlabError(
            f"Balanced: the term {name!r} does not depend on the shape's own tensors, so its gradient cannot be "
            "compared there: use method 'uncertainty', or WeightedSum."
        )
    return torch.stack(given).sum().sqrt()


def shape_tensors(shape: Shape) -> list[Tensor]:
    """What all forms of a shape are computed from: where gradients of different losses can be compared.

    Points of a cloud, vertices of a mesh, logits of a grid (its values if it has none), the latent code of a field
    or of a surface that is decoded where it is asked for (AtlasNet's); a shape's own ``anchors()`` comes first.

    Raises:
        ConversionError: The shape has nothing of the kind.
    """
    if type(shape).anchors is not Shape.anchors:
        return shape.anchors()
    if isinstance(shape, VoxelGrid):
        return [shape.values if shape.logits is None else shape.logits]
    for name in ("code", "latent"):
        if isinstance(found := getattr(shape, name, None), Tensor):
            return [found]
    raise ConversionError(
        f"{type(shape).__name__} has no tensors at which gradients of losses could be compared: give it a method "
        "anchors(), or use method 'uncertainty' of Balanced."
    )


def _ratios(terms: list[str], reference: str, ratios: dict[str, float]) -> dict[str, float]:
    if reference not in terms:
        raise ReconlabError(f"Balanced: the reference is {reference!r}; the terms are {sorted(terms)}.")
    for name, value in ratios.items():
        if name not in terms or name == reference:
            others = sorted(set(terms) - {reference})
            raise ReconlabError(f"Balanced: ratios names {name!r}; the terms beside the reference are {others}.")
        if not 0 < value < math.inf:
            raise ReconlabError(f"Balanced: ratios.{name} is {value}; expected a positive number.")
    return {name: float(ratios.get(name, 1.0)) for name in terms}


def _over_ranks(values: Tensor) -> Tensor:
    """The mean over the processes of a distributed run."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values / dist.get_world_size()
