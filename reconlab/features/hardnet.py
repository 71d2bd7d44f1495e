"""HardNet, the patch descriptor of DR-KFS (Mishchuk et al., NeurIPS 2017), with its BatchNorm foldable."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from reconlab.errors import ReconlabError

_LAYERS = ((1, 32, 3, 1), (32, 32, 3, 1), (32, 64, 3, 2), (64, 64, 3, 1), (64, 128, 3, 2), (128, 128, 3, 1))


class HardNet(nn.Module):
    """32×32 grey patches to 128-D unit vectors; 7 convolutions, 1.334 M parameters, affine-free BatchNorm.

    The layers are named and ordered as in the authors' release and in kornia, so their state dicts load.
    Each patch is normalised by its own mean and standard deviation, through which no gradient passes (as in
    both of those).

    Args:
        eps: Added to the standard deviation. The upstream 1e-6 turns numerical noise on a flat patch into a
            full-contrast patch with a gradient 40,000 times a textured one's; 1e-2, for patches of about [0, 1],
            does not, and changes DR-KFS scores by 1-5 %.
        dropout: Before the last layer, active in training only.

    Example:
        >>> net = HardNet().eval()
        >>> net(torch.rand(3, 1, 32, 32)).norm(dim=1).allclose(torch.ones(3), atol=1e-4)
        True
        >>> sum(p.numel() for p in net.parameters())
        1334560
    """

    patch_size = 32
    dimensions = 128

    def __init__(self, eps: float = 1e-2, dropout: float = 0.3) -> None:
        super().__init__()
        self.eps = eps
        self.folded = False
        layers: list[nn.Module] = []
        for c_in, c_out, k, stride in _LAYERS:
            layers += [
                nn.Conv2d(c_in, c_out, k, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(c_out, affine=False),
                nn.ReLU(),
            ]
        layers += [nn.Dropout(dropout), nn.Conv2d(128, 128, 8, bias=False), nn.BatchNorm2d(128, affine=False)]
        self.features = nn.Sequential(*layers)
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                nn.init.orthogonal_(layer.weight, gain=0.6)

    def normalise(self, patches: Tensor) -> Tensor:
        """Zero mean, about unit standard deviation per patch ``(P, 1, 32, 32)``; both taken as constants."""
        std, mean = torch.std_mean(patches.detach(), dim=(1, 2, 3), keepdim=True)
        return (patches - mean) / (std + self.eps)

    def forward(self, patches: Tensor) -> Tensor:
        """Describe patches.

        Args:
            patches: ``(P, 1, 32, 32)``; P may be 0.

        Returns:
            ``(P, 128)`` of unit L2 norm (zero where the network answers exactly zero).
        """
        if patches.dim() != 4 or tuple(patches.shape[1:]) != (1, 32, 32):
            raise ReconlabError(f"HardNet takes patches (P, 1, 32, 32), not {tuple(patches.shape)}.")
        if patches.shape[0] == 0:
            return patches.new_zeros(0, self.dimensions)
        x = self.normalise(patches)
        if x.device.type == "cpu" and x.dtype == torch.float32:
            # oneDNN's layout: saves a reorder at each layer.
            x = x.contiguous(memory_format=torch.channels_last)
        # Under autocast the convolutions may answer in bf16; norms and distances are for full precision.
        x = self.features(x).flatten(1).to(patches.dtype)
        return x * torch.rsqrt(x.square().sum(dim=1, keepdim=True) + 1e-10)

    def fold(self) -> HardNet:
        """A copy for inference: BatchNorm folded into the convolutions, no dropout, frozen, in eval mode."""
        net = copy.deepcopy(self).eval()
        if self.folded:
            return net
        layers: list[nn.Module] = []
        source = list(net.features)
        for i, layer in enumerate(source):
            if isinstance(layer, nn.Conv2d):
                layers.append(_fold(layer, cast(nn.BatchNorm2d, source[i + 1])))
            elif isinstance(layer, nn.ReLU):
                layers.append(nn.ReLU(inplace=True))
        net.features = nn.Sequential(*layers)
        net.folded = True
        return net.requires_grad_(False)


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """The convolution with bias that equals ``norm(conv(x))`` in eval mode."""
    mean, var = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    scale = torch.rsqrt(var + norm.eps)
    folded = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        cast(tuple[int, int], conv.kernel_size),
        stride=cast(tuple[int, int], conv.stride),
        padding=cast(tuple[int, int], conv.padding),
    ).to(conv.weight)
    with torch.no_grad():
        folded.weight.copy_(conv.weight * scale.view(-1, 1, 1, 1))
        cast(Tensor, folded.bias).copy_(-mean * scale)
    return folded
