"""Matryoshka Networks' losses (Richter and Roth, CVPR 2018): depth maps as released, overlap as DR-KFS names it.

- **Depth**, as released: on true foreground the absolute error of the depth, in cells; on background
  ``max(0, d + 1)``, so that what is at least one cell behind the background costs nothing. Each is summed over the
  six maps of all layers, averaged over pixels and samples, and divided by the share of pixels that it is about,
  itself summed over maps, but at least 1. (The released loss stops after the first six maps, which leaves further
  layers without a target: not followed.)
- **IoU** and **cosine**: DR-KFS' Table 1 says that Matryoshka trains on "IoU, cos-similarity", of which the released
  code has neither. Our reading: with o the softly decoded grid and v the true one, ``1 - Σ o v / Σ (o + v - o v)``
  and ``1 - Σ o v / (|o| |v|)`` over the cells of a sample.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from reconlab.batch import Batch
from reconlab.errors import ConversionError, ReconlabError
from reconlab.losses.base import Loss
from reconlab.shapes import Shape
from reconlab.shapes.shape_layers import encode, to_depths


class DepthTerms(NamedTuple):
    """Sums over maps of means over pixels, ``(B,)`` each.

    Attributes:
        foreground: Absolute errors, in cells, where the true depth is above 0.
        background: Hinges, in cells, elsewhere.
        foreground_share: Share of pixels of the first kind, in [0, number of maps].
        background_share: Of the second.
    """

    foreground: Tensor
    background: Tensor
    foreground_share: Tensor
    background_share: Tensor

    def total(self) -> Tensor:
        """The released reduction over the batch, a scalar."""
        foreground = self.foreground.mean() / self.foreground_share.mean().clamp_min(1)
        return foreground + self.background.mean() / self.background_share.mean().clamp_min(1)


def depth_terms(pred: Tensor, target: Tensor) -> DepthTerms:
    """Masked absolute error and background hinge of depth maps.

    Args:
        pred: ``(B, L, 6, S, S)`` depths in cells.
        target: The true ones, 0 on background.

    Raises:
        ReconlabError: Shapes differ.

    Example:
        >>> target = torch.tensor([[[[[3.0, 0.0], [0.0, 0.0]]]]])
        >>> terms = depth_terms(torch.tensor([[[[[1.0, -2.0], [0.0, -1.0]]]]]), target)
        >>> terms.foreground.item(), terms.background.item(), terms.foreground_share.item()
        (0.5, 0.25, 0.25)
    """
    if pred.shape != target.shape or pred.ndim != 5:
        raise ReconlabError(
            f"Matryoshka: predicted depth maps are {tuple(pred.shape)}, the true ones {tuple(target.shape)}; "
            "expected (B, L, 6, S, S) for both."
        )
    inside = target > 0
    error, hinge = (pred - target).abs(), (pred + 1).clamp_min(0)
    values = (error * inside, hinge * ~inside, inside.to(pred), (~inside).to(pred))
    return DepthTerms(*(value.mean((-2, -1)).sum((1, 2)) for value in values))


def soft_overlap(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Soft intersection over union and cosine of grids.

    Args:
        pred: ``(B, D, D, D)`` occupancy in [0, 1].
        target: The true occupancy, 0 or 1.

    Returns:
        Both ``(B,)`` in [0, 1]. With an empty true grid both are 0 without a gradient (two empty grids: 1).

    Raises:
        ReconlabError: Shapes differ.
    """
    if pred.shape != target.shape or pred.ndim != 4:
        raise ReconlabError(
            f"Matryoshka: the predicted grid is {tuple(pred.shape)}, the true one {tuple(target.shape)}; "
            "expected (B, D, D, D) for both."
        )
    pred, target = pred.flatten(1), target.to(pred).flatten(1)
    both, ours, theirs = (pred * target).sum(1), pred.sum(1), target.sum(1)
    either, norms = ours + theirs - both, pred.norm(dim=1) * theirs.sqrt()
    empty = either <= 0
    iou = torch.where(empty, 1.0, both / torch.where(empty, 1.0, either))
    missing = norms <= 0
    cosine = torch.where(missing, empty.to(pred), both / torch.where(missing, 1.0, norms))
    return iou, cosine


class Matryoshka(Loss):
    """Weighted sum of the depth, IoU and cosine losses on predicted shape layers.

    Targets are encoded from the batch's voxels, whose resolution must be the network's.

    Args:
        depth: Weight of the released loss.
        iou: Weight of one minus the soft intersection over union.
        cosine: Weight of one minus the cosine.

    Raises:
        ReconlabError: A weight is negative, or none is positive.
    """

    needs = frozenset({"voxels"})

    def __init__(self, depth: float = 1.0, iou: float = 0.0, cosine: float = 0.0) -> None:
        super().__init__()
        weights = {"depth": depth, "iou": iou, "cosine": cosine}
        if not all(value >= 0 for value in weights.values()) or not any(weights.values()):
            raise ReconlabError(f"Matryoshka: the weights are {weights}; expected 0 or more, and one above 0.")
        self.weights = weights

    def forward(self, shape: Shape, batch: Batch) -> dict[str, Tensor]:
        """``"loss"`` and the terms in use: ``depth`` with its ``foreground`` and ``background``, ``iou``, ``cosine``.

        Raises:
            ConversionError: The shape has no shape layers.
            ReconlabError: The true grids have another resolution.
        """
        layers = getattr(shape, "shape_layers", None)
        if layers is None:
            raise ConversionError(
                f"Matryoshka compares shape layers, which {type(shape).__name__} does not have: "
                "choose the network MatryoshkaNet or another loss."
            )
        voxels = batch.require("voxels", "Matryoshka")
        if voxels.shape[0] != layers.shape[0] or voxels.shape[-1] != layers.shape[-1]:
            raise ReconlabError(
                f"Matryoshka: the data's voxels are {tuple(voxels.shape)}, the network's maps {layers.shape[-1]} "
                f"cells wide for {layers.shape[0]} samples; set the network's resolution to the dataset's."
            )
        terms: dict[str, Tensor] = {}
        logged: dict[str, Tensor] = {}
        if self.weights["depth"]:
            parts = depth_terms(layers, to_depths(encode(voxels, layers.shape[1])))
            terms["depth"] = parts.total()
            logged["foreground"] = parts.foreground.detach().mean() / parts.foreground_share.mean().clamp_min(1)
            logged["background"] = terms["depth"].detach() - logged["foreground"]
        if self.weights["iou"] or self.weights["cosine"]:
            overlap = dict(
                zip(("iou", "cosine"), soft_overlap(shape.voxels(voxels.shape[-1]).values, voxels), strict=True)
            )
            terms |= {name: 1 - value.mean() for name, value in overlap.items() if self.weights[name]}
        total = torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
        return {"loss": total, **{name: term.detach() for name, term in terms.items()}, **logged}

    def extra_repr(self) -> str:
        """The weights."""
        return ", ".join(f"{name}={value}" for name, value in self.weights.items())
