"""DRC's network (Tulsiani et al., CVPR 2017): a 64-pixel image to a 32³ grid through a code of 100 numbers."""

from __future__ import annotations

from torch import Tensor, nn

from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.networks.base import Network
from reconlab.networks.resize import to_side
from reconlab.precision import at_least_single
from reconlab.shapes import VoxelGrid

SIDE = 64
CODE = 100
CHANNELS = (8, 16, 32, 64, 128)


class DRCNet(Network):
    """Five convolutions and pools, two layers of 100, four deconvolutions, and the probability of being empty.

    3×3 convolutions to 8, 16, 32, 64, 128 channels, each with batch normalisation, leaky ReLU of slope 0.2 and a
    2×2 maximum; 512 → 100 → 100 (normalised, leaky); 100 → 128 · 2³ (normalised, ReLU); 4³ deconvolutions of
    stride 2 to 64, 32, 16, 8 channels (normalised, ReLU); a 3³ convolution to one number z per cell, empty with
    probability ``(tanh z + 1) / 2``. The grid holds the occupancy, 1 minus it. 963 049 parameters.

    Convolutions start from normals of deviation 0.02, the normalisations' scales from N(1, 0.02²), as published.
    Images of another size are averaged down (or repeated up) to 64 pixels: :func:`reconlab.networks.resize.to_side`.

    Args:
        threshold: What counts as occupied in the grids; the authors choose it on validation data, per class.

    Raises:
        ReconlabError: ``threshold`` is not in (0, 1).
    """

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        if not 0 < threshold < 1:
            raise ReconlabError(f"DRCNet: threshold is {threshold}; expected a number between 0 and 1.")
        self.threshold = threshold
        layers: list[nn.Module] = []
        inputs = 3
        for outputs in CHANNELS:
            layers += [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, inplace=True)]
            layers.append(nn.MaxPool2d(2))
            inputs = outputs
        layers += [nn.Flatten(), nn.Linear(4 * inputs, CODE), nn.BatchNorm1d(CODE), nn.LeakyReLU(0.2, inplace=True)]
        layers += [nn.Linear(CODE, CODE), nn.BatchNorm1d(CODE), nn.LeakyReLU(0.2, inplace=True)]
        self.encoder = nn.Sequential(*layers)
        layers = [nn.Linear(CODE, 8 * inputs), nn.BatchNorm1d(8 * inputs), nn.ReLU(inplace=True)]
        layers.append(nn.Unflatten(1, (inputs, 2, 2, 2)))
        for outputs in reversed(CHANNELS[:-1]):
            layers += [nn.ConvTranspose3d(inputs, outputs, 4, 2, 1), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)]
            inputs = outputs
        layers.append(nn.Conv3d(inputs, 1, 3, 1, 1))
        self.decoder = nn.Sequential(*layers)
        self.apply(_initialise)

    def forward(self, images: Tensor, cameras: Cameras | None = None) -> VoxelGrid:
        """``(B, 3, S, S)`` images in [0, 1] to 32³ grids; cameras are not used.

        Raises:
            ReconlabError: The images are not square, or one alone is to be normalised by its batch.
        """
        if self.training and len(images) == 1:
            raise ReconlabError(
                "DRCNet normalises by batch and cannot train on one image: set batch_size to 2 or more."
            )
        logits = at_least_single(self.decoder(self.encoder(to_side(images, SIDE, "DRCNet")))[:, 0])
        # 1 - (tanh z + 1) / 2, without the loss of digits near 0.
        return VoxelGrid((-2 * logits).sigmoid(), self.threshold)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear | nn.Conv3d | nn.ConvTranspose3d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        nn.init.normal_(module.weight, 1.0, 0.02)
