"""What a network is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

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
