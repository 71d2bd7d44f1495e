"""What a metric is: per-sample values, summed exactly, failures counted."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torchmetrics
from torch import Tensor

from reconlab.batch import Batch
from reconlab.errors import ReconlabError
from reconlab.metrics.protocol import Protocol
from reconlab.shapes import Shape

RESERVED = ("n", "n_failed")


def sample_generator(category: str, sample: str, purpose: str, seed: int = 0) -> torch.Generator:
    """A CPU generator that depends on the sample alone: not on the batch, its order, the rank or the process.

    Example:
        >>> a = torch.rand(2, generator=sample_generator("chair", "x", "prediction"))
        >>> b = torch.rand(2, generator=sample_generator("chair", "x", "prediction"))
        >>> bool((a == b).all())
        True
    """
    digest = hashlib.blake2b(repr((seed, purpose, category, sample)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


class Metric(torchmetrics.Metric, ABC):
    """Means over samples, overall and per category.

    States are sums and counts that add up over processes, so uneven shards and empty ranks are exact. A failed
    prediction (empty, or not finite) is never dropped: it enters every mean with its protocol's ``worst_value``
    and is counted in ``n_failed``. Values are raw; a protocol's factor is for printing only.

    Args:
        protocols: The protocol of every value, by name; the first is the headline and names the counts.

    Attributes:
        needs: The batch's parts that it reads, names of :data:`reconlab.batch.NEEDS`.
        heavy: Too slow for every validation: computed at test only.
        name: Name of the headline value.
        categories: Categories that are averaged on their own, see :meth:`set_categories`.
        last: What :meth:`per_sample` gave for the batch that :meth:`update` saw last.
    """

    full_state_update = False
    is_differentiable = False
    needs: frozenset[str] = frozenset()
    heavy = False

    def __init__(self, protocols: dict[str, Protocol]) -> None:
        super().__init__()
        self.protocols = dict(protocols)
        self.name = next(iter(protocols))
        self.categories: tuple[str, ...] = ()
        self.last: dict[str, Tensor] = {}
        self.set_categories([])

    @property
    def protocol(self) -> Protocol:
        """The headline value's protocol."""
        return self.protocols[self.name]

    @property
    def failed_key(self) -> str:
        """Key of the failure flags in :meth:`per_sample`."""
        return f"{self.name}/failed"

    def set_categories(self, categories: Sequence[str]) -> None:
        """Name the categories to average on their own, before the first update; starts from zero.

        Every process must name the same ones in the same order. A sample of any other category enters the
        overall mean only.

        Raises:
            ReconlabError: A category has the name of a count (``n``, ``n_failed``).
        """
        for category in categories:
            if category in RESERVED:
                raise ReconlabError(f"A category may not be called {category!r}: that key holds a count.")
        self.categories = tuple(dict.fromkeys(categories))
        size = 1 + len(self.categories)
        for value in self.protocols:
            zeros = torch.zeros(size, dtype=torch.float64, device=self.device)
            self.add_state(f"total_{value}", zeros, dist_reduce_fx="sum")
        # The metric's name is part of the state's: MetricCollection would otherwise take two metrics whose
        # first batch gives equal states (all failed, say) for the same metric and compute only one of them.
        for count in RESERVED:
            zeros = torch.zeros(size, dtype=torch.int64, device=self.device)
            self.add_state(f"{count}_{self.name}", zeros, dist_reduce_fx="sum")
        self._computed = None
        self._update_count = 0

    @torch.no_grad()
    def per_sample(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """The values of each sample, before any averaging.

        Args:
            shape: ``B`` predictions.
            batch: Their ground truth, with the fields of ``needs``.

        Returns:
            ``{name: (B,) float64}`` for every value, and ``{"<metric>/failed": (B,) bool}``. Failed samples hold
            the protocol's worst value.

        Raises:
            ReconlabError: Sizes do not match, the batch lacks a field, or the ground truth is not finite.
            ConversionError: This kind of shape has no form that the metric works on.
        """
        if len(shape) != len(batch):
            raise ReconlabError(
                f"{type(self).__name__}: {len(shape)} predictions for a batch of {len(batch)} samples."
            )
        rows, measured = self._measure(shape, batch)
        ok = torch.zeros(len(batch), dtype=torch.bool, device=shape.device)
        values = {}
        for name, protocol in self.protocols.items():
            values[name] = torch.full((len(batch),), protocol.worst_value, dtype=torch.float64).to(shape.device)
        if rows:
            index = torch.tensor(rows, device=shape.device)
            ok[index] = torch.stack([measured[name].isfinite() for name in self.protocols]).all(0)
            for name, worst in values.items():
                worst[index] = torch.where(ok[index], measured[name].double(), worst[index])
        return {**values, self.failed_key: ~ok}

    def update(self, shape: Shape, batch: Batch) -> None:
        """Add a batch of predictions.

        Args:
            shape: ``B`` predictions.
            batch: Their ground truth.
        """
        values = self.per_sample(shape, batch)
        self.last = dict(values)
        failed = values.pop(self.failed_key).to(self.device)
        column = {category: i for i, category in enumerate(self.categories, start=1)}
        # Row 0 is the overall sum, which every sample enters.
        member = torch.zeros(len(self.categories) + 1, len(batch), dtype=torch.float64)
        member[0] = 1
        for i, category in enumerate(batch.categories):
            if category in column:
                member[column[category], i] = 1
        member = member.to(self.device)
        for name, value in values.items():
            key = f"total_{name}"
            setattr(self, key, getattr(self, key) + member @ value.to(self.device))
        for count, flags in zip(RESERVED, (torch.ones_like(failed), failed), strict=True):
            key = f"{count}_{self.name}"
            setattr(self, key, getattr(self, key) + (member @ flags.double()).round().long())

    def compute(self) -> dict[str, Tensor]:
        """The means so far, over all processes.

        Returns:
            Scalars: ``<value>`` and ``<value>/<category>`` for every value (NaN without samples), and for the
            headline ``<metric>/n``, ``<metric>/n_failed``, ``<metric>/<category>/n`` and
            ``<metric>/<category>/n_failed``.
        """
        counts = {count: getattr(self, f"{count}_{self.name}") for count in RESERVED}
        suffixes = ["", *(f"/{category}" for category in self.categories)]
        result: dict[str, Tensor] = {}
        for name in self.protocols:
            means = getattr(self, f"total_{name}") / counts["n"]  # 0 / 0 is NaN: no sample, no mean
            result |= {name + suffix: means[i] for i, suffix in enumerate(suffixes)}
        for i, suffix in enumerate(suffixes):
            result |= {f"{self.name}{suffix}/{count}": number[i] for count, number in counts.items()}
        return result

    def merge_state(self, incoming_state: dict[str, Any] | torchmetrics.Metric) -> None:
        """Add another metric's samples to this one's (torchmetrics' own, with the categories checked).

        Raises:
            ReconlabError: The two do not measure the same values over the same categories.
        """
        if isinstance(incoming_state, Metric) and (
            incoming_state.categories != self.categories or incoming_state.protocols != self.protocols
        ):
            raise ReconlabError(
                f"Cannot merge {incoming_state.name} over {list(incoming_state.categories)} into {self.name} over "
                f"{list(self.categories)}: protocols and categories must be equal."
            )
        super().merge_state(incoming_state)

    @abstractmethod
    def _measure(self, shape: Shape, batch: Batch) -> tuple[list[int], dict[str, Tensor]]:
        """The rows of the batch that could be measured, and ``{value: (rows,)}``; the others have failed."""


def or_nan(value: Tensor, finite: Tensor) -> Tensor:
    """``value`` where finite, else NaN."""
    return torch.where(finite, value, torch.nan)
