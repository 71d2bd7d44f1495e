"""ResNet-18 as an image encoder (He et al., CVPR 2016), trained from scratch as in AtlasNet's image stage."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def _conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with batch normalisation and a skip connection."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv3(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = _conv3(outputs, outputs), nn.BatchNorm2d(outputs)
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)``."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)) + self.skip(x), inplace=True)


class ResNet18(nn.Module):
    """``(B, 3, H, W)`` images in [0, 1] to ``(B, outputs)`` features.

    Args:
        outputs: Size of the final fully connected layer.
        width: Channels of the first stage; 64 is ResNet-18, smaller widths are for quick runs.
    """

    def __init__(self, outputs: int, width: int = 64) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 7, 2, 3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        )
        blocks: list[nn.Module] = []
        channels = width
        for stage in range(4):
            target = width * 2**stage
            for block in range(2):
                blocks.append(BasicBlock(channels, target, 2 if stage and not block else 1))
                channels = target
        self.stages = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W) -> (B, outputs)``; sides of at least 32 pixels."""
        return self.head(self.stages(self.stem(images)).mean((-2, -1)))
