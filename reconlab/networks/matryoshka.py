"""Matryoshka Networks (Richter and Roth, CVPR 2018): an image to nested shape layers of six depth maps."""

from __future__ import annotations

from math import log2
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.networks.base import Network
from reconlab.networks.resize import to_side
from reconlab.networks.resnet import Norm
from reconlab.precision import full_precision
from reconlab.shapes import VoxelGrid
from reconlab.shapes.shape_layers import decode, from_depths, surface_logits


class ShapeLayerGrid(VoxelGrid):
    """A voxel grid that is made of shape layers; it is decoded when somebody asks.

    Args:
        shape_layers: ``(B, L, 6, S, S)`` predicted depth maps in the form that is learned
            (:func:`reconlab.shapes.shape_layers.to_depths`).
        temperature: Of the soft decoding, in cells.
        boolean: Whether ``values`` are the fused and carved cells, 0 or 1, without a gradient and without logits;
            else they are soft, with ``logits``.
    """

    def __init__(self, shape_layers: Tensor, temperature: float, boolean: bool) -> None:
        self.shape_layers = shape_layers
        self.temperature = temperature
        self.boolean = boolean
        self.threshold = 0.5
        self._logits: Tensor | None = None
        self._values: Tensor | None = None

    @property
    def logits(self) -> Tensor | None:  # type: ignore[override]
        """``(B, S, S, S)`` log-odds of ``values``, differentiable; None where the decoding is boolean."""
        if self._logits is None and not self.boolean:
            layers = from_depths(self.shape_layers)
            self._logits = surface_logits(layers, self.temperature) / self.temperature
        return self._logits

    @property
    def values(self) -> Tensor:  # type: ignore[override]
        """``(B, S, S, S)`` occupancy."""
        if self._values is None:
            logits = self.logits
            cells = decode(from_depths(self.shape_layers.detach())) if logits is None else logits.sigmoid()
            self._values = cells.to(self.shape_layers.dtype)
        return self._values

    def anchors(self) -> list[Tensor]:
        """The depth maps."""
        return [self.shape_layers]

    def cells(self) -> Tensor:
        """``(B, S, S, S)`` bool: the layers fused and carved, whatever ``values`` are."""
        return decode(from_depths(self.shape_layers.detach()))

    def __len__(self) -> int:
        return self.shape_layers.shape[0]

    def __getitem__(self, index: slice | int) -> ShapeLayerGrid:
        s = self.as_slice(index, len(self))
        return ShapeLayerGrid(self.shape_layers[s], self.temperature, self.boolean)

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.shape_layers.device

    @property
    def resolution(self) -> int:
        """Cells along each axis."""
        return self.shape_layers.shape[-1]

    def to(self, device: torch.device | str) -> ShapeLayerGrid:
        """Move to a device."""
        return ShapeLayerGrid(self.shape_layers.to(device), self.temperature, self.boolean)

    def valid(self) -> Tensor:
        """``(B,)`` bool: finite, with at least one occupied cell."""
        return self.shape_layers.detach().flatten(1).isfinite().all(1) & super().valid()


class MatryoshkaNet(Network):
    """A residual encoder and decoder of images, without a bottleneck vector: depth maps are images too.

    Normalisation of the input, two 3×3 convolutions (padded by reflection), then residual blocks with normalisation
    and ReLU before each 3×3 convolution: ``down + log2(image_side / resolution)`` times one that halves the side
    and one that keeps it, ``blocks`` that keep it, ``down`` times one that doubles it (4×4 transposed convolution)
    and one that keeps it, and a 3×3 convolution to ``6 · layers`` maps. Channels grow and shrink by equal steps
    between ``initial``, ``inner`` and ``final``; what does not divide is added to ``initial`` and to what ``final``
    becomes (132 for the defaults). 52 855 152 parameters at 32³.

    Departures from the released code: the image's background is white (there: grey 128); maps are rounded when
    decoded (there: cut off); the loss reads all layers (there: the first six maps only).

    Args:
        resolution: ``S``, cells along each axis; a power of two, at least ``2 ** down``.
        layers: Nested shape layers ``L``. The authors advise one for ShapeNet.
        initial: Channels after the first convolution (``ninf``).
        inner: Most channels (``ngf``).
        final: Channels before the last convolution (``noutf``).
        down: Halvings that are undone later.
        blocks: Residual blocks at the smallest side.
        image_side: Pixels that the image is brought to; a power of two.
        norm: ``batch`` as published; ``group`` does not depend on the batch (with steps of 8 images running
            statistics are too poor to predict with).
        shuffle_colours: While training, permute each image's colour channels at random, for half of the images with
            repetition, as the released code does (from torch's global generator).
        temperature: Of the soft decoding, in cells.
        start: Side of the cube that an untrained network predicts, as a share of the grid's, set by the last biases.
            0 leaves them as released: the grid begins empty, without a surface for image losses to move.
        export: How grids are decoded outside training: ``boolean`` as published, or ``soft``, whose surface lies
            between cells. While training it is always soft.

    Raises:
        ReconlabError: A setting is out of range.
    """

    def __init__(
        self,
        resolution: int = 32,
        layers: int = 1,
        initial: int = 8,
        inner: int = 512,
        final: int = 128,
        down: int = 5,
        blocks: int = 1,
        image_side: int = 128,
        norm: Norm = "batch",
        shuffle_colours: bool = True,
        temperature: float = 0.15,
        start: float = 0.0,
        export: Literal["boolean", "soft"] = "boolean",
    ) -> None:
        super().__init__()
        for name, value in (("layers", layers), ("initial", initial), ("final", final), ("down", down)):
            if value < 1:
                raise ReconlabError(f"MatryoshkaNet: {name} is {value}; expected at least 1.")
        for name, value in (("resolution", resolution), ("image_side", image_side)):
            if value < 2**down or value & (value - 1):
                raise ReconlabError(
                    f"MatryoshkaNet: {name} is {value}; expected a power of two of at least 2 ** down = {2**down}."
                )
        if blocks < 0 or not temperature > 0:
            raise ReconlabError(
                f"MatryoshkaNet: blocks is {blocks} and temperature {temperature}; expected 0 or more, and above 0."
            )
        if not 0 <= start < 1:
            raise ReconlabError(f"MatryoshkaNet: start is {start}; expected a share of the grid's side in [0, 1).")
        for name, text, allowed in (("norm", norm, ("batch", "group")), ("export", export, ("boolean", "soft"))):
            if text not in allowed:
                raise ReconlabError(f"MatryoshkaNet: {name} is {text!r}; choose {' or '.join(allowed)}.")
        self.resolution, self.layers, self.image_side, self.norm = resolution, layers, image_side, norm
        self.shuffle_colours, self.temperature, self.export = shuffle_colours, temperature, export
        ratio = round(log2(image_side / resolution))
        downs, ups = down + max(ratio, 0), down + max(-ratio, 0)
        if inner < initial + downs or inner < final:
            raise ReconlabError(
                f"MatryoshkaNet: inner is {inner}; expected at least initial + {downs} = {initial + downs} "
                f"and at least final = {final}."
            )
        step = (inner - initial) // downs
        channels = initial + (inner - initial) % step
        self.inner_side = image_side >> downs
        parts: list[nn.Module] = [_normalisation(norm, 3), nn.ReflectionPad2d(1), nn.Conv2d(3, channels, 3)]
        parts += [_normalisation(norm, channels), nn.ReLU(inplace=True)]
        parts += [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3)]
        for _ in range(downs):
            parts += [_Down(channels, channels + step, norm), _Same(channels + step, norm)]
            channels += step
        parts += [_Same(channels, norm) for _ in range(blocks)]
        step = (channels - final) // ups
        for _ in range(ups):
            parts += [_Up(channels, channels - step, norm), _Same(channels - step, norm)]
            channels -= step
        last = nn.Conv2d(channels, 6 * layers, 3, padding=1)
        if start > 0 and last.bias is not None:
            end = (1 + start) / 2 * resolution
            with torch.no_grad():
                last.bias[:6] = torch.tensor([end + 1, end]).repeat(3)
        parts.append(last)
        self.model = nn.Sequential(*parts)

    def forward(self, images: Tensor, cameras: Cameras | None = None) -> ShapeLayerGrid:
        """``(B, 3, H, H)`` images in [0, 1] to grids of ``resolution`` cells; cameras are not used.

        Raises:
            ReconlabError: The images are not square, or one alone is to be normalised by its batch.
        """
        if self.training and self.norm == "batch" and len(images) * self.inner_side == 1:
            raise ReconlabError(
                "MatryoshkaNet normalises by batch and cannot train on one image: set batch_size to 2 or more, "
                "or norm to group."
            )
        images = to_side(images, self.image_side, "MatryoshkaNet")
        if self.training and self.shuffle_colours:
            images = _shuffle_colours(images)
        # A depth counts cells: half precision would round it to an eighth of one.
        depths = full_precision(self.model[-1], self.model[:-1](images)).unflatten(1, (self.layers, 6))
        return ShapeLayerGrid(depths, self.temperature, boolean=not self.training and self.export == "boolean")


def _shuffle_colours(images: Tensor) -> Tensor:
    batch = len(images)
    order = torch.rand(batch, 3).argsort(1)
    repeated = torch.randint(3, (batch, 3))
    chosen = torch.where(torch.rand(batch, 1) < 0.5, repeated, order).to(images.device)
    return images.gather(1, chosen[:, :, None, None].expand_as(images))


def _normalisation(kind: Norm, channels: int) -> nn.Module:
    # Groups of about 32 channels: the smallest maps have one pixel, so small groups would normalise everything away.
    groups = max(1, channels // 32)
    while channels % groups:
        groups -= 1
    return nn.BatchNorm2d(channels) if kind == "batch" else nn.GroupNorm(groups, channels)


def _block(first: nn.Module, inputs: int, outputs: int, norm: Norm) -> nn.Sequential:
    """Normalisation, ReLU, ``first``, normalisation, ReLU, 3×3 convolution."""
    return nn.Sequential(
        _normalisation(norm, inputs),
        nn.ReLU(),
        first,
        _normalisation(norm, outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1),
    )


class _Same(nn.Module):
    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.model = _block(nn.Conv2d(channels, channels, 3, padding=1), channels, channels, norm)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.model(x)


class _Down(nn.Module):
    """Half the side; the skip takes every second pixel, with zeros for the new channels."""

    def __init__(self, inputs: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        self.model = _block(nn.Conv2d(inputs, outputs, 3, 2, 1), inputs, outputs, norm)
        self.new = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.new)) + self.model(x)


class _Up(nn.Module):
    """Twice the side; the skip repeats pixels after a 1×1 convolution."""

    def __init__(self, inputs: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        self.model = _block(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), inputs, outputs, norm)
        self.project = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        # The projection commutes with repeating pixels and costs a quarter before it.
        return F.interpolate(self.project(x), scale_factor=2, mode="nearest") + self.model(x)
