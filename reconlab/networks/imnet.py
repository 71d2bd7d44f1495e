"""IM-Net (Chen & Zhang, CVPR 2019): shapes as fields of occupancy, decoded point by point from a code."""

from __future__ import annotations

from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reconlab.batch import Batch
from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.networks.base import Network
from reconlab.networks.imnet_decoder import SLOPE, IMDecoder, IMField, Start, VoxelEncoder
from reconlab.networks.resize import to_side
from reconlab.networks.resnet import Norm

SIDE = 128
"""Pixels a side that the image encoder reads."""

GREY = (0.299, 0.587, 0.114)


class IMNetAutoencoder(Network):
    """IM-Net's first stage: voxels → code → field; no image is used.

    Sizes as in the released PyTorch code (the paper's own decoder is twice as wide, with skips): a
    :class:`VoxelEncoder` of 64³ cells and an :class:`IMDecoder` of 3 054 593 parameters.

    Args:
        code: Numbers of a code.
        encoder_width: Channels of the encoder's first convolution.
        decoder_width: Units of the decoder's last hidden layer.
        voxel_size: Cells along each axis that the encoder reads; the batch's voxels are resampled to it.
        resolution: Cells along each axis when a surface is asked for (released: 256).
        chunk: Points per evaluation, see :class:`~reconlab.shapes.ImplicitField`.
        coarse: Points along an axis at which the surface is first looked for (released: 64).
        start: The decoder's initial weights, see :class:`IMDecoder`.

    Raises:
        ReconlabError: A size is out of range.
    """

    needs = frozenset({"voxels"})

    def __init__(
        self,
        code: int = 256,
        encoder_width: int = 32,
        decoder_width: int = 128,
        voxel_size: int = 64,
        resolution: int = 64,
        chunk: int = 16384,
        coarse: int = 32,
        start: Start = "normal",
    ) -> None:
        super().__init__()
        check("IMNetAutoencoder", start, code=code, encoder_width=encoder_width, decoder_width=decoder_width,
              resolution=resolution, chunk=chunk, coarse=coarse)  # fmt: skip
        self.resolution, self.chunk, self.coarse = resolution, chunk, coarse
        self.encoder = VoxelEncoder(code, encoder_width, voxel_size)
        self.decoder = IMDecoder(code, decoder_width, start)

    def encode(self, voxels: Tensor) -> IMField:
        """``(B, D, D, D)`` occupancies to fields."""
        return IMField(self.decoder, self.encoder(voxels), self.resolution, self.chunk, self.coarse)

    def reconstruct(self, batch: Batch) -> IMField:
        """The true voxels, through the code and back."""
        return self.encode(batch.require("voxels", type(self).__name__))

    def forward(self, images: Tensor, cameras: Cameras | None = None) -> IMField:
        """Not available.

        Raises:
            ReconlabError: Always: this network reads voxels.
        """
        raise ReconlabError("IMNetAutoencoder reads voxels, not images; train IMNet to predict from images.")


class IMNet(Network):
    """IM-Net from one image: a residual encoder → code → field.

    Trains end to end with any loss (a departure: simpler, and the only way under image losses), or, with
    ``regress_codes`` and ``freeze_decoder``, as published: the decoder of an auto-encoder is kept and the encoder
    alone learns to give the codes of its voxel encoder (loss :class:`~reconlab.losses.CodeRegression`).

    The encoder reads grey images of 128 pixels: 7×7 convolution of stride 2 to ``encoder_width`` channels, eight
    residual blocks (1, 2, 4, 8 times the width, two each, halving in between), 4×4 of stride 2, 4×4 to the code,
    sigmoid; normalised, leaky ReLU of slope 0.02. The released code crops 128 of 137 pixels; here the data's
    images are averaged to 128.

    Args:
        code: Numbers of a code.
        encoder_width: Channels of the encoder's first stage (64 as published).
        decoder_width: As :class:`IMNetAutoencoder`.
        norm: ``batch`` as published, or ``group`` (groups of 8 channels), for small batches.
        resolution: As :class:`IMNetAutoencoder`.
        chunk: As :class:`IMNetAutoencoder`.
        coarse: As :class:`IMNetAutoencoder`.
        start: As :class:`IMNetAutoencoder`.
        decoder_from: Checkpoint of an :class:`IMNetAutoencoder` run (its decoder is taken, and with
            ``regress_codes`` its encoder) or of an :class:`IMNet` run.
        regress_codes: Give fields a ``target_code`` while training; set ``freeze_decoder`` beside it.
        freeze_decoder: Keep the decoder as it is.
        voxel_encoder_width: Of the auto-encoder; used with ``regress_codes`` only.
        voxel_size: Likewise.

    Raises:
        ReconlabError: A size is out of range, or ``decoder_from`` holds other weights.
    """

    taught: Tensor

    def __init__(
        self,
        code: int = 256,
        encoder_width: int = 64,
        decoder_width: int = 128,
        norm: Norm = "batch",
        resolution: int = 64,
        chunk: int = 16384,
        coarse: int = 32,
        start: Start = "normal",
        decoder_from: str | None = None,
        regress_codes: bool = False,
        freeze_decoder: bool = False,
        voxel_encoder_width: int = 32,
        voxel_size: int = 64,
    ) -> None:
        super().__init__()
        check("IMNet", start, code=code, encoder_width=encoder_width, decoder_width=decoder_width,
              resolution=resolution, chunk=chunk, coarse=coarse)  # fmt: skip
        if norm not in get_args(Norm):
            raise ReconlabError(f"IMNet: norm is {norm!r}; choose batch or group.")
        self.resolution, self.chunk, self.coarse = resolution, chunk, coarse
        self.encoder = ImageEncoder(code, encoder_width, norm)
        self.decoder = IMDecoder(code, decoder_width, start)
        self.decoder.requires_grad_(not freeze_decoder)
        self.teacher: VoxelEncoder | None = None
        if regress_codes:
            self.needs = frozenset({"images", "voxels"})
            self.teacher = VoxelEncoder(code, voxel_encoder_width, voxel_size).requires_grad_(False)
            # In the state, so that a checkpoint knows that its teacher has learned something.
            self.register_buffer("taught", torch.tensor(False))
        if decoder_from is not None:
            self._load(decoder_from)

    def forward(self, images: Tensor, cameras: Cameras | None = None) -> IMField:
        """``(B, 3, S, S)`` in [0, 1] to fields; cameras are not used."""
        return IMField(self.decoder, self.encoder(images), self.resolution, self.chunk, self.coarse)

    def reconstruct(self, batch: Batch) -> IMField:
        """:meth:`forward`; while training with ``regress_codes``, with the codes of the true voxels.

        Raises:
            ReconlabError: There is no auto-encoder to take them from.
        """
        field = self(batch.require("images", type(self).__name__))
        if self.teacher is not None and self.training and batch.voxels is not None:
            if not bool(self.taught):
                raise ReconlabError(
                    "IMNet: regress_codes needs a trained auto-encoder: set decoder_from to the checkpoint of an "
                    "IMNetAutoencoder run."
                )
            with torch.no_grad():
                field.target_code = self.teacher(batch.voxels)
        return field

    def _load(self, path: str) -> None:
        """Take the decoder, and the teacher where there is one, of a checkpoint."""
        from reconlab.networks.checkpoint import network_state

        state = network_state(path)
        parts: list[tuple[str, nn.Module]] = [("decoder.", self.decoder)]
        if self.teacher is not None:
            # An IMNet run that was taught itself keeps the voxel encoder under its own name.
            name = "teacher." if any(k.startswith("teacher.") for k in state) else "encoder."
            parts.append((name, self.teacher))
        for prefix, module in parts:
            given = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            own = module.state_dict()
            wrong = [k for k in own if k not in given or given[k].shape != own[k].shape]
            if wrong:
                what = "decoder" if prefix == "decoder." else "voxel encoder"
                raise ReconlabError(
                    f"decoder_from: {path} does not hold IMNet's {what} as configured (first mismatch: {wrong[0]})."
                )
            module.load_state_dict({k: given[k] for k in own})
        if self.teacher is not None:
            self.taught.fill_(True)


class ImageEncoder(nn.Module):
    """``(B, 3, S, S)`` images in [0, 1] to codes in (0, 1); sizes in :class:`IMNet`."""

    grey: Tensor

    def __init__(self, code: int, width: int, norm: Norm) -> None:
        super().__init__()
        self.register_buffer("grey", torch.tensor(GREY).reshape(1, 3, 1, 1), persistent=False)
        layers: list[nn.Module] = [nn.Conv2d(1, width, 7, 2, 3, bias=False), _normalisation(norm, width), _leaky()]
        inputs = width
        for stage in range(4):
            outputs = width * 2**stage
            layers += [_Block(inputs, outputs, norm), _Block(outputs, outputs, norm)]
            inputs = outputs
        layers += [nn.Conv2d(inputs, inputs, 4, 2, 1, bias=False), _normalisation(norm, inputs), _leaky()]
        layers += [nn.Conv2d(inputs, code, 4), nn.Flatten(), nn.Sigmoid()]
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Images of another size are averaged to 128 pixels; white becomes 0."""
        small = to_side(images, SIDE, "IMNet")
        return self.layers(1 - (small * self.grey).sum(1, keepdim=True))


class _Block(nn.Module):
    """Two 3×3 convolutions and a skip; the first halves the image where the channels change."""

    def __init__(self, inputs: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            _normalisation(norm, outputs),
            _leaky(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            _normalisation(norm, outputs),
        )
        self.skip: nn.Module = nn.Identity()
        if stride == 2:
            self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, 2, bias=False), _normalisation(norm, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)``."""
        return F.leaky_relu(self.body(x) + self.skip(x), SLOPE, inplace=True)


def _leaky() -> nn.LeakyReLU:
    return nn.LeakyReLU(SLOPE, inplace=True)


def _normalisation(norm: Norm, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(max(1, channels // 8), channels)


def check(who: str, start: Start, **sizes: int) -> None:
    """Refuse sizes below 1 and unknown starts."""
    for name, value in sizes.items():
        if value < 1:
            raise ReconlabError(f"{who}: {name} is {value}; expected at least 1.")
    if start not in get_args(Start):
        raise ReconlabError(f"{who}: start is {start!r}; choose normal or kaiming.")
