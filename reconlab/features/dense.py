"""A small descriptor that runs over a whole map at once and answers as HardNet would for each 32×32 patch of it."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from reconlab.errors import ReconlabError
from reconlab.features.patches import extract_patches


class DenseDescriptor(nn.Module):
    r"""Fully convolutional descriptor of 32×32 windows at a stride of 16, 2.4 MMAC a window instead of HardNet's 39.

    A patch descriptor normalises each patch by its own mean and deviation, and pads its border; both tie the work
    to the patch, so that overlapping patches share none of it. Here the layers are without padding, and the two
    normalisations drop out by construction: the first filters sum to zero, so the mean is lost; no layer has a
    bias, so that the answer z(p) is proportional to the contrast, which the last normalisation divides out:

    .. math:: d(p) = \frac{z(p) + \epsilon c}{|z(p) + \epsilon c|}
              = \text{normalise}\Big(z\Big(\frac{p - \mu}{s + \epsilon}\Big) + \frac{\epsilon}{s + \epsilon} c\Big)

    (μ, s: mean and deviation of the patch; c: learnt, the direction of a patch without texture). The left side is
    computed for all windows at once by :meth:`forward`; the right side, patch by patch, is :meth:`reference`.

    Args:
        widths: Channels of the five layers (4×4 stride 2; 3×3; 3×3 stride 2; 3×3; 4×4 stride 4). The last one is
            the descriptor's size.
        eps: ε. Patches of a smaller deviation count as flat, smoothly.

    Example:
        >>> DenseDescriptor()(torch.rand(2, 1, 64, 64)).shape
        torch.Size([2, 3, 3, 128])
    """

    patch_size, stride = 32, 16

    def __init__(self, widths: tuple[int, int, int, int, int] = (32, 32, 64, 128, 128), eps: float = 1e-2) -> None:
        super().__init__()
        self.eps = eps
        self.widths = tuple(widths)
        self.dimensions = widths[-1]
        layers: list[nn.Module] = []
        c_in = 1
        for width, (kernel, step) in zip(widths, ((4, 2), (3, 1), (3, 2), (3, 1), (4, 4)), strict=True):
            layers += [nn.Conv2d(c_in, width, kernel, stride=step, bias=False), nn.ReLU()]
            c_in = width
        self.layers = nn.Sequential(*layers[:-1])
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.flat = nn.Parameter(torch.randn(self.dimensions) / self.dimensions**0.5)
        self.centre()

    @torch.no_grad()
    def centre(self) -> None:
        """Make the first filters sum to zero again, after a training step."""
        weight = cast(nn.Conv2d, self.layers[0]).weight
        weight -= weight.mean(dim=(1, 2, 3), keepdim=True)

    def fold(self) -> DenseDescriptor:
        """A frozen copy in eval mode; there is nothing to fold."""
        return copy.deepcopy(self).eval().requires_grad_(False)

    def forward(self, maps: Tensor) -> Tensor:
        """Descriptors of all windows of maps ``(M, 1, H, W)``: ``(M, gh, gw, D)`` of unit norm."""
        if maps.dim() != 4 or maps.shape[1] != 1 or min(maps.shape[-2:]) < self.patch_size:
            raise ReconlabError(
                f"DenseDescriptor takes maps (M, 1, H, W) of at least 32 pixels a side, not {tuple(maps.shape)}."
            )
        x = maps
        if x.device.type == "cpu" and x.dtype == torch.float32:
            x = x.contiguous(memory_format=torch.channels_last)
        x = self.layers(x).to(maps.dtype).permute(0, 2, 3, 1)
        return _unit(x + self.eps * self.flat)

    def reference(self, maps: Tensor) -> Tensor:
        """The same patch by patch, each normalised by its mean and deviation: what :meth:`forward` must equal."""
        patches = extract_patches(maps, self.patch_size, self.stride)
        std, mean = torch.std_mean(patches, dim=(-2, -1), keepdim=True)
        normalised = (patches - mean) / (std + self.eps)
        z = self.layers(normalised.reshape(-1, 1, self.patch_size, self.patch_size)).flatten(1)
        share = self.eps / (std.reshape(-1, 1) + self.eps)
        return _unit(z + share * self.flat).view(*patches.shape[:3], -1)


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + 1e-16)
