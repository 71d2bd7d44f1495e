"""DPC-V: DPC's encoder with a decoder to an occupancy grid (the voxel baseline of Insafutdinov & Dosovitskiy 2018).

The authors' published code does not contain the decoder. This one is our reading: rows made with it are "our DPC-V".
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.networks.base import Network
from reconlab.networks.dpc import CODE, SLOPE, DPCEncoder
from reconlab.shapes import VoxelGrid

SEED = 4
"""Side of the grid that the code is mapped to; each transposed convolution doubles it."""


class DPCVoxels(Network):
    """DPC's image encoder, one linear layer to a 4³ grid, transposed 3D convolutions (4³, stride 2) to D³, sigmoid.

    Channels halve while the side doubles, down to 1 at D: 128, 64, 32, 1 for 32³; group normalisation (8 groups) and
    leaky ReLU of slope 0.2 before each. Without the normalisation the grid of a thin shape empties within a hundred
    steps and stays empty: sigmoid and clip leave no gradient (measured on airplanes, docs/dpc.md).
    Weights of the decoder start from a normal of deviation 0.02 (a left-over of the authors' code says so), biases
    at 0, but for the last one: cells start at ``1 / D``, so that a ray across the grid is stopped with probability
    ``1 - 1/e``. At 0.5 every ray would be stopped, and without a gradient.

    At 128 pixels the encoder has 7.47 M parameters; the decoder 9.1 M for 32³ and 9.1 M for 64³ (128 channels).

    Args:
        resolution: D, a power of two of at least 8 (32 or 64).
        image_size: Side of the input image, a power of two.
        channels: Of the 4³ grid.
        threshold: Occupancy at which :class:`~reconlab.shapes.VoxelGrid` draws a surface. 0.1 is the level that the
            authors' code names; a ray needs little occupancy in each of many cells to be stopped. Choose it on the
            validation split with :func:`reconlab.lab.threshold.choose_threshold`.

    Raises:
        ReconlabError: A setting is out of range.
    """

    def __init__(
        self, resolution: int = 32, image_size: int = 128, channels: int = 128, threshold: float = 0.1
    ) -> None:
        super().__init__()
        if resolution < 2 * SEED or resolution & (resolution - 1):
            raise ReconlabError(f"DPCVoxels: resolution is {resolution}; expected a power of two of at least 8.")
        doublings = int(math.log2(resolution // SEED))
        if channels < 2 ** (doublings - 1):
            raise ReconlabError(
                f"DPCVoxels: channels is {channels}; expected at least {2 ** (doublings - 1)} for {resolution}³."
            )
        if not 0 < threshold < 1:
            raise ReconlabError(f"DPCVoxels: threshold is {threshold}; expected one between 0 and 1.")
        self.resolution, self.channels, self.threshold = resolution, channels, threshold
        self.encoder = DPCEncoder(image_size)
        self.seed = nn.Linear(CODE, channels * SEED**3)
        sizes = [channels >> i for i in range(doublings)] + [1]
        layers = [nn.ConvTranspose3d(inputs, outputs, 4, 2, 1) for inputs, outputs in pairwise(sizes)]
        self.decoder = nn.ModuleList(layers)
        self.norms = nn.ModuleList(nn.GroupNorm(math.gcd(8, size), size) for size in sizes[:-1])
        thin = -math.log(resolution - 1)
        for layer in (self.seed, *layers):
            for name, parameter in layer.named_parameters():
                if name == "weight":
                    nn.init.trunc_normal_(parameter, std=0.02, a=-0.04, b=0.04)
                else:
                    nn.init.constant_(parameter, thin if layer is layers[-1] else 0.0)

    def forward(self, images: Tensor, cameras: Cameras | None = None) -> VoxelGrid:
        """``(B, 3, S, S)`` images in [0, 1] to grids; cameras are not used."""
        x = self.seed(self.encoder(images)).unflatten(1, (self.channels, SEED, SEED, SEED))
        for layer, norm in zip(self.decoder, self.norms, strict=True):
            x = layer(F.leaky_relu(norm(x), SLOPE))
        return VoxelGrid(torch.sigmoid(x.squeeze(1).float()), self.threshold)
