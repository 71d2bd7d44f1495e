"""IM-Net's decoder, its field of occupancies, and the encoder of voxels that its codes come from."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reconlab.errors import ReconlabError
from reconlab.precision import at_least_single
from reconlab.shapes import ImplicitField

SLOPE = 0.02
"""Of the leaky ReLUs."""

STEEPNESS = 10.0
"""Log-odds between the values 0 and 1 of the decoder."""

Start = Literal["normal", "kaiming"]


class IMDecoder(nn.Module):
    """Points and codes to values: 1 inside, 0 outside, the surface at 0.5.

    Fully connected layers from ``3 + code`` to 8, 8, 8, 4, 2, 1 times ``width`` and to one number, leaky ReLU of
    slope 0.02 between them. The code's part of the first layer is computed once per sample.

    Args:
        code: Numbers of a code.
        width: 128 as published: 1024, 1024, 1024, 512, 256, 128.
        start: ``normal``: weights from N(0, 0.02²) and the last layer's from N(1e-5, 0.02²), as published. With
            fewer than a thousand units such weights let nothing through; ``kaiming`` keeps the size of the
            activations at any width, gives the three coordinates (weights from N(0, 3²)) as much to say as the
            code, and starts within some tenths of the value 0.5; shapes are then learned in a fraction of the steps.
    """

    def __init__(self, code: int = 256, width: int = 128, start: Start = "normal") -> None:
        super().__init__()
        sizes = [3 + code, 8 * width, 8 * width, 8 * width, 4 * width, 2 * width, width, 1]
        linear = [nn.Linear(i, o) for i, o in pairwise(sizes)]
        self.first, self.others = linear[0], nn.ModuleList(linear[1:])
        for layer in linear:
            last = layer is linear[-1]
            if start == "normal":
                nn.init.normal_(layer.weight, 1e-5 if last else 0.0, 0.02)
            else:
                nn.init.kaiming_normal_(layer.weight, SLOPE, nonlinearity="leaky_relu")
            nn.init.constant_(layer.bias, 0.5 if last and start == "kaiming" else 0.0)
        if start == "kaiming":
            nn.init.normal_(self.first.weight.detach()[:, :3], 0.0, 3.0)
            linear[-1].weight.detach().mul_(0.1)

    def forward(self, code: Tensor, points: Tensor) -> Tensor:
        """``code (B, Z)`` and ``points (B, N, 3)`` to values ``(B, N)``, not limited to [0, 1]."""
        weight = self.first.weight
        bias = F.linear(code, weight[:, 3:], self.first.bias)
        x = F.linear(points.to(code.dtype), weight[:, :3]) + bias.unsqueeze(1)
        for layer in self.others:
            x = layer(F.leaky_relu(x, SLOPE, inplace=True))
        return x.squeeze(-1)


def leaky_clip(values: Tensor) -> Tensor:
    """Values kept in [0, 1] but for a hundredth of what exceeds it: what IM-Net calls occupancy.

    Example:
        >>> leaky_clip(torch.tensor([-1.0, 0.5, 2.0]))
        tensor([-0.0100,  0.5000,  1.0100])
    """
    return torch.maximum(torch.minimum(values, 0.99 + 0.01 * values), 0.01 * values)


class IMField(ImplicitField):
    """The fields of a batch of codes.

    The logits are ``10 (value - 0.5)``: IM-Net has values of occupancy, not odds, and only their level 0.5 is
    fixed; a steepness makes them probabilities for whoever asks (voxel losses).

    Attributes:
        code: ``(B, Z)``.
        target_code: ``(B, Z)`` what the code should be, where the network knows it; for regression losses.
    """

    def __init__(
        self,
        decoder: IMDecoder,
        code: Tensor,
        resolution: int,
        chunk: int,
        coarse: int = 32,
        target_code: Tensor | None = None,
    ) -> None:
        self.decoder = decoder
        self.code = code = at_least_single(code)
        self.target_code = target_code
        super().__init__(self._logits, len(code), code.device, resolution, chunk, coarse)

    def _logits(self, points: Tensor) -> Tensor:
        return STEEPNESS * (self.decoder(self.code, points) - 0.5)

    def occupancies(self, points: Tensor) -> Tensor:
        """``(B, N, 3) -> (B, N)``, clipped to [0, 1] but for a slope of 0.01 outside it. Differentiable."""
        return leaky_clip(self.logits(points) / STEEPNESS + 0.5)

    def __getitem__(self, index: slice | int) -> IMField:
        s = self.as_slice(index, len(self))
        target = None if self.target_code is None else self.target_code[s]
        return IMField(self.decoder, self.code[s], self.resolution, self.chunk, self.coarse, target)


class VoxelEncoder(nn.Module):
    """``(B, S, S, S)`` occupancies to codes ``(B, Z)`` in (0, 1).

    4³ convolutions of stride 2 to ``width``, 2, 4, 8 times that (each with instance normalisation and leaky ReLU)
    until 4³ cells remain, one more over all of them, and a sigmoid. Fewer cells have fewer convolutions.

    Args:
        code: ``Z``.
        width: Channels of the first convolution.
        size: ``S``: 64 as published; 8, 16, 32, …

    Raises:
        ReconlabError: ``size`` is no power of 2, or less than 8.
    """

    def __init__(self, code: int = 256, width: int = 32, size: int = 64) -> None:
        super().__init__()
        if size < 8 or size & (size - 1):
            raise ReconlabError(f"VoxelEncoder: size is {size}; expected a power of 2 from 8 on.")
        self.size = size
        layers: list[nn.Module] = []
        inputs = 1
        for i in range(int(math.log2(size)) - 2):
            outputs = width * min(2**i, 8)
            layers += [nn.Conv3d(inputs, outputs, 4, 2, 1, bias=False), nn.InstanceNorm3d(outputs)]
            layers.append(nn.LeakyReLU(SLOPE, inplace=True))
            inputs = outputs
        layers.append(nn.Conv3d(inputs, code, 4))
        self.layers = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, voxels: Tensor) -> Tensor:
        """Grids of another size are averaged down, or repeated (interpolated, where the size does not divide).

        Raises:
            ReconlabError: Not a batch of cubes.
        """
        if voxels.dim() != 4 or len(set(voxels.shape[1:])) != 1:
            raise ReconlabError(f"VoxelEncoder takes voxels (B, D, D, D), not {tuple(voxels.shape)}.")
        grid = voxels.unsqueeze(1).float()
        have = grid.shape[-1]
        if have > self.size:
            grid = F.adaptive_avg_pool3d(grid, self.size)
        elif have < self.size:
            mode = "nearest" if self.size % have == 0 else "trilinear"
            grid = F.interpolate(grid, size=(self.size,) * 3, mode=mode)
        return self.layers(grid).flatten(1).sigmoid()
