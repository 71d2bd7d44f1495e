"""What a loss is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from reconlab.batch import Batch
from reconlab.shapes import Shape


class Loss(nn.Module, ABC):
    """A training loss on any shape.

    Attributes:
        needs: The batch's parts that it reads, names of :data:`reconlab.batch.NEEDS`.
    """

    needs: frozenset[str] = frozenset()

    @abstractmethod
    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """The scalar ``"loss"`` to minimise, and named parts (detached or not) for logging."""

    def advance(self, step: int, total: int) -> None:
        """Tell the loss where training stands, before each step; schedules and stages live on it.

        Args:
            step: Optimiser steps taken so far.
            total: Steps of the whole run.
        """
        for child in self.children():
            if isinstance(child, Loss):
                child.advance(step, total)
