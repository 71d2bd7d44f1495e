"""What a network is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from reconlab.batch import Batch
from reconlab.cameras import Cameras
from reconlab.shapes import Shape


class Network(nn.Module, ABC):
    """Images to shapes; it knows no loss.

    Attributes:
        needs: The batch's parts that it reads, names of :data:`reconlab.batch.NEEDS`.
    """

    needs: frozenset[str] = frozenset({"images"})

    @abstractmethod
    def forward(self, images: Tensor, cameras: Cameras | None = None) -> Shape:
        """``(B, 3, H, W)`` images in [0, 1] (object on white) and the cameras that took them, to shapes."""

    def reconstruct(self, batch: Batch) -> Shape:
        """The shapes of a batch: :meth:`forward` on its images, unless the network reads something else."""
        return self(batch.require("images", type(self).__name__), batch.cameras)

    def advance(self, step: int, total: int) -> None:
        """Tell the network where training stands, before each of its steps; most need not know.

        Args:
            step: Optimiser steps taken so far; the same for all batches whose gradients are accumulated.
            total: Steps of the whole run; 0 if it has no end.
        """
