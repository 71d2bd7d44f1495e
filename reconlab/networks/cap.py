"""CAPNet's network (Navaneet et al., AAAI 2019): convolutions, a narrow code, and three layers to the points."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.networks.base import Network
from reconlab.networks.dpc import SameConv, cut_normal_, he_
from reconlab.networks.resize import to_side
from reconlab.precision import full_precision
from reconlab.shapes import PointCloud

SIDE = 64
"""Pixels a side that the network sees."""

CODE = 128

LAYERS: list[tuple[int, int, int]] = [
    *((32, 3, 1), (32, 3, 1)),
    *((64, 3, 2), (64, 3, 1), (64, 3, 1)),
    *((128, 3, 2), (128, 3, 1), (128, 3, 1)),
    *((256, 3, 2), (256, 3, 1), (256, 3, 1)),
    (512, 5, 2),
]
"""Convolutions: output channels, side of the kernel, stride."""


class CAPNet(Network):
    """CAPNet: 64 × 64 pixels to 4 × 4 × 512 features, a code of 128, layers of 256 and 256, points; ReLU between.

    5 224 160 parameters in the convolutions, 1 147 520 up to the last layer, ``257 · 3 J`` in it: 7 161 184 in all
    at J = 1024.

    Images of another size are resized to 64 × 64 by area (the mean of the pixels that a new pixel covers).
    White, the background, is subtracted, so that the convolutions' zero padding continues it (the published code
    feeds 0 to 255). Points are ``extent · tanh``. The published code has ``extent = 1`` and takes the result as
    object coordinates, as its cameras tell (distance 2, 1.875 image widths of focal length: the image sees ±.53):
    the network could reach twice the unit cube in which objects lie. That is the default here too.
    The published network begins with all points within about 1e-4 of the centre (small uniform and 0.02 normal
    weights, no rule for ReLU); here He's initialisation and 0.02 for the last layer alone begin with a blob.
    Its weight decay (1e-5 on convolutions, 1e-3 on layers) is computed there but not added (``lambda_reg`` is 0).

    Args:
        points: ``J``.
        extent: Half the side of the cube that the points can reach, object units.

    Raises:
        ReconlabError: A setting is out of range.
    """

    def __init__(self, points: int = 1024, extent: float = 1.0) -> None:
        super().__init__()
        if points < 1 or not extent > 0:
            raise ReconlabError(
                f"CAPNet: points is {points} and extent {extent}; expected at least 1 and a positive number."
            )
        self.extent = extent
        channels = [3, *(layer[0] for layer in LAYERS)]
        self.convolutions = nn.ModuleList(
            SameConv(inputs, *layer) for inputs, layer in zip(channels, LAYERS, strict=False)
        )
        self.layers = nn.ModuleList(
            [nn.Linear(16 * channels[-1], CODE), nn.Linear(CODE, 256), nn.Linear(256, 256)],
        )
        self.head = nn.Linear(256, 3 * points)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                he_(layer)
        cut_normal_(self.head, 0.02)

    def forward(self, images: Tensor, cameras: Cameras | None = None) -> PointCloud:
        """``(B, 3, H, W)`` images in [0, 1] to clouds of ``J`` points in ``(-extent, extent)³``.

        Raises:
            ReconlabError: The images are no RGB pictures.
        """
        x = to_side(images, SIDE, "CAPNet") - 1
        for convolution in self.convolutions:
            x = F.relu(convolution(x))
        x = x.flatten(1)
        for layer in self.layers:
            x = F.relu(layer(x))
        return PointCloud(self.extent * torch.tanh(full_precision(self.head, x)).unflatten(-1, (-1, 3)))
