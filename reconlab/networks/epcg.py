"""EPCG's network (Lin, Kong & Lucey, AAAI 2018): an image to depth maps of eight fixed views, fused to points."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.networks.base import Network
from reconlab.networks.dpc import SameConv
from reconlab.networks.resize import to_side
from reconlab.precision import full_precision
from reconlab.renderers.pseudo_depth import DISTANCE, FIXED_VIEWS, fixed_views, from_view
from reconlab.shapes import PointCloud

SIDE = 64
ENCODER = (96, 128, 192, 256)
DECODER = (192, 128, 96, 64, 48)
STD = 0.1  # of every weight, as in the published code

Norm = Literal["batch", "group"]


class FusedMaps(PointCloud):
    """Points fused from depth maps, and the maps themselves.

    Args:
        points: ``(B, N, 3)``.
        view_maps: ``(B, 8, 3, S, S)``: x and y in pixels of the map, depth in object units, of the fixed views.
        view_logits: ``(B, 8, S, S)`` mask logits; pixels above 0 are points.
    """

    def __init__(self, points: Tensor, view_maps: Tensor, view_logits: Tensor) -> None:
        super().__init__(points)
        self.view_maps = view_maps
        self.view_logits = view_logits

    def __getitem__(self, index: slice | int) -> FusedMaps:
        s = self.as_slice(index, len(self))
        return FusedMaps(self.positions[s], self.view_maps[s], self.view_logits[s])

    def to(self, device: torch.device | str) -> FusedMaps:
        """Move to a device."""
        return FusedMaps(self.positions.to(device), self.view_maps.to(device), self.view_logits.to(device))


def fuse(view_maps: Tensor, view_logits: Tensor, points: int) -> FusedMaps:
    """Maps of the fixed views to clouds of ``points`` points each.

    Clouds of a batch need equal counts, but the maps give as many points as they have pixels with a positive logit,
    n. The rule: of these, in the order view, row, column, the ones at ``⌊(k + ½) n / points⌋``, k = 0, 1, ...:
    evenly spaced, each view keeping its share, repeated where n is too small. Where n is 0 all points are NaN: a
    failed prediction.

    Args:
        view_maps: ``(B, 8, 3, S, S)``, see :class:`FusedMaps`.
        view_logits: ``(B, 8, S, S)``.
        points: Of each cloud.
    """
    size = view_maps.shape[-1]
    pixels = view_maps.flatten(3).transpose(2, 3)
    everything = from_view(pixels, fixed_views(), size).flatten(1, 2)
    steps = torch.arange(points, device=view_maps.device)
    clouds = []
    for candidates, logits in zip(everything, view_logits.flatten(1), strict=True):
        found = (logits > 0).nonzero()[:, 0]
        if len(found):
            clouds.append(candidates[found[(2 * steps + 1) * len(found) // (2 * points)]])
        else:  # attached to the graph, so that a loss on points can still run backwards
            clouds.append(candidates[:1].expand(points, 3) * 0 + torch.nan)
    return FusedMaps(torch.stack(clouds), view_maps, view_logits)


class EPCGNet(Network):
    """EPCG's structure generator.

    Encoder: 64 × 64 pixels, four 3×3 convolutions of stride 2 (96, 128, 192, 256), layers of 2048, 1024 and 512.
    Decoder: layers of 1024, 2048 and 4096 → 4 × 4 × 256, then nearest-neighbour enlargement by 2 and a 3×3
    convolution (192, 128, 96, 64, 48) up to 128², and a 1×1 convolution to 8 views of x, y, depth and mask logit,
    with a bias of its own at every pixel, which begins as the pixel's own position, depth 1 and logit 0. ReLU
    after all but the output, normalisation without scale or offset before it but at the code. 24.2 M parameters
    at 128².

    Departures: a smaller ``size`` drops the last enlargements; running statistics follow with torch's 0.1 (there
    0.001, for 500 000 steps); pixels are centred at i + ½; images of another size are resized to 64² by area.

    Args:
        size: Side of the maps: 8, 16, 32, 64 or 128.
        points: Of each cloud, see :func:`fuse`.
        norm: ``batch`` (the paper's) or ``group`` (groups of 8 channels, whole layers), for small batches.
        decoder_from: Checkpoint of an :class:`EPCGNet` run of the same sizes from which *all* weights are taken: the
            second stage begins where the first ended. (The name is AtlasNet's, so that later checkpoints
            forget the path in the same way.)

    Raises:
        ReconlabError: A setting is out of range, or the checkpoint does not fit.
    """

    def __init__(
        self, size: int = 128, points: int = 8000, norm: Norm = "batch", decoder_from: str | None = None
    ) -> None:
        super().__init__()
        if size not in (8, 16, 32, 64, 128):
            raise ReconlabError(f"EPCGNet: size is {size}; expected 8, 16, 32, 64 or 128.")
        if points < 1:
            raise ReconlabError(f"EPCGNet: points is {points}; expected at least 1.")
        if norm not in ("batch", "group"):
            raise ReconlabError(f"EPCGNet: norm is {norm!r}; choose batch or group.")
        self.size, self.points = size, points
        channels = (3, *ENCODER)
        encoder: list[nn.Module] = []
        for inputs, outputs in zip(channels, ENCODER, strict=False):
            encoder += [SameConv(inputs, outputs, 3, 2), _image_norm(norm, outputs), nn.ReLU(inplace=True)]
        encoder.append(nn.Flatten())
        for inputs, outputs in ((4096, 2048), (2048, 1024)):
            encoder += [nn.Linear(inputs, outputs), _layer_norm(norm, outputs), nn.ReLU(inplace=True)]
        self.encoder = nn.Sequential(*encoder, nn.Linear(1024, 512), nn.ReLU(inplace=True))
        decoder: list[nn.Module] = []
        for inputs, outputs in ((512, 1024), (1024, 2048), (2048, 4096)):
            decoder += [nn.Linear(inputs, outputs), _layer_norm(norm, outputs), nn.ReLU(inplace=True)]
        decoder.append(nn.Unflatten(1, (256, 4, 4)))
        widths = (256, *DECODER[: int(math.log2(size // 4))])
        for inputs, outputs in pairwise(widths):
            decoder += [nn.Upsample(scale_factor=2), nn.Conv2d(inputs, outputs, 3, 1, 1)]
            decoder += [_image_norm(norm, outputs), nn.ReLU(inplace=True)]
        self.decoder = nn.Sequential(*decoder, nn.Conv2d(widths[-1], 4 * FIXED_VIEWS, 1, bias=False))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        grid = torch.arange(size, dtype=torch.float32)
        start = torch.stack(
            [grid.expand(size, size), grid[:, None].expand(size, size), torch.full((size, size), DISTANCE)]
        )
        self.position = nn.Parameter(start.expand(FIXED_VIEWS, 3, size, size).clone())
        self.logit = nn.Parameter(torch.zeros(FIXED_VIEWS, size, size))
        if decoder_from is not None:
            load_weights(self, decoder_from)

    def forward(self, images: Tensor, cameras: Cameras | None = None) -> FusedMaps:
        """``(B, 3, H, W)`` images in [0, 1] to points and maps.

        Raises:
            ReconlabError: The images are no RGB pictures.
        """
        if self.training and len(images) == 1 and any(isinstance(m, nn.BatchNorm1d) for m in self.modules()):
            raise ReconlabError(
                "EPCGNet cannot normalise one image by batch: set norm: group, or a larger batch_size."
            )
        images = to_side(images, SIDE, "EPCGNet")
        code = self.decoder[:-1](self.encoder(images))
        out = full_precision(self.decoder[-1], code).unflatten(1, (FIXED_VIEWS, 4))
        return fuse(out[:, :, :3] + self.position, out[:, :, 3] + self.logit, self.points)


def _image_norm(kind: Norm, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels, affine=False)
    return nn.GroupNorm(channels // 8, channels, affine=False)


def _layer_norm(kind: Norm, channels: int) -> nn.Module:
    return nn.BatchNorm1d(channels, affine=False) if kind == "batch" else nn.GroupNorm(1, channels, affine=False)


def load_weights(network: EPCGNet, path: str) -> None:
    """Copy all weights of a training checkpoint into ``network``.

    Raises:
        ReconlabError: The file is missing, unreadable, or holds another network.
    """
    from reconlab.networks.checkpoint import network_state

    state, own = network_state(Path(path)), network.state_dict()
    wrong = sorted(own.keys() ^ state.keys()) or [k for k in own if state[k].shape != own[k].shape]
    if wrong:
        raise ReconlabError(f"decoder_from: {path} does not hold this EPCGNet (first mismatch: {wrong[0]}).")
    network.load_state_dict(state)
