"""OGN (Tatarchenko et al., ICCV 2017): an image to an octree, level by level."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reconlab.batch import Batch
from reconlab.cameras import Cameras
from reconlab.errors import ReconlabError
from reconlab.kernels.octree import (
    MIXED,
    child_neighbours,
    children,
    level_sides,
    neighbours,
    octree_conv,
    octree_deconv,
    octree_labels,
    side_bits,
    to_morton,
)
from reconlab.networks.base import Network
from reconlab.networks.resnet import Norm, ResNet18
from reconlab.precision import full_precision
from reconlab.shapes.octree import OctreeGrid, OctreeLevel, true_grid

SEED = 4
"""Side of the dense grid that the code is mapped to."""

Propagation = Literal["known", "predicted"]


class OctreeLimitWarning(UserWarning):
    """A network wanted to divide more cells than it may."""


class OctreeStep(nn.Module):
    """From one level's cells to the next: a 2³ deconvolution of stride 2, and a 3³ convolution if wanted; ReLU.

    Args:
        inputs: Features of a parent.
        outputs: Of a child.
        conv: Add the 3³ convolution, which sees the children that are present.
    """

    def __init__(self, inputs: int, outputs: int, conv: bool) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.empty(inputs, 8, outputs))
        self.up_bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.up, 0.0, (2 / inputs) ** 0.5)
        self.conv: nn.Parameter | None = None
        if conv:
            self.conv = nn.Parameter(torch.empty(27, outputs, outputs))
            self.conv_bias = nn.Parameter(torch.zeros(outputs))
            # As dense layers: half of the 27 neighbours is absent on a surface, which the levels' few layers bear.
            nn.init.normal_(self.conv, 0.0, (2 / (27 * outputs)) ** 0.5)

    def forward(self, features: Tensor, parents: Tensor, bits: int) -> Tensor:
        """``features (P, C)`` of sorted ``parents (P,)`` of a level of ``bits``, to ``(8 P, C')`` of the children."""
        x = F.relu(octree_deconv(features, self.up, self.up_bias))
        if self.conv is not None:
            x = F.relu(octree_conv(x, self.conv, self.conv_bias, child_neighbours(neighbours(parents, bits))))
        return x


class OGN(Network):
    """An encoder, a dense grid of features, and octree levels that divide the cells found MIXED.

    ResNet-18 → code → a dense 4³ grid (fully connected), doubled by 4³ deconvolutions up to ``start``³, one 3³
    convolution, and three logits per cell (EMPTY, FILLED, MIXED): the octree's first level. Then per level, on the
    MIXED cells alone: a 2³ deconvolution, a 3³ convolution, a linear layer to logits. The finest level has two.

    Which cells are divided is known from the truth while training (``propagation="known"``, the authors' first
    phase; it reads the truth of the batch) or the network's own most probable class (``predicted``, their second
    phase, and always in evaluation). The authors' layer sizes are not public in the form of text (they are in an
    archive that was not at hand): encoder and channels are our reading.

    With the default arguments 22.6 M parameters, 11.4 M of them in the encoder.

    Args:
        resolution: Cells along each axis of the finest level: ``start · 2^k``, k at least 1.
        start: Side of the coarsest level, a power of two of at least 4.
        channels: Features of a cell of the first level (of the 4³ grid: twice as many); halved from level to level,
            but not below 16.
        latent: Size of the image's code.
        conv: With the 3³ convolutions on the levels.
        context: Also compute the cells around the MIXED ones, whose labels do not count, so that a 3³ convolution
            sees features and not zeros beyond the border of the divided region (the authors' PROP_FALSE).
        propagation: While training.
        known_steps: Optimiser steps after which ``known`` becomes ``predicted``; None: never. The count is kept in
            checkpoints, so that a resumed run or one with ``init_from`` goes on counting.
        known_until: The same as a fraction of the run, in [0, 1]; a run with ``init_from`` begins anew. Give one of
            the two. The trainer tells the fraction (:meth:`advance`); without one it is 0.
        max_cells: Cells of a level, per sample, that a network which divides by its own classes may make. Beyond it
            the cells that are MIXED with the highest probability are divided and the others stay closed, with an
            :class:`OctreeLimitWarning`: an untrained network at 128³ would otherwise fill the memory. The default
            is a whole grid of 64³; surfaces have some 20 000 cells at 128³ and four times as many at each finer
            level. Divisions by the truth, and context, are not limited.
        truth: What tells the true cells: the dataset's ``voxels``, which must have the network's resolution, or
            the ``mesh``, voxelised at that resolution by :meth:`reconlab.shapes.Mesh.voxels` and stored, a bit per
            cell. The latter fills what the surface encloses, the former (built with ``--resolution``) by winding
            numbers: a leaky mesh is hollow by the first rule and solid by the second.
        encoder_width: Channels of ResNet's first stage (64 is ResNet-18).
        encoder_norm: ``batch`` or ``group``, for small batches: see :class:`ResNet18`.
        threshold: What counts as occupied in the composed grids.

    Raises:
        ReconlabError: A setting is out of range.
    """

    steps_taken: Tensor

    def __init__(
        self,
        resolution: int = 32,
        start: int = 8,
        channels: int = 128,
        latent: int = 512,
        conv: bool = True,
        context: bool = False,
        propagation: Propagation = "known",
        known_steps: int | None = None,
        known_until: float | None = None,
        max_cells: int = 1 << 18,
        truth: Literal["voxels", "mesh"] = "voxels",
        encoder_width: int = 64,
        encoder_norm: Norm = "batch",
        threshold: float = 0.5,
    ) -> None:
        super().__init__()
        if start < SEED or start & (start - 1):
            raise ReconlabError(f"OGN: start is {start}; expected a power of two of at least {SEED}.")
        if resolution <= start or resolution % start or (resolution // start) & (resolution // start - 1):
            raise ReconlabError(
                f"OGN: resolution is {resolution}; expected start · 2^k with k of at least 1: "
                f"{start * 2}, {start * 4}, {start * 8}, …"
            )
        for name, value, least in (
            ("channels", channels, 1),
            ("latent", latent, 1),
            ("encoder_width", encoder_width, 1),
            ("max_cells", max_cells, 8),
        ):
            if value < least:
                raise ReconlabError(f"OGN: {name} is {value}; expected at least {least}.")
        if known_steps is not None and known_steps < 0:
            raise ReconlabError(f"OGN: known_steps is {known_steps}; expected 0 or more, or none.")
        if known_until is not None and (known_steps is not None or not 0 <= known_until <= 1):
            raise ReconlabError(
                f"OGN: known_until is {known_until}; expected a fraction of the run in [0, 1], and no known_steps."
            )
        if not 0 < threshold < 1:
            raise ReconlabError(f"OGN: threshold is {threshold}; expected a number between 0 and 1.")
        for name, text, allowed in (
            ("propagation", propagation, ("known", "predicted")),
            ("truth", truth, ("voxels", "mesh")),
        ):
            if text not in allowed:
                raise ReconlabError(f"OGN: {name} must be one of {', '.join(allowed)}, not {text!r}.")
        self.start, self.resolution, self.threshold = start, resolution, threshold
        self.sides = level_sides(resolution, start)
        self.channels, self.context = channels, context
        self.propagation, self.known_steps, self.truth = propagation, known_steps, truth
        self.known_until, self.max_cells = known_until, max_cells
        self._step: int | None = None  # of the run, where a trainer tells it
        self._done, self._phase = 0.0, True
        self.needs = frozenset({"images", truth}) if propagation == "known" else frozenset({"images"})
        self.register_buffer("steps_taken", torch.zeros((), dtype=torch.int64))
        self.encoder = ResNet18(latent, encoder_width, encoder_norm)
        doublings = side_bits(start // SEED)
        widths = [2 * channels if doublings else channels, *[channels] * doublings]
        self.seed = nn.Linear(latent, widths[0] * SEED**3)
        layers: list[nn.Module] = [nn.Unflatten(1, (widths[0], SEED, SEED, SEED)), nn.ReLU()]
        for inputs, outputs in pairwise(widths):
            layers += [nn.ConvTranspose3d(inputs, outputs, 4, 2, 1), nn.ReLU()]
        layers += [nn.Conv3d(channels, channels, 3, 1, 1), nn.ReLU()]
        self.dense = nn.Sequential(*layers)
        widths = [max(channels >> i, min(channels, 16)) for i in range(len(self.sides))]
        self.levels = nn.ModuleList(OctreeStep(a, b, conv) for a, b in pairwise(widths))
        self.heads = nn.ModuleList(nn.Linear(w, 3) for w in widths[:-1])
        self.heads.append(nn.Linear(widths[-1], 2))
        for module in self.dense:
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                # Eight taps of a 4³ deconvolution of stride 2 meet in an output cell.
                taps = 8 if isinstance(module, nn.ConvTranspose3d) else 27
                nn.init.normal_(module.weight, 0.0, (2 / (taps * module.in_channels)) ** 0.5)
                assert module.bias is not None  # noqa: S101 - for the type checker
                nn.init.zeros_(module.bias)

    @property
    def knows(self) -> bool:
        """Whether the next training step divides cells by the truth."""
        if self.propagation != "known":
            return False
        if self.known_until is not None:
            return self._done < self.known_until
        return self.known_steps is None or int(self.steps_taken) < self.known_steps

    def advance(self, step: int, total: int) -> None:
        """Count the step, once for all batches whose gradients are accumulated, and settle its phase.

        Raises:
            ReconlabError: ``known_until`` is set, but the run has no end that it could refer to.
        """
        if total < 1 and self.known_until is not None:
            raise ReconlabError(
                "OGN: known_until is a fraction of the run: set trainer.max_steps or max_epochs, or known_steps."
            )
        if step == self._step:
            return
        self._step, self._done = step, step / max(total, 1)
        self._phase = self.knows
        self.steps_taken += 1

    def forward(self, images: Tensor, cameras: Cameras | None = None) -> OctreeGrid:
        """``(B, 3, H, W)`` images in [0, 1] to octrees, dividing by the network's own classes; no camera is used."""
        return self.decode(self.encoder(images), None)

    def reconstruct(self, batch: Batch) -> OctreeGrid:
        """The octrees of a batch; in training the cells are divided by the truth as long as ``propagation`` says.

        Raises:
            ReconlabError: The truth is wanted and the batch has none at the network's resolution.
        """
        images = batch.require("images", "OGN")
        if not self.training:
            return self(images)
        mixed = None
        if self.knows if self._step is None else self._phase:
            truth = batch.require(self.truth, "OGN")
            voxels, mesh = (truth, None) if self.truth == "voxels" else (None, truth)
            grid = true_grid(voxels, mesh, self.resolution, "OGN")
            mixed = [labels == MIXED for labels in octree_labels(grid.to(images.device), self.start)]
        if self._step is None and torch.is_grad_enabled():
            self.steps_taken += 1
        return self.decode(self.encoder(images), mixed)

    def decode(self, code: Tensor, mixed: list[Tensor] | None) -> OctreeGrid:
        """Codes ``(B, latent)`` to octrees.

        Args:
            code: Of the images.
            mixed: Per level ``(B · side³,)`` bool in Morton order, which cells are divided; None: those whose most
                probable class is MIXED.
        """
        batch = len(code)
        dense = self.dense(self.seed(code))
        features = torch.stack([to_morton(c) for c in dense.unbind(1)], 1)
        keys = torch.arange(batch * self.start**3, device=code.device)
        context = torch.zeros_like(keys, dtype=torch.bool)
        levels: list[OctreeLevel] = []
        for i, side in enumerate(self.sides):
            logits = full_precision(self.heads[i], features)
            last = i == len(self.sides) - 1
            if last:
                opened = torch.zeros_like(context)
            else:
                opened = logits.argmax(1) == MIXED if mixed is None else mixed[i][keys]
                opened = opened & ~context
                if mixed is None:
                    opened = self._limited(opened, logits.detach(), keys, side)
            levels.append(OctreeLevel(side, keys, logits, opened, context))
            if last:
                break
            bits = side_bits(side)
            spread = opened
            if self.context and bool(opened.any()):
                table = neighbours(keys, bits)
                beside = torch.cat([opened, opened.new_zeros(1)])[table.long()].any(1)
                spread = opened | beside
            rows = spread.nonzero().squeeze(1)
            parents = keys[rows]
            features = self.levels[i](features[rows], parents, bits)
            context = (~opened)[rows].repeat_interleave(8)
            keys = children(parents)
        return OctreeGrid(levels, batch, self.threshold)

    def _limited(self, opened: Tensor, logits: Tensor, keys: Tensor, side: int) -> Tensor:
        """The cells to divide, ``max_cells / 8`` of each sample at most: the surest."""
        room = self.max_cells // 8
        if int(opened.sum()) <= room:
            return opened
        rows = opened.nonzero().squeeze(1)
        samples = torch.div(keys[rows], side**3, rounding_mode="floor")
        many = (torch.bincount(samples) > room).nonzero().squeeze(1).tolist()
        if not many:
            return opened
        warnings.warn(
            f"OGN: {len(many)} samples would divide more than {room} cells of {side}³ and divide the surest alone; "
            "train longer with propagation known, or raise max_cells.",
            OctreeLimitWarning,
            stacklevel=2,
        )
        opened = opened.clone()
        odds = logits[:, MIXED] - logits[:, :MIXED].logsumexp(1)
        for sample in many:
            own = rows[samples == sample]
            opened[own] = False
            opened[own[odds[own].topk(room).indices]] = True
        return opened
