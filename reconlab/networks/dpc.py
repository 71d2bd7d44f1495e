"""The point network of DPC (Insafutdinov & Dosovitskiy, NeurIPS 2018), which DRWR (Han et al., ICML 2020) trains."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.networks.base import Network
from reconlab.precision import full_precision
from reconlab.shapes import PointCloud

CODE = 1024
SLOPE = 0.2  # of every leaky ReLU
TRUNCATED = 0.87962566  # standard deviation of a unit normal cut at ±2


class ScaledPoints(PointCloud):
    """Points with the occupancy scale that DPC's renderer multiplies its volume by.

    Args:
        points: ``(B, N, 3)``.
        occupancy_scale: ``(B,)`` in [0, 1].
    """

    def __init__(self, points: Tensor, occupancy_scale: Tensor) -> None:
        super().__init__(points)
        self.occupancy_scale = occupancy_scale

    def __getitem__(self, index: slice | int) -> ScaledPoints:
        s = self.as_slice(index, len(self))
        return ScaledPoints(self.positions[s], self.occupancy_scale[s])

    def to(self, device: torch.device | str) -> ScaledPoints:
        """Move to a device."""
        return ScaledPoints(self.positions.to(device), self.occupancy_scale.to(device))


class SameConv(nn.Conv2d):
    """Convolution padded as TensorFlow's ``SAME``: at stride 2 an even image gets more zeros below and right."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__(inputs, outputs, kernel, stride)
        self.total = kernel - stride  # for sides that the stride divides

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H / stride, W / stride)``."""
        before, after = self.total // 2, self.total - self.total // 2
        if before == after:
            return F.conv2d(x, self.weight, self.bias, self.stride, before)
        return F.conv2d(F.pad(x, (before, after, before, after)), self.weight, self.bias, self.stride)


def he_(layer: nn.Conv2d | nn.Linear) -> None:
    """He's initialisation by fan-in: a normal cut at two deviations, of variance 2 / fan-in; bias 0."""
    fan_in = layer.weight[0].numel()
    cut_normal_(layer, math.sqrt(2 / fan_in) / TRUNCATED)


def cut_normal_(layer: nn.Conv2d | nn.Linear, std: float) -> None:
    """Weights from a normal of deviation ``std`` cut at ±2 ``std``; bias 0."""
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class DPCEncoder(nn.Module):
    """Image to code: 5×5 and 3×3 convolutions down to 4×4 pixels, three fully connected layers, no normalisation.

    A first convolution 5×5 with stride 2 to 16 channels, then ``log2(S / 4) - 1`` blocks that halve the image and
    double the channels (3×3 stride 2, 3×3 stride 1), then 1024, 1024, 1024; leaky ReLU of slope 0.2 after each.
    At 128 pixels: 1 177 216 + 6 294 528 parameters.

    Args:
        image_size: Side ``S`` of the image, a power of two of at least 8.

    Raises:
        ReconlabError: The side is none.
    """

    def __init__(self, image_size: int = 128) -> None:
        super().__init__()
        if image_size < 8 or image_size & (image_size - 1):
            raise ReconlabError(f"DPC: image_size is {image_size}; expected a power of two of at least 8.")
        self.image_size = image_size
        channels = 16
        convolutions: list[SameConv] = [SameConv(3, channels, 5, 2)]
        for _ in range(int(math.log2(image_size // 4)) - 1):
            convolutions += [SameConv(channels, 2 * channels, 3, 2), SameConv(2 * channels, 2 * channels, 3, 1)]
            channels *= 2
        self.convolutions = nn.ModuleList(convolutions)
        self.layers = nn.ModuleList([nn.Linear(16 * channels, CODE), nn.Linear(CODE, CODE), nn.Linear(CODE, CODE)])
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                he_(layer)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, S, S)`` in [0, 1] to codes ``(B, 1024)``.

        Raises:
            ReconlabError: The images have another size.
        """
        return self.finish(self.latent(images))

    def latent(self, images: Tensor) -> Tensor:
        """The first fully connected layer's ``(B, 1024)`` output, in which DPC interpolates."""
        expected = (3, self.image_size, self.image_size)
        if images.dim() != 4 or tuple(images.shape[1:]) != expected:
            raise ReconlabError(
                f"DPC takes images (B, {', '.join(map(str, expected))}), not {tuple(images.shape)}; "
                "set the network's image_size to the data's."
            )
        x = 2 * images - 1
        for convolution in self.convolutions:
            x = F.leaky_relu(convolution(x), SLOPE)
        return F.leaky_relu(self.layers[0](x.flatten(1)), SLOPE)

    def finish(self, latent: Tensor) -> Tensor:
        """:meth:`latent`'s output to the code."""
        for layer in self.layers[1:]:
            latent = F.leaky_relu(layer(latent), SLOPE)
        return latent


class DPC(Network):
    """DPC's network: the encoder and one linear layer to the points, squashed into the unit cube.

    At 128 pixels 7.47 M parameters and ``1025 · 3 J``: 6.15 M, 24.6 M and 49.2 M for 2000, 8000 and 16000 points.
    TensorFlow's code flattens the image's features row by row, channels last; ours channels first, which only
    permutes random weights.

    Args:
        points: ``J``.
        image_size: Side of the input image, a power of two.
        occupancy_scale: Predict the scale that DPC's renderer learns (1025 parameters more). Leave it off for
            other losses: they give it no gradient, which training on several processes refuses.
    """

    def __init__(self, points: int = 2000, image_size: int = 128, occupancy_scale: bool = False) -> None:
        super().__init__()
        if points < 1:
            raise ReconlabError(f"DPC: points is {points}; expected at least 1.")
        self.encoder = DPCEncoder(image_size)
        self.decoder = nn.Linear(CODE, 3 * points)
        cut_normal_(self.decoder, 0.025)
        self.scale = nn.Linear(CODE, 1) if occupancy_scale else None
        if self.scale is not None:
            cut_normal_(self.scale, 0.025)

    def forward(self, images: Tensor, cameras: Cameras | None = None) -> PointCloud:
        """``(B, 3, S, S)`` images in [0, 1] to clouds of ``J`` points in (-0.5, 0.5)³."""
        return self.decode(self.encoder(images))

    def decode(self, code: Tensor) -> PointCloud:
        """Codes ``(B, 1024)`` to clouds."""
        points = 0.5 * torch.tanh(full_precision(self.decoder, code)).unflatten(-1, (-1, 3))
        if self.scale is None:
            return PointCloud(points)
        return ScaledPoints(points, torch.sigmoid(full_precision(self.scale, code))[:, 0])
