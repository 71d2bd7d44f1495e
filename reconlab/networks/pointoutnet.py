"""PointOutNet (Fan, Su, Guibas, CVPR 2017): an image to 1024 points from a dense and a deconvolutional branch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.networks.base import Network
from reconlab.networks.resize import to_side
from reconlab.precision import full_precision
from reconlab.shapes import PointCloud

Version = Literal["r2n2", "two_branch", "hourglass"]
DENSE = 256
"""Points of the dense branch."""
GREY = 191 / 255
"""Background of the networks that also see a mask."""
WHITE = 1 - 1 / 255
"""A pixel all of whose channels are above this counts as background there."""


@dataclass(frozen=True)
class Plan:
    """What distinguishes the three published networks.

    Attributes:
        size: Height and width of the input.
        channels: Of the input; the fourth is the background's mask.
        first: Channels of the first stage; the following have 2, 4, 8, … times as many.
        kernels: Of the first convolution of each stage; from the second stage on it has stride 2.
        ups: Deconvolutions of the last decoder.
        per_cell: Points that each cell of the last decoder makes.
        hourglass: Whether the image goes down, up and down again before that.
    """

    size: tuple[int, int]
    channels: int
    first: int
    kernels: tuple[int, ...]
    ups: int
    per_cell: int
    hourglass: bool = False


PLANS: dict[str, Plan] = {
    "r2n2": Plan((128, 128), 3, 32, (3, 3, 3, 3, 3), 2, 3),
    "two_branch": Plan((192, 256), 4, 16, (3, 3, 3, 3, 3, 3), 3, 1),
    "hourglass": Plan((192, 256), 4, 16, (3, 3, 3, 3, 5, 5), 3, 1, hourglass=True),
}


class Join(nn.Module):
    """``conv3(relu(change(x) + conv3(skip)))``: the step by which both directions meet an earlier stage."""

    def __init__(self, change: nn.Module, skip: int, outputs: int, norm: str) -> None:
        super().__init__()
        self.change = nn.Sequential(change, _norm(norm, outputs))
        self.skip = nn.Sequential(nn.Conv2d(skip, outputs, 3, 1, 1), _norm(norm, outputs))
        self.after = _conv(outputs, outputs, norm=norm)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """``(B, C, h, w)`` and the earlier stage to ``(B, outputs, H, W)`` of that stage's size."""
        return self.after(F.relu(self.change(x) + self.skip(skip)))


class PointOutNet(Network):
    """1024 points: 256 from fully connected layers, which can go anywhere, and 768 from a map, which keep together.

    Three networks of the authors, as in their released code:

    - ``r2n2``: for 3D-R2N2's data, 128² RGB; stages of 32, 64, 128, 256, 512 channels with 2, 3, 3, 3, 4
      convolutions; two deconvolutions to a map of 16² cells with three points each; 42 892 137 parameters;
    - ``two_branch``: 192 × 256, RGB on grey and the background's mask; stages of 16 to 512 channels; three
      deconvolutions to a map of 24 × 32 points; 38 910 019 parameters;
    - ``hourglass``: the same input; up to half the image's size and down again before that; 70 154 419 parameters.

    All end in a 5×5 convolution of stride 2, whose output of 512 channels goes through layers of 2048 and 1024 into
    768 numbers, and up through 5×5 deconvolutions, each added to the stage of its size.

    Departures: square images are laid in the middle of the wide input, and background is where they are white;
    weights start from He's normal distribution, the last layers' at a tenth of it (there: TFLearn's defaults), so
    that training begins with a cloud inside the shape; strided convolutions pad evenly; a ReLU before one sum in the
    demo of ``two_branch`` is left out; normalisation, which the originals lack, can be had.

    Points have no surface: with losses that need a mesh (DRKFS, PixelMSE, SilhouetteIoU) this network does not train.

    Args:
        version: Which of the three.
        width: Channels of the first stage, to which all others are in proportion; the published one if None.
        hidden: Width of the first fully connected layer; the next has half of it.
        norm: After each convolution: ``none`` (as published), ``batch`` or ``group``.

    Raises:
        ReconlabError: A setting out of range.
    """

    def __init__(
        self,
        version: Version = "r2n2",
        width: int | None = None,
        hidden: int = 2048,
        norm: Literal["none", "batch", "group"] = "none",
    ) -> None:
        super().__init__()
        if version not in PLANS:
            raise ReconlabError(f"PointOutNet: version is {version!r}; expected one of {', '.join(PLANS)}.")
        if norm not in ("none", "batch", "group"):
            raise ReconlabError(f"PointOutNet: norm is {norm!r}; expected none, batch or group.")
        plan = self.plan = PLANS[version]
        width = plan.first if width is None else width
        if width < 1 or hidden < 2:
            raise ReconlabError(
                f"PointOutNet: width is {width} and hidden {hidden}; expected at least 1 and at least 2."
            )
        widths = [width * 2**k for k in range(len(plan.kernels))]
        bottom = widths[-1]
        self.stages = nn.ModuleList()
        inputs = plan.channels
        for k, (outputs, kernel) in enumerate(zip(widths, plan.kernels, strict=True)):
            stride, count = (1, 2) if k == 0 else (2, 3 + (k == len(widths) - 1))
            layers = [_conv(inputs, outputs, kernel, stride, norm)]
            layers += [_conv(outputs, outputs, norm=norm) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*layers))
            inputs = outputs
        self.bottom = _conv(bottom, bottom, 5, 2, norm)
        cells = (plan.size[0] >> len(widths)) * (plan.size[1] >> len(widths))
        self.dense = nn.Linear(cells * bottom, hidden)
        halves = widths[:-1]  # going up, each stage has the channels of the next finer one going down
        skips = widths
        if plan.hourglass:
            self.ups_first = _ups(bottom, skips, halves, len(halves), norm)
            self.downs = nn.ModuleList(
                Join(nn.Conv2d(i, o, kernel, 2, kernel // 2), o, o, norm)
                for i, o, kernel in zip(halves[:-1], halves[1:], plan.kernels[2:], strict=True)
            )
            self.bottom_second = _conv(halves[-1], bottom, 5, 2, norm)
            self.dense_first, self.dense_second = nn.Linear(hidden, hidden), nn.Linear(cells * bottom, hidden)
            skips = halves
        self.ups = _ups(bottom, skips, halves, plan.ups, norm)
        last = halves[-plan.ups]
        self.map = nn.Sequential(_conv(last, last, norm=norm), nn.Conv2d(last, 3 * plan.per_cell, 3, 1, 1))
        self.head = nn.Sequential(
            nn.Linear(hidden, hidden // 2), nn.ReLU(inplace=True), nn.Linear(hidden // 2, 3 * DENSE)
        )
        self.apply(_initialise)
        with torch.no_grad():
            for join in self.modules():
                if isinstance(join, Join):  # a sum of two
                    for branch in (join.change[0], join.skip[0]):
                        branch.weight *= 0.5**0.5
            for layer in (self.map[-1], self.head[-1]):
                assert isinstance(layer, nn.Conv2d | nn.Linear)  # noqa: S101 - for the type checker
                layer.weight *= 0.1

    def forward(self, images: Tensor, cameras: Cameras | None = None) -> PointCloud:
        """``(B, 3, S, S)`` images in [0, 1] on white to 1024 points, the dense branch's first; no cameras."""
        x = self.prepare(images)
        stages = []
        for stage in self.stages:
            x = stage(x)
            stages.append(x)
        x = self.bottom(x)
        dense = F.relu(self.dense(x.flatten(1)))
        if self.plan.hourglass:
            x, stages, dense = self._turn(x, stages, dense)
        for up, skip in zip(self.ups, reversed(stages), strict=False):
            x = up(x, skip)
        cells = full_precision(self.map, x).permute(0, 2, 3, 1).reshape(len(images), -1, 3)
        first = full_precision(self.head, dense).reshape(len(images), DENSE, 3)
        return PointCloud(torch.cat([first, cells], dim=1))

    def _turn(self, x: Tensor, stages: list[Tensor], dense: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """Up and down again: the second bottom, what the second way down left, the dense features of both."""
        above = []
        for up, skip in zip(self.ups_first, reversed(stages), strict=False):
            x = up(x, skip)
            above.append(x)
        below = [x]
        for down, skip in zip(self.downs, reversed(above[:-1]), strict=True):
            x = down(x, skip)
            below.append(x)
        x = self.bottom_second(x)
        return x, below, F.relu(self.dense_first(dense) + self.dense_second(x.flatten(1)))

    def prepare(self, images: Tensor) -> Tensor:
        """Images as the network reads them: as they are, or on a wide grey canvas with the background's mask."""
        height, width = self.plan.size
        images = to_side(images, height, type(self).__name__)
        if self.plan.channels == 3:
            return images
        background = (images > WHITE).all(1, keepdim=True).to(images.dtype)
        beside = ((width - height) // 2,) * 2
        colour = F.pad(images * (1 - background) + GREY * background, beside, value=GREY)
        return torch.cat([colour, F.pad(background, beside, value=1.0)], dim=1)


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    groups = max(1, channels // 8)
    return nn.GroupNorm(groups if channels % groups == 0 else 1, channels)


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, norm: str = "none") -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
    return nn.Sequential(convolution, _norm(norm, outputs), nn.ReLU(inplace=True))


def _ups(inputs: int, skips: list[int], outputs: list[int], count: int, norm: str) -> nn.ModuleList:
    """``count`` deconvolutions from the bottom, each joined to the next higher stage."""
    joins = nn.ModuleList()
    for skip, out in zip(reversed(skips), [*reversed(outputs)][:count], strict=False):
        joins.append(Join(nn.ConvTranspose2d(inputs, out, 5, 2, 2, output_padding=1), skip, out, norm))
        inputs = out
    return joins


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        # A deconvolution of stride 2 gives each pixel a quarter of its kernel: fan-out counts what arrives.
        if isinstance(module, nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=(2 / (module.in_channels * 25 / 4)) ** 0.5)
        else:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        assert module.bias is not None  # noqa: S101 - for the type checker
        nn.init.zeros_(module.bias)
