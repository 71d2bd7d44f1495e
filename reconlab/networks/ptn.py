"""The network of Perspective Transformer Nets (Yan et al., NeurIPS 2016): a 64-pixel image to a 32³ grid."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.networks.base import Network
from reconlab.networks.resize import to_side
from reconlab.precision import at_least_single
from reconlab.shapes import VoxelGrid

SIDE = 64
CODE = 512


class PTNNet(Network):
    """Image encoder to a code of 512 numbers and volumetric decoder, ReLU throughout, no normalisation.

    5×5 convolutions of stride 2 to 64, 128, 256 channels; 16384 → 1024 → 1024 → 512, the identity unit. Then
    512 → 512 · 3³, deconvolutions 4³ stride 1 to 256 (6³), 5³ stride 2 to 96 (15³), 6³ stride 2 to 1 (32³), and a
    sigmoid. 37.96 M parameters, of which the encoder has 19.4 M. Images are mapped to [-1, 1]; those of another
    size are averaged down (or repeated up) to 64 pixels: :func:`reconlab.networks.resize.to_side`.

    Departures: the authors first train the encoder, with a viewpoint unit beside it, as a part of a recurrent
    network that predicts rotated views, and then freeze it. Here it is trained with the decoder, unless
    ``encoder_from`` and ``freeze_encoder`` give two stages. Weights start from torch's defaults.

    Args:
        threshold: What counts as occupied in the grids.
        encoder_from: Checkpoint of a :class:`PTNNet` run whose encoder is taken.
        freeze_encoder: Train only the decoder.

    Raises:
        ReconlabError: ``threshold`` is not in (0, 1), or ``encoder_from`` holds no such encoder.
    """

    def __init__(self, threshold: float = 0.5, encoder_from: str | None = None, freeze_encoder: bool = False) -> None:
        super().__init__()
        if not 0 < threshold < 1:
            raise ReconlabError(f"PTNNet: threshold is {threshold}; expected a number between 0 and 1.")
        self.threshold = threshold
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 64), (64, 128), (128, 256)):
            layers += [nn.Conv2d(inputs, outputs, 5, 2, 2), nn.ReLU(inplace=True)]
        layers.append(nn.Flatten())
        for inputs, outputs in ((16384, 1024), (1024, 1024), (1024, CODE)):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
        self.encoder = nn.Sequential(*layers)
        self.decoder = nn.Sequential(
            nn.Linear(CODE, 512 * 27),
            nn.ReLU(inplace=True),
            nn.Unflatten(1, (512, 3, 3, 3)),
            nn.ConvTranspose3d(512, 256, 4, 1),
            nn.ReLU(inplace=True),
            nn.ConvTranspose3d(256, 96, 5, 2),
            nn.ReLU(inplace=True),
            nn.ConvTranspose3d(96, 1, 6, 2, 1),
        )
        if encoder_from is not None:
            load_encoder(self.encoder, encoder_from)
        self.encoder.requires_grad_(not freeze_encoder)

    def forward(self, images: Tensor, cameras: Cameras | None = None) -> VoxelGrid:
        """``(B, 3, S, S)`` images in [0, 1] to 32³ grids; cameras are not used.

        Raises:
            ReconlabError: The images are not square.
        """
        code = self.encoder(2 * to_side(images, SIDE, "PTNNet") - 1)
        return VoxelGrid(at_least_single(self.decoder(code)[:, 0]).sigmoid(), self.threshold)


def load_encoder(encoder: nn.Module, path: str) -> None:
    """Copy the encoder of a training checkpoint into ``encoder``.

    Raises:
        ReconlabError: The file is missing, unreadable, or holds an encoder of other sizes.
    """
    from reconlab.networks.checkpoint import network_state

    prefix = "encoder."
    state = {k.removeprefix(prefix): v for k, v in network_state(Path(path)).items() if k.startswith(prefix)}
    own = encoder.state_dict()
    wrong = [k for k in own if k not in state or state[k].shape != own[k].shape]
    if wrong:
        raise ReconlabError(f"encoder_from: {path} does not hold PTNNet's encoder (first mismatch: {wrong[0]}).")
    encoder.load_state_dict({k: state[k] for k in own})
