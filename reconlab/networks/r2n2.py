"""3D-R2N2 (Choy et al., ECCV 2016), residual GRU: images to a 32³ grid through a recurrent grid of 4³ cells."""

from __future__ import annotations

from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reconlab.batch import Batch
from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.networks.base import Network
from reconlab.networks.resize import to_side
from reconlab.shapes import VoxelGrid

CELLS = 4
WIDTH = 32
SKIPS = ("none", "project", "project", "none", "project", "identity")


class R2N2(Network):
    """Residual encoder, gated recurrence over views on a 4³ grid of cells, residual decoder.

    Encoder: six stages of two 3×3 convolutions (the very first 7×7), each with leaky ReLU, to 96, 128, 256, 256, 256,
    256 channels, a skip around both by 1×1 convolution in stages 2, 3 and 5, by nothing in 6, none in 1 and 4, and a
    2×2 maximum padded by one pixel (127 → 64 → 33 → 17 → 9 → 5 → 3); then 1024 numbers x, leaky. Recurrence, for
    every view: ``u, r = σ(W x + U * h + b)``, ``h ← u h + (1 - u) tanh(W x + U * (r h) + b)``, h of 128 channels
    on 4³ cells, starting at 0, W different for each cell, U a 3³ convolution. Decoder: three times a doubling (values
    at even cells, zeros between) and two 3³ convolutions with a skip, to 128, 128, 64 channels; at 32³ two more to 32
    and one to two numbers per cell. 35 943 106 parameters.

    With one view the state that is read is 0, so its two 3³ convolutions (``gates``, ``candidate``) learn nothing but
    biases.

    Readings. Two numbers per cell under a softmax are one logit, their difference: the grid carries it. The public
    code's last residual block takes its skip from inside the block (after its first convolution); here it is a 1³
    convolution of what enters the block, as in the block before. Weights start from normals of variance 2 / n and
    biases from 0.1 as there, n being the mean of fan-in and fan-out; there W has n = 66, which saturates the gates;
    here its fans count as elsewhere. Leaky ReLU has slope 0.01. Images in training are not cropped, flipped or put
    on random backgrounds.

    Short runs. As published, some hundred steps on few images with plain white backgrounds end at one grid for all
    images: most of what each layer hands on is common to all images (background 1, biases 0.1), nearly all cells are
    empty, and the first steps, whose gradients all say "emptier", go through that common part until nothing else is
    left. ``inverted`` and ``occupied`` together, neither of them the authors', are for such runs
    (docs/drkfs_voxel_networks.md has figures); left alone they change nothing.

    Args:
        views: ``T``. 1 reads the batch's images; more read the first T of its views.
        random_views: While training on several views, read a random number from 1 to T of them at each step, as the
            authors do (from torch's global generator).
        encoder_width: A third of the first stage's channels; all of the encoder and the code grow with it.
        decoder_width: A quarter of the recurrent grid's channels; the decoder grows with it.
        image_side: Pixels that the image is brought to (127 in the paper).
        threshold: What counts as occupied in the grids; the authors' 0.4.
        inverted: Read 1 - image, so that a white background is 0. The authors read [0, 1] and vary backgrounds.
        occupied: Share of the cells that an untrained network takes for occupied, set by the last biases; the last
            weights then start at a tenth of their size. 0.5 leaves both as published.

    Raises:
        ReconlabError: A setting is out of range.
    """

    def __init__(
        self,
        views: int = 1,
        random_views: bool = True,
        encoder_width: int = WIDTH,
        decoder_width: int = WIDTH,
        image_side: int = 127,
        threshold: float = 0.4,
        inverted: bool = False,
        occupied: float = 0.5,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("views", views, 1),
            ("encoder_width", encoder_width, 1),
            ("decoder_width", decoder_width, 1),
            ("image_side", image_side, 8),
        ):
            if value < least:
                raise ReconlabError(f"R2N2: {name} is {value}; expected at least {least}.")
        for name, share in (("threshold", threshold), ("occupied", occupied)):
            if not 0 < share < 1:
                raise ReconlabError(f"R2N2: {name} is {share}; expected a number between 0 and 1.")
        # Images even so: `reconlab predict` has one alone, a sequence of one.
        self.needs = frozenset({"images"} if views == 1 else {"images", "views"})
        self.views, self.random_views = views, random_views
        self.image_side, self.threshold, self.inverted = image_side, threshold, inverted
        code, cells = 32 * encoder_width, 4 * decoder_width
        channels = [3, *(factor * encoder_width for factor in (3, 4, 8, 8, 8, 8))]
        self.stages = nn.ModuleList(
            _Stage(i, o, 3 if n else 7, skip)
            for n, (i, o, skip) in enumerate(zip(channels, channels[1:], SKIPS, strict=False))
        )
        side = image_side
        for _ in SKIPS:
            side = side // 2 + 1
        self.code = nn.Linear(channels[-1] * side**2, code)
        # The three gates (update, reset, candidate) read the same x.
        self.from_code = nn.Linear(code, 3 * cells * CELLS**3, bias=False)
        self.gates = nn.Conv3d(cells, 2 * cells, 3, padding=1)
        self.candidate = nn.Conv3d(cells, cells, 3, padding=1)
        grow = [(cells, cells), (cells, cells), (cells, cells // 2)]
        self.decoder = nn.Sequential(
            *(_Doubling(i, o) for i, o in grow),
            _Residual(cells // 2, cells // 4),
            last := nn.Conv3d(cells // 4, 2, 3, padding=1),
        )
        self.apply(_initialise)
        if occupied != 0.5 and last.bias is not None:
            with torch.no_grad():
                last.weight *= 0.1
                last.bias[1] += log(occupied / (1 - occupied))

    def forward(self, images: Tensor, cameras: Cameras | None = None) -> VoxelGrid:
        """Images ``(B, 3, H, H)`` or several views ``(B, T, 3, H, H)`` in [0, 1] to 32³ grids; cameras are not used.

        Raises:
            ReconlabError: The images are not square, or there is none.
        """
        views = images.unsqueeze(1) if images.ndim == 4 else images
        if views.ndim != 5 or views.shape[1] == 0:
            raise ReconlabError(
                f"R2N2 takes images (B, 3, S, S) or views (B, T, 3, S, S), not {tuple(images.shape)}."
            )
        batch, count = views.shape[:2]
        # Channels last: the same numbers in half the time on CPUs, where the decoder's channels are few.
        x = to_side(views.flatten(0, 1), self.image_side, "R2N2").contiguous(memory_format=torch.channels_last)
        x = 1 - x if self.inverted else x
        for stage in self.stages:
            x = stage(x)
        x = self.from_code(_leaky(self.code(x.flatten(1))))
        x = x.reshape(batch, count, -1, CELLS, CELLS, CELLS)
        h = x.new_zeros(batch, x.shape[2] // 3, CELLS, CELLS, CELLS)
        for view in range(count):
            h = self.step(h, x[:, view])
        logits = self.decoder(h.contiguous(memory_format=torch.channels_last_3d))
        return VoxelGrid.from_logits(logits[:, 1] - logits[:, 0], self.threshold)

    def step(self, h: Tensor, x: Tensor) -> Tensor:
        """One recurrence: state ``(B, C, 4, 4, 4)`` and input ``(B, 3 C, 4, 4, 4)`` (update, reset, candidate)."""
        channels = h.shape[1]
        update, reset = torch.sigmoid(x[:, : 2 * channels] + self.gates(h)).chunk(2, 1)
        candidate = torch.tanh(x[:, 2 * channels :] + self.candidate(reset * h))
        return update * h + (1 - update) * candidate

    def reconstruct(self, batch: Batch) -> VoxelGrid:
        """The shapes of a batch, from its images or from the first views.

        Raises:
            ReconlabError: The batch has fewer views, or none with colours.
        """
        if self.views == 1:
            return self(batch.require("images", "R2N2"))
        views = batch.require("views", "R2N2")
        given = 0 if views.images is None else views.images.shape[1]
        if views.images is None or given < self.views:
            raise ReconlabError(
                f"R2N2: views is {self.views}, the batch has {given}; set data.views to {self.views} or more."
            )
        count = self.views
        if self.training and self.random_views:
            count = int(torch.randint(1, self.views + 1, ()))
        return self(views.images[:, :count])


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.01)


class _Stage(nn.Module):
    """Two convolutions, a skip around them, and the maximum."""

    def __init__(self, inputs: int, outputs: int, kernel: int, skip: str) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip: nn.Module | None = None
        if skip != "none":
            self.skip = nn.Conv2d(inputs, outputs, 1) if skip == "project" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = _leaky(self.second(_leaky(self.first(x))))
        y = y if self.skip is None else y + self.skip(x)
        return F.max_pool2d(y, 2, padding=1)


class _Doubling(nn.Module):
    """Twice the side (values at even cells, zeros between), two convolutions and a skip of the doubled grid.

    A convolution of a grid that is mostly zeros is a transposed convolution of what was there: an eighth of the work.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.ConvTranspose3d(inputs, outputs, 3, 2, 1, output_padding=1)
        self.second = nn.Conv3d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv3d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = _leaky(self.second(_leaky(self.first(x))))
        return y + _spread(x) if isinstance(self.skip, nn.Identity) else y + self.skip(_spread(x))


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv3d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv3d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return _leaky(self.second(_leaky(self.first(x)))) + self.skip(x)


def _spread(x: Tensor) -> Tensor:
    """``(B, C, S, S, S)`` to twice the side: values at even cells, zeros elsewhere."""
    batch, channels, side = x.shape[:3]
    return F.pad(x[:, :, :, None, :, None, :, None], (0, 1, 0, 0, 0, 1, 0, 0, 0, 1)).reshape(
        batch, channels, 2 * side, 2 * side, 2 * side
    )


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d | nn.ConvTranspose3d):
        cells = module.weight[0, 0].numel()
        fans = cells * (module.weight.shape[0] + module.weight.shape[1]) / 2
        nn.init.normal_(module.weight, 0.0, (2 / fans) ** 0.5)
        if module.bias is not None:
            nn.init.constant_(module.bias, 0.1)
